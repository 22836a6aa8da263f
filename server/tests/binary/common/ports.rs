//! Ports that stay ours over restarts.
//!
//! A port that the OS gives lies in the range that it also gives to outgoing connections: while a node is down, a
//! client may take its port, or even connect to itself. So ports come from below that range, and a lock that dies with
//! this process keeps other tests away: a name among the abstract Unix sockets.

use std::net::TcpListener;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener};

const FIRST: u16 = 15_000;
const COUNT: u16 = 15_000;

/// A loopback port that no other test uses.
pub struct Port {
    number: u16,
    _lock: UnixListener,
}

impl Port {
    pub fn take() -> Self {
        // Tests run in processes of their own: start apart to meet rarely.
        let start = (std::process::id().wrapping_mul(97) % u32::from(COUNT)) as u16;
        let mut numbers = (0..COUNT).map(|offset| FIRST + (start + offset) % COUNT);
        numbers.find_map(Self::try_take).expect("a free port")
    }

    fn try_take(number: u16) -> Option<Self> {
        let name = SocketAddr::from_abstract_name(format!("meridian-test-port-{number}")).ok()?;
        let lock = UnixListener::bind_addr(&name).ok()?;
        TcpListener::bind(("127.0.0.1", number)).ok()?;
        Some(Self { number, _lock: lock })
    }

    pub fn number(&self) -> u16 {
        self.number
    }

    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.number)
    }
}
