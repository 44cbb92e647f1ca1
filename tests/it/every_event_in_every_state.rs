//! The upper layer's state machine (PS3.8 9.2): every event that a peer can cause, in every state that
//! an acceptor can be in, gets the action of Table 9-10, and costs its own association only.
//!
//! The gateway answers a request at once, so Sta3 and Sta8 have no duration: what a peer sends without
//! waiting for the answer meets the state after it. It never asks for a release as an acceptor, so it
//! is never in Sta7 and Sta9 to Sta12; Sta4 and Sta5 are a requestor's.

use std::io::ErrorKind;
use std::process::Command;

use crate::support::files::below;
use crate::support::options::repository;
use crate::support::pdus::{
    ABORT, AC, P_DATA, RELEASE_RP, RELEASE_RQ, RJ, RQ, VERIFICATION, association_request, command,
    context, number, p_data, pdu, pdv,
};
use crate::support::{Gateway, Instance, Options, RawPeer, SOON, Study, peers, wait_until};

const EXPLICIT: &str = "1.2.840.10008.1.2.1";
const EVENTS: [&str; 10] = [
    "AC",
    "RJ",
    "RQ",
    "P-DATA",
    "RELEASE-RQ",
    "RELEASE-RP",
    "ABORT",
    "closed",
    "unknown",
    "invalid",
];
/// Numbers of the events in PS3.8 Table 9-10, as pynetdicom counts its rows.
const NUMBERS: [&str; 10] = [
    "Evt3", "Evt4", "Evt6", "Evt10", "Evt12", "Evt13", "Evt16", "Evt17", "Evt19", "Evt19",
];
/// PS3.8 Table 9-10: the columns that an acceptor meets here, in the order of [`EVENTS`].
const TABLE: [(&str, [&str; 10]); 3] = [
    (
        "Sta2",
        [
            "AA-1", "AA-1", "AE-6", "AA-1", "AA-1", "AA-1", "AA-2", "AA-5", "AA-1", "AA-1",
        ],
    ),
    (
        "Sta6",
        [
            "AA-8", "AA-8", "AA-8", "DT-2", "AR-2", "AA-8", "AA-3", "AA-4", "AA-8", "AA-8",
        ],
    ),
    (
        "Sta13",
        [
            "AA-6", "AA-6", "AA-7", "AA-6", "AA-6", "AA-6", "AA-2", "AR-5", "AA-7", "AA-7",
        ],
    ),
];

/// How a peer gets the gateway into a state, and the column of the table that holds there.
const WAYS: [(&str, &str); 9] = [
    ("connected", "Sta2"),
    ("associated", "Sta6"),
    ("associated, without waiting for the answer", "Sta6"),
    ("in the middle of a data set", "Sta6"),
    ("rejected", "Sta13"),
    ("released", "Sta13"),
    ("released, without waiting for the answer", "Sta13"),
    ("aborted before an association", "Sta13"),
    ("aborted in an association", "Sta13"),
];

#[test]
fn the_table_is_the_one_that_pynetdicom_has() {
    if !peers::python_available() {
        return;
    }
    let script = "from pynetdicom.fsm import TRANSITION_TABLE as t\n\
                  for (event, state), action in t.items(): print(event, state, action)";
    let python = repository().join(".deps/venv/bin/python");
    let output = peers::run(Command::new(python).args(["-c", script]));
    peers::succeeded(&output);
    let text = String::from_utf8(output.stdout).unwrap();
    for (state, actions) in TABLE {
        for (event, action) in NUMBERS.iter().zip(actions) {
            let line = format!("{event} {state} {action}");
            assert!(text.lines().any(|known| known == line), "{line}");
        }
    }
}

#[test]
fn the_standards_action_is_taken() {
    let gateway = Gateway::start(&Options::new());
    let study = Study::ct();
    for (way, state) in WAYS {
        let (_, actions) = TABLE.iter().find(|(name, _)| *name == state).unwrap();
        for (event, action) in EVENTS.iter().zip(actions) {
            eprintln!("{way} ({state}), {event}: {action}");
            let mut scene = Scene::set(&gateway, way, &study.image(1));
            scene.cause(event);
            scene.expect(action, event);
        }
    }
    let image = study.image(2);
    let mut peer = RawPeer::associate(gateway.dicom_port, "CT1", &[&image]);
    assert_eq!(peer.store(&image), 0, "others are served");
    peer.release();
    wait_until("end of all associations", SOON, || {
        gateway.metric("associations_active", &[]) == 0.0
    });
    let instances = || {
        let known = gateway.study(&study.uid);
        known["instances"].as_array().unwrap().len()
    };
    // The first can be done before the last is here.
    wait_until("both instances", SOON, || instances() >= 2);
    gateway.wait_until_done(&[&study.uid]);
    assert_eq!(instances(), 2, "only whole messages count");
    assert!(!gateway.log().contains("panic"));
}

