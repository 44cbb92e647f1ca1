//! A disk that forgets: which files a power cut may leave, as strictly as POSIX lets it be.
//!
//! A file's bytes are there once the file was synced, its name once its directory was. What was not
//! synced may be there or not, each write and each name for itself, a write also in part: any of its
//! sectors of 512 bytes. A rename within a directory is one step, one between two directories is two.
//! Data whose sync failed stay in memory only, and no later sync brings them to the disk.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::path::Path;

use rand::Rng;
use rand::rngs::StdRng;
use sha2::{Digest, Sha256};

use crate::recorder::Record;

const SECTOR: usize = 512;

/// Which of the possible disks to make.
pub enum Cut<'a> {
    /// Only what was synced.
    Forgetful,
    /// Everything: the process died, the machine did not.
    Complete,
    /// Some of what was not synced.
    Random(&'a mut StdRng),
}

#[derive(Clone)]
enum Node {
    File(usize),
    Dir,
}

#[derive(Clone)]
enum Edit {
    Write(usize, Vec<u8>),
    Length(usize),
}

#[derive(Clone, Copy, PartialEq)]
enum Fate {
    /// Not synced yet.
    Waiting,
    /// Given up by a failed sync.
    Lost,
    Synced,
}

#[derive(Clone, Default)]
struct Object {
    synced: Vec<u8>,
    /// What came after that, in order; the first of them is not synced.
    edits: Vec<(Edit, Fate)>,
}

#[derive(Clone)]
enum Change {
    Put(String, Node),
    Remove(String),
    Move(String, String, Node),
}

#[derive(Clone, Default)]
struct Dir {
    synced: BTreeMap<String, Node>,
    pending: Vec<Change>,
}

/// The state of a disk after some records.
#[derive(Clone)]
pub struct Disk {
    objects: Vec<Object>,
    by_inode: HashMap<u64, usize>,
    dirs: BTreeMap<String, Dir>,
    root: String,
}

/// What lies on a disk after a cut: directories, and files with their content. Names of one object
/// share its number.
pub struct Image {
    dirs: Vec<String>,
    files: Vec<(String, usize)>,
    objects: BTreeMap<usize, Vec<u8>>,
}

impl Disk {
    /// An empty directory `root`, itself on the disk.
    pub fn new(root: &Path) -> Self {
        let root = root.to_str().unwrap().to_owned();
        Self {
            objects: Vec::new(),
            by_inode: HashMap::new(),
            dirs: BTreeMap::from([(root.clone(), Dir::default())]),
            root,
        }
    }

    /// Follows one record.
    pub fn apply(&mut self, record: &Record) {
        match record {
            Record::Create(inode, path) => {
                self.objects.push(Object::default());
                let object = self.objects.len() - 1;
                self.by_inode.insert(*inode, object);
                let (dir, name) = split(path);
                self.change(dir, Change::Put(name, Node::File(object)));
            }
            Record::Write(inode, at, data) => {
                let edit = Edit::Write(*at as usize, data.clone());
                self.object(*inode).edits.push((edit, Fate::Waiting));
            }
            Record::Truncate(inode, length) => {
                let edit = Edit::Length(*length as usize);
                self.object(*inode).edits.push((edit, Fate::Waiting));
            }
            Record::SyncFile(inode) => self.object(*inode).end(Fate::Synced),
            Record::FailedSyncFile(inode) => self.object(*inode).end(Fate::Lost),
            Record::SyncDir(path) => {
                if let Some(dir) = self.dirs.get_mut(path) {
                    for change in std::mem::take(&mut dir.pending) {
                        change.apply(&mut dir.synced);
                    }
                }
            }
            Record::MakeDir(path) => {
                self.dirs.insert(path.clone(), Dir::default());
                let (dir, name) = split(path);
                self.change(dir, Change::Put(name, Node::Dir));
            }
            Record::Unlink(path) => {
                let (dir, name) = split(path);
                self.change(dir, Change::Remove(name));
            }
            Record::Link(from, to) => {
                let node = self.find(from);
                let (dir, name) = split(to);
                self.change(dir, Change::Put(name, node));
            }
            Record::Rename(from, to) => {
                let node = self.find(from);
                let ((from_dir, from), (to_dir, to)) = (split(from), split(to));
                if from_dir == to_dir {
                    self.change(from_dir, Change::Move(from, to, node));
                } else if !self.same(&from_dir, &from, &to_dir, &to) {
                    self.change(to_dir, Change::Put(to, node));
                    self.change(from_dir, Change::Remove(from));
                }
            }
            Record::Note(..) | Record::Failed => {}
        }
    }

    /// What a cut leaves at this moment.
    pub fn cut(&self, mut cut: Cut<'_>) -> Image {
        let mut image = Image {
            dirs: Vec::new(),
            files: Vec::new(),
            objects: BTreeMap::new(),
        };
        let mut open = vec![self.root.clone()];
        while let Some(path) = open.pop() {
            let Some(dir) = self.dirs.get(&path) else {
                continue;
            };
            let mut names = dir.synced.clone();
            for change in &dir.pending {
                if cut.keeps() {
                    change.apply(&mut names);
                }
            }
            for (name, node) in names {
                let full = format!("{path}/{name}");
                match node {
                    Node::Dir => {
                        image.dirs.push(full.clone());
                        open.push(full);
                    }
                    // The index of the WAL is shared memory, which nobody writes to the disk.
                    Node::File(_) if name.ends_with("-shm") => {}
                    Node::File(object) => image.files.push((full, object)),
                }
            }
        }
        image.files.sort();
        for (_, number) in &image.files {
            let object = &self.objects[*number];
            image
                .objects
                .entry(*number)
                .or_insert_with(|| object.after(&mut cut));
        }
        image
    }

