//! Sending files: what to propose, one outcome per file.

use std::collections::{HashSet, VecDeque};
use std::fs;
use std::io::{self, BufReader, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use tokio::task::spawn_blocking;

use super::connection::Connection;
use super::{ScuError, Target, chain};
use crate::dicom::file_meta::FileMetaError;
use crate::dicom::{AeTitle, FileMeta, SopClassUid, Status, TransferSyntaxUid};

/// Most presentation contexts in one association: the odd numbers from 1 to 255.
const MAX_CONTEXTS: usize = 128;

/// Lost associations in a row, none of which brought a single answer, after which we stop trying.
const MAX_FRUITLESS: u32 = 3;

/// Deepest folder nesting that is searched for files.
const MAX_DEPTH: usize = 64;

/// What became of one file.
#[derive(Debug)]
pub struct Sent {
    /// The file.
    pub path: PathBuf,
    /// The peer's status, or why there is none.
    pub result: Result<Status, SendError>,
    /// The peer's Error Comment (0000,0902), if any.
    pub comment: Option<String>,
    /// Length of its data set in bytes.
    pub bytes: u64,
    /// From the request to the response.
    pub elapsed: Duration,
}

/// Why a file was not sent or has no status.
#[derive(Debug, thiserror::Error)]
pub enum SendError {
    /// The file could not be opened or searched.
    #[error("failed to read the file")]
    Read(#[from] io::Error),
    /// The file is no usable Part 10 file.
    #[error("not a file that can be sent")]
    FileMeta(#[from] FileMetaError),
    /// The peer accepted no context for this SOP class and transfer syntax.
    #[error("peer does not accept SOP class {sop_class} in transfer syntax {transfer_syntax}")]
    NotAccepted {
        /// SOP Class of the file.
        sop_class: SopClassUid,
        /// Transfer syntax of the file.
        transfer_syntax: TransferSyntaxUid,
    },
    /// The association ended before this file had its turn or its answer.
    #[error("association failed: {0}")]
    Association(String),
}

/// What became of all files.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Summary {
    /// Files the peer has stored (success or warning).
    pub stored: u64,
    /// Files it has not.
    pub failed: u64,
    /// Bytes of the stored data sets.
    pub bytes: u64,
}

struct Planned {
    path: PathBuf,
    meta: FileMeta,
    length: u64,
}

/// Sends files, and all files in folders, as they are. `progress` hears of each file once, in the
/// order in which they are done. One association carries up to 128 combinations of SOP class and
/// transfer syntax. When it is lost, the file that was under way has failed and a new association
/// goes on with the next one.
///
/// # Errors
/// [`ScuError`] when not a single association could be established. All else is a file's own
/// outcome.
pub async fn send(
    target: &Target,
    calling: &AeTitle,
    paths: &[PathBuf],
    mut progress: impl FnMut(&Sent),
) -> Result<Summary, ScuError> {
    let mut summary = Summary::default();
    let mut report = |sent: Sent| {
        if matches!(&sent.result, Ok(status) if status.is_stored()) {
            summary.stored += 1;
            summary.bytes += sent.bytes;
        } else {
            summary.failed += 1;
        }
        progress(&sent);
    };
    let given = paths.to_vec();
    let found = spawn_blocking(move || plan(&given))
        .await
        .map_err(|error| ScuError::Lost(error.into()))?;
    let mut files = Vec::new();
    for (path, planned) in found {
        match planned {
            Ok(planned) => files.push(planned),
            Err(error) => report(unsent(path, error)),
        }
    }
    let (mut first_failure, mut established) = (None, false);
    for group in groups(files) {
        let mut rest = VecDeque::from(group);
        let mut fruitless = 0;
        while !rest.is_empty() {
            match Connection::establish(target, calling, proposal(rest.make_contiguous())).await {
                Ok(connection) => {
                    established = true;
                    let done = send_some(connection, &mut rest, &mut report).await;
                    fruitless = if done { 0 } else { fruitless + 1 };
                }
                Err(error) => {
                    fail(&mut rest, &chain(&error), &mut report);
                    first_failure.get_or_insert(error);
                }
            }
            if fruitless == MAX_FRUITLESS {
                fail(&mut rest, "peer ends every association", &mut report);
            }
        }
    }
    match first_failure {
        Some(error) if !established => Err(error),
        _ => Ok(summary),
    }
}

/// Sends files from the front of `rest` until none is left or the association is lost; the file
/// that was being sent then counts as done. Says whether at least one file got an answer.
async fn send_some(
    mut connection: Connection,
    rest: &mut VecDeque<Planned>,
    report: &mut impl FnMut(Sent),
) -> bool {
    let mut answered = false;
    while let Some(file) = rest.pop_front() {
        let started = Instant::now();
        match store(&mut connection, &file).await {
            Ok((status, comment)) => {
                answered = true;
                report(Sent {
                    path: file.path,
                    result: Ok(status),
                    comment,
                    bytes: file.length,
                    elapsed: started.elapsed(),
                });
            }
            Err(Failure::File(error)) => {
                answered = true;
                report(unsent(file.path, error));
            }
            Err(Failure::Association(error)) => {
                report(unsent(file.path, SendError::Association(chain(&error))));
                connection.abort().await;
                return answered;
            }
        }
    }
    connection.release().await;
    answered
}

fn fail(rest: &mut VecDeque<Planned>, reason: &str, report: &mut impl FnMut(Sent)) {
    for file in rest.drain(..) {
        report(unsent(file.path, SendError::Association(reason.to_owned())));
    }
}

/// Whether only this file is affected or the whole association.
enum Failure {
    File(SendError),
    Association(ScuError),
}

async fn store(
    connection: &mut Connection,
    file: &Planned,
) -> Result<(Status, Option<String>), Failure> {
    let context = connection.context_for(&file.meta).ok_or_else(|| {
        Failure::File(SendError::NotAccepted {
            sop_class: file.meta.media_storage_sop_class.clone(),
            transfer_syntax: file.meta.transfer_syntax.clone(),
        })
    })?;
    let (path, offset) = (file.path.clone(), file.meta.data_set_offset);
    let opened = spawn_blocking(move || {
        let mut data_set = fs::File::open(path)?;
        data_set.seek(SeekFrom::Start(offset))?;
        Ok::<_, io::Error>(data_set)
    });
    let data_set = opened
        .await
        .map_err(io::Error::from)
        .and_then(|opened| opened)
        .map_err(|error| Failure::File(error.into()))?;
    connection
        .store(
            context,
            &file.meta,
            tokio::fs::File::from_std(data_set),
            file.length,
        )
        .await
        .map_err(Failure::Association)
}

fn unsent(path: PathBuf, error: SendError) -> Sent {
    Sent {
        path,
        result: Err(error),
        comment: None,
        bytes: 0,
        elapsed: Duration::ZERO,
    }
}

/// Finds the files and reads what they are, in a stable order.
fn plan(paths: &[PathBuf]) -> Vec<(PathBuf, Result<Planned, SendError>)> {
    let mut found = Vec::new();
    for path in paths {
        visit(path, 0, &mut found);
    }
    found
}

fn visit(path: &Path, depth: usize, found: &mut Vec<(PathBuf, Result<Planned, SendError>)>) {
    let mut entries = match fs::metadata(path).map(|metadata| metadata.is_dir()) {
        Ok(true) if depth < MAX_DEPTH => match folder(path) {
            Ok(entries) => entries,
            Err(error) => return found.push((path.to_owned(), Err(error.into()))),
        },
        Ok(true) => {
            let error = io::Error::other("folders are nested too deeply");
            return found.push((path.to_owned(), Err(error.into())));
        }
        Ok(false) => return found.push((path.to_owned(), inspect(path))),
        Err(error) => return found.push((path.to_owned(), Err(error.into()))),
    };
    entries.sort();
    for entry in entries {
        visit(&entry, depth + 1, found);
    }
}

fn folder(path: &Path) -> io::Result<Vec<PathBuf>> {
    fs::read_dir(path)?.map(|entry| Ok(entry?.path())).collect()
}

fn inspect(path: &Path) -> Result<Planned, SendError> {
    let file = fs::File::open(path)?;
    let size = file.metadata()?.len();
    let meta = FileMeta::read(BufReader::new(file))?;
    let length = size.saturating_sub(meta.data_set_offset);
    Ok(Planned {
        path: path.to_owned(),
        meta,
        length,
    })
}

/// Cuts the files into runs that need at most 128 presentation contexts each.
fn groups(files: Vec<Planned>) -> Vec<Vec<Planned>> {
    let mut groups: Vec<Vec<Planned>> = Vec::new();
    let mut contexts = HashSet::new();
    for file in files {
        let key = (
            file.meta.media_storage_sop_class.clone(),
            file.meta.transfer_syntax.clone(),
        );
        let full = contexts.len() == MAX_CONTEXTS && !contexts.contains(&key);
        if full {
            contexts.clear();
        }
        contexts.insert(key);
        match groups.last_mut() {
            Some(group) if !full => group.push(file),
            _ => groups.push(vec![file]),
        }
    }
    groups
}

/// One presentation context per combination, each with exactly one transfer syntax, so that the
/// answer says which files may be sent.
fn proposal(group: &[Planned]) -> Vec<(&str, Vec<&str>)> {
    let mut seen = HashSet::new();
    let mut contexts = Vec::new();
    for file in group {
        let key = (
            file.meta.media_storage_sop_class.as_str(),
            file.meta.transfer_syntax.as_str(),
        );
        if seen.insert(key) {
            contexts.push((key.0, vec![key.1]));
        }
    }
    contexts
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use super::*;
    use crate::dicom::SopInstanceUid;

    fn file(class: usize) -> Planned {
        Planned {
            path: PathBuf::from(class.to_string()),
            meta: FileMeta {
                transfer_syntax: TransferSyntaxUid::parse("1.2.840.10008.1.2.1").unwrap(),
                media_storage_sop_class: SopClassUid::parse(&format!("1.2.{class}")).unwrap(),
                media_storage_sop_instance: SopInstanceUid::parse("1.2.3").unwrap(),
                data_set_offset: 0,
            },
            length: 0,
        }
    }

    #[test]
    fn more_than_128_combinations_need_a_second_association() {
        let files = (0..300).map(|index| file(index % 130)).collect();
        let groups = groups(files);
        assert_eq!(groups.iter().map(Vec::len).sum::<usize>(), 300);
        assert!(groups.len() >= 2);
        for group in &groups {
            assert!(proposal(group).len() <= MAX_CONTEXTS);
        }
    }

    #[test]
    fn a_combination_is_proposed_once() {
        let group = vec![file(1), file(2), file(1)];
        assert_eq!(proposal(&group).len(), 2);
    }

    #[test]
    fn files_that_cannot_be_sent_are_found_with_their_reason() {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("b")).unwrap();
        fs::write(folder.path().join("b/text.dcm"), "no DICOM").unwrap();
        fs::write(folder.path().join("a.dcm"), vec![0; 300]).unwrap();
        let found = plan(&[folder.path().to_owned(), folder.path().join("absent")]);
        let names: Vec<_> = found
            .iter()
            .map(|(path, _)| path.file_name().unwrap().to_owned())
            .collect();
        assert_eq!(names, ["a.dcm", "text.dcm", "absent"]);
        assert!(found.iter().all(|(_, planned)| planned.is_err()));
        assert!(matches!(found[2].1, Err(SendError::Read(_))));
    }
}
