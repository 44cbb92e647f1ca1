//! What models in processes of their own cost: samples per second of the engine against ONNX Runtime in
//! this process, with as many sessions, on the same samples. Argument: a folder of models of images.
//!
//! Both take turns; the median of the rounds counts. Tensors are ready in both cases. The last column is
//! the ratio of processor time per sample, which means something on a busy machine too.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use ort::session::Session;
use ort::session::builder::GraphOptimizationLevel;
use ort::value::TensorRef;
use pacs_gateway::inference::{Config, Engine, Turn};
use pacs_gateway::model::{InputSpec, Package, Tensor, TensorData, repository};
use pacs_gateway::priority::Priority;

const ROUNDS: usize = 7;
const ROUND: Duration = Duration::from_secs(3);

fn main() {
    let folders = std::env::args().skip(1).filter(|arg| arg != "--bench");
    let folders: Vec<PathBuf> = folders.map(PathBuf::from).collect();
    // `cargo test` runs this too, to see that it builds.
    if folders.is_empty() {
        return;
    }
    println!("| model | batch | here samples/s | apart samples/s | ratio | processor |");
    println!("|---|---|---|---|---|---|");
    for package in folders
        .iter()
        .flat_map(|folder| repository::scan(folder).unwrap())
    {
        let Ok((name, InputSpec::Image(spec))) = package.manifest.input() else {
            continue;
        };
        let shape = vec![spec.channels, spec.rows, spec.columns];
        compare(&package, name, &shape);
    }
}

fn compare(package: &Package, input: &str, shape: &[usize]) {
    let sessions = thread::available_parallelism().unwrap().get();
    let config = Config::default();
    let program = Path::new(env!("CARGO_BIN_EXE_pacs-gateway"));
    let engine = Engine::start(&config, package, program, &package.onnx).unwrap();
    let batch = engine.max_batch();
    let values: Vec<f32> = (0..shape.iter().product::<usize>())
        .map(|at| (at % 251) as f32 / 251.0 - 0.5)
        .collect();
    let stacked = values.repeat(batch);
    let mut local: Vec<Session> = (0..sessions).map(|_| session(&package.onnx)).collect();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let (mut alone, mut apart) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        alone.push(timed(|| {
            in_process(&mut local, input, shape, batch, &stacked)
        }));
        apart.push(timed(|| {
            let at_once = 2 * batch * sessions;
            runtime.block_on(through(&engine, at_once, shape, &values))
        }));
    }
    let ratio = |of: fn(&Round) -> f64| {
        let rounds = apart.iter().zip(&alone);
        median(rounds.map(|(apart, alone)| of(apart) / of(alone)).collect())
    };
    println!(
        "| {} | {batch} | {:.1} | {:.1} | {:.2} | {:.2} |",
        package.manifest.name,
        median(alone.iter().map(|round| round.per_second).collect()),
        median(apart.iter().map(|round| round.per_second).collect()),
        ratio(|round| round.per_second),
        ratio(|round| round.per_processor_second)
    );
}

/// Samples per second of time, and of processor time.
struct Round {
    per_second: f64,
    per_processor_second: f64,
}

fn timed(work: impl FnOnce() -> usize) -> Round {
    let (began, before) = (Instant::now(), processor_seconds());
    let done = work() as f64;
    Round {
        per_second: done / began.elapsed().as_secs_f64(),
        per_processor_second: done / (processor_seconds() - before),
    }
}

/// Processor time of this process and its children, proc_pid_stat(5).
fn processor_seconds() -> f64 {
    const TICKS_PER_SECOND: f64 = 100.0;
    let tasks = fs::read_dir("/proc/self/task").unwrap();
    let children: String = tasks
        .filter_map(|task| fs::read_to_string(task.ok()?.path().join("children")).ok())
        .collect();
    let processes = children.split_whitespace().chain(["self"]);
    let ticks = processes.filter_map(|pid| {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        let (_, fields) = stat.rsplit_once(')')?;
        let fields: Vec<&str> = fields.split_whitespace().collect();
        Some(fields[11].parse::<f64>().ok()? + fields[12].parse::<f64>().ok()?)
    });
    ticks.sum::<f64>() / TICKS_PER_SECOND
}

fn session(onnx: &Path) -> Session {
    let library = std::env::var("ORT_DYLIB_PATH").expect("ORT_DYLIB_PATH");
    static ENVIRONMENT: std::sync::OnceLock<ort::environment::Environment> =
        std::sync::OnceLock::new();
    let environment = ENVIRONMENT.get_or_init(|| {
        let builder = ort::init_from(&library).unwrap();
        builder.with_telemetry(false).build().unwrap()
    });
    let builder = Session::builder(environment).unwrap();
    let builder = builder.with_optimization_level(GraphOptimizationLevel::All);
    let builder = builder.unwrap().with_intra_threads(1).unwrap();
    let builder = builder.with_inter_threads(1).unwrap();
    let mut builder = builder.with_intra_op_spinning(false).unwrap();
    builder.commit_from_file(onnx).unwrap()
}

fn in_process(
    sessions: &mut [Session],
    input: &str,
    shape: &[usize],
    batch: usize,
    stacked: &[f32],
) -> usize {
    let done = AtomicUsize::new(0);
    let began = Instant::now();
    let shape = [&[batch], shape].concat();
    thread::scope(|scope| {
        for session in sessions {
            let (done, shape) = (&done, shape.clone());
            scope.spawn(move || {
                while began.elapsed() < ROUND {
                    let tensor = TensorRef::from_array_view((shape.clone(), stacked)).unwrap();
                    session.run(ort::inputs![input => tensor]).unwrap();
                    done.fetch_add(batch, Ordering::Relaxed);
                }
            });
        }
    });
    done.into_inner()
}

async fn through(engine: &Engine, at_once: usize, shape: &[usize], values: &[f32]) -> usize {
    let began = Instant::now();
    let mut tasks = tokio::task::JoinSet::new();
    for study in 0..at_once {
        let (engine, shape, values) = (engine.clone(), shape.to_vec(), values.to_vec());
        let turn = Turn {
            priority: Priority::Routine,
            modality: "DX".to_owned(),
            study: study as u64,
        };
        tasks.spawn(async move {
            let mut done = 0usize;
            while began.elapsed() < ROUND {
                let slot = engine.slot(&turn).await.unwrap();
                let tensor = Tensor {
                    shape: shape.clone(),
                    data: TensorData::F32(values.clone()),
                };
                engine.infer(slot, vec![tensor]).await.unwrap();
                done += 1;
            }
            done
        });
    }
    tasks.join_all().await.into_iter().sum()
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