    fn object(&mut self, inode: u64) -> &mut Object {
        &mut self.objects[self.by_inode[&inode]]
    }

    fn change(&mut self, dir: String, change: Change) {
        if let Some(dir) = self.dirs.get_mut(&dir) {
            dir.pending.push(change);
        }
    }

    fn now(&self, dir: &str) -> BTreeMap<String, Node> {
        let dir = &self.dirs[dir];
        let mut names = dir.synced.clone();
        dir.pending
            .iter()
            .for_each(|change| change.apply(&mut names));
        names
    }

    fn find(&self, path: &str) -> Node {
        let (dir, name) = split(path);
        self.now(&dir)[&name].clone()
    }

    /// Two names of one file: a rename from one to the other does nothing.
    fn same(&self, dir: &str, name: &str, other_dir: &str, other: &str) -> bool {
        let (one, two) = (self.now(dir), self.now(other_dir));
        matches!((one.get(name), two.get(other)), (Some(Node::File(a)), Some(Node::File(b))) if a == b)
    }
}

impl Cut<'_> {
    fn keeps(&mut self) -> bool {
        match self {
            Self::Forgetful => false,
            Self::Complete => true,
            Self::Random(random) => random.random_bool(0.5),
        }
    }
}

impl Object {
    /// What was waiting does so no more.
    fn end(&mut self, fate: Fate) {
        for (_, old) in &mut self.edits {
            if *old == Fate::Waiting {
                *old = fate;
            }
        }
        let done = self
            .edits
            .iter()
            .take_while(|(_, fate)| *fate == Fate::Synced)
            .count();
        for (edit, _) in self.edits.drain(..done) {
            edit.apply(&mut self.synced);
        }
    }

    fn after(&self, cut: &mut Cut<'_>) -> Vec<u8> {
        let mut bytes = self.synced.clone();
        for (edit, fate) in &self.edits {
            match (&mut *cut, edit) {
                _ if *fate == Fate::Synced => edit.apply(&mut bytes),
                (Cut::Random(random), Edit::Write(at, data)) => match random.random_range(0..3) {
                    0 => {}
                    1 => edit.apply(&mut bytes),
                    _ => torn(&mut bytes, *at, data, random),
                },
                (cut, edit) => {
                    if cut.keeps() {
                        edit.apply(&mut bytes);
                    }
                }
            }
        }
        bytes
    }
}

/// Some sectors of a write, and the length it led to or not.
fn torn(bytes: &mut Vec<u8>, at: usize, data: &[u8], random: &mut StdRng) {
    if random.random_bool(0.5) && bytes.len() < at + data.len() {
        bytes.resize(at + data.len(), 0);
    }
    let mut start = at;
    while start < at + data.len() {
        let end = ((start / SECTOR + 1) * SECTOR).min(at + data.len());
        if random.random_bool(0.5) {
            Edit::Write(start, data[start - at..end - at].to_vec()).apply(bytes);
        }
        start = end;
    }
}

impl Edit {
    fn apply(&self, bytes: &mut Vec<u8>) {
        match self {
            Self::Length(length) => bytes.resize(*length, 0),
            Self::Write(at, data) => {
                let end = at + data.len();
                if bytes.len() < end {
                    bytes.resize(end, 0);
                }
                bytes[*at..end].copy_from_slice(data);
            }
        }
    }
}

impl Change {
    fn apply(&self, names: &mut BTreeMap<String, Node>) {
        match self {
            Self::Put(name, node) => {
                names.insert(name.clone(), node.clone());
            }
            Self::Remove(name) => {
                names.remove(name);
            }
            Self::Move(from, to, node) => {
                names.remove(from);
                names.insert(to.clone(), node.clone());
            }
        }
    }
}

impl Image {
    /// Names equal images.
    pub fn fingerprint(&self) -> [u8; 32] {
        let mut hasher = Sha256::new();
        self.dirs.iter().for_each(|dir| hasher.update(dir));
        for (name, object) in &self.files {
            hasher.update(name);
            hasher.update(Sha256::digest(&self.objects[object]));
        }
        hasher.finalize().into()
    }

    /// Compares with what is there: the recorder has missed nothing.
    pub fn is_what_is_there(&self) {
        for (name, object) in &self.files {
            let there = fs::read(name).unwrap();
            assert!(there == self.objects[object], "{name} is not as recorded");
        }
    }

    /// Makes the files below `to`, as they were below `root`.
    pub fn write(&self, root: &Path, to: &Path) {
        let place = |path: &str| to.join(Path::new(path).strip_prefix(root).unwrap());
        let mut dirs = self.dirs.clone();
        dirs.sort();
        dirs.iter()
            .for_each(|dir| fs::create_dir(place(dir)).unwrap());
        let mut first: BTreeMap<usize, &str> = BTreeMap::new();
        for (name, object) in &self.files {
            match first.get(object) {
                Some(other) => fs::hard_link(place(other), place(name)).unwrap(),
                None => {
                    fs::write(place(name), &self.objects[object]).unwrap();
                    first.insert(*object, name);
                }
            }
        }
    }
}

fn split(path: &str) -> (String, String) {
    let (dir, name) = path.rsplit_once('/').unwrap();
    (dir.to_owned(), name.to_owned())
}
