//! Medians and their confidence intervals.

use serde::Serialize;

/// A median with its 95 % confidence interval.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Interval {
    /// Lower bound.
    pub low: f64,
    /// The median.
    pub median: f64,
    /// Upper bound.
    pub high: f64,
}

impl Interval {
    /// The median of `samples`; the interval is that of the order statistics, which assumes nothing about how the samples are
    /// distributed. `None` without samples.
    pub fn of(samples: &[f64]) -> Option<Self> {
        if samples.is_empty() {
            return None;
        }
        let mut sorted = samples.to_vec();
        sorted.sort_by(f64::total_cmp);
        let count = sorted.len();
        // Half the width in ranks: 1.96 standard deviations of a binomial with p = 1/2.
        #[expect(clippy::cast_sign_loss)] // A square root is not negative.
        let half = (0.98 * (count as f64).sqrt()).ceil() as usize;
        let middle = count / 2;
        let median = match count % 2 {
            1 => sorted[middle],
            _ => f64::midpoint(sorted[middle - 1], sorted[middle]),
        };
        Some(Self {
            low: sorted[middle.saturating_sub(half)],
            median,
            high: sorted[(middle + half).min(count - 1)],
        })
    }
}

/// Measures `a` and `b` in turns, each pair in the other order, and returns both lists of seconds.
///
/// # Errors
///
/// The first that fails.
pub fn paired<C, E>(
    context: &mut C,
    pairs: usize,
    mut a: impl FnMut(&mut C) -> Result<f64, E>,
    mut b: impl FnMut(&mut C) -> Result<f64, E>,
) -> Result<Vec<(f64, f64)>, E> {
    let mut samples = Vec::with_capacity(pairs);
    for pair in 0..pairs {
        if pair % 2 == 0 {
            let first = a(context)?;
            samples.push((first, b(context)?));
        } else {
            let second = b(context)?;
            samples.push((a(context)?, second));
        }
    }
    Ok(samples)
}

#[cfg(test)]
mod tests {
    use super::{Interval, paired};

    #[test]
    fn the_median_lies_in_its_interval() {
        let samples: Vec<f64> = (0..101).map(f64::from).collect();
        let interval = Interval::of(&samples).expect("samples");
        assert!((interval.median - 50.0).abs() < 1e-9);
        assert!((interval.low - 40.0).abs() < 1e-9 && (interval.high - 60.0).abs() < 1e-9);
        assert_eq!(Interval::of(&[]), None);
    }

    #[test]
    fn pairs_alternate() {
        let mut order = Vec::new();
        let run = |name: char| {
            move |order: &mut Vec<char>| {
                order.push(name);
                Ok::<f64, ()>(1.0)
            }
        };
        paired(&mut order, 2, run('a'), run('b')).expect("it measures");
        assert_eq!(order, ['a', 'b', 'b', 'a']);
    }
}
