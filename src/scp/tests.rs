//! Associations over a pipe, with a real spool: how a message is packed, cut and timed changes nothing.

#![allow(clippy::unwrap_used)]

use std::net::Ipv4Addr;
use std::path::Path;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

use super::*;
use crate::commitment::Store as Commitments;
use crate::dicom::command::{Command, CommandField, MAX_COMMAND_LENGTH};
use crate::dicom::{SopInstanceUid, Status};
use crate::durable::database::Database;
use crate::procedure::Store as Procedures;
use crate::spool;

const CT: &str = "1.2.840.10008.5.1.4.1.1.2";
const VERIFICATION: &str = "1.2.840.10008.1.1";
const MAX_PDU_LENGTH: u32 = 4096;

/// Presentation contexts of every association here.
const ECHO: u8 = 1;
const STORE: u8 = 3;
const STORE_TOO: u8 = 5;
const COMMITMENT: u8 = 7;
const STEP: u8 = 9;

struct World {
    server: Server,
    spool: Arc<Spool>,
    metrics: Arc<Metrics>,
    dir: tempfile::TempDir,
}

impl World {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut config = spool::Config {
            dir: dir.path().to_owned(),
            ..spool::Config::default()
        };
        config.limits.min_free_bytes = crate::units::ByteSize(0);
        config.limits.min_free_inodes = 0;
        let (spool, _) = Spool::open(config).unwrap();
        let schema = [Commitments::schema(), Procedures::schema()].concat();
        let database = Database::open(&dir.path().join("state.db"), &schema, &[]).unwrap();
        let metrics = Metrics::new().unwrap();
        let services = Services {
            commitments: Some(Commitments::new(database.clone())),
            procedures: Procedures::new(database),
            desk: Arc::default(),
            deliveries: Arc::new(Deliveries::new(mpsc::channel(1).0)),
            study_key: StudyKey::open(Path::new(""), dir.path()).unwrap(),
            pause: Switch::new("listener", &metrics),
        };
        let (spool, metrics) = (Arc::new(spool), Arc::new(metrics));
        let config = Config {
            max_pdu_length: MAX_PDU_LENGTH,
            ..Config::default()
        };
        let (wake, _) = mpsc::channel(1);
        let server = Server::new(
            Live::new(config),
            Arc::clone(&spool),
            Arc::clone(&metrics),
            wake,
            services,
            CancellationToken::new(),
        );
        Self {
            server,
            spool,
            metrics,
            dir,
        }
    }

    /// Sends these pieces one after the other and closes; gives what we answered, by PDU.
    async fn talk(&self, pieces: &[&[u8]]) -> Vec<(u8, Vec<u8>)> {
        let (ours, mut peers) = duplex(1 << 20);
        let serving = self.server.serve(Ipv4Addr::LOCALHOST.into(), ours);
        let talking = async move {
            for piece in pieces {
                if peers.write_all(piece).await.is_err() {
                    break;
                }
                // The other side gets its turn, and reads this piece alone.
                tokio::task::yield_now().await;
            }
            peers.shutdown().await.unwrap();
            let mut heard = Vec::new();
            peers.read_to_end(&mut heard).await.unwrap();
            heard
        };
        let ((), heard) = tokio::join!(serving, talking);
        assert_eq!(self.metrics.associations_active.get(), 0);
        let files = std::fs::read_dir(self.dir.path().join("data")).unwrap();
        assert_eq!(
            files.count(),
            self.spool.entries().len(),
            "half an instance"
        );
        let mut rest = heard.as_slice();
        let mut pdus = Vec::new();
        while let Some((header, body)) = rest.split_first_chunk::<6>() {
            let length = u32::from_be_bytes(header[2..].try_into().unwrap()) as usize;
            pdus.push((header[0], body[..length].to_vec()));
            rest = &body[length..];
        }
        assert!(rest.is_empty());
        pdus
    }

    /// Associates, sends the bytes at once, and gives the PDUs after the acceptance.
    async fn say(&self, bytes: &[u8]) -> Vec<(u8, Vec<u8>)> {
        let mut heard = self.talk(&[&request(&[]), bytes]).await;
        assert_eq!(heard.remove(0).0, 2);
        heard
    }

    fn forget(&self) {
        let ids: Vec<_> = self.spool.entries().iter().map(|entry| entry.id).collect();
        self.spool.release(&ids).unwrap();
    }
}

fn pdu(kind: u8, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(body.len()).unwrap().to_be_bytes();
    [&[kind, 0][..], &length, body].concat()
}

