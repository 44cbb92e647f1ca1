//! Evidence of what a study should have, gathered: lists of modalities, the count of the PACS, the
//! series that a protocol brings. What it means is [`crate::study::evidence`]'s business.
//!
//! Off the loop's way: each look is a task of its own, with a handful of queries whatever the number
//! of instances. What cannot be had says nothing; it never holds a study up.

use std::collections::{BTreeMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::Semaphore;
use tokio::task::spawn_blocking;

use super::examine::known;
use super::{Pipeline, Rules};
use crate::clock::Timestamp;
use crate::commitment::naming::Named;
use crate::dicom::AeTitle;
use crate::dicom::dataset::{DicomFile, ReadLimits};
use crate::dicom::uid::StudyInstanceUid;
use crate::durable::database::DatabaseError;
use crate::ledger::Whereabouts;
use crate::model::selection::Instance;
use crate::procedure::{State, Step};
use crate::scu::{Target, find_instances};
use crate::spool::{Entry, Spool};
use crate::study::evidence::{Evidence, Kind, Verdict};
use crate::study::expected::{self, Protocol, Series};
use crate::study::{Answer, Count, Counted, Question};
use crate::telemetry::Metrics;
use crate::{commitment, procedure};

/// Studies that the PACS is asked for at the same time.
const AT_ONCE: usize = 4;
/// A PACS that has not answered is left alone for so long.
const PAUSE: Duration = Duration::from_secs(30);
/// Series of a study whose headers are read.
const MAX_SERIES: usize = 256;

/// Where evidence comes from.
pub struct Sources {
    /// Requests for Storage Commitment.
    pub commitments: commitment::Store,
    /// Performed procedure steps.
    pub procedures: procedure::Store,
}

/// A PACS that can be asked how many instances a study has.
pub struct Pacs {
    target: Target,
    calling: AeTitle,
    timeout: Duration,
    places: Semaphore,
    left_alone_until: Mutex<Timestamp>,
}

impl Pacs {
    /// A PACS at `target`, asked as `calling`.
    pub fn new(target: Target, calling: AeTitle, timeout: Duration) -> Self {
        Self {
            target,
            calling,
            timeout,
            places: Semaphore::new(AT_ONCE),
            left_alone_until: Mutex::default(),
        }
    }

    fn left_alone_until(&self) -> std::sync::MutexGuard<'_, Timestamp> {
        let until = self.left_alone_until.lock();
        until.unwrap_or_else(PoisonError::into_inner)
    }

    async fn count(&self, study: &StudyInstanceUid, metrics: &Metrics) -> Counted {
        let started = Instant::now();
        let asked = tokio::time::timeout(self.timeout, async {
            let _place = self.places.acquire().await.ok()?;
            if Timestamp::now() < *self.left_alone_until() {
                return None;
            }
            Some(find_instances(&self.target, &self.calling, study, self.timeout).await)
        });
        let asked = asked.await;
        let result = match &asked {
            Ok(Some(Ok(Some(_)))) => "counted",
            Ok(Some(Ok(None))) => "uncounted",
            Ok(Some(Err(_))) | Err(_) => "failed",
            Ok(None) => "not-asked",
        };
        let questions = &metrics.pacs_questions_total;
        questions.with_label_values(&[result]).inc();
        if result != "not-asked" {
            let took = &metrics.pacs_question_duration_seconds;
            took.observe(started.elapsed().as_secs_f64());
        }
        let failed = |error: String| {
            *self.left_alone_until() = Timestamp::now() + PAUSE;
            tracing::warn!(peer = %self.target, error, "the PACS did not say how many instances");
            Counted::NoAnswer
        };
        match asked {
            Ok(Some(Ok(Some(count)))) => Counted::Instances(count),
            Ok(Some(Ok(None)) | None) => Counted::NoAnswer,
            Ok(Some(Err(error))) => failed(error.to_string()),
            Err(_) => failed("it did not answer in time".to_owned()),
        }
    }
}

/// Looks at a study for the assembler.
pub(super) async fn answer(
    pipeline: Arc<Pipeline>,
    rules: Arc<Rules>,
    question: Question,
) -> Answer {
    let counted = match (question.count, &rules.pacs) {
        (Count::Ask, Some(pacs)) if rules.study.counts(Kind::PacsCount) => {
            Some(pacs.count(&question.study, &pipeline.metrics).await)
        }
        (Count::Known(counted), _) => Some(counted),
        _ => None,
    };
    let entries = pipeline.spool.study(&question.study).current;
    Answer {
        evidence: gather(&pipeline, &rules, &question.study, &entries, counted).await,
        question,
        counted,
    }
}

