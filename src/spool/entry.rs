//! One accepted instance on disk: an ordinary Part 10 file whose file meta group says all we know.
//!
//! The envelope travels in Private Information (0002,0102), a place PS3.10 §7.1 reserves for the
//! writer of the file, so an entry is one file, is written with one sync, and any DICOM tool reads
//! it. The field has a fixed size: it is zero while the data set arrives and is filled in last, with
//! the length and the SHA-256 of the data set. A file is an entry exactly when both agree with it.
//!
//! Layout of the envelope, version 1, little-endian, [`ENVELOPE_BYTES`] long:
//! magic `PGW1` · check (first 4 bytes of the SHA-256 of what follows) · data set length u64 ·
//! data set SHA-256 · received at i64 µs · then NUL-padded text: study 64, series 64, modality 16,
//! body part 16, peer 46.

use std::net::IpAddr;

use sha2::{Digest, Sha256};

use crate::clock::Timestamp;
use crate::dicom::ae_title::AeTitle;
use crate::dicom::uid::{
    SeriesInstanceUid, SopClassUid, SopInstanceUid, StudyInstanceUid, TransferSyntaxUid,
};
use crate::dicom::{IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME};

/// Size of the envelope in bytes.
pub const ENVELOPE_BYTES: usize = 320;

const MAGIC: &[u8; 4] = b"PGW1";
/// What the envelopes of all versions begin with; one character of version follows.
const FAMILY: &[u8; 3] = b"PGW";

/// Names an entry: its place in the order of arrival, and its file (`<16 hex digits>.dcm`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EntryId(pub u64);

impl EntryId {
    /// The id in a file name, or nothing for a file that is not ours.
    pub fn from_file_name(name: &str) -> Option<Self> {
        let digits = name.strip_suffix(".dcm")?;
        if digits.len() != 16 {
            return None;
        }
        u64::from_str_radix(digits, 16).ok().map(Self)
    }

    /// The name of the entry's file.
    pub fn file_name(self) -> String {
        format!("{self}.dcm")
    }
}

impl std::fmt::Display for EntryId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// What the association knows before the data set arrives.
#[derive(Debug, Clone)]
pub struct Arrival {
    /// Calling AE title of the association.
    pub calling_ae: AeTitle,
    /// Called AE title of the association.
    pub called_ae: AeTitle,
    /// Address of the peer.
    pub peer: IpAddr,
    /// Affected SOP Class UID of the C-STORE request.
    pub sop_class: SopClassUid,
    /// Affected SOP Instance UID of the C-STORE request.
    pub sop_instance: SopInstanceUid,
    /// Transfer syntax of the presentation context.
    pub transfer_syntax: TransferSyntaxUid,
}

/// An accepted instance.
#[derive(Debug, Clone)]
pub struct Entry {
    /// Its place in the spool.
    pub id: EntryId,
    /// What the association said.
    pub arrival: Arrival,
    /// Study Instance UID of the data set.
    pub study: StudyInstanceUid,
    /// Series Instance UID of the data set; some private objects have none.
    pub series: Option<SeriesInstanceUid>,
    /// Modality (0008,0060), or empty.
    pub modality: String,
    /// Body Part Examined (0018,0015), or empty.
    pub body_part: String,
    /// When the data set had arrived.
    pub received_at: Timestamp,
    /// When it was durable; unknown for an entry that a start has found, for the seal is written before.
    pub durable_at: Option<Timestamp>,
    /// Bytes of the data set, without the file meta.
    pub data_set_bytes: u64,
    /// SHA-256 of the data set as it was sent.
    pub digest: [u8; 32],
}

/// The bytes before the data set, and where in them the envelope lies.
pub(super) struct Header {
    pub bytes: Vec<u8>,
    pub envelope_at: usize,
}

