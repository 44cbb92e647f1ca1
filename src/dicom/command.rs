//! DIMSE command sets (PS3.7 section 6.3 and Annex E): always Implicit VR Little Endian, group
//! 0000.
//!
//! A command set is small, so it is decoded from one bounded buffer into typed fields. Text fields
//! stay text here, because each has its own status when it does not parse; whoever answers the
//! command checks them. Elements we have no use for are skipped, whatever they hold.

use super::Status;

/// Longest command set we read. The largest legal ones hold an attribute list of a few hundred
/// bytes; the bound is there so that a peer cannot fill memory with "command" fragments.
pub const MAX_COMMAND_LENGTH: usize = 64 * 1024;

/// Value of Command Data Set Type (0000,0800) that says "no data set follows" (PS3.7 E.1).
pub const NO_DATA_SET: u16 = 0x0101;

/// Any other value says that one follows; this is the one we write.
pub const DATA_SET_PRESENT: u16 = 0x0001;

/// Longest Error Comment (0000,0902), value representation LO.
const MAX_COMMENT: usize = 64;

/// Command Field (0000,0100): the operation, with bit 15 set in a response (PS3.7 E.1).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub struct CommandField(pub u16);

impl CommandField {
    /// C-STORE-RQ.
    pub const C_STORE: Self = Self(0x0001);
    /// C-FIND-RQ.
    pub const C_FIND: Self = Self(0x0020);
    /// C-ECHO-RQ.
    pub const C_ECHO: Self = Self(0x0030);
    /// N-EVENT-REPORT-RQ.
    pub const N_EVENT_REPORT: Self = Self(0x0100);
    /// N-SET-RQ.
    pub const N_SET: Self = Self(0x0120);
    /// N-ACTION-RQ.
    pub const N_ACTION: Self = Self(0x0130);
    /// N-CREATE-RQ.
    pub const N_CREATE: Self = Self(0x0140);
    /// C-CANCEL-RQ, the one request without a response (PS3.7 9.3.2.3).
    pub const C_CANCEL: Self = Self(0x0FFF);

    /// The field of the response to this request.
    pub const fn response(self) -> Self {
        Self(self.0 | 0x8000)
    }

    /// True for a response.
    pub const fn is_response(self) -> bool {
        self.0 & 0x8000 != 0
    }

    /// True when the standard defines a service of this number that has a response. Only such a
    /// request can be answered with "unrecognized operation".
    pub const fn has_response(self) -> bool {
        matches!(
            self.0,
            0x0001
                | 0x0010
                | 0x0020
                | 0x0021
                | 0x0030
                | 0x0100
                | 0x0110
                | 0x0120
                | 0x0130
                | 0x0140
                | 0x0150
        )
    }
}

/// Why a command set could not be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CommandError {
    /// An element header or value runs past the end.
    #[error("command set ends inside an element")]
    Truncated,
    /// An element of another group than 0000.
    #[error("command set has an element outside group 0000")]
    Group,
    /// A number whose length is not two bytes.
    #[error("command set has a number of a wrong length")]
    Number,
    /// No Command Field (0000,0100).
    #[error("command set has no command field")]
    NoCommandField,
}

/// A command set: the elements that the services we perform and use have (PS3.7 Annex E).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Command {
    /// Command Field (0000,0100).
    pub field: CommandField,
    /// Message ID (0000,0110) of a request.
    pub message_id: Option<u16>,
    /// Message ID Being Responded To (0000,0120) of a response.
    pub responded_to: Option<u16>,
    /// Affected SOP Class UID (0000,0002), unchecked, without trailing padding.
    pub affected_sop_class: Option<String>,
    /// Affected SOP Instance UID (0000,1000), unchecked, without trailing padding.
    pub affected_sop_instance: Option<String>,
    /// Requested SOP Class UID (0000,0003) of N-SET and N-ACTION, unchecked.
    pub requested_sop_class: Option<String>,
    /// Requested SOP Instance UID (0000,1001) of N-SET and N-ACTION, unchecked.
    pub requested_sop_instance: Option<String>,
    /// Event Type ID (0000,1002) of N-EVENT-REPORT.
    pub event_type: Option<u16>,
    /// Action Type ID (0000,1008) of N-ACTION.
    pub action_type: Option<u16>,
    /// Command Data Set Type (0000,0800); absent counts as "none".
    pub data_set_type: u16,
    /// Priority (0000,0700): 0 medium, 1 high, 2 low.
    pub priority: Option<u16>,
    /// Status (0000,0900) of a response.
    pub status: Option<Status>,
    /// Error Comment (0000,0902) of a response.
    pub error_comment: Option<String>,
    /// Error ID (0000,0903) of a response.
    pub error_id: Option<u16>,
}

