//! Which sender a metric may name: those that the configuration lists. Any other title is what a peer
//! claims, and there are as many as it likes.

use super::config::Config;
use crate::dicom::AeTitle;
use crate::telemetry::Metrics;

/// Stands for every title that is not listed.
const OTHER: &str = "other";

/// Tells metrics of a configuration. Every series of a listed sender is there from the start, so that one which never speaks shows.
pub fn introduce(metrics: &Metrics, config: &Config) {
    let limit = i64::try_from(config.max_associations).unwrap_or(i64::MAX);
    metrics.associations_limit.set(limit);
    let listed = config.calling_ae_titles.iter().map(AeTitle::as_str);
    for sender in listed.chain([OTHER]) {
        for result in ["stored", "refused"] {
            metrics
                .sender_instances_total
                .with_label_values(&[sender, result]);
        }
    }
}

/// Counts a C-STORE request.
pub(super) fn count(metrics: &Metrics, config: &Config, calling: &AeTitle, stored: bool) {
    let sender = if config.calling_ae_titles.contains(calling) {
        calling.as_str()
    } else {
        OTHER
    };
    let result = if stored { "stored" } else { "refused" };
    metrics
        .sender_instances_total
        .with_label_values(&[sender, result])
        .inc();
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_title_that_nobody_configured_becomes_no_label() {
        let (metrics, mut config) = (Metrics::new().unwrap(), Config::default());
        let title = |text: &str| text.parse::<AeTitle>().unwrap();
        config.calling_ae_titles = vec![title("CT1")];
        introduce(&metrics, &config);
        for (calling, stored) in [("CT1", true), ("MR7", true), ("MR8", false)] {
            count(&metrics, &config, &title(calling), stored);
        }
        let text = metrics.render();
        let mut lines: Vec<&str> = text
            .lines()
            .filter(|line| line.starts_with("pacs_gateway_sender_instances_total{"))
            .map(|line| line.split_once('{').unwrap().1)
            .collect();
        lines.sort_unstable();
        assert_eq!(
            lines,
            [
                "calling_ae=\"CT1\",result=\"refused\"} 0",
                "calling_ae=\"CT1\",result=\"stored\"} 1",
                "calling_ae=\"other\",result=\"refused\"} 1",
                "calling_ae=\"other\",result=\"stored\"} 1",
            ]
        );
    }
}
