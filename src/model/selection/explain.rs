//! Why a model applies to an instance, condition by condition, for `pacs-gateway check --explain`.

use dicom::dictionary_std::tags;

use super::{Instance, among, wants_pixels};
use crate::model::manifest::{Manifest, Rule};

/// One condition and what became of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Check {
    /// The condition, with the table it is in.
    pub condition: String,
    /// Whether it holds.
    pub holds: bool,
    /// What the instance has; nothing of the patient.
    pub found: String,
}

/// Every condition of a model, whether it decides anything or not.
pub fn checks(manifest: &Manifest, instance: &Instance<'_>) -> Vec<Check> {
    let applies = &manifest.applies_to;
    let known = instance.known;
    let view = instance.data_set.str(tags::VIEW_POSITION);
    let mut checks = Vec::new();
    for (name, allowed, value) in [
        ("modality", &applies.modality, known.modality.as_str()),
        ("body_part", &applies.body_part, &known.body_part),
        ("view", &applies.view, view.as_deref().unwrap_or_default()),
        ("sop_class", &applies.sop_class, &known.sop_class),
        ("calling_ae", &applies.calling_ae, &known.calling_ae),
    ] {
        if !allowed.is_empty() {
            checks.push(Check {
                condition: format!("applies_to.{name} {}", allowed.join("|")),
                holds: among(allowed, value),
                found: match value.trim() {
                    "" => "absent".to_owned(),
                    value => value.chars().filter(|c| !c.is_control()).collect(),
                },
            });
        }
    }
    let mut add = |table: String, rules: &[Rule]| {
        checks.extend(rules.iter().map(|rule| Check {
            condition: format!("{table} {rule}"),
            holds: rule.holds(instance),
            found: rule.found(instance),
        }));
    };
    add("applies_to.where".to_owned(), &applies.rules);
    for input in &manifest.input {
        let role = input.role.as_deref().unwrap_or(&input.name);
        add(format!("input.where ({role})"), &input.rules);
    }
    add("validated_for".to_owned(), &manifest.validated_for);
    if wants_pixels(manifest) {
        let has = instance.has_pixels();
        checks.push(Check {
            condition: "pixel data".to_owned(),
            holds: has,
            found: if has { "present" } else { "absent" }.to_owned(),
        });
    }
    checks
}
