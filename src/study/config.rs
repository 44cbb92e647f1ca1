//! When studies are complete, and how they are worked on (`[study]` in the configuration).

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::completeness::Policy;
use super::evidence::Kind;
use super::expected::{self, Protocol};
use crate::dicom::AeTitle;
use crate::priority::Priority;
use crate::scu::Target;
use crate::units::HumanDuration;

/// The `[study]` section.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Silence after which a study is complete.
    pub quiet_period: HumanDuration,
    /// Other quiet periods by calling AE title.
    pub quiet_period_by_ae: BTreeMap<String, HumanDuration>,
    /// Priority by calling AE title, where the images do not say.
    pub priority_by_ae: BTreeMap<String, Priority>,
    /// Age at which a study is complete whatever still arrives.
    pub max_age: HumanDuration,
    /// Which kinds of evidence count.
    pub evidence: Vec<Kind>,
    /// Silence after which evidence that says complete is believed.
    pub evidence_period: HumanDuration,
    /// Silence for which a study that lacks something is waited for.
    pub patience: HumanDuration,
    /// Silence after the release of the last association of a study; 0s: a release means nothing.
    pub release_period: HumanDuration,
    /// The PACS that is asked how many instances there are.
    pub pacs: Pacs,
    /// What protocols bring.
    #[serde(serialize_with = "expected::names")]
    pub expected_series: Vec<Protocol>,
    /// Studies worked on at the same time.
    pub concurrency: usize,
    /// Attempts at one set of instances before it is given up.
    pub max_attempts: u32,
}

/// The `[study.pacs]` section.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Pacs {
    /// Its AE title.
    pub ae_title: String,
    /// Its `host:port`; empty: it is not asked.
    pub address: String,
    /// Our AE title towards it; empty: `dicom.ae_title`.
    pub calling_ae_title: String,
    /// Longest wait for its answer.
    pub timeout: HumanDuration,
}

impl Default for Pacs {
    fn default() -> Self {
        Self {
            ae_title: String::new(),
            address: String::new(),
            calling_ae_title: String::new(),
            timeout: HumanDuration::from_secs(10),
        }
    }
}

impl Default for Config {
    fn default() -> Self {
        Self {
            quiet_period: HumanDuration::from_secs(5),
            quiet_period_by_ae: BTreeMap::new(),
            priority_by_ae: BTreeMap::new(),
            max_age: HumanDuration::from_secs(3600),
            evidence: Kind::ALL.to_vec(),
            evidence_period: HumanDuration::from_secs(1),
            patience: HumanDuration::from_secs(300),
            release_period: HumanDuration::from_secs(0),
            pacs: Pacs::default(),
            expected_series: Vec::new(),
            concurrency: 8,
            max_attempts: 5,
        }
    }
}

impl Pacs {
    /// Whom to ask, and as whom; `None` when nobody is asked.
    ///
    /// # Errors
    /// The key and the reason.
    pub fn target(&self, ours: &AeTitle) -> Result<Option<(Target, AeTitle)>, String> {
        if self.address.is_empty() {
            return Ok(None);
        }
        let ae_title = AeTitle::parse(&self.ae_title).map_err(|err| format!("ae_title: {err}"))?;
        let target = format!("{ae_title}@{}", self.address).parse();
        let target: Target = target.map_err(|err| format!("address: {err}"))?;
        let calling = match self.calling_ae_title.as_str() {
            "" => Ok(ours.clone()),
            title => AeTitle::parse(title).map_err(|err| format!("calling_ae_title: {err}")),
        };
        Ok(Some((target, calling?)))
    }
}

impl Config {
    /// What the configuration says of this sender's studies.
    pub fn priority(&self, calling_ae: &str) -> Option<Priority> {
        by_ae(&self.priority_by_ae, calling_ae)
    }

    /// The rule for this sender's studies.
    pub fn policy(&self, calling_ae: &str) -> Policy {
        let own = by_ae(&self.quiet_period_by_ae, calling_ae);
        let release = self.release_period.get();
        Policy {
            quiet_period: own.unwrap_or(self.quiet_period).get(),
            max_age: self.max_age.get(),
            evidence_period: self.evidence_period.get(),
            patience: self.patience.get(),
            release_period: (!release.is_zero()).then_some(release),
        }
    }

