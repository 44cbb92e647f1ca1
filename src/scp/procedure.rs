//! Modality Performed Procedure Step as SCP (PS3.4 F.7).

use tokio::io::{AsyncRead, AsyncWrite};

use super::association::Association;
use super::interruption::Interruption;
use super::negotiation::Context;
use crate::dicom::Status;
use crate::dicom::command::Command;

impl<S: AsyncRead + AsyncWrite + Unpin> Association<'_, S> {
    /// Performs one N-CREATE on presentation context `id`.
    pub(super) async fn n_create(
        &mut self,
        id: u8,
        _context: &Context,
        request: &Command,
    ) -> Result<(), Interruption> {
        let _bytes = self.read_data_set(id, request).await?;
        self.respond(id, request, Status::PROCESSING_FAILURE, None)
            .await
    }

    /// Performs one N-SET on presentation context `id`.
    pub(super) async fn n_set(
        &mut self,
        id: u8,
        _context: &Context,
        request: &Command,
    ) -> Result<(), Interruption> {
        let _bytes = self.read_data_set(id, request).await?;
        self.respond(id, request, Status::PROCESSING_FAILURE, None)
            .await
    }
}
