//! Open associations whose peers wait for reports: an N-EVENT-REPORT may go out on the association of
//! its N-ACTION for as long as that is open (PS3.4 J.3.3).
//!
//! In memory only. A report that finds nobody here goes out on a new association.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, mpsc, oneshot};

use super::CommitmentId;
use crate::dicom::Status;

/// Reports that may wait for one association.
const WAITING: usize = 16;

/// What an association is to send: the event information is in [`crate::commitment::report`].
#[derive(Debug)]
pub struct Outgoing {
    /// The request it answers.
    pub id: CommitmentId,
    /// Event Type ID (0000,1002).
    pub event_type: u16,
    /// Makes the data set in the transfer syntax of the presentation context.
    pub information: Arc<super::Transaction>,
    /// The peer's status; dropped when the association ends without one.
    pub answer: oneshot::Sender<Status>,
}

/// Where associations and the reporter meet.
#[derive(Debug, Default)]
pub struct Desk {
    open: Mutex<HashMap<CommitmentId, mpsc::Sender<Outgoing>>>,
    /// Rung when a request was recorded or an association with requests ended.
    pub changed: Notify,
}

/// An association's side. What it registered is forgotten when it is dropped.
#[derive(Debug)]
pub struct Window {
    desk: Arc<Desk>,
    sender: mpsc::Sender<Outgoing>,
    receiver: mpsc::Receiver<Outgoing>,
    requests: Vec<CommitmentId>,
}

impl Desk {
    /// Opens a window for an association.
    pub fn window(self: &Arc<Self>) -> Window {
        let (sender, receiver) = mpsc::channel(WAITING);
        Window {
            desk: Arc::clone(self),
            sender,
            receiver,
            requests: Vec::new(),
        }
    }

    /// Sends a report on the association of its request. `None`: that is not open any more, or its
    /// peer did not answer within `longest`.
    pub async fn deliver(
        &self,
        report: &Arc<super::Transaction>,
        event_type: u16,
        longest: Duration,
    ) -> Option<Status> {
        let sender = self.open().get(&report.id)?.clone();
        let (answer, answered) = oneshot::channel();
        let outgoing = Outgoing {
            id: report.id,
            event_type,
            information: Arc::clone(report),
            answer,
        };
        sender.try_send(outgoing).ok()?;
        tokio::time::timeout(longest, answered).await.ok()?.ok()
    }

    fn open(&self) -> MutexGuard<'_, HashMap<CommitmentId, mpsc::Sender<Outgoing>>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Window {
    /// This association recorded the request and can take its report.
    pub fn expect(&mut self, id: CommitmentId) {
        self.desk.open().insert(id, self.sender.clone());
        self.requests.push(id);
        self.desk.changed.notify_one();
    }

    /// The next report to send; waits for ever when there is none. Cancel-safe.
    pub async fn next(&mut self) -> Outgoing {
        match self.receiver.recv().await {
            Some(outgoing) => outgoing,
            // Cannot be: we hold a sender ourselves.
            None => std::future::pending().await,
        }
    }
}

impl Drop for Window {
    fn drop(&mut self) {
        let mut open = self.desk.open();
        for id in &self.requests {
            if open
                .get(id)
                .is_some_and(|sender| sender.same_channel(&self.sender))
            {
                open.remove(id);
            }
        }
        drop(open);
        if !self.requests.is_empty() {
            self.desk.changed.notify_one();
        }
    }
}
