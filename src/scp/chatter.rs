//! Log lines that any peer can cause as often as it likes: a port scan, a sender that is turned away
//! and tries again at once. The metrics count all of them; the log tells of the first ones and then
//! of one in ten seconds, with how many were left out.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Lines at once.
const BURST: u32 = 20;

/// After that, one line per this long.
const PACE: Duration = Duration::from_secs(10);

/// The budgets, one per kind of line, so that one kind cannot silence another.
#[derive(Debug, Default)]
pub(super) struct Chatter {
    /// Connections that do not speak DICOM.
    pub(super) strangers: Budget,
    /// Associations that were rejected.
    pub(super) rejections: Budget,
    /// Associations that broke the protocol.
    pub(super) violations: Budget,
    /// Connections from addresses that may not connect.
    pub(super) addresses: Budget,
    /// TLS handshakes that failed.
    pub(super) handshakes: Budget,
    /// Connections that the system could not give us.
    pub(super) accepting: Budget,
}

/// How many lines of one kind may still be written.
#[derive(Debug)]
pub(super) struct Budget(Mutex<State>);

#[derive(Debug)]
struct State {
    left: u32,
    /// When the last line was earned; `None`: all are left.
    earned: Option<Instant>,
    unsaid: u64,
}

impl Default for Budget {
    fn default() -> Self {
        Self(Mutex::new(State {
            left: BURST,
            earned: None,
            unsaid: 0,
        }))
    }
}

impl Budget {
    /// Whether a line may be written now, and how many were not since the last one.
    pub(super) fn may_speak(&self) -> Option<u64> {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        state.may_speak(Instant::now())
    }
}

impl State {
    fn may_speak(&mut self, now: Instant) -> Option<u64> {
        let since = *self.earned.get_or_insert(now);
        let paces = now.saturating_duration_since(since).as_secs() / PACE.as_secs();
        let paces = u32::try_from(paces).unwrap_or(u32::MAX);
        if paces >= BURST {
            (self.left, self.earned) = (BURST, Some(now));
        } else {
            self.left = BURST.min(self.left + paces);
            self.earned = Some(since + PACE * paces);
        }
        if self.left == 0 {
            self.unsaid = self.unsaid.saturating_add(1);
            return None;
        }
        self.left -= 1;
        Some(std::mem::take(&mut self.unsaid))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use super::*;

    #[test]
    fn ten_thousand_at_once_are_a_few_lines_and_nothing_is_left_unsaid_for_ever() {
        let Budget(state) = Budget::default();
        let mut state = state.into_inner().unwrap();
        let start = Instant::now();
        let lines = (0..10_000).filter_map(|_| state.may_speak(start)).count();
        assert_eq!(lines, 20);
        assert_eq!(
            state.may_speak(start + PACE - Duration::from_millis(1)),
            None
        );
        assert_eq!(state.may_speak(start + PACE), Some(9_981));
        assert_eq!(state.may_speak(start + PACE), None, "one per pace");
        // 15 s are one pace and a half: the half is kept.
        assert_eq!(state.may_speak(start + PACE * 5 / 2), Some(1));
        assert_eq!(state.may_speak(start + PACE * 3), Some(0));
        let much_later = start + Duration::from_secs(100_000_000);
        let lines = (0..100).filter_map(|_| state.may_speak(much_later)).count();
        assert_eq!(lines, 20, "a quiet time earns no more than one burst");
    }
}
