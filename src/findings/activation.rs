//! From the numbers of an output tensor to probabilities, one value at a time: for outputs with one
//! number per box or per pixel.

use crate::model::manifest::Activation;
use crate::refusal::Refusal;

/// Whether every number of a tensor is one.
///
/// # Errors
/// `model-output-not-finite`.
pub fn check_finite(values: &[f32]) -> Result<(), Refusal> {
    if values.iter().all(|value| value.is_finite()) {
        return Ok(());
    }
    Err(Refusal::new(
        "model-output-not-finite",
        "the model answered with a value that is no number",
    ))
}

/// Whether `activation` makes every number of a tensor a probability.
///
/// # Errors
/// `model-output-not-finite` and `model-output-not-probability`.
pub fn check(activation: Activation, values: &[f32]) -> Result<(), Refusal> {
    check_finite(values)?;
    let probability = |value: &f32| (0.0..=1.0).contains(value);
    if activation == Activation::None && !values.iter().all(probability) {
        return Err(Refusal::new(
            "model-output-not-probability",
            "the model answered with a value outside 0 to 1, and its manifest states no activation",
        ));
    }
    Ok(())
}

/// What makes the numbers of one box or one pixel probabilities.
#[derive(Debug, Clone, Copy)]
pub enum Activate {
    /// They are.
    Identity,
    /// Each by itself.
    Sigmoid,
    /// By what they are together: the highest, and the sum of powers below it.
    Softmax {
        /// The highest of the numbers.
        highest: f64,
        /// Sum of the exponentials of their distances from it.
        sum: f64,
    },
}

impl Activate {
    /// For the numbers `values`, one per label.
    pub fn of<'a>(activation: Activation, values: impl Iterator<Item = &'a f32> + Clone) -> Self {
        match activation {
            Activation::None => Self::Identity,
            Activation::Sigmoid => Self::Sigmoid,
            Activation::Softmax => {
                let values = values.map(|value| f64::from(*value));
                let highest = values.clone().fold(f64::NEG_INFINITY, f64::max);
                let sum = values.map(|value| (value - highest).exp()).sum();
                Self::Softmax { highest, sum }
            }
        }
    }

    /// The probability of one of them.
    pub fn probability(self, value: f32) -> f64 {
        let value = f64::from(value);
        match self {
            Self::Identity => value,
            Self::Sigmoid => 1.0 / (1.0 + (-value).exp()),
            Self::Softmax { highest, sum } => (value - highest).exp() / sum,
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn probabilities_are_those_of_scipy() {
        // scipy.special: expit(-2), softmax([1000, 1001, 990])[2].
        let values = [1000.0, 1001.0, 990.0, -2.0];
        let of = |activation, count: usize, index: usize| {
            Activate::of(activation, values.iter().take(count)).probability(values[index])
        };
        assert!((of(Activation::Sigmoid, 4, 3) - 0.119_202_922_022_117_6).abs() < 1e-15);
        assert!((of(Activation::Softmax, 3, 2) - 1.220_977_26e-5).abs() < 1e-13);
        assert_eq!(of(Activation::None, 4, 3), -2.0);
    }

    #[test]
    fn a_number_that_is_none_is_refused() {
        let code = |activation, value| check(activation, &[0.5, value]).unwrap_err().code;
        assert_eq!(
            code(Activation::Sigmoid, f32::INFINITY),
            "model-output-not-finite"
        );
        assert_eq!(code(Activation::None, 1.5), "model-output-not-probability");
        assert!(check(Activation::Sigmoid, &[-7.0]).is_ok());
    }
}