fn pdv(context: u8, control: u8, fragment: &[u8]) -> Vec<u8> {
    let length = u32::try_from(fragment.len() + 2).unwrap().to_be_bytes();
    [&length[..], &[context, control], fragment].concat()
}

fn p_data(values: &[Vec<u8>]) -> Vec<u8> {
    pdu(4, &values.concat())
}

fn item(kind: u8, body: &[u8]) -> Vec<u8> {
    let length = u16::try_from(body.len()).unwrap().to_be_bytes();
    [&[kind, 0][..], &length, body].concat()
}

/// An association request with these items behind those it needs.
fn request(more: &[Vec<u8>]) -> Vec<u8> {
    let mut body = vec![0, 1, 0, 0];
    body.extend(b"PACSGATEWAY     CT1             ");
    body.resize(68, 0);
    body.extend(item(0x10, b"1.2.840.10008.3.1.1.1"));
    for (id, class) in [
        (ECHO, VERIFICATION),
        (STORE, CT),
        (STORE_TOO, CT),
        (COMMITMENT, crate::dicom::STORAGE_COMMITMENT),
        (STEP, crate::dicom::PROCEDURE_STEP),
    ] {
        let syntax = item(0x40, b"1.2.840.10008.1.2.1");
        let fields = [&[id, 0, 0, 0][..], &item(0x30, class.as_bytes()), &syntax];
        body.extend(item(0x20, &fields.concat()));
    }
    let user = [item(0x51, &[0, 0, 0x40, 0]), item(0x53, &[0, 9, 0, 9])];
    body.extend(item(0x50, &user.concat()));
    body.extend(more.concat());
    pdu(1, &body)
}

fn command(field: CommandField, id: u16, has_data_set: bool) -> Vec<u8> {
    Command {
        message_id: Some(id),
        affected_sop_class: Some(CT.to_owned()),
        affected_sop_instance: Some(format!("2.25.{id}")),
        data_set_type: if has_data_set { 1 } else { 0x0101 },
        ..Command::new(field)
    }
    .encode()
}

fn data_set(id: u16, pixels: usize) -> Vec<u8> {
    let mut out = Vec::new();
    for (group, element, value) in [
        (8_u16, 0x16_u16, CT.to_owned()),
        (8, 0x18, format!("2.25.{id}")),
        (0x20, 0x0D, "2.25.200".to_owned()),
    ] {
        let mut value = value.into_bytes();
        value.resize(value.len().next_multiple_of(2), 0);
        out.extend([group.to_le_bytes(), element.to_le_bytes()].concat());
        out.extend(b"UI");
        out.extend(u16::try_from(value.len()).unwrap().to_le_bytes());
        out.extend(value);
    }
    out.extend(b"\xE0\x7F\x10\x00OW\0\0");
    out.extend(u32::try_from(pixels).unwrap().to_le_bytes());
    out.extend((0..pixels).map(|at| (at % 251) as u8));
    out
}

/// A whole C-STORE, one fragment each for command and data set.
fn store(id: u16) -> Vec<u8> {
    let command = pdv(STORE, 3, &command(CommandField::C_STORE, id, true));
    [
        p_data(&[command]),
        p_data(&[pdv(STORE, 2, &data_set(id, 100))]),
    ]
    .concat()
}

/// The response in a P-DATA-TF with one fragment: context, and what is responded to.
fn response((kind, body): &(u8, Vec<u8>)) -> (u8, Command) {
    assert_eq!((*kind, body[5]), (4, 3), "{body:02X?}");
    (body[4], Command::decode(&body[6..]).unwrap())
}

/// Message ID and status of each response.
fn answers(heard: &[(u8, Vec<u8>)]) -> Vec<(u16, u16)> {
    let answer = |pdu| {
        let (_, command) = response(pdu);
        (command.responded_to.unwrap(), command.status.unwrap().0)
    };
    heard.iter().map(answer).collect()
}

fn abort(source: u8, reason: u8) -> (u8, Vec<u8>) {
    (7, vec![0, 0, source, reason])
}

