//! Percentile bootstrap (Efron and Tibshirani, 1993, §13.3): how far a figure may be off.
//!
//! Cases are drawn with replacement; for the AUC within positives and within negatives, so that every
//! draw has both. The generator is written down here, so the same seed gives the same interval with
//! every release, and a script in another language can draw the same cases.

use super::figures::{self, AUC, Case, Figures, Group, NAMES};

/// The interval's ends, as quantiles.
const ENDS: [f64; 2] = [0.025, 0.975];
/// A figure that is not defined in more than this fraction of draws has no interval.
const MAX_UNDEFINED: f64 = 0.05;

/// SplitMix64 (Steele, Lea and Flood, 2014).
#[derive(Debug, Clone)]
pub struct Generator(u64);

impl Generator {
    /// The generator's start.
    pub const fn new(seed: u64) -> Self {
        Self(seed)
    }

    const fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    /// An index below `count`: the upper half of the product with 2⁶⁴ possible values.
    pub const fn below(&mut self, count: usize) -> usize {
        ((self.next() as u128 * count as u128) >> 64) as usize
    }
}

/// Draws and seed.
#[derive(Debug, Clone, Copy)]
pub struct Draws {
    /// How often.
    pub count: usize,
    /// Where the generator starts.
    pub seed: u64,
}

/// A figure's 95 % interval; none where it is not defined.
pub type Interval = Option<[f64; 2]>;

/// Intervals of all figures of a label. Each draw takes as many cases as there are, then as many
/// positives and as many negatives as there are for the AUC.
pub fn label(cases: &[Case], scored: bool, draws: Draws) -> [Interval; NAMES.len()] {
    let (groups, of_case) = figures::group(cases);
    let all: Vec<(usize, bool)> = of_case
        .iter()
        .zip(cases)
        .map(|(group, case)| (*group, case.positive))
        .collect();
    let of = |positive: bool| -> Vec<(usize, bool)> {
        all.iter()
            .copied()
            .filter(|case| case.1 == positive)
            .collect()
    };
    let strata = [of(true), of(false)];
    let mut generator = Generator::new(draws.seed);
    let mut drawn: Vec<Vec<f64>> = vec![Vec::with_capacity(draws.count); NAMES.len()];
    let mut counted = groups;
    for _ in 0..draws.count {
        resample(&mut counted, &[&all], &mut generator);
        let mut values: Figures = figures::figures(&counted, scored);
        resample(&mut counted, &[&strata[0], &strata[1]], &mut generator);
        values[AUC] = figures::auc(&counted).filter(|_| scored);
        for (values, value) in drawn.iter_mut().zip(values) {
            values.extend(value);
        }
    }
    let mut intervals = [None; NAMES.len()];
    for (interval, values) in intervals.iter_mut().zip(drawn) {
        *interval = self::interval(values, draws.count);
    }
    intervals
}

/// Counts a new draw from each pool into `groups`.
fn resample(groups: &mut [Group], pools: &[&Vec<(usize, bool)>], generator: &mut Generator) {
    for group in &mut *groups {
        (group.positives, group.negatives) = (0, 0);
    }
    for pool in pools {
        for _ in 0..pool.len() {
            let Some((group, positive)) = pool.get(generator.below(pool.len())) else {
                continue;
            };
            match (groups.get_mut(*group), positive) {
                (Some(group), true) => group.positives += 1,
                (Some(group), false) => group.negatives += 1,
                (None, _) => {}
            }
        }
    }
}

/// Intervals of figures of values that are drawn together, for example differences.
pub fn values<T: Copy, const N: usize>(
    items: &[T],
    figures: impl Fn(&[T]) -> [Option<f64>; N],
    draws: Draws,
) -> [Interval; N] {
    let mut generator = Generator::new(draws.seed);
    let mut drawn: Vec<Vec<f64>> = vec![Vec::with_capacity(draws.count); N];
    let mut chosen = Vec::with_capacity(items.len());
    for _ in 0..draws.count {
        chosen.clear();
        let picked = (0..items.len()).filter_map(|_| items.get(generator.below(items.len())));
        chosen.extend(picked.copied());
        for (values, value) in drawn.iter_mut().zip(figures(&chosen)) {
            values.extend(value);
        }
    }
    let mut intervals = [None; N];
    for (interval, values) in intervals.iter_mut().zip(drawn) {
        *interval = self::interval(values, draws.count);
    }
    intervals
}

fn interval(mut values: Vec<f64>, draws: usize) -> Interval {
    values.sort_by(f64::total_cmp);
    let missing = draws.saturating_sub(values.len());
    if draws == 0 || missing as f64 > MAX_UNDEFINED * draws as f64 {
        return None;
    }
    Some([quantile(&values, ENDS[0])?, quantile(&values, ENDS[1])?])
}

/// A quantile of sorted values, linear between neighbours: NumPy's default.
pub fn quantile(sorted: &[f64], part: f64) -> Option<f64> {
    let place = part * sorted.len().checked_sub(1)? as f64;
    let low = sorted.get(place.floor() as usize)?;
    let high = sorted.get(place.ceil() as usize)?;
    Some(low + (high - low) * place.fract())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn the_generator_is_the_published_one() {
        // The first values of seed 1234567 in the reference implementation (xoshiro.di.unimi.it).
        let mut generator = Generator::new(1_234_567);
        let first: Vec<u64> = (0..3).map(|_| generator.next()).collect();
        let published = [
            6_457_827_717_110_365_317,
            3_203_168_211_198_807_973,
            9_817_491_932_198_370_423,
        ];
        assert_eq!(first, published);
    }

    #[test]
    fn a_figure_that_is_seldom_defined_has_no_interval() {
        assert_eq!(interval(vec![0.5; 94], 100), None);
        assert_eq!(interval(vec![0.5; 95], 100), Some([0.5, 0.5]));
        assert_eq!(interval(Vec::new(), 0), None);
        assert_eq!(quantile(&[], 0.5), None);
        assert_eq!(quantile(&[1.0, 2.0], 0.25), Some(1.25));
    }

    #[test]
    fn a_single_class_has_no_interval_of_the_auc() {
        let case = |score| Case {
            score,
            called: true,
            positive: true,
        };
        let cases = [case(0.7), case(0.8)];
        let draws = Draws { count: 50, seed: 1 };
        let intervals = label(&cases, true, draws);
        assert_eq!(intervals[AUC], None);
        assert_eq!(intervals[0], Some([1.0, 1.0]));
    }
}
