//! The listener from a connection's first byte to its last, with a real spool: whatever a peer sends
//! in whatever state, the connection ends, every byte we say is a PDU in an order that the standard
//! allows, nothing is stored but data sets that came whole, and nothing half is left behind.
//!
//! An input is a stream of bytes, or the steps of a conversation whose lengths are right. Time passes
//! only where nothing else can happen, so silence costs nothing and a wait without a deadline shows.
#![no_main]

use std::collections::HashSet;
use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;
use std::pin::Pin;
use std::sync::{Arc, LazyLock, Mutex};
use std::task::{Context, Poll};

use libfuzzer_sys::fuzz_target;
use pacs_gateway_fuzz::dicom::Status;
use pacs_gateway_fuzz::dicom::command::{Command, CommandField};
use pacs_gateway_fuzz::durable::database::Database;
use pacs_gateway_fuzz::live::Live;
use pacs_gateway_fuzz::pause::Switch;
use pacs_gateway_fuzz::scp::{Config, Deliveries, Server, Services, UserIdentity};
use pacs_gateway_fuzz::spool::{self, Spool};
use pacs_gateway_fuzz::telemetry::Metrics;
use pacs_gateway_fuzz::telemetry::study_key::StudyKey;
use pacs_gateway_fuzz::units::ByteSize;
use pacs_gateway_fuzz::{Elements, commitment, procedure};
use sha2::{Digest, Sha256};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::runtime::Runtime;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

const CT: &[u8] = b"1.2.840.10008.5.1.4.1.1.2";
const INSTANCE: &[u8] = b"2.25.7";
const IMPLICIT: &[u8] = b"1.2.840.10008.1.2";
const EXPLICIT: &[u8] = b"1.2.840.10008.1.2.1";

struct World {
    runtime: Runtime,
    spool: Arc<Spool>,
    metrics: Arc<Metrics>,
    database: Database,
    study_key: StudyKey,
    dir: tempfile::TempDir,
}

static WORLD: LazyLock<World> = LazyLock::new(|| {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .start_paused(true)
        .build()
        .expect("a runtime");
    // In memory, where syncing costs nothing.
    let dir = tempfile::tempdir_in("/dev/shm")
        .or_else(|_| tempfile::tempdir())
        .expect("a folder");
    let mut config = spool::Config {
        dir: dir.path().to_owned(),
        ..spool::Config::default()
    };
    config.limits.min_free_bytes = ByteSize(0);
    config.limits.min_free_inodes = 0;
    let (spool, _) = Spool::open(config).expect("a spool");
    let schema = [commitment::Store::schema(), procedure::Store::schema()].concat();
    let database = Database::open(&dir.path().join("state.db"), &schema, &[]).expect("a database");
    World {
        runtime,
        spool: Arc::new(spool),
        metrics: Arc::new(Metrics::new().expect("metrics")),
        database,
        study_key: StudyKey::open(Path::new(""), dir.path()).expect("a key"),
        dir,
    }
});

