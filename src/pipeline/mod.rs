//! THE order: stable study → models → tensors → numbers → findings → messages owed.
//!
//! Loop 2. It wakes up when instances arrived or a study may have become complete, and works on a
//! bounded number of studies. Safe to repeat at any point: until [`Ledger::finish`] nothing is
//! forgotten, and ids are derived, so a second run owes nothing new. No other file knows the order.

mod beside;
mod evidence;
mod examine;
mod losses;
mod order;
mod poison;
mod report;
mod spans;

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Notify, mpsc};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::artefact::Store;
use crate::clock::Timestamp;
use crate::decoder::Decoders;
use crate::dicom::modality::defined_term;
use crate::dicom::uid::StudyInstanceUid;
use crate::durable::database::DatabaseError;
use crate::findings::Outcome;
use crate::findings::identity::instance_set_digest;
use crate::inference::{Gate, Turn};
use crate::ledger::{GIVEN_UP, Ledger, Revision};
use crate::live::Live;
use crate::monitor::Monitor;
use crate::priority::Priority;
use crate::refusal::Refusal;
use crate::registry::{Registry, Served, Sites};
use crate::retry::Backoff;
use crate::spool::{Entry, Spool, StudyEntries};
use crate::study::{Answer, Assembler, Order, StableStudy};
use crate::telemetry::study_key::LogId;
use crate::telemetry::traces::{News, Tracer};
use crate::telemetry::{Metrics, StudyKey};

use order::{Due, Line};

pub use beside::Beside;
pub use evidence::{Pacs, Sources};
pub use poison::Attempts;
pub use report::MessageConfig;

/// Looks at the spool at least this often: a lost wake-up costs no more.
const IDLE: Duration = Duration::from_secs(1);
/// Arrivals are taken note of in groups, so that the ledger's syncs do not slow the receivers down.
const GATHER: Duration = Duration::from_millis(50);
/// Looks at evidence at the same time.
const LOOKS: usize = 64;
/// Between attempts at a study that could not be finished.
const ATTEMPTS: Backoff = Backoff::new(Duration::from_millis(500), Duration::from_secs(60));

/// What the pipeline works with.
pub struct Pipeline {
    /// Accepted instances.
    pub spool: Spool,
    /// What became of them.
    pub ledger: Ledger,
    /// What says how many instances a study should have.
    pub sources: Sources,
    /// Models, as they are at any moment.
    pub registry: Arc<Registry>,
    /// Studies that versions which are not published still have to look at.
    pub beside: Beside,
    /// What a reload may change.
    pub rules: Live<Rules>,
    /// Attempts at studies that have not ended.
    pub attempts: Attempts,
    /// CloudEvents `source` of messages.
    pub source: String,
    /// Pictures and masks that go with findings.
    pub artefacts: Arc<Store>,
    /// Where files are decoded.
    pub decoders: Decoders,
    /// As many places as there are decoders, so that only work that can run holds a thread.
    pub decoding: Arc<Gate>,
    /// What runs the models.
    pub runtime: crate::findings::event::RuntimeFacts,
    /// Rung when something was put into the outbox.
    pub outbox_wake: Arc<Notify>,
    /// Counters.
    pub metrics: Arc<Metrics>,
    /// What models see and say.
    pub monitor: Arc<Monitor>,
    /// What stands for studies in logs.
    pub study_key: StudyKey,
    /// Traces of studies.
    pub tracer: Tracer,
}

/// What an operator says of the work. A study takes it once, when its work begins.
pub struct Rules {
    /// What is different for certain senders.
    pub sites: Sites,
    /// How studies are completed and retried.
    pub study: crate::study::Config,
    /// What messages may say.
    pub message: MessageConfig,
    /// The PACS that counts.
    pub pacs: Option<Arc<Pacs>>,
}

