//! `[models.sites]`: what is different for studies of certain senders.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

use serde::de::{self, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};

use super::Served;
use crate::dicom::AeTitle;
use crate::model::{Manifest, Package};
use crate::spool::Entry;

/// Sites by name.
#[derive(Debug, Clone, Default, Deserialize, Serialize)]
#[serde(transparent)]
pub struct Sites(BTreeMap<String, Site>);

/// One `[models.sites.NAME]` table.
#[derive(Debug, Clone, Default, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Site {
    /// A study belongs to the site when the last association that sent of it was one of these.
    #[serde(deserialize_with = "list")]
    pub calling_ae_titles: Vec<AeTitle>,
    /// Models that run for the site; empty: all.
    #[serde(deserialize_with = "list")]
    pub only: Vec<String>,
    /// Models that do not run for the site.
    #[serde(deserialize_with = "list")]
    pub except: Vec<String>,
    /// Other operating points, by `model.label`.
    pub thresholds: BTreeMap<String, f64>,
}

impl Sites {
    /// What can be told without the models.
    ///
    /// # Errors
    /// The key and the reason.
    pub fn validate(&self) -> Result<(), String> {
        let mut seen: BTreeMap<&str, &str> = BTreeMap::new();
        for (name, site) in &self.0 {
            if site.calling_ae_titles.is_empty() {
                return Err(format!("{name}.calling_ae_titles: must not be empty"));
            }
            for title in &site.calling_ae_titles {
                if let Some(other) = seen.insert(title.as_str(), name) {
                    return Err(format!(
                        "{name}.calling_ae_titles: `{}` is of the site `{other}` already",
                        title.as_str()
                    ));
                }
            }
            if !site.only.is_empty() && !site.except.is_empty() {
                return Err(format!("{name}.except: goes without `only`"));
            }
        }
        Ok(())
    }

    /// Whether the sites speak of models that there are, with labels that have a threshold.
    ///
    /// # Errors
    /// The key and the reason.
    pub fn check<'a>(
        &self,
        models: impl Iterator<Item = &'a Manifest> + Clone,
    ) -> Result<(), String> {
        let names: BTreeSet<&str> = models.clone().map(|model| model.name.as_str()).collect();
        for (name, site) in &self.0 {
            for (key, list) in [("only", &site.only), ("except", &site.except)] {
                if let Some(unknown) = list.iter().find(|model| !names.contains(model.as_str())) {
                    return Err(format!(
                        "models.sites.{name}.{key}: there is no model `{unknown}`"
                    ));
                }
            }
            for path in site.thresholds.keys() {
                let key = format!("models.sites.{name}.thresholds");
                let (model, _) = path
                    .split_once('.')
                    .ok_or_else(|| format!("{key}: `{path}` is not `model.label`"))?;
                if !names.contains(model) {
                    return Err(format!("{key}: there is no model `{model}`"));
                }
            }
        }
        models.clone().try_for_each(|manifest| self.fit(manifest))
    }

    /// Whether a version of a model has the labels whose operating points the sites change. One that
    /// has not would answer with its own.
    ///
    /// # Errors
    /// The key and the reason.
    pub fn fit(&self, manifest: &Manifest) -> Result<(), String> {
        for (name, site) in &self.0 {
            let thresholds = site.thresholds_of(&manifest.name);
            manifest
                .with_thresholds(&thresholds)
                .map_err(|reason| format!("models.sites.{name}.thresholds: {reason}"))?;
        }
        Ok(())
    }

    /// The site of a calling AE title.
    pub fn of(&self, calling_ae: &str) -> Option<(&str, &Site)> {
        let is_its = |(_, site): &(&String, &Site)| {
            let mut titles = site.calling_ae_titles.iter();
            titles.any(|title| title.as_str() == calling_ae)
        };
        let found = self.0.iter().find(is_its);
        found.map(|(name, site)| (name.as_str(), site))
    }

    /// The models as they are for a study: those that run at its site, with its operating points.
    pub fn models(&self, models: &[Served], entries: &[Arc<Entry>]) -> Vec<Served> {
        let last = entries.iter().max_by_key(|entry| entry.received_at);
        let Some((_, site)) = last.and_then(|last| self.of(last.arrival.calling_ae.as_str()))
        else {
            return models.to_vec();
        };
        let runs = models
            .iter()
            .filter(|served| site.runs(&served.package.manifest.name));
        runs.map(|served| site.adjusted(served)).collect()
    }
}

impl Site {
    /// Whether a model runs for the site.
    pub fn runs(&self, model: &str) -> bool {
        let named = |list: &[String]| list.iter().any(|name| name == model);
        (self.only.is_empty() || named(&self.only)) && !named(&self.except)
    }

    /// Operating points of a model, by label.
    fn thresholds_of(&self, model: &str) -> BTreeMap<&str, f64> {
        let own = self.thresholds.iter().filter_map(|(path, threshold)| {
            let (name, label) = path.split_once('.')?;
            (name == model).then_some((label, *threshold))
        });
        own.collect()
    }

    fn adjusted(&self, served: &Served) -> Served {
        let manifest = &served.package.manifest;
        let mine = self.thresholds_of(&manifest.name);
        if mine.is_empty() {
            return served.clone();
        }
        let mut served = served.clone();
        // A version that does not fit is not served, see `Sites::fit`.
        if let Ok(manifest) = manifest.with_thresholds(&mine) {
            served.package = Arc::new(Package {
                manifest,
                ..served.package.as_ref().clone()
            });
        }
        served
    }
}

/// A list, or `a,b` as it comes from the environment.
fn list<'de, D: Deserializer<'de>, T: Deserialize<'de>>(from: D) -> Result<Vec<T>, D::Error> {
    struct List<T>(std::marker::PhantomData<T>);
    impl<'de, T: Deserialize<'de>> Visitor<'de> for List<T> {
        type Value = Vec<T>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a list")
        }

        fn visit_str<E: de::Error>(self, text: &str) -> Result<Vec<T>, E> {
            let items = text
                .split(',')
                .map(str::trim)
                .filter(|item| !item.is_empty());
            items
                .map(|item| T::deserialize(de::value::StrDeserializer::new(item)))
                .collect()
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Vec<T>, A::Error> {
            let mut items = Vec::new();
            while let Some(item) = seq.next_element()? {
                items.push(item);
            }
            Ok(items)
        }
    }
    from.deserialize_any(List(std::marker::PhantomData))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::model::manifest::EXAMPLE;

    #[test]
    fn a_version_without_a_label_that_a_site_names_does_not_fit() {
        let sites = |label: &str| -> Sites {
            let text = format!(
                "[north]\ncalling_ae_titles = [\"N1\"]\n[north.thresholds]\n\"example.{label}\" = 0.4"
            );
            toml::from_str(&text).unwrap()
        };
        let manifest = Manifest::parse(EXAMPLE).unwrap();
        assert_eq!(sites("opacity").fit(&manifest), Ok(()));
        let renamed = Manifest::parse(&EXAMPLE.replace("\"opacity\"", "\"shadow\"")).unwrap();
        let refusal = sites("opacity").fit(&renamed).unwrap_err();
        assert!(
            refusal.contains("models.sites.north.thresholds"),
            "{refusal}"
        );
        assert!(refusal.contains("opacity"), "{refusal}");
    }
}
