//! The workers as one thing that answers: a bounded number, started when needed, replaced when dead.

use std::collections::HashSet;
use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread;
use std::time::Duration;

use half::f16;

use super::Config;
use super::process::{Worker, text};
use super::protocol::{Facts, Job, Reply, Request, Stage};
use super::worker::here;
use crate::child::Death;
use crate::model::manifest::{DType, Window};
use crate::model::{ImageSpec, Tensor, TensorData};
use crate::pixel::codec::is_plain;
use crate::pixel::render::Grid;
use crate::pixel::{Image, Photometric, Picture, Samples};
use crate::refusal::Refusal;
use crate::retry::Backoff;
use crate::telemetry::Metrics;
use crate::volume::PlaneSpec;

/// Between attempts at starting a process, when the machine has no room for one.
const STARTS: Backoff = Backoff::new(Duration::from_millis(50), Duration::from_secs(2));
/// Attempts at that before an instance is refused for it.
const MAX_STARTS: u32 = 8;
/// Workers that may die of one frame.
const MAX_DEATHS: u32 = 2;

/// A larger file goes to a worker even when it is uncompressed, so that the memory for it is a
/// worker's.
const MAX_HERE: u64 = 16 << 20;

/// A file, and what is known of it before it is opened.
#[derive(Debug, Clone)]
pub struct Source {
    path: PathBuf,
    /// Nothing has to be decoded, and there is not much of it.
    plain: bool,
}

impl Source {
    /// A Part 10 file of `bytes` in `transfer_syntax`.
    pub fn new(path: PathBuf, transfer_syntax: &str, bytes: u64) -> Self {
        Self {
            path,
            plain: is_plain(transfer_syntax) && bytes <= MAX_HERE,
        }
    }
}

/// The first worker does not start.
#[derive(Debug, thiserror::Error)]
#[error("decode: cannot start a decoding process ({program}); is the binary executable here?")]
pub struct StartError {
    program: String,
    source: io::Error,
}

/// The decoding processes. Clones share them; they end with the last clone.
#[derive(Clone)]
pub struct Decoders {
    pool: Arc<Pool>,
}

struct Pool {
    config: Config,
    program: PathBuf,
    metrics: Option<Arc<Metrics>>,
    state: Mutex<State>,
    returned: Condvar,
}

#[derive(Default)]
struct State {
    idle: Vec<Idle>,
    busy: usize,
}

struct Idle {
    worker: Worker,
    /// What it may still have open.
    file: OsString,
}

impl Decoders {
    /// Starts one worker of `program`, to see that it can be done; more follow when they are needed.
    ///
    /// # Errors
    /// When it does not start.
    pub fn start(
        config: Config,
        program: PathBuf,
        metrics: Option<Arc<Metrics>>,
    ) -> Result<Self, StartError> {
        let worker = Worker::start(&program, &config).map_err(|source| StartError {
            program: program.display().to_string(),
            source,
        })?;
        let state = State {
            idle: vec![Idle {
                worker,
                file: OsString::new(),
            }],
            busy: 0,
        };
        let pool = Pool {
            config,
            program,
            metrics,
            state: Mutex::new(state),
            returned: Condvar::new(),
        };
        if let Some(metrics) = &pool.metrics {
            let limit = &metrics.decoder_workers_limit;
            limit.set(gauge(pool.config.worker_count()));
        }
        pool.tell(&pool.lock());
        Ok(Self {
            pool: Arc::new(pool),
        })
    }

    /// Frames that can be decoded at the same time.
    pub fn count(&self) -> usize {
        self.pool.config.worker_count()
    }

    /// Frame `frame` (from 0) of `source` as a model wants it, with `measure` and statistics over its
    /// values, see [`crate::pixel::prepare`].
    /// Blocking.
    ///
    /// # Errors
    /// A [`Refusal`] of the frame, or `decoder-crash`, `decoder-memory`, `decoder-timeout` when
    /// decoding it ends a worker.
    pub fn tensor(
        &self,
        source: &Source,
        frame: usize,
        spec: &ImageSpec,
        measure: bool,
    ) -> Result<(Facts, Tensor), Refusal> {
        let request = Request {
            file: source.path.as_os_str().to_owned(),
            frame,
            job: Job::Tensor(spec.clone()),
            measure,
        };
        let Answer {
            facts,
            shape,
            values,
            ..
        } = self.answer(source, &request)?;
        let wanted = [spec.rows, spec.columns];
        let placement = facts.placement.as_ref();
        if placement.is_none_or(|place| !place.is_possible() || place.tensor != wanted) {
            return Err(nonsense());
        }
        let data = match (spec.dtype, values) {
            (DType::Float32, Samples::F32(values)) => TensorData::F32(values),
            (DType::Uint8, Samples::U8(values)) => TensorData::U8(values),
            (DType::Float16, Samples::U16(bits)) => {
                TensorData::F16(bits.into_iter().map(f16::from_bits).collect())
            }
            _ => return Err(nonsense()),
        };
        Ok((facts, Tensor { shape, data }))
    }

