//! The sockets of the listener: one for DICOM as it is, one for DICOM over TLS, or both.

use std::future::pending;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use tokio::net::{TcpListener, TcpSocket, TcpStream};

use super::config::Config;
use crate::tls::Acceptor;

/// Connections the kernel holds for us until they are accepted.
const BACKLOG: u32 = 1024;

/// Why the listener cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// The address is taken or not ours.
    #[error("dicom.{key}: cannot listen on {address}")]
    Address {
        /// Its key.
        key: &'static str,
        /// The address.
        address: SocketAddr,
        /// What the system says.
        #[source]
        source: io::Error,
    },
    /// Certificate, key or authorities cannot be used.
    #[error("{0}")]
    Tls(String),
}

/// Ports in use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ports {
    /// Without TLS.
    pub plain: Option<u16>,
    /// With TLS.
    pub tls: Option<u16>,
}

/// Bound sockets.
pub(super) struct Sockets {
    plain: Option<TcpListener>,
    secure: Option<(TcpListener, Arc<Acceptor>)>,
    pub(super) ports: Ports,
}

/// A connection that came in.
pub(super) struct Accepted {
    pub(super) stream: TcpStream,
    pub(super) address: SocketAddr,
    /// What TLS is spoken with; `None`: it is not.
    pub(super) acceptor: Option<Arc<Acceptor>>,
}

impl Sockets {
    pub(super) fn bind(config: &Config) -> Result<Self, BindError> {
        let plain = config
            .plain
            .then(|| open("bind", config.bind))
            .transpose()?;
        let secure = match config.tls.address() {
            Some(address) => {
                let acceptor = config.tls.server().acceptor("dicom");
                let acceptor = acceptor.map_err(BindError::Tls)?;
                Some((open("tls.bind", address)?, Arc::new(acceptor)))
            }
            None => None,
        };
        let port = |socket: Option<&TcpListener>| Some(socket?.local_addr().ok()?.port());
        let ports = Ports {
            plain: port(plain.as_ref()),
            tls: port(secure.as_ref().map(|(socket, _)| socket)),
        };
        Ok(Self {
            plain,
            secure,
            ports,
        })
    }

    pub(super) fn acceptor(&self) -> Option<Arc<Acceptor>> {
        let (_, acceptor) = self.secure.as_ref()?;
        Some(Arc::clone(acceptor))
    }

    /// The next connection. Cancel-safe.
    pub(super) async fn accept(&self) -> io::Result<Accepted> {
        let plain = async {
            match &self.plain {
                Some(socket) => (socket.accept().await, None),
                None => pending().await,
            }
        };
        let secure = async {
            match &self.secure {
                Some((socket, acceptor)) => (socket.accept().await, Some(Arc::clone(acceptor))),
                None => pending().await,
            }
        };
        let (accepted, acceptor) = tokio::select! {
            accepted = plain => accepted,
            accepted = secure => accepted,
        };
        let (stream, address) = accepted?;
        Ok(Accepted {
            stream,
            address,
            acceptor,
        })
    }
}

fn open(key: &'static str, address: SocketAddr) -> Result<TcpListener, BindError> {
    let open = || {
        let socket = match address {
            SocketAddr::V4(_) => TcpSocket::new_v4()?,
            SocketAddr::V6(_) => TcpSocket::new_v6()?,
        };
        // A restart must not wait for the connections of the process before to be forgotten.
        socket.set_reuseaddr(true)?;
        socket.bind(address)?;
        socket.listen(BACKLOG)
    };
    open().map_err(|source| BindError::Address {
        key,
        address,
        source,
    })
}
