//! Series that a protocol is expected to bring (`[[study.expected_series]]`).

use serde::{Deserialize, Serializer};

use super::evidence::{Evidence, Kind, Verdict, figure};
use crate::model::manifest::Rule;
use crate::model::selection::Instance;

/// Longest name of a protocol.
const MAX_NAME: usize = 64;

/// What a protocol brings.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Protocol {
    /// Its name in messages.
    pub name: String,
    /// How it is known: one series of the study passes all of these.
    pub when: Vec<Rule>,
    /// What is expected.
    pub series: Vec<Expectation>,
}

/// Series of one sort.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Expectation {
    /// How they are known; all of these hold for an instance of theirs.
    #[serde(default)]
    pub when: Vec<Rule>,
    /// Instances that such a series has at least.
    #[serde(default = "one")]
    pub min_instances: usize,
    /// Series of this sort at least.
    #[serde(default = "one")]
    pub min_series: usize,
}

const fn one() -> usize {
    1
}

/// A series as it is: one of its instances stands for all.
#[derive(Debug, Clone, Copy)]
pub struct Series<'a> {
    /// The instance.
    pub sample: Instance<'a>,
    /// How many there are.
    pub instances: usize,
}

impl Protocol {
    /// What reading the table alone does not find.
    ///
    /// # Errors
    /// The key and the reason.
    pub fn validate(&self) -> Result<(), String> {
        let plain = |c: char| c.is_ascii_graphic() || c == ' ';
        if self.name.is_empty() || self.name.len() > MAX_NAME || !self.name.chars().all(plain) {
            return Err(format!("name: must have 1 to {MAX_NAME} ASCII characters"));
        }
        let name = &self.name;
        if self.when.is_empty() {
            return Err(format!("{name}: when: must not be empty"));
        }
        if self.series.is_empty() {
            return Err(format!("{name}: series: must not be empty"));
        }
        let refused = |reason: String| format!("{name}: {reason}");
        for rule in &self.when {
            rule.validate("when").map_err(refused)?;
        }
        for expected in &self.series {
            if expected.min_instances == 0 || expected.min_series == 0 {
                let reason = "min_instances and min_series: must be at least 1";
                return Err(refused(reason.to_owned()));
            }
            for rule in &expected.when {
                rule.validate("series.when").map_err(refused)?;
            }
        }
        Ok(())
    }

