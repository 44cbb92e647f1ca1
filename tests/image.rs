//! Do the container image and compose.yaml still say what the rest of the repository says?
//!
//! Read as text, which costs nothing; `make image-test` builds and runs the image.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use pacs_gateway::config::{Config, keys};

const VOLUME: &str = "/var/lib/pacs-gateway";

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|err| panic!("{path}: {err}"))
}

/// An instruction of the Dockerfile: its name, and the rest with continued lines put together.
type Instruction = (String, String);

fn instructions() -> Vec<Instruction> {
    let text = read("Dockerfile");
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    let text = lines.collect::<Vec<_>>().join("\n").replace("\\\n", " ");
    let lines = text.lines().filter_map(|line| line.trim().split_once(' '));
    lines
        .map(|(name, rest)| (name.to_owned(), rest.trim().to_owned()))
        .collect()
}

/// The instructions from the last `FROM` on: what is in the image.
fn last_stage() -> Vec<Instruction> {
    let all = instructions();
    let from = all.iter().rposition(|(name, _)| name == "FROM").unwrap();
    all[from..].to_vec()
}

/// What the last stage says with this instruction, which it must say once.
fn once(name: &str) -> String {
    let stage = last_stage();
    let mut said = stage.iter().filter(|(said, _)| said == name);
    let (_, rest) = said
        .next()
        .unwrap_or_else(|| panic!("no {name} in the last stage"));
    assert_eq!(said.next(), None, "{name} twice in the last stage");
    rest.clone()
}

/// The default of a build argument.
fn argument(name: &str) -> String {
    let all = instructions();
    let value = all.iter().find_map(|(instruction, rest)| {
        let (key, value) = rest.split_once('=')?;
        (instruction == "ARG" && key == name).then(|| value.trim_matches('"').to_owned())
    });
    value.unwrap_or_else(|| panic!("no ARG {name} with a default in the Dockerfile"))
}

/// A reference names a release exactly: a digest, or a tag with a point or a date in it.
fn is_exact(reference: &str) -> bool {
    let tag = reference.rsplit('/').next().unwrap().split_once(':');
    let exact = |tag: &str| {
        let numbers = tag.split(['-', '+']).filter(|part| {
            let digits = part.chars().all(|c| c.is_ascii_digit() || c == '.');
            digits && (part.matches('.').count() == 2 || part.len() == 8)
        });
        numbers.count() > 0
    };
    reference.contains("@sha256:") || tag.is_some_and(|(_, tag)| exact(tag))
}

#[test]
fn bases_are_named_exactly() {
    for name in ["RUST_IMAGE", "RUNTIME_IMAGE"] {
        let base = argument(name);
        assert!(
            is_exact(&base),
            "{name}={base}: an exact tag or a digest is wanted"
        );
    }
    let named = ["${RUST_IMAGE}", "${RUNTIME_IMAGE}", "scratch"];
    let mut stages = BTreeSet::new();
    for (name, rest) in instructions() {
        if name == "FROM" {
            let mut words = rest.split(' ');
            let base = words.next().unwrap();
            assert!(
                named.contains(&base) || stages.contains(base),
                "FROM {base}: bases are arguments, so that whoever builds can pin them"
            );
            stages.insert(words.nth(1).unwrap_or_default().to_owned());
        }
    }
}

#[test]
fn the_compiler_is_new_enough() {
    let manifest: toml::Table = read("Cargo.toml").parse().unwrap();
    let wanted = manifest["package"]["rust-version"].as_str().unwrap();
    let base = argument("RUST_IMAGE");
    let (_, tag) = base.rsplit_once(':').unwrap();
    let version = |text: &str| -> Vec<u32> {
        let numbers = text.split('-').next().unwrap().split('.');
        numbers.map(|number| number.parse().unwrap()).collect()
    };
    assert!(version(tag) >= version(wanted), "{base} before {wanted}");
}

#[test]
fn onnx_runtime_has_one_home() {
    let setup = read("scripts/setup.sh");
    let version = setup
        .lines()
        .find_map(|line| line.strip_prefix("ort_version="));
    let version = version.expect("ort_version= in scripts/setup.sh");
    let dockerfile = read("Dockerfile");
    assert!(
        !dockerfile.contains(version),
        "the Dockerfile names ONNX Runtime's version, which scripts/setup.sh pins"
    );
    let runs = instructions();
    assert!(
        runs.contains(&("RUN".to_owned(), "scripts/setup.sh runtime".to_owned())),
        "the Dockerfile does not take ONNX Runtime from `scripts/setup.sh runtime`"
    );
}

/// A stage does not know the arguments of the one below it, with every builder.
#[test]
fn arguments_are_declared_where_they_are_used() {
    let mut declared = BTreeSet::new();
    for (name, rest) in instructions() {
        match name.as_str() {
            "FROM" => declared.clear(),
            "ARG" => _ = declared.insert(rest.split('=').next().unwrap().to_owned()),
            _ => {
                for used in rest.split("${").skip(1) {
                    let used = used.split('}').next().unwrap();
                    assert!(declared.contains(used), "{name} {rest}: no ARG {used}");
                }
            }
        }
    }
}

