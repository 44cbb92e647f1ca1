//! What of a study a model looks at, and which models of a group.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};

use super::derived::Derived;
use super::{Fit, Key};
use crate::model::manifest::{AppliesTo, Choose, Layout, Level, Manifest};
use crate::refusal::Refusal;

/// An instance that a model applies to.
#[derive(Debug, Clone)]
pub struct Candidate<T> {
    /// The caller's.
    pub item: T,
    /// Series Instance UID, or empty.
    pub series: String,
    /// SOP Instance UID.
    pub instance: String,
    /// What it is to the model.
    pub fit: Fit,
}

/// What of a study a model looks at.
#[derive(Debug, Clone)]
pub struct Selected<T> {
    /// The instances, in the order in which they were given.
    pub inside: Vec<T>,
    /// For a model of several inputs: those of each, in the manifest's order.
    pub roles: Vec<Vec<T>>,
    /// Instances that the model was not validated for.
    pub outside: Vec<T>,
    /// Why it was not, for the first of them.
    pub reason: Option<Refusal>,
}

/// Instances whose one is outside what the model was validated for are outside together.
#[derive(Clone, Copy, PartialEq)]
enum Together {
    Instance,
    Series,
    Study,
}

/// Decides what of a study a model looks at, by the conditions, `choose`, the roles, the guardrails
/// and the number of instances, in this order. `candidates` must not be empty.
///
/// # Errors
/// Why the study is skipped, with the instances it is about: `series-missing`, `series-ambiguous`,
/// `too-few-instances`, `too-many-instances`.
pub fn select<T: Clone>(
    manifest: &Manifest,
    candidates: Vec<Candidate<T>>,
) -> Result<Selected<T>, (Refusal, Vec<T>)> {
    let applies = &manifest.applies_to;
    let everything = |candidates: &[Candidate<T>]| -> Vec<T> {
        candidates.iter().map(|c| c.item.clone()).collect()
    };
    let (chosen, roles) = if manifest.input.len() > 1 {
        match by_role(manifest, &candidates) {
            Ok(roles) => {
                let mut places: Vec<usize> = roles.concat();
                places.sort_unstable();
                places.dedup();
                (places, roles)
            }
            Err(refusal) => return Err((refusal, everything(&candidates))),
        }
    } else {
        let all: Vec<usize> = (0..candidates.len()).collect();
        (first(applies, &candidates, all), Vec::new())
    };
    let count = chosen.len();
    let most = applies.max_instances.unwrap_or(usize::MAX);
    if count < applies.min_instances || count > most {
        let refusal = if count > most {
            Refusal::new(
                "too-many-instances",
                format!("{count} instances, the model takes {most}"),
            )
        } else {
            Refusal::new(
                "too-few-instances",
                format!(
                    "{count} instances, the model needs {}",
                    applies.min_instances
                ),
            )
        };
        return Err((refusal, everything(&candidates)));
    }
    let get = |place: &usize| candidates.get(*place);
    let together = match manifest.input.as_slice() {
        [input] if matches!(input.layout, Layout::Nchw | Layout::Nhwc) => Together::Instance,
        [input] if input.layout != Layout::Nf => Together::Series,
        _ => Together::Study,
    };
    let violates = |candidate: &&Candidate<T>| candidate.fit.outside.is_some();
    let violations = || chosen.iter().filter_map(get).filter(violates);
    let series: BTreeSet<&str> = violations().map(|c| c.series.as_str()).collect();
    let is_outside = |candidate: &&Candidate<T>| match together {
        Together::Instance => violates(candidate),
        Together::Series => series.contains(candidate.series.as_str()),
        Together::Study => !series.is_empty(),
    };
    let (outside, inside): (Vec<&Candidate<T>>, Vec<&Candidate<T>>) =
        chosen.iter().filter_map(get).partition(is_outside);
    let items = |some: Vec<&Candidate<T>>| some.into_iter().map(|c| c.item.clone()).collect();
    let reason = violations().next().and_then(|c| c.fit.outside.as_ref());
    Ok(Selected {
        reason: reason.map(|text| Refusal::new("outside-validation", text.as_str())),
        inside: items(inside),
        outside: items(outside),
        roles: roles
            .iter()
            .map(|places| items(places.iter().filter_map(get).collect()))
            .collect(),
    })
}

