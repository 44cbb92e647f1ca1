//! Which instances a model applies to. Pure: it sees attribute values, never files.

use dicom::dictionary_std::tags;
use serde::{Deserialize, Serialize};

use super::manifest::AppliesTo;
use crate::dicom::dataset::DataSet;

/// The attributes of an instance that manifests select by.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, Serialize)]
pub struct Attributes {
    /// Modality (0008,0060).
    pub modality: String,
    /// Body Part Examined (0018,0015).
    pub body_part: String,
    /// View Position (0018,5101).
    pub view: String,
    /// SOP Class UID (0008,0016).
    pub sop_class: String,
}

/// A model's conditions, and what is known of an instance before its file is opened. It goes to
/// where the file is opened.
#[derive(Debug, Clone, Deserialize, Serialize)]
pub struct Condition {
    /// What the model asks for.
    pub applies_to: AppliesTo,
    /// What the spool knows.
    pub known: Attributes,
}

impl Condition {
    /// Whether the instance with `data_set` is one the model looks at.
    pub fn holds(&self, data_set: &DataSet) -> bool {
        self.applies_to.accepts(&Attributes {
            view: data_set
                .str(tags::VIEW_POSITION)
                .map(|view| view.trim().to_owned())
                .unwrap_or_default(),
            ..self.known.clone()
        })
    }
}

impl AppliesTo {
    /// Whether an instance is one the model looks at.
    pub fn accepts(&self, attributes: &Attributes) -> bool {
        let Attributes {
            modality,
            body_part,
            view,
            sop_class,
        } = attributes;
        among(&self.modality, modality)
            && among(&self.body_part, body_part)
            && among(&self.view, view)
            && among(&self.sop_class, sop_class)
    }

    /// [`AppliesTo::accepts`] with what the spool knows without opening the file.
    pub fn may_accept(&self, modality: &str, body_part: &str, sop_class: &str) -> bool {
        among(&self.modality, modality)
            && among(&self.body_part, body_part)
            && among(&self.sop_class, sop_class)
    }
}

/// Code strings compare without regard to case and padding (PS3.5 §6.2).
fn among(allowed: &[String], value: &str) -> bool {
    allowed.is_empty()
        || allowed
            .iter()
            .any(|allowed| allowed.trim().eq_ignore_ascii_case(value.trim()))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn chest() -> AppliesTo {
        toml::from_str(
            r#"
            level = "instance"
            modality = ["DX", "CR"]
            body_part = ["CHEST"]
            view = ["PA"]
            "#,
        )
        .unwrap()
    }

    #[test]
    fn every_stated_condition_must_hold() {
        let film = Attributes {
            modality: "DX".to_owned(),
            body_part: "CHEST".to_owned(),
            view: "PA".to_owned(),
            sop_class: "1.2".to_owned(),
        };
        assert!(chest().accepts(&film));
        for other in [
            Attributes {
                modality: "CT".to_owned(),
                ..film.clone()
            },
            Attributes {
                body_part: String::new(),
                ..film.clone()
            },
            Attributes {
                view: "LL".to_owned(),
                ..film.clone()
            },
        ] {
            assert!(!chest().accepts(&other), "{other:?}");
        }
    }
}
