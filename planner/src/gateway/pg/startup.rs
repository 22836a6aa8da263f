//! From a client's first byte to the first ReadyForQuery: encryption requests, cancel requests, the protocol version,
//! who may come in, and the session's first parameters.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::BufMut;
use tokio::time::timeout;
use tracing::debug;

use super::cancel::{CANCEL_REQUEST, Registered};
use super::failure::{Ended, violation};
use super::frontend::utf8;
use super::wire::Wire;
use super::{Door, backend};
use crate::error::SqlError;
use crate::session::Session;

/// PostgreSQL's `authentication_timeout`.
const STARTUP_MAX: Duration = Duration::from_secs(60);
/// PostgreSQL's `MAX_STARTUP_PACKET_LENGTH`.
const PACKET_BYTES_MAX: usize = 10_000;
const SSL_REQUEST: u32 = 80_877_103;
const GSS_REQUEST: u32 = 80_877_104;
const VERSION_3_0: u32 = 3 << 16;
const VERSION_3_2: u32 = (3 << 16) | 2;
/// Bytes of the cancel secret: what 3.0 has room for, and what PostgreSQL 18 sends by 3.2.
const SECRET_BYTES_3_0: usize = 4;
const SECRET_BYTES_3_2: usize = 32;
/// The one user and the one database until roles and databases exist.
const USER: &str = "meridian";
const DATABASE: &str = "meridian";

/// A client that came in.
pub struct Admitted {
    pub session: Session,
    pub registered: Registered,
}

/// Client and server's first talk. `Ok(None)`: a cancel request, all done.
pub async fn admit(door: &Arc<Door>, wire: &mut Wire, peer: SocketAddr) -> Result<Option<Admitted>, Ended> {
    let talk = timeout(STARTUP_MAX, negotiate(wire));
    let opening = tokio::select! {
        () = door.closing.cancelled() => return Err(Ended::Fatal(going_down())),
        opening = talk => opening.map_err(|_| Ended::Closed)??,
    };
    match opening {
        Opening::Cancel { pid, secret } => {
            let catalog = door.context.cluster.catalog.current();
            if door.registry.cancel(&catalog, pid, &secret).await {
                door.counters.cancels.add(1);
            }
            Ok(None)
        }
        Opening::Startup(startup) => enter(door, wire, peer, startup).map(Some).map_err(Ended::Fatal),
    }
}

/// What the first packet that is not about encryption asks for.
enum Opening {
    Cancel { pid: i32, secret: Vec<u8> },
    Startup(Startup),
}

#[derive(Debug, Default, PartialEq, Eq)]
struct Startup {
    version: u32,
    user: String,
    database: String,
    /// All other parameters; `options` first, which the session takes apart.
    settings: Vec<(String, String)>,
    /// `_pq_.` options, none of which we know.
    unknown: Vec<String>,
}

async fn negotiate(wire: &mut Wire) -> Result<Opening, Ended> {
    let (mut ssl_asked, mut gss_asked) = (false, false);
    loop {
        let length = word(&wire.take_exact(4).await?) as usize;
        if !(8..=PACKET_BYTES_MAX).contains(&length) {
            return Err(Ended::Fatal(violation("invalid length of startup packet")));
        }
        let packet = wire.take_exact(length - 4).await?;
        let (code, body) = (word(&packet), &packet[4..]);
        match code {
            SSL_REQUEST if !ssl_asked => ssl_asked = true,
            GSS_REQUEST if !gss_asked => gss_asked = true,
            CANCEL_REQUEST => return read_cancel(body).map_err(Ended::Fatal),
            _ => return read_startup(code, body).map(Opening::Startup).map_err(Ended::Fatal),
        }
        // TLS and GSS are refused, the client may go on in the clear. Bytes that it sent ahead would be a man in the middle's.
        if wire.has_input() {
            return Err(Ended::Fatal(violation("received unencrypted data after an encryption request")));
        }
        wire.output().put_u8(b'N');
    }
}

fn word(bytes: &[u8]) -> u32 {
    bytes.first_chunk::<4>().map_or(0, |word| u32::from_be_bytes(*word))
}

