//! TLS for peers that do not speak it: a port of this machine whose connections go on to another one
//! inside TLS.

use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::sync::Arc;

use pacs_gateway::tls::{Client, Identity};
use rustls::pki_types::ServerName;
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Runtime;
use tokio_rustls::TlsConnector;

use super::certificates::Pair;

/// A tunnel, which closes its connections when it is dropped.
pub struct Tunnel {
    /// Where to connect instead.
    pub port: u16,
    runtime: Option<Runtime>,
}

impl Tunnel {
    /// To a port of this machine, showing this certificate.
    pub fn to(port: u16, client: &Pair, ca: PathBuf) -> Self {
        let identity = Identity {
            certificate: client.certificate.clone(),
            key: client.key.clone(),
        };
        let client = Client {
            ca: vec![ca],
            identity: Some(identity),
        };
        let connector = TlsConnector::from(client.config().unwrap());
        let runtime = Runtime::new().unwrap();
        let socket = runtime.block_on(TcpListener::bind((Ipv4Addr::LOCALHOST, 0)));
        let socket = socket.unwrap();
        let own_port = socket.local_addr().unwrap().port();
        runtime.spawn(accept(socket, port, Arc::new(connector)));
        Self {
            port: own_port,
            runtime: Some(runtime),
        }
    }
}

impl Drop for Tunnel {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

async fn accept(socket: TcpListener, port: u16, connector: Arc<TlsConnector>) {
    while let Ok((mut near, _)) = socket.accept().await {
        let connector = Arc::clone(&connector);
        tokio::spawn(async move {
            let Ok(far) = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await else {
                return;
            };
            let _ = (near.set_nodelay(true), far.set_nodelay(true));
            let name = ServerName::try_from("localhost").unwrap();
            if let Ok(mut far) = connector.connect(name, far).await {
                let _ = copy_bidirectional(&mut near, &mut far).await;
            }
        });
    }
}
