//! Events over time, as bars.

use std::time::Duration;

use crate::domain::Time;

/// Bars in a chart.
const BARS: u64 = 48;
/// The size of the drawing.
const WIDTH: u64 = 960;
const HEIGHT: u64 = 160;

/// One span of time.
pub(super) struct Bar {
    /// Where it begins, from the left.
    pub(super) x: u64,
    /// The top of the part that stands for refusals.
    pub(super) refused_y: u64,
    /// How high that is.
    pub(super) refused_height: u64,
    /// The top of the part that stands for everything else.
    pub(super) other_y: u64,
    /// How high that is.
    pub(super) other_height: u64,
    /// What it says.
    pub(super) title: String,
}

/// A chart of refusals and of everything else.
pub(super) struct Chart {
    /// The bars, from the past to now.
    pub(super) bars: Vec<Bar>,
    /// How wide a bar is.
    pub(super) width: u64,
    /// The size of the drawing.
    pub(super) size: (u64, u64),
    /// How much happened that was no refusal.
    pub(super) other: u64,
    /// How many refusals there were.
    pub(super) refused: u64,
    /// What the highest bar stands for.
    pub(super) most: u64,
}

impl Chart {
    /// Draws what happened (when, how often, and whether it was refused) in a span of time.
    pub(super) fn new(happened: impl Iterator<Item = (Time, u64, bool)>, since: Time, span: Duration) -> Self {
        let step = u64::try_from(span.as_millis()).unwrap_or(u64::MAX).div_ceil(BARS).max(1);
        let mut counts = vec![(0u64, 0u64); usize::try_from(BARS).unwrap_or(0)];
        for (at, count, refused) in happened {
            let after = u64::try_from(at.since(since).as_millis()).unwrap_or(0);
            let bar = usize::try_from((after / step).min(BARS - 1)).unwrap_or(0);
            let (other, refusals) = &mut counts[bar];
            if refused { *refusals += count } else { *other += count }
        }
        let most = counts.iter().map(|(other, refused)| other + refused).max().unwrap_or(0);
        let high = |count: u64| if most == 0 { 0 } else { (count * HEIGHT).div_ceil(most) };
        let slot = WIDTH / BARS;
        let bar = |(at, (other, refused)): (u64, &(u64, u64))| {
            let refused_height = high(*refused);
            let other_height = high(*other).min(HEIGHT - refused_height);
            let begins = since.after(Duration::from_millis(at * step));
            Bar {
                x: at * slot + 2,
                refused_y: HEIGHT - refused_height,
                refused_height,
                other_y: HEIGHT - refused_height - other_height,
                other_height,
                title: format!("from {begins}: {other} events, {refused} refusals"),
            }
        };
        Self {
            bars: (0..).zip(&counts).map(bar).collect(),
            width: slot - 4,
            size: (WIDTH, HEIGHT),
            other: counts.iter().map(|(other, _)| other).sum(),
            refused: counts.iter().map(|(_, refused)| refused).sum(),
            most,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bars_stand_for_what_happened_in_their_time() {
        let since = Time::from_millis(1_000_000);
        let span = Duration::from_secs(48);
        let events =
            [(since, 3, false), (since.after(Duration::from_millis(500)), 1, true), (since.after(span), 2, false)];
        let chart = Chart::new(events.into_iter(), since, span);
        assert_eq!((chart.bars.len(), chart.other, chart.refused, chart.most), (48, 5, 1, 4));
        let first = &chart.bars[0];
        assert_eq!((first.refused_height, first.other_height, first.other_y), (40, 120, 0));
        assert_eq!(chart.bars[47].other_height, 80);
        assert!(chart.bars.iter().all(|bar| bar.other_y + bar.other_height + bar.refused_height == 160));
    }

    #[test]
    fn nothing_is_no_fault() {
        let chart = Chart::new(std::iter::empty(), Time::from_millis(0), Duration::ZERO);
        assert_eq!((chart.most, chart.bars.len()), (0, 48));
    }
}