/// A connection in a state, with the bytes that go out together with the event.
struct Scene {
    peer: Option<RawPeer>,
    pending: Vec<u8>,
    /// PDUs that are still to come before the event's action.
    owed: Vec<u8>,
    /// What a P-DATA-TF that fits holds.
    data: Vec<u8>,
}

impl Scene {
    fn set(gateway: &Gateway, way: &str, image: &Instance) -> Self {
        let mut peer = RawPeer::connect(gateway.dicom_port).unwrap();
        let contexts = [
            context(1, VERIFICATION, &[EXPLICIT]),
            context(3, &image.sop_class, &[EXPLICIT]),
        ];
        let request = association_request(&contexts, &[]);
        let release = pdu(RELEASE_RQ, &[0; 4]);
        let echo = command(0x0030, 7, VERIFICATION, None);
        let mut data = p_data(&[pdv(1, 3, &echo)]);
        let mut heard = Vec::new();
        let (mut pending, mut owed) = (Vec::new(), Vec::new());
        let mut say = |bytes: &[u8], answer: u8| {
            peer.write(bytes).unwrap();
            heard.push((peer.read_pdu().unwrap().0, answer));
        };
        match way {
            "connected" => {}
            "associated" => say(&request, AC),
            "associated, without waiting for the answer" => {
                (pending, owed) = (request, vec![AC]);
            }
            "in the middle of a data set" => {
                say(&request, AC);
                let store = command(1, 8, &image.sop_class, Some(&image.sop_instance));
                let (first, rest) = image.data_set.split_at(1000);
                pending = p_data(&[pdv(3, 3, &store), pdv(3, 0, first)]);
                data = p_data(&[pdv(3, 2, rest)]);
            }
            "rejected" => {
                let mut wrong = request;
                wrong[7] = 0;
                say(&wrong, RJ);
            }
            "released" => {
                say(&request, AC);
                say(&release, RELEASE_RP);
            }
            "released, without waiting for the answer" => {
                say(&request, AC);
                (pending, owed) = (release, vec![RELEASE_RP]);
            }
            "aborted before an association" => say(&release, ABORT),
            "aborted in an association" => {
                say(&request, AC);
                say(&request, ABORT);
            }
            other => panic!("{other}?"),
        }
        for (kind, answer) in heard {
            assert_eq!(kind, answer, "{way}");
        }
        Self {
            peer: Some(peer),
            pending,
            owed,
            data,
        }
    }

    fn cause(&mut self, event: &str) {
        let mut bytes = match event {
            "AC" => pdu(AC, &association_request(&[], &[])[6..]),
            "RJ" => pdu(RJ, &[0, 1, 1, 1]),
            "RQ" => association_request(&[context(1, VERIFICATION, &[EXPLICIT])], &[]),
            "P-DATA" => self.data.clone(),
            // Reserved bytes are not to be tested.
            "RELEASE-RQ" => pdu(RELEASE_RQ, &[9; 4]),
            "RELEASE-RP" => pdu(RELEASE_RP, &[9; 4]),
            "ABORT" => pdu(ABORT, &[9, 9, 0, 0]),
            "closed" => Vec::new(),
            "unknown" => pdu(0x08, b"more than a header"),
            // A release request has four bytes.
            "invalid" => pdu(RELEASE_RQ, &[0; 5]),
            other => panic!("{other}?"),
        };
        if let Some(reserved) = bytes.get_mut(1) {
            *reserved = 0xFF;
        }
        let peer = self.peer.as_mut().unwrap();
        peer.write(&[&self.pending[..], &bytes].concat()).unwrap();
        for kind in self.owed.drain(..) {
            assert_eq!(peer.read_pdu().unwrap().0, kind);
        }
        if event == "closed" {
            self.peer.take().unwrap().vanish();
        }
    }

