//! The worker's side: limits first, then one request after the other until the gateway hangs up.

use std::fs::File;
use std::io;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use super::protocol::{Facts, Job, Reply, Request, Stage, put};
use crate::child::{Bounds, Watchdog, confine, receive, send, streams};
use crate::dicom::dataset::{DicomFile, ReadLimits};
use crate::model::manifest::ValueSpace;
use crate::model::{Tensor, TensorData};
use crate::pixel::prepare::prepare_measured;
use crate::pixel::render::{Grid, render};
use crate::pixel::{
    Frames, Image, Limits, Photometric, Picture, Refusal, Samples, picture, placement,
};
use crate::volume::plane_measured;

/// An instance with more frames stays open this long for the next one.
const PATIENCE: Duration = Duration::from_millis(500);
/// Standard streams, the file and a few to spare.
const MAX_FILES: u64 = 32;

/// What a worker is told on its command line.
#[derive(Debug, Clone, clap::Args)]
pub struct WorkerArgs {
    /// Memory in bytes.
    #[arg(long)]
    pub memory: u64,
    /// Time for one frame in milliseconds.
    #[arg(long)]
    pub timeout: u64,
}

/// Serves requests on standard input, which is one end of a socket pair; values go to standard
/// output, which is a file in memory.
///
/// # Errors
/// When the limits cannot be set, standard input is no socket, or the gateway says nonsense.
pub fn work(args: &WorkerArgs) -> io::Result<ExitCode> {
    confine(Bounds {
        memory: Some(args.memory),
        values: args.memory,
        files: Some(MAX_FILES),
    })?;
    let (stream, values) = streams()?;
    let mut server = Server {
        stream,
        values,
        watchdog: Watchdog::start()?,
        time: Duration::from_millis(args.timeout),
    };
    let mut next = server.next(None)?;
    while let Some(request) = next {
        next = server.serve(request)?;
    }
    Ok(ExitCode::SUCCESS)
}

struct Server {
    stream: UnixStream,
    values: File,
    watchdog: Watchdog,
    /// For one frame.
    time: Duration,
}

impl Server {
    /// The next request. With `patience`, `None` also when it does not come in that time.
    fn next(&mut self, patience: Option<Duration>) -> io::Result<Option<Request>> {
        // A request is written at once, so that waiting can only end before its first byte.
        self.stream.set_read_timeout(patience)?;
        let request = match receive(&mut self.stream) {
            Err(err) if patience.is_some() && err.kind() == io::ErrorKind::WouldBlock => None,
            other => other?,
        };
        if request.is_some() {
            self.watchdog.arm(self.time);
        }
        Ok(request)
    }

    /// Answers `request` and those that follow on the same file; gives back the first on another.
    fn serve(&mut self, mut request: Request) -> io::Result<Option<Request>> {
        let path = PathBuf::from(&request.file);
        let limits = Limits::default();
        let file = match &request.job {
            Job::Ping => {
                self.reply(&Reply::Ready, None)?;
                return self.next(None);
            }
            _ => DicomFile::read(&path, &ReadLimits::default()),
        };
        let file = match file {
            Ok(file) => file,
            Err(err) => {
                self.refuse(err.into())?;
                return self.next(None);
            }
        };
        let mut frames = None;
        loop {
            let opened = match frames.take() {
                Some(opened) => Ok(opened),
                None => Frames::open(&file, &limits),
            };
            let outcome = opened.and_then(|opened| {
                let opened = frames.insert(opened);
                answer(opened, &request, file.transfer_syntax())
            });
            match outcome {
                Ok((reply, values)) => self.reply(&reply, Some(&values))?,
                Err(refusal) => self.refuse(refusal)?,
            }
            if frames.as_ref().is_none_or(|frames| frames.count() < 2) {
                return self.next(None);
            }
            match self.next(Some(PATIENCE))? {
                Some(next) if next.file == request.file => request = next,
                Some(other) => return Ok(Some(other)),
                // Closed before the next request, so that a released instance frees its space.
                None => {
                    drop(frames);
                    drop(file);
                    return self.next(None);
                }
            }
        }
    }

