//! PDUs and command sets put together by hand (PS3.8 9.3, PS3.7 6.3), right and wrong ones.

/// PDU types.
pub const RQ: u8 = 0x01;
pub const AC: u8 = 0x02;
pub const RJ: u8 = 0x03;
pub const P_DATA: u8 = 0x04;
pub const RELEASE_RQ: u8 = 0x05;
pub const RELEASE_RP: u8 = 0x06;
pub const ABORT: u8 = 0x07;

/// The Verification SOP class.
pub const VERIFICATION: &str = "1.2.840.10008.1.1";

/// Type, reserved byte, length, contents.
pub fn pdu(kind: u8, body: &[u8]) -> Vec<u8> {
    let mut out = vec![kind, 0];
    out.extend(u32::try_from(body.len()).unwrap().to_be_bytes());
    out.extend(body);
    out
}

/// An item or sub-item of association set-up.
pub fn item(kind: u8, body: &[u8]) -> Vec<u8> {
    let mut out = vec![kind, 0];
    out.extend(u16::try_from(body.len()).unwrap().to_be_bytes());
    out.extend(body);
    out
}

/// A presentation data value; flags 1: command, 2: last fragment.
pub fn pdv(context: u8, flags: u8, fragment: &[u8]) -> Vec<u8> {
    let length = u32::try_from(fragment.len() + 2).unwrap();
    let mut out = length.to_be_bytes().to_vec();
    out.extend([context, flags]);
    out.extend(fragment);
    out
}

/// A P-DATA-TF of these presentation data values.
pub fn p_data(values: &[Vec<u8>]) -> Vec<u8> {
    pdu(P_DATA, &values.concat())
}

/// A presentation context that proposes `transfer_syntaxes` for `abstract_syntax`.
pub fn context(id: u8, abstract_syntax: &str, transfer_syntaxes: &[&str]) -> Vec<u8> {
    let mut body = vec![id, 0, 0, 0];
    body.extend(item(0x30, abstract_syntax.as_bytes()));
    for uid in transfer_syntaxes {
        body.extend(item(0x40, uid.as_bytes()));
    }
    item(0x20, &body)
}

/// An A-ASSOCIATE-RQ of these presentation contexts and user information sub-items.
pub fn association_request(contexts: &[Vec<u8>], user: &[Vec<u8>]) -> Vec<u8> {
    let mut body = vec![0, 1, 0, 0];
    body.extend(format!("{:<16}{:<16}", "PACSGATEWAY", "CT1").into_bytes());
    body.resize(68, 0);
    body.extend(item(0x10, b"1.2.840.10008.3.1.1.1"));
    body.extend(contexts.concat());
    let mut sub_items = item(0x51, &65_536_u32.to_be_bytes());
    sub_items.extend(user.concat());
    body.extend(item(0x50, &sub_items));
    pdu(RQ, &body)
}

/// A command set: Command Field, Message ID, SOP class, and for one with a data set the SOP instance.
pub fn command(field: u16, id: u16, sop_class: &str, sop_instance: Option<&str>) -> Vec<u8> {
    let uid = |number, text: &str| {
        let mut value = text.as_bytes().to_vec();
        value.resize(value.len().next_multiple_of(2), 0);
        element(number, &value)
    };
    let mut body = uid(0x0002, sop_class);
    body.extend(element(0x0100, &field.to_le_bytes()));
    body.extend(element(0x0110, &id.to_le_bytes()));
    match sop_instance {
        Some(text) => {
            body.extend(element(0x0700, &[0, 0]));
            body.extend(element(0x0800, &[0, 0]));
            body.extend(uid(0x1000, text));
        }
        None => body.extend(element(0x0800, &0x0101_u16.to_le_bytes())),
    }
    let length = u32::try_from(body.len()).unwrap();
    [element(0x0000, &length.to_le_bytes()), body].concat()
}

/// A number of a command set, by its element in group 0000.
pub fn number(command: &[u8], wanted: u16) -> Option<u16> {
    let mut rest = command;
    while let Some(head) = rest.first_chunk::<8>() {
        let length = u32::from_le_bytes([head[4], head[5], head[6], head[7]]) as usize;
        if u16::from_le_bytes([head[2], head[3]]) == wanted {
            return Some(u16::from_le_bytes([rest[8], rest[9]]));
        }
        rest = &rest[8 + length..];
    }
    None
}

/// An element of a command set, in implicit VR little endian.
pub fn element(number: u16, value: &[u8]) -> Vec<u8> {
    let mut out = vec![0, 0];
    out.extend(number.to_le_bytes());
    out.extend(u32::try_from(value.len()).unwrap().to_le_bytes());
    out.extend(value);
    out
}