/// What the pipeline is told. All but orders may be lost.
pub struct Inbox {
    wake: mpsc::Receiver<StudyInstanceUid>,
    released: mpsc::Receiver<StudyInstanceUid>,
    orders: mpsc::Receiver<Order>,
    /// What was heard and speaks of instances that may not have been taken note of.
    pending: (Vec<StudyInstanceUid>, Vec<Order>),
}

impl Inbox {
    /// `wake` brings studies whose instances or evidence changed, `released` those whose last
    /// association was released, `orders` what people say.
    pub fn new(
        wake: mpsc::Receiver<StudyInstanceUid>,
        released: mpsc::Receiver<StudyInstanceUid>,
        orders: mpsc::Receiver<Order>,
    ) -> Self {
        Self {
            wake,
            released,
            orders,
            pending: Default::default(),
        }
    }

    /// Waits for something to be heard.
    async fn listen(&mut self, assembler: &mut Assembler) {
        tokio::select! {
            // A study that is not open yet is looked at when it is.
            Some(study) = self.wake.recv() => assembler.wake(&study),
            Some(study) = self.released.recv() => self.pending.0.push(study),
            Some(order) = self.orders.recv() => self.pending.1.push(order),
            else => std::future::pending().await,
        }
    }

    /// Tells the assembler, which knows every instance that came before what was heard.
    fn tell(&mut self, assembler: &mut Assembler, now: Timestamp) {
        for study in self.pending.0.drain(..) {
            assembler.released(&study, now);
        }
        for order in self.pending.1.drain(..) {
            let _ = order.answer.send(assembler.force(&order.study));
        }
    }
}

/// Studies between "complete" and "finished".
#[derive(Default)]
struct Work {
    /// Complete studies whose turn is being looked up.
    sorting: JoinSet<Vec<Due>>,
    line: Line,
    deferred: Vec<(Timestamp, Due)>,
    /// Every study that is complete and not finished, by the time it was found complete.
    unfinished: BTreeSet<(Timestamp, StudyInstanceUid)>,
    tasks: JoinSet<Result<(), DatabaseError>>,
    running: HashMap<tokio::task::Id, Due>,
    failures: u32,
}

impl Pipeline {
    /// Runs until `stop`; studies in hand are finished first.
    pub async fn run(self: Arc<Self>, mut inbox: Inbox, stop: CancellationToken) {
        let mut rules = self.rules.get();
        let mut assembler = Assembler::new(rules.study.clone());
        let mut looks: JoinSet<Answer> = JoinSet::new();
        let mut arrivals: Vec<Arc<Entry>> = Vec::new();
        let mut work = Work::default();
        let limit = &self.metrics.studies_running_limit;
        limit.set(count(rules.study.concurrency.max(1)));
        losses::account_for(&self).await;
        poison::finish_what_was_begun(&self).await;
        while !stop.is_cancelled() {
            let latest = self.rules.get();
            if !Arc::ptr_eq(&rules, &latest) {
                assembler.configure(latest.study.clone());
                limit.set(count(latest.study.concurrency.max(1)));
                rules = latest;
            }
            arrivals.extend(self.spool.take_arrivals());
            self.take_note(&mut assembler, &mut arrivals).await;
            let now = Timestamp::now();
            inbox.tell(&mut assembler, now);
            let room = LOOKS.saturating_sub(looks.len());
            let (stable, questions) = assembler.take(now, room);
            for question in questions {
                let look = evidence::answer(Arc::clone(&self), Arc::clone(&rules), question);
                looks.spawn(look);
            }
            work.note(&stable, &self.metrics);
            if !stable.is_empty() {
                work.sorting.spawn(order::turns(Arc::clone(&self), stable));
            }
            work.take_up_deferred(now);
            self.start(&mut work, rules.study.concurrency);
            self.gauges(&assembler, &work, now);
            let next = assembler
                .next_decision(now)
                .into_iter()
                .chain(work.next_attempt())
                .min();
            let wait = next.map_or(IDLE, |at| at.since(now).min(IDLE));
            tokio::select! {
                () = stop.cancelled() => {}
                () = tokio::time::sleep(wait) => {}
                () = inbox.listen(&mut assembler) => {
                    tokio::time::sleep(GATHER.min(wait)).await;
                    while let Ok(study) = inbox.wake.try_recv() {
                        assembler.wake(&study);
                    }
                }
                Some(answer) = looks.join_next() => match answer {
                    Ok(answer) => {
                        if assembler.learn(&answer) {
                            evidence::report_wait(&self, &answer);
                        }
                    }
                    // The assembler asks again, after a while.
                    Err(err) => tracing::error!(error = %err, "a look at evidence ended by itself"),
                },
                Some(sorted) = work.sorting.join_next() => {
                    sorted.unwrap_or_default().into_iter().for_each(|due| work.line.admit(due));
                }
                Some(ended) = work.tasks.join_next_with_id() => self.ended(&mut work, ended),
            }
        }
        while let Some(ended) = work.tasks.join_next_with_id().await {
            self.ended(&mut work, ended);
        }
        self.beside.finish().await;
    }

