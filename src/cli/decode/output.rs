//! Where decoded frames go: a hash, an array file, pictures, or statistics.

use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::PathBuf;

use sha2::{Digest, Sha256};

use super::{Format, Line};
use crate::pixel::stored::each;
use crate::pixel::{Image, Photometric, Refusal, Samples};

/// Why a file gave no output.
#[derive(Debug, thiserror::Error)]
pub(super) enum Fault {
    #[error(transparent)]
    Refused(#[from] Refusal),
    #[error("write-failed: {0}")]
    Write(#[from] io::Error),
}

/// The shape of the first frame, which all others must have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Shape {
    rows: usize,
    columns: usize,
    samples: usize,
    dtype: &'static str,
    photometric: Photometric,
}

/// Takes the frames of one file one after the other.
pub(super) struct Sink {
    format: Format,
    target: PathBuf,
    frames: usize,
    seen: usize,
    shape: Option<Shape>,
    hash: Sha256,
    statistics: Statistics,
    array: Option<BufWriter<File>>,
    written: Vec<PathBuf>,
}

#[derive(Default)]
struct Statistics {
    count: f64,
    sum: f64,
    minimum: Option<f64>,
    maximum: Option<f64>,
}

impl Sink {
    /// `target` is the path of the output without its extension, `frames` how many will come.
    pub(super) fn new(format: Format, target: PathBuf, frames: usize) -> Self {
        Self {
            format,
            target,
            frames,
            seen: 0,
            shape: None,
            hash: Sha256::new(),
            statistics: Statistics::default(),
            array: None,
            written: Vec::new(),
        }
    }

    pub(super) fn add(&mut self, image: &Image) -> Result<(), Fault> {
        let shape = Shape {
            rows: image.rows,
            columns: image.columns,
            samples: image.samples_per_pixel,
            dtype: image.data.dtype(),
            photometric: image.photometric,
        };
        if *self.shape.get_or_insert(shape) != shape {
            return Err(Refusal::new("header-mismatch", "the frames differ in their shape").into());
        }
        self.seen += 1;
        match self.format {
            Format::Sha256 => self.hash.update(image.data.to_le_bytes()),
            Format::Json => {
                self.hash.update(image.data.to_le_bytes());
                self.statistics.add(&image.data);
            }
            Format::Npy => self.write_array(image, shape)?,
            Format::Png => self.write_picture(image)?,
        }
        Ok(())
    }

    fn create(&mut self, suffix: &str) -> io::Result<BufWriter<File>> {
        let mut name = self.target.clone().into_os_string();
        name.push(suffix);
        let path = PathBuf::from(name);
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent)?;
        }
        let file = BufWriter::new(File::create(&path)?);
        self.written.push(path);
        Ok(file)
    }

    fn write_array(&mut self, image: &Image, shape: Shape) -> io::Result<()> {
        if self.array.is_none() {
            let mut file = self.create(".npy")?;
            file.write_all(&npy_header(self.frames, shape, &image.data))?;
            self.array = Some(file);
        }
        match &mut self.array {
            Some(file) => file.write_all(&image.data.to_le_bytes()),
            None => Ok(()),
        }
    }

    fn write_picture(&mut self, image: &Image) -> Result<(), Fault> {
        let (depth, bytes) = picture(&image.data)?;
        let suffix = if self.frames == 1 {
            ".png".to_owned()
        } else {
            format!("-{:04}.png", self.seen)
        };
        let file = self.create(&suffix)?;
        let side = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        let mut encoder = png::Encoder::new(file, side(image.columns), side(image.rows));
        encoder.set_color(if image.samples_per_pixel == 3 {
            png::ColorType::Rgb
        } else {
            png::ColorType::Grayscale
        });
        encoder.set_depth(depth);
        let write = |encoder: png::Encoder<'_, BufWriter<File>>| {
            let mut writer = encoder.write_header()?;
            writer.write_image_data(&bytes)?;
            writer.finish()
        };
        write(encoder).map_err(|err| Fault::Write(io::Error::other(err)))
    }

    /// Removes what was written of a file that cannot be completed.
    pub(super) fn discard(self) {
        drop(self.array);
        for path in &self.written {
            // The error that led here is the one to report.
            let _ = fs::remove_file(path);
        }
    }

    /// The line for the table once all frames are in.
    pub(super) fn finish(mut self, transfer_syntax: &str) -> Result<Line, Fault> {
        let Some(shape) = self.shape else {
            return Err(Refusal::new("no-pixel-data", "no frames").into());
        };
        if let Some(array) = &mut self.array {
            array.flush()?;
        }
        let Shape {
            rows,
            columns,
            samples,
            dtype,
            photometric,
        } = shape;
        let photometric = photometric.as_str();
        let digest = |hash: Sha256| -> String {
            hash.finalize().iter().map(|b| format!("{b:02x}")).collect()
        };
        Ok(match self.format {
            Format::Sha256 => Line::Text(format!(
                "{}\t{}\t{rows}\t{columns}\t{samples}\t{dtype}\t{photometric}",
                digest(self.hash),
                self.seen
            )),
            Format::Npy | Format::Png => {
                let paths: Vec<String> = self
                    .written
                    .iter()
                    .map(|path| super::printable(path))
                    .collect();
                Line::Text(paths.join("\t"))
            }
            Format::Json => {
                let mut object = serde_json::Map::new();
                let mut put = |key: &str, value: serde_json::Value| {
                    object.insert(key.to_owned(), value);
                };
                put("transfer_syntax", transfer_syntax.into());
                put("frames", self.seen.into());
                put("rows", rows.into());
                put("columns", columns.into());
                put("samples_per_pixel", samples.into());
                put("dtype", dtype.into());
                put("photometric_interpretation", photometric.into());
                put("minimum", self.statistics.minimum.into());
                put("maximum", self.statistics.maximum.into());
                put("mean", self.statistics.mean().into());
                put("sha256", digest(self.hash).into());
                Line::Json(object)
            }
        })
    }
}