fuzz_target!(|input: &[u8]| {
    let Some((&[choice, pace], rest)) = input.split_first_chunk() else {
        return;
    };
    let mut said = Vec::new();
    let peer_max = if choice & 8 == 0 { 16_384 } else { 64 };
    if choice & 16 != 0 {
        said.extend(request(peer_max));
    }
    if choice & 1 == 0 {
        said.extend_from_slice(rest);
    } else {
        converse(rest, peer_max, &mut said);
    }
    let world = &*WORLD;
    let draining = CancellationToken::new();
    let heard = Arc::default();
    let peer = Peer {
        said: said.clone(),
        at: 0,
        chunk: usize::from(pace) + 1,
        end: End::of(choice),
        draining: draining.clone(),
        heard: Arc::clone(&heard),
    };
    let (wake, mut studies) = mpsc::channel(16);
    let config = Config {
        max_pdu_length: 4096,
        max_instance_bytes: ByteSize(3000),
        user_identity: UserIdentity::Accept,
        ..Config::default()
    };
    let services = Services {
        commitments: Some(commitment::Store::new(world.database.clone())),
        procedures: procedure::Store::new(world.database.clone()),
        desk: Arc::default(),
        deliveries: Arc::new(Deliveries::new(mpsc::channel(1).0)),
        study_key: world.study_key.clone(),
        pause: Switch::new("listener", &world.metrics),
    };
    let (spool, metrics) = (Arc::clone(&world.spool), Arc::clone(&world.metrics));
    let server = Server::new(Live::new(config), spool, metrics, wake, services, draining);
    let address = IpAddr::V4(Ipv4Addr::LOCALHOST);
    world.runtime.block_on(server.serve(address, peer));

    let heard = heard.lock().expect("no panic").clone();
    let known_peer_max = (choice & 16 != 0).then_some(peer_max);
    let stored = check_answers(&heard, known_peer_max);
    let whole = whole_data_sets(&said);
    let entries = world.spool.entries();
    assert!(entries.len() <= stored, "stored without a response");
    assert_eq!(
        entries.is_empty(),
        stored == 0,
        "a response without an instance"
    );
    for entry in &entries {
        assert!(whole.contains(&entry.digest), "stored what was not sent");
    }
    let files = std::fs::read_dir(world.dir.path().join("data")).expect("a folder");
    assert_eq!(files.count(), entries.len(), "half an instance is left");
    assert_eq!(world.metrics.associations_active.get(), 0);
    while studies.try_recv().is_ok() {}
    let ids: Vec<_> = entries.iter().map(|entry| entry.id).collect();
    world.spool.release(&ids).expect("removal");
    drop(world.spool.take_arrivals());
    world.runtime.block_on(forget(&world.database));
});

/// Every PDU of ours is one, in an order the standard allows; gives the instances we called stored.
fn check_answers(mut bytes: &[u8], peer_max: Option<u32>) -> usize {
    let (mut stored, mut established, mut over) = (0, false, false);
    let mut response = Vec::new();
    while let Some((header, rest)) = bytes.split_first_chunk::<6>() {
        let length = u32::from_be_bytes([header[2], header[3], header[4], header[5]]);
        let (body, rest) = rest.split_at(length as usize);
        bytes = rest;
        assert_eq!(header[1], 0);
        match header[0] {
            2 => assert!(!std::mem::replace(&mut established, true) && !over),
            4 => {
                assert!(established && !over);
                assert!(peer_max.is_none_or(|most| length <= most));
                // One value per PDU, a command's.
                let value = u32::from_be_bytes([body[0], body[1], body[2], body[3]]);
                assert_eq!(value + 4, length);
                response.extend_from_slice(&body[6..]);
                match body[5] {
                    1 => {}
                    3 => {
                        let command = Command::decode(&response).expect("a command set");
                        assert!(command.field.is_response() && command.responded_to.is_some());
                        let success = command.status == Some(Status::SUCCESS);
                        let store = command.field == CommandField::C_STORE.response();
                        stored += usize::from(success && store);
                        response.clear();
                    }
                    other => panic!("control header {other}"),
                }
            }
            3 => assert!(!established && !std::mem::replace(&mut over, true)),
            6 => assert!(established && !std::mem::replace(&mut over, true)),
            7 => {
                assert_eq!(length, 4);
                over = true;
            }
            other => panic!("PDU of type {other}"),
        }
    }
    assert!(bytes.is_empty(), "half a PDU");
    assert!(response.is_empty() || over, "half a response");
    stored
}

/// SHA-256 of every data set that came to its last fragment, by a reader that believes everything.
fn whole_data_sets(mut bytes: &[u8]) -> HashSet<[u8; 32]> {
    let (mut whole, mut data_set) = (HashSet::new(), Vec::new());
    while let Some((header, rest)) = bytes.split_first_chunk::<6>() {
        let length = u32::from_be_bytes([header[2], header[3], header[4], header[5]]) as usize;
        let (mut body, rest) = rest.split_at(length.min(rest.len()));
        bytes = rest;
        while header[0] == 4
            && let Some((head, rest)) = body.split_first_chunk::<6>()
        {
            let length = u32::from_be_bytes([head[0], head[1], head[2], head[3]]) as usize;
            let Some((fragment, rest)) = rest.split_at_checked(length.wrapping_sub(2)) else {
                break;
            };
            body = rest;
            if head[5] & 1 == 1 {
                data_set.clear();
            } else {
                data_set.extend_from_slice(fragment);
                if head[5] & 2 == 2 {
                    whole.insert(Sha256::digest(&data_set).into());
                    data_set.clear();
                }
            }
        }
    }
    whole
}

