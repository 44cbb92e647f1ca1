//! A region of an image or a volume as runs along rows: a hundredth of the memory of its pixels, and
//! its parts are found without them.

use crate::refusal::Refusal;

/// Runs of one region: more are noise. 16 bytes each.
const MAX_RUNS: usize = 4 << 20;

/// Neighbouring pixels of one row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Run {
    /// Plane; 0 in an image.
    pub plane: u32,
    /// Row.
    pub row: u32,
    /// First column.
    pub start: u32,
    /// The column after the last.
    pub end: u32,
}

impl Run {
    /// Pixels.
    pub fn len(&self) -> usize {
        (self.end - self.start) as usize
    }

    /// Whether it has none; no run of a [`Mask`] is.
    pub fn is_empty(&self) -> bool {
        self.end == self.start
    }
}

/// A region.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mask {
    /// Planes, rows and columns of the image or volume.
    pub size: [usize; 3],
    runs: Vec<Run>,
}

impl Mask {
    /// An empty region.
    ///
    /// # Errors
    /// `too-large` when places do not fit in 32 bits.
    pub fn new(size: [usize; 3]) -> Result<Self, Refusal> {
        if size.iter().any(|size| u32::try_from(*size).is_err()) {
            return Err(Refusal::new("too-large", format!("a region in {size:?}")));
        }
        Ok(Self {
            size,
            runs: Vec::new(),
        })
    }

    /// Adds the pixels `start..end` of a row, behind all that have been added.
    ///
    /// # Errors
    /// `model-output-too-large`: so many pieces are noise.
    pub fn push(
        &mut self,
        plane: usize,
        row: usize,
        start: usize,
        end: usize,
    ) -> Result<(), Refusal> {
        if self.runs.len() == MAX_RUNS {
            return Err(Refusal::new(
                "model-output-too-large",
                format!("a region of more than {MAX_RUNS} pieces"),
            ));
        }
        // `new` has seen that the size fits.
        self.runs.push(Run {
            plane: plane as u32,
            row: row as u32,
            start: start as u32,
            end: end as u32,
        });
        Ok(())
    }

    /// Its runs by plane, row and column.
    pub fn runs(&self) -> &[Run] {
        &self.runs
    }

    /// Its pixels.
    pub fn pixels(&self) -> usize {
        self.runs.iter().map(Run::len).sum()
    }

    /// The part with the most pixels, of equals the one that begins first. Pixels that touch with an
    /// edge or a corner, also of the next plane, are of one part.
    pub fn largest_part(&self) -> Vec<Run> {
        let mut parts = Parts {
            parent: (0..self.runs.len() as u32).collect(),
        };
        for (index, run) in self.runs.iter().enumerate() {
            // Neighbours that come before it; those that come after will find this one.
            for (plane, row) in [
                (Some(run.plane), run.row.checked_sub(1)),
                (run.plane.checked_sub(1), run.row.checked_sub(1)),
                (run.plane.checked_sub(1), Some(run.row)),
                (run.plane.checked_sub(1), run.row.checked_add(1)),
            ] {
                let (Some(plane), Some(row)) = (plane, row) else {
                    continue;
                };
                let first = self.runs.partition_point(|other| {
                    (other.plane, other.row, other.end) < (plane, row, run.start)
                });
                let others = self.runs.iter().enumerate().skip(first);
                let touching = others.take_while(|(_, other)| {
                    (other.plane, other.row) == (plane, row) && other.start <= run.end
                });
                for (other, _) in touching {
                    parts.join(index as u32, other as u32);
                }
            }
        }
        let mut sizes = vec![0usize; self.runs.len()];
        for (index, run) in self.runs.iter().enumerate() {
            if let Some(size) = sizes.get_mut(parts.of(index as u32) as usize) {
                *size += run.len();
            }
        }
        let largest = sizes
            .iter()
            .enumerate()
            .max_by_key(|(index, size)| (**size, std::cmp::Reverse(*index)));
        let Some((largest, _)) = largest else {
            return Vec::new();
        };
        let own = self.runs.iter().enumerate();
        own.filter(|(index, _)| parts.of(*index as u32) as usize == largest)
            .map(|(_, run)| *run)
            .collect()
    }
}

/// Which runs belong together: a forest whose roots are the first runs of their parts.
struct Parts {
    parent: Vec<u32>,
}

impl Parts {
    fn of(&mut self, run: u32) -> u32 {
        let parent = |parts: &Self, of: u32| parts.parent.get(of as usize).copied().unwrap_or(of);
        let mut at = run;
        loop {
            let above = parent(self, at);
            if above == at {
                return at;
            }
            // Halves the way for the next time.
            let further = parent(self, above);
            if let Some(entry) = self.parent.get_mut(at as usize) {
                *entry = further;
            }
            at = further;
        }
    }

    fn join(&mut self, a: u32, b: u32) {
        let (a, b) = (self.of(a), self.of(b));
        if let Some(parent) = self.parent.get_mut(a.max(b) as usize) {
            *parent = a.min(b);
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
pub(super) mod tests {
    use super::*;

    /// `#` is in the region; planes are parted by an empty row.
    pub(crate) fn mask(picture: &[&[&str]]) -> Mask {
        let rows = picture[0].len();
        let mut mask = Mask::new([picture.len(), rows, picture[0][0].len()]).unwrap();
        for (plane, rows) in picture.iter().enumerate() {
            for (row, line) in rows.iter().enumerate() {
                let mut start = None;
                for (column, c) in line.chars().chain(['.']).enumerate() {
                    match (c == '#', start) {
                        (true, None) => start = Some(column),
                        (false, Some(from)) => {
                            mask.push(plane, row, from, column).unwrap();
                            start = None;
                        }
                        _ => {}
                    }
                }
            }
        }
        mask
    }

    fn largest(picture: &[&[&str]]) -> (usize, usize) {
        let part = mask(picture).largest_part();
        let pixels = part.iter().map(Run::len).sum();
        (part.len(), pixels)
    }

    #[test]
    fn corners_touch_and_gaps_part() {
        assert_eq!(largest(&[&["##..#", "..#.#", "....#", "....#"]]), (4, 4));
        assert_eq!(largest(&[&["##..#", "..##.", "#...."]]), (3, 5));
        assert_eq!(largest(&[&["#.#.#", ".#.#.", "#.#.#"]]), (8, 8));
        assert_eq!(largest(&[&[".....", "....."]]), (0, 0));
    }

    #[test]
    fn planes_touch_with_their_corners() {
        assert_eq!(
            largest(&[&["#..", "...", "###"], &[".#.", "...", "..."]]),
            (1, 3)
        );
        assert_eq!(
            largest(&[&["#...", "...."], &["....", ".##."], &["...#", "...."]]),
            (3, 4)
        );
        assert_eq!(largest(&[&["#"], &["."], &["#"]]), (1, 1));
    }

    #[test]
    fn a_late_bridge_joins_what_began_apart() {
        let picture: &[&str] = &["#.#.#.#", "#.#.#.#", "#######"];
        assert_eq!(largest(&[picture]), (9, 15));
    }
}
