//! Models that build on other models: rows of features with another model's number in them, and
//! ensembles of models. Pure: it sees manifests only.

use std::collections::BTreeSet;

use sha2::{Digest, Sha256};

use super::manifest::{Manifest, ModelOutput, OutputSpec};

/// A model that cannot be served beside the others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Broken {
    /// Its place among the manifests.
    pub model: usize,
    /// Key and reason, with the name of the other model.
    pub reason: String,
}

/// Numbers of other models that `manifest` needs: those that are columns of its rows, and those of the
/// members of an ensemble.
pub fn wanted(manifest: &Manifest) -> Vec<ModelOutput> {
    let labels = manifest.output.labels();
    let members = manifest.ensemble.iter().flat_map(|own| &own.models);
    let of_members = members.flat_map(|name| {
        labels.iter().map(move |reported| ModelOutput {
            name: name.clone(),
            label: reported.label.to_owned(),
        })
    });
    of_members.chain(manifest.upstream().cloned()).collect()
}

/// Names of the models whose answers `manifest` needs, in order of name.
pub fn needs(manifest: &Manifest) -> BTreeSet<String> {
    let wanted = wanted(manifest).into_iter();
    wanted.map(|output| output.name).collect()
}

/// The order in which models can be run: each after those it needs, otherwise as given.
///
/// # Errors
/// The first model that needs one that is not there, a label that the other does not report, a member
/// of another kind or unit, or, directly or not, itself.
pub fn order(manifests: &[&Manifest]) -> Result<Vec<usize>, Broken> {
    let mut waiting: Vec<(usize, BTreeSet<usize>)> = Vec::new();
    for (model, manifest) in manifests.iter().enumerate() {
        let refuse = |reason| Broken { model, reason };
        fits(manifest, manifests).map_err(refuse)?;
        let place = |name: String| manifests.iter().position(|other| other.name == name);
        let needed = needs(manifest).into_iter().filter_map(place).collect();
        waiting.push((model, needed));
    }
    let mut order = Vec::with_capacity(manifests.len());
    while !waiting.is_empty() {
        let Some(next) = waiting.iter().position(|(_, needed)| needed.is_empty()) else {
            return Err(circle(manifests, &waiting));
        };
        let (model, _) = waiting.remove(next);
        for (_, needed) in &mut waiting {
            needed.remove(&model);
        }
        order.push(model);
    }
    Ok(order)
}

/// SHA-256 that stands for an ensemble of models, hex: over `name NUL version NUL sha256 LF` of each
/// member, in the manifest's order. None when it is no such ensemble, or a member is not in `all`.
pub fn members_sha256(ensemble: &Manifest, all: &[&Manifest]) -> Option<String> {
    if !ensemble.is_ensemble_of_models() {
        return None;
    }
    let mut hasher = Sha256::new();
    for name in ensemble.ensemble.iter().flat_map(|own| &own.models) {
        let member = all.iter().find(|other| other.name == *name)?;
        hasher.update(format!("{name}\0{}\0{}\n", member.version, member.sha256));
    }
    Some(hex(hasher))
}

/// SHA-256 that stands for several graphs, hex: over the lower-case digest of each, then LF.
pub fn graphs_sha256<'a>(digests: impl IntoIterator<Item = &'a str>) -> String {
    let mut hasher = Sha256::new();
    for digest in digests {
        hasher.update(digest.to_ascii_lowercase());
        hasher.update("\n");
    }
    hex(hasher)
}

