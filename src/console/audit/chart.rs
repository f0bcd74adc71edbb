//! Counts over time, as a bar chart and as a table.

use std::time::Duration;

use super::super::format::format_grouped;
use crate::domain::UnixMillis;

/// Height of a panel in units of the SVG view box, which the page stretches to its own width.
const CHART_HEIGHT: u64 = 100;
const BAR_PITCH: u64 = 20;
const BAR_GAP: u64 = 4;

/// A time span that the chart can cover, and how it is divided into bars.
#[derive(Clone, Copy, Debug)]
pub(super) struct ChartSpan {
    /// Value of the query parameter `span`.
    pub(super) name: &'static str,
    /// Label of the span.
    pub(super) text: &'static str,
    /// Label of the time that one bar covers.
    pub(super) step: &'static str,
    /// Hours that one bar covers.
    pub(super) hours: u64,
    /// Number of completed bars; one more covers the current hours, which are not over.
    pub(super) bars: u64,
}

impl ChartSpan {
    fn bar_duration(&self) -> Duration {
        Duration::from_secs(self.hours * 3600)
    }

    /// Returns the start of the first bar, at a full hour or day (UTC).
    pub(super) fn start(&self, now: UnixMillis) -> UnixMillis {
        let step = i64::try_from(self.bar_duration().as_millis()).unwrap_or(i64::MAX);
        let present = UnixMillis::from_millis(now.as_millis().saturating_sub(now.as_millis().rem_euclid(step)));
        present.saturating_sub(self.bar_duration() * u32::try_from(self.bars).unwrap_or(u32::MAX))
    }

    /// Formats the start of a bar.
    fn bar_label(&self, at: UnixMillis) -> String {
        let plain = at.format_utc();
        let length = if self.hours < 24 { 16 } else { 10 };
        plain.get(..length).unwrap_or(&plain).to_owned()
    }
}

/// A data series: one column of the table.
#[derive(Clone, Copy, Debug)]
pub(super) struct ChartSeries {
    /// Heading within its panel.
    pub(super) title: &'static str,
    /// Label that tells it from the series of all panels.
    pub(super) label: &'static str,
    /// Index of the panel that sums it up.
    pub(super) panel: usize,
}

/// A bar chart with a scale of its own.
pub(super) struct ChartPanel {
    /// Title of the panel.
    pub(super) title: &'static str,
    /// CSS class of the bars.
    pub(super) class: &'static str,
    /// Total of all bars.
    pub(super) total: String,
    /// Count of the highest bar.
    pub(super) max: String,
    /// Bars with a count above zero, the oldest first.
    pub(super) bars: Vec<ChartBar>,
}

/// One bar, in units of the view box.
pub(super) struct ChartBar {
    /// Left edge.
    pub(super) x: u64,
    /// Top edge.
    pub(super) y: u64,
    /// Height.
    pub(super) height: u64,
    /// Tooltip: time and count.
    pub(super) title: String,
}

/// A row of the table.
pub(super) struct ChartTableRow {
    /// Start of the time that it covers.
    pub(super) from: String,
    /// Count of each series; empty for zero.
    pub(super) cells: Vec<String>,
}

/// The chart of a time span.
pub(super) struct AuditChart {
    /// The panels.
    pub(super) panels: Vec<ChartPanel>,
    /// The columns of the table.
    pub(super) series: &'static [ChartSeries],
    /// The rows of the table that have a count above zero, the latest first.
    pub(super) lines: Vec<ChartTableRow>,
    /// Start of the span.
    pub(super) start: String,
    /// Width and height of the view box of a panel.
    pub(super) size: (u64, u64),
    /// Width of a bar.
    pub(super) width: u64,
}

impl AuditChart {
    /// Sums up occurrences (time, index of the series, count) in bars. Those before the span are left out.
    pub(super) fn new(
        panels: [(&'static str, &'static str); 2],
        series: &'static [ChartSeries],
        occurrences: impl Iterator<Item = (UnixMillis, usize, u64)>,
        span: &ChartSpan,
        now: UnixMillis,
    ) -> Self {
        let start = span.start(now);
        let bar_count = usize::try_from(span.bars + 1).unwrap_or(1);
        let mut counts = vec![vec![0u64; series.len()]; bar_count];
        for (at, series_index, count) in occurrences.filter(|(at, ..)| *at >= start) {
            let bar_index = at.saturating_duration_since(start).as_millis() / span.bar_duration().as_millis().max(1);
            // An event may lie in the future after a clock has been set back: it counts in the last bar.
            let bar_index = usize::try_from(bar_index).unwrap_or(usize::MAX).min(bar_count - 1);
            if let Some(cell) = counts[bar_index].get_mut(series_index) {
                *cell = cell.saturating_add(count);
            }
        }
        let label = |bar_index: usize| {
            span.bar_label(start.saturating_add(span.bar_duration() * u32::try_from(bar_index).unwrap_or(u32::MAX)))
        };
        let panel = |(at, (title, class))| {
            let panel_total = |cells: &Vec<u64>| -> u64 {
                let own = series.iter().zip(cells).filter(|(series, _)| series.panel == at);
                own.map(|(_, count)| *count).fold(0, u64::saturating_add)
            };
            let sums: Vec<u64> = counts.iter().map(panel_total).collect();
            ChartPanel::new(title, class, &sums, label)
        };
        let line = |(bar_index, cells): (usize, &Vec<u64>)| {
            let text = |count: &u64| if *count == 0 { String::new() } else { format_count(*count) };
            ChartTableRow { from: label(bar_index), cells: cells.iter().map(text).collect() }
        };
        let lines = counts.iter().enumerate().rev().filter(|(_, cells)| cells.iter().any(|count| *count > 0));
        Self {
            panels: panels.into_iter().enumerate().map(panel).collect(),
            series,
            lines: lines.map(line).collect(),
            start: label(0),
            size: (BAR_PITCH * (span.bars + 1), CHART_HEIGHT),
            width: BAR_PITCH - BAR_GAP,
        }
    }
}