    fn expect(mut self, action: &str, event: &str) {
        let Some(mut peer) = self.peer.take() else {
            assert!(["AA-4", "AA-5", "AR-5"].contains(&action));
            return;
        };
        let reason = match event {
            "unknown" => 1,
            "invalid" => 6,
            _ => 2,
        };
        let mut heard = || peer.read_pdu().unwrap();
        match action {
            // As the service user, which gives no reason (PS3.8 Table 9-26).
            "AA-1" => assert_eq!(heard(), (ABORT, vec![0, 0, 0, 0])),
            "AA-7" | "AA-8" => assert_eq!(heard(), (ABORT, vec![0, 0, 2, reason])),
            "AR-2" => assert_eq!(heard(), (RELEASE_RP, vec![0; 4])),
            "AE-6" => assert_eq!(heard().0, AC),
            "DT-2" => {
                let (kind, body) = heard();
                assert_eq!(kind, P_DATA);
                assert_eq!(number(&body[6..], 0x0900), Some(0));
            }
            "AA-6" => {}
            "AA-2" | "AA-3" => return expect_end(&mut peer),
            other => panic!("{other}?"),
        }
        // Where this has led to shows by the next event: nothing else was said in between.
        match action {
            "AE-6" | "DT-2" => {
                peer.write(&pdu(RELEASE_RQ, &[0; 4])).unwrap();
                assert_eq!(peer.read_pdu().unwrap().0, RELEASE_RP);
            }
            _ => {
                peer.write(&pdu(RQ, &[0; 80])).unwrap();
                let told_again = peer.read_pdu().unwrap();
                assert_eq!(told_again, (ABORT, vec![0, 0, 2, 2]), "Sta13");
            }
        }
        peer.write(&pdu(ABORT, &[0; 4])).unwrap();
        expect_end(&mut peer);
    }
}

/// The connection is closed and nothing was said before.
#[track_caller]
fn expect_end(peer: &mut RawPeer) {
    let end = peer.read_pdu();
    let kind = end.as_ref().map_err(std::io::Error::kind);
    assert!(
        matches!(
            kind,
            Err(ErrorKind::UnexpectedEof | ErrorKind::ConnectionReset)
        ),
        "{end:?}"
    );
}

#[test]
fn an_abort_in_every_phase_leaves_nothing_behind() {
    let gateway = Gateway::start(&Options::new());
    let study = Study::ct();
    let image = study.image(1);
    let contexts = [context(1, &image.sop_class, &[EXPLICIT])];
    let store = command(1, 1, &image.sop_class, Some(&image.sop_instance));
    let (first, rest) = image.data_set.split_at(3000);
    // The whole conversation in its pieces; each but the last is a place to leave.
    let whole = [
        association_request(&contexts, &[]),
        p_data(&[pdv(1, 1, &store[..20])]),
        p_data(&[pdv(1, 3, &store[20..])]),
        p_data(&[pdv(1, 0, first)]),
        p_data(&[pdv(1, 2, rest)]),
    ];
    let ends: Vec<usize> = whole
        .iter()
        .scan(0, |at, piece| {
            *at += piece.len();
            Some(*at)
        })
        .collect();
    let whole = whole.concat();
    let mut places = vec![0, 3, 6, 40];
    for end in &ends[..4] {
        // Between two PDUs, in a PDU header, in a PDV header, in a fragment.
        places.extend([*end, end + 4, end + 9, end + 15]);
    }
    places.push(whole.len() - 1);
    for place in places {
        for abort in [true, false] {
            let mut peer = RawPeer::connect(gateway.dicom_port).unwrap();
            peer.write(&whole[..place]).unwrap();
            if abort && (place == 0 || ends.contains(&place)) {
                peer.write(&pdu(ABORT, &[0; 4])).unwrap();
                if place > 0 {
                    assert_eq!(peer.read_pdu().unwrap().0, AC);
                }
                expect_end(&mut peer);
            }
            peer.vanish();
        }
    }
    wait_until("end of all associations", SOON, || {
        gateway.metric("associations_active", &[]) == 0.0
    });
    wait_until("nothing in the spool", SOON, || {
        below(&gateway.data_dir()).is_empty()
    });
    let studies = gateway.get("/api/v1/studies");
    assert_eq!(studies["studies"].as_array().unwrap().len(), 0);

    // Before the response, but after the last byte: the instance is whole and may stay.
    let mut peer = RawPeer::connect(gateway.dicom_port).unwrap();
    peer.write(&[&whole[..], &pdu(ABORT, &[0; 4])].concat())
        .unwrap();
    peer.vanish();
    assert_eq!(RawPeer::send(gateway.dicom_port, "CT1", &[&image]), [0]);
    gateway.wait_until_done(&[&study.uid]);
}