    /// Whether evidence of this kind counts and can be had.
    pub fn counts(&self, kind: Kind) -> bool {
        let there = match kind {
            Kind::Mpps | Kind::StorageCommitment => true,
            Kind::PacsCount => !self.pacs.address.is_empty(),
            Kind::ExpectedSeries => !self.expected_series.is_empty(),
        };
        there && self.evidence.contains(&kind)
    }

    /// What reading the section alone does not find.
    ///
    /// # Errors
    /// The key and the reason.
    pub fn validate(&self) -> Result<(), String> {
        if self.max_attempts == 0 {
            return Err("max_attempts: must be at least 1".to_owned());
        }
        if self.concurrency == 0 {
            return Err("concurrency: must be at least 1".to_owned());
        }
        if self.max_age < self.quiet_period {
            return Err("max_age: must not be below study.quiet_period".to_owned());
        }
        self.pacs
            .target(&AeTitle::gateway())
            .map_err(|reason| format!("pacs.{reason}"))?;
        if !self.pacs.address.is_empty() && self.pacs.timeout.get().is_zero() {
            return Err("pacs.timeout: must be longer than zero".to_owned());
        }
        for protocol in &self.expected_series {
            let refused = |reason| format!("expected_series: {reason}");
            protocol.validate().map_err(refused)?;
        }
        Ok(())
    }
}

fn by_ae<T: Copy>(table: &BTreeMap<String, T>, calling_ae: &str) -> Option<T> {
    // Configuration keys from the environment arrive in lower case.
    let mut rows = table.iter();
    rows.find(|(ae, _)| ae.eq_ignore_ascii_case(calling_ae))
        .map(|(_, value)| *value)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn refused(text: &str) -> String {
        let config: Config = toml::from_str(text).unwrap();
        config.validate().unwrap_err()
    }

    #[test]
    fn what_could_never_work_is_refused() {
        assert!(refused("max_attempts = 0").starts_with("max_attempts"));
        assert!(refused("max_age = \"1s\"").starts_with("max_age"));
        let pacs = |text: &str| refused(&format!("[pacs]\n{text}"));
        assert!(pacs("address = \"pacs:104\"").starts_with("pacs.ae_title"));
        let no_port = "ae_title = \"PACS\"\naddress = \"pacs\"";
        assert!(pacs(no_port).starts_with("pacs.address"));
        let whole = "ae_title = \"PACS\"\naddress = \"pacs:104\"\n";
        let no_time = format!("{whole}timeout = \"0s\"");
        assert!(pacs(&no_time).starts_with("pacs.timeout"));
        let long = format!("{whole}calling_ae_title = \"MORE THAN SIXTEEN\"");
        assert!(pacs(&long).starts_with("pacs.calling_ae_title"));
        let protocol = refused("[[expected_series]]\nname = \"a\"\nwhen = []\nseries = []");
        assert!(protocol.starts_with("expected_series: a: when"));
    }

    #[test]
    fn evidence_counts_when_it_can_be_had() {
        let counted = |config: &Config| Kind::ALL.map(|kind| config.counts(kind));
        let mut config = Config::default();
        assert_eq!(counted(&config), [true, true, false, false]);
        config.pacs.address = "pacs:104".to_owned();
        assert_eq!(counted(&config), [true, true, true, false]);
        config.evidence = vec![Kind::PacsCount];
        assert_eq!(counted(&config), [false, false, true, false]);
    }

    #[test]
    fn a_pacs_is_called_by_the_name_it_knows_us_by() {
        let mut pacs = Pacs {
            ae_title: "PACS".to_owned(),
            address: "pacs:104".to_owned(),
            ..Pacs::default()
        };
        let ours = AeTitle::parse("US").unwrap();
        let calling = |pacs: &Pacs| pacs.target(&ours).unwrap().unwrap().1;
        assert_eq!(calling(&pacs), ours);
        pacs.calling_ae_title = "OTHER".to_owned();
        assert_eq!(calling(&pacs).as_str(), "OTHER");
        assert_eq!(Pacs::default().target(&ours).unwrap(), None);
    }
}
