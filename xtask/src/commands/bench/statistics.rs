//! Arithmetic over samples.

/// The value that at least `percent` of a hundred samples do not exceed (nearest rank): always one of the samples, so
/// that the number printed is something that happened. `None` without samples.
pub fn percentile(samples: &[f64], percent: usize) -> Option<f64> {
    let mut sorted = samples.to_vec();
    sorted.sort_by(f64::total_cmp);
    let rank = (sorted.len() * percent.min(100)).div_ceil(100).max(1);
    sorted.get(rank - 1).copied()
}

/// `count` points between 0 and 1 in ascending order, spread evenly but not regularly: the fractional parts of the
/// multiples of the golden ratio. Regular points could fall into step with whatever is measured, and random ones would
/// make two runs differ.
pub fn spread(count: usize) -> Vec<f64> {
    const GOLDEN_RATIO: f64 = 1.618_033_988_749_895;
    let mut points = Vec::with_capacity(count);
    let mut point = 0.0;
    for _ in 0..count {
        point = (point + GOLDEN_RATIO) % 1.0;
        points.push(point);
    }
    points.sort_by(f64::total_cmp);
    points
}

/// Linear interpolation between known points, sorted by x; constant beyond them. `None` without points.
pub fn interpolate(points: &[(f64, f64)], x: f64) -> Option<f64> {
    let (first, last) = (points.first()?, points.last()?);
    if x <= first.0 {
        return Some(first.1);
    }
    let between = points
        .windows(2)
        .find(|pair| x <= pair[1].0)
        .map(|pair| pair[0].1 + (pair[1].1 - pair[0].1) * (x - pair[0].0) / (pair[1].0 - pair[0].0));
    Some(between.unwrap_or(last.1))
}

/// A count as a number to calculate with; exact up to 2^53.
#[expect(clippy::cast_precision_loss, reason = "no benchmark counts to 2^53")]
pub fn number(count: usize) -> f64 {
    count as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_samples() {
        let hundred: Vec<f64> = (1..=100).rev().map(f64::from).collect();
        for (percent, expected) in [(0, 1.0), (1, 1.0), (50, 50.0), (99, 99.0), (100, 100.0)] {
            assert_eq!(percentile(&hundred, percent), Some(expected), "p{percent}");
        }
        assert_eq!(percentile(&[3.0, 1.0, 2.0], 50), Some(2.0));
        assert_eq!(percentile(&[1.0, 2.0], 99), Some(2.0));
        assert_eq!(percentile(&[], 50), None);
    }

    #[test]
    fn spread_points_cover_the_span_and_keep_their_distance() {
        let points = spread(100);
        assert_eq!(points.len(), 100);
        assert!(points[0] > 0.0 && points[0] < 0.02);
        assert!(points[99] < 1.0 && points[99] > 0.98);
        let gaps: Vec<f64> = points.windows(2).map(|pair| pair[1] - pair[0]).collect();
        assert!(gaps.iter().all(|gap| (0.003..0.03).contains(gap)), "{gaps:?}");
        assert!(
            gaps.iter().any(|gap| (gap - gaps[0]).abs() > 0.001),
            "not regular"
        );
    }

    #[test]
    fn interpolation_is_linear_inside_and_constant_outside() {
        let points = [(0.0, 15.0), (1_000.0, 30.0), (10_000.0, 100.0)];
        for (x, y) in [
            (-1.0, 15.0),
            (0.0, 15.0),
            (500.0, 22.5),
            (1_000.0, 30.0),
            (5_500.0, 65.0),
            (20_000.0, 100.0),
        ] {
            assert_eq!(interpolate(&points, x), Some(y), "at {x}");
        }
        assert_eq!(interpolate(&[], 1.0), None);
    }
}