    fn gauges(&self, assembler: &Assembler, work: &Work, now: Timestamp) {
        let age = |since: Option<Timestamp>| {
            since.map_or(0, |at| {
                i64::try_from(now.since(at).as_secs()).unwrap_or(i64::MAX)
            })
        };
        let metrics = &self.metrics;
        metrics.studies_open.set(count(assembler.open_studies()));
        metrics
            .studies_oldest_open_age_seconds
            .set(age(assembler.oldest()));
        metrics.studies_in_work.set(count(work.line.len()));
        metrics.studies_running.set(count(work.line.running()));
        let oldest = work.unfinished.first().map(|(since, _)| *since);
        metrics.studies_oldest_in_work_age_seconds.set(age(oldest));
    }

    /// Tells ledger and assembler of new entries; on failure they are kept for the next look.
    async fn take_note(&self, assembler: &mut Assembler, arrivals: &mut Vec<Arc<Entry>>) {
        if arrivals.is_empty() {
            return;
        }
        match self.ledger.received(arrivals.clone()).await {
            Ok(handled) => {
                for entry in arrivals
                    .drain(..)
                    .filter(|entry| !handled.contains(&entry.id))
                {
                    assembler.observe(&entry);
                }
            }
            Err(err) => tracing::error!(error = %err, "the ledger cannot be written; studies wait"),
        }
    }

    fn start(self: &Arc<Self>, work: &mut Work, concurrency: usize) {
        while let Some(due) = work.line.next(concurrency) {
            let pipeline = Arc::clone(self);
            let (study, turn) = (due.study.clone(), due.turn.clone());
            let task = work
                .tasks
                .spawn(async move { pipeline.process(&study, turn).await });
            work.running.insert(task.id(), due);
        }
    }

    fn ended(
        &self,
        work: &mut Work,
        ended: Result<(tokio::task::Id, Result<(), DatabaseError>), tokio::task::JoinError>,
    ) {
        let id = ended
            .as_ref()
            .map_or_else(tokio::task::JoinError::id, |(id, _)| *id);
        let Some(due) = work.running.remove(&id) else {
            return;
        };
        work.line.ended(&due.study.uid);
        let delay = ATTEMPTS.jittered(work.failures);
        match ended {
            Ok((_, Ok(()))) => {
                work.failures = 0;
                let done = (due.study.complete_at, due.study.uid);
                work.unfinished.remove(&done);
                return;
            }
            Ok((_, Err(err))) => {
                self.count_deferral("database");
                let study = self.study_key.log_id(due.study.uid.as_str());
                tracing::warn!(%study, error = %err, ?delay, "study deferred");
            }
            // `process` runs its parts in tasks that catch panics; one here is a broken assumption.
            // It has cost an attempt, and others go on.
            Err(err) => {
                self.attempts.ended(&due.study.uid);
                self.count_deferral("internal");
                let study = self.study_key.log_id(due.study.uid.as_str());
                tracing::error!(%study, error = %err, ?delay, "a study's task ended by itself");
            }
        }
        work.failures = work.failures.saturating_add(1);
        work.deferred.push((Timestamp::now() + delay, due));
    }