#[tokio::test]
async fn every_packing_of_a_message_is_the_same_message() {
    let world = World::new();
    let (command, data) = (command(CommandField::C_STORE, 7, true), data_set(7, 100));
    let one_byte = |control: u8, bytes: &[u8]| -> Vec<Vec<u8>> {
        let last = bytes.len() - 1;
        let bytes = bytes.iter().enumerate();
        bytes
            .map(|(at, byte)| {
                pdv(
                    STORE,
                    if at == last { control } else { control & 1 },
                    &[*byte],
                )
            })
            .collect()
    };
    let each = |values: Vec<Vec<u8>>| -> Vec<u8> {
        values
            .into_iter()
            .flat_map(|value| p_data(&[value]))
            .collect()
    };
    let (head, tail) = command.split_at(33);
    let (first, rest) = data.split_at(51);
    let packings: Vec<(&str, Vec<u8>)> = vec![
        (
            "command and data set in one PDU",
            p_data(&[pdv(STORE, 3, &command), pdv(STORE, 2, &data)]),
        ),
        (
            "several values of each in one PDU, of odd lengths",
            p_data(&[
                pdv(STORE, 1, head),
                pdv(STORE, 3, tail),
                pdv(STORE, 0, first),
                pdv(STORE, 2, rest),
            ]),
        ),
        (
            "the end of the command and the start of the data set in one PDU",
            [
                p_data(&[pdv(STORE, 1, head)]),
                p_data(&[pdv(STORE, 3, tail), pdv(STORE, 0, first)]),
                p_data(&[pdv(STORE, 2, rest)]),
            ]
            .concat(),
        ),
        (
            "fragments of one byte, each in a PDU",
            [each(one_byte(3, &command)), each(one_byte(2, &data))].concat(),
        ),
        (
            "fragments of one byte, all in one PDU",
            [p_data(&one_byte(3, &command)), p_data(&one_byte(2, &data))].concat(),
        ),
        (
            "empty fragments in front, between and at the end",
            [
                p_data(&[
                    pdv(STORE, 1, &[]),
                    pdv(STORE, 1, &command),
                    pdv(STORE, 3, &[]),
                ]),
                p_data(&[pdv(STORE, 0, &[])]),
                p_data(&[
                    pdv(STORE, 0, first),
                    pdv(STORE, 0, &[]),
                    pdv(STORE, 0, rest),
                ]),
                p_data(&[pdv(STORE, 2, &[])]),
            ]
            .concat(),
        ),
    ];
    for (name, bytes) in packings {
        let heard = world.say(&[bytes, pdu(5, &[0; 4])].concat()).await;
        assert_eq!(answers(&heard[..1]), [(7, 0)], "{name}");
        assert_eq!(heard[1..], [(6, vec![0; 4])], "{name}");
        let entries = world.spool.entries();
        assert_eq!(entries.len(), 1, "{name}");
        let file = std::fs::read(world.spool.path(entries[0].id)).unwrap();
        assert!(file.ends_with(&data), "{name}");
        world.forget();
    }
}

#[tokio::test]
async fn a_cut_at_any_byte_and_random_packings_change_nothing() {
    let world = World::new();
    let whole = [request(&[]), store(7), pdu(5, &[0; 4])].concat();
    let wanted = world.talk(&[&whole]).await;
    assert_eq!(answers(&wanted[1..2]), [(7, 0)]);
    for at in 1..whole.len() {
        let (first, rest) = whole.split_at(at);
        assert_eq!(world.talk(&[first, rest]).await, wanted, "cut at {at}");
        assert_eq!(world.spool.entries().len(), 1);
    }
    let bytes: Vec<&[u8]> = whole.chunks(1).collect();
    assert_eq!(world.talk(&bytes).await, wanted);

    let seed = rand::random();
    println!("seed {seed}");
    let mut random = StdRng::seed_from_u64(seed);
    for _ in 0..200 {
        let mut bytes = request(&[]);
        // Values of random lengths, in PDUs of random numbers of them.
        let mut values = Vec::new();
        for (control, part) in [
            (3, command(CommandField::C_STORE, 7, true)),
            (2, data_set(7, 100)),
        ] {
            let mut rest = part.as_slice();
            while !rest.is_empty() {
                let (now, later) = rest.split_at(random.random_range(0..=rest.len().min(90)));
                rest = later;
                let end = rest.is_empty() && random.random();
                values.push(pdv(STORE, if end { control } else { control & 1 }, now));
                if rest.is_empty() && !end {
                    values.push(pdv(STORE, control, &[]));
                }
            }
        }
        let mut rest = values.as_slice();
        while !rest.is_empty() {
            let (now, later) = rest.split_at(random.random_range(1..=rest.len()));
            rest = later;
            bytes.extend(p_data(now));
        }
        bytes.extend(pdu(5, &[0; 4]));
        let mut pieces = Vec::new();
        let mut rest = bytes.as_slice();
        while !rest.is_empty() {
            let (now, later) = rest.split_at(random.random_range(1..=rest.len()));
            rest = later;
            pieces.push(now);
        }
        assert_eq!(world.talk(&pieces).await, wanted, "seed {seed}");
        assert_eq!(world.spool.entries().len(), 1, "seed {seed}");
    }
}