/// Empties the tables, so that the next input finds what this one found.
async fn forget(database: &Database) {
    let empty = |connection: &rusqlite::Connection| {
        let tables: Vec<String> = connection
            .prepare(
                "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite%'",
            )?
            .query_map([], |row| row.get(0))?
            .collect::<Result<_, _>>()?;
        for table in tables {
            connection.execute_batch(&format!("DELETE FROM \"{table}\""))?;
        }
        Ok(())
    };
    database.write(empty).await.expect("a write");
}

fn pdu(kind: u8, body: &[u8]) -> Vec<u8> {
    [&[kind, 0][..], &(body.len() as u32).to_be_bytes(), body].concat()
}

fn item(kind: u8, body: &[u8]) -> Vec<u8> {
    [&[kind, 0][..], &(body.len() as u16).to_be_bytes(), body].concat()
}

fn request(peer_max: u32) -> Vec<u8> {
    let mut body = vec![0, 1, 0, 0];
    body.extend(b"PACSGATEWAY     CT1             ");
    body.resize(68, 0);
    body.extend(item(0x10, b"1.2.840.10008.3.1.1.1"));
    let classes: [&[u8]; 6] = [
        b"1.2.840.10008.1.1",
        CT,
        b"1.2.840.10008.1.20.1",
        b"1.2.840.10008.3.1.2.3.3",
        b"1.2.826.0.1.3680043.8.498.5.1",
        b"1.2.840.10008.5.1.4.1.2.2.1",
    ];
    for (index, class) in classes.into_iter().enumerate() {
        let syntax = if class == CT { EXPLICIT } else { IMPLICIT };
        let fields = [
            &[2 * index as u8 + 1, 0, 0, 0][..],
            &item(0x30, class),
            &item(0x40, syntax),
        ];
        body.extend(item(0x20, &fields.concat()));
    }
    let user = [
        item(0x51, &peer_max.to_be_bytes()),
        item(0x53, &[0, 0, 0, 0]),
    ];
    body.extend(item(0x50, &user.concat()));
    pdu(1, &body)
}

/// Steps of a conversation, three bytes and what they ask for each.
fn converse(mut steps: &[u8], peer_max: u32, said: &mut Vec<u8>) {
    let data_set = data_set();
    while let Some((&[step, a, b], rest)) = steps.split_first_chunk() {
        steps = rest;
        let context = [1, 3, 5, 7, 9, 11, 3, 3][usize::from(a & 7)];
        let mut take = |count: u8| {
            let (taken, rest) = steps.split_at(usize::from(count).min(steps.len()));
            steps = rest;
            taken
        };
        match step % 14 {
            0 => said.extend_from_slice(take(a)),
            1 => said.extend(fragments(
                context,
                &command(0x0030, b, a & 8 != 0),
                3,
                a >> 4,
            )),
            2 => said.extend(fragments(
                context,
                &command(0x0001, b, a & 8 == 0),
                3,
                a >> 4,
            )),
            // A data set that fits the command, in pieces, perhaps without its end.
            3 => {
                let whole = fragments(context, &data_set, 2, b);
                let kept = if a & 8 == 0 {
                    whole.len()
                } else {
                    usize::from(b) * 2
                };
                said.extend_from_slice(&whole[..kept.min(whole.len())]);
            }
            4 => said.extend(pdu(5, &[a, b, 0, 0])),
            5 => said.extend(pdu(7, &[0, 0, a, b])),
            6 => said.extend(request(peer_max)),
            7 => {
                let fields = [
                    0x0FFF, 0x0020, 0x0021, 0x0010, 0x0100, 0x0110, 0x0150, 0x8001,
                ];
                let field = fields[usize::from(b & 7)];
                said.extend(fragments(
                    context,
                    &command(field, b, a & 8 != 0),
                    3,
                    a >> 4,
                ));
            }
            8 => {
                let field = [0x0130, 0x0140, 0x0120][usize::from(b) % 3];
                said.extend(fragments(context, &command(field, b, true), 3, a >> 4));
            }
            9 => said.extend(fragments(context, take(b), 2, a >> 4)),
            10 => said.extend(fragments(context, take(b), 3, a >> 4)),
            11 => said.extend(pdu(4, &value(a, b, take(a ^ b)))),
            // Two values in one PDU.
            12 => {
                let first = value(context, 3, &command(0x0001, b, true));
                said.extend(pdu(4, &[first, value(context, 2, &data_set)].concat()));
            }
            _ => said.extend([a, 0, 0, 0, b, a]),
        }
    }
}