/// The places that `choose` leaves.
fn first<T>(applies: &AppliesTo, candidates: &[Candidate<T>], places: Vec<usize>) -> Vec<usize> {
    if applies.choose == Choose::All {
        return places;
    }
    let by_series = applies.level != Level::Instance;
    let mut units: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
    for place in places {
        if let Some(candidate) = candidates.get(place) {
            let unit = match by_series {
                true => &candidate.series,
                false => &candidate.instance,
            };
            units.entry(unit).or_default().push(place);
        }
    }
    let best = |places: &Vec<usize>| {
        let keys = places.iter().filter_map(|place| {
            let keys = &candidates.get(*place)?.fit.keys;
            Some(with_count(applies, keys, places.len()))
        });
        keys.min_by(|a, b| order(applies, a, b)).unwrap_or_default()
    };
    // The map is in the order of UIDs, and the first of equals stays.
    let chosen = units
        .into_values()
        .map(|places| (best(&places), places))
        .min_by(|a, b| order(applies, &a.0, &b.0));
    chosen.map(|(_, places)| places).unwrap_or_default()
}

/// `instances` is only known when the unit is.
fn with_count(applies: &AppliesTo, keys: &[Key], count: usize) -> Vec<Key> {
    let counted = applies.order_by.iter().zip(keys);
    counted
        .map(|(by, key)| match by.attribute.derived() {
            Some(Derived::Instances) => Key::Number(count as f64),
            _ => key.clone(),
        })
        .collect()
}

fn order(applies: &AppliesTo, left: &[Key], right: &[Key]) -> Ordering {
    for (by, (left, right)) in applies.order_by.iter().zip(left.iter().zip(right)) {
        let turned = |order: Ordering| match by.descending {
            true => order.reverse(),
            false => order,
        };
        let order = match (left, right) {
            (Key::Number(left), Key::Number(right)) => turned(left.total_cmp(right)),
            (Key::Text(left), Key::Text(right)) => turned(left.cmp(right)),
            // What is absent comes last in either direction.
            (left, right) => left.rank().cmp(&right.rank()),
        };
        if order != Ordering::Equal {
            return order;
        }
    }
    Ordering::Equal
}

impl Key {
    const fn rank(&self) -> u8 {
        match self {
            Self::Number(_) => 0,
            Self::Text(_) => 1,
            Self::Absent => 2,
        }
    }
}

/// The one series of each input, as places among the candidates.
fn by_role<T>(
    manifest: &Manifest,
    candidates: &[Candidate<T>],
) -> Result<Vec<Vec<usize>>, Refusal> {
    let mut roles = Vec::new();
    for (index, input) in manifest.input.iter().enumerate() {
        let role = input.role.as_deref().unwrap_or(&input.name);
        let fits = |(place, candidate): (usize, &Candidate<T>)| {
            let fits = candidate.fit.roles.get(index).copied().unwrap_or(false);
            fits.then_some(place)
        };
        let fitting: Vec<usize> = candidates.iter().enumerate().filter_map(fits).collect();
        let places = first(&manifest.applies_to, candidates, fitting);
        let mut series: Vec<&str> = places
            .iter()
            .filter_map(|place| candidates.get(*place).map(|c| c.series.as_str()))
            .collect();
        series.sort_unstable();
        series.dedup();
        match series.len() {
            0 => {
                return Err(Refusal::new(
                    "series-missing",
                    format!("no series is `{role}`"),
                ));
            }
            1 => {}
            count => {
                return Err(Refusal::new(
                    "series-ambiguous",
                    format!("{count} series could be `{role}`"),
                ));
            }
        }
        let is_image = matches!(input.layout, Layout::Nchw | Layout::Nhwc);
        roles.push(match (is_image, places.len()) {
            (true, 2..) if manifest.applies_to.choose == Choose::First => {
                one(&manifest.applies_to, candidates, places)
            }
            (true, count @ 2..) => {
                return Err(Refusal::new(
                    "series-ambiguous",
                    format!("the series of `{role}` has {count} images, the model takes one"),
                ));
            }
            _ => places,
        });
    }
    Ok(roles)
}

/// The first image of a series by `order_by`, then by SOP Instance UID.
fn one<T>(applies: &AppliesTo, candidates: &[Candidate<T>], places: Vec<usize>) -> Vec<usize> {
    let first = places.into_iter().min_by(|left, right| {
        match (candidates.get(*left), candidates.get(*right)) {
            (Some(left), Some(right)) => order(applies, &left.fit.keys, &right.fit.keys)
                .then_with(|| left.instance.cmp(&right.instance)),
            _ => Ordering::Equal,
        }
    });
    first.into_iter().collect()
}

/// Which of several models run: of those that apply to a study, one per group, by rank and then in
/// the given order, and all that are in no group.
pub fn first_of_groups(models: &[(&AppliesTo, bool)]) -> Vec<bool> {
    let is_before = |index: usize, applies: &AppliesTo| {
        models.iter().enumerate().any(|(other, (theirs, apply))| {
            *apply && theirs.group == applies.group && (theirs.rank, other) < (applies.rank, index)
        })
    };
    models
        .iter()
        .enumerate()
        .map(|(index, (applies, apply))| {
            *apply && (applies.group.is_none() || !is_before(index, applies))
        })
        .collect()
}
