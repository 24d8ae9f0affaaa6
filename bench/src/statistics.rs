//! The two numbers that stand for several rounds: the median, and an interval that it lies in.
//!
//! The interval is the bootstrap's: the rounds are drawn again and again with replacement, and 95 % of the medians of
//! those draws lie in it. With five rounds that is close to "from the worst to the best", as it should be.

const DRAWS: usize = 10_000;
/// Always the same draws, so that a table computed twice from one series is the same table.
const SEED: u64 = 0x006F_7474_6C61;

/// The middle value, or the mean of the two in the middle.
pub(crate) fn median(values: &[f64]) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let above = *sorted.get(sorted.len() / 2)?;
    let below = *sorted.get(sorted.len().saturating_sub(1) / 2)?;
    Some(f64::midpoint(below, above))
}

/// Where the median lies with 95 % confidence; nothing to say of fewer than two rounds.
pub(crate) fn interval(values: &[f64]) -> Option<(f64, f64)> {
    if values.len() < 2 {
        return None;
    }
    let mut random = fastrand::Rng::with_seed(SEED);
    let mut medians = Vec::with_capacity(DRAWS);
    for _ in 0..DRAWS {
        let draw: Vec<f64> = values.iter().filter_map(|_| random.choice(values).copied()).collect();
        medians.extend(median(&draw));
    }
    medians.sort_by(f64::total_cmp);
    let low = *medians.get(DRAWS * 25 / 1000)?;
    let high = *medians.get(DRAWS * 975 / 1000)?;
    Some((low, high))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_the_middle() {
        assert_eq!(median(&[]), None);
        assert_eq!(median(&[7.0]), Some(7.0));
        assert_eq!(median(&[3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(&[4.0, 1.0, 3.0, 2.0]), Some(2.5));
    }

    /// The share of draws whose median is the smallest of five is 5.8 %, of nine 0.1 % (binomial); the second
    /// smallest of nine or less 3 %. So 2.5 % of the draws end at the extreme of five and at the second of nine.
    #[test]
    fn the_interval_is_where_the_binomial_says() {
        let numbers: Vec<f64> = (1..=9).map(f64::from).collect();
        assert_eq!(interval(&numbers[..5]), Some((1.0, 5.0)));
        assert_eq!(interval(&numbers), Some((2.0, 8.0)));
    }

    #[test]
    fn rounds_that_agree_leave_no_doubt_and_one_round_leaves_all() {
        assert_eq!(interval(&[2.0; 5]), Some((2.0, 2.0)));
        assert_eq!(interval(&[2.0]), None);
    }
}
