//! From the samples of a study to units, and from the samples of a unit to one number.

use super::{Finding, Location, Sample};
use crate::model::manifest::{Aggregate, Level};
use crate::refusal::Refusal;

/// What `[output]` says about it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rule {
    pub aggregate: Aggregate,
    /// For `mean-top-k`; validated at load.
    pub top_k: Option<usize>,
    /// For `any`; validated at load.
    pub at_least: Option<usize>,
}

/// A number and where it was seen.
type Seen = (f64, Option<Location>);

/// Findings of a study: for every unit one per label, or one per label and sample. `numbers` are those
/// of the samples, one per label; `finding` makes one of a label's place, a number and its location.
///
/// # Errors
/// `too-few-instances`: a unit has fewer images than must have it (`any`). A label that is present in
/// another unit stands all the same.
pub(super) fn findings(
    rule: Rule,
    level: Level,
    samples: &[Sample],
    numbers: &[Vec<f64>],
    finding: impl Fn(usize, f64, Option<Location>) -> Finding,
) -> Result<Vec<Finding>, Refusal> {
    let locations: Vec<Option<&Location>> = samples.iter().map(|s| s.location.as_ref()).collect();
    let labels = numbers.first().map_or(0, Vec::len);
    let (mut findings, mut few) = (Vec::new(), None);
    for unit in units(level, &locations) {
        for label in 0..labels {
            let seen = |place: &usize| -> Option<Seen> {
                let number = numbers.get(*place)?.get(label)?;
                Some((*number, locations.get(*place)?.cloned()))
            };
            match aggregate(rule, level, unit.iter().filter_map(seen).collect()) {
                Ok(seen) => findings.extend(seen.into_iter().map(|(n, at)| finding(label, n, at))),
                Err(refusal) => drop(few.get_or_insert(refusal)),
            }
        }
    }
    match few {
        Some(refusal) if !findings.iter().any(|finding: &Finding| finding.present) => Err(refusal),
        _ => Ok(findings),
    }
}

/// Splits samples, given as their locations, into units: by series, or all of the study together.
/// Gives their places; order of arrival is kept.
fn units(level: Level, samples: &[Option<&Location>]) -> Vec<Vec<usize>> {
    let series = |place: &usize| {
        let location = samples.get(*place).copied().flatten();
        location.map(|at| at.series.clone())
    };
    let mut units: Vec<Vec<usize>> = Vec::new();
    for place in 0..samples.len() {
        let same = |unit: &&mut Vec<usize>| {
            level != Level::Series || unit.first().map(series) == Some(series(&place))
        };
        match units.iter_mut().find(same) {
            Some(unit) => unit.push(place),
            None => units.push(vec![place]),
        }
    }
    units
}

/// The numbers of a unit as one, or as they are (`each`). Of equal ones the first counts as higher, so
/// that the same study names the same image every time.
///
/// # Errors
/// `too-few-instances`: that many images cannot have it (`any`).
fn aggregate(rule: Rule, level: Level, seen: Vec<Seen>) -> Result<Vec<Seen>, Refusal> {
    let count = seen.len();
    if count == 0 {
        return Ok(Vec::new());
    }
    match rule.aggregate {
        Aggregate::Each => Ok(seen),
        Aggregate::Max => Ok(highest(seen).into_iter().take(1).collect()),
        Aggregate::Mean => Ok(vec![mean(level, &seen)]),
        Aggregate::MeanTopK => {
            let mut seen = highest(seen);
            seen.truncate(rule.top_k.unwrap_or(count).max(1));
            Ok(vec![mean(level, &seen)])
        }
        Aggregate::Any => {
            let wanted = rule.at_least.unwrap_or(1).max(1);
            let nth = highest(seen).into_iter().nth(wanted - 1);
            nth.map(|seen| vec![seen]).ok_or_else(|| {
                Refusal::new(
                    "too-few-instances",
                    format!("{count} images, the model needs {wanted}"),
                )
            })
        }
    }
}

