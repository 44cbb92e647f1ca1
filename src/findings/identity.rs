//! Names that are derived, never drawn: digests, message ids, routing keys.

use sha2::{Digest, Sha256};
use uuid::Uuid;

use crate::model::manifest::Priority;

/// Name space of our message ids (a random UUID, fixed for ever).
const MESSAGE_NAMESPACE: Uuid = Uuid::from_u128(0x6b1f_0e6a_8f1d_4c9e_9a54_2f7d_33c0_71be);

/// Digest of a set of instances, hex: the same whatever the order of arrival.
///
/// SHA-256 over the sorted pairs of SOP Instance UID and data set digest, each pair as
/// `uid NUL digest`.
pub fn instance_set_digest<'a>(
    instances: impl IntoIterator<Item = (&'a str, &'a [u8; 32])>,
) -> String {
    let mut pairs: Vec<(&str, &[u8; 32])> = instances.into_iter().collect();
    pairs.sort_unstable();
    let mut hasher = Sha256::new();
    for (uid, digest) in pairs {
        hasher.update(uid.as_bytes());
        hasher.update([0]);
        hasher.update(digest);
    }
    hasher
        .finalize()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

/// What a message id is derived from.
#[derive(Debug, Clone, Copy)]
pub struct MessageKey<'a> {
    /// Study Instance UID.
    pub study: &'a str,
    /// Model name; empty when no model applies.
    pub model: &'a str,
    /// Model version.
    pub version: &'a str,
    /// SHA-256 of the model, hex.
    pub model_sha256: &'a str,
    /// [`instance_set_digest`].
    pub instance_set: &'a str,
    /// How often an operator has had the study done again: 0 for hardly any.
    pub rerun: u32,
}

/// UUIDv5 (RFC 9562 §5.5) of the key: the same after a crash and a second run.
pub fn message_id(key: &MessageKey<'_>) -> Uuid {
    let mut name = [
        key.study,
        key.model,
        key.version,
        key.model_sha256,
        key.instance_set,
    ]
    .join("\0");
    if key.rerun > 0 {
        name.push('\0');
        name.push_str(&key.rerun.to_string());
    }
    Uuid::new_v5(&MESSAGE_NAMESPACE, name.as_bytes())
}

/// `<outcome>.<priority>.<modality>.<body_part>.<model>`: lower case, `[a-z0-9-]`, `_` if unknown.
pub fn routing_key(
    outcome: &str,
    priority: Priority,
    modality: &str,
    body_part: &str,
    model: &str,
) -> String {
    [outcome, priority.as_str(), modality, body_part, model]
        .map(word)
        .join(".")
}

/// One word of a routing key. Anything else than letters and digits becomes `-`.
fn word(text: &str) -> String {
    let mut word: String = text
        .trim()
        .chars()
        .take(48)
        .map(|c| {
            if c.is_ascii_alphanumeric() {
                c.to_ascii_lowercase()
            } else {
                '-'
            }
        })
        .collect();
    word = word.trim_matches('-').to_owned();
    if word.is_empty() {
        "_".to_owned()
    } else {
        word
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_digest_does_not_depend_on_the_order() {
        let (a, b) = ([1; 32], [2; 32]);
        let one = instance_set_digest([("2.1", &a), ("2.2", &b)]);
        assert_eq!(one, instance_set_digest([("2.2", &b), ("2.1", &a)]));
        assert_ne!(one, instance_set_digest([("2.1", &b), ("2.2", &a)]));
        assert_eq!(one.len(), 64);
    }

    #[test]
    fn the_id_changes_with_every_part_of_the_key() {
        let key = MessageKey {
            study: "2.1",
            model: "m",
            version: "1",
            model_sha256: "ab",
            instance_set: "cd",
            rerun: 0,
        };
        let id = message_id(&key);
        assert_eq!(id, message_id(&key));
        assert_eq!(id.get_version_num(), 5);
        for other in [
            MessageKey {
                study: "2.2",
                ..key
            },
            MessageKey { model: "n", ..key },
            MessageKey {
                version: "2",
                ..key
            },
            MessageKey {
                model_sha256: "ac",
                ..key
            },
            MessageKey {
                instance_set: "ce",
                ..key
            },
            MessageKey { rerun: 1, ..key },
        ] {
            assert_ne!(id, message_id(&other), "{other:?}");
        }
    }

    #[test]
    fn routing_keys_hold_nothing_but_words() {
        let key = routing_key(
            "no-finding",
            Priority::Routine,
            "DX",
            "CHEST",
            "cxr-phantom",
        );
        assert_eq!(key, "no-finding.routine.dx.chest.cxr-phantom");
        let key = routing_key("failed", Priority::Stat, "", "HEAD AND NECK", "a.b#*");
        assert_eq!(key, "failed.stat._.head-and-neck.a-b");
    }
}
