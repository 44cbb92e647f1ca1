//! Point estimates of a yes-or-no label: counts, rates, ranking, calibration.
//!
//! Every function works on [`Group`]s, cases of one score counted together, so that a bootstrap draw
//! costs one pass over them. A figure whose denominator is empty is not defined and never a number.

use serde::Serialize;

/// Bins of the calibration error, equally wide.
pub const BINS: usize = 15;

/// One study and one label.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Case {
    /// What the model gave; finite, and between 0 and 1 where it is a probability.
    pub score: f64,
    /// Whether the model said it is there.
    pub called: bool,
    /// Whether it is.
    pub positive: bool,
}

/// Cases of one score, counted.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Group {
    /// Their score.
    pub score: f64,
    /// Whether the model said it is there.
    pub called: bool,
    /// How many of them have it.
    pub positives: u32,
    /// How many have not.
    pub negatives: u32,
}

/// Cases by what was said and what is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct Confusion {
    /// Said to be there, and there.
    pub true_positives: u64,
    /// Said to be there, and not there.
    pub false_positives: u64,
    /// Not said to be there, and there.
    pub false_negatives: u64,
    /// Not said to be there, and not there.
    pub true_negatives: u64,
}

/// The figures of a label, in the order of [`NAMES`].
pub type Figures = [Option<f64>; NAMES.len()];

/// What [`figures`] gives.
pub const NAMES: [&str; 9] = [
    "accuracy",
    "precision",
    "recall",
    "specificity",
    "npv",
    "f1",
    "auc",
    "brier",
    "ece",
];
/// Place of the AUC, which is drawn within positives and negatives.
pub const AUC: usize = 6;

/// Groups by ascending score, and the group of each case.
pub fn group(cases: &[Case]) -> (Vec<Group>, Vec<usize>) {
    let mut order: Vec<usize> = (0..cases.len()).collect();
    let key = |index: &usize| cases.get(*index).map(|case| (case.score, case.called));
    order.sort_by(|left, right| match (key(left), key(right)) {
        (Some(left), Some(right)) => left.0.total_cmp(&right.0).then(left.1.cmp(&right.1)),
        _ => std::cmp::Ordering::Equal,
    });
    let (mut groups, mut of_case): (Vec<Group>, _) = (Vec::new(), vec![0; cases.len()]);
    for index in order {
        let Some(case) = cases.get(index) else {
            continue;
        };
        let same = |last: &&mut Group| last.score == case.score && last.called == case.called;
        match groups.last_mut().filter(same) {
            Some(last) => count(last, case.positive),
            None => {
                let mut new = Group {
                    score: case.score,
                    called: case.called,
                    positives: 0,
                    negatives: 0,
                };
                count(&mut new, case.positive);
                groups.push(new);
            }
        }
        if let Some(place) = of_case.get_mut(index) {
            *place = groups.len() - 1;
        }
    }
    (groups, of_case)
}

fn count(group: &mut Group, positive: bool) {
    match positive {
        true => group.positives += 1,
        false => group.negatives += 1,
    }
}

/// Counts by what was said and what is.
pub fn confusion(groups: &[Group]) -> Confusion {
    let mut counts = Confusion::default();
    for group in groups {
        let (hit, miss) = match group.called {
            true => (&mut counts.true_positives, &mut counts.false_positives),
            false => (&mut counts.false_negatives, &mut counts.true_negatives),
        };
        *hit += u64::from(group.positives);
        *miss += u64::from(group.negatives);
    }
    counts
}

/// All figures. Without `scored` the cases have no probabilities, and what needs them is not defined.
pub fn figures(groups: &[Group], scored: bool) -> Figures {
    let Confusion {
        true_positives: tp,
        false_positives: fp,
        false_negatives: fn_,
        true_negatives: tn,
    } = confusion(groups);
    let of_scores = |figure: fn(&[Group]) -> Option<f64>| figure(groups).filter(|_| scored);
    [
        ratio(tp + tn, tp + fp + fn_ + tn),
        ratio(tp, tp + fp),
        ratio(tp, tp + fn_),
        ratio(tn, tn + fp),
        ratio(tn, tn + fn_),
        ratio(2 * tp, 2 * tp + fp + fn_),
        of_scores(auc),
        of_scores(brier),
        of_scores(ece),
    ]
}

fn ratio(part: u64, whole: u64) -> Option<f64> {
    (whole > 0).then(|| part as f64 / whole as f64)
}

/// Area under the ROC curve: the fraction of pairs of a positive and a negative in which the positive
/// has the higher score, ties counting half (Mann and Whitney, 1947).
pub fn auc(groups: &[Group]) -> Option<f64> {
    let (mut below, mut won, mut tied, mut positives) = (0u64, 0u64, 0u64, 0u64);
    for scores in groups.chunk_by(|left, right| left.score == right.score) {
        let sum = |of: fn(&Group) -> u32| scores.iter().map(|g| u64::from(of(g))).sum::<u64>();
        let (here, against) = (sum(|g| g.positives), sum(|g| g.negatives));
        won += here * below;
        tied += here * against;
        below += against;
        positives += here;
    }
    let pairs = positives * below;
    (pairs > 0).then(|| (won as f64 + tied as f64 / 2.0) / pairs as f64)
}

/// Mean squared difference of probability and truth (Brier, 1950).
pub fn brier(groups: &[Group]) -> Option<f64> {
    let (mut sum, mut cases) = (0.0, 0.0);
    for group in groups {
        let (positives, negatives) = (f64::from(group.positives), f64::from(group.negatives));
        sum += positives * (group.score - 1.0).powi(2) + negatives * group.score.powi(2);
        cases += positives + negatives;
    }
    (cases > 0.0).then(|| sum / cases)
}

