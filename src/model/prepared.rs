//! What a model was given for one sample: a digest to compare with, and statistics to watch.

use sha2::{Digest, Sha256};

use super::tensor::{Tensor, TensorData};

/// Values that are turned into bytes at a time.
const BLOCK: usize = 4096;

/// The tensors of one sample.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Prepared {
    /// SHA-256 over the tensors in the order of the manifest's inputs; of each its type (`f32`,
    /// `f16`, `u8`, `i64`), NUL, the number of its axes, their sizes (u64 each) and its values, all
    /// little-endian.
    pub digest: [u8; 32],
    /// Mean and standard deviation of the values of images and volumes, as the model sees them. A row
    /// of features has none: its columns are not of one kind.
    pub statistics: Option<(f64, f64)>,
}

impl Prepared {
    /// Looks at a sample's tensors once; CPU work, so call it off the runtime.
    pub fn of(tensors: &[Tensor]) -> Self {
        let mut hasher = Sha256::new();
        let (mut count, mut sum, mut squares) = (0u64, 0.0, 0.0);
        for tensor in tensors {
            begin(&mut hasher, tensor);
            let mut add = |value: f64| {
                sum += value;
                squares += value * value;
            };
            match &tensor.data {
                TensorData::F32(values) => {
                    values.iter().for_each(|value| add(f64::from(*value)));
                    blocks(&mut hasher, values, |value| value.to_le_bytes());
                }
                TensorData::F16(values) => {
                    values.iter().for_each(|value| add(value.to_f64()));
                    blocks(&mut hasher, values, |value| value.to_le_bytes());
                }
                TensorData::U8(values) => {
                    values.iter().for_each(|value| add(f64::from(*value)));
                    hasher.update(values);
                }
                TensorData::I64(values) => {
                    values.iter().for_each(|value| add(*value as f64));
                    blocks(&mut hasher, values, |value| value.to_le_bytes());
                }
            }
            count += tensor.len() as u64;
        }
        let pictures = tensors.iter().all(|tensor| tensor.shape.len() > 1);
        let mean = sum / count as f64;
        // Rounding can make the variance of equal values a little less than nothing.
        let deviation = (squares / count as f64 - mean * mean).max(0.0).sqrt();
        Self {
            digest: hasher.finalize().into(),
            statistics: (pictures && mean.is_finite() && deviation.is_finite())
                .then_some((mean, deviation)),
        }
    }
}

fn begin(hasher: &mut Sha256, tensor: &Tensor) {
    let kind = match &tensor.data {
        TensorData::F32(_) => "f32",
        TensorData::F16(_) => "f16",
        TensorData::U8(_) => "u8",
        TensorData::I64(_) => "i64",
    };
    hasher.update(kind);
    hasher.update([0]);
    hasher.update((tensor.shape.len() as u64).to_le_bytes());
    for size in &tensor.shape {
        hasher.update((*size as u64).to_le_bytes());
    }
}

fn blocks<T: Copy, const N: usize>(hasher: &mut Sha256, values: &[T], bytes: fn(T) -> [u8; N]) {
    let mut buffer = Vec::with_capacity(BLOCK * N);
    for block in values.chunks(BLOCK) {
        buffer.clear();
        buffer.extend(block.iter().flat_map(|value| bytes(*value)));
        hasher.update(&buffer);
    }
}

/// Digest of all samples of a run, hex: SHA-256 over their digests in ascending order, so the same
/// whatever the order in which they were prepared. None without a sample.
pub fn input_digest(samples: &[Prepared]) -> Option<String> {
    if samples.is_empty() {
        return None;
    }
    let mut digests: Vec<&[u8; 32]> = samples.iter().map(|sample| &sample.digest).collect();
    digests.sort_unstable();
    let mut hasher = Sha256::new();
    for digest in digests {
        hasher.update(digest);
    }
    let digest = hasher.finalize();
    Some(digest.iter().map(|byte| format!("{byte:02x}")).collect())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn tensor(shape: &[usize], values: &[f32]) -> Tensor {
        Tensor {
            shape: shape.to_vec(),
            data: TensorData::F32(values.to_vec()),
        }
    }

    /// By Python: `hashlib.sha256(b"f32\0" + struct.pack("<4Q2f", 3, 1, 1, 2, 0.5, -2.0))`, and of
    /// that digest once more for the run.
    #[test]
    fn the_digest_is_what_python_computes() {
        let sample = Prepared::of(&[tensor(&[1, 1, 2], &[0.5, -2.0])]);
        let hex: String = sample.digest.iter().map(|b| format!("{b:02x}")).collect();
        assert_eq!(
            hex,
            "420cab9d8bb6b1ba103c2ebc759848c4bee0c6b8a601b2f1d579019d2fdd1bb7"
        );
        assert_eq!(
            input_digest(&[sample]).unwrap(),
            "e623de38a485a04129ecb95e59a958e1700b2644ea27ea9e71f0427ba1ad77c8"
        );
        assert_eq!(input_digest(&[]), None);
    }

    #[test]
    fn the_order_of_samples_does_not_matter_and_every_value_and_size_does() {
        let one = Prepared::of(&[tensor(&[1, 4], &[0.0, 1.0, 2.0, 3.0])]);
        let two = Prepared::of(&[tensor(&[2, 2], &[0.0, 1.0, 2.0, 3.0])]);
        let three = Prepared::of(&[tensor(&[2, 2], &[0.0, 1.0, 2.0, 4.0])]);
        assert_ne!(one.digest, two.digest);
        assert_ne!(two.digest, three.digest);
        assert_eq!(input_digest(&[one, two]), input_digest(&[two, one]));
        assert_ne!(input_digest(&[one, two]), input_digest(&[one]));
    }

    #[test]
    fn pictures_have_statistics_and_features_have_none() {
        let picture = Prepared::of(&[tensor(&[1, 2, 2], &[1.0, 1.0, 3.0, 3.0])]);
        assert_eq!(picture.statistics, Some((2.0, 1.0)));
        assert_eq!(Prepared::of(&[tensor(&[2], &[1.0, 3.0])]).statistics, None);
        let nan = Prepared::of(&[tensor(&[1, 1], &[f32::NAN])]);
        assert_eq!(nan.statistics, None);
    }
}