    fn count_deferral(&self, reason: &str) {
        let deferrals = &self.metrics.study_deferrals_total;
        deferrals.with_label_values(&[reason]).inc();
    }

    /// Turns one stable study into messages owed to the broker.
    async fn process(
        self: &Arc<Self>,
        study: &StableStudy,
        turn: Turn,
    ) -> Result<(), DatabaseError> {
        let began = Timestamp::now();
        let StudyEntries {
            current: entries,
            others,
        } = self.spool.study(&study.uid);
        if entries.is_empty() {
            return Ok(());
        }
        let digest = instance_set_digest(
            entries
                .iter()
                .map(|entry| (entry.arrival.sop_instance.as_str(), &entry.digest)),
        );
        let prior = self.ledger.prior(&study.uid).await?;
        if prior.digest.as_ref() == Some(&digest) && !prior.rerun_due {
            // Nothing that a model could see has changed, and the messages would be the same.
            let ids = |entries: &[Arc<Entry>]| entries.iter().map(|entry| entry.id).collect();
            let (current, others) = (ids(&entries), ids(&others));
            self.ledger.cover(prior.revision, current, others).await?;
            self.tracer.tell(|| News::Finished {
                study: study.uid.as_str().to_owned(),
            });
            return Ok(());
        }
        // The study keeps these rules and versions, whatever is switched meanwhile.
        let rules = self.rules.get();
        let snapshot = self.registry.snapshot();
        let choices = snapshot
            .models
            .iter()
            .map(|model| model.choose(study.uid.as_str()));
        let (mut models, mut beside) = (Vec::new(), Vec::new());
        for choice in choices {
            models.push(choice.answers);
            beside.extend(choice.beside);
        }
        // Counted before the work: a study that kills the process is found out by its count.
        let attempt = poison::begin_attempt(self, &study.uid, &digest).await?;
        let examined = if attempt > rules.study.max_attempts {
            examine::Examined::given_up(
                &entries,
                Refusal::new(
                    GIVEN_UP,
                    format!(
                        "{} attempts at this set of instances did not end",
                        attempt - 1
                    ),
                ),
            )
        } else {
            examine::examine(
                self,
                &rules.sites,
                &models,
                turn.clone(),
                examine::Earlier::default(),
                true,
                &entries,
            )
            .await
        };
        let examined_at = Timestamp::now();
        poison::keep_what_broke_a_decoder(self, &entries, &examined).await;
        let evidence = evidence::gather(self, &rules, &study.uid, &entries, study.counted).await;
        let snapshot = report::Snapshot {
            entries: &entries,
            set_aside: others.len(),
            digest: &digest,
            evidence: &evidence,
        };
        let facts = report::facts(&rules.message, study, &snapshot, &prior, &examined);
        let messages = report::messages(self, &models, &facts, &prior, &examined);
        let revision = Revision {
            study: study.uid.clone(),
            number: prior.revision + 1,
            digest: digest.clone(),
            method: study.method.as_str().to_owned(),
            evidence: serde_json::to_value(&facts.evidence).unwrap_or_default(),
            first_received: study.first,
            last_received: study.last,
            complete_at: study.complete_at,
            finished_at: Timestamp::now(),
            instances: report::instances(&entries, &others, &examined),
            messages,
        };
        let number = revision.number;
        let owed = revision.messages.len();
        // From here the findings are the outbox's concern, and the instances are spent.
        // An error is the disk's fault, not the study's: the same attempt goes on.
        self.ledger.finish(revision).await?;
        self.attempts.ended(&study.uid);
        self.outbox_wake.notify_one();
        let done = spans::Finished {
            study,
            revision: number,
            entries: &entries,
            attempt,
            began,
            examined: examined_at,
            runs: &examined.runs,
            messages: owed,
        };
        spans::finished(&self.tracer, &done);
        self.count(study, &turn, prior.revision, &examined);
        let names = Names::of(self, &study.uid, number);
        tracing::info!(
            study = %names.study,
            trace_id = names.trace,
            revision = number,
            completeness = study.method.as_str(),
            instances = entries.len(),
            attempt,
            messages = owed,
            "study finished"
        );
        if attempt > rules.study.max_attempts {
            let ids = entries.iter().map(|entry| entry.id).collect();
            poison::set_aside(self, ids).await;
            return Ok(());
        }
        let work = beside::Work {
            rules,
            models: beside,
            turn: Turn {
                priority: Priority::Routine,
                ..turn.clone()
            },
            entries,
            facts,
            revision: prior.revision + 1,
            rerun: prior.rerun,
            earlier: examine::Earlier::of(&examined.runs),
            published: beside::Published::of(&examined.runs),
        };
        self.beside.look(self, work);
        Ok(())
    }