/// Preamble and file meta (PS3.10 §7.1) with an empty envelope.
pub(super) fn header(arrival: &Arrival) -> Header {
    let mut meta = Vec::with_capacity(1024);
    element(&mut meta, 0x0001, *b"OB", &[0, 1]);
    element(
        &mut meta,
        0x0002,
        *b"UI",
        arrival.sop_class.as_str().as_bytes(),
    );
    element(
        &mut meta,
        0x0003,
        *b"UI",
        arrival.sop_instance.as_str().as_bytes(),
    );
    element(
        &mut meta,
        0x0010,
        *b"UI",
        arrival.transfer_syntax.as_str().as_bytes(),
    );
    element(
        &mut meta,
        0x0012,
        *b"UI",
        IMPLEMENTATION_CLASS_UID.as_bytes(),
    );
    element(
        &mut meta,
        0x0013,
        *b"SH",
        IMPLEMENTATION_VERSION_NAME.as_bytes(),
    );
    element(
        &mut meta,
        0x0016,
        *b"AE",
        arrival.calling_ae.as_str().as_bytes(),
    );
    element(
        &mut meta,
        0x0017,
        *b"AE",
        arrival.calling_ae.as_str().as_bytes(),
    );
    element(
        &mut meta,
        0x0018,
        *b"AE",
        arrival.called_ae.as_str().as_bytes(),
    );
    element(
        &mut meta,
        0x0100,
        *b"UI",
        IMPLEMENTATION_CLASS_UID.as_bytes(),
    );
    element(&mut meta, 0x0102, *b"OB", &[0; ENVELOPE_BYTES]);
    let mut bytes = vec![0; 128];
    bytes.extend_from_slice(b"DICM");
    let length = u32::try_from(meta.len()).unwrap_or(u32::MAX);
    element(&mut bytes, 0x0000, *b"UL", &length.to_le_bytes());
    bytes.extend_from_slice(&meta);
    let envelope_at = bytes.len() - ENVELOPE_BYTES;
    Header { bytes, envelope_at }
}

/// One explicit VR little-endian element of group 0002, padded to even length.
fn element(out: &mut Vec<u8>, element: u16, vr: [u8; 2], value: &[u8]) {
    out.extend_from_slice(&0x0002u16.to_le_bytes());
    out.extend_from_slice(&element.to_le_bytes());
    out.extend_from_slice(&vr);
    let length = value.len().next_multiple_of(2);
    if vr == *b"OB" {
        out.extend_from_slice(&[0, 0]);
        out.extend_from_slice(&u32::try_from(length).unwrap_or(0).to_le_bytes());
    } else {
        out.extend_from_slice(&u16::try_from(length).unwrap_or(0).to_le_bytes());
    }
    out.extend_from_slice(value);
    if length != value.len() {
        out.push(if vr == *b"UI" || vr == *b"OB" {
            0
        } else {
            b' '
        });
    }
}

/// The envelope of a complete entry.
pub(super) fn seal(entry: &Entry) -> [u8; ENVELOPE_BYTES] {
    let mut body = Vec::with_capacity(ENVELOPE_BYTES);
    body.extend_from_slice(&entry.data_set_bytes.to_le_bytes());
    body.extend_from_slice(&entry.digest);
    body.extend_from_slice(&entry.received_at.0.to_le_bytes());
    text(&mut body, entry.study.as_str(), 64);
    text(
        &mut body,
        entry.series.as_ref().map_or("", |uid| uid.as_str()),
        64,
    );
    text(&mut body, &entry.modality, 16);
    text(&mut body, &entry.body_part, 16);
    text(&mut body, &entry.arrival.peer.to_string(), 46);
    body.resize(ENVELOPE_BYTES - 8, 0);
    let mut envelope = [0; ENVELOPE_BYTES];
    envelope[..4].copy_from_slice(MAGIC);
    envelope[4..8].copy_from_slice(&Sha256::digest(&body)[..4]);
    envelope[8..].copy_from_slice(&body);
    envelope
}

fn text(out: &mut Vec<u8>, value: &str, width: usize) {
    let end = out.len() + width;
    out.extend(value.bytes().take(width));
    out.resize(end, 0);
}

/// What the first bytes of a file in the spool turn out to be.
#[derive(Debug)]
pub(super) enum Opened {
    /// A sealed entry and the offset of its data set.
    Sealed(Box<Entry>, u64),
    /// Our file, never completed: nothing was promised about it.
    Incomplete,
    /// Not a file this version wrote.
    Foreign(String),
}

