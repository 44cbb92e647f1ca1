//! A DICOM peer made of bytes: it stops, lies and goes away where no library would.

use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::time::Duration;

use super::datasets::{EXPLICIT, Instance};

const APPLICATION_CONTEXT: &str = "1.2.840.10008.3.1.1.1";
const VERIFICATION: &str = "1.2.840.10008.1.1";
/// Below every maximum that the gateway may offer by default.
const FRAGMENT: usize = 100_000;

/// The answer to an association request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    /// A-ASSOCIATE-AC.
    Accepted,
    /// A-ASSOCIATE-RJ with result, source and reason (PS3.8 Table 9-21).
    Rejected(u8, u8, u8),
    /// A-ABORT, or the connection was closed.
    Gone,
}

/// A connection.
pub struct RawPeer {
    stream: TcpStream,
    contexts: Vec<(String, String)>,
    message_id: u16,
}

impl RawPeer {
    /// Connects, and says nothing yet.
    pub fn connect(port: u16) -> io::Result<Self> {
        let stream = TcpStream::connect(("127.0.0.1", port))?;
        stream.set_read_timeout(Some(Duration::from_secs(30)))?;
        stream.set_nodelay(true)?;
        Ok(Self {
            stream,
            contexts: Vec::new(),
            message_id: 0,
        })
    }

    /// Connects and asks for an association with a context for each SOP class and transfer syntax of
    /// these instances, and one for C-ECHO.
    pub fn request(
        port: u16,
        calling: &str,
        instances: &[&Instance],
    ) -> io::Result<(Self, Answer)> {
        Self::connect(port)?.ask(calling, instances)
    }

    /// [`RawPeer::request`] on a connection that has said nothing yet.
    pub fn ask(mut self, calling: &str, instances: &[&Instance]) -> io::Result<(Self, Answer)> {
        let mut contexts = vec![(VERIFICATION.to_owned(), EXPLICIT.to_owned())];
        for instance in instances {
            let context = (instance.sop_class.clone(), instance.transfer_syntax.clone());
            if !contexts.contains(&context) {
                contexts.push(context);
            }
        }
        self.contexts = contexts;
        let request = self.association_request(calling);
        self.write(&request)?;
        let answer = match self.read_pdu() {
            Ok((0x02, _)) => Answer::Accepted,
            Ok((0x03, body)) => Answer::Rejected(body[1], body[2], body[3]),
            _ => Answer::Gone,
        };
        Ok((self, answer))
    }

    /// [`RawPeer::request`] where an association is expected.
    #[track_caller]
    pub fn associate(port: u16, calling: &str, instances: &[&Instance]) -> Self {
        let (peer, answer) = Self::request(port, calling, instances).unwrap();
        assert_eq!(answer, Answer::Accepted);
        peer
    }

    /// Associates, stores, releases. Gives the statuses.
    #[track_caller]
    pub fn send(port: u16, calling: &str, instances: &[&Instance]) -> Vec<u16> {
        let mut peer = Self::associate(port, calling, instances);
        let statuses = instances
            .iter()
            .map(|instance| peer.store(instance))
            .collect();
        peer.release();
        statuses
    }

    /// One C-STORE; gives its status.
    #[track_caller]
    pub fn store(&mut self, instance: &Instance) -> u16 {
        self.begin_store(instance).unwrap();
        self.continue_store(instance, &instance.data_set, true)
            .unwrap();
        self.status().unwrap()
    }

    /// One C-ECHO; gives its status.
    pub fn echo(&mut self) -> io::Result<u16> {
        let command = self.command(0x0030, VERIFICATION, None);
        self.write_pdv(1, 0x03, &command)?;
        self.status()
    }

    /// The command of a C-STORE, without its data set.
    pub fn begin_store(&mut self, instance: &Instance) -> io::Result<()> {
        let command = self.command(0x0001, &instance.sop_class, Some(&instance.sop_instance));
        self.write_pdv(self.context(instance), 0x03, &command)
    }

    /// A piece of the data set.
    pub fn continue_store(
        &mut self,
        instance: &Instance,
        bytes: &[u8],
        last: bool,
    ) -> io::Result<()> {
        let context = self.context(instance);
        let mut pieces = bytes.chunks(FRAGMENT).peekable();
        while let Some(piece) = pieces.next() {
            let is_last = last && pieces.peek().is_none();
            self.write_pdv(context, if is_last { 0x02 } else { 0x00 }, piece)?;
        }
        Ok(())
    }

    /// Waits for a response and gives its Status (0000,0900).
    pub fn status(&mut self) -> io::Result<u16> {
        let (kind, body) = self.read_pdu()?;
        if kind != 0x04 {
            return Err(io::Error::other(format!(
                "PDU of type {kind:02X}H, not a response"
            )));
        }
        let mut rest = &body[6..];
        while rest.len() >= 8 {
            let length = u32::from_le_bytes(rest[4..8].try_into().unwrap()) as usize;
            if rest[..4] == [0x00, 0x00, 0x00, 0x09] {
                return Ok(u16::from_le_bytes([rest[8], rest[9]]));
            }
            rest = &rest[8 + length..];
        }
        Err(io::Error::other("a response without status"))
    }

