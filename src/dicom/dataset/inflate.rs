//! Inflating a deflated data set (PS3.5 A.5) with a ceiling that is checked before bytes are kept.
//!
//! `flate2`'s own reader reports a cut stream as a clean end of file, which would let half a data
//! set pass for a whole one; here a stream that ends early is an error.

use std::io::{self, Read};

use flate2::{Decompress, FlushDecompress, Status};

use super::ReadLimits;

const INPUT: usize = 32 << 10;
const MAX_TAIL: usize = 9;

/// The error that tells a reached ceiling from broken data.
#[derive(Debug, thiserror::Error)]
#[error("the deflated data set inflates beyond the limit")]
pub(super) struct Ceiling;

/// Reads the inflated bytes of a raw deflate stream (RFC 1951).
pub(super) struct Inflate<R> {
    inner: R,
    state: Decompress,
    input: Vec<u8>,
    at: usize,
    done: bool,
    max_output: u64,
    max_ratio: u64,
}

impl<R: Read> Inflate<R> {
    pub(super) fn new(inner: R, limits: &ReadLimits) -> Self {
        Self {
            inner,
            state: Decompress::new(false),
            input: Vec::new(),
            at: 0,
            done: false,
            max_output: limits.max_inflated,
            max_ratio: limits.max_inflate_ratio,
        }
    }

    fn refill(&mut self) -> io::Result<()> {
        self.input.clear();
        self.at = 0;
        (&mut self.inner)
            .take(INPUT as u64)
            .read_to_end(&mut self.input)?;
        Ok(())
    }

    /// After the end come a padding byte at most, and with some writers the eight bytes of a gzip
    /// trailer; anything more is not part of a data set.
    fn check_tail(&mut self) -> io::Result<()> {
        let mut left = self.input.len().saturating_sub(self.at);
        if left <= MAX_TAIL {
            self.refill()?;
            left += self.input.len();
        }
        if left > MAX_TAIL {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "bytes follow the deflated data set",
            ));
        }
        Ok(())
    }

    fn check_ceiling(&self) -> io::Result<()> {
        let out = self.state.total_out();
        let allowed = self
            .state
            .total_in()
            .saturating_mul(self.max_ratio)
            .max(ReadLimits::FREE_INFLATED)
            .min(self.max_output);
        if out > allowed {
            return Err(io::Error::new(io::ErrorKind::QuotaExceeded, Ceiling));
        }
        Ok(())
    }
}

impl<R: Read> Read for Inflate<R> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        while !self.done && !out.is_empty() {
            if self.at >= self.input.len() {
                self.refill()?;
            }
            let input = self.input.get(self.at..).unwrap_or(&[]);
            let at_end = input.is_empty();
            let (before_in, before_out) = (self.state.total_in(), self.state.total_out());
            let status = self
                .state
                .decompress(input, out, FlushDecompress::None)
                .map_err(|err| io::Error::new(io::ErrorKind::InvalidData, err))?;
            self.at += usize::try_from(self.state.total_in() - before_in).unwrap_or(0);
            let written = usize::try_from(self.state.total_out() - before_out).unwrap_or(0);
            self.check_ceiling()?;
            if status == Status::StreamEnd {
                self.done = true;
                self.check_tail()?;
            }
            if written > 0 {
                return Ok(written);
            }
            if at_end && !self.done {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
        Ok(0)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use std::io::Write;

    use flate2::{Compression, write::DeflateEncoder};

    use super::*;

    fn deflate(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = DeflateEncoder::new(Vec::new(), Compression::default());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    fn inflate(bytes: &[u8], limits: &ReadLimits) -> io::Result<Vec<u8>> {
        let mut out = Vec::new();
        Inflate::new(bytes, limits).read_to_end(&mut out)?;
        Ok(out)
    }

    #[test]
    fn a_whole_stream_comes_back_even_with_a_padding_byte() {
        let data: Vec<u8> = (0..100_000u32)
            .map(|i| (i.wrapping_mul(i) % 255) as u8)
            .collect();
        let mut packed = deflate(&data);
        let limits = ReadLimits::default();
        assert_eq!(inflate(&packed, &limits).unwrap(), data);
        packed.push(0);
        assert_eq!(inflate(&packed, &limits).unwrap(), data);
        packed.extend([0; MAX_TAIL]);
        assert!(inflate(&packed, &limits).is_err());
    }

    #[test]
    fn a_cut_stream_is_an_error() {
        let data: Vec<u8> = (0..100_000u32)
            .map(|i| (i.wrapping_mul(i) % 255) as u8)
            .collect();
        let packed = deflate(&data);
        let err = inflate(&packed[..packed.len() / 2], &ReadLimits::default()).unwrap_err();
        assert_eq!(err.kind(), io::ErrorKind::UnexpectedEof);
    }

    #[test]
    fn a_bomb_stops_at_the_ceiling() {
        let packed = deflate(&vec![0; 64 << 20]);
        let err = inflate(&packed, &ReadLimits::default()).unwrap_err();
        assert_eq!(err.kind(), io::ErrorKind::QuotaExceeded);
        let limits = ReadLimits {
            max_inflate_ratio: u64::MAX,
            ..ReadLimits::default()
        };
        assert_eq!(inflate(&packed, &limits).unwrap().len(), 64 << 20);
    }
}
