//! The addresses of a node, bound before anything else happens: a port in use ends the start with nothing touched.

use std::net::{SocketAddr, TcpListener, ToSocketAddrs};

use crate::config::Config;
use crate::failure::Failure;

pub struct Ports {
    /// Access nodes only.
    pub sql: Option<TcpListener>,
    pub cluster: TcpListener,
    pub admin: TcpListener,
}

impl Ports {
    pub fn bind(config: &Config) -> Result<Self, Failure> {
        let sql = config.role.has_access().then(|| bind("sql.listen", &config.sql_listen)).transpose()?;
        Ok(Self {
            sql,
            cluster: bind("cluster.listen", &config.cluster_listen)?,
            admin: bind("admin.listen", &config.admin_listen)?,
        })
    }
}

/// The address of a bound listener.
pub fn local_address(listener: &TcpListener) -> Result<SocketAddr, Failure> {
    listener.local_addr().map_err(|error| Failure::failed(format!("could not read an own address: {error}")))
}

fn bind(key: &str, address: &str) -> Result<TcpListener, Failure> {
    let candidates: Vec<SocketAddr> = address
        .to_socket_addrs()
        .map_err(|error| Failure::failed(format!("could not resolve {address} (`{key}`): {error}")))?
        .collect();
    // Sets SO_REUSEADDR: a restart does not wait for connections of the process before.
    let listener = TcpListener::bind(candidates.as_slice()).map_err(|error| refusal(key, address, &error))?;
    listener
        .set_nonblocking(true)
        .map_err(|error| Failure::failed(format!("could not listen on {address} (`{key}`): {error}")))?;
    Ok(listener)
}

fn refusal(key: &str, address: &str, error: &std::io::Error) -> Failure {
    let port = address.rsplit(':').next().unwrap_or_default();
    Failure::failed(match error.kind() {
        std::io::ErrorKind::AddrInUse => format!(
            "port {port} is in use by another process: could not listen on {address}; choose another one with `{key}`"
        ),
        std::io::ErrorKind::AddrNotAvailable => {
            format!("{address} (`{key}`) is no address of this machine")
        }
        std::io::ErrorKind::PermissionDenied => {
            format!("this user may not listen on {address} (`{key}`)")
        }
        _ => format!("could not listen on {address} (`{key}`): {error}"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_in_use_is_named_with_its_key() {
        let first = bind("sql.listen", "127.0.0.1:0").unwrap();
        let address = first.local_addr().unwrap();
        let failure = bind("sql.listen", &address.to_string()).unwrap_err().to_string();
        let port = address.port();
        assert_eq!(
            failure,
            format!(
                "port {port} is in use by another process: could not listen on 127.0.0.1:{port}; \
                 choose another one with `sql.listen`"
            )
        );
    }
}