/// A study that does not become complete by silence: somebody may ask why.
pub(super) fn report_wait(pipeline: &Pipeline, answer: &Answer) {
    let missing = answer.evidence.iter();
    let missing = missing.filter(|piece| piece.verdict == Verdict::Incomplete);
    let missing: Vec<String> = missing.map(Evidence::in_words).collect();
    let missing = missing.join(", ");
    let study = pipeline.study_key.log_id(answer.question.study.as_str());
    tracing::info!(%study, missing, "a study is waited for");
}

/// Everything that is known of a study with these entries, the strongest first.
pub(super) async fn gather(
    pipeline: &Pipeline,
    rules: &Rules,
    study: &StudyInstanceUid,
    entries: &[Arc<Entry>],
    counted: Option<Counted>,
) -> Vec<Evidence> {
    let mut evidence = lists(pipeline, rules, study, entries, counted)
        .await
        .unwrap_or_else(|err| {
            tracing::warn!(error = %err, "evidence cannot be read; it does not count");
            Vec::new()
        });
    let protocols = &rules.study.expected_series;
    if rules.study.counts(Kind::ExpectedSeries) {
        evidence.extend(series(&pipeline.spool, protocols, entries).await);
    }
    evidence
}

/// What has been written down or counted.
async fn lists(
    pipeline: &Pipeline,
    rules: &Rules,
    study: &StudyInstanceUid,
    entries: &[Arc<Entry>],
    counted: Option<Counted>,
) -> Result<Vec<Evidence>, DatabaseError> {
    let (config, sources) = (&rules.study, &pipeline.sources);
    let mut here: HashSet<&str> = entries
        .iter()
        .map(|entry| entry.arrival.sop_instance.as_str())
        .collect();
    let steps = match config.counts(Kind::Mpps) {
        true => {
            sources
                .procedures
                .of_study(study.as_str().to_owned())
                .await?
        }
        false => Vec::new(),
    };
    let requests = match config.counts(Kind::StorageCommitment) {
        true => {
            let instances = here.iter().map(|uid| (*uid).to_owned()).collect();
            sources.commitments.naming(instances).await?
        }
        false => Vec::new(),
    };
    if steps.is_empty() && requests.is_empty() && counted.is_none() {
        return Ok(Vec::new());
    }
    let listed = steps.iter().flat_map(|step| &step.instances);
    let listed = listed.chain(requests.iter().flat_map(|request| &request.instances));
    let absent: HashSet<&String> = listed.filter(|uid| !here.contains(uid.as_str())).collect();
    let Whereabouts {
        released,
        elsewhere,
    } = pipeline
        .ledger
        .whereabouts(study, absent.into_iter().cloned().collect())
        .await?;
    here.extend(released.iter().map(String::as_str));
    let mut evidence = Vec::new();
    evidence.extend(of_steps(&steps, &here, &elsewhere));
    evidence.extend(of_requests(&requests, &here, &elsewhere));
    if let Some(pacs) = rules.pacs.as_ref().filter(|_| counted.is_some()) {
        let source = pacs.target.ae_title.as_str();
        evidence.push(match counted {
            Some(Counted::Instances(count)) => Evidence::counted(source, count, here.len()),
            _ => Evidence {
                source: Some(source.to_owned()),
                ..Evidence::of(Kind::PacsCount)
            },
        });
    }
    Ok(evidence)
}

/// All steps of a study together: it is done when all of them are.
fn of_steps(steps: &[Step], here: &HashSet<&str>, elsewhere: &HashSet<String>) -> Option<Evidence> {
    let first = steps.first()?;
    if let Some(open) = steps.iter().find(|step| step.state == State::InProgress) {
        return Some(Evidence::in_progress(&open.calling_ae, here.len()));
    }
    let listed = own(steps.iter().flat_map(|step| &step.instances), elsewhere);
    let discontinued = steps.iter().any(|step| step.state == State::Discontinued);
    Some(Evidence {
        discontinued,
        ..Evidence::listed(Kind::Mpps, &first.calling_ae, &listed, here)
    })
}

/// All requests that list an instance of the study together: modalities commit series by series.
fn of_requests(
    requests: &[Named],
    here: &HashSet<&str>,
    elsewhere: &HashSet<String>,
) -> Option<Evidence> {
    let first = requests.first()?;
    let listed = requests.iter().flat_map(|request| &request.instances);
    let (kind, listed) = (Kind::StorageCommitment, own(listed, elsewhere));
    Some(Evidence::listed(kind, &first.calling_ae, &listed, here))
}

/// A list may speak of several studies; what nobody knows counts for each of them.
fn own<'a>(
    listed: impl Iterator<Item = &'a String>,
    elsewhere: &HashSet<String>,
) -> HashSet<&'a str> {
    let own = listed.filter(|uid| !elsewhere.contains(*uid));
    own.map(String::as_str).collect()
}