/// The highest first; a stable sort.
fn highest(mut seen: Vec<Seen>) -> Vec<Seen> {
    seen.sort_by(|left, right| right.0.total_cmp(&left.0));
    seen
}

/// The mean is of no image; it is of the series that the unit is.
fn mean(level: Level, seen: &[Seen]) -> Seen {
    let sum: f64 = seen.iter().map(|(value, _)| value).sum();
    let first = seen.first().and_then(|(_, location)| location.as_ref());
    let series = first.filter(|_| level == Level::Series);
    let location = series.map(|at| Location {
        series: at.series.clone(),
        sop_instance: None,
        frame: None,
        area: None,
    });
    (sum / seen.len() as f64, location)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::dicom::uid::{SeriesInstanceUid, SopInstanceUid};

    fn at(image: usize) -> Option<Location> {
        Some(Location {
            series: Some(SeriesInstanceUid::parse("2.1").unwrap()),
            sop_instance: Some(SopInstanceUid::parse(&format!("2.{image}")).unwrap()),
            frame: None,
            area: None,
        })
    }

    fn check(aggregate: Aggregate, k: usize, values: &[f64]) -> Result<Vec<(f64, String)>, String> {
        let rule = Rule {
            aggregate,
            top_k: Some(k),
            at_least: Some(k),
        };
        let seen = values.iter().zip(0..).map(|(v, n)| (*v, at(n))).collect();
        let found = super::aggregate(rule, Level::Instance, seen);
        let image = |location: Option<Location>| {
            let image = location.and_then(|at| at.sop_instance);
            image.map_or(String::new(), |uid| uid.as_str().to_owned())
        };
        match found {
            Ok(found) => Ok(found.into_iter().map(|(v, at)| (v, image(at))).collect()),
            Err(refusal) => Err(format!("{}: {}", refusal.code, refusal.text)),
        }
    }

    fn one(value: f64, image: &str) -> Result<Vec<(f64, String)>, String> {
        Ok(vec![(value, image.to_owned())])
    }

    #[test]
    fn images_become_one_number() {
        use Aggregate::{Any, Each, Max, Mean, MeanTopK};
        let values = [0.25, 1.0, 0.5, 1.0];
        assert_eq!(check(Max, 1, &values), one(1.0, "2.1"), "the first of two");
        assert_eq!(check(Mean, 1, &values), one(0.6875, ""));
        assert_eq!(check(MeanTopK, 3, &values), one(2.5 / 3.0, ""));
        assert_eq!(check(MeanTopK, 9, &values), one(0.6875, ""), "all of them");
        assert_eq!(check(Any, 2, &values), one(1.0, "2.3"));
        assert_eq!(check(Any, 3, &values), one(0.5, "2.2"));
        let few = "too-few-instances: 4 images, the model needs 5".to_owned();
        assert_eq!(check(Any, 5, &values), Err(few));
        assert_eq!(check(Each, 1, &values).unwrap().len(), 4);
        assert_eq!(check(Any, 1, &[]), Ok(Vec::new()));
    }

    #[test]
    fn series_are_units_of_their_own_and_the_mean_is_of_the_series() {
        let location = |series: &str| {
            let mut location = at(1).unwrap();
            location.series = Some(SeriesInstanceUid::parse(series).unwrap());
            location
        };
        let (one, two) = (location("2.1"), location("2.2"));
        let samples = [Some(&one), Some(&two), Some(&one)];
        assert_eq!(units(Level::Series, &samples), [vec![0, 2], vec![1]]);
        assert_eq!(units(Level::Study, &samples), [vec![0, 1, 2]]);
        assert_eq!(units(Level::Instance, &samples), [vec![0, 1, 2]]);
        assert!(units(Level::Series, &[]).is_empty());
        let (_, place) = mean(Level::Series, &[(1.0, Some(two.clone()))]);
        let place = place.unwrap();
        assert_eq!((place.series, place.sop_instance), (two.series, None));
    }
}
