//! A gateway that is replaced by a newer one leaves messages that it owes; the newer one brings the
//! database to its own format and sends them.

use crate::support::{Gateway, Options, RawPeer, SOON, Study, wait_until};

#[test]
fn what_was_owed_before_is_sent() {
    // A broker that is away: the file's folder does not exist.
    let away = Options::new().set("broker.file", "/nonexistent/findings");
    let mut gateway = Gateway::start(&away);
    let study = Study::chest();
    let sent = RawPeer::send(gateway.dicom_port, "CT1", &[&study.image(1)]);
    assert_eq!(sent, [0]);
    wait_until("a message that is owed", SOON, || {
        gateway.get("/api/v1/outbox")["owed"] == 1
    });
    gateway.kill();
    // The first format knew no exchange.
    let path = gateway.dir().join("spool/state.db");
    let database = rusqlite::Connection::open(&path).unwrap();
    let format = |database: &rusqlite::Connection| -> i64 {
        let ask = "PRAGMA user_version";
        database.query_row(ask, [], |row| row.get(0)).unwrap()
    };
    assert_eq!(format(&database), 4);
    database
        .execute_batch(
            "ALTER TABLE message DROP COLUMN exchange; ALTER TABLE instance DROP COLUMN durable_at;
             ALTER TABLE instance DROP COLUMN held_until; ALTER TABLE revision DROP COLUMN evidence;
             ALTER TABLE instance DROP COLUMN durable_by; DROP TABLE study;
             ALTER TABLE message DROP COLUMN discarded_at;
             ALTER TABLE message DROP COLUMN discard_reason;
             ALTER TABLE message DROP COLUMN traceparent;
             ALTER TABLE instance DROP COLUMN first_revision;
             PRAGMA user_version = 1;",
        )
        .unwrap();
    drop(database);
    gateway.restart_with(&Options::new());
    gateway.wait_until_done(&[&study.uid]);
    assert_eq!(gateway.messages_by_study()[&study.uid].len(), 1);
    let studies = gateway.get("/api/v1/studies");
    let listed = &studies["studies"][0]["study_instance_uid"];
    assert_eq!(*listed, study.uid.as_str(), "studies of before are listed");
    let database = rusqlite::Connection::open(&path).unwrap();
    assert_eq!(format(&database), 4);
}
