//! One instance on its way into the spool: created, appended to, committed or dropped.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use sha2::{Digest, Sha256};

use super::entry::{Header, header, seal};
use super::{
    Arrival, DuplicatePolicy, Entry, EntryId, Rivals, Spool, SpoolError, Stored, remove_if_present,
};
use crate::clock::Timestamp;
use crate::dicom::dataset::{self, Identity, ReadError};
use crate::dicom::uid::{SeriesInstanceUid, StudyInstanceUid};

/// Reason code of what came under a known SOP Instance UID.
const OTHER_BYTES: &str = "duplicate-sop-instance";

/// Free space is asked for again after this many bytes of one instance.
const REFRESH_BYTES: u64 = 64 << 20;

/// An instance that is being received. Its methods block; dropping it removes its file.
pub struct Incoming {
    spool: Spool,
    id: EntryId,
    arrival: Arrival,
    file: File,
    header: Header,
    hasher: Sha256,
    data_set_bytes: u64,
    unchecked_bytes: u64,
    kept: bool,
}

impl Incoming {
    pub(super) fn create(spool: Spool, id: EntryId, arrival: Arrival) -> Result<Self, SpoolError> {
        let mut options = OpenOptions::new();
        options.create_new(true).read(true).write(true);
        let file = options.open(spool.path(id));
        let file = file.inspect_err(|_| spool.settle(id))?;
        let mut incoming = Self {
            spool,
            id,
            header: header(&arrival),
            arrival,
            file,
            hasher: Sha256::new(),
            data_set_bytes: 0,
            unchecked_bytes: 0,
            kept: false,
        };
        incoming.file.write_all(&incoming.header.bytes)?;
        Ok(incoming)
    }

    /// Adds a piece of the data set.
    ///
    /// # Errors
    /// A full file system, or a watermark that this very instance reaches.
    pub fn append(&mut self, bytes: &[u8]) -> Result<(), SpoolError> {
        self.hasher.update(bytes);
        self.file.write_all(bytes)?;
        self.data_set_bytes += bytes.len() as u64;
        self.unchecked_bytes += bytes.len() as u64;
        if self.unchecked_bytes >= REFRESH_BYTES {
            self.unchecked_bytes = 0;
            self.spool.refresh();
            if let Some(reason) = self.spool.shedding() {
                return Err(SpoolError::Shedding(reason));
            }
        }
        Ok(())
    }

    /// Checks the data set against its command, seals the file and makes it durable.
    ///
    /// The same bytes under the same SOP Instance UID are accepted without keeping them twice.
    ///
    /// # Errors
    /// [`SpoolError::Malformed`] and [`SpoolError::Mismatch`] blame the sender; the others are ours.
    pub fn commit(mut self) -> Result<Stored, SpoolError> {
        let transfer_syntax = self.arrival.transfer_syntax.as_str();
        let data_set_at = self.header.bytes.len() as u64;
        let identity = dataset::identify(&mut self.file, data_set_at, transfer_syntax).map_err(
            |err| match err {
                ReadError::Io(err) => SpoolError::from(err),
                blamed => SpoolError::Malformed(blamed.to_string()),
            },
        )?;
        let mut entry = self.entry(identity)?;
        let rivals = self
            .spool
            .index()
            .rivals(&entry.arrival.sop_instance, &entry.digest);
        if rivals == Rivals::Same {
            return Ok(Stored {
                study: entry.study,
                duplicate: true,
                set_aside: None,
                entry: None,
                bytes: entry.data_set_bytes,
            });
        }
        let envelope_at = self.header.envelope_at as u64;
        self.file.write_all_at(&seal(&entry), envelope_at)?;
        // One journal commit covers data, size and name: the file was created under its final name.
        self.file.sync_data()?;
        self.spool.inner.data_handle.sync_all()?;
        self.kept = true;
        entry.durable_at = Some(Timestamp::now());
        self.admit(entry)
    }

    /// Enters a durable instance into the index, where two that raced meet for the first time.
    fn admit(&self, entry: Entry) -> Result<Stored, SpoolError> {
        let study = entry.study.clone();
        let (rivals, policy) = {
            let mut index = self.spool.index();
            let rivals = index.rivals(&entry.arrival.sop_instance, &entry.digest);
            let policy = self.spool.inner.config.duplicates;
            // What goes to quarantine is part of no study.
            if rivals == Rivals::None
                || rivals == Rivals::Different && policy != DuplicatePolicy::Quarantine
            {
                index.insert(Arc::new(entry));
            }
            (rivals, policy)
        };
        let mut set_aside = None;
        let entry = match rivals {
            Rivals::Same => {
                remove_if_present(&self.spool.path(self.id))?;
                None
            }
            Rivals::Different if policy == DuplicatePolicy::Quarantine => {
                let reason = format!("{OTHER_BYTES}: same SOP Instance UID, other bytes");
                self.spool.quarantine(self.id, &reason)?;
                set_aside = Some(OTHER_BYTES);
                None
            }
            Rivals::Different | Rivals::None => Some(self.id),
        };
        Ok(Stored {
            study,
            duplicate: rivals == Rivals::Same,
            set_aside,
            entry,
            bytes: self.data_set_bytes,
        })
    }

    fn entry(&self, identity: Identity) -> Result<Entry, SpoolError> {
        let expect = |what: &str, found: Option<&str>, wanted: &str| match found {
            Some(found) if found == wanted => Ok(()),
            Some(_) => Err(SpoolError::Mismatch(format!("{what} differs"))),
            None => Err(SpoolError::Mismatch(format!("{what} is missing"))),
        };
        let arrival = &self.arrival;
        expect(
            "SOP Class UID",
            identity.sop_class.as_deref(),
            arrival.sop_class.as_str(),
        )?;
        expect(
            "SOP Instance UID",
            identity.sop_instance.as_deref(),
            arrival.sop_instance.as_str(),
        )?;
        let study = identity
            .study
            .filter(|uid| !uid.is_empty())
            .ok_or_else(|| SpoolError::Mismatch("Study Instance UID is missing".to_owned()))?;
        let study = StudyInstanceUid::parse(&study)
            .map_err(|_| SpoolError::Malformed("Study Instance UID is invalid".to_owned()))?;
        let series = identity
            .series
            .filter(|uid| !uid.is_empty())
            .map(|uid| SeriesInstanceUid::parse(&uid))
            .transpose()
            .map_err(|_| SpoolError::Malformed("Series Instance UID is invalid".to_owned()))?;
        Ok(Entry {
            id: self.id,
            arrival: arrival.clone(),
            study,
            series,
            modality: code_string(identity.modality),
            body_part: code_string(identity.body_part),
            received_at: Timestamp::now(),
            durable_at: None,
            data_set_bytes: self.data_set_bytes,
            digest: self.hasher.clone().finalize().into(),
        })
    }
}

impl Drop for Incoming {
    fn drop(&mut self) {
        // A file that stays behind is looked at by the next start: its id is never called settled.
        if self.kept || remove_if_present(&self.spool.path(self.id)).is_ok() {
            self.spool.settle(self.id);
        }
    }
}

/// A CS value (PS3.5 §6.2): at most 16 of upper case, digits, space and underscore; else nothing,
/// since it ends up in routing keys and messages.
fn code_string(value: Option<String>) -> String {
    let value = value.unwrap_or_default();
    let legal = |c: char| c.is_ascii_uppercase() || c.is_ascii_digit() || c == ' ' || c == '_';
    let upper = value.trim().to_ascii_uppercase();
    if upper.len() <= 16 && upper.chars().all(legal) {
        upper
    } else {
        String::new()
    }
}