    fn refuse(&mut self, refusal: Refusal) -> io::Result<()> {
        let reply = Reply::Refused {
            code: refusal.code.to_owned(),
            text: refusal.text,
        };
        self.reply(&reply, None)
    }

    fn reply(&mut self, reply: &Reply, values: Option<&Samples>) -> io::Result<()> {
        if let Some(values) = values {
            put(&self.values, values)?;
        }
        self.watchdog.disarm();
        send(&mut self.stream, reply)
    }
}

/// Answers a request in this process.
pub(super) fn here(request: &Request) -> Result<(Reply, Option<Samples>), Refusal> {
    let file = DicomFile::read(&PathBuf::from(&request.file), &ReadLimits::default())?;
    let frames = Frames::open(&file, &Limits::default())?;
    let (reply, values) = answer(&frames, request, file.transfer_syntax())?;
    Ok((reply, Some(values)))
}

fn answer(
    frames: &Frames<'_>,
    request: &Request,
    transfer_syntax: &str,
) -> Result<(Reply, Samples), Refusal> {
    let (mut seen, mut place) = (None, None);
    let (shape, photometric, values) = match &request.job {
        Job::Ping => (vec![0], "", Samples::U8(Vec::new())),
        Job::Tensor(spec) => {
            let (tensor, statistics) =
                prepare_measured(frames, request.frame, spec, request.measure)?;
            let Tensor { shape, data } = tensor;
            seen = statistics;
            place = Some(placement(frames, request.frame, spec));
            (shape, "", samples(data)?)
        }
        Job::Plane(spec) => {
            let (grid, statistics) = plane_measured(frames, request.frame, spec, request.measure)?;
            let Grid {
                rows,
                columns,
                channels,
                values,
            } = grid;
            seen = statistics;
            (vec![rows, columns, channels], "", Samples::F32(values))
        }
        Job::Picture(window) => {
            let Picture {
                rows,
                columns,
                values,
                placement: whole,
            } = picture(frames, request.frame, *window)?;
            place = Some(whole);
            (vec![rows, columns], "", Samples::U8(values))
        }
        Job::Values(stage) => {
            let image = values(frames, request.frame, *stage)?;
            let shape = vec![image.rows, image.columns, image.samples_per_pixel];
            (shape, image.photometric.as_str(), image.data)
        }
    };
    let reply = Reply::Done {
        facts: Facts {
            placement: place,
            statistics: seen,
            frames: frames.count(),
            transfer_syntax: transfer_syntax.to_owned(),
        },
        shape,
        dtype: values.dtype().to_owned(),
        photometric: photometric.to_owned(),
    };
    Ok((reply, values))
}

/// The values of frame `index` (from 0) at a stage.
fn values(frames: &Frames<'_>, index: usize, stage: Stage) -> Result<Image, Refusal> {
    let space = match stage {
        Stage::Stored => return frames.decode(index),
        Stage::Rendered(space) => space,
    };
    let Grid {
        rows,
        columns,
        channels,
        values,
    } = render(frames, index, space, None)?;
    Ok(Image {
        rows,
        columns,
        samples_per_pixel: channels,
        frames: 1,
        photometric: match (channels, space) {
            (1, ValueSpace::Presentation) => Photometric::Monochrome2,
            (1, _) => frames.layout().photometric,
            _ => Photometric::Rgb,
        },
        data: Samples::F32(values),
    })
}

/// Half floats travel as their bits.
fn samples(data: TensorData) -> Result<Samples, Refusal> {
    match data {
        TensorData::F32(values) => Ok(Samples::F32(values)),
        TensorData::U8(values) => Ok(Samples::U8(values)),
        TensorData::F16(values) => Ok(Samples::U16(
            values.into_iter().map(half::f16::to_bits).collect(),
        )),
        TensorData::I64(_) => Err(Refusal::new("model-input", "no image has 64-bit values")),
    }
}
