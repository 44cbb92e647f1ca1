//! dicom-ul's association over TCP or over TLS.

use dicom_ul::association::Error as UlError;
use dicom_ul::association::client::{
    AsyncClientAssociation, AsyncTlsStream, ClientAssociationOptions,
};
use dicom_ul::pdu::{Pdu, PresentationContextNegotiated, UserVariableItem};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::task::spawn_blocking;

use super::Target;
use crate::tls::TlsError;

/// An association that was established.
pub(super) enum Link {
    Plain(Box<AsyncClientAssociation<TcpStream>>),
    Secure(Box<AsyncClientAssociation<AsyncTlsStream>>),
}

/// Why there is none.
pub(super) enum NoLink {
    /// Our own files.
    Tls(TlsError),
    /// The network or the peer.
    Peer(UlError),
}

impl Link {
    /// Connects and asks for an association. The files of TLS are read each time.
    pub(super) async fn establish(
        target: &Target,
        options: ClientAssociationOptions<'_>,
    ) -> Result<Self, NoLink> {
        let address = target.address.as_str();
        let Some(client) = target.tls.clone() else {
            let association = options.establish_async(address).await;
            let association = association.map_err(NoLink::Peer)?;
            return Ok(Self::Plain(Box::new(association)));
        };
        let config = spawn_blocking(move || client.config()).await;
        let config = config.unwrap_or_else(|_| Err(TlsError::Unusable("not read".to_owned())));
        let options = options
            .tls_config(config.map_err(NoLink::Tls)?)
            .server_name(target.host());
        let association = options.establish_tls_async(address).await;
        let association = association.map_err(NoLink::Peer)?;
        Ok(Self::Secure(Box::new(association)))
    }

    /// The connection below TLS.
    pub(super) fn tcp(&mut self) -> &TcpStream {
        match self {
            Self::Plain(association) => association.inner_stream(),
            Self::Secure(association) => association.inner_stream().get_ref().0,
        }
    }

    pub(super) async fn send(&mut self, pdu: &Pdu) -> Result<(), UlError> {
        match self {
            Self::Plain(association) => association.send(pdu).await,
            Self::Secure(association) => {
                association.send(pdu).await?;
                // What the socket did not take at once waits inside rustls. A failure is the
                // connection's end, which the next read tells.
                let _ = association.inner_stream().flush().await;
                Ok(())
            }
        }
    }

    pub(super) async fn receive(&mut self) -> Result<Pdu, UlError> {
        match self {
            Self::Plain(association) => association.receive().await,
            Self::Secure(association) => association.receive().await,
        }
    }

    /// Sends bytes that are a PDU, to the last one.
    pub(super) async fn write_all(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        match self {
            Self::Plain(association) => association.inner_stream().write_all(bytes).await,
            Self::Secure(association) => {
                let stream = association.inner_stream();
                stream.write_all(bytes).await?;
                stream.flush().await
            }
        }
    }

    /// Ends what we send, for TLS with its close_notify.
    pub(super) async fn close(&mut self) {
        // A failure means that the peer is gone.
        let _ = match self {
            Self::Plain(association) => association.inner_stream().shutdown().await,
            Self::Secure(association) => association.inner_stream().shutdown().await,
        };
    }

    pub(super) async fn abort(self) -> Result<(), UlError> {
        match self {
            Self::Plain(association) => association.abort().await,
            Self::Secure(association) => association.abort().await,
        }
    }

    pub(super) fn acceptor_max_pdu_length(&self) -> u32 {
        match self {
            Self::Plain(association) => association.acceptor_max_pdu_length(),
            Self::Secure(association) => association.acceptor_max_pdu_length(),
        }
    }

    pub(super) fn user_variables(&self) -> &[UserVariableItem] {
        match self {
            Self::Plain(association) => association.user_variables(),
            Self::Secure(association) => association.user_variables(),
        }
    }

    pub(super) fn presentation_contexts(&self) -> &[PresentationContextNegotiated] {
        match self {
            Self::Plain(association) => association.presentation_contexts(),
            Self::Secure(association) => association.presentation_contexts(),
        }
    }
}
