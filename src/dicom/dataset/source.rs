//! Where a walk gets its bytes: a seekable file or buffer, or a stream that can only go forward.
//!
//! Both hide behind [`Source`], so that the walker is written once and skipping a value costs a
//! position in a file and a read in an inflating stream.

use std::io::{self, Read, Seek, SeekFrom};

/// Bytes that can be looked at and skipped.
pub(super) trait Source {
    /// Position of the next byte.
    fn position(&self) -> u64;

    /// The position after the last byte, when it is known without reading.
    fn end(&self) -> Option<u64>;

    /// Looks at the next `n` bytes without consuming them; fewer only at the end.
    fn peek(&mut self, n: usize) -> io::Result<&[u8]>;

    /// Consumes `n` bytes and says how many there were.
    fn skip(&mut self, n: u64) -> io::Result<u64>;

    /// Consumes and returns exactly `n` bytes, or `None` when fewer are left.
    ///
    /// The caller has compared `n` with [`Source::end`] or with a limit of its own.
    fn take(&mut self, n: usize) -> io::Result<Option<Vec<u8>>>;
}

/// One read of this size covers the header of an ordinary image.
const BUFFER: usize = 16 << 10;

/// A buffered window over something seekable. It seeks only when a skip leaves the window.
pub(super) struct Seekable<R> {
    inner: R,
    end: u64,
    /// Position in `inner` of the first byte of the window.
    base: u64,
    window: Vec<u8>,
    /// Index of the next byte, which may lie beyond the window after a skip.
    next: u64,
}

impl<R: Read + Seek> Seekable<R> {
    /// Starts at `start`; positions count from there.
    pub(super) fn new(mut inner: R, start: u64) -> io::Result<Self> {
        let end = inner.seek(SeekFrom::End(0))?;
        Ok(Self {
            inner,
            end,
            base: start,
            window: Vec::new(),
            next: start,
        })
    }

    fn available(&self) -> &[u8] {
        self.next
            .checked_sub(self.base)
            .and_then(|at| self.window.get(usize::try_from(at).ok()?..))
            .unwrap_or(&[])
    }

    fn refill(&mut self, n: usize) -> io::Result<()> {
        let wanted = (n.max(BUFFER) as u64).min(self.end.saturating_sub(self.next));
        self.inner.seek(SeekFrom::Start(self.next))?;
        self.base = self.next;
        self.window.clear();
        (&mut self.inner)
            .take(wanted)
            .read_to_end(&mut self.window)?;
        Ok(())
    }
}

impl<R: Read + Seek> Source for Seekable<R> {
    fn position(&self) -> u64 {
        self.next
    }

    fn end(&self) -> Option<u64> {
        Some(self.end)
    }

    fn peek(&mut self, n: usize) -> io::Result<&[u8]> {
        if self.available().len() < n && self.next < self.end {
            self.refill(n)?;
        }
        let available = self.available();
        Ok(available.get(..n).unwrap_or(available))
    }

    fn skip(&mut self, n: u64) -> io::Result<u64> {
        let skipped = n.min(self.end.saturating_sub(self.next));
        self.next += skipped;
        Ok(skipped)
    }

    fn take(&mut self, n: usize) -> io::Result<Option<Vec<u8>>> {
        if (n as u64) > self.end.saturating_sub(self.next) {
            return Ok(None);
        }
        let value = match self.available().get(..n) {
            Some(bytes) => bytes.to_vec(),
            None => {
                let mut value = vec![0; n];
                self.inner.seek(SeekFrom::Start(self.next))?;
                self.inner.read_exact(&mut value)?;
                value
            }
        };
        self.next += n as u64;
        Ok(Some(value))
    }
}

/// A window over a stream whose length is not known; skipping reads.
pub(super) struct Streaming<R> {
    inner: R,
    window: Vec<u8>,
    /// Index of the next byte in the window.
    at: usize,
    position: u64,
}

impl<R: Read> Streaming<R> {
    pub(super) fn new(inner: R) -> Self {
        Self {
            inner,
            window: Vec::new(),
            at: 0,
            position: 0,
        }
    }

    fn available(&self) -> &[u8] {
        self.window.get(self.at..).unwrap_or(&[])
    }
}

impl<R: Read> Source for Streaming<R> {
    fn position(&self) -> u64 {
        self.position
    }

    fn end(&self) -> Option<u64> {
        None
    }

    fn peek(&mut self, n: usize) -> io::Result<&[u8]> {
        if self.available().len() < n {
            self.window.drain(..self.at.min(self.window.len()));
            self.at = 0;
            let wanted = n.max(BUFFER) - self.window.len();
            (&mut self.inner)
                .take(wanted as u64)
                .read_to_end(&mut self.window)?;
        }
        let available = self.available();
        Ok(available.get(..n).unwrap_or(available))
    }

    fn skip(&mut self, n: u64) -> io::Result<u64> {
        let mut left = n;
        while left > 0 {
            let chunk = usize::try_from(left).unwrap_or(BUFFER).min(BUFFER);
            let got = self.peek(chunk)?.len();
            if got == 0 {
                break;
            }
            self.at += got;
            self.position += got as u64;
            left -= got as u64;
        }
        Ok(n - left)
    }

    fn take(&mut self, n: usize) -> io::Result<Option<Vec<u8>>> {
        // Grown as bytes arrive: the length is only the peer's word.
        let mut value = Vec::new();
        while value.len() < n {
            let chunk = (n - value.len()).min(BUFFER);
            let bytes = self.peek(chunk)?;
            if bytes.is_empty() {
                return Ok(None);
            }
            value.extend_from_slice(bytes);
            let got = bytes.len();
            self.at += got;
            self.position += got as u64;
        }
        Ok(Some(value))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use super::*;

    fn check(mut source: impl Source, bytes: &[u8]) {
        assert_eq!(source.peek(4).unwrap(), &bytes[..4]);
        assert_eq!(source.skip(40_000).unwrap(), 40_000);
        assert_eq!(source.position(), 40_000);
        assert_eq!(source.peek(2).unwrap(), &bytes[40_000..40_002]);
        assert_eq!(
            source.take(20_000).unwrap().unwrap(),
            &bytes[40_000..60_000]
        );
        assert_eq!(source.take(usize::MAX / 2).unwrap(), None);
    }

    #[test]
    fn both_sources_give_the_same_bytes() {
        let bytes: Vec<u8> = (0..70_000u32).map(|i| (i % 251) as u8).collect();
        check(
            Seekable::new(io::Cursor::new(bytes.clone()), 0).unwrap(),
            &bytes,
        );
        check(Streaming::new(&bytes[..]), &bytes);
    }

    #[test]
    fn skipping_past_the_end_says_how_far_it_got() {
        let mut source = Seekable::new(io::Cursor::new(vec![0; 10]), 4).unwrap();
        assert_eq!(source.skip(u64::MAX).unwrap(), 6);
        assert!(source.peek(1).unwrap().is_empty());
        let mut source = Streaming::new(&[0u8; 10][..]);
        assert_eq!(source.skip(u64::MAX).unwrap(), 10);
    }
}
