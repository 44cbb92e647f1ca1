//! `[[reference]]`: the scores that the author expects.

use serde::Deserialize;

use super::output::Reported;

/// How the scores of a label were distributed when the model was validated.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Reference {
    /// The label.
    pub label: String,
    /// Inner edges of the bins, ascending.
    pub edges: Vec<f64>,
    /// Fraction of studies in each bin; one more than `edges`, together 1.
    pub fractions: Vec<f64>,
}

/// Bins of a reference at most.
const MAX_BINS: usize = 64;

impl Reference {
    /// The bin that a score falls into: an edge belongs to the bin above it.
    pub fn bin(&self, score: f64) -> usize {
        self.edges.partition_point(|edge| *edge <= score)
    }

    fn check(&self, labels: &[Reported<'_>]) -> Result<(), String> {
        let Self {
            label,
            edges,
            fractions,
        } = self;
        if !labels.iter().any(|known| known.label == label) {
            return Err(format!("reference.label: the model has no label `{label}`"));
        }
        if edges.is_empty() || edges.len() >= MAX_BINS {
            let most = MAX_BINS - 1;
            return Err(format!(
                "reference.edges: `{label}` needs 1 to {most} edges"
            ));
        }
        let ascending = edges.windows(2).all(|pair| pair[0] < pair[1]);
        if !ascending || !edges.iter().all(|edge| edge.is_finite()) {
            return Err(format!("reference.edges: those of `{label}` do not ascend"));
        }
        if fractions.len() != edges.len() + 1 {
            return Err(format!(
                "reference.fractions: `{label}` has {} edges and needs {} fractions, found {}",
                edges.len(),
                edges.len() + 1,
                fractions.len()
            ));
        }
        let sum: f64 = fractions.iter().sum();
        let parts = fractions.iter().all(|part| (0.0..=1.0).contains(part));
        if !parts || (sum - 1.0).abs() > 0.01 {
            return Err(format!(
                "reference.fractions: those of `{label}` must be 0 to 1 and sum up to 1, not {sum}"
            ));
        }
        Ok(())
    }
}

/// References of a manifest, one per label at most.
pub(super) fn validate(all: &[Reference], labels: &[Reported<'_>]) -> Result<(), String> {
    for (index, reference) in all.iter().enumerate() {
        reference.check(labels)?;
        if all
            .iter()
            .take(index)
            .any(|earlier| earlier.label == reference.label)
        {
            return Err(format!(
                "reference.label: `{}` is there twice",
                reference.label
            ));
        }
    }
    Ok(())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::super::Manifest;
    use super::super::tests::EXAMPLE;

    fn reference(edges: &str, fractions: &str, label: &str) -> Result<Manifest, String> {
        Manifest::parse(&format!(
            "{EXAMPLE}\n[[reference]]\nlabel = \"{label}\"\nedges = {edges}\nfractions = {fractions}"
        ))
    }

    #[test]
    fn a_reference_reads_and_its_edges_belong_to_the_bin_above() {
        let manifest = reference("[0.2, 0.5]", "[0.5, 0.3, 0.2]", "opacity").unwrap();
        let bins = [0.0, 0.2, 0.3, 0.5, 1.0].map(|score| manifest.reference[0].bin(score));
        assert_eq!(bins, [0, 1, 1, 2, 2]);
    }

    #[test]
    fn each_wrong_reference_is_refused_with_its_key() {
        for (edges, fractions, label, expected) in [
            ("[0.5]", "[0.5, 0.5]", "other", "reference.label"),
            ("[]", "[1.0]", "opacity", "reference.edges"),
            (
                "[0.5, 0.5]",
                "[0.5, 0.3, 0.2]",
                "opacity",
                "reference.edges",
            ),
            ("[nan]", "[0.5, 0.5]", "opacity", "reference.edges"),
            ("[0.5]", "[1.0]", "opacity", "reference.fractions"),
            ("[0.5]", "[0.5, 0.4]", "opacity", "reference.fractions"),
            ("[0.5]", "[1.5, -0.5]", "opacity", "reference.fractions"),
            ("[0.5]", "[nan, 0.5]", "opacity", "reference.fractions"),
        ] {
            let refusal = reference(edges, fractions, label).unwrap_err();
            assert!(refusal.contains(expected), "{edges} {fractions}: {refusal}");
        }
        let one = "\n[[reference]]\nlabel = \"opacity\"\nedges = [0.5]\nfractions = [0.5, 0.5]";
        let refusal = Manifest::parse(&format!("{EXAMPLE}{one}{one}")).unwrap_err();
        assert!(refusal.contains("twice"), "{refusal}");
    }
}
