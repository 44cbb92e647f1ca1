//! What is checked of boxes and regions: `kind = "detection"` and `kind = "segmentation"`.

use super::{Activation, Combine, Detection, InputSpec, Manifest, OutputSpec, Segmentation};

/// Boxes reported per image at most.
const MAX_BOXES: usize = 1000;

impl Manifest {
    /// Whether an output tensor of the graph can be read, see [`OutputSpec::fits`]; regions have the
    /// size of the input besides.
    ///
    /// # Errors
    /// The manifest's key and what the graph says instead.
    pub(super) fn output_fits(&self, tensor: &str, shape: &[i64]) -> Result<(), String> {
        self.output.fits(tensor, shape)?;
        let OutputSpec::Segmentation(output) = &self.output else {
            return Ok(());
        };
        if tensor != output.tensor {
            return Ok(());
        }
        let (size, what) = match self.input()?.1 {
            InputSpec::Image(spec) => (vec![spec.rows, spec.columns], "rows, columns"),
            InputSpec::Volume(spec) => (spec.size.to_vec(), "planes, rows, columns"),
            InputSpec::Features(_) => return Ok(()),
        };
        let own = shape.get(2..).unwrap_or_default();
        let same = |(own, size): (&i64, &usize)| *own < 0 || usize::try_from(*own) == Ok(*size);
        if own.len() == size.len() && own.iter().zip(&size).all(same) {
            return Ok(());
        }
        Err(format!(
            "output.tensor: needs the shape [N, channels, {what}] with the input's {size:?}, the \
             graph gives `{tensor}` {shape:?}"
        ))
    }

    /// Whether boxes and regions can be found in this input, from all of its answers.
    pub(super) fn validate_shapes(&self, input: &InputSpec) -> Result<(), String> {
        let combine = self.ensemble.as_ref().map(|ensemble| ensemble.combine);
        let several = !self.flips.is_empty() || self.ensemble.is_some();
        match &self.output {
            OutputSpec::Detection(output) => {
                output.validate(input)?;
                if several && output.nms.is_none() {
                    return Err(
                        "output.nms: is needed where flips or an ensemble see the same \
                                thing several times"
                            .to_owned(),
                    );
                }
                if combine.is_some_and(|combine| combine != Combine::Max) {
                    return Err(
                        "ensemble.combine: of boxes that overlap the most probable one \
                                stays, which is \"max\""
                            .to_owned(),
                    );
                }
                Ok(())
            }
            OutputSpec::Segmentation(output) => {
                output.validate(input)?;
                if combine.is_some_and(|combine| combine != Combine::Mean) {
                    return Err("ensemble.combine: regions are combined by \"mean\"".to_owned());
                }
                Ok(())
            }
            _ => Ok(()),
        }
    }
}

impl Detection {
    fn validate(&self, input: &InputSpec) -> Result<(), String> {
        if !matches!(input, InputSpec::Image(_)) {
            return Err("output.kind: boxes are found in images".to_owned());
        }
        if !(1..=MAX_BOXES).contains(&self.max_boxes) {
            return Err(format!("output.max_boxes: must be 1 to {MAX_BOXES}"));
        }
        if let Some(nms) = self.nms
            && !(0.0..=1.0).contains(&nms.iou)
        {
            return Err(format!(
                "output.nms.iou: {} is not between 0 and 1",
                nms.iou
            ));
        }
        if self.classes.is_some() && self.activation == Activation::Softmax {
            return Err(
                "output.activation: softmax needs the scores of all labels, and the \
                        graph gives one of output.classes"
                    .to_owned(),
            );
        }
        distinct(self.labels.iter().map(|label| label.index))
    }

