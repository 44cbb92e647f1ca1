//! The colours of heat: perceptually ordered, so that hotter is brighter for every eye.

/// `inferno` of Matplotlib 3.11 (Nathaniel Smith and Stéfan van der Walt, CC0) at 0, 1/15, … 1:
/// lightness rises evenly in CAM02-UCS, also for people who cannot tell red from green.
const INFERNO: [[u8; 3]; 16] = [
    [0, 0, 4],
    [12, 8, 38],
    [36, 12, 79],
    [66, 10, 104],
    [93, 18, 110],
    [120, 28, 109],
    [147, 38, 103],
    [174, 48, 92],
    [199, 62, 76],
    [221, 81, 58],
    [237, 105, 37],
    [248, 133, 15],
    [252, 165, 10],
    [250, 198, 45],
    [242, 230, 97],
    [252, 255, 164],
];

/// How much of the picture the hottest place hides.
const STRONGEST: f32 = 0.7;

/// Red, green and blue of a heat of 0 to 1, straight between the points of the table.
pub fn of(heat: f32) -> [f32; 3] {
    let last = INFERNO.len() - 1;
    // Casts make 0 of what is no number.
    let place = heat.clamp(0.0, 1.0) * last as f32;
    let first = (place as usize).min(last - 1);
    let part = (place - first as f32).clamp(0.0, 1.0);
    let [low, high] = [first, first + 1].map(|at| INFERNO.get(at).copied().unwrap_or_default());
    std::array::from_fn(|i| {
        let [low, high] = [low, high].map(|point| f32::from(point.get(i).copied().unwrap_or(0)));
        high * part + low * (1.0 - part)
    })
}

/// A grey value with heat over it: the hotter, the less of the picture is left.
pub fn over(grey: u8, heat: f32) -> [u8; 3] {
    let hidden = STRONGEST * heat.clamp(0.0, 1.0);
    let grey = f32::from(grey) * (1.0 - hidden);
    // The cast saturates.
    of(heat).map(|colour| (colour * hidden + grey).round() as u8)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colours_are_those_of_the_table_and_between_them() {
        assert_eq!(of(0.0), [0.0, 0.0, 4.0]);
        assert_eq!(of(1.0), [252.0, 255.0, 164.0]);
        assert_eq!(of(0.5 / 15.0), [6.0, 4.0, 21.0]);
    }

    #[test]
    fn brightness_rises_with_heat() {
        let bright = |step: u8| {
            let [r, g, b] = of(f32::from(step) / 255.0);
            0.2126f32.mul_add(r, 0.7152f32.mul_add(g, 0.0722 * b))
        };
        assert!((1..=255).all(|step| bright(step) > bright(step - 1)));
    }

    #[test]
    fn no_heat_leaves_the_picture_and_the_hottest_leaves_a_third() {
        assert_eq!(over(100, 0.0), [100; 3]);
        // 0.3 × 100 + 0.7 × (252, 255, 164)
        assert_eq!(over(100, 1.0), [206, 209, 145]);
    }
}