/// What protocols say, by the header of one instance per series.
async fn series(spool: &Spool, protocols: &[Protocol], entries: &[Arc<Entry>]) -> Option<Evidence> {
    let mut counts: BTreeMap<&str, (Arc<Entry>, usize)> = BTreeMap::new();
    for entry in entries {
        let series = entry.series.as_ref().map_or("", |uid| uid.as_str());
        let row = counts.entry(series);
        row.or_insert_with(|| (Arc::clone(entry), 0)).1 += 1;
    }
    let samples: Vec<_> = counts.into_values().take(MAX_SERIES).collect();
    let (spool, protocols) = (spool.clone(), protocols.to_vec());
    let judged = spawn_blocking(move || {
        let read = |(entry, instances): (Arc<Entry>, usize)| {
            let file = DicomFile::read(&spool.path(entry.id), &ReadLimits::default()).ok()?;
            Some((known(&entry), file, instances))
        };
        let read: Vec<_> = samples.into_iter().filter_map(read).collect();
        let series = read.iter().map(|(known, file, instances)| Series {
            sample: Instance {
                known,
                data_set: file.data_set(),
            },
            instances: *instances,
        });
        expected::judge(&protocols, &series.collect::<Vec<_>>())
    });
    judged.await.ok().flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn step(state: State, instances: &[&str]) -> Step {
        Step {
            sop_instance_uid: "1.2".to_owned(),
            calling_ae: format!("{state:?}").to_uppercase(),
            state,
            discontinuation_reason: None,
            created_at: Timestamp(1),
            updated_at: Timestamp(2),
            instances: owned(instances),
        }
    }

    fn owned(uids: &[&str]) -> Vec<String> {
        uids.iter().map(|uid| (*uid).to_owned()).collect()
    }

    /// Of a study of which 1 and 2 are here, while 9 belongs to another one.
    fn judged(steps: &[Step]) -> Option<Evidence> {
        let elsewhere = HashSet::from(["9".to_owned()]);
        of_steps(steps, &HashSet::from(["1", "2"]), &elsewhere)
    }

    fn verdict(steps: &[Step]) -> Option<(Verdict, Option<u32>, Option<u32>)> {
        judged(steps).map(|found| (found.verdict, found.expected, found.received))
    }

    #[test]
    fn steps_are_complete_when_all_of_them_are() {
        use State::{Completed, Discontinued, InProgress};
        let figures = |verdict, expected, received| Some((verdict, Some(expected), Some(received)));
        assert_eq!(judged(&[]), None);
        let both = [step(Completed, &["1"]), step(Completed, &["2", "9"])];
        assert_eq!(verdict(&both), figures(Verdict::Complete, 2, 2));
        assert_eq!(verdict(&both[..1]), figures(Verdict::Partial, 1, 1));
        let open = [step(Completed, &["1", "2"]), step(InProgress, &[])];
        let in_progress = Some((Verdict::Incomplete, None, Some(2)));
        assert_eq!(verdict(&open), in_progress);
        let source = judged(&open).and_then(|found| found.source);
        assert_eq!(source.as_deref(), Some("INPROGRESS"), "who is not done");
        let missing = [step(Completed, &["1", "2", "3"])];
        assert_eq!(verdict(&missing), figures(Verdict::Incomplete, 3, 2));
        let broken = [step(Completed, &["1"]), step(Discontinued, &["2"])];
        assert_eq!(verdict(&broken), figures(Verdict::Complete, 2, 2));
        assert!(judged(&broken).is_some_and(|found| found.discontinued));
        assert!(judged(&both).is_some_and(|found| !found.discontinued));
    }

    #[test]
    fn requests_count_together() {
        let named = |instances: &[&str]| Named {
            calling_ae: "CT2".to_owned(),
            instances: owned(instances),
        };
        let elsewhere = HashSet::from(["9".to_owned()]);
        let here = HashSet::from(["1", "2"]);
        let verdict = |requests: &[Named]| {
            let found = of_requests(requests, &here, &elsewhere);
            found.map(|found| (found.verdict, found.expected))
        };
        assert_eq!(verdict(&[]), None);
        let one = named(&["1", "9"]);
        let part = Some((Verdict::Partial, Some(1)));
        assert_eq!(verdict(std::slice::from_ref(&one)), part);
        let whole = Some((Verdict::Complete, Some(2)));
        assert_eq!(verdict(&[one.clone(), named(&["2", "1"])]), whole);
        // What nobody knows counts for each study of its list.
        let missing = Some((Verdict::Incomplete, Some(3)));
        assert_eq!(verdict(&[one, named(&["2", "3"])]), missing);
    }
}