    /// [`RawPeer::store`] where the connection may break.
    pub fn try_store(&mut self, instance: &Instance) -> io::Result<u16> {
        self.begin_store(instance)?;
        self.continue_store(instance, &instance.data_set, true)?;
        self.status()
    }

    /// A-RELEASE-RQ, and waits for the answer.
    #[track_caller]
    pub fn release(self) {
        assert_eq!(self.try_release().unwrap(), 0x06);
    }

    /// [`RawPeer::release`] where the connection may break; gives the type of the answer.
    pub fn try_release(mut self) -> io::Result<u8> {
        self.write(&[0x05, 0, 0, 0, 0, 4, 0, 0, 0, 0])?;
        self.next_pdu()
    }

    /// How long it waits for the gateway from now on, in either direction.
    pub fn patience(&self, longest: Duration) -> io::Result<()> {
        self.stream.set_read_timeout(Some(longest))?;
        self.stream.set_write_timeout(Some(longest))
    }

    /// Goes away without a word.
    pub fn vanish(self) {
        let _ = self.stream.shutdown(Shutdown::Both);
    }

    /// The type of the next PDU; an error when the connection is closed instead.
    pub fn next_pdu(&mut self) -> io::Result<u8> {
        Ok(self.read_pdu()?.0)
    }

    /// Any bytes.
    pub fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes)
    }

    fn context(&self, instance: &Instance) -> u8 {
        let wanted = (instance.sop_class.clone(), instance.transfer_syntax.clone());
        let index = self.contexts.iter().position(|context| *context == wanted);
        u8::try_from(2 * index.unwrap() + 1).unwrap()
    }

    /// A command set in implicit VR little endian (PS3.7 §6.3.1).
    fn command(&mut self, field: u16, sop_class: &str, sop_instance: Option<&str>) -> Vec<u8> {
        self.message_id += 1;
        let mut body = Vec::new();
        let mut element = |number: u16, value: &[u8]| {
            body.extend([0, 0]);
            body.extend(number.to_le_bytes());
            body.extend(u32::try_from(value.len()).unwrap().to_le_bytes());
            body.extend(value);
        };
        element(0x0002, &padded(sop_class));
        element(0x0100, &field.to_le_bytes());
        element(0x0110, &self.message_id.to_le_bytes());
        match sop_instance {
            Some(uid) => {
                element(0x0700, &[0, 0]);
                element(0x0800, &[0, 0]);
                element(0x1000, &padded(uid));
            }
            None => element(0x0800, &0x0101_u16.to_le_bytes()),
        }
        let mut command = vec![0, 0, 0, 0, 4, 0, 0, 0];
        command.extend(u32::try_from(body.len()).unwrap().to_le_bytes());
        command.extend(body);
        command
    }

    fn association_request(&self, calling: &str) -> Vec<u8> {
        let mut body = vec![0, 1, 0, 0];
        body.extend(format!("{:<16}{calling:<16}", "PACSGATEWAY").into_bytes());
        body.resize(68, 0);
        body.extend(item(0x10, APPLICATION_CONTEXT.as_bytes()));
        for (index, (abstract_syntax, transfer_syntax)) in self.contexts.iter().enumerate() {
            let mut context = vec![u8::try_from(2 * index + 1).unwrap(), 0, 0, 0];
            context.extend(item(0x30, abstract_syntax.as_bytes()));
            context.extend(item(0x40, transfer_syntax.as_bytes()));
            body.extend(item(0x20, &context));
        }
        let mut user = item(0x51, &65_536_u32.to_be_bytes());
        user.extend(item(0x52, b"2.25.1"));
        body.extend(item(0x50, &user));
        pdu(0x01, &body)
    }

    fn write_pdv(&mut self, context: u8, flags: u8, bytes: &[u8]) -> io::Result<()> {
        let length = u32::try_from(bytes.len() + 2).unwrap();
        let mut body = length.to_be_bytes().to_vec();
        body.extend([context, flags]);
        body.extend(bytes);
        self.write(&pdu(0x04, &body))
    }

    fn read_pdu(&mut self) -> io::Result<(u8, Vec<u8>)> {
        let mut head = [0; 6];
        self.stream.read_exact(&mut head)?;
        let length = u32::from_be_bytes([head[2], head[3], head[4], head[5]]);
        assert!(length < 1 << 20, "the gateway sent a PDU of {length} bytes");
        let mut body = vec![0; length as usize];
        self.stream.read_exact(&mut body)?;
        Ok((head[0], body))
    }
}

fn pdu(kind: u8, body: &[u8]) -> Vec<u8> {
    let mut out = vec![kind, 0];
    out.extend(u32::try_from(body.len()).unwrap().to_be_bytes());
    out.extend(body);
    out
}

fn item(kind: u8, body: &[u8]) -> Vec<u8> {
    let mut out = vec![kind, 0];
    out.extend(u16::try_from(body.len()).unwrap().to_be_bytes());
    out.extend(body);
    out
}

fn padded(uid: &str) -> Vec<u8> {
    let mut bytes = uid.as_bytes().to_vec();
    bytes.resize(bytes.len().next_multiple_of(2), 0);
    bytes
}
