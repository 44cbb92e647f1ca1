//! Models with their engines, for tests of what models answer. Sessions are processes of the real
//! binary.

use std::path::Path;
use std::sync::Arc;

use pacs_gateway::inference::{Config, Engine};
use pacs_gateway::model::{Role, repository};
use pacs_gateway::registry::Served;

/// The models of a folder in order of name, each with one session; those of `only`, if it names any.
pub fn models(folder: &Path, only: &[&str]) -> Vec<Served> {
    let config = Config {
        sessions: 1,
        ..Config::default()
    };
    let program = Path::new(env!("CARGO_BIN_EXE_pacs-gateway"));
    let mut packages = repository::scan(folder).unwrap();
    packages.retain(|package| only.is_empty() || only.contains(&package.manifest.name.as_str()));
    let serve = |package: repository::Package| Served {
        engines: package
            .graphs()
            .iter()
            .map(|onnx| Engine::start(&config, &package, program, onnx).unwrap())
            .collect(),
        package: Arc::new(package),
        role: Role::Served,
    };
    packages.into_iter().map(serve).collect()
}
