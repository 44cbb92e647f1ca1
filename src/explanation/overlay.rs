//! Heat, boxes and outlines over a grey picture, as a PNG that is the same each time.

use super::{HeatMap, colour};
use crate::model::ImagePlacement;
use crate::pixel::Picture;

/// Lines of the finding that is explained.
const OWN: [u8; 3] = [255, 214, 10];
/// Lines of the image's other findings.
const OTHER: [u8; 3] = [100, 149, 237];
/// Between picture and legend.
const GAP: usize = 4;
/// Width of the legend's bar.
const BAR: usize = 12;
/// Columns that the legend adds at the right of a picture with heat.
pub const LEGEND: usize = GAP + BAR;

/// A picture in colour, in the making.
#[derive(Debug, Clone)]
pub struct Canvas<'a> {
    picture: &'a Picture,
    legend: bool,
    /// Red, green and blue of each pixel of the picture.
    pixels: Vec<[u8; 3]>,
}

impl<'a> Canvas<'a> {
    /// The picture in grey.
    pub fn new(picture: &'a Picture) -> Self {
        Self {
            picture,
            legend: false,
            pixels: picture.values.iter().map(|grey| [*grey; 3]).collect(),
        }
    }

    /// Lays normalised heat over it, whose cells are in the frame as `place` says, and adds a legend:
    /// a bar from 0 at the bottom to the highest heat at the top.
    pub fn heat(&mut self, heat: &HeatMap, place: &ImagePlacement) {
        self.legend = true;
        let picture = self.picture;
        let cell = |at: usize, axis: usize| {
            let own = &picture.placement;
            let source = (at as f64 + 0.5).mul_add(own.scale[axis], own.offset[axis]);
            (source - place.offset[axis]) / place.scale[axis]
        };
        let across: Vec<f64> = (0..picture.columns).map(|column| cell(column, 1)).collect();
        let rows = self.pixels.chunks_exact_mut(picture.columns.max(1));
        let grey = picture.values.chunks_exact(picture.columns.max(1));
        for (row, (pixels, grey)) in rows.zip(grey).enumerate() {
            let down = cell(row, 0);
            for ((pixel, grey), across) in pixels.iter_mut().zip(grey).zip(&across) {
                if let Some(heat) = heat.at(down, *across) {
                    *pixel = colour::over(*grey, heat);
                }
            }
        }
    }

    /// Draws a box: left, top, right, bottom in continuous coordinates of the frame.
    pub fn boxed(&mut self, [left, top, right, bottom]: [f64; 4], own: bool) {
        let place = &self.picture.placement;
        let at = |source: f64, axis: usize, size: usize| {
            let pixel = (source - place.offset[axis]) / place.scale[axis];
            // The cast saturates; an edge at the frame's own end is drawn inside of it.
            (pixel.floor().max(0.0) as usize).min(size.saturating_sub(1))
        };
        let (rows, columns) = (self.picture.rows, self.picture.columns);
        let (top, bottom) = (at(top, 0, rows), at(bottom, 0, rows));
        let (left, right) = (at(left, 1, columns), at(right, 1, columns));
        let width = self.line_width();
        for row in top..=bottom {
            for column in left..=right {
                let from_edge = (row - top)
                    .min(bottom - row)
                    .min(column - left)
                    .min(right - column);
                if from_edge < width {
                    self.set(row, column, if own { OWN } else { OTHER });
                }
            }
        }
    }

    /// Colours pixels of the picture: row and column of each.
    pub fn line(&mut self, pixels: &[[usize; 2]]) {
        for [row, column] in pixels {
            self.set(*row, *column, OWN);
        }
    }

    /// Lines are this wide, so that they are seen on a large picture too.
    pub fn line_width(&self) -> usize {
        self.picture.rows.max(self.picture.columns) / 512 + 1
    }

    /// As a PNG of 8-bit RGB.
    ///
    /// # Errors
    /// When the picture is empty or too large for the format.
    pub fn png(&self) -> Result<Vec<u8>, png::EncodingError> {
        let (rows, columns) = (self.picture.rows, self.picture.columns);
        let width = columns + if self.legend { LEGEND } else { 0 };
        let mut bytes = Vec::with_capacity(rows * width * 3);
        for (row, pixels) in self.pixels.chunks_exact(columns.max(1)).enumerate() {
            bytes.extend(pixels.iter().flatten());
            if self.legend {
                bytes.resize(bytes.len() + 3 * GAP, 0);
                let height = (rows - row) as f32 / rows as f32;
                // The cast saturates.
                let colour = colour::of(height).map(|value| value.round() as u8);
                bytes.extend([colour; BAR].as_flattened());
            }
        }
        let mut encoded = Vec::new();
        let size = |size: usize| u32::try_from(size).unwrap_or(u32::MAX);
        let mut encoder = png::Encoder::new(&mut encoded, size(width), size(rows));
        encoder.set_color(png::ColorType::Rgb);
        encoder.set_depth(png::BitDepth::Eight);
        let mut writer = encoder.write_header()?;
        writer.write_image_data(&bytes)?;
        writer.finish()?;
        Ok(encoded)
    }

