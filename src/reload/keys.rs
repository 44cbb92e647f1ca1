//! Which keys count while the gateway runs, and which only after a restart.

use crate::config::{self, Config};

/// Lists the keys that may change, and makes the function that changes them: one cannot say what the
/// other does not do.
macro_rules! live {
    ($($section:ident . $($key:ident).+;)+) => {
        /// Keys that count at once.
        pub const LIVE: &[&str] = &[$(concat!(stringify!($section), $(".", stringify!($key)),+)),+];

        /// Copies the values of [`LIVE`].
        fn copy(from: &Config, to: &mut Config) {
            $(to.$section.$($key).+.clone_from(&from.$section.$($key).+);)+
        }
    };
}

live! {
    dicom.called_ae_titles;
    dicom.addresses;
    dicom.addresses_by_ae;
    dicom.calling_ae_titles;
    dicom.accept_any_called_ae_title;
    dicom.max_associations;
    dicom.max_associations_per_peer;
    dicom.max_associations_per_ae;
    dicom.max_pdu_length;
    dicom.artim_timeout;
    dicom.idle_timeout;
    dicom.pdu_timeout;
    dicom.max_instance_bytes;
    dicom.peers;
    dicom.tls.certificate;
    dicom.tls.key;
    dicom.tls.ca;
    dicom.tls.client_certificate;
    dicom.tls.ae_titles;
    dicom.user_identity;
    spool.retention;
    spool.limits.max_bytes;
    spool.limits.resume_bytes;
    spool.limits.min_free_bytes;
    spool.limits.min_free_inodes;
    commitment.wait;
    commitment.keep;
    commitment.give_up_after;
    study.quiet_period;
    study.quiet_period_by_ae;
    study.priority_by_ae;
    study.max_age;
    study.evidence;
    study.evidence_period;
    study.patience;
    study.release_period;
    study.pacs.ae_title;
    study.pacs.address;
    study.pacs.calling_ae_title;
    study.pacs.timeout;
    study.expected_series;
    study.concurrency;
    study.max_attempts;
    models.only;
    models.sites;
    models.require_golden;
    models.trusted_keys;
    models.require_signature;
    message.patient_id;
    message.accession_number;
    artefacts.retention;
    artefacts.max_bytes;
    broker.url;
    broker.username_file;
    broker.password_file;
    broker.sasl;
    broker.tls.ca;
    broker.tls.certificate;
    broker.tls.key;
    broker.confirm_timeout;
    broker.window;
    ledger.retention;
    log.level;
    shutdown.delay;
    shutdown.associations;
    shutdown.studies;
    shutdown.outbox;
}

/// Keys that count after a restart. Every key is here or in [`LIVE`].
pub const RESTART: &[&str] = &[
    "dicom.bind",
    "dicom.plain",
    "dicom.ae_title",
    "dicom.private_sop_classes",
    "dicom.tls.bind",
    "spool.dir",
    "spool.duplicates",
    "commitment.enabled",
    "models.dir",
    "models.poll",
    "decode.workers",
    "decode.timeout",
    "decode.memory",
    "inference.provider",
    "inference.onnxruntime",
    "inference.sessions",
    "inference.intra_op_threads",
    "inference.timeout",
    "inference.start_timeout",
    "inference.memory",
    "inference.arena",
    "inference.arena_shrink",
    "inference.device_id",
    "inference.device_memory",
    "inference.fence_after",
    "inference.fence_time",
    "message.source",
    "artefacts.dir",
    "artefacts.base_url",
    "broker.kind",
    "broker.file",
    "broker.exchange",
    "broker.queue",
    "broker.shadow",
    "broker.declare",
    "http.bind",
    "http.probe_bind",
    "http.read_token_files",
    "http.operate_token_files",
    "http.read_tokens",
    "http.operate_tokens",
    "http.tls.certificate",
    "http.tls.key",
    "log.format",
    "log.study_key_file",
    "traces.endpoint",
    "traces.protocol",
    "traces.ca",
    "traces.sample",
];

/// Whether a key counts at once.
pub fn is_live(key: &str) -> bool {
    LIVE.contains(&key)
}

/// `old` with what may change of `new`.
pub fn merged(old: &Config, new: &Config) -> Config {
    let mut merged = old.clone();
    copy(new, &mut merged);
    merged
}

/// The keys whose values differ, and the number of the others.
pub fn changed(old: &Config, new: &Config) -> (Vec<String>, usize) {
    let [before, after] = [old, new].map(|config| serde_json::to_value(config).unwrap_or_default());
    let keys: Vec<String> = config::keys().into_iter().map(|(key, _)| key).collect();
    let total = keys.len();
    let differs = |key: &String| match key.as_str() {
        // As text these show less than there is.
        "study.expected_series" => old.study.expected_series != new.study.expected_series,
        "http.read_tokens" => old.http.read_tokens != new.http.read_tokens,
        "http.operate_tokens" => old.http.operate_tokens != new.http.operate_tokens,
        key => {
            let pointer = format!("/{}", key.replace('.', "/"));
            before.pointer(&pointer) != after.pointer(&pointer)
        }
    };
    let changed: Vec<String> = keys.into_iter().filter(differs).collect();
    let unchanged = total - changed.len();
    (changed, unchanged)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_key_is_live_or_needs_a_restart() {
        let told: BTreeSet<String> = LIVE
            .iter()
            .chain(RESTART)
            .map(|key| (*key).into())
            .collect();
        let all: BTreeSet<String> = config::keys().into_iter().map(|(key, _)| key).collect();
        assert_eq!(told, all);
        assert_eq!(
            told.len(),
            LIVE.len() + RESTART.len(),
            "one of them is twice"
        );
    }

    #[test]
    fn what_is_hidden_or_short_as_text_is_compared_too() {
        let config = |text: &str| toml::from_str::<Config>(text).unwrap_or_default();
        let tokens = |token: &str| config(&format!("[http]\nread_tokens = [\"{token}\"]"));
        let [one, two] = ["0123456789abcdef", "0123456789abcdeF"].map(tokens);
        assert_eq!(changed(&one, &two).0, ["http.read_tokens"]);
        assert_eq!(changed(&one, &one).0, [""; 0]);
        let protocol = |count: u32| {
            config(&format!(
                "[[study.expected_series]]\nname = \"a\"\n\
                 when = [{{ attribute = \"ProtocolName\", equals = \"A\" }}]\n\
                 series = [{{ min_instances = {count} }}]"
            ))
        };
        assert_eq!(protocol(3).study.expected_series.len(), 1);
        assert_eq!(
            changed(&protocol(3), &protocol(4)).0,
            ["study.expected_series"]
        );
    }
}
