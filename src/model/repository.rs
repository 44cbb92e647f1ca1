//! The models folder: `<name>/model.toml` and `<name>/<version>/model.onnx`.
//!
//! The digest that stands for a model in messages and ids changes with everything that answers: with
//! folds it is [`chain::graphs_sha256`] of `model.onnx` and the folds, for an ensemble of models
//! [`chain::members_sha256`]. It takes the place of the manifest's own `sha256` when that is verified.

use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use super::chain;
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

/// A model on disk whose manifest is valid and whose digests are right.
#[derive(Debug, Clone)]
pub struct Package {
    /// The manifest; its `sha256` stands for all that answers.
    pub manifest: Manifest,
    /// Where the manifest is.
    pub manifest_path: PathBuf,
    /// The ONNX file; there is none for an ensemble of models.
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

    /// The graphs that answer: the ONNX file and the folds, or none for an ensemble of models.
    pub fn graphs(&self) -> Vec<PathBuf> {
        if self.manifest.is_ensemble_of_models() {
            return Vec::new();
        }
        let folds = self.manifest.ensemble.iter().flat_map(|own| &own.folds);
        let folds = folds.map(|fold| self.onnx.with_file_name(&fold.file));
        [self.onnx.clone()].into_iter().chain(folds).collect()
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
    let mut packages = folders
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
    link(&mut packages)?;
    Ok(packages)
}

/// Checks that models which build on others find them among `packages`, one of each name, and gives
/// ensembles of models their digest. To be called again when one of them is exchanged.
///
/// # Errors
/// The first model that cannot be served beside the others; see [`chain::order`].
pub fn link<'p>(packages: impl IntoIterator<Item = &'p mut Package>) -> Result<(), ModelError> {
    let mut packages: Vec<&mut Package> = packages.into_iter().collect();
    let manifests: Vec<&Manifest> = packages.iter().map(|package| &package.manifest).collect();
    let order = chain::order(&manifests).map_err(|broken| {
        let path = packages.get(broken.model);
        let path = path.map_or(Path::new(""), |package| &package.manifest_path);
        ModelError::new(path, broken.reason)
    })?;
    for model in order {
        let manifests: Vec<&Manifest> = packages.iter().map(|package| &package.manifest).collect();
        let sha256 = manifests
            .get(model)
            .and_then(|own| chain::members_sha256(own, &manifests));
        if let (Some(package), Some(sha256)) = (packages.get_mut(model), sha256) {
            package.manifest.sha256 = sha256;
        }
    }
    Ok(())
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
    for package in &packages {
        let name = &package.manifest.name;
        let absent = |needed: &String| !only.contains(needed);
        if only.contains(name)
            && let Some(needed) = chain::needs(&package.manifest).into_iter().find(absent)
        {
            let reason = format!("models.only: `{name}` needs `{needed}`, which is not among them");
            return Err(ModelError::new(Path::new("configuration"), reason));
        }
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
    let mut package = Package {
        onnx: folder.join(&manifest.version).join("model.onnx"),
        manifest_path: manifest_path.clone(),
        manifest,
    };
    verify(&mut package)?;
    Ok(package)
}

/// Compares every graph with its digest, and gives several of them one that stands for all.
fn verify(package: &mut Package) -> Result<(), ModelError> {
    let folds = package.manifest.ensemble.iter().flat_map(|own| &own.folds);
    let stated: Vec<String> = [&package.manifest.sha256]
        .into_iter()
        .chain(folds.map(|fold| &fold.sha256))
        .cloned()
        .collect();
    for (place, (graph, stated)) in package.graphs().iter().zip(&stated).enumerate() {
        let (file, sha256) = match place {
            0 => ("version", "sha256"),
            _ => ("ensemble.folds.file", "ensemble.folds.sha256"),
        };
        let refuse = |reason: String| ModelError::new(&package.manifest_path, reason);
        let digest = digest(graph)
            .map_err(|err| refuse(format!("{file}: cannot read {}: {err}", graph.display())))?;
        if !digest.eq_ignore_ascii_case(stated) {
            return Err(refuse(format!(
                "{sha256}: manifest says {stated}, {} has {digest}",
                graph.display()
            )));
        }
    }
    if stated.len() > 1 {
        package.manifest.sha256 = chain::graphs_sha256(stated.iter().map(String::as_str));
    }
    Ok(())
}

/// SHA-256 of a file, hex.
///
/// # Errors
/// When it cannot be read.
pub fn digest(path: &Path) -> io::Result<String> {
    let mut file = fs::File::open(path)?;
    let mut hasher = Sha256::new();
    io::copy(&mut file, &mut hasher)?;
    Ok(chain::hex(hasher))
}
