//! Non-maximum suppression: of boxes that show the same thing the most probable one stays.
//!
//! Greedy, as in `torchvision.ops.nms`: by falling score, of equals the first; a box goes when its
//! intersection over union with one that stays is *above* the limit.

/// A box: left, top, right, bottom.
pub type Edges = [f64; 4];

/// Something with a box and a score.
#[derive(Debug, Clone, PartialEq)]
pub struct Scored {
    /// Its probability.
    pub score: f64,
    /// Where it is.
    pub edges: Edges,
}

/// Those of `boxes` that stay, the most probable first, at most `most`. Costs as many comparisons as
/// there are boxes and boxes that stay, multiplied.
pub fn suppress(mut boxes: Vec<Scored>, iou_above: Option<f64>, most: usize) -> Vec<Scored> {
    // Stable, so that of equals the first stays.
    boxes.sort_by(|left, right| right.score.total_cmp(&left.score));
    let mut kept: Vec<Scored> = Vec::new();
    for one in boxes {
        if kept.len() == most {
            break;
        }
        let same =
            |other: &Scored| iou_above.is_some_and(|most| iou(&one.edges, &other.edges) > most);
        if !kept.iter().any(same) {
            kept.push(one);
        }
    }
    kept
}

/// Intersection over union.
fn iou(a: &Edges, b: &Edges) -> f64 {
    let area = |[left, top, right, bottom]: &Edges| (right - left) * (bottom - top);
    let across = (a[2].min(b[2]) - a[0].max(b[0])).max(0.0);
    let down = (a[3].min(b[3]) - a[1].max(b[1])).max(0.0);
    let both = across * down;
    both / (area(a) + area(b) - both)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(score: f64, left: f64) -> Scored {
        Scored {
            score,
            edges: [left, 0.0, left + 10.0, 10.0],
        }
    }

    #[test]
    fn the_limit_itself_is_no_overlap() {
        // 5 of 15 shared: 1/3.
        let boxes = vec![at(0.5, 5.0), at(0.9, 0.0)];
        let kept = |iou| suppress(boxes.clone(), iou, 9).len();
        assert_eq!(
            (kept(Some(0.33)), kept(Some(1.0 / 3.0)), kept(None)),
            (1, 2, 2)
        );
    }

    #[test]
    fn what_was_dropped_drops_nothing() {
        let boxes = vec![at(0.9, 0.0), at(0.8, 4.0), at(0.7, 8.0)];
        let kept = suppress(boxes, Some(0.4), 9);
        assert_eq!(kept, [at(0.9, 0.0), at(0.7, 8.0)]);
    }

    #[test]
    fn of_equals_the_first_stays_and_there_is_an_end() {
        let boxes = vec![at(0.5, 1.0), at(0.5, 0.0), at(0.4, 50.0), at(0.3, 90.0)];
        let kept = suppress(boxes, Some(0.5), 2);
        assert_eq!(kept, [at(0.5, 1.0), at(0.4, 50.0)]);
    }
}
