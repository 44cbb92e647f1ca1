//! An association of ours on the wire, over TCP or over TLS: set-up and whole PDUs. The PDU types are
//! dicom-ul's; its own client can be told of no stream, and hides why TLS did not come about.

use std::io;

use bytes::{Buf, BytesMut};
use dicom_ul::pdu::{
    AbortRQSource, AssociationAC, AssociationRJ, AssociationRQ, MAXIMUM_PDU_SIZE, Pdu,
    PresentationContextNegotiated, PresentationContextResultReason, ReadError, UserVariableItem,
    read_pdu, write_pdu,
};
use rustls::pki_types::ServerName;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::spawn_blocking;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_util::either::Either;

use super::{PATIENCE, Target};
use crate::tls::TlsError;

/// Maximum PDU length we offer. We receive responses only.
pub(super) const MAX_PDU_LENGTH: u32 = 16_384;

/// Record type and version that a TLS alert begins with.
const ALERT: [u8; 2] = [0x15, 0x03];

/// An established association.
pub(super) struct Link {
    stream: Either<TcpStream, Box<TlsStream<TcpStream>>>,
    received: BytesMut,
    /// Presentation contexts that the peer accepted.
    pub(super) contexts: Vec<PresentationContextNegotiated>,
    /// What the peer said about itself and about what we asked.
    pub(super) user_variables: Vec<UserVariableItem>,
    /// Longest P-DATA-TF that the peer takes.
    pub(super) peer_max_pdu_length: u32,
}

/// Why there is no association.
pub(super) enum NoLink {
    Failed(LinkError),
    Rejected(AssociationRJ),
    NothingAccepted,
}

impl From<LinkError> for NoLink {
    fn from(error: LinkError) -> Self {
        Self::Failed(error)
    }
}

