//! A model whose manifest does not fit its graph is refused at start, with a message that names the
//! file, the key and both sides.

use crate::support::files::copy_dir;
use crate::support::gateway::Refusal;
use crate::support::models::{Models, edit};
use crate::support::options::repository;
use crate::support::{Gateway, Options};

#[test]
fn another_shape() {
    let refusal = with_change("cxr-phantom", "rows = 128", "rows = 64");
    says(
        &refusal,
        &["cxr-phantom", "[N, 1, 64, 128]", "[N, 1, 128, 128]"],
    );
}

#[test]
fn another_tensor_name() {
    let refusal = with_change("cxr-phantom", "tensor = \"logits\"", "tensor = \"scores\"");
    says(&refusal, &["output.tensor", "`scores`", "logits"]);
}

#[test]
fn another_type() {
    let refusal = with_change("cxr-phantom", "dtype = \"float32\"", "dtype = \"float16\"");
    says(&refusal, &["input.dtype", "Float16", "Float32"]);
}

#[test]
fn a_digest_of_another_file() {
    let other = "0".repeat(64);
    let manifest = std::fs::read_to_string(repository().join("models/wdbc-forest/model.toml"));
    let manifest: toml::Table = manifest.unwrap().parse().unwrap();
    let own = manifest["sha256"].as_str().unwrap();
    let refusal = with_change("wdbc-forest", own, &other);
    says(&refusal, &["wdbc-forest/model.toml", "sha256", own, &other]);
}

#[test]
fn a_label_beyond_the_output() {
    let refusal = with_change("cxr-phantom", "index = 1", "index = 9");
    says(
        &refusal,
        &[
            "output.labels.index",
            "says 9 for `pneumothorax`",
            "2 values",
        ],
    );
}

#[test]
fn a_misspelt_key() {
    let refusal = with_change("wdbc-forest", "threshold = 0.5", "treshold = 0.5");
    says(&refusal, &["wdbc-forest/model.toml", "treshold"]);
}

#[test]
fn a_golden_case_that_comes_out_otherwise() {
    let models = Models::new();
    let expected = models.folder().join("1.0.0/golden/jpeg-ls/expected.json");
    edit(&expected, "0.006542", "0.009542");
    let refusal = Gateway::refusal(&Options::new().models(models.dir()));
    says(
        &refusal,
        &[
            "model.toml: golden case jpeg-ls",
            "differs by 3.00e-3",
            "allowed is 1e-4",
        ],
    );
}

#[test]
fn no_golden_case_where_one_is_required() {
    let models = Models::new();
    std::fs::remove_dir_all(models.folder().join("1.0.0/golden")).unwrap();
    let options = Options::new().models(models.dir());
    let gateway = Gateway::start(&options);
    assert_eq!(gateway.metric("models_serving", &[]), 1.0);
    let refusal = Gateway::refusal(&options.set("models.require_golden", true));
    says(
        &refusal,
        &["there is no golden case", "models.require_golden"],
    );
}

fn with_change(model: &str, from: &str, to: &str) -> Refusal {
    let models = tempfile::tempdir().unwrap();
    copy_dir(
        &repository().join("models").join(model),
        &models.path().join(model),
    );
    let manifest = models.path().join(model).join("model.toml");
    let text = std::fs::read_to_string(&manifest).unwrap();
    assert!(
        text.contains(from),
        "the manifest of {model} has no `{from}`"
    );
    std::fs::write(&manifest, text.replacen(from, to, 1)).unwrap();
    Gateway::refusal(&Options::new().models(models.path().to_owned()))
}

fn says(refusal: &Refusal, words: &[&str]) {
    assert_eq!(refusal.code, Some(64), "{}", refusal.stderr);
    for word in words {
        assert!(
            refusal.stderr.contains(word),
            "no `{word}` in {}",
            refusal.stderr
        );
    }
}
