//! The models folder: `<name>/model.toml` and `<name>/<version>/model.onnx`.

use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use super::manifest::Manifest;

/// Largest manifest that is read.
const MAX_MANIFEST_BYTES: u64 = 1 << 20;

/// A model is refused; the message names the file, the key and the reason.
#[derive(Debug, thiserror::Error)]
#[error("{}: {reason}", path.display())]
pub struct ModelError {
    /// The file or folder at fault.
    pub path: PathBuf,
    /// Key and reason.
    pub reason: String,
}

impl ModelError {
    /// A refusal of `path`.
    pub fn new(path: &Path, reason: impl Into<String>) -> Self {
        Self {
            path: path.to_owned(),
            reason: reason.into(),
        }
    }
}

/// Name and version of a model.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ModelId {
    /// Name from the manifest.
    pub name: String,
    /// Version from the manifest.
    pub version: String,
}

impl fmt::Display for ModelId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.name, self.version)
    }
}

/// A model on disk whose manifest is valid and whose digest is right.
#[derive(Debug, Clone)]
pub struct Package {
    /// The manifest.
    pub manifest: Manifest,
    /// Where the manifest is.
    pub manifest_path: PathBuf,
    /// The ONNX file.
    pub onnx: PathBuf,
}

impl Package {
    /// Name and version.
    pub fn id(&self) -> ModelId {
        ModelId {
            name: self.manifest.name.clone(),
            version: self.manifest.version.clone(),
        }
    }

    /// Golden cases: folders with inputs and an `expected.json`, in order of name.
    pub fn golden_cases(&self) -> io::Result<Vec<PathBuf>> {
        let Some(folder) = self.onnx.parent().map(|version| version.join("golden")) else {
            return Ok(Vec::new());
        };
        let mut cases = Vec::new();
        match fs::read_dir(&folder) {
            Err(err) if err.kind() == io::ErrorKind::NotFound => {}
            Err(err) => return Err(err),
            Ok(items) => {
                for item in items {
                    let path = item?.path();
                    if path.join("expected.json").is_file() {
                        cases.push(path);
                    }
                }
            }
        }
        cases.sort();
        Ok(cases)
    }
}

/// Every model of the folder, in order of name. A folder without `model.toml` is not a model.
///
/// # Errors
/// The first model that is refused. An empty or absent folder is an error too: a gateway without a
/// model answers every study with "skipped", which nobody means to run.
pub fn scan(dir: &Path) -> Result<Vec<Package>, ModelError> {
    let items = fs::read_dir(dir)
        .map_err(|err| ModelError::new(dir, format!("models.dir: cannot be read: {err}")))?;
    let mut folders: Vec<PathBuf> = items
        .filter_map(|item| item.ok().map(|item| item.path()))
        .filter(|path| path.join("model.toml").is_file())
        .collect();
    folders.sort();
    let packages = folders
        .iter()
        .map(|folder| load(folder))
        .collect::<Result<Vec<_>, _>>()?;
    if packages.is_empty() {
        return Err(ModelError::new(dir, "models.dir: holds no model"));
    }
    for pair in packages.windows(2) {
        if let [first, second] = pair
            && first.manifest.name == second.manifest.name
        {
            return Err(ModelError::new(
                &second.manifest_path,
                format!("name: `{}` is used twice", second.manifest.name),
            ));
        }
    }
    Ok(packages)
}

/// The packages whose names are in `only`; all of them when it is empty.
///
/// # Errors
/// A name that no package has.
pub fn select(packages: Vec<Package>, only: &[String]) -> Result<Vec<Package>, ModelError> {
    if only.is_empty() {
        return Ok(packages);
    }
    let known = |name: &&String| {
        packages
            .iter()
            .any(|package| package.manifest.name == **name)
    };
    if let Some(unknown) = only.iter().find(|name| !known(name)) {
        let reason = format!("models.only: there is no model `{unknown}`");
        return Err(ModelError::new(Path::new("configuration"), reason));
    }
    let wanted = packages
        .into_iter()
        .filter(|package| only.contains(&package.manifest.name));
    Ok(wanted.collect())
}

fn load(folder: &Path) -> Result<Package, ModelError> {
    let manifest_path = folder.join("model.toml");
    let refuse = |reason: String| ModelError::new(&manifest_path, reason);
    let size = fs::metadata(&manifest_path).map_err(|err| refuse(err.to_string()))?;
    if size.len() > MAX_MANIFEST_BYTES {
        return Err(refuse("is larger than 1 MiB".to_owned()));
    }
    let text = fs::read_to_string(&manifest_path).map_err(|err| refuse(err.to_string()))?;
    let manifest = Manifest::parse(&text).map_err(refuse)?;
    let onnx = folder.join(&manifest.version).join("model.onnx");
    let digest = digest(&onnx).map_err(|err| {
        ModelError::new(
            &manifest_path,
            format!("version: cannot read {}: {err}", onnx.display()),
        )
    })?;
    if !digest.eq_ignore_ascii_case(&manifest.sha256) {
        return Err(ModelError::new(
            &manifest_path,
            format!(
                "sha256: manifest says {}, {} has {digest}",
                manifest.sha256,
                onnx.display()
            ),
        ));
    }
    Ok(Package {
        manifest,
        manifest_path,
        onnx,
    })
}

/// SHA-256 of a file, hex.
///
/// # Errors
/// When it cannot be read.
pub fn digest(path: &Path) -> io::Result<String> {
    let mut file = fs::File::open(path)?;
    let mut hasher = Sha256::new();
    io::copy(&mut file, &mut hasher)?;
    Ok(hasher
        .finalize()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect())
}
