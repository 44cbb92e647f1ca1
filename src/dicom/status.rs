//! DIMSE status codes (PS3.7 Annex C, PS3.4 Table B.2-1).

use std::fmt;

/// The value of Status (0000,0900) in a DIMSE response.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Status(pub u16);

/// What a status means for the requestor (PS3.7 C.1 to C.5).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Category {
    /// The operation was performed.
    Success,
    /// Performed, with a reservation.
    Warning,
    /// Not performed.
    Failure,
    /// The operation was cancelled.
    Cancel,
    /// More responses follow.
    Pending,
}

impl Status {
    /// The operation was performed; for C-STORE: the instance is stored.
    pub const SUCCESS: Self = Self(0x0000);
    /// An attribute has a value that it may not have (PS3.7 C.5.11).
    pub const INVALID_ATTRIBUTE_VALUE: Self = Self(0x0106);
    /// A general failure of ours.
    pub const PROCESSING_FAILURE: Self = Self(0x0110);
    /// The SOP Instance is there already (PS3.7 C.5.9).
    pub const DUPLICATE_INSTANCE: Self = Self(0x0111);
    /// The SOP Instance is not known (PS3.7 C.5.13).
    pub const NO_SUCH_INSTANCE: Self = Self(0x0112);
    /// An argument has a value that it may not have (PS3.7 C.5.12).
    pub const INVALID_ARGUMENT: Self = Self(0x0115);
    /// The SOP Instance UID breaks the UID rules.
    pub const INVALID_OBJECT_INSTANCE: Self = Self(0x0117);
    /// The SOP Class is not known (PS3.7 C.5.16).
    pub const NO_SUCH_CLASS: Self = Self(0x0118);
    /// The SOP Instance is of another SOP Class (PS3.7 C.5.7).
    pub const CLASS_INSTANCE_CONFLICT: Self = Self(0x0119);
    /// An attribute that must be there is not (PS3.7 C.5.19).
    pub const MISSING_ATTRIBUTE: Self = Self(0x0120);
    /// An attribute that must have a value has none (PS3.7 C.5.20).
    pub const MISSING_ATTRIBUTE_VALUE: Self = Self(0x0121);
    /// The SOP Class is not supported.
    pub const SOP_CLASS_NOT_SUPPORTED: Self = Self(0x0122);
    /// The SOP Class knows no such action (PS3.7 C.5.15).
    pub const NO_SUCH_ACTION: Self = Self(0x0123);
    /// The requestor may not do this.
    pub const NOT_AUTHORIZED: Self = Self(0x0124);
    /// A request with a Message ID that is still being worked on.
    pub const DUPLICATE_INVOCATION: Self = Self(0x0210);
    /// A command we do not perform.
    pub const UNRECOGNIZED_OPERATION: Self = Self(0x0211);
    /// A parameter that was not agreed or is missing.
    pub const MISTYPED_ARGUMENT: Self = Self(0x0212);
    /// We lack what it takes (PS3.7 C.5.25).
    pub const RESOURCE_LIMITATION: Self = Self(0x0213);
    /// Refused: out of resources. The requestor may try again.
    pub const OUT_OF_RESOURCES: Self = Self(0xA700);
    /// Error: data set does not match SOP Class.
    pub const DATA_SET_MISMATCH: Self = Self(0xA900);
    /// Error: cannot understand.
    pub const CANNOT_UNDERSTAND: Self = Self(0xC000);
    /// Warning: coercion of data elements.
    pub const COERCION_OF_DATA_ELEMENTS: Self = Self(0xB000);
    /// Warning: data set does not match SOP Class.
    pub const DATA_SET_MISMATCH_WARNING: Self = Self(0xB007);

    /// What the status means for the requestor. Codes outside the standard's ranges are failures:
    /// an unknown answer must not pass for "stored".
    pub const fn category(self) -> Category {
        match self.0 {
            0x0000 => Category::Success,
            0x0001 | 0x0107 | 0x0116 | 0xB000..=0xBFFF => Category::Warning,
            0xFE00 => Category::Cancel,
            0xFF00 | 0xFF01 => Category::Pending,
            _ => Category::Failure,
        }
    }

    /// True when the instance is stored: success, or a warning (PS3.4 B.2.3).
    pub const fn is_stored(self) -> bool {
        matches!(self.category(), Category::Success | Category::Warning)
    }

    /// A few words for people; empty for a code without a name here.
    pub const fn meaning(self) -> &'static str {
        match self.0 {
            0x0000 => "success",
            0x0106 => "invalid attribute value",
            0x0110 => "processing failure",
            0x0111 => "duplicate SOP instance",
            0x0112 => "no such SOP instance",
            0x0115 => "invalid argument value",
            0x0117 => "invalid SOP instance",
            0x0118 => "no such SOP class",
            0x0119 => "class-instance conflict",
            0x0120 => "missing attribute",
            0x0121 => "missing attribute value",
            0x0122 => "SOP class not supported",
            0x0123 => "no such action type",
            0x0124 => "not authorized",
            0x0210 => "duplicate invocation",
            0x0211 => "unrecognized operation",
            0x0212 => "mistyped argument",
            0x0213 => "resource limitation",
            0xA700..=0xA7FF => "out of resources",
            0xA900..=0xA9FF => "data set does not match SOP class",
            0xB000 => "coercion of data elements",
            0xB006 => "elements discarded",
            0xB007 => "data set does not match SOP class",
            0xC000..=0xCFFF => "cannot understand",
            _ => "",
        }
    }
}

impl fmt::Display for Status {
    /// Four hexadecimal digits, as the standard writes a status.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:04X}", self.0)
    }
}

impl fmt::Debug for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_success_and_warnings_count_as_stored() {
        for (status, stored) in [
            (Status::SUCCESS, true),
            (Status::COERCION_OF_DATA_ELEMENTS, true),
            (Status::DATA_SET_MISMATCH_WARNING, true),
            (Status::OUT_OF_RESOURCES, false),
            (Status::DATA_SET_MISMATCH, false),
            (Status::CANNOT_UNDERSTAND, false),
            (Status(0xFF00), false),
            (Status(0x1234), false),
        ] {
            assert_eq!(status.is_stored(), stored, "{status}");
        }
    }

    #[test]
    fn a_status_prints_as_four_hexadecimal_digits() {
        assert_eq!(Status::SUCCESS.to_string(), "0000");
        assert_eq!(Status::OUT_OF_RESOURCES.to_string(), "A700");
    }
}
