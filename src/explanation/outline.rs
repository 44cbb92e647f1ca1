//! The outline of a label mask, on the grid of a picture.

use std::io::Cursor;

use crate::pixel::Picture;

/// Pixels of a mask at most: those of the largest frame that is decoded.
const MOST: u64 = 256 << 20;

/// Labels of a frame, pixel by pixel; 0 is background.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mask {
    rows: usize,
    columns: usize,
    labels: Vec<u8>,
}

impl Mask {
    /// Reads a grey PNG of `rows` × `columns`, of 8 bits or fewer. `None` when it is something else.
    pub fn read(png: &[u8], rows: usize, columns: usize) -> Option<Self> {
        let mut decoder = png::Decoder::new(Cursor::new(png));
        // A byte for each pixel, whatever the depth.
        decoder.set_transformations(png::Transformations::EXPAND);
        let mut reader = decoder.read_info().ok()?;
        let info = reader.info();
        let size = (info.height as usize, info.width as usize);
        let grey = info.color_type == png::ColorType::Grayscale;
        let bytes = info.bit_depth != png::BitDepth::Sixteen;
        // What it costs is compared before it is allocated.
        if size != (rows, columns) || !grey || !bytes || rows as u64 * columns as u64 > MOST {
            return None;
        }
        let mut labels = vec![0; rows * columns];
        reader.next_frame(&mut labels).ok()?;
        Some(Self {
            rows,
            columns,
            labels,
        })
    }

    /// Pixels of `picture` that are inside a region and have another one, or none, within `width`.
    pub fn outline(&self, picture: &Picture, width: usize) -> Vec<[usize; 2]> {
        let place = &picture.placement;
        let source = |at: usize, axis: usize| {
            let (scale, offset) = (place.scale[axis], place.offset[axis]);
            (at as f64 + 0.5).mul_add(scale, offset)
        };
        let label = |row: Option<usize>, column: Option<usize>| {
            let (row, column) = (row?, column?);
            let (y, x) = (source(row, 0), source(column, 1));
            let inside = row < picture.rows && column < picture.columns && y >= 0.0 && x >= 0.0;
            let (y, x) = (y as usize, x as usize);
            let inside = inside && y < self.rows && x < self.columns;
            inside.then(|| self.labels.get(y * self.columns + x).copied())?
        };
        let mut found = Vec::new();
        for row in 0..picture.rows {
            for column in 0..picture.columns {
                let (here, down, across) =
                    (label(Some(row), Some(column)), Some(row), Some(column));
                if here.unwrap_or(0) == 0 {
                    continue;
                }
                let around = [
                    label(row.checked_sub(width), across),
                    label(row.checked_add(width), across),
                    label(down, column.checked_sub(width)),
                    label(down, column.checked_add(width)),
                ];
                if around.iter().any(|other| *other != here) {
                    found.push([row, column]);
                }
            }
        }
        found
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::model::ImagePlacement;

    fn png(rows: u32, columns: u32, labels: &[u8]) -> Vec<u8> {
        encoded(rows, columns, png::BitDepth::Eight, labels)
    }

    fn encoded(rows: u32, columns: u32, depth: png::BitDepth, labels: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::new();
        let mut encoder = png::Encoder::new(&mut bytes, columns, rows);
        encoder.set_color(png::ColorType::Grayscale);
        encoder.set_depth(depth);
        let mut writer = encoder.write_header().unwrap();
        writer.write_image_data(labels).unwrap();
        writer.finish().unwrap();
        bytes
    }

    fn picture(rows: usize, columns: usize, scale: f64) -> Picture {
        Picture {
            rows,
            columns,
            values: vec![0; rows * columns],
            placement: ImagePlacement {
                tensor: [rows, columns],
                rows: 3,
                columns: 4,
                scale: [scale; 2],
                offset: [0.0; 2],
                spacing_mm: None,
            },
        }
    }

    #[test]
    fn the_outline_is_what_is_inside_and_beside_something_else() {
        #[rustfmt::skip]
        let labels = [
            1, 1, 1, 0,
            1, 1, 2, 0,
            1, 1, 1, 0,
        ];
        let mask = Mask::read(&png(3, 4, &labels), 3, 4).unwrap();
        let found = mask.outline(&picture(3, 4, 1.0), 1);
        let wanted = [
            [0, 0],
            [0, 1],
            [0, 2],
            [1, 0],
            [1, 1],
            [1, 2],
            [2, 0],
            [2, 1],
            [2, 2],
        ];
        assert_eq!(found, wanted);
        // Twice as many pixels: the one in the middle of the left region is inside now.
        let found = mask.outline(&picture(6, 8, 0.5), 1);
        assert!(found.contains(&[0, 0]) && !found.contains(&[1, 1]));
        assert!(found.contains(&[2, 3]) && found.contains(&[2, 4]));
    }

    #[test]
    fn one_bit_per_pixel_is_a_mask_too() {
        let bits = [0b0110_0000, 0b0110_0000, 0b0000_0000];
        let bytes = encoded(3, 4, png::BitDepth::One, &bits);
        let found = Mask::read(&bytes, 3, 4)
            .unwrap()
            .outline(&picture(3, 4, 1.0), 1);
        assert_eq!(found, [[0, 1], [0, 2], [1, 1], [1, 2]]);
    }

    #[test]
    fn another_size_or_kind_is_no_mask_of_the_frame() {
        let bytes = png(3, 4, &[0; 12]);
        assert!(Mask::read(&bytes, 4, 3).is_none());
        let deep = encoded(3, 4, png::BitDepth::Sixteen, &[0; 24]);
        assert!(Mask::read(&deep, 3, 4).is_none());
        assert!(Mask::read(b"no picture", 3, 4).is_none());
        assert!(Mask::read(bytes.get(..40).unwrap(), 3, 4).is_none());
    }
}