/// The instructions that lead to a stage's files, those of the stages below it first.
fn leading_to(stage: &str) -> Vec<Instruction> {
    let all = instructions();
    let is_it =
        |(name, rest): &Instruction| name == "FROM" && rest.split(' ').nth(2) == Some(stage);
    let Some(from) = all.iter().position(is_it) else {
        return Vec::new();
    };
    let own = &all[from + 1..];
    let end = own.iter().position(|(name, _)| name == "FROM");
    let base = all[from].1.split(' ').next().unwrap();
    let mut leading = leading_to(base);
    leading.extend_from_slice(&own[..end.unwrap_or(own.len())]);
    leading
}

/// What is compiled before the sources are there stays when they change.
#[test]
fn dependencies_are_a_layer_of_their_own() {
    let leading = leading_to("build");
    let compiles = |(name, rest): &&Instruction| {
        name == "RUN" && rest.contains("cargo build --release --locked")
    };
    assert_eq!(leading.iter().filter(compiles).count(), 2);
    for (name, rest) in leading_to("dependencies") {
        let mut sources = rest.split(' ').rev().skip(1);
        let known = [".cargo", "Cargo.toml", "Cargo.lock"];
        assert!(
            name != "COPY" || sources.all(|path| known.contains(&path)),
            "COPY {rest}: its changes would build the dependencies anew"
        );
        assert!(
            name != "ARG" || !rest.starts_with("REVISION") && !rest.starts_with("VERSION"),
            "ARG {rest}: each commit would build the dependencies anew"
        );
    }
    let below = leading_to("dependencies");
    assert_eq!(below.iter().filter(compiles).count(), 1);
}

#[test]
fn the_last_stage_only_copies() {
    for (name, rest) in last_stage() {
        assert!(
            name != "RUN" && name != "ADD" && name != "SHELL",
            "{name} {rest}: nothing is run in the last stage"
        );
    }
    let from_build = last_stage()
        .iter()
        .any(|(name, rest)| name == "COPY" && rest.contains("--from=build /usr/local/bin"));
    assert!(from_build, "the binary does not come from the build stage");
}

