//! Where instances are that a list names and that are not in front of us.

use std::collections::HashSet;

use rusqlite::params;

use super::{LOST, Ledger};
use crate::dicom::uid::StudyInstanceUid;
use crate::durable::database::DatabaseError;

/// Instances that a study does not lack, although they are not in the spool as its own.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Whereabouts {
    /// SOP Instance UIDs that were part of an earlier revision and have left the spool.
    pub released: HashSet<String>,
    /// Of the ones asked for: SOP Instance UIDs that belong to other studies.
    pub elsewhere: HashSet<String>,
}

impl Ledger {
    /// Looks for instances of `study`, and for the ones that are `asked` for.
    pub async fn whereabouts(
        &self,
        study: &StudyInstanceUid,
        asked: Vec<String>,
    ) -> Result<Whereabouts, DatabaseError> {
        let study = study.as_str().to_owned();
        self.database
            .query(move |connection| {
                let released = connection
                    .prepare_cached(
                        "SELECT sop_instance FROM instance
                         WHERE study = ?1 AND released_at IS NOT NULL AND refusal IS NOT ?2",
                    )?
                    .query_map(params![study, LOST], |row| row.get(0))?
                    .collect::<rusqlite::Result<_>>()?;
                let elsewhere = connection
                    .prepare_cached(
                        "SELECT i.sop_instance FROM json_each(?2) AS a
                         CROSS JOIN instance AS i ON i.sop_instance = a.value
                         WHERE i.study <> ?1",
                    )?
                    .query_map(
                        params![study, serde_json::Value::from(asked).to_string()],
                        |row| row.get(0),
                    )?
                    .collect::<rusqlite::Result<_>>()?;
                Ok(Whereabouts {
                    released,
                    elsewhere,
                })
            })
            .await
    }
}
