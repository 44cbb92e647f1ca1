//! Curves as inline SVG: no script, nothing from outside, the same on paper.

use std::fmt::Write;

use super::agreement::Pair;
use super::figures::Bin;

/// Side of the plotting area, in user units.
const SIDE: f64 = 300.0;
/// Room for the axes: left, and below.
const MARGIN: f64 = 46.0;
/// Room above and right.
const AIR: f64 = 12.0;
/// Points of a curve or a cloud at most; beyond it every so many is drawn.
const MAX_POINTS: usize = 2000;

/// Axes of a square plot.
struct Frame {
    svg: String,
    x: [f64; 2],
    y: [f64; 2],
    height: f64,
}

impl Frame {
    /// `ticks`: values that get a number, for x and y.
    fn new(
        title: &str,
        [x, y]: [[f64; 2]; 2],
        height: f64,
        names: [&str; 2],
        ticks: [&[f64]; 2],
    ) -> Self {
        let (width, total) = (SIDE + MARGIN + AIR, height + MARGIN + AIR);
        let mut frame = Self {
            svg: format!(
                "<svg viewBox=\"0 0 {width} {total}\" role=\"img\" aria-label=\"{title}\"><title>{title}</title>"
            ),
            x,
            y,
            height,
        };
        for tick in ticks[0] {
            let at = frame.left(*tick);
            let (top, foot) = (AIR, AIR + height);
            frame.add(format_args!(
                "<line class=\"grid\" x1=\"{at:.1}\" x2=\"{at:.1}\" y1=\"{top}\" y2=\"{foot}\"/>\
                 <text class=\"tick\" text-anchor=\"middle\" x=\"{at:.1}\" y=\"{:.1}\">{}</text>",
                foot + 15.0,
                short(*tick)
            ));
        }
        for tick in ticks[1] {
            let at = frame.top(*tick);
            frame.add(format_args!(
                "<line class=\"grid\" x1=\"{MARGIN}\" x2=\"{:.1}\" y1=\"{at:.1}\" y2=\"{at:.1}\"/>\
                 <text class=\"tick\" text-anchor=\"end\" x=\"{:.1}\" y=\"{:.1}\">{}</text>",
                MARGIN + SIDE,
                MARGIN - 6.0,
                at + 3.5,
                short(*tick)
            ));
        }
        let (middle, foot) = (MARGIN + SIDE / 2.0, AIR + height + 34.0);
        let side = AIR + height / 2.0;
        frame.add(format_args!(
            "<text class=\"axis\" text-anchor=\"middle\" x=\"{middle}\" y=\"{foot}\">{}</text>\
             <text class=\"axis\" text-anchor=\"middle\" transform=\"translate(11 {side}) rotate(-90)\">{}</text>",
            names[0], names[1]
        ));
        frame
    }

    fn add(&mut self, text: std::fmt::Arguments<'_>) {
        // Writing to a string does not fail.
        let _ = self.svg.write_fmt(text);
    }

    fn left(&self, x: f64) -> f64 {
        MARGIN + SIDE * (x - self.x[0]) / (self.x[1] - self.x[0])
    }

    fn top(&self, y: f64) -> f64 {
        AIR + self.height * (1.0 - (y - self.y[0]) / (self.y[1] - self.y[0]))
    }

    fn line(&mut self, class: &str, points: &[[f64; 2]]) {
        let mut path = String::new();
        for (index, [x, y]) in points.iter().enumerate() {
            let letter = if index == 0 { 'M' } else { 'L' };
            let _ = write!(path, "{letter}{:.1} {:.1}", self.left(*x), self.top(*y));
        }
        self.add(format_args!("<path class=\"{class}\" d=\"{path}\"/>"));
    }

    fn dot(&mut self, class: &str, [x, y]: [f64; 2], radius: f64) {
        let (x, y) = (self.left(x), self.top(y));
        self.add(format_args!(
            "<circle class=\"{class}\" cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"{radius:.1}\"/>"
        ));
    }

    fn end(mut self) -> String {
        self.svg.push_str("</svg>");
        self.svg
    }
}

const UNIT: [f64; 2] = [0.0, 1.0];
const FIFTHS: [f64; 6] = [0.0, 0.2, 0.4, 0.6, 0.8, 1.0];

/// The ROC curve; `at` is the operating point.
pub fn roc(points: &[[f64; 2]], at: Option<[f64; 2]>) -> String {
    let names = ["1 − specificity", "sensitivity"];
    let mut frame = Frame::new("ROC curve", [UNIT, UNIT], SIDE, names, [&FIFTHS, &FIFTHS]);
    frame.line("guide", &[[0.0, 0.0], [1.0, 1.0]]);
    let kept = thinned(points);
    let mut area = kept.clone();
    area.push([1.0, 0.0]);
    frame.line("area", &area);
    frame.line("curve", &kept);
    if let Some(at) = at {
        frame.dot("point", at, 5.0);
    }
    frame.end()
}

