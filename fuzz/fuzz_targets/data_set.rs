//! The data set reader, as the decoder uses it (`DicomFile`) and as the listener does (`identify`):
//! any bytes are read or refused within the limits, both agree on whose instance it is, and it does
//! not matter in which pieces the bytes arrive.
#![no_main]

use std::io::{self, Cursor, Read, Seek, SeekFrom};

use libfuzzer_sys::fuzz_target;
use pacs_gateway_fuzz::dicom::dataset::{
    DataSet, Defect, DicomFile, Identity, ReadError, Value, identify_within,
};
use pacs_gateway_fuzz::{contain_library_panics, decode_all, read_limits};

/// Of a bare data set, which names none.
const TRANSFER_SYNTAXES: &[&str] = &[
    "1.2.840.10008.1.2",
    "1.2.840.10008.1.2.1",
    "1.2.840.10008.1.2.2",
    "1.2.840.10008.1.2.1.99",
];

fuzz_target!(
    init: contain_library_panics(),
    |input: &[u8]| {
        let Some((&choice, bytes)) = input.split_first() else {
            return;
        };
        let chunk = usize::from(choice >> 2) + 1;
        match DicomFile::from_bytes(bytes.to_vec(), &read_limits()) {
            Ok(file) => {
                if !file.meta().transfer_syntax.as_deref().is_some_and(is_deflated) {
                    readable(&file, file.data_set());
                }
                let offset = file.meta().data_set_offset;
                let identity = identify(bytes, offset, file.transfer_syntax(), chunk);
                agree(&file, identity);
                decode_all(bytes.to_vec());
            }
            Err(err) => assert!(!err.is_io(), "memory does not fail: {err:?}"),
        }
        let syntax = TRANSFER_SYNTAXES[usize::from(choice & 3)];
        let _ = identify(bytes, 0, syntax, chunk);
    }
);

fn is_deflated(transfer_syntax: &str) -> bool {
    matches!(
        transfer_syntax,
        "1.2.840.10008.1.2.1.99" | "1.2.840.10008.1.2.4.95" | "1.2.840.10008.1.2.4.205"
    )
}

/// Identifies from whole bytes and from pieces, with the same result.
fn identify(bytes: &[u8], offset: u64, syntax: &str, chunk: usize) -> Result<Identity, ReadError> {
    let limits = read_limits();
    let whole = identify_within(&mut Cursor::new(bytes), offset, syntax, &limits);
    let mut pieces = Pieces {
        bytes: Cursor::new(bytes),
        chunk,
    };
    let pieced = identify_within(&mut pieces, offset, syntax, &limits);
    match (&whole, &pieced) {
        (Ok(whole), Ok(pieced)) => assert_eq!(whole, pieced),
        (Err(whole), Err(pieced)) => {
            assert!(!whole.is_io(), "memory does not fail: {whole:?}");
            assert_eq!(whole.to_string(), pieced.to_string());
        }
        _ => panic!("whole {whole:?}, in pieces {pieced:?}"),
    }
    whole
}

/// What can be decoded was identified by the same UIDs, and is not cut.
fn agree(file: &DicomFile, identity: Result<Identity, ReadError>) {
    let identity = match identity {
        Ok(identity) => identity,
        // Only the listener insists on identifiers that are short and stand there once.
        Err(ReadError::Malformed { .. }) => return,
        Err(err) => panic!("read but not identified: {err:?}"),
    };
    assert_ne!(identity.defect, Some(Defect::Truncated));
    let uid = |element| file.data_set().uid(dicom_tag(element));
    for (element, found) in [
        ((0x0008, 0x0016), &identity.sop_class),
        ((0x0008, 0x0018), &identity.sop_instance),
        ((0x0020, 0x000D), &identity.study),
        ((0x0020, 0x000E), &identity.series),
    ] {
        match (uid(element), found) {
            (None, None) => {}
            // Bytes beyond ASCII are shown in two ways, and are no UID in either.
            (Some(uid), Some(found)) => assert!(!uid.is_ascii() || uid == found.as_str()),
            (uid, found) => panic!("{element:04X?} is {uid:?} and {found:?}"),
        }
    }
}

fn dicom_tag((group, element): (u16, u16)) -> dicom::core::Tag {
    dicom::core::Tag(group, element)
}

/// Every range that the reader hands out lies in the file.
fn readable(file: &DicomFile, data_set: &DataSet) {
    let mut out = Vec::new();
    for element in data_set.elements() {
        let ranges = match &element.value {
            Value::Bytes(_) => continue,
            Value::Items(items) => {
                items.iter().for_each(|item| readable(file, item));
                continue;
            }
            Value::InFile(range) => std::slice::from_ref(range),
            Value::Fragments(ranges) => ranges,
        };
        for range in ranges {
            let length = range.length as usize;
            file.read_at(range.offset, length, &mut out)
                .expect("a range in the file");
            assert_eq!(out.len(), length);
        }
    }
}

/// Reads at most `chunk` bytes at a time.
struct Pieces<'b> {
    bytes: Cursor<&'b [u8]>,
    chunk: usize,
}

impl Read for Pieces<'_> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let length = out.len().min(self.chunk);
        self.bytes.read(&mut out[..length])
    }
}

impl Seek for Pieces<'_> {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.bytes.seek(to)
    }
}