    fn count(&self, study: &StableStudy, turn: &Turn, prior: u32, examined: &examine::Examined) {
        let now = Timestamp::now();
        let metrics = &self.metrics;
        metrics
            .studies_completed_total
            .with_label_values(&[study.method.as_str()])
            .inc();
        if prior > 0 {
            metrics.study_revisions_total.inc();
        }
        metrics
            .study_processing_duration_seconds
            .observe(now.since(study.complete_at).as_secs_f64());
        let (modality, priority) = (defined_term(&turn.modality), turn.priority.as_str());
        let waited = now.since(study.last).as_secs_f64();
        for run in &examined.runs {
            let manifest = run.model.as_ref().map(|model| &model.package.manifest);
            self.monitor.observe(manifest, &run.outcome, &run.prepared);
            let name = run
                .model
                .as_ref()
                .map_or("", |model| &model.package.manifest.name);
            metrics
                .outcomes_total
                .with_label_values(&[name, run.outcome.as_str()])
                .inc();
            metrics
                .time_to_finding_seconds
                .with_label_values(&[name, modality, priority])
                .observe(waited);
            if let Outcome::Failed(refusal) = &run.outcome {
                let names = Names::of(self, &study.uid, prior + 1);
                tracing::warn!(
                    study = %names.study,
                    trace_id = names.trace,
                    model = name,
                    code = refusal.code,
                    "study failed"
                );
            }
        }
        for instance in examined.instances.values() {
            if let Some(code) = instance.refusal {
                metrics.refusals_total.with_label_values(&[code]).inc();
            }
        }
    }
}

/// What log lines about a revision say instead of its UID.
struct Names {
    study: LogId,
    /// When it is traced.
    trace: Option<String>,
}

impl Names {
    fn of(pipeline: &Pipeline, study: &StudyInstanceUid, revision: u32) -> Self {
        let trace = pipeline.tracer.study(study.as_str(), revision);
        Self {
            study: pipeline.study_key.log_id(study.as_str()),
            trace: trace.map(|trace| trace.id().to_string()),
        }
    }
}

impl Work {
    /// Studies have become complete.
    fn note(&mut self, stable: &[StableStudy], metrics: &Metrics) {
        for study in stable {
            let assembled = study.complete_at.since(study.first);
            metrics
                .study_assembly_duration_seconds
                .observe(assembled.as_secs_f64());
            self.unfinished
                .insert((study.complete_at, study.uid.clone()));
        }
    }

    /// Takes up the studies whose next attempt is due.
    fn take_up_deferred(&mut self, now: Timestamp) {
        let (ready, later): (Vec<_>, Vec<_>) = std::mem::take(&mut self.deferred)
            .into_iter()
            .partition(|(at, _)| *at <= now);
        self.deferred = later;
        for (_, due) in ready {
            self.line.admit(due);
        }
    }

    fn next_attempt(&self) -> Option<Timestamp> {
        self.deferred.iter().map(|(at, _)| *at).min()
    }
}

fn count(number: usize) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}