fn read_cancel(body: &[u8]) -> Result<Opening, SqlError> {
    match body.split_first_chunk::<4>() {
        Some((pid, secret)) if (4..=256).contains(&secret.len()) => {
            Ok(Opening::Cancel { pid: i32::from_be_bytes(*pid), secret: secret.to_vec() })
        }
        _ => Err(violation("invalid length of cancel request packet")),
    }
}

fn read_startup(version: u32, body: &[u8]) -> Result<Startup, SqlError> {
    if version >> 16 != 3 {
        let (major, minor) = (version >> 16, version & 0xffff);
        let message = format!("unsupported frontend protocol {major}.{minor}: server supports 3.0 to 3.2");
        return Err(SqlError::unsupported(message));
    }
    let mut startup = Startup { version, ..Startup::default() };
    for (name, value) in pairs(body)? {
        match name {
            "user" => value.clone_into(&mut startup.user),
            "database" => value.clone_into(&mut startup.database),
            // PostgreSQL applies them first, wherever they stand.
            "options" => startup.settings.insert(0, (name.to_owned(), value.to_owned())),
            "replication" => refuse_replication(value)?,
            _ if name.starts_with("_pq_.") => startup.unknown.push(name.to_owned()),
            _ => startup.settings.push((name.to_owned(), value.to_owned())),
        }
    }
    if startup.user.is_empty() {
        return Err(SqlError::new("28000", "no PostgreSQL user name specified in startup packet"));
    }
    if startup.database.is_empty() {
        startup.database.clone_from(&startup.user);
    }
    Ok(startup)
}

/// Zero-terminated names and values in turn; an empty name ends them and the packet.
fn pairs(body: &[u8]) -> Result<Vec<(&str, &str)>, SqlError> {
    let invalid = || violation("invalid startup packet layout: expected terminator as last byte");
    let mut strings = body.strip_suffix(b"\0").ok_or_else(invalid)?.split(|byte| *byte == 0);
    let mut pairs = Vec::new();
    loop {
        match (strings.next(), strings.next()) {
            (Some(b""), None) => return Ok(pairs),
            (Some(name), Some(value)) if !name.is_empty() => pairs.push((utf8(name)?, utf8(value)?)),
            _ => return Err(invalid()),
        }
    }
}

fn refuse_replication(value: &str) -> Result<(), SqlError> {
    match value.to_ascii_lowercase().as_str() {
        "false" | "off" | "no" | "0" => Ok(()),
        _ => Err(SqlError::unsupported("replication connections are not supported")),
    }
}

/// Checks who asks, makes the session and tells the client all it is told before its first query.
fn enter(door: &Arc<Door>, wire: &mut Wire, peer: SocketAddr, startup: Startup) -> Result<Admitted, SqlError> {
    authorize(peer, &startup)?;
    if door.counters.connections_open.get() >= door.connections_max as u64 {
        return Err(too_many());
    }
    debug!(%peer, user = startup.user, database = startup.database, "client comes in");
    let Startup { version, user, database, settings, unknown } = startup;
    let mut session = Session::new(Arc::clone(&door.context), user, database, settings)?;
    let granted = grant_version(version);
    let secret_bytes = if granted == VERSION_3_0 { SECRET_BYTES_3_0 } else { SECRET_BYTES_3_2 };
    let registered = door.registry.register(secret_bytes);
    session.set_backend_pid(registered.pid);

    let output = wire.output();
    if granted != version || !unknown.is_empty() {
        backend::negotiate_version(output, granted.cast_signed(), unknown);
    }
    backend::authentication_ok(output);
    for (name, value) in session.reported_parameters() {
        backend::parameter_status(output, &name, &value);
    }
    backend::backend_key(output, registered.pid, &registered.secret);
    Ok(Admitted { session, registered })
}

/// Trust on loopback, nobody else; one user, one database.
fn authorize(peer: SocketAddr, startup: &Startup) -> Result<(), SqlError> {
    let Startup { user, database, .. } = startup;
    let host = peer.ip().to_canonical();
    if !host.is_loopback() {
        let message = format!(
            "connection from {host} (user \"{user}\", database \"{database}\") is refused: without authentication \
             only clients on the same machine are trusted"
        );
        return Err(SqlError::new("28000", message));
    }
    if user != USER {
        return Err(SqlError::new("28000", format!("role \"{user}\" does not exist")));
    }
    if database != DATABASE {
        return Err(SqlError::new("3D000", format!("database \"{database}\" does not exist")));
    }
    Ok(())
}

