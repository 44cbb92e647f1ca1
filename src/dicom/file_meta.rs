//! Reading the File Meta Information of a Part 10 file (PS3.10 section 7.1), tolerantly.
//!
//! Enough to send a file as it is: which transfer syntax and SOP Class and Instance it declares,
//! and where its data set starts. A missing or lying group length is common in the wild and does no
//! harm here, because group 0002 ends where the group number changes.

use std::io::{self, Read};

use super::uid::UidError;
use super::{SopClassUid, SopInstanceUid, TransferSyntaxUid};

/// Preamble and magic number before the first element (PS3.10 7.1).
const PREAMBLE: usize = 128;
const MAGIC: &[u8; 4] = b"DICM";

/// Most bytes of group 0002 we read. Private information (0002,0102) may be long; nothing that we
/// need comes after it.
const MAX_LENGTH: u64 = 1 << 20;

/// What the file meta group says about the data set behind it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileMeta {
    /// Transfer Syntax UID (0002,0010).
    pub transfer_syntax: TransferSyntaxUid,
    /// Media Storage SOP Class UID (0002,0002).
    pub media_storage_sop_class: SopClassUid,
    /// Media Storage SOP Instance UID (0002,0003).
    pub media_storage_sop_instance: SopInstanceUid,
    /// Where the data set starts, in bytes from the start of the file.
    pub data_set_offset: u64,
}

