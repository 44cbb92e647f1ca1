//! The models folder.
//!
//! ```text
//! <name>/model.toml             the folder's own manifest, of any version
//! <name>/<version>/model.onnx   its graph
//! <name>/<version>/model.toml   manifest of a further version, complete, with its graph beside it
//! <name>/serving.toml           which versions have a role; without it the folder's own is served
//! ```
//!
//! The digest that stands for a model in messages and ids changes with everything that answers: with
//! folds it is [`chain::graphs_sha256`] of `model.onnx` and the folds, for an ensemble of models
//! [`chain::members_sha256`]. It takes the place of the manifest's own `sha256` when that is verified.

use std::fmt;
use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use super::chain;
use super::manifest::Manifest;
use super::roles::Roles;
use super::signature::{Signature, Trust};

/// Name of a manifest.
const MANIFEST: &str = "model.toml";
/// Name of the file that gives versions their roles.
const ROLES: &str = "serving.toml";

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

/// A version of a model on disk whose manifest is valid and whose digests are right.
#[derive(Debug, Clone)]
pub struct Package {
    /// The manifest; its `sha256` stands for all that answers.
    pub manifest: Manifest,
    /// Where the manifest is.
    pub manifest_path: PathBuf,
    /// The ONNX file; there is none for an ensemble of models.
    pub onnx: PathBuf,
    /// SHA-256 of each of [`Package::graphs`], hex.
    pub digests: Vec<String>,
    /// SHA-256 of the manifest's text, hex. It holds the digests of the graphs: two packages with the
    /// same one are the same model.
    pub identity: String,
    /// Who vouches for it.
    pub signature: Signature,
}

/// A model on disk: the versions that have a role.
#[derive(Debug, Clone)]
pub struct Installed {
    /// Its folder.
    pub folder: PathBuf,
    /// The version that answers.
    pub served: Package,
    /// The version that answers for a fraction of the studies, and the fraction in percent.
    pub canary: Option<(Package, f64)>,
    /// The versions that are not published.
    pub shadows: Vec<Package>,
    /// Every version there is a manifest of, with or without a role.
    pub versions: Vec<String>,
}