/// The version that is spoken with a client that asks for `asked` (3.x): 3.1 never existed, newer ones do not yet.
fn grant_version(asked: u32) -> u32 {
    if asked >= VERSION_3_2 { VERSION_3_2 } else { VERSION_3_0 }
}

pub fn too_many() -> SqlError {
    SqlError::new("53300", "sorry, too many clients already")
}

fn going_down() -> SqlError {
    SqlError::new("57P03", "the database system is shutting down")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(version: u32, body: &[u8]) -> (String, String) {
        let error = read_startup(version, body).unwrap_err();
        (error.sqlstate, error.message)
    }

    fn authorized(peer: &str, user: &str, database: &str) -> Result<(), String> {
        let startup = Startup { user: user.to_owned(), database: database.to_owned(), ..Startup::default() };
        authorize(peer.parse().unwrap(), &startup).map_err(|error| error.sqlstate)
    }

    #[test]
    fn a_startup_packet_is_read() {
        let body = b"user\0meridian\0TimeZone\0UTC\0options\0-c a.b=1\0_pq_.x\0y\0\0";
        let startup = read_startup(VERSION_3_0, body).unwrap();
        assert_eq!((startup.user.as_str(), startup.database.as_str()), ("meridian", "meridian"));
        let settings = [("options", "-c a.b=1"), ("TimeZone", "UTC")];
        assert_eq!(startup.settings, settings.map(|(name, value)| (name.to_owned(), value.to_owned())));
        assert_eq!(startup.unknown, ["_pq_.x"]);
    }

    #[test]
    fn an_empty_value_is_a_value() {
        let startup = read_startup(VERSION_3_0, b"user\0meridian\0application_name\0\0database\0x\0\0").unwrap();
        assert_eq!(startup.database, "x");
        assert_eq!(startup.settings, [("application_name".to_owned(), String::new())]);
    }

    #[test]
    fn bad_startup_packets_are_refused() {
        assert_eq!(refused(2 << 16, b"\0").0, "0A000");
        assert_eq!(refused(SSL_REQUEST, b"").1, "unsupported frontend protocol 1234.5679: server supports 3.0 to 3.2");
        for body in [&b""[..], b"user", b"user\0", b"user\0meridian", b"user\0meridian\0", b"\0\0", b"user\0\0\0\0x"] {
            assert_eq!(refused(VERSION_3_0, body).0, "08P01", "{body:?}");
        }
        assert_eq!(refused(VERSION_3_0, b"\0").0, "28000");
        assert_eq!(refused(VERSION_3_0, b"user\0a\0replication\0database\0\0").0, "0A000");
        assert_eq!(refused(VERSION_3_0, b"user\0\xff\0\0").0, "22021");
    }

    #[test]
    fn only_loopback_the_user_and_the_database_meridian_come_in() {
        assert_eq!(authorized("127.0.0.1:1", "meridian", "meridian"), Ok(()));
        assert_eq!(authorized("[::1]:1", "meridian", "meridian"), Ok(()));
        assert_eq!(authorized("[::ffff:127.0.0.1]:1", "meridian", "meridian"), Ok(()));
        assert_eq!(authorized("10.0.0.1:1", "meridian", "meridian"), Err("28000".to_owned()));
        assert_eq!(authorized("127.0.0.1:1", "root", "meridian"), Err("28000".to_owned()));
        assert_eq!(authorized("127.0.0.1:1", "meridian", "postgres"), Err("3D000".to_owned()));
    }

    #[test]
    fn versions_are_negotiated_down() {
        let granted = [0, 1, 2, 3, 9999].map(|minor| grant_version((3 << 16) | minor) & 0xffff);
        assert_eq!(granted, [0, 0, 2, 2, 2]);
    }

    #[test]
    fn a_cancel_request_has_a_pid_and_a_secret() {
        assert!(matches!(read_cancel(b"\0\0\0\x05abcd"), Ok(Opening::Cancel { pid: 5, secret }) if secret == b"abcd"));
        assert!(read_cancel(b"\0\0\0\x05abc").is_err());
        assert!(read_cancel(&[0; 261]).is_err());
    }
}