/// Why the file meta group could not be used.
#[derive(Debug, thiserror::Error)]
pub enum FileMetaError {
    /// The file could not be read.
    #[error("failed to read the file meta information")]
    Io(#[from] io::Error),
    /// No preamble and magic number.
    #[error("not a DICOM file: no \"DICM\" after the preamble")]
    NotPart10,
    /// The group ends inside an element or is longer than any honest one.
    #[error("file meta information is cut off or too long")]
    Malformed,
    /// A required element is absent.
    #[error("file meta information has no {0}")]
    Missing(&'static str),
    /// A UID breaks the rules.
    #[error("file meta information has an invalid {0}")]
    Uid(&'static str, #[source] UidError),
}

impl FileMeta {
    /// Reads preamble, magic number and group 0002 from the start of a file. The reader should be
    /// buffered; it is read only a few bytes past the group.
    ///
    /// # Errors
    /// [`FileMetaError`] says what is wrong. At most 1 MiB is read and 64 KiB held.
    pub fn read(reader: impl Read) -> Result<Self, FileMetaError> {
        let mut reader = Counting {
            reader: reader.take(MAX_LENGTH),
            read: 0,
        };
        let mut start = [0; PREAMBLE + MAGIC.len()];
        match reader.fill(&mut start) {
            Err(FileMetaError::Malformed) => return Err(FileMetaError::NotPart10),
            other => other?,
        }
        if !start.ends_with(MAGIC) {
            return Err(FileMetaError::NotPart10);
        }
        let (mut class, mut instance, mut syntax) = (None, None, None);
        let data_set_offset = loop {
            let offset = reader.read;
            let mut tag = [0; 4];
            match reader.fill(&mut tag) {
                // A file that ends after its meta group has an empty data set.
                Err(FileMetaError::Malformed) if reader.read == offset => break offset,
                other => other?,
            }
            let [group_low, group_high, element_low, element_high] = tag;
            if u16::from_le_bytes([group_low, group_high]) != 2 {
                break offset;
            }
            let value = reader.value()?;
            match u16::from_le_bytes([element_low, element_high]) {
                0x0002 => class = value,
                0x0003 => instance = value,
                0x0010 => syntax = value,
                _ => {}
            }
        };
        Ok(Self {
            transfer_syntax: uid(syntax, "transfer syntax UID", TransferSyntaxUid::parse)?,
            media_storage_sop_class: uid(class, "media storage SOP class UID", SopClassUid::parse)?,
            media_storage_sop_instance: uid(
                instance,
                "media storage SOP instance UID",
                SopInstanceUid::parse,
            )?,
            data_set_offset,
        })
    }
}

fn uid<T>(
    value: Option<Vec<u8>>,
    name: &'static str,
    parse: fn(&str) -> Result<T, UidError>,
) -> Result<T, FileMetaError> {
    let value = value.ok_or(FileMetaError::Missing(name))?;
    parse(&String::from_utf8_lossy(&value)).map_err(|error| FileMetaError::Uid(name, error))
}

/// Counts what is read, so that the end of the group is known without seeking.
struct Counting<R> {
    reader: io::Take<R>,
    read: u64,
}

impl<R: Read> Counting<R> {
    /// Fills the buffer; the end of the file is [`FileMetaError::Malformed`].
    fn fill(&mut self, buffer: &mut [u8]) -> Result<(), FileMetaError> {
        let mut filled = 0;
        while let Some(rest) = buffer.get_mut(filled..).filter(|rest| !rest.is_empty()) {
            match self.reader.read(rest) {
                Ok(0) => return Err(FileMetaError::Malformed),
                Ok(count) => {
                    filled += count;
                    self.read += u64::try_from(count).unwrap_or(u64::MAX);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    /// Reads VR, length and value of an Explicit VR Little Endian element (PS3.5 7.1.2). A value
    /// too long to be a UID is skipped and comes back as `None`.
    fn value(&mut self) -> Result<Option<Vec<u8>>, FileMetaError> {
        let mut head = [0; 4];
        self.fill(&mut head)?;
        let [vr_first, vr_second, short @ ..] = head;
        let length = if matches!(
            &[vr_first, vr_second],
            b"OB"
                | b"OW"
                | b"OF"
                | b"OD"
                | b"OL"
                | b"OV"
                | b"SQ"
                | b"UC"
                | b"UN"
                | b"UR"
                | b"UT"
                | b"SV"
                | b"UV"
        ) {
            let mut long = [0; 4];
            self.fill(&mut long)?;
            u64::from(u32::from_le_bytes(long))
        } else {
            u64::from(u16::from_le_bytes(short))
        };
        if length > self.reader.limit() {
            return Err(FileMetaError::Malformed);
        }
        if length > 128 {
            let skipped = io::copy(&mut self.reader.by_ref().take(length), &mut io::sink())?;
            self.read += skipped;
            return if skipped == length {
                Ok(None)
            } else {
                Err(FileMetaError::Malformed)
            };
        }
        let mut value = vec![0; usize::try_from(length).unwrap_or(0)];
        self.fill(&mut value)?;
        Ok(Some(value))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use super::*;

    fn element(element: u16, vr: &[u8; 2], value: &[u8]) -> Vec<u8> {
        let mut bytes = vec![2, 0];
        bytes.extend(element.to_le_bytes());
        bytes.extend(vr);
        if vr == b"OB" {
            bytes.extend([0, 0]);
            bytes.extend(u32::try_from(value.len()).unwrap().to_le_bytes());
        } else {
            bytes.extend(u16::try_from(value.len()).unwrap().to_le_bytes());
        }
        bytes.extend(value);
        bytes
    }

    fn file(elements: &[Vec<u8>]) -> Vec<u8> {
        let mut bytes = vec![0; PREAMBLE];
        bytes.extend(MAGIC);
        bytes.extend(elements.concat());
        bytes.extend([8, 0, 0x16, 0, b'U', b'I', 2, 0, b'1', 0]);
        bytes
    }

    fn elements() -> Vec<Vec<u8>> {
        vec![
            element(0x0001, b"OB", &[0, 1]),
            element(0x0002, b"UI", b"1.2.840.10008.5.1.4.1.1.2\0"),
            element(0x0003, b"UI", b"1.2.3\0"),
            element(0x0010, b"UI", b"1.2.840.10008.1.2.1\0"),
        ]
    }

    #[test]
    fn a_meta_group_without_group_length_is_read_to_its_end() {
        let bytes = file(&elements());
        let meta = FileMeta::read(bytes.as_slice()).unwrap();
        assert_eq!(meta.transfer_syntax.as_str(), "1.2.840.10008.1.2.1");
        assert_eq!(
            meta.media_storage_sop_class.as_str(),
            "1.2.840.10008.5.1.4.1.1.2"
        );
        assert_eq!(meta.media_storage_sop_instance.as_str(), "1.2.3");
        assert_eq!(meta.data_set_offset, bytes.len() as u64 - 10);
    }

    #[test]
    fn a_lying_group_length_and_long_private_information_do_no_harm() {
        let mut all = elements();
        all.insert(0, element(0x0000, b"UL", &[0xff; 4]));
        all.push(element(0x0102, b"OB", &[7; 70_000]));
        let bytes = file(&all);
        let meta = FileMeta::read(bytes.as_slice()).unwrap();
        assert_eq!(meta.data_set_offset, bytes.len() as u64 - 10);
    }

    #[test]
    fn files_that_are_no_part_10_files_are_told_apart_from_damaged_ones() {
        let good = file(&elements());
        assert!(matches!(
            FileMeta::read(&good[..100]),
            Err(FileMetaError::NotPart10)
        ));
        assert!(matches!(
            FileMeta::read(&[b'x'; 200][..]),
            Err(FileMetaError::NotPart10)
        ));
        assert!(matches!(
            FileMeta::read(&good[..150]),
            Err(FileMetaError::Malformed)
        ));
        let without_syntax = file(&elements()[..3]);
        assert!(matches!(
            FileMeta::read(without_syntax.as_slice()),
            Err(FileMetaError::Missing("transfer syntax UID"))
        ));
        let mut hostile = elements();
        hostile[2] = element(0x0003, b"UI", b"../../x\0");
        assert!(matches!(
            FileMeta::read(file(&hostile).as_slice()),
            Err(FileMetaError::Uid(..))
        ));
    }

    #[test]
    fn a_length_beyond_the_bound_is_refused_without_reading_on() {
        let mut all = elements();
        let mut huge = element(0x0102, b"OB", &[]);
        let at = huge.len() - 4;
        huge[at..].copy_from_slice(&u32::MAX.to_le_bytes());
        all.push(huge);
        assert!(matches!(
            FileMeta::read(file(&all).as_slice()),
            Err(FileMetaError::Malformed)
        ));
    }
}
