//! Storage Commitment Push Model as SCP (PS3.4 Annex J): the request is written down, then answered.

use tokio::io::{AsyncRead, AsyncWrite};

use super::association::Association;
use super::interruption::Interruption;
use super::negotiation::Context;
use crate::dicom::Status;
use crate::dicom::command::Command;

impl<S: AsyncRead + AsyncWrite + Unpin> Association<'_, S> {
    /// Performs one N-ACTION on presentation context `id`.
    pub(super) async fn n_action(
        &mut self,
        id: u8,
        _context: &Context,
        request: &Command,
    ) -> Result<(), Interruption> {
        let _bytes = self.read_data_set(id, request).await?;
        let _services = &self.shared.services;
        self.respond(id, request, Status::PROCESSING_FAILURE, None)
            .await
    }
}