    /// See [`OutputSpec::fits`].
    pub(super) fn fits(&self, tensor: &str, shape: &[i64]) -> Result<(), String> {
        let gives = |key: &str, wants: &str| {
            Err(format!(
                "output.{key}: needs the shape {wants}, the graph gives `{tensor}` {shape:?}"
            ))
        };
        if tensor == self.boxes && (shape.len() != 3 || !matches!(shape.last(), Some(4 | ..0))) {
            return gives("boxes", "[N, boxes, 4]");
        }
        if self.classes.as_deref() == Some(tensor) && shape.len() != 2 {
            return gives("classes", "[N, boxes]");
        }
        if tensor != self.scores {
            return Ok(());
        }
        match (shape, &self.classes) {
            ([_, _], Some(_)) => Ok(()),
            ([_, _], None) => match self.labels.as_slice() {
                [only] if only.index == 0 => Ok(()),
                _ => Err(
                    "output.classes: is missing, and one score per box is for one label of \
                          index 0"
                        .to_owned(),
                ),
            },
            ([_, _, labels], None) => {
                let indices = self.labels.iter().map(|label| (label.index, &label.label));
                below("labels", indices, *labels)
            }
            (_, Some(_)) => gives("scores", "[N, boxes]"),
            (_, None) => gives("scores", "[N, boxes] or [N, boxes, labels]"),
        }
    }
}

impl Segmentation {
    fn validate(&self, input: &InputSpec) -> Result<(), String> {
        let (image, volume) = match input {
            InputSpec::Image(_) => (true, false),
            InputSpec::Volume(_) => (false, true),
            InputSpec::Features(_) => {
                return Err("output.kind: regions are found in images and volumes".to_owned());
            }
        };
        for region in &self.labels {
            let name = &region.label;
            if !(region.threshold > 0.0 && region.threshold <= 1.0) {
                return Err(format!(
                    "output.labels.threshold: {} of `{name}` is not above 0 and at most 1",
                    region.threshold
                ));
            }
            for (key, least, suits, what) in [
                ("min_volume_ml", region.min_volume_ml, volume, "volumes"),
                ("min_area_mm2", region.min_area_mm2, image, "images"),
            ] {
                let Some(least) = least else { continue };
                if !suits {
                    return Err(format!("output.labels.{key}: belongs to {what}"));
                }
                if !(least > 0.0 && least.is_finite()) {
                    return Err(format!(
                        "output.labels.{key}: {least} of `{name}` is not above 0"
                    ));
                }
            }
            if region.min_pixels == Some(0) {
                return Err("output.labels.min_pixels: must be at least 1".to_owned());
            }
        }
        distinct(self.labels.iter().map(|region| region.index))
    }

    /// See [`OutputSpec::fits`].
    pub(super) fn fits(&self, tensor: &str, shape: &[i64]) -> Result<(), String> {
        if tensor != self.tensor {
            return Ok(());
        }
        let (4 | 5, Some(channels)) = (shape.len(), shape.get(1)) else {
            return Err(format!(
                "output.tensor: segmentation needs the shape [N, channels, rows, columns] or \
                 [N, channels, planes, rows, columns], the graph gives `{tensor}` {shape:?}"
            ));
        };
        let indices = self.labels.iter().map(|label| (label.index, &label.label));
        below("channels", indices, *channels)
    }
}

fn below<'a>(
    what: &str,
    indices: impl Iterator<Item = (usize, &'a String)>,
    size: i64,
) -> Result<(), String> {
    for (index, label) in indices {
        if usize::try_from(size).is_ok_and(|size| index >= size) {
            return Err(format!(
                "output.labels.index: manifest says {index} for `{label}`, the graph gives {size} \
                 {what}"
            ));
        }
    }
    Ok(())
}

