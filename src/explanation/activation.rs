//! A map that the graph gives: class activation (Zhou et al. 2016), attention, or the like.

use super::HeatMap;
use crate::model::Tensor;

/// The map of the label at `index` of the output: of a tensor `[labels, rows, columns]` its own, of
/// `[rows, columns]` the one for all. `None` when the tensor has no such map.
pub fn map(tensor: &Tensor, index: usize) -> Option<HeatMap> {
    let (rows, columns, nth) = match *tensor.shape.as_slice() {
        [rows, columns] => (rows, columns, 0),
        [_, rows, columns] => (rows, columns, index),
        _ => return None,
    };
    let cells = rows.checked_mul(columns)?;
    let first = nth.checked_mul(cells)?;
    let values = tensor.to_f32();
    Some(HeatMap {
        rows,
        columns,
        values: values.get(first..first.checked_add(cells)?)?.to_vec(),
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::model::TensorData;

    #[test]
    fn a_label_has_its_own_map_or_the_one_for_all() {
        let tensor = |shape: &[usize]| Tensor {
            shape: shape.to_vec(),
            data: TensorData::F32(
                (0..shape.iter().product())
                    .map(|v: usize| v as f32)
                    .collect(),
            ),
        };
        let own = map(&tensor(&[2, 2, 1]), 1).unwrap();
        assert_eq!((own.rows, own.columns, own.values), (2, 1, vec![2.0, 3.0]));
        let shared = map(&tensor(&[1, 2]), 7).unwrap();
        assert_eq!(shared.values, [0.0, 1.0]);
        assert!(map(&tensor(&[2, 2, 1]), 2).is_none());
        assert!(map(&tensor(&[2]), 0).is_none());
    }
}