/// Expected calibration error (Guo et al., 2017): the mean difference between the probability and the
/// fraction of positives over [`BINS`], weighted by their cases.
pub fn ece(groups: &[Group]) -> Option<f64> {
    let bins = calibration(groups);
    let cases: f64 = bins.iter().map(|bin| bin.cases as f64).sum();
    let off = bins.iter().map(|bin| match (bin.score, bin.positives) {
        (Some(score), Some(positives)) => bin.cases as f64 * (score - positives).abs(),
        _ => 0.0,
    });
    let sum: f64 = off.sum();
    (cases > 0.0).then(|| sum / cases)
}

/// One bin of the reliability diagram.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Bin {
    /// Scores are above this, in the first bin also equal to it.
    pub above: f64,
    /// Scores are at most this.
    pub to: f64,
    /// Cases in it.
    pub cases: u64,
    /// Their mean score.
    pub score: Option<f64>,
    /// The fraction of them that has the label.
    pub positives: Option<f64>,
}

/// The reliability diagram: [`BINS`] bins `(low, high]` from 0 to 1.
pub fn calibration(groups: &[Group]) -> Vec<Bin> {
    let edge = |index: usize| match index {
        BINS => 1.0,
        _ => index as f64 * (1.0 / BINS as f64),
    };
    let mut rest = groups.iter().peekable();
    let mut bins = Vec::with_capacity(BINS);
    for index in 0..BINS {
        let (mut scores, mut positives, mut cases) = (0.0, 0u64, 0u64);
        let inside = |group: &&Group| index + 1 == BINS || group.score <= edge(index + 1);
        while let Some(group) = rest.next_if(inside) {
            let here = u64::from(group.positives) + u64::from(group.negatives);
            scores += group.score * here as f64;
            positives += u64::from(group.positives);
            cases += here;
        }
        bins.push(Bin {
            above: edge(index),
            to: edge(index + 1),
            cases,
            score: (cases > 0).then(|| scores / cases as f64),
            positives: ratio(positives, cases),
        });
    }
    bins
}

/// Points of the ROC curve, false against true positive rate, from (0, 0) to (1, 1); points on a
/// straight line between their neighbours are left out. Empty when only one class is there.
pub fn roc(groups: &[Group]) -> Vec<[f64; 2]> {
    let total = |of: fn(&Group) -> u32| groups.iter().map(|g| u64::from(of(g))).sum::<u64>();
    let (positives, negatives) = (total(|g| g.positives), total(|g| g.negatives));
    if positives == 0 || negatives == 0 {
        return Vec::new();
    }
    let mut points: Vec<[u64; 2]> = vec![[0, 0]];
    let (mut false_positives, mut true_positives) = (0, 0);
    for scores in groups
        .chunk_by(|left, right| left.score == right.score)
        .rev()
    {
        for group in scores {
            true_positives += u64::from(group.positives);
            false_positives += u64::from(group.negatives);
        }
        let next = [false_positives, true_positives];
        if let [.., before, last] = points.as_slice() {
            let [dx, dy] = [last[0] - before[0], last[1] - before[1]];
            let [ex, ey] = [next[0] - last[0], next[1] - last[1]];
            if dx * ey == ex * dy {
                points.pop();
            }
        }
        points.push(next);
    }
    let rate = |point: [u64; 2]| {
        [
            point[0] as f64 / negatives as f64,
            point[1] as f64 / positives as f64,
        ]
    };
    points.into_iter().map(rate).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cases(scores: &[f64], truth: &[u8]) -> Vec<Case> {
        let pairs = scores.iter().zip(truth);
        pairs
            .map(|(score, truth)| Case {
                score: *score,
                called: *score >= 0.5,
                positive: *truth == 1,
            })
            .collect()
    }

    #[test]
    fn one_class_only_has_no_ranking_and_no_empty_rate() {
        let (groups, _) = group(&cases(&[0.1, 0.9], &[0, 0]));
        let all = figures(&groups, true);
        // Accuracy, precision, specificity, npv, brier and ece have something to divide by.
        let defined: Vec<&str> = NAMES
            .iter()
            .zip(all)
            .filter_map(|(name, value)| value.map(|_| *name))
            .collect();
        assert_eq!(
            defined,
            [
                "accuracy",
                "precision",
                "specificity",
                "npv",
                "f1",
                "brier",
                "ece"
            ]
        );
        assert!(roc(&groups).is_empty());
        assert_eq!(figures(&[], true), [None; NAMES.len()]);
    }

    #[test]
    fn ties_count_half_and_stand_on_one_point_of_the_curve() {
        let (groups, of_case) = group(&cases(&[0.5, 0.5, 0.5, 0.9], &[1, 0, 0, 1]));
        assert_eq!(of_case, [0, 0, 0, 1]);
        assert_eq!(auc(&groups), Some(0.75));
        assert_eq!(roc(&groups), [[0.0, 0.0], [0.0, 0.5], [1.0, 1.0]]);
    }

    #[test]
    fn without_probabilities_only_the_counts_are_figures() {
        let (groups, _) = group(&cases(&[0.0, 1.0], &[0, 1]));
        let all = figures(&groups, false);
        assert_eq!(all[..6], [Some(1.0); 6]);
        assert_eq!(all[6..], [None; 3]);
    }

    #[test]
    fn an_edge_belongs_to_the_bin_below_it() {
        let edge = 1.0 / BINS as f64;
        let (groups, _) = group(&cases(&[0.0, edge, 1.0], &[0, 0, 1]));
        let bins = calibration(&groups);
        assert_eq!(bins.len(), BINS);
        assert_eq!((bins[0].cases, bins[1].cases, bins[14].cases), (2, 0, 1));
        assert_eq!(bins[1].score, None);
    }
}
