//! `patgate audit`: what happened, as the audit trail has it.

use std::time::Duration;

use clap::Args;

use super::desk::Desk;
use super::site::Site;
use super::{Failure, Result, output};
use crate::api::types::EventResponse;
use crate::auth::Clock;
use crate::domain::{EventKind, Lifetime, Login, TokenId, UnixMillis, escape_for_terminal};
use crate::store::{EventCursor, EventFilter};

/// How often `--follow` looks for more.
const LOOK: Duration = Duration::from_millis(500);
/// How many events are read at once.
const PAGE: usize = 500;

/// Show what happened to tokens, users and files: who made, used, was refused or changed what
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  patgate audit
  patgate audit --since 24h --user alice
  patgate audit --event attempt.refused --since 2026-05-05 --json
  patgate audit --token JhxND7ci --follow")]
pub(super) struct Audit {
    /// Only from then on: how long ago (24h, 7d) or a date (2026-05-05, 2026-05-05T08:00:00Z)
    #[arg(long, value_name = "WHEN", value_parser = Since::read)]
    since: Option<Since>,
    /// Only what concerns this user
    #[arg(long, value_name = "LOGIN")]
    user: Option<Login>,
    /// Only what concerns this token
    #[arg(long, value_name = "ID")]
    token: Option<TokenId>,
    /// Only this kind of event, such as token.first_used or attempt.refused
    #[arg(long, value_name = "EVENT")]
    event: Option<EventKind>,
    /// The latest so many [default: 100, or with --since all]
    #[arg(long, value_name = "N")]
    limit: Option<usize>,
    /// Go on with what happens from now on; with --json one object a line
    #[arg(short, long)]
    follow: bool,
}

/// From when on.
#[derive(Clone, Copy, Debug)]
enum Since {
    Ago(Lifetime),
    At(UnixMillis),
}

impl Since {
    fn read(text: &str) -> std::result::Result<Self, String> {
        if let Ok(ago) = text.parse() {
            return Ok(Self::Ago(ago));
        }
        let midnight =
            || text.parse::<jiff::civil::Date>()?.to_zoned(jiff::tz::TimeZone::UTC).map(|day| day.timestamp());
        let stamp = text.parse::<jiff::Timestamp>().or_else(|_| midnight());
        let stamp = stamp.map_err(|_| {
            format!("{text:?} is no time: give how long ago (24h, 7d) or a date (2026-05-05, 2026-05-05T08:00:00Z)")
        })?;
        Ok(Self::At(UnixMillis::from_millis(stamp.as_millisecond())))
    }

    fn time(self, now: UnixMillis) -> UnixMillis {
        match self {
            Since::Ago(ago) => now.saturating_sub(ago.as_duration()),
            Since::At(time) => time,
        }
    }
}

impl Audit {
    /// Shows what was asked for.
    pub(super) fn run(&self, site: &Site) -> Result {
        let desk = site.desk()?;
        let filter = EventFilter {
            since: self.since.map(|since| since.time(Clock::system().now())),
            user: self.user.clone(),
            token: self.token,
            kind: self.event,
        };
        // Asked first, so that nothing falls between what was and what comes.
        let newest = desk.events(&EventFilter::default(), EventCursor::Latest, 1)?.first().map_or(0, |event| event.id);
        let past = self.past(desk.as_ref(), &filter)?;
        if site.json() && !self.follow {
            return output::json(&past);
        }
        past.iter().try_for_each(|event| say(site, event))?;
        if !self.follow {
            return Ok(());
        }
        let mut seen = past.last().map_or(newest, |event| event.id.max(newest));
        loop {
            let events = desk.events(&filter, EventCursor::After(seen), PAGE)?;
            events.iter().try_for_each(|event| say(site, event))?;
            seen = events.last().map_or(seen, |event| event.id);
            if events.len() < PAGE {
                std::thread::sleep(LOOK);
            }
        }
    }

    /// Returns the latest events, oldest first.
    fn past(&self, desk: &dyn Desk, filter: &EventFilter) -> Result<Vec<EventResponse>> {
        let most = self.limit.unwrap_or(if self.since.is_some() { usize::MAX } else { 100 });
        let mut events: Vec<EventResponse> = Vec::new();
        let mut cursor = EventCursor::Latest;
        while events.len() < most {
            let page = desk.events(filter, cursor, PAGE.min(most - events.len()))?;
            let Some(oldest) = page.last() else { break };
            cursor = EventCursor::Before(oldest.id);
            events.extend(page);
        }
        events.reverse();
        Ok(events)
    }
}

fn say(site: &Site, event: &EventResponse) -> Result {
    match site.json() {
        true => {
            let line = serde_json::to_string(event).map_err(|error| Failure::new(error.to_string()))?;
            output::say(&line)
        }
        false => output::say(&line(event)),
    }
}

/// Writes an event on one line, whatever strangers put into it.
fn line(shown: &EventResponse) -> String {
    let EventResponse { at, event, user, token, by, address, client, protocol, path, count, detail, .. } = shown;
    let mut parts = vec![at.0.to_string(), format!("{:22}", event.0.as_str())];
    let mut add = |word: &str, value: Option<String>| {
        parts.extend(value.map(|value| if word.is_empty() { value } else { format!("{word} {value}") }));
    };
    add("", user.as_ref().map(ToString::to_string));
    add("", token.map(|token| token.to_string()));
    add("at", path.as_deref().map(escape_for_terminal));
    add("by", by.as_ref().map(|by| by.0.to_string()));
    add("from", address.as_deref().map(escape_for_terminal));
    add("over", protocol.map(|protocol| protocol.to_string()));
    add("with", client.as_deref().map(escape_for_terminal));
    let text = parts.join(" ");
    let detail = detail.as_deref().map(|detail| format!(": {}", escape_for_terminal(detail))).unwrap_or_default();
    let count = if *count == 1 { String::new() } else { format!(" ({count} times)") };
    format!("{text}{detail}{count}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{AuditEvent, Peer, Protocol};
    use crate::store::RecordedEvent;

    #[test]
    fn what_a_stranger_sent_tears_no_line_and_moves_no_cursor() {
        let peer = Peer {
            protocol: Protocol::Webdav,
            address: "192.0.2.1".parse().expect("address"),
            user_agent: Some("\u{1b}[2J\r\nGET".to_owned()),
        };
        let event = AuditEvent::new(UnixMillis::from_millis(0), EventKind::AttemptRefused)
            .with_peer(&peer)
            .with_count(3)
            .with_detail("why");
        assert_eq!(
            line(&EventResponse::from_stored(RecordedEvent { id: 1, event })),
            "1970-01-01T00:00:00Z attempt.refused        from 192.0.2.1 over webdav with \\u{1b}[2J\\r\\nGET: why (3 times)"
        );
    }

    #[test]
    fn times_are_read_as_ages_and_dates() {
        let now = UnixMillis::from_millis(1_777_968_000_000);
        let cases = [("24h", "2026-05-04T08:00:00Z"), ("2026-05-05", "2026-05-05T00:00:00Z")];
        for (text, time) in cases {
            assert_eq!(Since::read(text).expect(text).time(now).to_string(), time);
        }
        assert_eq!(Since::read("2026-05-05T10:00:00+02:00").expect("offset").time(now), now);
        for text in ["", "yesterday", "24", "2026-13-01"] {
            assert!(Since::read(text).is_err(), "{text}");
        }
    }
}