/// Reads preamble, file meta and envelope from the first bytes of a file.
pub(super) fn open(id: EntryId, head: &[u8]) -> Opened {
    if head.get(128..132) != Some(b"DICM".as_slice()) {
        // A crash can leave a file whose first page never reached the disk.
        let blank = head.iter().all(|byte| *byte == 0);
        return if blank {
            Opened::Incomplete
        } else {
            Opened::Foreign("no DICM prefix".to_owned())
        };
    }
    let mut fields = Fields { head, at: 132 };
    let mut meta = std::collections::BTreeMap::new();
    for (element, value) in fields.by_ref() {
        let last = element == 0x0102;
        meta.insert(element, value);
        if last {
            break;
        }
    }
    let envelope = meta.get(&0x0102).copied().unwrap_or_default();
    if let Some(version) = later_version(envelope) {
        return Opened::Foreign(format!(
            "written by a newer gateway, its envelope is {version}"
        ));
    }
    if envelope.len() != ENVELOPE_BYTES {
        return Opened::Foreign("no envelope in the file meta".to_owned());
    }
    if envelope.iter().all(|byte| *byte == 0) {
        return Opened::Incomplete;
    }
    let data_set_at = fields.at as u64;
    match unseal(id, envelope, &meta) {
        Some(entry) => Opened::Sealed(Box::new(entry), data_set_at),
        None => Opened::Foreign("envelope does not check".to_owned()),
    }
}

/// The first bytes of an envelope of ours that this version does not know.
fn later_version(envelope: &[u8]) -> Option<&str> {
    let magic = std::str::from_utf8(envelope.get(..MAGIC.len())?).ok()?;
    let ours = magic.as_bytes().starts_with(FAMILY) && magic.as_bytes() != MAGIC;
    let printable = magic.bytes().all(|byte| byte.is_ascii_alphanumeric());
    (ours && printable).then_some(magic)
}

struct Fields<'a> {
    head: &'a [u8],
    at: usize,
}

impl<'a> Iterator for Fields<'a> {
    type Item = (u16, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let fixed = self.head.get(self.at..self.at + 8)?;
        if fixed[..2] != [2, 0] {
            return None;
        }
        let element = u16::from_le_bytes([fixed[2], fixed[3]]);
        let (start, length) = if &fixed[4..6] == b"OB" {
            let long = self.head.get(self.at + 8..self.at + 12)?;
            let length = u32::from_le_bytes([long[0], long[1], long[2], long[3]]);
            (self.at + 12, usize::try_from(length).ok()?)
        } else {
            (
                self.at + 8,
                usize::from(u16::from_le_bytes([fixed[6], fixed[7]])),
            )
        };
        let end = start.checked_add(length)?;
        let value = self.head.get(start..end)?;
        self.at = end;
        Some((element, value))
    }
}

fn unseal(
    id: EntryId,
    envelope: &[u8],
    meta: &std::collections::BTreeMap<u16, &[u8]>,
) -> Option<Entry> {
    let (magic, rest) = envelope.split_at_checked(4)?;
    let (check, body) = rest.split_at_checked(4)?;
    if magic != MAGIC || check != &Sha256::digest(body)[..4] {
        return None;
    }
    let mut body = Body { rest: body };
    let data_set_bytes = u64::from_le_bytes(body.take(8)?.try_into().ok()?);
    let digest = body.take(32)?.try_into().ok()?;
    let received_at = Timestamp(i64::from_le_bytes(body.take(8)?.try_into().ok()?));
    let study = StudyInstanceUid::parse(body.text(64)?).ok()?;
    let series = body.text(64)?;
    let series = match series {
        "" => None,
        uid => Some(SeriesInstanceUid::parse(uid).ok()?),
    };
    let modality = body.text(16)?.to_owned();
    let body_part = body.text(16)?.to_owned();
    let peer = body.text(46)?.parse().ok()?;
    let field = |element: u16| {
        let value = meta.get(&element)?;
        std::str::from_utf8(value)
            .ok()
            .map(|text| text.trim_end_matches(['\0', ' ']))
    };
    Some(Entry {
        id,
        arrival: Arrival {
            calling_ae: AeTitle::parse(field(0x0016)?).ok()?,
            called_ae: AeTitle::parse(field(0x0018)?).ok()?,
            peer,
            sop_class: SopClassUid::parse(field(0x0002)?).ok()?,
            sop_instance: SopInstanceUid::parse(field(0x0003)?).ok()?,
            transfer_syntax: TransferSyntaxUid::parse(field(0x0010)?).ok()?,
        },
        study,
        series,
        modality,
        body_part,
        received_at,
        durable_at: None,
        data_set_bytes,
        digest,
    })
}