    /// Frame `frame` (from 0) of `source` as a plane of a volume, see [`crate::volume::plane`]. Blocking.
    ///
    /// # Errors
    /// As [`Self::tensor`].
    pub fn plane(
        &self,
        source: &Source,
        frame: usize,
        spec: &PlaneSpec,
        measure: bool,
    ) -> Result<(Facts, Grid), Refusal> {
        let request = Request {
            file: source.path.as_os_str().to_owned(),
            frame,
            job: Job::Plane(spec.clone()),
            measure,
        };
        let answer = self.answer(source, &request)?;
        match (<[usize; 3]>::try_from(answer.shape), answer.values) {
            (Ok([rows, columns, channels]), Samples::F32(values)) => {
                let grid = Grid {
                    rows,
                    columns,
                    channels,
                    values,
                };
                Ok((answer.facts, grid))
            }
            _ => Err(nonsense()),
        }
    }

    /// Frame `frame` (from 0) of `source` as a person is shown it, see [`crate::pixel::picture`];
    /// `window` replaces the file's. Blocking.
    ///
    /// # Errors
    /// As [`Self::tensor`].
    pub fn picture(
        &self,
        source: &Source,
        frame: usize,
        window: Option<Window>,
    ) -> Result<Picture, Refusal> {
        let request = Request {
            file: source.path.as_os_str().to_owned(),
            frame,
            job: Job::Picture(window),
            measure: false,
        };
        let answer = self.answer(source, &request)?;
        let shape = <[usize; 2]>::try_from(answer.shape);
        match (shape, answer.values, answer.facts.placement) {
            (Ok([rows, columns]), Samples::U8(values), Some(placement)) => Ok(Picture {
                rows,
                columns,
                values,
                placement,
            }),
            _ => Err(nonsense()),
        }
    }

    /// Frame `frame` (from 0) of `file` at a stage. Blocking.
    ///
    /// # Errors
    /// As [`Self::tensor`].
    pub fn frame(
        &self,
        file: &Path,
        frame: usize,
        stage: Stage,
    ) -> Result<(Facts, Image), Refusal> {
        let request = Request {
            file: file.as_os_str().to_owned(),
            frame,
            job: Job::Values(stage),
            measure: false,
        };
        let answer = self.pool.counted(self.pool.answer(&request))?;
        let ([rows, columns, samples_per_pixel], Some(photometric)) = (
            <[usize; 3]>::try_from(answer.shape).map_err(|_| nonsense())?,
            Photometric::parse(&answer.photometric),
        ) else {
            return Err(nonsense());
        };
        let image = Image {
            rows,
            columns,
            samples_per_pixel,
            frames: 1,
            photometric,
            data: answer.values,
        };
        Ok((answer.facts, image))
    }
}

impl Decoders {
    fn answer(&self, source: &Source, request: &Request) -> Result<Answer, Refusal> {
        // Of a long multi-frame instance a worker reads the header once for many frames.
        let answer = if source.plain && request.frame == 0 {
            here(request).and_then(|(reply, values)| outcome(reply, values))
        } else {
            self.pool.answer(request)
        };
        self.pool.counted(answer)
    }
}

struct Answer {
    facts: Facts,
    shape: Vec<usize>,
    photometric: String,
    values: Samples,
}

impl Pool {
    /// Counts what became of a frame.
    fn counted(&self, answer: Result<Answer, Refusal>) -> Result<Answer, Refusal> {
        if let Some(metrics) = &self.metrics {
            let result = match &answer {
                Ok(_) => "decoded",
                Err(refusal) if refusal.code.starts_with(super::REFUSAL) => "failed",
                Err(_) => "refused",
            };
            let requests = &metrics.decode_requests_total;
            requests.with_label_values(&[result]).inc();
        }
        answer
    }

    fn tell(&self, state: &State) {
        if let Some(metrics) = &self.metrics {
            let all = state.idle.len() + state.busy;
            metrics.decoder_workers.set(gauge(all));
            metrics.decoder_workers_busy.set(gauge(state.busy));
        }
    }