impl Installed {
    /// Name of the model.
    pub fn name(&self) -> &str {
        &self.served.manifest.name
    }
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

/// The folders of `dir` that hold a model, in order of name: those with a `model.toml` or a
/// `serving.toml`. Hidden ones are none; Kubernetes keeps the content of volumes in such.
///
/// # Errors
/// A folder that cannot be read.
pub fn folders(dir: &Path) -> Result<Vec<PathBuf>, ModelError> {
    let unreadable = |err| ModelError::new(dir, format!("models.dir: cannot be read: {err}"));
    let mut folders = Vec::new();
    for item in fs::read_dir(dir).map_err(unreadable)? {
        let path = item.map_err(unreadable)?.path();
        if is_model(&path) {
            folders.push(path);
        }
    }
    folders.sort();
    Ok(folders)
}

/// Whether a folder holds a model, in order or not.
pub fn is_model(folder: &Path) -> bool {
    let mut files = [MANIFEST, ROLES].iter().map(|name| folder.join(name));
    files.any(|path| path.is_file()) && !is_hidden(folder)
}

/// Reads a model's roles, and the packages that have one.
///
/// # Errors
/// The first file that is refused.
pub fn open(folder: &Path, roles: &Roles, trust: &Trust) -> Result<Installed, ModelError> {
    let own = folder.join(MANIFEST);
    // The folder's own manifest names a version too, and may be the only one.
    let own = own.is_file().then(|| load(&own, None, trust)).transpose()?;
    let roles_path = folder.join(ROLES);
    let version = |wanted: &str| {
        let path = folder.join(wanted).join(MANIFEST);
        match own.as_ref().filter(|own| own.manifest.version == wanted) {
            Some(own) if path.is_file() => Err(ModelError::new(
                &path,
                format!(
                    "version: {} describes {wanted} too; keep one",
                    own.manifest_path.display()
                ),
            )),
            Some(own) => Ok(own.clone()),
            None if path.is_file() => load(&path, Some(wanted), trust),
            None => Err(ModelError::new(
                &roles_path,
                format!("{wanted}: there is no manifest of this version"),
            )),
        }
    };
    let served = match (&roles.serve, &own) {
        (Some(wanted), _) => version(wanted)?,
        (None, Some(own)) => version(&own.manifest.version)?,
        (None, None) => {
            let reason = "serve: is needed where the folder has no manifest of its own";
            return Err(ModelError::new(&roles_path, reason));
        }
    };
    let canary = match &roles.canary {
        Some(canary) => Some((version(&canary.version)?, canary.percent)),
        None => None,
    };
    let shadows = roles
        .shadow
        .iter()
        .map(|wanted| version(wanted))
        .collect::<Result<Vec<_>, _>>()?;
    let beside = canary.iter().map(|(package, _)| package).chain(&shadows);
    for package in beside {
        if package.manifest.name != served.manifest.name {
            let reason = format!("name: must be `{}` in every version", served.manifest.name);
            return Err(ModelError::new(&package.manifest_path, reason));
        }
        if package.manifest.version == served.manifest.version {
            let reason = format!("{}: has another role already", package.manifest.version);
            return Err(ModelError::new(&roles_path, reason));
        }
    }
    let mut versions = versions(folder);
    versions.extend(own.map(|own| own.manifest.version));
    versions.sort();
    Ok(Installed {
        folder: folder.to_owned(),
        served,
        canary,
        shadows,
        versions,
    })
}

/// The roles that `serving.toml` of a folder gives; the default without such a file.
///
/// # Errors
/// A file that cannot be read or has a wrong key.
pub fn roles(folder: &Path) -> Result<Roles, ModelError> {
    let path = folder.join(ROLES);
    if !path.is_file() {
        return Ok(Roles::default());
    }
    let text = read(&path)?;
    Roles::parse(&text).map_err(|reason| ModelError::new(&path, reason))
}

/// Where the roles of a folder are written.
pub fn roles_path(folder: &Path) -> PathBuf {
    folder.join(ROLES)
}

/// Versions with a folder and a manifest of their own.
fn versions(folder: &Path) -> Vec<String> {
    let items = fs::read_dir(folder).into_iter().flatten().flatten();
    let paths = items.map(|item| item.path());
    paths
        .filter(|path| !is_hidden(path) && path.join(MANIFEST).is_file())
        .filter_map(|path| Some(path.file_name()?.to_str()?.to_owned()))
        .collect()
}

fn is_hidden(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default();
    name.as_encoded_bytes().starts_with(b".")
}

/// What the models of `dir` serve, in order of name, whoever has signed it.
///
/// # Errors
/// See [`scan_trusted`].
pub fn scan(dir: &Path) -> Result<Vec<Package>, ModelError> {
    let installed = scan_trusted(dir, &Trust::default())?;
    Ok(installed.into_iter().map(|model| model.served).collect())
}

/// Every model of the folder, in order of name.
///
/// # Errors
/// The first model that is refused. An empty or absent folder is an error too: a gateway without a
/// model answers every study with "skipped", which nobody means to run.
pub fn scan_trusted(dir: &Path, trust: &Trust) -> Result<Vec<Installed>, ModelError> {
    let mut models = folders(dir)?
        .iter()
        .map(|folder| open(folder, &roles(folder)?, trust))
        .collect::<Result<Vec<_>, _>>()?;
    if models.is_empty() {
        return Err(ModelError::new(dir, "models.dir: holds no model"));
    }
    models.sort_by(|a, b| a.name().cmp(b.name()));
    for pair in models.windows(2) {
        if let [first, second] = pair
            && first.name() == second.name()
        {
            return Err(twice(second));
        }
    }
    link(models.iter_mut().map(|model| &mut model.served))?;
    Ok(models)
}

/// A name that two folders use.
pub fn twice(model: &Installed) -> ModelError {
    ModelError::new(
        &model.served.manifest_path,
        format!("name: `{}` is used twice", model.name()),
    )
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

/// The models whose names are in `only`; all of them when it is empty.
///
/// # Errors
/// A name that no model has.
pub fn select(models: Vec<Installed>, only: &[String]) -> Result<Vec<Installed>, ModelError> {
    if only.is_empty() {
        return Ok(models);
    }
    let known = |name: &&String| models.iter().any(|model| model.name() == **name);
    if let Some(unknown) = only.iter().find(|name| !known(name)) {
        let reason = format!("models.only: there is no model `{unknown}`");
        return Err(ModelError::new(Path::new("configuration"), reason));
    }
    for model in &models {
        let name = model.name();
        let absent = |needed: &String| !only.contains(needed);
        let named = only.iter().any(|known| known == name);
        let needed = chain::needs(&model.served.manifest)
            .into_iter()
            .find(absent);
        if let Some(needed) = needed.filter(|_| named) {
            let reason = format!("models.only: `{name}` needs `{needed}`, which is not among them");
            return Err(ModelError::new(Path::new("configuration"), reason));
        }
    }
    let wanted = models
        .into_iter()
        .filter(|model| only.iter().any(|name| name == model.name()));
    Ok(wanted.collect())
}

/// The model `name` and those that it builds on, directly or not; only the name when it is unknown.
pub fn with_needed(models: &[Installed], name: &str) -> Vec<String> {
    let mut wanted = vec![name.to_owned()];
    let mut next = 0;
    while let Some(name) = wanted.get(next) {
        let model = models.iter().find(|model| model.name() == name);
        let needed = model.map(|model| chain::needs(&model.served.manifest));
        for name in needed.into_iter().flatten() {
            if !wanted.contains(&name) {
                wanted.push(name);
            }
        }
        next += 1;
    }
    wanted
}

/// Reads a manifest and checks the graph that it names. The graph of a folder's own manifest is in
/// the folder of its version; that of a version's manifest (`version`) is beside it.
fn load(manifest_path: &Path, version: Option<&str>, trust: &Trust) -> Result<Package, ModelError> {
    let refuse = |reason: String| ModelError::new(manifest_path, reason);
    let text = read(manifest_path)?;
    // Before anything of it is believed.
    let signature = trust
        .check(manifest_path, text.as_bytes())
        .map_err(refuse)?;
    let manifest = Manifest::parse(&text).map_err(refuse)?;
    let folder = manifest_path.parent().unwrap_or(Path::new("."));
    let onnx = match version {
        Some(version) if manifest.version != version => {
            let found = &manifest.version;
            return Err(refuse(format!(
                "version: is {found} in the folder of {version}"
            )));
        }
        Some(_) => folder.join("model.onnx"),
        None => folder.join(&manifest.version).join("model.onnx"),
    };
    let mut package = Package {
        manifest,
        manifest_path: manifest_path.to_owned(),
        onnx,
        digests: Vec::new(),
        identity: chain::hex(Sha256::new_with_prefix(&text)),
        signature,
    };
    verify(&mut package)?;
    Ok(package)
}

/// The text of a file of at most 1 MiB.
fn read(path: &Path) -> Result<String, ModelError> {
    let refuse = |reason: String| ModelError::new(path, reason);
    let file = fs::File::open(path).map_err(|err| refuse(err.to_string()))?;
    let mut text = String::new();
    let read = file.take(MAX_MANIFEST_BYTES + 1).read_to_string(&mut text);
    read.map_err(|err| refuse(err.to_string()))?;
    if text.len() as u64 > MAX_MANIFEST_BYTES {
        return Err(refuse("is larger than 1 MiB".to_owned()));
    }
    Ok(text)
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
    package.digests = stated;
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

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    /// A manifest of `version`, and its graph: any bytes, as nobody runs them here.
    fn write(manifest: &Path, graph: &Path, version: &str) {
        fs::create_dir_all(graph.parent().unwrap()).unwrap();
        fs::write(graph, version).unwrap();
        let text = super::super::manifest::EXAMPLE
            .replace("\"1.0.0\"", &format!("\"{version}\""))
            .replace(
                &"0".repeat(64),
                &chain::hex(Sha256::new_with_prefix(version)),
            );
        fs::write(manifest, text).unwrap();
    }

    /// A folder with its own manifest of 1.0.0 and a further version 1.1.0.
    fn folder() -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("example");
        let graph = |version: &str| folder.join(version).join("model.onnx");
        write(&folder.join("1.0.0.toml"), &graph("1.0.0"), "1.0.0");
        fs::rename(folder.join("1.0.0.toml"), folder.join(MANIFEST)).unwrap();
        let further = folder.join("1.1.0").join(MANIFEST);
        write(&further, &graph("1.1.0"), "1.1.0");
        (dir, folder)
    }

    fn opened(folder: &Path, text: &str) -> Result<Installed, String> {
        fs::write(folder.join(ROLES), text).unwrap();
        let roles = roles(folder).map_err(|err| err.to_string())?;
        open(folder, &roles, &Trust::default()).map_err(|err| err.to_string())
    }

    #[test]
    fn versions_have_the_roles_that_the_file_gives_them() {
        let (dir, folder) = folder();
        let model = opened(&folder, "").unwrap();
        assert_eq!(model.served.manifest.version, "1.0.0");
        assert_eq!(model.versions, ["1.0.0", "1.1.0"]);
        let model = opened(&folder, "shadow = [\"1.1.0\"]").unwrap();
        assert_eq!(model.shadows[0].onnx, folder.join("1.1.0/model.onnx"));
        assert_ne!(model.shadows[0].identity, model.served.identity);
        let text = "serve = \"1.1.0\"\ncanary = { version = \"1.0.0\", percent = 2.5 }";
        let model = opened(&folder, text).unwrap();
        assert_eq!(model.served.manifest.version, "1.1.0");
        let (canary, percent) = model.canary.unwrap();
        assert_eq!(
            (canary.onnx, percent),
            (folder.join("1.0.0/model.onnx"), 2.5)
        );
        // Without a manifest of its own a folder is a model as long as the file says which version.
        fs::remove_file(folder.join(MANIFEST)).unwrap();
        assert_eq!(
            folders(dir.path()).unwrap().as_slice(),
            std::slice::from_ref(&folder)
        );
        assert!(opened(&folder, "serve = \"1.1.0\"").is_ok());
        assert!(
            opened(&folder, "")
                .unwrap_err()
                .contains("serve: is needed")
        );
    }

    #[test]
    fn what_is_ambiguous_or_missing_is_refused_with_its_file() {
        let (_dir, folder) = folder();
        for (text, expected) in [
            (
                "serve = \"2.0.0\"",
                "serving.toml: 2.0.0: there is no manifest",
            ),
            (
                "shadow = [\"1.0.0\"]",
                "serving.toml: 1.0.0: has another role",
            ),
            ("serves = \"1.1.0\"", "serves"),
        ] {
            let refusal = opened(&folder, text).unwrap_err();
            assert!(refusal.contains(expected), "{text}: {refusal}");
        }
        let further = folder.join("1.1.0");
        fs::copy(folder.join(MANIFEST), further.join(MANIFEST)).unwrap();
        let refusal = opened(&folder, "serve = \"1.1.0\"").unwrap_err();
        assert!(
            refusal.contains("version: is 1.0.0 in the folder of 1.1.0"),
            "{refusal}"
        );
        fs::copy(folder.join(MANIFEST), folder.join("1.0.0").join(MANIFEST)).unwrap();
        let refusal = opened(&folder, "").unwrap_err();
        assert!(refusal.contains("describes 1.0.0 too"), "{refusal}");
    }

    #[test]
    fn every_version_has_the_name_of_the_model() {
        let (_dir, folder) = folder();
        let further = folder.join("1.1.0").join(MANIFEST);
        let text = fs::read_to_string(&further).unwrap();
        fs::write(&further, text.replace("\"example\"", "\"other\"")).unwrap();
        let refusal = opened(&folder, "shadow = [\"1.1.0\"]").unwrap_err();
        assert!(refusal.contains("name: must be `example`"), "{refusal}");
    }

    #[test]
    fn a_hidden_folder_is_no_model() {
        let (dir, folder) = folder();
        fs::rename(&folder, dir.path().join("..2026")).unwrap();
        assert!(folders(dir.path()).unwrap().is_empty());
    }
}