impl Command {
    /// An empty command set with this field and no data set.
    pub const fn new(field: CommandField) -> Self {
        Self {
            field,
            message_id: None,
            responded_to: None,
            affected_sop_class: None,
            affected_sop_instance: None,
            requested_sop_class: None,
            requested_sop_instance: None,
            event_type: None,
            action_type: None,
            data_set_type: NO_DATA_SET,
            priority: None,
            status: None,
            error_comment: None,
            error_id: None,
        }
    }

    /// True when a data set follows the command (PS3.7 E.1).
    pub const fn has_data_set(&self) -> bool {
        self.data_set_type != NO_DATA_SET
    }

    /// Reads a command set. The group length element is not needed and not believed.
    ///
    /// # Errors
    /// [`CommandError`] when the bytes are no command set. Nothing is allocated beyond the text
    /// fields, whose lengths `bytes` bounds.
    pub fn decode(bytes: &[u8]) -> Result<Self, CommandError> {
        let mut command = Self::new(CommandField(0));
        let mut field = None;
        let mut rest = bytes;
        while !rest.is_empty() {
            let (element, value, after) = split_element(rest)?;
            rest = after;
            match element {
                0x0002 => command.affected_sop_class = Some(text(value)),
                0x0003 => command.requested_sop_class = Some(text(value)),
                0x0100 => field = Some(CommandField(number(value)?)),
                0x0110 => command.message_id = Some(number(value)?),
                0x0120 => command.responded_to = Some(number(value)?),
                0x0700 => command.priority = Some(number(value)?),
                0x0800 => command.data_set_type = number(value)?,
                0x0900 => command.status = Some(Status(number(value)?)),
                0x0902 => command.error_comment = Some(text(value)),
                0x0903 => command.error_id = Some(number(value)?),
                0x1000 => command.affected_sop_instance = Some(text(value)),
                0x1001 => command.requested_sop_instance = Some(text(value)),
                0x1002 => command.event_type = Some(number(value)?),
                0x1008 => command.action_type = Some(number(value)?),
                _ => {}
            }
        }
        command.field = field.ok_or(CommandError::NoCommandField)?;
        Ok(command)
    }

    /// Writes the command set with its group length, elements in ascending order (PS3.7 6.3.1). A
    /// comment is cut to 64 characters.
    pub fn encode(&self) -> Vec<u8> {
        let mut body = Vec::with_capacity(256);
        if let Some(uid) = &self.affected_sop_class {
            put(&mut body, 0x0002, uid.as_bytes(), b'\0');
        }
        if let Some(uid) = &self.requested_sop_class {
            put(&mut body, 0x0003, uid.as_bytes(), b'\0');
        }
        put(&mut body, 0x0100, &self.field.0.to_le_bytes(), b'\0');
        for (element, value) in [
            (0x0110, self.message_id),
            (0x0120, self.responded_to),
            (0x0700, self.priority),
            (0x0800, Some(self.data_set_type)),
            (0x0900, self.status.map(|status| status.0)),
        ] {
            if let Some(value) = value {
                put(&mut body, element, &value.to_le_bytes(), b'\0');
            }
        }
        if let Some(comment) = &self.error_comment {
            let cut: String = comment.chars().take(MAX_COMMENT).collect();
            put(&mut body, 0x0902, cut.as_bytes(), b' ');
        }
        if let Some(id) = self.error_id {
            put(&mut body, 0x0903, &id.to_le_bytes(), b'\0');
        }
        if let Some(uid) = &self.affected_sop_instance {
            put(&mut body, 0x1000, uid.as_bytes(), b'\0');
        }
        if let Some(uid) = &self.requested_sop_instance {
            put(&mut body, 0x1001, uid.as_bytes(), b'\0');
        }
        for (element, value) in [(0x1002, self.event_type), (0x1008, self.action_type)] {
            if let Some(value) = value {
                put(&mut body, element, &value.to_le_bytes(), b'\0');
            }
        }
        let length = u32::try_from(body.len()).unwrap_or(u32::MAX);
        let mut bytes = Vec::with_capacity(body.len() + 12);
        put(&mut bytes, 0x0000, &length.to_le_bytes(), b'\0');
        bytes.extend_from_slice(&body);
        bytes
    }
}

/// Splits the first element off: its element number, its value, and what follows.
fn split_element(bytes: &[u8]) -> Result<(u16, &[u8], &[u8]), CommandError> {
    let (header, rest) = bytes
        .split_first_chunk::<8>()
        .ok_or(CommandError::Truncated)?;
    let [
        group_low,
        group_high,
        element_low,
        element_high,
        length @ ..,
    ] = *header;
    if u16::from_le_bytes([group_low, group_high]) != 0 {
        return Err(CommandError::Group);
    }
    let length =
        usize::try_from(u32::from_le_bytes(length)).map_err(|_| CommandError::Truncated)?;
    let (value, after) = rest
        .split_at_checked(length)
        .ok_or(CommandError::Truncated)?;
    Ok((
        u16::from_le_bytes([element_low, element_high]),
        value,
        after,
    ))
}

