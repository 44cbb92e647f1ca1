//! What a start finds in the spool's directory. The same code runs after a crash and after a stop.

use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom};
use std::path::Path;
use std::sync::Arc;

use sha2::{Digest, Sha256};

use super::entry::{Entry, EntryId, Opened, open};
use super::quarantine::{CORRUPT, set_aside};

/// Preamble, file meta and envelope always fit: UIDs and AE titles have fixed maxima.
pub(super) const HEAD_BYTES: u64 = 2048;

/// Read at a time when a data set is checked.
const BLOCK_BYTES: usize = 256 * 1024;

/// The result of the scan.
#[derive(Debug, Default)]
pub struct Recovered {
    /// Entries in order of arrival.
    pub entries: Vec<Arc<Entry>>,
    /// Files without a seal, removed: their senders never got a Success.
    pub incomplete: usize,
    /// Files set aside, with the reason.
    pub corrupt: Vec<(String, String)>,
    /// The highest id that any file of ours carries.
    pub highest: Option<EntryId>,
}

/// Reads every file of `data`; corruption is a value here, not an error that stops the scan.
pub(super) fn scan(data: &Path, quarantine: &Path, watermark: EntryId) -> io::Result<Recovered> {
    let mut recovered = Recovered::default();
    let mut names: Vec<String> = fs::read_dir(data)?
        .map(|item| Ok(item?.file_name().to_string_lossy().into_owned()))
        .collect::<io::Result<_>>()?;
    names.sort_unstable();
    let verdicts = check_all(data, &names, watermark);
    for (name, (id, verdict)) in names.into_iter().zip(verdicts) {
        let path = data.join(&name);
        recovered.highest = recovered.highest.max(id);
        match verdict {
            Ok(Verdict::Entry(entry)) => {
                // A process that was killed before its sync leaves a file that only memory holds.
                if entry.id >= watermark {
                    File::open(&path)?.sync_all()?;
                }
                recovered.entries.push(Arc::new(*entry));
            }
            Ok(Verdict::Incomplete) => {
                fs::remove_file(&path)?;
                recovered.incomplete += 1;
            }
            Ok(Verdict::Corrupt(reason)) => {
                recovered.set_aside(&path, quarantine, name, reason)?;
            }
            Err(err) => {
                recovered.set_aside(&path, quarantine, name, format!("unreadable: {err}"))?;
            }
        }
    }
    Ok(recovered)
}

impl Recovered {
    fn set_aside(
        &mut self,
        path: &Path,
        quarantine: &Path,
        name: String,
        reason: String,
    ) -> io::Result<()> {
        set_aside(path, quarantine, &format!("{CORRUPT}: {reason}"))?;
        self.corrupt.push((name, reason));
        Ok(())
    }
}

enum Verdict {
    Entry(Box<Entry>),
    Incomplete,
    Corrupt(String),
}

/// The verdict on each name, in their order, by as many threads as there are processors: after a
/// power cut with a slow sender the data sets of a full spool are to be read.
fn check_all(
    data: &Path,
    names: &[String],
    watermark: EntryId,
) -> Vec<(Option<EntryId>, io::Result<Verdict>)> {
    let check = |name: &String| match EntryId::from_file_name(name) {
        Some(id) => (Some(id), check(&data.join(name), id, watermark)),
        None => (
            None,
            Ok(Verdict::Corrupt("not a file of the spool".to_owned())),
        ),
    };
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let share = names.len().div_ceil(threads).max(1);
    std::thread::scope(|scope| {
        let workers: Vec<_> = names
            .chunks(share)
            .map(|names| scope.spawn(|| names.iter().map(check).collect::<Vec<_>>()))
            .collect();
        workers
            .into_iter()
            .flat_map(|worker| {
                // A panic goes on where the scan was asked for, as it would without threads.
                worker
                    .join()
                    .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
            })
            .collect()
    })
}

fn check(path: &Path, id: EntryId, watermark: EntryId) -> io::Result<Verdict> {
    let mut file = File::open(path)?;
    let length = file.metadata()?.len();
    let mut head = Vec::with_capacity(HEAD_BYTES as usize);
    (&mut file).take(HEAD_BYTES).read_to_end(&mut head)?;
    let unsettled = id >= watermark;
    Ok(match open(id, &head) {
        Opened::Sealed(entry, data_set_at) => {
            if length != data_set_at + entry.data_set_bytes {
                torn(unsettled, "length differs from the envelope")
            } else if unsettled && digest(path, data_set_at)? != entry.digest {
                torn(unsettled, "data set differs from its digest")
            } else {
                Verdict::Entry(entry)
            }
        }
        // Below the watermark every file had been sealed and synced, so an open one is damage.
        Opened::Incomplete if unsettled => Verdict::Incomplete,
        Opened::Incomplete => Verdict::Corrupt("the envelope is gone".to_owned()),
        Opened::Foreign(reason) => Verdict::Corrupt(reason),
    })
}

/// A seal without its data: the crash came before the sync, so nobody was told Success. It is still
/// kept for a human to look at, because a failing disk looks the same.
fn torn(unsettled: bool, what: &str) -> Verdict {
    let when = if unsettled {
        "at the crash"
    } else {
        "after it was durable"
    };
    Verdict::Corrupt(format!("{what} ({when})"))
}

pub(super) fn digest(path: &Path, data_set_at: u64) -> io::Result<[u8; 32]> {
    let mut file = File::open(path)?;
    file.seek(SeekFrom::Start(data_set_at))?;
    let mut hasher = Sha256::new();
    let mut block = vec![0; BLOCK_BYTES];
    loop {
        match file.read(&mut block)? {
            0 => return Ok(hasher.finalize().into()),
            count => hasher.update(block.get(..count).unwrap_or_default()),
        }
    }
}