pub(super) fn hex(hasher: Sha256) -> String {
    let digest = hasher.finalize();
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Whether the models that `manifest` needs are there and report what it needs.
fn fits(manifest: &Manifest, all: &[&Manifest]) -> Result<(), String> {
    let own = &manifest.name;
    let find = |key: &str, name: &str| {
        let found = all.iter().find(|other| other.name == name);
        found.ok_or_else(|| format!("{key}: `{own}` needs the model `{name}`, which is not there"))
    };
    let lacks = |key: &str, name: &str, label: &str, other: &Manifest| {
        let labels = other.output.labels();
        let labels: Vec<&str> = labels.into_iter().map(|reported| reported.label).collect();
        Err(format!(
            "{key}: `{own}` needs `{label}` of the model `{name}`, which reports {}",
            labels.join(", ")
        ))
    };
    let reports = |other: &Manifest, label: &str| {
        let mut labels = other.output.labels().into_iter();
        labels.any(|reported| reported.label == label)
    };
    for output in manifest.upstream() {
        let key = "input.features.model";
        let other = find(key, &output.name)?;
        if !reports(other, &output.label) {
            return lacks(key, &output.name, &output.label, other);
        }
    }
    let key = "ensemble.models";
    for name in manifest.ensemble.iter().flat_map(|own| &own.models) {
        let other = find(key, name)?;
        for label in manifest.output.labels() {
            if !reports(other, label.label) {
                return lacks(key, name, label.label, other);
            }
        }
        match (&manifest.output, &other.output) {
            (OutputSpec::Classification(_), OutputSpec::Classification(_)) => {}
            (OutputSpec::Regression(ours), OutputSpec::Regression(theirs)) => {
                for quantity in &ours.labels {
                    let same = |other: &&super::manifest::Quantity| other.label == quantity.label;
                    let unit = theirs.labels.iter().find(same).map(|found| &found.unit);
                    if unit.is_some_and(|unit| *unit != quantity.unit) {
                        return Err(format!(
                            "{key}: `{own}` gives `{}` in {}, its member `{name}` in {}",
                            quantity.label,
                            quantity.unit,
                            unit.map_or("", String::as_str)
                        ));
                    }
                }
            }
            (ours, theirs) => {
                return Err(format!(
                    "{key}: `{own}` is a {}, its member `{name}` a {}",
                    ours.kind(),
                    theirs.kind()
                ));
            }
        }
    }
    Ok(())
}

/// The first circle among models that all wait for another.
fn circle(manifests: &[&Manifest], waiting: &[(usize, BTreeSet<usize>)]) -> Broken {
    let name = |model: &usize| {
        manifests
            .get(*model)
            .map_or("", |found| found.name.as_str())
    };
    let next = |model: usize| {
        let found = waiting.iter().find(|(waiting, _)| *waiting == model);
        found.and_then(|(_, needed)| needed.first().copied())
    };
    let mut path: Vec<usize> = waiting
        .first()
        .map(|(model, _)| *model)
        .into_iter()
        .collect();
    while let Some(model) = path.last().and_then(|last| next(*last)) {
        if let Some(start) = path.iter().position(|seen| *seen == model) {
            let round = path.get(start..).unwrap_or_default();
            let names = round.iter().chain([&model]).map(name);
            let names: Vec<String> = names.map(|name| format!("`{name}`")).collect();
            let reason = format!("models need each other: {}", names.join(" needs "));
            return Broken { model, reason };
        }
        path.push(model);
    }
    Broken {
        model: 0,
        reason: "models need each other".to_owned(),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    const HEAD: &str = r#"
        version = "1"
        title = "t"
        intended_use = "t"
        licence = "MIT"
        device_uid = "2.25.1"
        applies_to = { level = "study" }
    "#;
    const SHA: &str =
        "sha256 = \"0000000000000000000000000000000000000000000000000000000000000000\"";

    fn label(name: &str) -> String {
        format!(
            "[[output.labels]]\nindex = 0\nlabel = \"{name}\"\nthreshold = 0.5\n\
             priority = \"routine\"\ncode = {{ scheme = \"99T\", value = \"1\", meaning = \"m\" }}\n"
        )
    }

    /// A model of one feature, from `source`, that reports `own`.
    fn tabular(name: &str, source: &str, own: &str) -> Manifest {
        let text = format!(
            "name = \"{name}\"\n{HEAD}\n{SHA}\n[[input]]\nname = \"x\"\nlayout = \"NF\"\n\
             dtype = \"float32\"\n[[input.features]]\nname = \"f\"\n{source}\n[output]\n\
             kind = \"classification\"\ntensor = \"p\"\nactivation = \"none\"\n\
             aggregate = \"max\"\n{}",
            label(own)
        );
        Manifest::parse(&text).unwrap()
    }

    fn chained(name: &str, upstream: &str, label: &str) -> Manifest {
        let source = format!("model = {{ name = \"{upstream}\", label = \"{label}\" }}");
        tabular(name, &source, "a")
    }

    fn ensemble(name: &str, models: &str, own: &str) -> Manifest {
        let text = format!(
            "name = \"{name}\"\n{HEAD}\n[ensemble]\ncombine = \"mean\"\nmodels = [{models}]\n\
             [output]\nkind = \"classification\"\nactivation = \"none\"\naggregate = \"max\"\n{}",
            label(own)
        );
        Manifest::parse(&text).unwrap()
    }

    fn leaf(name: &str) -> Manifest {
        tabular(name, "attribute = \"PatientAge\"", "a")
    }

    fn names(manifests: &[Manifest]) -> Result<Vec<&str>, String> {
        let all: Vec<&Manifest> = manifests.iter().collect();
        let order = order(&all).map_err(|broken| {
            let name = &manifests[broken.model].name;
            format!("{name}: {}", broken.reason)
        })?;
        Ok(order
            .into_iter()
            .map(|at| manifests[at].name.as_str())
            .collect())
    }

    #[test]
    fn each_model_comes_after_those_it_needs() {
        let models = [
            ensemble("all", "\"risk\", \"one\"", "a"),
            chained("risk", "two", "a"),
            leaf("one"),
            leaf("two"),
        ];
        assert_eq!(names(&models).unwrap(), ["one", "two", "risk", "all"]);
    }

    #[test]
    fn what_cannot_be_served_names_both_models() {
        for (models, expected) in [
            (
                vec![chained("risk", "gone", "a")],
                "risk: input.features.model: `risk` needs the model `gone`",
            ),
            (
                vec![leaf("one"), chained("risk", "one", "b")],
                "risk: input.features.model: `risk` needs `b` of the model `one`, which reports a",
            ),
            (
                vec![
                    ensemble("all", "\"one\", \"two\"", "b"),
                    leaf("one"),
                    leaf("two"),
                ],
                "all: ensemble.models: `all` needs `b` of the model `one`",
            ),
            (
                vec![
                    chained("x", "y", "a"),
                    chained("y", "z", "a"),
                    chained("z", "y", "a"),
                ],
                "y: models need each other: `y` needs `z` needs `y`",
            ),
            (
                vec![chained("x", "x", "a")],
                "x: models need each other: `x` needs `x`",
            ),
        ] {
            let refusal = names(&models).unwrap_err();
            assert!(refusal.starts_with(expected), "{refusal}");
        }
    }

    #[test]
    fn members_give_the_same_kind_in_the_same_unit() {
        let quantity = |name: &str, unit: &str| {
            let text = format!(
                "name = \"{name}\"\n{HEAD}\n{SHA}\n[[input]]\nname = \"x\"\nlayout = \"NF\"\n\
                 dtype = \"float32\"\n[[input.features]]\nname = \"f\"\n\
                 attribute = \"PatientAge\"\n[output]\nkind = \"regression\"\n\
                 tensor = \"p\"\naggregate = \"max\"\n{}unit = \"{unit}\"\n",
                label("a")
            );
            Manifest::parse(&text).unwrap()
        };
        let mut all = ensemble("all", "\"one\", \"two\"", "a");
        let mixed = [all.clone(), quantity("one", "mm"), quantity("two", "mm")];
        let refusal = names(&mixed).unwrap_err();
        assert!(refusal.contains("`all` is a classification, its member `one` a regression"));
        all.output = mixed[1].output.clone();
        let units = [all, quantity("one", "mm"), quantity("two", "cm")];
        let refusal = names(&units).unwrap_err();
        assert!(
            refusal.contains("`all` gives `a` in mm, its member `two` in cm"),
            "{refusal}"
        );
    }

    #[test]
    fn a_digest_stands_for_every_member_and_graph() {
        let all = ensemble("all", "\"one\", \"two\"", "a");
        let (one, mut two) = (leaf("one"), leaf("two"));
        let digest = members_sha256(&all, &[&one, &two]);
        let zeros = "0".repeat(64);
        let written = format!("one\0{}\0{zeros}\ntwo\0{}\0{zeros}\n", 1, 1);
        assert_eq!(digest, Some(hex(Sha256::new_with_prefix(written))));
        two.sha256 = "1".repeat(64);
        assert_ne!(digest, members_sha256(&all, &[&one, &two]));
        assert_eq!(members_sha256(&all, &[&one]), None);
        assert_eq!(members_sha256(&one, &[&one, &two]), None);
        // printf 'aa\nbb\n' | sha256sum
        assert_eq!(
            graphs_sha256(["AA", "bb"]),
            "329d670e59ead1543a2d36865895972560bc434204c5f4a0c8219005dd312719"
        );
    }
}
