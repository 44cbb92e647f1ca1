//! Requests in a real database: what is recorded, due, ended and forgotten.

#![allow(clippy::unwrap_used)]

use super::*;

fn request(transaction: &str, instances: &[&str]) -> Request {
    Request {
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
    }
}

#[tokio::test]
async fn a_request_stays_with_its_result_until_it_is_reported() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("state.db");
    let open = || Store::new(Database::open(&path, SCHEMA, &[]).unwrap());
    let store = open();
    let first = request("1.2", &["1.1", "1.2"]);
    let recorded = store.record(first.clone(), Timestamp(5)).await.unwrap();
    let Recorded::New(id) = recorded else {
        panic!("{recorded:?}");
    };
    let again = store.record(first, Timestamp(6)).await.unwrap();
    assert_eq!(again, Recorded::Repeated(id));
    let other = store.record(request("1.2", &["1.3"]), Timestamp(7)).await;
    assert!(matches!(other.unwrap(), Recorded::Duplicate(_)));
    let result = vec![None, Some(Failure::NoSuchInstance)];
    store
        .judged(id, result.clone(), Timestamp(8))
        .await
        .unwrap();
    let later = Timestamp(1) + PAUSE + PAUSE;
    store.defer(id, later, "refused".into()).await.unwrap();
    drop(store);
    let store = open();
    let now = store.due(Timestamp(50)).await.unwrap();
    let &[(other, false)] = now.as_slice() else {
        panic!("the other one is deferred: {now:?}");
    };
    assert!(store.load(other).await.unwrap().unwrap().duplicate);
    assert_eq!(
        store.due(later).await.unwrap(),
        [(id, true), (other, false)]
    );
    let judged = store.load(id).await.unwrap().unwrap();
    assert_eq!((judged.attempts, judged.received_at), (1, Timestamp(5)));
    assert_eq!(judged.result, Some(result));
    store.ended(id, "reported", later).await.unwrap();
    assert!(store.load(id).await.unwrap().is_none());
    assert_eq!(store.due(later).await.unwrap(), [(other, false)]);
    // The Transaction UID is free again (PS3.4 J.3.3.1.2).
    store.ended(other, "reported", later).await.unwrap();
    let anew = store.record(request("1.2", &["1.3"]), later).await.unwrap();
    assert!(matches!(anew, Recorded::New(_)));
}

#[tokio::test]
async fn a_request_that_comes_again_is_soon_due() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::new(Database::open(&dir.path().join("t.db"), SCHEMA, &[]).unwrap());
    let (first, second) = (request("1.2", &["1.1"]), request("1.3", &["1.1"]));
    let (now, far) = (Timestamp(1), Timestamp(1) + PAUSE * 10);
    for one in [&first, &second] {
        let id = store.record(one.clone(), now).await.unwrap().id().unwrap();
        store.judged(id, vec![None], now).await.unwrap();
        assert!(
            store.due(now).await.unwrap().is_empty(),
            "its sender may be leaving"
        );
        assert_eq!(store.due(now + PAUSE).await.unwrap().len(), 1);
        store.defer(id, far, String::new()).await.unwrap();
    }
    assert!(store.due(now + PAUSE).await.unwrap().is_empty());
    let again = store.record(first, now).await.unwrap();
    assert!(matches!(again, Recorded::Repeated(_)));
    assert_eq!(store.due(now + PAUSE).await.unwrap().len(), 1);
    store.hurry().await.unwrap();
    assert_eq!(store.due(now).await.unwrap().len(), 2);
}

#[tokio::test]
async fn what_ended_long_ago_is_forgotten_with_its_references() {
    let dir = tempfile::tempdir().unwrap();
    let database = Database::open(&dir.path().join("t.db"), SCHEMA, &[]).unwrap();
    let store = Store::new(database.clone());
    for uid in ["1.2", "1.3", "1.4"] {
        let recorded = store.record(request(uid, &["1.1", "1.2"]), Timestamp(1));
        let id = recorded.await.unwrap().id().unwrap();
        if uid != "1.4" {
            store
                .ended(id, "reported", Timestamp(10 * id))
                .await
                .unwrap();
        }
    }
    store.expire(Timestamp(15)).await.unwrap();
    let count = |table| {
        let query = format!("SELECT count(*) FROM {table}");
        database.read(|c| c.query_row(&query, [], |row| row.get::<_, i64>(0)))
    };
    assert_eq!(count("commitment").unwrap(), 2);
    assert_eq!(count("commitment_reference").unwrap(), 4);
    assert_eq!(store.count_open().await.unwrap(), 1);
}