#[tokio::test]
async fn what_is_sent_ahead_is_answered_in_order_when_it_is_durable() {
    let world = World::new();
    let ahead: Vec<u8> = (1..=20).flat_map(store).collect();
    let mut heard = world.talk(&[&request(&[]), &ahead, &pdu(5, &[0; 4])]).await;
    let (_, accepted) = heard.remove(0);
    let window = item(0x53, &[0, 9, 0, 1]);
    assert!(accepted.windows(8).any(|some| some == window));
    assert_eq!(heard.pop().unwrap().0, 6);
    let wanted: Vec<_> = (1..=20).map(|id| (id, 0)).collect();
    assert_eq!(answers(&heard), wanted);
    for id in 1..=20 {
        let uid = SopInstanceUid::parse(&format!("2.25.{id}")).unwrap();
        assert!(world.spool.instance(&uid).is_some());
    }
    // A Message ID is free again once its operation is done, which it is before the next is read.
    let twice = [store(3), store(3)].concat();
    assert_eq!(answers(&world.say(&twice).await), [(3, 0), (3, 0)]);
}

#[tokio::test]
async fn values_of_two_contexts_in_one_message_end_the_association() {
    let world = World::new();
    let (command, data) = (command(CommandField::C_STORE, 7, true), data_set(7, 100));
    let (head, tail) = command.split_at(20);
    let (first, rest) = data.split_at(20);
    for values in [
        vec![pdv(STORE, 1, head), pdv(STORE_TOO, 3, tail)],
        vec![pdv(STORE, 3, &command), pdv(STORE_TOO, 2, &data)],
        vec![
            pdv(STORE, 3, &command),
            pdv(STORE, 0, first),
            pdv(STORE_TOO, 2, rest),
        ],
        vec![pdv(2, 3, &command)],
        vec![pdv(11, 3, &command)],
    ] {
        assert_eq!(world.say(&p_data(&values)).await, [abort(2, 6)]);
        assert!(world.spool.entries().is_empty());
    }
    // Two messages at once, one on each.
    let values = [
        pdv(STORE, 3, &command),
        pdv(STORE, 0, first),
        pdv(STORE_TOO, 3, &command),
    ];
    assert_eq!(world.say(&p_data(&values)).await, [abort(2, 2)]);
    assert!(world.spool.entries().is_empty());
}

#[tokio::test]
async fn a_cancel_is_read_and_never_answered() {
    let world = World::new();
    let cancel = Command {
        responded_to: Some(1),
        ..Command::new(CommandField::C_CANCEL)
    };
    for context in [ECHO, STORE, COMMITMENT, STEP] {
        let cancel = p_data(&[pdv(context, 3, &cancel.encode())]);
        let around = [&cancel[..], &store(1), &cancel, &cancel, &store(2), &cancel].concat();
        assert_eq!(answers(&world.say(&around).await), [(1, 0), (2, 0)]);
    }
    world.forget();
    // Where a data set is to come it has no place.
    for value in [
        pdv(STORE, 3, &command(CommandField::C_STORE, 1, true)),
        pdv(STORE, 0, b"start"),
    ] {
        let begun = pdv(STORE, 3, &command(CommandField::C_STORE, 1, true));
        let bytes = p_data(&[begun, value, pdv(STORE, 3, &cancel.encode())]);
        assert_eq!(world.say(&bytes).await, [abort(2, 2)]);
        assert!(world.spool.entries().is_empty());
    }
}

