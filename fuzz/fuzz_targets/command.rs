//! Command sets: one that is read is written, and then read as the same; what is not one is refused
//! with a reason. Nothing a peer writes there makes us say what we may not send.
#![no_main]

use libfuzzer_sys::fuzz_target;
use pacs_gateway_fuzz::dicom::command::{Command, MAX_COMMAND_LENGTH};

/// Longest Error Comment (0000,0902), value representation LO.
const MAX_COMMENT: usize = 64;

fuzz_target!(|bytes: &[u8]| {
    let mut command = match Command::decode(bytes) {
        Ok(command) => command,
        Err(reason) => return assert!(!reason.to_string().is_empty()),
    };
    // Reading allocates no more than the text it was given, three bytes for one that is no text.
    let text = [
        &command.affected_sop_class,
        &command.affected_sop_instance,
        &command.requested_sop_class,
        &command.requested_sop_instance,
        &command.error_comment,
    ];
    let length: usize = text
        .iter()
        .map(|text| text.as_ref().map_or(0, String::len))
        .sum();
    assert!(length <= 3 * bytes.len());
    // Where a cut goes through the command set, it is another one or none.
    if let Some(cut) = bytes.len().checked_sub(1) {
        let _ = Command::decode(&bytes[..cut]);
    }
    let written = command.encode();
    assert!(written.len() % 2 == 0 && written.len() <= 3 * MAX_COMMAND_LENGTH.max(bytes.len()));
    let counted = u32::from_le_bytes(written[8..12].try_into().expect("a group length"));
    assert_eq!(counted as usize, written.len() - 12);
    let again = Command::decode(&written).expect("what we write can be read");
    // A comment is cut when it is written, and loses its padding again when it is read.
    command.error_comment = command.error_comment.map(|comment| {
        let cut: String = comment.chars().take(MAX_COMMENT).collect();
        cut.trim_end_matches(['\0', ' ']).to_owned()
    });
    assert_eq!(again, command);
    assert_eq!(command.field.response().0, command.field.0 | 0x8000);
    assert!(!(command.field.is_response() && command.field.has_response()));
});