fn number(value: &[u8]) -> Result<u16, CommandError> {
    value
        .try_into()
        .map(u16::from_le_bytes)
        .map_err(|_| CommandError::Number)
}

/// A UID or a short text without its padding. Bytes that are no text become U+FFFD, which no UID
/// check lets through: the request is then refused for its UID, with a response, and not dropped.
fn text(value: &[u8]) -> String {
    let end = value
        .iter()
        .rposition(|byte| !matches!(byte, 0 | b' '))
        .map_or(0, |at| at + 1);
    String::from_utf8_lossy(value.get(..end).unwrap_or_default()).into_owned()
}

fn put(bytes: &mut Vec<u8>, element: u16, value: &[u8], padding: u8) {
    let odd = value.len() % 2;
    let length = u32::try_from(value.len() + odd).unwrap_or(u32::MAX);
    bytes.extend_from_slice(&[0, 0]);
    bytes.extend_from_slice(&element.to_le_bytes());
    bytes.extend_from_slice(&length.to_le_bytes());
    bytes.extend_from_slice(value);
    bytes.resize(bytes.len() + odd, padding);
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use super::*;

    fn store_request() -> Command {
        Command {
            message_id: Some(7),
            affected_sop_class: Some("1.2.840.10008.5.1.4.1.1.2".into()),
            affected_sop_instance: Some("1.2.3".into()),
            data_set_type: DATA_SET_PRESENT,
            priority: Some(2),
            ..Command::new(CommandField::C_STORE)
        }
    }

    #[test]
    fn what_is_written_is_read_back() {
        let request = store_request();
        assert_eq!(Command::decode(&request.encode()).unwrap(), request);
        let response = Command {
            responded_to: Some(7),
            status: Some(Status::OUT_OF_RESOURCES),
            error_comment: Some("no room".into()),
            ..Command::new(CommandField::C_STORE.response())
        };
        assert_eq!(Command::decode(&response.encode()).unwrap(), response);
    }

    #[test]
    fn the_group_length_counts_what_follows_it_and_values_are_even() {
        let bytes = store_request().encode();
        assert_eq!(bytes[..8], [0, 0, 0, 0, 4, 0, 0, 0]);
        assert_eq!(
            u32::from_le_bytes(bytes[8..12].try_into().unwrap()) as usize,
            bytes.len() - 12
        );
        assert_eq!(bytes.len() % 2, 0);
    }

    #[test]
    fn a_comment_is_cut_to_what_the_standard_allows() {
        let command = Command {
            error_comment: Some("x".repeat(100)),
            ..Command::new(CommandField::C_STORE.response())
        };
        assert_eq!(
            Command::decode(&command.encode())
                .unwrap()
                .error_comment
                .unwrap()
                .len(),
            64
        );
    }

    #[test]
    fn broken_command_sets_are_refused_for_their_own_reason() {
        let good = store_request().encode();
        let mut other_group = good.clone();
        other_group[12] = 8;
        let mut long_value = good.clone();
        long_value[17] = 0xff;
        let cases: [(&[u8], CommandError); 5] = [
            (&[], CommandError::NoCommandField),
            (&good[..good.len() - 1], CommandError::Truncated),
            (&other_group, CommandError::Group),
            (&long_value, CommandError::Truncated),
            (&[0, 0, 0, 1, 4, 0, 0, 0, 1, 0, 0, 0], CommandError::Number),
        ];
        for (bytes, error) in cases {
            assert_eq!(Command::decode(bytes), Err(error));
        }
    }

    #[test]
    fn a_wrong_group_length_is_not_believed() {
        let mut bytes = store_request().encode();
        bytes[8..12].copy_from_slice(&[0xff; 4]);
        assert_eq!(Command::decode(&bytes).unwrap(), store_request());
    }

    #[test]
    fn no_single_damage_makes_the_decoder_panic_or_lie() {
        let good = store_request().encode();
        for at in 0..good.len() {
            assert_ne!(
                Command::decode(&good[..at]),
                Ok(store_request()),
                "cut at {at}"
            );
            for value in 0..=u8::MAX {
                let mut bytes = good.clone();
                bytes[at] = value;
                if let Ok(command) = Command::decode(&bytes) {
                    assert_eq!(Command::decode(&command.encode()).unwrap(), command);
                }
            }
        }
    }
}