    fn answer(&self, request: &Request) -> Result<Answer, Refusal> {
        let mut deaths = 0;
        loop {
            let mut worker = self.take(&request.file)?;
            let death = match worker.ask(request, self.config.timeout.get()) {
                Ok((reply, values)) => {
                    self.put_back(worker, &request.file);
                    return outcome(reply, values);
                }
                Err(death) => death,
            };
            drop(worker);
            self.gone(&death);
            deaths += 1;
            // A second wait of the full time would only help a machine that is far too slow.
            if deaths >= MAX_DEATHS || matches!(death, Death::Timeout) {
                return Err(refused(&death, &self.config));
            }
        }
    }

    /// An idle worker, one that may have `file` open if possible, or a new one.
    fn take(&self, file: &OsString) -> Result<Worker, Refusal> {
        let mut state = self.lock();
        while state.idle.is_empty() && state.busy >= self.config.worker_count() {
            state = self
                .returned
                .wait(state)
                .unwrap_or_else(PoisonError::into_inner);
        }
        state.busy += 1;
        let fitting = state.idle.iter().position(|idle| idle.file == *file);
        let found = match fitting {
            Some(at) => Some(state.idle.swap_remove(at)),
            None => state.idle.pop(),
        };
        self.tell(&state);
        drop(state);
        match found {
            Some(idle) => Ok(idle.worker),
            None => self.start_worker(),
        }
    }

    fn start_worker(&self) -> Result<Worker, Refusal> {
        let mut attempt = 0;
        loop {
            match Worker::start(&self.program, &self.config) {
                Ok(worker) => return Ok(worker),
                Err(err) if attempt < MAX_STARTS => {
                    tracing::warn!(error = %err, "a decoding process does not start");
                    thread::sleep(STARTS.jittered(attempt));
                    attempt += 1;
                }
                Err(err) => {
                    self.one_less();
                    return Err(Refusal::new(
                        "decoder-unavailable",
                        format!("no decoding process could be started: {err}"),
                    ));
                }
            }
        }
    }

    fn put_back(&self, worker: Worker, file: &OsString) {
        let mut state = self.lock();
        state.busy -= 1;
        state.idle.push(Idle {
            worker,
            file: file.clone(),
        });
        self.tell(&state);
        drop(state);
        self.returned.notify_one();
    }

    fn one_less(&self) {
        let mut state = self.lock();
        state.busy -= 1;
        self.tell(&state);
        drop(state);
        self.returned.notify_one();
    }

    fn gone(&self, death: &Death) {
        self.one_less();
        tracing::warn!(
            reason = death.reason(),
            text = text(death, &self.config),
            "a decoding process is gone; another takes its place"
        );
        if let Some(metrics) = &self.metrics {
            metrics
                .decoder_deaths_total
                .with_label_values(&[death.reason()])
                .inc();
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn gauge(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

fn outcome(reply: Reply, values: Option<Samples>) -> Result<Answer, Refusal> {
    match (reply, values) {
        (Reply::Refused { code, text }, None) => {
            Err(known(&code).map_or_else(nonsense, |code| Refusal::new(code, text)))
        }
        (
            Reply::Done {
                facts,
                shape,
                photometric,
                ..
            },
            Some(values),
        ) => Ok(Answer {
            facts,
            shape,
            photometric,
            values,
        }),
        _ => Err(nonsense()),
    }
}

fn refused(death: &Death, config: &Config) -> Refusal {
    let code = match death {
        Death::Timeout => "decoder-timeout",
        Death::Memory => "decoder-memory",
        Death::Crash(_) => "decoder-crash",
    };
    Refusal::new(
        code,
        format!("the decoding process failed: {}", text(death, config)),
    )
}

fn nonsense() -> Refusal {
    Refusal::new(
        "decoder-crash",
        "the decoding process gave an answer that makes no sense",
    )
}

/// A worker's word for a reason as one of ours. Codes are words of the source, so a worker that a
/// file has taken over cannot make up more of them than fit here.
fn known(code: &str) -> Option<&'static str> {
    const MOST: usize = 256;
    static CODES: OnceLock<Mutex<HashSet<&'static str>>> = OnceLock::new();
    let shaped = (1..=40).contains(&code.len())
        && code
            .bytes()
            .all(|b| b.is_ascii_lowercase() || b == b'-' || b.is_ascii_digit());
    if !shaped {
        return None;
    }
    let mut codes = CODES
        .get_or_init(Mutex::default)
        .lock()
        .unwrap_or_else(PoisonError::into_inner);
    if let Some(known) = codes.get(code) {
        return Some(known);
    }
    if codes.len() >= MOST {
        return None;
    }
    let kept: &'static str = Box::leak(code.to_owned().into_boxed_str());
    codes.insert(kept);
    Some(kept)
}