#[test]
fn what_others_rely_on() {
    assert_eq!(once("USER"), "10001:10001");
    assert_eq!(once("ENTRYPOINT"), r#"["/usr/local/bin/pacs-gateway"]"#);
    assert_eq!(once("CMD"), r#"["serve"]"#);
    assert_eq!(once("WORKDIR"), "/opt/pacs-gateway");
    assert_eq!(once("VOLUME"), VOLUME);
    assert_eq!(once("STOPSIGNAL"), "SIGTERM");
    let exposed = once("EXPOSE");
    let exposed: BTreeSet<&str> = exposed.split(' ').collect();
    assert_eq!(exposed, BTreeSet::from(["11112", "2762", "8080", "9090"]));
    let defaults = Config::default();
    let (dicom, http) = (defaults.dicom.bind.to_string(), defaults.http.bind);
    for bind in [dicom, http] {
        let (_, port) = bind.rsplit_once(':').unwrap();
        assert!(
            exposed.contains(port),
            "the default port {port} is not exposed"
        );
    }
    assert_eq!(argument("VERSION"), env!("CARGO_PKG_VERSION"));
}

/// What the image writes is on its volume, wherever no one says otherwise.
#[test]
fn the_images_own_configuration() {
    let config = Config::load(&[root().join("config/image.toml")]).unwrap();
    for path in [&config.spool.dir, &config.broker.file] {
        assert!(
            path.starts_with(VOLUME),
            "{} is not on the volume",
            path.display()
        );
    }
    let copied = last_stage();
    let copies = |rest: String| copied.contains(&("COPY".to_owned(), rest));
    assert!(copies(format!(
        "models {}",
        config.models.dir.to_str().unwrap()
    )));
    let place = "/etc/pacs-gateway/gateway.toml";
    assert!(copies(format!("config/image.toml {place}")));
    let environment = once("ENV");
    for (name, value) in [
        ("PACS_GATEWAY_CONFIG", place),
        ("ORT_DYLIB_PATH", "/usr/local/lib/libonnxruntime.so"),
        ("TMPDIR", VOLUME),
    ] {
        let wanted = format!("{name}={value}");
        assert!(
            environment.split_whitespace().any(|set| set == wanted),
            "the image does not set {wanted}"
        );
    }
}

/// Source files that are more than tests.
fn sources() -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![root().join("src")];
    while let Some(folder) = folders.pop() {
        for item in fs::read_dir(folder).unwrap() {
            let path = item.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs")
                && path.file_name().unwrap() != "tests.rs"
            {
                found.push(path);
            }
        }
    }
    found
}

/// Paths that the Dockerfile copies from the repository.
fn copied() -> BTreeSet<PathBuf> {
    let mut copied = BTreeSet::new();
    for (name, rest) in instructions() {
        if name == "COPY" && !rest.starts_with("--from=") {
            let words: Vec<&str> = rest.split(' ').collect();
            let sources = &words[..words.len() - 1];
            copied.extend(sources.iter().map(PathBuf::from));
        }
    }
    copied
}

#[test]
fn what_is_copied_is_there_and_not_ignored() {
    let ignore = read(".dockerignore");
    let lines = ignore.lines().filter(|line| !line.starts_with('#'));
    let lines: Vec<&str> = lines.filter(|line| !line.is_empty()).collect();
    assert_eq!(lines[0], "*", ".dockerignore begins with *");
    let let_in: Vec<&str> = lines
        .iter()
        .filter_map(|line| line.strip_prefix('!'))
        .collect();
    // The builders do not agree on folders of which patterns let parts in.
    assert!(
        !let_in
            .iter()
            .any(|path| path.contains('/') && path.contains('*')),
        ".dockerignore lets in by a pattern below a folder"
    );
    for path in copied() {
        assert!(
            root().join(&path).exists(),
            "COPY {}: no such file",
            path.display()
        );
        let known = let_in.iter().any(|allowed| {
            let stem = allowed.trim_end_matches('*');
            Path::new(allowed).starts_with(&path) || path.to_str().unwrap().starts_with(stem)
        });
        assert!(
            known,
            ".dockerignore keeps {} out of the build",
            path.display()
        );
    }
    // Files outside of src/ that src/ includes; a test module is the end of its file.
    for path in sources() {
        let text = fs::read_to_string(&path).unwrap();
        let code = text.split("#[cfg(test)]").next().unwrap();
        for included in code.split("include_str!(\"").skip(1) {
            let included = included.split('"').next().unwrap();
            let included = path.parent().unwrap().join(included).canonicalize();
            let included = included.unwrap();
            let included = included.strip_prefix(root()).unwrap().to_str().unwrap();
            assert!(
                included.starts_with("src/") || let_in.contains(&included),
                ".dockerignore keeps {included} out, which {} includes",
                path.display()
            );
        }
    }
}

#[test]
fn the_composition_fits_the_image() {
    let compose = read("compose.yaml");
    let known: Vec<(String, serde_json::Value)> = keys();
    let open = |key: &str| {
        known.iter().any(|(known, default)| {
            known == key
                || default.as_object().is_some_and(serde_json::Map::is_empty)
                    && key.starts_with(&format!("{known}."))
        })
    };
    let mut variables = 0;
    for line in compose.lines() {
        let line = line.trim();
        if let Some(rest) = line.strip_prefix("PACS_GATEWAY__") {
            let name = rest.split(':').next().unwrap();
            let key = name.to_ascii_lowercase().replace("__", ".");
            assert!(open(&key), "compose.yaml sets {key}, which is no key");
            variables += 1;
        }
        if let Some(image) = line.strip_prefix("image: ") {
            assert!(
                is_exact(image),
                "compose.yaml: {image}: an exact tag is wanted"
            );
        }
        // Only this machine may connect: the passwords are in the file.
        let port = line.strip_prefix("- ").unwrap_or_default();
        if port.starts_with(|c: char| c.is_ascii_digit()) {
            assert!(port.starts_with("127.0.0.1:"), "compose.yaml: {port}");
        }
    }
    assert!(variables > 0, "compose.yaml sets no variable");
    let own = format!("image: pacs-gateway:{}\n", env!("CARGO_PKG_VERSION"));
    assert!(
        compose.contains(&own),
        "compose.yaml names another version than {own}"
    );
    assert!(compose.contains(&format!("- spool:{VOLUME}\n")));
    for hardening in [
        "read_only: true",
        "cap_drop: [ALL]",
        "no-new-privileges:true",
    ] {
        assert!(
            compose.contains(hardening),
            "compose.yaml: no {hardening} any more"
        );
    }
    let grace = compose.split("stop_grace_period: ").nth(1).unwrap();
    let grace: u64 = grace.split('s').next().unwrap().parse().unwrap();
    let drain = Config::default().shutdown;
    let drain = drain.associations.get() + drain.studies.get() + drain.outbox.get();
    assert!(
        grace > drain.as_secs(),
        "stop_grace_period {grace} s, and the drain takes {drain:?}"
    );
}

/// The rules above can tell right from wrong.
#[test]
fn exact_names_are_told_from_others() {
    for exact in [
        "rust:1.95.0-slim-bookworm",
        "debian:bookworm-20260824-slim",
        "host:5000/a/b@sha256:0a",
        "pacs-gateway:0.1.0",
    ] {
        assert!(is_exact(exact), "{exact}");
    }
    for vague in [
        "rust",
        "rust:1",
        "rust:1.95-slim",
        "debian:bookworm-slim",
        "debian:latest",
        "host:5000/debian",
    ] {
        assert!(!is_exact(vague), "{vague}");
    }
}