/// The reliability diagram: the fraction of positives by probability, dots by number of cases.
pub fn reliability(bins: &[Bin]) -> String {
    let names = ["mean probability", "fraction that has the label"];
    let title = "Reliability diagram";
    let mut frame = Frame::new(title, [UNIT, UNIT], SIDE, names, [&FIFTHS, &FIFTHS]);
    frame.line("guide", &[[0.0, 0.0], [1.0, 1.0]]);
    let most = bins.iter().map(|bin| bin.cases).max().unwrap_or(1).max(1) as f64;
    let known: Vec<(u64, [f64; 2])> = bins
        .iter()
        .filter_map(|bin| Some((bin.cases, [bin.score?, bin.positives?])))
        .collect();
    let line: Vec<[f64; 2]> = known.iter().map(|(_, point)| *point).collect();
    frame.line("thin", &line);
    for (cases, point) in known {
        frame.dot("point", point, 2.5 + 6.0 * (cases as f64 / most).sqrt());
    }
    frame.end()
}

/// How many cases each bin of the reliability diagram has.
pub fn counts(bins: &[Bin]) -> String {
    let most = bins.iter().map(|bin| bin.cases).max().unwrap_or(1).max(1) as f64;
    let names = ["probability", "studies"];
    let ticks = [0.0, most];
    let title = "Studies by probability";
    let mut frame = Frame::new(title, [UNIT, [0.0, most]], 64.0, names, [&FIFTHS, &ticks]);
    for bin in bins {
        let (left, right) = (frame.left(bin.above) + 1.0, frame.left(bin.to) - 1.0);
        let (top, foot) = (frame.top(bin.cases as f64), frame.top(0.0));
        frame.add(format_args!(
            "<rect class=\"bar\" x=\"{left:.1}\" y=\"{top:.1}\" width=\"{:.1}\" height=\"{:.1}\"/>",
            right - left,
            foot - top
        ));
    }
    frame.end()
}

/// Differences by mean (Bland and Altman); `lines`: lower limit, bias, upper limit.
pub fn differences(pairs: &[Pair], lines: [Option<f64>; 3]) -> String {
    let points: Vec<[f64; 2]> = pairs
        .iter()
        .map(|pair| {
            [
                (pair.predicted + pair.actual) / 2.0,
                pair.predicted - pair.actual,
            ]
        })
        .collect();
    let range = |of: &dyn Fn(&[f64; 2]) -> f64, more: &[f64]| {
        let values = || points.iter().map(of).chain(more.iter().copied());
        let (low, high) = (
            values().fold(f64::INFINITY, f64::min),
            values().fold(f64::NEG_INFINITY, f64::max),
        );
        let room = if high > low { (high - low) * 0.08 } else { 1.0 };
        [low - room, high + room]
    };
    let more: Vec<f64> = lines.into_iter().flatten().chain([0.0]).collect();
    let (x, y) = (
        range(&|point| point[0], &[]),
        range(&|point| point[1], &more),
    );
    if ![x, y].as_flattened().iter().all(|end| end.is_finite()) {
        return String::new();
    }
    let ticks = |[low, high]: [f64; 2]| -> Vec<f64> {
        let step = nice((high - low) / 5.0);
        let first = (low / step).ceil() as i64;
        let last = (high / step).floor() as i64;
        (first..=last).take(20).map(|at| at as f64 * step).collect()
    };
    let names = ["mean of predicted and actual", "predicted − actual"];
    let title = "Differences by mean";
    let mut frame = Frame::new(title, [x, y], SIDE, names, [&ticks(x), &ticks(y)]);
    frame.line("guide", &[[x[0], 0.0], [x[1], 0.0]]);
    for (line, class) in lines.into_iter().zip(["limit", "curve", "limit"]) {
        if let Some(at) = line {
            frame.line(class, &[[x[0], at], [x[1], at]]);
        }
    }
    for point in thinned(&points) {
        frame.dot("cloud", point, 2.5);
    }
    frame.end()
}

/// 1, 2 or 5 times a power of ten, at least `step`.
fn nice(step: f64) -> f64 {
    let power = 10f64.powf(step.log10().floor());
    let factors = [1.0, 2.0, 5.0, 10.0];
    factors
        .into_iter()
        .map(|factor| factor * power)
        .find(|nice| *nice >= step)
        .unwrap_or(step)
}

/// At most [`MAX_POINTS`] points, the last among them.
fn thinned(points: &[[f64; 2]]) -> Vec<[f64; 2]> {
    let step = points.len().div_ceil(MAX_POINTS).max(1);
    let last = points.last().copied();
    let mut kept: Vec<[f64; 2]> = points.iter().step_by(step).copied().collect();
    if last != kept.last().copied() {
        kept.extend(last);
    }
    kept
}

fn short(value: f64) -> String {
    // Rounded, so that 0.30000000000000004 is 0.3.
    format!("{}", (value * 1e6).round() / 1e6)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_curve_is_thinned_and_keeps_its_end() {
        let points: Vec<[f64; 2]> = (0..9001).map(|at| [f64::from(at), 0.0]).collect();
        let kept = thinned(&points);
        assert!(kept.len() <= MAX_POINTS + 1, "{}", kept.len());
        assert_eq!(kept.last(), points.last());
    }

    #[test]
    fn steps_are_nice() {
        for (step, expected) in [(0.13, 0.2), (4.0, 5.0), (70.0, 100.0), (1.0, 1.0)] {
            assert_eq!(nice(step), expected);
        }
    }

    #[test]
    fn equal_pairs_have_a_plot_and_none_has_none() {
        let pair = Pair {
            predicted: 2.0,
            actual: 2.0,
        };
        assert!(differences(&[pair], [None; 3]).contains("circle"));
        assert_eq!(differences(&[], [None; 3]), "");
    }
}