    fn applies(&self, series: &[Series<'_>]) -> bool {
        let mut series = series.iter();
        series.any(|one| self.when.iter().all(|rule| rule.holds(&one.sample)))
    }

    /// Series that are expected, and how many of them are here.
    fn figures(&self, series: &[Series<'_>]) -> (usize, usize) {
        let mut figures = (0_usize, 0_usize);
        for expected in &self.series {
            let fits = |one: &&Series<'_>| {
                one.instances >= expected.min_instances
                    && expected.when.iter().all(|rule| rule.holds(&one.sample))
            };
            let found = series.iter().filter(fits).count();
            figures.0 = figures.0.saturating_add(expected.min_series);
            figures.1 = figures.1.saturating_add(found.min(expected.min_series));
        }
        figures
    }
}

/// What the protocols that apply say of a study; none when none applies. Of several the first that
/// misses something speaks, else the first.
pub fn judge(protocols: &[Protocol], series: &[Series<'_>]) -> Option<Evidence> {
    let applying = protocols.iter().filter(|protocol| protocol.applies(series));
    let mut judged = applying.map(|protocol| {
        let (expected, received) = protocol.figures(series);
        Evidence {
            verdict: match received < expected {
                true => Verdict::Incomplete,
                false => Verdict::Complete,
            },
            expected: Some(figure(expected)),
            received: Some(figure(received)),
            source: Some(protocol.name.clone()),
            ..Evidence::of(Kind::ExpectedSeries)
        }
    });
    let first = judged.next()?;
    if first.verdict == Verdict::Incomplete {
        return Some(first);
    }
    let worse = judged.find(|evidence| evidence.verdict == Verdict::Incomplete);
    Some(worse.unwrap_or(first))
}

/// Shows protocols by their names: only the default is ever written.
pub(super) fn names<S: Serializer>(protocols: &[Protocol], to: S) -> Result<S::Ok, S::Error> {
    to.collect_seq(protocols.iter().map(|protocol| &protocol.name))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use dicom::dictionary_std::tags;

    use super::*;
    use crate::dicom::dataset::{DataSet, ReadLimits, Writer, read_data_set};
    use crate::model::selection::Known;

    const IMPLICIT: &str = "1.2.840.10008.1.2";

    #[derive(Deserialize)]
    struct Section {
        expected_series: Vec<Protocol>,
    }

    const HEAD: &str = r#"
        [[expected_series]]
        name = "head"
        when = [{ attribute = "ProtocolName", equals = "HEAD" }]
        series = [
            { when = [{ attribute = "SeriesDescription", matches = "bone" }], min_instances = 2 },
            { when = [{ attribute = "SeriesDescription", matches = "soft" }], min_series = 2 },
        ]
    "#;

    fn protocols(text: &str) -> Vec<Protocol> {
        let section: Section = toml::from_str(text).unwrap();
        for protocol in &section.expected_series {
            protocol.validate().unwrap();
        }
        section.expected_series
    }

    fn header(protocol: &str, description: &str) -> DataSet {
        let mut writer = Writer::new(IMPLICIT).unwrap();
        writer
            .text(tags::SERIES_DESCRIPTION, *b"LO", description)
            .text(tags::PROTOCOL_NAME, *b"LO", protocol);
        read_data_set(&writer.finish(), IMPLICIT, &ReadLimits::default()).unwrap()
    }

    fn judged(text: &str, series: &[(&str, &str, usize)]) -> Option<(Verdict, u32, u32, String)> {
        let known = Known::default();
        let headers: Vec<_> = series
            .iter()
            .map(|(protocol, description, instances)| (header(protocol, description), *instances))
            .collect();
        let series: Vec<_> = headers
            .iter()
            .map(|(data_set, instances)| Series {
                sample: Instance {
                    known: &known,
                    data_set,
                },
                instances: *instances,
            })
            .collect();
        let evidence = judge(&protocols(text), &series)?;
        Some((
            evidence.verdict,
            evidence.expected?,
            evidence.received?,
            evidence.source?,
        ))
    }

    #[test]
    fn a_protocol_is_complete_when_every_sort_of_series_is_there() {
        let head = |verdict, received| Some((verdict, 3, received, "head".to_owned()));
        let (bone, soft) = (("HEAD", "bone 1mm", 2), ("HEAD", "soft 5mm", 1));
        assert_eq!(judged(HEAD, &[("CHEST", "bone", 9)]), None);
        assert_eq!(judged(HEAD, &[bone]), head(Verdict::Incomplete, 1));
        let one_short = [("HEAD", "bone", 1), soft, soft];
        assert_eq!(judged(HEAD, &one_short), head(Verdict::Incomplete, 2));
        let all = [bone, soft, soft];
        assert_eq!(judged(HEAD, &all), head(Verdict::Complete, 3));
        // More of one sort does not stand for another.
        let lopsided = [bone, bone, bone, soft];
        assert_eq!(judged(HEAD, &lopsided), head(Verdict::Incomplete, 2));
    }

    #[test]
    fn of_several_protocols_the_one_that_misses_something_speaks() {
        let any = r#"
            [[expected_series]]
            name = "any"
            when = [{ attribute = "SeriesDescription", present = true }]
            series = [{}]
        "#;
        let text = format!("{any}{HEAD}");
        let bone = ("HEAD", "bone", 2);
        let (verdict, _, _, source) = judged(&text, &[bone]).unwrap();
        assert_eq!((verdict, source.as_str()), (Verdict::Incomplete, "head"));
        let (verdict, _, _, source) = judged(&text, &[("CHEST", "x", 1)]).unwrap();
        assert_eq!((verdict, source.as_str()), (Verdict::Complete, "any"));
    }

    #[test]
    fn what_could_never_be_right_is_refused() {
        for (text, key) in [
            ("name = \"\"\nwhen = []\nseries = []", "name"),
            ("name = \"a\"\nwhen = []\nseries = [{}]", "when"),
            (
                "name = \"a\"\nwhen = [{ attribute = \"Modality\", present = true }]\nseries = []",
                "series",
            ),
            (
                "name = \"a\"\nwhen = [{ attribute = \"Modality\" }]\nseries = [{}]",
                "Modality",
            ),
            (
                "name = \"a\"\nwhen = [{ attribute = \"Modality\", present = true }]\n\
                 series = [{ min_series = 0 }]",
                "min_series",
            ),
        ] {
            let protocol: Protocol = toml::from_str(text).unwrap();
            let refused = protocol.validate().unwrap_err();
            assert!(refused.contains(key), "{refused}");
        }
    }
}