fn distinct(indices: impl Iterator<Item = usize>) -> Result<(), String> {
    let mut indices: Vec<usize> = indices.collect();
    indices.sort_unstable();
    match indices.windows(2).find(|pair| pair[0] == pair[1]) {
        Some(pair) => Err(format!("output.labels.index: {} is there twice", pair[0])),
        None => Ok(()),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::model::manifest::tests::EXAMPLE;

    fn detection() -> String {
        let output = EXAMPLE.find("[output]").unwrap();
        let labels = EXAMPLE.find("[[output.labels]]").unwrap();
        let table = r#"
        [output]
        kind = "detection"
        boxes = "boxes"
        scores = "scores"
        activation = "sigmoid"
        format = "xyxy"
        coordinates = "pixels"
        nms = { iou = 0.5 }
        max_boxes = 20
        "#;
        [&EXAMPLE[..output], table, &EXAMPLE[labels..]].concat()
    }

    fn segmentation() -> String {
        let output = EXAMPLE.find("[output]").unwrap();
        let labels = EXAMPLE.find("[[output.labels]]").unwrap();
        let table = "[output]\nkind = \"segmentation\"\ntensor = \"t\"\nactivation = \"none\"\n";
        [&EXAMPLE[..output], table, &EXAMPLE[labels..]].concat()
    }

    fn refused(text: &str, from: &str, to: &str) -> String {
        assert!(text.contains(from), "{from}");
        Manifest::parse(&text.replace(from, to)).unwrap_err()
    }

    #[test]
    fn a_detection_is_checked_key_by_key() {
        let text = detection();
        Manifest::parse(&text).unwrap();
        let flips = "flips = [\"horizontal\"]\nname = \"example\"";
        let flipped = text.replace("name = \"example\"", flips);
        Manifest::parse(&flipped).unwrap();
        assert!(refused(&flipped, "nms = { iou = 0.5 }", "").starts_with("output.nms:"));
        for (from, to, key) in [
            ("max_boxes = 20", "max_boxes = 0", "output.max_boxes"),
            ("iou = 0.5", "iou = nan", "output.nms.iou"),
            (
                "\"sigmoid\"",
                "\"softmax\"\nclasses = \"c\"",
                "output.activation",
            ),
            (
                "threshold = 0.5",
                "threshold = -1.0",
                "output.labels.threshold",
            ),
            (
                "[output]",
                "[ensemble]\ncombine = \"vote\"\nfolds = [{ file = \"b.onnx\", sha256 = \"1111111111111111111111111111111111111111111111111111111111111111\" }]\n[output]",
                "ensemble.combine",
            ),
        ] {
            let refusal = refused(&text, from, to);
            assert!(refusal.starts_with(key), "{to}: {refusal}");
        }
    }

    #[test]
    fn a_segmentation_is_checked_key_by_key() {
        let text = segmentation();
        Manifest::parse(&text).unwrap();
        for (from, to, key) in [
            (
                "threshold = 0.5",
                "threshold = 0.0",
                "output.labels.threshold",
            ),
            (
                "threshold = 0.5",
                "threshold = 0.5\nmin_pixels = 0",
                "output.labels.min_pixels",
            ),
            (
                "threshold = 0.5",
                "threshold = 0.5\nmin_volume_ml = 1.0",
                "output.labels.min_vol",
            ),
            (
                "threshold = 0.5",
                "threshold = 0.5\nmin_area_mm2 = -1.0",
                "output.labels.min_ar",
            ),
            (
                "[output]",
                "[ensemble]\ncombine = \"max\"\nfolds = [{ file = \"b.onnx\", sha256 = \"1111111111111111111111111111111111111111111111111111111111111111\" }]\n[output]",
                "ensemble.combine",
            ),
        ] {
            let refusal = refused(&text, from, to);
            assert!(refusal.starts_with(key), "{to}: {refusal}");
        }
    }

    #[test]
    fn outputs_fit_the_graph_or_name_the_key() {
        let boxes = Manifest::parse(&detection()).unwrap().output;
        for (tensor, shape, fits) in [
            ("boxes", &[-1, 100, 4][..], true),
            ("boxes", &[-1, -1, -1], true),
            ("boxes", &[-1, 100, 5], false),
            ("boxes", &[100, 4], false),
            ("scores", &[-1, 100], true),
            ("scores", &[-1, 100, 1], true),
            ("scores", &[-1, 100, 0], false),
            ("scores", &[-1], false),
            ("map", &[1], true),
        ] {
            assert_eq!(
                boxes.fits(tensor, shape).is_ok(),
                fits,
                "{tensor} {shape:?}"
            );
        }
        let regions = Manifest::parse(&segmentation()).unwrap();
        for (shape, fits) in [
            (&[-1, 1, 8, 8][..], true),
            (&[-1, -1, -1, -1], true),
            (&[-1, 1, 8, 4], false),
            (&[-1, -1, -1, 8, 8], false),
            (&[-1, 0, 8, 8], false),
            (&[-1, 8, 8], false),
        ] {
            assert_eq!(regions.fits("t", shape).is_ok(), fits, "{shape:?}");
        }
    }
}