fn value(context: u8, control: u8, fragment: &[u8]) -> Vec<u8> {
    let length = (fragment.len() as u32 + 2).to_be_bytes();
    [&length[..], &[context, control], fragment].concat()
}

/// PDUs with a fragment each, of about `size` times sixteen bytes; with an empty last one for an odd
/// size.
fn fragments(context: u8, bytes: &[u8], last: u8, size: u8) -> Vec<u8> {
    let length = if size == 0 {
        4000
    } else {
        usize::from(size) * 16
    };
    let mut pieces: Vec<&[u8]> = bytes.chunks(length).collect();
    if size % 2 == 1 || pieces.is_empty() {
        pieces.push(&[]);
    }
    let end = pieces.len() - 1;
    let pieces = pieces.into_iter().enumerate();
    let pdus = pieces.map(|(index, piece)| {
        let control = if index == end { last } else { last & 1 };
        pdu(4, &value(context, control, piece))
    });
    pdus.collect::<Vec<_>>().concat()
}

fn command(field: u16, id: u8, has_data_set: bool) -> Vec<u8> {
    let text = |uid: &[u8]| Some(String::from_utf8_lossy(uid).into_owned());
    Command {
        message_id: Some(id.into()),
        affected_sop_class: text(CT),
        affected_sop_instance: text(INSTANCE),
        requested_sop_class: text(b"1.2.840.10008.1.20.1"),
        requested_sop_instance: text(b"1.2.840.10008.1.20.1.1"),
        action_type: Some(1),
        data_set_type: if has_data_set { 1 } else { 0x0101 },
        ..Command::new(CommandField(field))
    }
    .encode()
}

fn data_set() -> Vec<u8> {
    let mut elements = Elements::default();
    elements
        .put((0x0008, 0x0016), b"UI", CT)
        .put((0x0008, 0x0018), b"UI", INSTANCE)
        .put((0x0020, 0x000D), b"UI", b"2.25.8")
        .put((0x7FE0, 0x0010), b"OW", &[7; 300]);
    elements.bytes().to_vec()
}

/// What a peer does after its last byte.
#[derive(Clone, Copy, PartialEq)]
enum End {
    Close,
    Silence,
    Reset,
    /// We are told to drain when it has said half, and it falls silent.
    Drain,
}

impl End {
    fn of(choice: u8) -> Self {
        [Self::Close, Self::Silence, Self::Reset, Self::Drain][usize::from(choice >> 1 & 3)]
    }
}

/// Sends at most `chunk` bytes at a time and remembers what it hears.
struct Peer {
    said: Vec<u8>,
    at: usize,
    chunk: usize,
    end: End,
    draining: CancellationToken,
    heard: Arc<Mutex<Vec<u8>>>,
}

impl AsyncRead for Peer {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        out: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let rest = &self.said[self.at..];
        if rest.is_empty() {
            return match self.end {
                End::Close => Poll::Ready(Ok(())),
                End::Silence | End::Drain => Poll::Pending,
                End::Reset => Poll::Ready(Err(io::ErrorKind::ConnectionReset.into())),
            };
        }
        let count = self.chunk.min(out.remaining()).min(rest.len());
        out.put_slice(&rest[..count]);
        self.at += count;
        if self.end == End::Drain && self.at > self.said.len() / 2 {
            self.draining.cancel();
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Peer {
    fn poll_write(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.heard
            .lock()
            .expect("no panic")
            .extend_from_slice(bytes);
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