impl Statistics {
    #[allow(clippy::unnecessary_cast)] // the same line serves every sample type
    fn add(&mut self, samples: &Samples) {
        each!(samples, values => for value in values {
            let value = *value as f64;
            self.count += 1.0;
            self.sum += value;
            self.minimum = Some(self.minimum.map_or(value, |m| m.min(value)));
            self.maximum = Some(self.maximum.map_or(value, |m| m.max(value)));
        });
    }

    fn mean(&self) -> Option<f64> {
        (self.count > 0.0).then(|| self.sum / self.count)
    }
}

/// The header of NumPy's format 1.0: padded so that the data starts at a multiple of 64.
fn npy_header(frames: usize, shape: Shape, data: &Samples) -> Vec<u8> {
    let kind = match data {
        Samples::U8(_) => "|u1",
        Samples::I8(_) => "|i1",
        Samples::U16(_) => "<u2",
        Samples::I16(_) => "<i2",
        Samples::U32(_) => "<u4",
        Samples::I32(_) => "<i4",
        Samples::F32(_) => "<f4",
        Samples::F64(_) => "<f8",
    };
    let (rows, columns) = (shape.rows, shape.columns);
    let colour = if shape.samples == 1 { "" } else { ", 3" };
    let mut text = format!(
        "{{'descr': '{kind}', 'fortran_order': False, 'shape': ({frames}, {rows}, {columns}{colour}), }}"
    );
    while (10 + text.len() + 1) % 64 != 0 {
        text.push(' ');
    }
    text.push('\n');
    let length = u16::try_from(text.len()).unwrap_or(u16::MAX);
    let mut out = b"\x93NUMPY\x01\x00".to_vec();
    out.extend(length.to_le_bytes());
    out.extend(text.as_bytes());
    out
}

/// Samples as a PNG wants them: bytes, big endian words, or 0..1 stretched over a byte.
fn picture(samples: &Samples) -> Result<(png::BitDepth, Vec<u8>), Refusal> {
    match samples {
        Samples::U8(values) => Ok((png::BitDepth::Eight, values.clone())),
        Samples::U16(values) => Ok((
            png::BitDepth::Sixteen,
            values.iter().flat_map(|v| v.to_be_bytes()).collect(),
        )),
        Samples::F32(values) if values.iter().all(|v| (0.0..=1.0).contains(v)) => Ok((
            png::BitDepth::Eight,
            values.iter().map(|v| (v * 255.0).round() as u8).collect(),
        )),
        other => Err(Refusal::new(
            "format-unsupported",
            format!(
                "{} values do not fit into a picture; use --stage presentation",
                other.dtype()
            ),
        )),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use super::*;

    #[test]
    fn the_array_header_is_aligned_and_names_the_shape() {
        let shape = Shape {
            rows: 4,
            columns: 5,
            samples: 3,
            dtype: "uint8",
            photometric: Photometric::Rgb,
        };
        let header = npy_header(2, shape, &Samples::U8(Vec::new()));
        assert_eq!(header.len() % 64, 0);
        let text = String::from_utf8_lossy(&header[10..]);
        assert!(text.contains("'shape': (2, 4, 5, 3)"), "{text}");
    }

    #[test]
    fn a_picture_takes_what_fits_and_refuses_the_rest() {
        let (_, bytes) = picture(&Samples::F32(vec![0.0, 0.5, 1.0])).unwrap();
        assert_eq!(bytes, [0, 128, 255]);
        assert!(picture(&Samples::I16(vec![-1])).is_err());
        assert!(picture(&Samples::F32(vec![2.0])).is_err());
    }
}
