//! What stays in the spool longer than its study needs it, because it was promised to somebody.

use rusqlite::params;
use tokio::sync::MutexGuard;

use super::{Ledger, key};
use crate::clock::Timestamp;
use crate::durable::database::DatabaseError;
use crate::spool::EntryId;

impl Ledger {
    /// Held while entries leave the spool, from the decision on, and while some are promised to
    /// stay: between looking for an instance and [`Ledger::hold`] none goes away.
    pub async fn leaving(&self) -> MutexGuard<'_, ()> {
        self.leaving.lock().await
    }

    /// Keeps entries in the spool until `until`, or as long as something else keeps them longer.
    /// Gives how many could not be held, because their arrival is not written down yet.
    pub async fn hold(
        &self,
        entries: Vec<EntryId>,
        until: Timestamp,
    ) -> Result<usize, DatabaseError> {
        self.database
            .write(move |connection| {
                let mut update = connection.prepare_cached(
                    "UPDATE instance SET held_until = max(coalesce(held_until, 0), ?2)
                     WHERE entry = ?1 AND released_at IS NULL",
                )?;
                let mut missing = 0;
                for entry in entries {
                    missing += usize::from(update.execute(params![key(entry), until.0])? == 0);
                }
                Ok(missing)
            })
            .await
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::net::IpAddr;

    use super::*;
    use crate::commitment::{Failure, Reference, Request, Store};
    use crate::dicom::{AeTitle, SopClassUid, SopInstanceUid, Uid};
    use crate::durable::database::Database;
    use crate::outbox::Outbox;

    const NOW: Timestamp = Timestamp(1000);

    /// Two instances of a study that was finished long ago.
    async fn books() -> (tempfile::TempDir, Ledger, Store) {
        let dir = tempfile::tempdir().unwrap();
        let schema = [Ledger::schema(), Outbox::schema(), Store::schema()].concat();
        let database = Database::open(&dir.path().join("t.db"), &schema, &[]).unwrap();
        database
            .write(|connection| {
                connection.execute_batch(
                    "INSERT INTO revision (study, revision, digest, method, first_received,
                        last_received, complete_at, finished_at)
                     VALUES ('1.9', 1, 'd', 'quiet-period', 1, 1, 1, 1);
                     INSERT INTO instance (entry, study, sop_instance, sop_class, transfer_syntax,
                        modality, body_part, calling_ae, called_ae, peer, bytes, digest,
                        received_at, revision)
                     VALUES (1, '1.9', '1.1', 'c', 't', 'CT', '', 'A', 'B', 'p', 1, x'', 1, 1),
                            (2, '1.9', '1.2', 'c', 't', 'CT', '', 'A', 'B', 'p', 1, x'', 1, 1);",
                )
            })
            .await
            .unwrap();
        (dir, Ledger::new(database.clone()), Store::new(database))
    }

    async fn releasable(ledger: &Ledger, now: Timestamp) -> Vec<u64> {
        let entries = ledger.releasable(NOW, now).await.unwrap();
        entries.into_iter().map(|entry| entry.0).collect()
    }

    #[tokio::test]
    async fn what_is_held_leaves_when_the_longest_hold_is_over() {
        let (_dir, ledger, _) = books().await;
        assert_eq!(releasable(&ledger, NOW).await, [1, 2]);
        let entries = |ids: &[u64]| ids.iter().map(|id| EntryId(*id)).collect::<Vec<_>>();
        assert_eq!(
            ledger.hold(entries(&[1]), Timestamp(1500)).await.unwrap(),
            0
        );
        // A shorter one takes nothing away.
        assert_eq!(
            ledger.hold(entries(&[1]), Timestamp(1200)).await.unwrap(),
            0
        );
        assert_eq!(releasable(&ledger, Timestamp(1499)).await, [2]);
        assert_eq!(releasable(&ledger, Timestamp(1500)).await, [1, 2]);
        // Arrivals that are not written down, and what has left, cannot be held.
        ledger.released(entries(&[2]), NOW).await.unwrap();
        assert_eq!(
            ledger
                .hold(entries(&[1, 2, 3]), Timestamp(1600))
                .await
                .unwrap(),
            2
        );
    }

    #[tokio::test]
    async fn what_an_open_request_has_promised_stays_until_that_is_closed() {
        let (_dir, ledger, store) = books().await;
        let reference = |uid: &str| Reference {
            sop_class: SopClassUid::parse("1.2.840.10008.5.1.4.1.1.2").unwrap(),
            sop_instance: SopInstanceUid::parse(uid).unwrap(),
        };
        let request = Request {
            transaction: Uid::parse("1.7").unwrap(),
            calling_ae: AeTitle::parse("CT2").unwrap(),
            called_ae: AeTitle::gateway(),
            peer: IpAddr::from([10, 0, 0, 1]),
            references: vec![reference("1.1"), reference("1.2")],
        };
        let recorded = store.record(request, NOW).await.unwrap();
        let id = recorded.id().unwrap();
        assert_eq!(
            releasable(&ledger, NOW).await,
            [1, 2],
            "nothing is promised yet"
        );
        let result = vec![None, Some(Failure::ClassInstanceConflict)];
        store.judged(id, result, NOW).await.unwrap();
        assert_eq!(releasable(&ledger, Timestamp(i64::MAX)).await, [2]);
        store.ended(id, "reported", NOW).await.unwrap();
        assert_eq!(releasable(&ledger, NOW).await, [1, 2]);
    }
}
