//! One span, as it is known when it is over.

use crate::clock::Timestamp;

/// W3C Trace Context `trace-id`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TraceId(pub(super) [u8; 16]);

/// W3C Trace Context `parent-id`: a span.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SpanId(pub(super) [u8; 8]);

/// A span and what is said of it. No UID, no name and no address ever.
#[derive(Debug, Clone)]
pub struct Span {
    pub(super) trace: TraceId,
    pub(super) id: SpanId,
    pub(super) parent: Option<SpanId>,
    pub(super) name: &'static str,
    pub(super) start: Timestamp,
    pub(super) end: Timestamp,
    pub(super) attributes: Vec<(&'static str, Value)>,
    pub(super) error: Option<String>,
    pub(super) kind: Kind,
}

/// What a span says under a name.
#[derive(Debug, Clone)]
pub enum Value {
    /// A word.
    Text(String),
    /// A count.
    Number(i64),
    /// A measurement.
    Real(f64),
}

/// Which side of a hand-over it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Inside.
    Internal,
    /// Answers a peer.
    Server,
    /// Gives a message to a broker.
    Producer,
}

impl TraceId {
    /// The first 16 bytes, which are not all zero.
    pub(super) fn of(hash: &[u8; 32]) -> Self {
        let [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p, ..] = *hash;
        let id = [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p];
        Self(if id == [0; 16] { [1; 16] } else { id })
    }

    /// The part of it that W3C Trace Context level 2 calls random: 56 bits.
    pub(super) fn randomness(self) -> u64 {
        let [.., b, c, d, e, f, g, h] = self.0;
        u64::from_be_bytes([0, b, c, d, e, f, g, h])
    }
}

impl SpanId {
    /// The first 8 bytes, which are not all zero.
    pub(super) fn of(hash: &[u8; 32]) -> Self {
        let [a, b, c, d, e, f, g, h, ..] = *hash;
        let id = [a, b, c, d, e, f, g, h];
        Self(if id == [0; 8] { [1; 8] } else { id })
    }
}

impl Span {
    pub(super) fn new(
        trace: TraceId,
        id: SpanId,
        parent: Option<SpanId>,
        name: &'static str,
        start: Timestamp,
        end: Timestamp,
    ) -> Self {
        Self {
            trace,
            id,
            parent,
            name,
            start,
            end,
            attributes: Vec::new(),
            error: None,
            kind: Kind::Internal,
        }
    }

    /// Its own id, for spans below it.
    pub fn id(&self) -> SpanId {
        self.id
    }

    /// Says something of it.
    #[must_use]
    pub fn with(mut self, name: &'static str, value: impl Into<Value>) -> Self {
        self.attributes.push((name, value.into()));
        self
    }

    /// Says why it did not go well: a code or fixed words.
    #[must_use]
    pub fn failed(mut self, why: Option<&str>) -> Self {
        self.error = why.map(str::to_owned);
        self
    }

    /// Says which side it is.
    #[must_use]
    pub fn kind(mut self, kind: Kind) -> Self {
        self.kind = kind;
        self
    }
}

impl From<String> for Value {
    fn from(text: String) -> Self {
        Self::Text(text)
    }
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl From<u32> for Value {
    fn from(number: u32) -> Self {
        Self::Number(i64::from(number))
    }
}

impl From<u64> for Value {
    fn from(number: u64) -> Self {
        Self::Number(i64::try_from(number).unwrap_or(i64::MAX))
    }
}

impl From<usize> for Value {
    fn from(number: usize) -> Self {
        Self::Number(i64::try_from(number).unwrap_or(i64::MAX))
    }
}

impl From<std::time::Duration> for Value {
    /// In seconds.
    fn from(duration: std::time::Duration) -> Self {
        Self::Real(duration.as_secs_f64())
    }
}

macro_rules! hexadecimal {
    ($type:ty) => {
        impl std::fmt::Display for $type {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
            }
        }
    };
}

hexadecimal!(TraceId);
hexadecimal!(SpanId);