struct Body<'a> {
    rest: &'a [u8],
}

impl<'a> Body<'a> {
    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.rest.split_at_checked(count)?;
        self.rest = rest;
        Some(taken)
    }

    fn text(&mut self, width: usize) -> Option<&'a str> {
        let bytes = self.take(width)?;
        let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(width);
        std::str::from_utf8(&bytes[..end]).ok()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
pub(super) mod tests {
    use super::*;

    pub(in crate::spool) fn arrival(sop_instance: &str) -> Arrival {
        Arrival {
            calling_ae: AeTitle::parse("MODALITY").unwrap(),
            called_ae: AeTitle::parse("PACSGATEWAY").unwrap(),
            peer: "192.0.2.7".parse().unwrap(),
            sop_class: SopClassUid::parse("1.2.840.10008.5.1.4.1.1.2").unwrap(),
            sop_instance: SopInstanceUid::parse(sop_instance).unwrap(),
            transfer_syntax: TransferSyntaxUid::parse("1.2.840.10008.1.2.1").unwrap(),
        }
    }

    fn entry() -> Entry {
        Entry {
            id: EntryId(0x1234),
            arrival: arrival("2.25.1"),
            study: StudyInstanceUid::parse("2.25.2").unwrap(),
            series: Some(SeriesInstanceUid::parse("2.25.3").unwrap()),
            modality: "CT".to_owned(),
            body_part: "CHEST".to_owned(),
            received_at: Timestamp(1_700_000_000_000_000),
            durable_at: None,
            data_set_bytes: 77,
            digest: [9; 32],
        }
    }

    fn sealed() -> (Vec<u8>, usize) {
        let entry = entry();
        let mut header = header(&entry.arrival);
        let end = header.envelope_at + ENVELOPE_BYTES;
        header.bytes[header.envelope_at..end].copy_from_slice(&seal(&entry));
        (header.bytes, header.envelope_at)
    }

    #[test]
    fn a_sealed_header_gives_the_entry_back() {
        let (bytes, _) = sealed();
        let Opened::Sealed(read, data_set_at) = open(EntryId(0x1234), &bytes) else {
            panic!("not sealed");
        };
        assert_eq!(format!("{read:?}"), format!("{:?}", entry()));
        assert_eq!(data_set_at, bytes.len() as u64);
    }

    #[test]
    fn an_unsealed_header_is_incomplete_not_corrupt() {
        let header = header(&arrival("2.25.1"));
        assert!(matches!(
            open(EntryId(1), &header.bytes),
            Opened::Incomplete
        ));
        assert!(matches!(open(EntryId(1), &[0; 200]), Opened::Incomplete));
    }

    #[test]
    fn any_flipped_bit_of_the_envelope_is_noticed() {
        let (bytes, envelope_at) = sealed();
        for at in envelope_at..envelope_at + ENVELOPE_BYTES {
            let mut damaged = bytes.clone();
            damaged[at] ^= 1;
            assert!(
                matches!(open(EntryId(1), &damaged), Opened::Foreign(_)),
                "flip at {at} went unnoticed"
            );
        }
    }

    #[test]
    fn truncated_headers_never_panic() {
        let (bytes, _) = sealed();
        for length in 0..bytes.len() {
            assert!(!matches!(
                open(EntryId(1), &bytes[..length]),
                Opened::Sealed(..)
            ));
        }
    }

    #[test]
    fn file_names_round_trip() {
        let id = EntryId(0x0192_f3a4_b5c6_d7e8);
        assert_eq!(EntryId::from_file_name(&id.file_name()), Some(id));
        assert_eq!(EntryId::from_file_name("../../etc/passwd"), None);
    }
}