impl ChartPanel {
    fn new(title: &'static str, class: &'static str, sums: &[u64], label: impl Fn(usize) -> String) -> Self {
        let max = sums.iter().copied().max().unwrap_or(0);
        let bar = |(bar_index, sum): (usize, &u64)| {
            let height = u128::from(*sum) * u128::from(CHART_HEIGHT);
            // Rounded up, so that a single event stays visible beside a million.
            let height = u64::try_from(height.div_ceil(u128::from(max.max(1)))).unwrap_or(CHART_HEIGHT);
            ChartBar {
                x: bar_index as u64 * BAR_PITCH + BAR_GAP / 2,
                y: CHART_HEIGHT - height,
                height,
                title: format!("from {}: {}", label(bar_index), format_count(*sum)),
            }
        };
        Self {
            title,
            class,
            total: format_count(sums.iter().copied().fold(0, u64::saturating_add)),
            max: format_count(max),
            bars: sums.iter().enumerate().filter(|(_, sum)| **sum > 0).map(bar).collect(),
        }
    }
}

fn format_count(count: u64) -> String {
    format_grouped(usize::try_from(count).unwrap_or(usize::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SERIES: &[ChartSeries] = &[
        ChartSeries { title: "WebDAV", label: "WebDAV", panel: 0 },
        ChartSeries { title: "SFTP", label: "SFTP", panel: 0 },
        ChartSeries { title: "Refused", label: "Refused", panel: 1 },
    ];
    const PANELS: [(&str, &str); 2] = [("Uses", "uses"), ("Refusals", "refusals")];
    const WEEK: ChartSpan = ChartSpan { name: "week", text: "7 days", step: "4 hours", hours: 4, bars: 42 };

    /// Returns 2026-05-05 08:00:00 UTC plus a number of hours.
    fn hours_after_epoch(hours: u64) -> UnixMillis {
        UnixMillis::from_millis(1_777_968_000_000).saturating_add(Duration::from_secs(hours * 3600))
    }

    fn bar_heights(panel: &ChartPanel) -> Vec<(u64, u64)> {
        panel.bars.iter().map(|bar| (bar.x / BAR_PITCH, bar.height)).collect()
    }

    #[test]
    fn events_are_counted_in_the_bar_of_their_time() {
        let now = hours_after_epoch(7 * 24 + 3);
        let occurrences = [
            (hours_after_epoch(0), 0, 6),
            (hours_after_epoch(1), 1, 2),
            (hours_after_epoch(5), 0, 2),
            (hours_after_epoch(6), 2, 1),
            (now, 0, 4),
        ];
        let chart = AuditChart::new(PANELS, SERIES, occurrences.into_iter(), &WEEK, now);
        let [uses, refusals] = &chart.panels[..] else { panic!("two drawings") };
        assert_eq!((bar_heights(uses), bar_heights(refusals)), (vec![(0, 100), (1, 25), (42, 50)], vec![(1, 100)]));
        assert_eq!((uses.total.as_str(), uses.max.as_str(), refusals.total.as_str()), ("14", "8", "1"));
        assert!(uses.bars.iter().all(|bar| bar.y + bar.height == CHART_HEIGHT));
        assert_eq!(
            (chart.start.as_str(), uses.bars[1].title.as_str()),
            ("2026-05-05 08:00", "from 2026-05-05 12:00: 2")
        );
        let lines: Vec<_> = chart.lines.iter().map(|line| line.cells.join("|")).collect();
        assert_eq!(lines, ["4||", "2||1", "6|2|"], "the latest first, and none that is empty");
    }

    #[test]
    fn chart_starts_at_a_full_hour_or_day_and_covers_its_whole_span() {
        for (hours, bars) in [(1, 24), (4, 42), (24, 30), (24, 90)] {
            let span = ChartSpan { hours, bars, ..WEEK };
            for minute in 0..3000 {
                let now = hours_after_epoch(0).saturating_add(Duration::from_secs(minute * 60));
                let (start, covered) = (span.start(now), span.bar_duration() * u32::try_from(bars).expect("few"));
                assert!(
                    now.saturating_duration_since(start) >= covered
                        && now.saturating_duration_since(start) < covered + span.bar_duration()
                );
                assert_eq!(start.as_millis() % (3_600_000 * i64::try_from(hours).expect("few")), 0);
            }
        }
    }

    #[test]
    fn empty_chart_is_valid_and_single_event_is_visible() {
        let none = AuditChart::new(PANELS, SERIES, std::iter::empty(), &WEEK, hours_after_epoch(0));
        assert!(none.lines.is_empty() && none.panels.iter().all(|panel| panel.bars.is_empty() && panel.total == "0"));
        let occurrences =
            [(hours_after_epoch(0), 0, u64::MAX), (hours_after_epoch(0), 1, 1), (hours_after_epoch(4), 1, 1)];
        let chart = AuditChart::new(PANELS, SERIES, occurrences.into_iter(), &WEEK, hours_after_epoch(4));
        assert_eq!(bar_heights(&chart.panels[0]), [(41, 100), (42, 1)]);
    }
}