#[tokio::test]
async fn what_a_context_does_not_know_is_refused_and_the_association_lives_on() {
    let world = World::new();
    let unrecognized = Status::UNRECOGNIZED_OPERATION.0;
    let other_class = Status::SOP_CLASS_NOT_SUPPORTED.0;
    let [find, get, delete] = [0x0020, 0x0010, 0x0150].map(CommandField);
    let (get_attributes, c_move) = (CommandField(0x0110), CommandField(0x0021));
    for (context, field, status) in [
        (STORE, find, unrecognized),
        (STORE, get, unrecognized),
        (STORE, c_move, unrecognized),
        (STORE, CommandField::N_ACTION, unrecognized),
        (STORE, CommandField::N_CREATE, unrecognized),
        (STORE, CommandField::N_SET, unrecognized),
        (STORE, CommandField::N_EVENT_REPORT, unrecognized),
        (STORE, get_attributes, unrecognized),
        (STORE, delete, unrecognized),
        (ECHO, CommandField::C_STORE, other_class),
        (ECHO, CommandField::N_ACTION, unrecognized),
        (COMMITMENT, CommandField::C_STORE, other_class),
        (COMMITMENT, CommandField::N_CREATE, unrecognized),
        (COMMITMENT, find, unrecognized),
        (STEP, CommandField::C_STORE, other_class),
        (STEP, CommandField::N_ACTION, unrecognized),
        (STEP, get_attributes, unrecognized),
    ] {
        for has_data_set in [false, true] {
            let mut values = vec![pdv(context, 3, &command(field, 5, has_data_set))];
            if has_data_set {
                values.push(pdv(context, 2, &data_set(5, 100)));
            }
            let bytes = [p_data(&values), store(6), pdu(5, &[0; 4])].concat();
            let heard = world.say(&bytes).await;
            assert_eq!(answers(&heard[..2]), [(5, status), (6, 0)], "{field:?}");
            let (answered_on, answer) = response(&heard[0]);
            assert_eq!((answered_on, answer.field), (context, field.response()));
            assert_eq!(world.spool.entries().len(), 1);
        }
    }
    // What has no response cannot be refused.
    for field in [0x0000, 0x0002, 0x8001, 0xFFFF].map(CommandField) {
        let bytes = p_data(&[pdv(STORE, 3, &command(field, 5, false))]);
        assert_eq!(world.say(&bytes).await, [abort(2, 2)], "{field:?}");
    }
}

#[tokio::test]
async fn lengths_are_taken_up_to_their_limit_and_not_beyond() {
    let world = World::new();
    let most = usize::try_from(MAX_PDU_LENGTH).unwrap();
    let begin = p_data(&[pdv(STORE, 3, &command(CommandField::C_STORE, 1, true))]);
    let with_pdu_of = |length: usize| {
        let data = data_set(1, 2 * most);
        let (first, rest) = data.split_at(length - 6);
        let (second, rest) = rest.split_at(most - 6);
        let values = [
            pdv(STORE, 0, first),
            pdv(STORE, 0, second),
            pdv(STORE, 2, rest),
        ];
        let pdus: Vec<_> = values.into_iter().map(|value| p_data(&[value])).collect();
        [&begin[..], &pdus.concat()].concat()
    };
    assert_eq!(answers(&world.say(&with_pdu_of(most)).await), [(1, 0)]);
    world.forget();
    assert_eq!(world.say(&with_pdu_of(most + 1)).await, [abort(2, 6)]);

    // A value that says one byte more than its PDU has.
    for (more, wanted) in [(0, (4, Vec::new())), (1, abort(2, 6))] {
        let mut value = pdv(ECHO, 3, &command(CommandField::C_ECHO, 1, false));
        value[3] += more;
        let heard = world.say(&p_data(&[value])).await;
        assert_eq!(heard[0].0, wanted.0);
        if more > 0 {
            assert_eq!(heard, [wanted]);
        }
    }

    // A command set in as many fragments as it takes, filled up with an element that says nothing.
    let echo_of = |length: usize| {
        let echo = command(CommandField::C_ECHO, 1, false);
        let filling = u32::try_from(length - echo.len() - 8).unwrap();
        let mut bytes = [&echo[..], &[0, 0, 0xFF, 0xFF], &filling.to_le_bytes()].concat();
        bytes.resize(length, 0);
        let pieces: Vec<_> = bytes.chunks(most - 6).collect();
        let last = pieces.len() - 1;
        let pieces = pieces.into_iter().enumerate();
        let pdus =
            pieces.map(|(at, piece)| p_data(&[pdv(ECHO, if at == last { 3 } else { 1 }, piece)]));
        pdus.collect::<Vec<_>>().concat()
    };
    assert_eq!(
        answers(&world.say(&echo_of(MAX_COMMAND_LENGTH)).await),
        [(1, 0)]
    );
    assert_eq!(
        world.say(&echo_of(MAX_COMMAND_LENGTH + 1)).await,
        [abort(2, 6)]
    );

    // An association request, filled up with items that nobody knows.
    let short = request(&[]).len() - 6;
    let of_length = |length: usize| {
        let mut missing = length - short;
        let mut more = Vec::new();
        while missing > 0 {
            let now = missing.min(60_000);
            more.push(item(0x99, &vec![0; now - 4]));
            missing -= now;
        }
        request(&more)
    };
    let asked = world.talk(&[&of_length(1 << 20), &pdu(5, &[0; 4])]).await;
    assert_eq!(asked.iter().map(|pdu| pdu.0).collect::<Vec<_>>(), [2, 6]);
    assert_eq!(
        world.talk(&[&of_length((1 << 20) + 1)]).await,
        [abort(0, 0)]
    );
}