    fn set(&mut self, row: usize, column: usize, colour: [u8; 3]) {
        if column < self.picture.columns
            && let Some(pixel) = self.pixels.get_mut(row * self.picture.columns + column)
        {
            *pixel = colour;
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::super::stretched;
    use super::*;

    /// A picture of a frame of 40 × 60, half its size.
    fn picture() -> Picture {
        Picture {
            rows: 20,
            columns: 30,
            values: vec![100; 600],
            placement: ImagePlacement {
                tensor: [20, 30],
                rows: 40,
                columns: 60,
                scale: [2.0; 2],
                offset: [0.0; 2],
                spacing_mm: None,
            },
        }
    }

    fn pixels(canvas: &Canvas<'_>) -> (usize, Vec<u8>) {
        let bytes = canvas.png().unwrap();
        let decoder = png::Decoder::new(std::io::Cursor::new(bytes));
        let mut reader = decoder.read_info().unwrap();
        let mut pixels = vec![0; reader.output_buffer_size().unwrap()];
        let info = reader.next_frame(&mut pixels).unwrap();
        assert_eq!(info.color_type, png::ColorType::Rgb);
        (info.width as usize, pixels)
    }

    /// Columns and rows of the picture whose colour is not grey.
    fn coloured(canvas: &Canvas<'_>) -> Vec<(usize, usize)> {
        let (width, pixels) = pixels(canvas);
        let pixels = pixels.as_chunks::<3>().0.iter().enumerate();
        let places = pixels.map(|(at, rgb)| ((at % width, at / width), rgb));
        let inside = places.filter(|((x, _), [r, g, b])| *x < 30 && !(r == g && g == b));
        inside.map(|(at, _)| at).collect()
    }

    #[test]
    fn heat_lies_where_the_tensor_lies_in_the_frame() {
        let picture = picture();
        // One hot cell, the last of the first row.
        let heat = HeatMap {
            rows: 2,
            columns: 3,
            values: vec![0.0, 0.0, 1.0, 0.0, 0.0, 0.0],
        };
        let mut canvas = Canvas::new(&picture);
        canvas.heat(&heat, &stretched(&picture.placement, 2, 3));
        let (width, all) = pixels(&canvas);
        assert_eq!((width, all.len()), (30 + LEGEND, 3 * 20 * (30 + LEGEND)));
        let hottest = |x: usize, y: usize| all[3 * (y * width + x)..][..3] == [206, 209, 145];
        assert!(hottest(29, 0) && hottest(26, 4) && !hottest(20, 4) && !hottest(26, 15));
        // The legend: hot at the top, dark at the bottom.
        assert_eq!(all[3 * (width - 1)..][..3], [252, 255, 164]);
        assert_eq!(all[3 * (20 * width - 1)..][..3], [9, 6, 30]);

        // A tensor of 8 × 8 that is letterboxed: 40 rows become 16/3 of them, 60 columns all 8.
        let letterbox = ImagePlacement {
            scale: [7.5; 2],
            offset: [-10.0, 0.0],
            ..picture.placement.clone()
        };
        // The upper half of the tensor is warm, which begins 10 rows above the frame.
        let half = HeatMap {
            rows: 8,
            columns: 8,
            values: (0..64).map(|at| if at < 32 { 1.0 } else { 0.0 }).collect(),
        };
        let mut canvas = Canvas::new(&picture);
        canvas.heat(&half, &half.placement(&letterbox, 8, 8));
        let rows: Vec<usize> = coloured(&canvas).iter().map(|(_, row)| *row).collect();
        // 4 cells end at row 20 of the frame, half a cell of blending after the last centre.
        assert_eq!(
            (rows.iter().min(), rows.iter().max()),
            (Some(&0), Some(&11))
        );
    }

    #[test]
    fn what_the_model_has_not_seen_has_no_heat() {
        let picture = picture();
        // A crop of the middle 40 × 40.
        let crop = ImagePlacement {
            scale: [10.0; 2],
            offset: [0.0, 10.0],
            ..picture.placement.clone()
        };
        let heat = HeatMap {
            rows: 4,
            columns: 4,
            values: vec![1.0; 16],
        };
        let mut canvas = Canvas::new(&picture);
        canvas.heat(&heat, &heat.placement(&crop, 4, 4));
        let columns: Vec<usize> = coloured(&canvas).iter().map(|(x, _)| *x).collect();
        assert_eq!(
            (columns.iter().min(), columns.iter().max()),
            (Some(&5), Some(&24))
        );
    }

    #[test]
    fn a_box_is_drawn_at_its_place_and_cut_at_the_edge() {
        let picture = picture();
        let mut canvas = Canvas::new(&picture);
        canvas.boxed([20.0, 10.0, 30.0, 16.0], true);
        let found = coloured(&canvas);
        // Columns 10 to 15 and rows 5 to 8 of the picture, without the inside.
        assert_eq!(found.len(), 2 * 6 + 2 * 2);
        assert!(found.contains(&(10, 5)) && found.contains(&(15, 8)) && !found.contains(&(11, 6)));
        let mut canvas = Canvas::new(&picture);
        canvas.boxed([-50.0, -50.0, 500.0, f64::INFINITY], false);
        canvas.boxed([f64::NAN, f64::NAN, f64::NAN, f64::NAN], false);
        assert_eq!(coloured(&canvas).len(), 2 * 30 + 2 * 18);
    }

    #[test]
    fn the_same_picture_has_the_same_bytes() {
        let picture = picture();
        let mut canvas = Canvas::new(&picture);
        canvas.line(&[[1, 2], [900, 1], [1, 900]]);
        assert_eq!(canvas.png().unwrap(), canvas.clone().png().unwrap());
        assert_eq!(coloured(&canvas), [(2, 1)]);
        assert_eq!(pixels(&canvas).0, 30, "no legend without heat");
    }
}