/// What is wrong with a connection, or with what comes over it.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    /// Our certificate, its key or the authorities cannot be used.
    #[error("files of TLS cannot be used")]
    Files(#[source] TlsError),
    /// The host is neither a name nor an address.
    #[error("the host of the address cannot be in a certificate")]
    Host,
    /// No connection.
    #[error("no connection")]
    Connect(#[source] io::Error),
    /// The peer is not who it should be, or does not take us.
    #[error("no TLS handshake")]
    Handshake(#[source] io::Error),
    /// The connection broke.
    #[error("the connection failed")]
    Io(#[from] io::Error),
    /// The peer closed the connection.
    #[error("the peer closed the connection")]
    Closed,
    /// The peer sent A-ABORT.
    #[error("the peer aborted")]
    Aborted,
    /// The peer answered in TLS.
    #[error("the peer speaks TLS, and we did not")]
    SpeaksTls,
    /// What came is no PDU.
    #[error("what the peer sent cannot be read")]
    Pdu(#[source] Box<ReadError>),
    /// What came has no place there.
    #[error("the peer answered with something else")]
    Unexpected,
    /// Our own PDU cannot be written.
    #[error("a PDU cannot be written")]
    Write,
}

impl Link {
    /// Connects and asks for an association. The files of TLS are read each time.
    pub(super) async fn establish(target: &Target, request: AssociationRQ) -> Result<Self, NoLink> {
        let mut link = Self {
            stream: connect(target).await?,
            received: BytesMut::new(),
            contexts: Vec::new(),
            user_variables: Vec::new(),
            peer_max_pdu_length: MAX_PDU_LENGTH,
        };
        let proposed = request.presentation_contexts.clone();
        link.send(&Pdu::AssociationRQ(request)).await?;
        let accepted = match link.receive().await? {
            Pdu::AssociationAC(accepted) => accepted,
            Pdu::AssociationRJ(rejection) => return Err(NoLink::Rejected(rejection)),
            Pdu::AbortRQ { .. } => return Err(LinkError::Aborted.into()),
            _ => {
                link.abort().await;
                return Err(LinkError::Unexpected.into());
            }
        };
        let AssociationAC {
            presentation_contexts,
            user_variables,
            ..
        } = accepted;
        for answer in presentation_contexts {
            let asked = proposed.iter().find(|context| context.id == answer.id);
            if let Some(asked) = asked
                && answer.reason == PresentationContextResultReason::Acceptance
            {
                link.contexts.push(PresentationContextNegotiated {
                    id: answer.id,
                    reason: answer.reason,
                    transfer_syntax: answer.transfer_syntax,
                    abstract_syntax: asked.abstract_syntax.clone(),
                });
            }
        }
        if link.contexts.is_empty() {
            link.abort().await;
            return Err(NoLink::NothingAccepted);
        }
        let longest = user_variables.iter().find_map(|item| match item {
            // Zero: no limit (PS3.8 D.1).
            UserVariableItem::MaxLength(0) => Some(MAXIMUM_PDU_SIZE),
            UserVariableItem::MaxLength(length) => Some(*length),
            _ => None,
        });
        link.peer_max_pdu_length = longest.unwrap_or(MAX_PDU_LENGTH);
        link.user_variables = user_variables;
        Ok(link)
    }

    /// The connection below TLS.
    pub(super) fn tcp(&self) -> &TcpStream {
        match &self.stream {
            Either::Left(stream) => stream,
            Either::Right(stream) => stream.get_ref().0,
        }
    }

    pub(super) async fn send(&mut self, pdu: &Pdu) -> Result<(), LinkError> {
        let mut bytes = Vec::with_capacity(1024);
        write_pdu(&mut bytes, pdu).map_err(|_| LinkError::Write)?;
        Ok(self.write_all(&bytes).await?)
    }

    /// Sends bytes that are a PDU, to the last one: what the socket does not take at once waits
    /// inside rustls.
    pub(super) async fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes).await?;
        self.stream.flush().await
    }

    /// The next PDU. Cancel-safe. The buffer grows with what arrives.
    pub(super) async fn receive(&mut self) -> Result<Pdu, LinkError> {
        loop {
            if self.received.starts_with(&ALERT) {
                return Err(LinkError::SpeaksTls);
            }
            let mut unread = &self.received[..];
            let read = read_pdu(&mut unread, MAX_PDU_LENGTH, true);
            let rest = unread.len();
            if let Some(pdu) = read.map_err(|err| LinkError::Pdu(Box::new(err)))? {
                self.received.advance(self.received.len() - rest);
                return Ok(pdu);
            }
            if self.stream.read_buf(&mut self.received).await? == 0 {
                return Err(LinkError::Closed);
            }
        }
    }

    /// Ends what we send, for TLS with its close_notify. A failure means that the peer is gone.
    pub(super) async fn close(&mut self) {
        let _ = self.stream.shutdown().await;
    }

    /// Sends A-ABORT and closes.
    pub(super) async fn abort(&mut self) {
        let source = AbortRQSource::ServiceUser;
        if self.send(&Pdu::AbortRQ { source }).await.is_ok() {
            self.close().await;
        }
    }
}

async fn connect(
    target: &Target,
) -> Result<Either<TcpStream, Box<TlsStream<TcpStream>>>, LinkError> {
    let tcp = async { timeout(PATIENCE, TcpStream::connect(&target.address)).await? };
    let Some(client) = target.tls.clone() else {
        return Ok(Either::Left(ready(tcp.await)?));
    };
    let name = ServerName::try_from(target.host().to_owned()).map_err(|_| LinkError::Host)?;
    let config = spawn_blocking(move || client.config()).await;
    let config = config.unwrap_or_else(|_| Err(TlsError::Unusable("not read".to_owned())));
    let connector = TlsConnector::from(config.map_err(LinkError::Files)?);
    let stream = ready(tcp.await)?;
    let stream = connector.connect(name, stream).await;
    Ok(Either::Right(Box::new(
        stream.map_err(LinkError::Handshake)?,
    )))
}

/// A command and a last short fragment must not wait for an acknowledgement.
fn ready(connected: io::Result<TcpStream>) -> Result<TcpStream, LinkError> {
    let prepared = connected.and_then(|stream| stream.set_nodelay(true).map(|()| stream));
    prepared.map_err(LinkError::Connect)
}
