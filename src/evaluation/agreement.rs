//! A predicted quantity against the true one.

use serde::Serialize;

/// One study and one quantity.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Pair {
    /// What the model gave.
    pub predicted: f64,
    /// What it is.
    pub actual: f64,
}

/// What [`figures`] gives: mean absolute error, root mean squared error, bias (mean of predicted less
/// actual), and the limits of agreement, bias ± 1.96 standard deviations (Bland and Altman, 1986).
pub const NAMES: [&str; 5] = ["mae", "rmse", "bias", "limit_low", "limit_high"];

/// The figures, in the order of [`NAMES`]. Limits need two pairs.
pub fn figures(pairs: &[Pair]) -> [Option<f64>; NAMES.len()] {
    let count = pairs.len() as f64;
    let mean = |of: &dyn Fn(f64) -> f64| {
        let sum: f64 = pairs.iter().map(|p| of(p.predicted - p.actual)).sum();
        (count > 0.0).then(|| sum / count)
    };
    let bias = mean(&|difference| difference);
    let spread = bias.filter(|_| count > 1.0).and_then(|bias| {
        let squared = mean(&|difference| (difference - bias).powi(2))?;
        Some(1.96 * (squared * count / (count - 1.0)).sqrt())
    });
    let limit = |sign: f64| Some(bias? + sign * spread?);
    [
        mean(&|difference| difference.abs()),
        mean(&|difference| difference * difference).map(f64::sqrt),
        bias,
        limit(-1.0),
        limit(1.0),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_pair_has_no_figure_and_one_pair_no_limits() {
        assert_eq!(figures(&[]), [None; NAMES.len()]);
        let one = Pair {
            predicted: 3.0,
            actual: 1.0,
        };
        let expected = [Some(2.0), Some(2.0), Some(2.0), None, None];
        assert_eq!(figures(&[one]), expected);
    }
}