#[test]
fn a_peer_that_stays_after_its_abort_holds_no_place() {
    let gateway = Gateway::start(&Options::new().set("dicom.max_associations", 1));
    let image = Study::ct().image(1);
    let mut stayed = Vec::new();
    for last in [pdu(RQ, &[0; 80]), pdu(RELEASE_RQ, &[0; 4])] {
        let mut peer = RawPeer::associate(gateway.dicom_port, "CT1", &[&image]);
        peer.begin_store(&image).unwrap();
        peer.write(&last).unwrap();
        assert!(matches!(peer.next_pdu(), Ok(ABORT | RELEASE_RP)));
        stayed.push(peer);
        wait_until("the place to be free", SOON, || {
            gateway.metric("associations_active", &[]) == 0.0
        });
    }
    assert_eq!(RawPeer::send(gateway.dicom_port, "CT1", &[&image]), [0]);
    drop(stayed);
}

#[test]
fn timers_end_what_goes_on_too_long() {
    let options = Options::new()
        .set("dicom.artim_timeout", "500ms")
        .set("dicom.idle_timeout", "700ms")
        .set("dicom.pdu_timeout", "600ms");
    let gateway = Gateway::start(&options);
    let image = Study::ct().image(1);
    let said_by_us = (ABORT, vec![0, 0, 0, 0]);

    // Sta2: ARTIM expires, the connection is closed without a word (AA-2), half a request or none.
    for bytes in [&[][..], &[RQ, 0, 0, 0, 0, 90, 0, 1]] {
        let mut peer = RawPeer::connect(gateway.dicom_port).unwrap();
        peer.write(bytes).unwrap();
        expect_end(&mut peer);
    }
    // Sta6: the service user gives up (AA-1); then Sta13, where ARTIM expires (AA-2).
    let mut peer = RawPeer::associate(gateway.dicom_port, "CT1", &[&image]);
    assert_eq!(peer.read_pdu().unwrap(), said_by_us, "between messages");
    expect_end(&mut peer);
    let mut peer = RawPeer::associate(gateway.dicom_port, "CT1", &[&image]);
    peer.begin_store(&image).unwrap();
    assert_eq!(peer.read_pdu().unwrap(), said_by_us, "in a message");
    expect_end(&mut peer);
    // Sta13 after a release: data that still arrive do not stop the timer.
    let mut peer = RawPeer::associate(gateway.dicom_port, "CT1", &[&image]);
    peer.write(&pdu(RELEASE_RQ, &[0; 4])).unwrap();
    assert_eq!(peer.read_pdu().unwrap().0, RELEASE_RP);
    wait_until("end of the connection", SOON, || {
        peer.write(&p_data(&[pdv(1, 3, b"late")])).is_err()
    });
}

#[test]
fn draining_is_a_decision_of_the_service_user() {
    let mut gateway = Gateway::start(&Options::new());
    let image = Study::ct().image(1);
    let mut busy = RawPeer::associate(gateway.dicom_port, "CT1", &[&image]);
    let mut idle = RawPeer::associate(gateway.dicom_port, "CT2", &[&image]);
    let mut early = RawPeer::connect(gateway.dicom_port).unwrap();
    busy.begin_store(&image).unwrap();
    wait_until("two associations", SOON, || {
        gateway.metric("associations_active", &[]) == 2.0
    });
    gateway.terminate();
    // Sta6: AA-1.
    assert_eq!(idle.read_pdu().unwrap(), (ABORT, vec![0, 0, 0, 0]));
    // Sta2: whoever asks now is asked to come back.
    let contexts = [context(1, VERIFICATION, &[EXPLICIT])];
    early.write(&association_request(&contexts, &[])).unwrap();
    assert_eq!(early.read_pdu().unwrap(), (RJ, vec![0, 2, 3, 1]));
    // The message in hand is finished.
    busy.continue_store(&image, &image.data_set, true).unwrap();
    assert_eq!(busy.status().unwrap(), 0);
    assert_eq!(busy.read_pdu().unwrap(), (ABORT, vec![0, 0, 0, 0]));
    assert!(gateway.wait(SOON).success());
}
