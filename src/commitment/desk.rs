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

/// What became of a report that was to go out on the association of its request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Delivery {
    /// That association is not open.
    Absent,
    /// Its peer did not answer, or it ended before that.
    Unanswered,
    /// The peer's status.
    Answered(Status),
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

    /// Sends a report on the association of its request, and waits for the answer for `longest`.
    pub async fn deliver(
        &self,
        report: &Arc<super::Transaction>,
        event_type: u16,
        longest: Duration,
    ) -> Delivery {
        let Some(sender) = self.open().get(&report.id).cloned() else {
            return Delivery::Absent;
        };
        let (answer, answered) = oneshot::channel();
        let outgoing = Outgoing {
            id: report.id,
            event_type,
            information: Arc::clone(report),
            answer,
        };
        if sender.try_send(outgoing).is_err() {
            return Delivery::Unanswered;
        }
        match tokio::time::timeout(longest, answered).await {
            Ok(Ok(status)) => Delivery::Answered(status),
            _ => Delivery::Unanswered,
        }
    }

    fn open(&self) -> MutexGuard<'_, HashMap<CommitmentId, mpsc::Sender<Outgoing>>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Window {
    /// This association recorded the request and can take its report.
    pub fn register(&mut self, id: CommitmentId) {
        self.desk.open().insert(id, self.sender.clone());
        self.requests.push(id);
        self.desk.changed.notify_one();
    }

    /// The report of this request is out.
    pub fn forget(&mut self, id: CommitmentId) {
        self.requests.retain(|one| *one != id);
        self.withdraw(id);
    }

    fn withdraw(&self, id: CommitmentId) {
        let mut open = self.desk.open();
        // A later association may have taken the request over.
        let ours = |sender: &mpsc::Sender<_>| sender.same_channel(&self.sender);
        if open.get(&id).is_some_and(ours) {
            open.remove(&id);
        }
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
        for id in &self.requests {
            self.withdraw(*id);
        }
        if !self.requests.is_empty() {
            self.desk.changed.notify_one();
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::super::{Request, Transaction};
    use super::*;
    use crate::clock::Timestamp;
    use crate::dicom::{AeTitle, Uid};

    const SECOND: Duration = Duration::from_secs(1);

    fn report(id: CommitmentId) -> Arc<Transaction> {
        Arc::new(Transaction {
            id,
            request: Request {
                transaction: Uid::parse("1.9").unwrap(),
                calling_ae: AeTitle::parse("CT2").unwrap(),
                called_ae: AeTitle::gateway(),
                peer: std::net::IpAddr::from([10, 0, 0, 1]),
                references: Vec::new(),
            },
            duplicate: false,
            received_at: Timestamp(0),
            result: Some(Vec::new()),
            attempts: 0,
        })
    }

    #[tokio::test]
    async fn a_report_finds_the_association_of_its_request_and_no_other() {
        let desk = Arc::new(Desk::default());
        let (mut first, mut second) = (desk.window(), desk.window());
        first.register(1);
        second.register(2);
        let asked = Arc::clone(&desk);
        let delivery = tokio::spawn(async move { asked.deliver(&report(2), 1, SECOND).await });
        let outgoing = second.next().await;
        assert_eq!((outgoing.id, outgoing.event_type), (2, 1));
        outgoing.answer.send(Status(0)).unwrap();
        assert_eq!(delivery.await.unwrap(), Delivery::Answered(Status(0)));
        assert_eq!(desk.deliver(&report(3), 1, SECOND).await, Delivery::Absent);
        second.forget(2);
        assert_eq!(desk.deliver(&report(2), 1, SECOND).await, Delivery::Absent);
    }

    #[tokio::test]
    async fn an_association_that_ends_is_noticed_at_once() {
        let desk = Arc::new(Desk::default());
        let mut window = desk.window();
        window.register(1);
        desk.changed.notified().await;
        let asked = Arc::clone(&desk);
        let delivery = tokio::spawn(async move { asked.deliver(&report(1), 1, 60 * SECOND).await });
        drop(window.next().await);
        assert_eq!(delivery.await.unwrap(), Delivery::Unanswered);
        drop(window);
        desk.changed.notified().await;
        assert_eq!(desk.deliver(&report(1), 1, SECOND).await, Delivery::Absent);
    }

    #[tokio::test(start_paused = true)]
    async fn a_peer_that_never_answers_is_waited_for_until_the_deadline() {
        let desk = Arc::new(Desk::default());
        let mut window = desk.window();
        window.register(1);
        assert_eq!(
            desk.deliver(&report(1), 1, 30 * SECOND).await,
            Delivery::Unanswered
        );
        // The association sees that nobody waits for this one any more.
        assert!(window.next().await.answer.is_closed());
    }

    #[test]
    fn a_request_that_another_association_took_over_stays_with_it() {
        let desk = Arc::new(Desk::default());
        let (mut first, mut second) = (desk.window(), desk.window());
        first.register(1);
        second.register(1);
        drop(first);
        assert!(desk.open().contains_key(&1));
        drop(second);
        assert!(desk.open().is_empty());
    }
}
