//! N-EVENT-REPORT on an association of our own (PS3.7 10.1.1), as the provider of the service.

use super::connection::Connection;
use super::{ScuError, Target};
use crate::dicom::command::{Command, CommandField};
use crate::dicom::transfer_syntax::{EXPLICIT_VR_LITTLE_ENDIAN, IMPLICIT_VR_LITTLE_ENDIAN};
use crate::dicom::{AeTitle, Status};

/// An event that a peer is told of.
#[derive(Debug, Clone, Copy)]
pub struct EventReport<'a> {
    /// Affected SOP Class UID.
    pub sop_class: &'a str,
    /// Affected SOP Instance UID.
    pub sop_instance: &'a str,
    /// Event Type ID.
    pub event_type: u16,
}

/// Reports one event on a new association and gives the peer's status. `information` makes the data
/// set in the transfer syntax that the peer chose.
///
/// # Errors
/// [`ScuError`]; every wait ends after a minute.
pub async fn report_event(
    target: &Target,
    calling: &AeTitle,
    event: EventReport<'_>,
    information: impl Fn(&str) -> Option<Vec<u8>>,
) -> Result<Status, ScuError> {
    let syntaxes = vec![EXPLICIT_VR_LITTLE_ENDIAN, IMPLICIT_VR_LITTLE_ENDIAN];
    let mut connection =
        Connection::establish_as_provider(target, calling, event.sop_class, syntaxes).await?;
    let context = connection.first_accepted().and_then(|(id, syntax)| {
        let information = information(&syntax)?;
        Some((id, information))
    });
    let Some((id, information)) = context else {
        connection.abort().await;
        return Err(ScuError::NothingAccepted(target.to_string()));
    };
    let request = Command {
        affected_sop_class: Some(event.sop_class.to_owned()),
        affected_sop_instance: Some(event.sop_instance.to_owned()),
        event_type: Some(event.event_type),
        ..Command::new(CommandField::N_EVENT_REPORT)
    };
    match connection.perform(id, request, &information).await {
        Ok(status) => {
            connection.release().await;
            Ok(status)
        }
        Err(error) => {
            connection.abort().await;
            Err(error)
        }
    }
}
