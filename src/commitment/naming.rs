//! Which requests name an instance, for whoever wants to know what there should be.

use rusqlite::{Connection, params};

use super::{CommitmentId, Store};
use crate::durable::database::DatabaseError;

/// A request as a list of instances.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Named {
    /// Who sent it.
    pub calling_ae: String,
    /// SOP Instance UIDs, in its order.
    pub instances: Vec<String>,
}

impl Store {
    /// The requests that list at least one of these SOP Instance UIDs, oldest first. A request whose
    /// Transaction UID was in use for another one is none: it is going to be refused.
    pub async fn naming(&self, instances: Vec<String>) -> Result<Vec<Named>, DatabaseError> {
        self.database
            .query(move |connection| naming(connection, &instances))
            .await
    }
}

fn naming(connection: &Connection, instances: &[String]) -> rusqlite::Result<Vec<Named>> {
    // Where nobody commits, this is all it costs.
    let any: bool = connection
        .prepare_cached("SELECT EXISTS (SELECT 1 FROM commitment_reference)")?
        .query_row([], |row| row.get(0))?;
    if !any {
        return Ok(Vec::new());
    }
    let found: Vec<(CommitmentId, String)> = connection
        .prepare_cached(
            "SELECT id, calling_ae FROM commitment
             WHERE duplicate = 0 AND id IN
                 (SELECT r.commitment FROM json_each(?1) AS i
                  CROSS JOIN commitment_reference AS r ON r.sop_instance = i.value)
             ORDER BY id",
        )?
        .query_map(params![json(instances)], |row| {
            Ok((row.get(0)?, row.get(1)?))
        })?
        .collect::<rusqlite::Result<_>>()?;
    let mut query = connection.prepare_cached(
        "SELECT sop_instance FROM commitment_reference WHERE commitment = ?1 ORDER BY position",
    )?;
    found
        .into_iter()
        .map(|(id, calling_ae)| {
            let instances = query.query_map([id], |row| row.get(0))?;
            Ok(Named {
                calling_ae,
                instances: instances.collect::<rusqlite::Result<_>>()?,
            })
        })
        .collect()
}

fn json(instances: &[String]) -> String {
    serde_json::Value::from(instances).to_string()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::super::{Reference, Request};
    use super::*;
    use crate::clock::Timestamp;
    use crate::dicom::{AeTitle, SopClassUid, SopInstanceUid, Uid};
    use crate::durable::database::Database;

    #[tokio::test]
    async fn requests_are_found_by_what_they_list() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state.db");
        let store = Store::new(Database::open(&path, Store::schema(), &[]).unwrap());
        let nothing = store.naming(vec!["1.1".into()]).await.unwrap();
        assert_eq!(nothing, []);
        for (transaction, instances) in [
            ("1.9", ["1.1", "1.2"]),
            ("1.8", ["1.3", "1.4"]),
            // Of a transaction that is in use: a duplicate.
            ("1.9", ["1.1", "1.7"]),
        ] {
            let request = Request {
                transaction: Uid::parse(transaction).unwrap(),
                calling_ae: AeTitle::parse("CT2").unwrap(),
                called_ae: AeTitle::gateway(),
                peer: std::net::IpAddr::from([10, 0, 0, 1]),
                references: instances
                    .iter()
                    .map(|uid| Reference {
                        sop_class: SopClassUid::parse("1.2.840.10008.5.1.4.1.1.2").unwrap(),
                        sop_instance: SopInstanceUid::parse(uid).unwrap(),
                    })
                    .collect(),
            };
            store.record(request, Timestamp(1)).await.unwrap();
        }
        let all = vec!["1.2".into(), "1.1".into(), "1.6".into()];
        let named = Named {
            calling_ae: "CT2".into(),
            instances: vec!["1.1".into(), "1.2".into()],
        };
        assert_eq!(store.naming(all).await.unwrap(), [named]);
    }
}
