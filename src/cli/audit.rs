//! `patgate audit`: prints the audit trail, exports it and verifies it.

mod export;
mod verify;

use std::time::Duration;

use clap::{Args, Subcommand};

use super::backend::ManagementBackend;
use super::context::CommandContext;
use super::{CommandError, Result, output};
use crate::api::types::EventResponse;
use crate::auth::Clock;
use crate::domain::{EventKind, Lifetime, Login, TokenId, UnixMillis, escape_for_terminal};
use crate::store::{EventCursor, EventFilter};

/// Interval at which `--follow` polls for new events.
const FOLLOW_POLL_INTERVAL: Duration = Duration::from_millis(500);
/// Number of events that are read at once.
const EVENTS_PER_READ: usize = 500;

/// Show the audit trail: who created, used, changed or was refused which token, user or file
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  patgate audit
  patgate audit --since 24h --user alice
  patgate audit --event attempt.refused --since 2026-05-05 --json
  patgate audit --token JhxND7ci --follow
  patgate audit --export > trail.jsonl
  patgate audit verify")]
pub(super) struct AuditCommand {
    #[command(subcommand)]
    subcommand: Option<AuditSubcommand>,
    /// Only events since then: an age (24h, 7d) or a date (2026-05-05, 2026-05-05T08:00:00Z)
    #[arg(long, value_name = "WHEN", value_parser = AuditStart::parse)]
    since: Option<AuditStart>,
    /// Only events that concern this user
    #[arg(long, value_name = "LOGIN")]
    user: Option<Login>,
    /// Only events that concern this token
    #[arg(long, value_name = "ID")]
    token: Option<TokenId>,
    /// Only this kind of event, such as token.first_used or attempt.refused
    #[arg(long, value_name = "EVENT")]
    event: Option<EventKind>,
    /// Maximum number of events, the latest [default: 100, or with --since all]
    #[arg(long, value_name = "N")]
    limit: Option<usize>,
    /// Continue with new events as they occur; with --json one object per line
    #[arg(short, long)]
    follow: bool,
    /// Print the whole trail with its hash chain, one JSON object per line, for `patgate audit verify FILE`
    #[arg(long, conflicts_with_all = ["since", "user", "token", "event", "limit", "follow"])]
    export: bool,
}

#[derive(Debug, Subcommand)]
enum AuditSubcommand {
    Verify(verify::VerifyCommand),
}

/// The start of the period.
#[derive(Clone, Copy, Debug)]
enum AuditStart {
    Age(Lifetime),
    Instant(UnixMillis),
}

impl AuditStart {
    fn parse(text: &str) -> std::result::Result<Self, String> {
        if let Ok(age) = text.parse() {
            return Ok(Self::Age(age));
        }
        let midnight =
            || text.parse::<jiff::civil::Date>()?.to_zoned(jiff::tz::TimeZone::UTC).map(|day| day.timestamp());
        let timestamp = text.parse::<jiff::Timestamp>().or_else(|_| midnight());
        let timestamp = timestamp.map_err(|_| {
            format!("{text:?} is not a time: give an age (24h, 7d) or a date (2026-05-05, 2026-05-05T08:00:00Z)")
        })?;
        Ok(Self::Instant(UnixMillis::from_millis(timestamp.as_millisecond())))
    }

    fn time(self, now: UnixMillis) -> UnixMillis {
        match self {
            AuditStart::Age(age) => now.saturating_sub(age.as_duration()),
            AuditStart::Instant(time) => time,
        }
    }
}

impl AuditCommand {
    /// Prints the matching events, or runs the subcommand.
    pub(super) fn run(&self, context: &CommandContext) -> Result {
        if let Some(AuditSubcommand::Verify(command)) = &self.subcommand {
            self.reject_options_of_list()?;
            return command.run(context);
        }
        let backend = context.backend()?;
        if self.export {
            return export::print_chain(backend.as_ref());
        }
        let filter = EventFilter {
            since: self.since.map(|since| since.time(Clock::system().now())),
            user: self.user.clone(),
            token: self.token,
            kind: self.event,
        };
        // Queried first: an event that is recorded between the two queries is then printed by --follow, and not lost.
        let newest_id =
            backend.list_events(&EventFilter::default(), EventCursor::Latest, 1)?.first().map_or(0, |event| event.id);
        let events = self.latest_events(backend.as_ref(), &filter)?;
        if context.prints_json() && !self.follow {
            return output::print_json(&events);
        }
        events.iter().try_for_each(|event| print_event(context, event))?;
        if !self.follow {
            return Ok(());
        }
        let mut last_id = events.last().map_or(newest_id, |event| event.id.max(newest_id));
        loop {
            let events = backend.list_events(&filter, EventCursor::After(last_id), EVENTS_PER_READ)?;
            events.iter().try_for_each(|event| print_event(context, event))?;
            last_id = events.last().map_or(last_id, |event| event.id);
            // A full page means that more events are waiting: read on without a pause.
            if events.len() < EVENTS_PER_READ {
                std::thread::sleep(FOLLOW_POLL_INTERVAL);
            }
        }
    }

    /// Refuses options that a subcommand would ignore.
    fn reject_options_of_list(&self) -> Result {
        let Self { subcommand: _, since, user, token, event, limit, follow, export } = self;
        let is_filtered = since.is_some() || user.is_some() || token.is_some() || event.is_some() || limit.is_some();
        match is_filtered || *follow || *export {
            true => Err(CommandError::usage("patgate audit verify verifies the whole trail")
                .with_hint("give --head and FILE alone, after the word verify")),
            false => Ok(()),
        }
    }

    /// Returns the latest matching events, oldest first.
    fn latest_events(&self, backend: &dyn ManagementBackend, filter: &EventFilter) -> Result<Vec<EventResponse>> {
        let limit = self.limit.unwrap_or(if self.since.is_some() { usize::MAX } else { 100 });
        let mut events: Vec<EventResponse> = Vec::new();
        let mut cursor = EventCursor::Latest;
        while events.len() < limit {
            let page = backend.list_events(filter, cursor, EVENTS_PER_READ.min(limit - events.len()))?;
            let Some(oldest) = page.last() else { break };
            // Pages go back in time; the list is reversed at the end.
            cursor = EventCursor::Before(oldest.id);
            events.extend(page);
        }
        events.reverse();
        Ok(events)
    }
}

fn print_event(context: &CommandContext, event: &EventResponse) -> Result {
    match context.prints_json() {
        true => {
            let line = serde_json::to_string(event).map_err(|error| CommandError::new(error.to_string()))?;
            output::print_line(&line)
        }
        false => output::print_line(&event_line(event)),
    }
}

/// Formats an event on one line. Text that comes from clients is escaped.
fn event_line(event_response: &EventResponse) -> String {
    let EventResponse { at, event, user, token, by, address, client, protocol, path, count, detail, .. } =
        event_response;
    let mut parts = vec![at.0.to_string(), format!("{:22}", event.0.as_str())];
    let mut push_part = |label: &str, value: Option<String>| {
        parts.extend(value.map(|value| if label.is_empty() { value } else { format!("{label} {value}") }));
    };
    push_part("", user.as_ref().map(ToString::to_string));
    push_part("", token.map(|token| token.to_string()));
    push_part("at", path.as_deref().map(escape_for_terminal));
    push_part("by", by.as_ref().map(|by| by.0.to_string()));
    push_part("from", address.as_deref().map(escape_for_terminal));
    push_part("over", protocol.map(|protocol| protocol.to_string()));
    push_part("with", client.as_deref().map(escape_for_terminal));
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
    fn control_characters_of_clients_are_escaped_in_event_lines() {
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
            event_line(&EventResponse::from_stored(RecordedEvent { id: 1, event })),
            "1970-01-01T00:00:00Z attempt.refused        from 192.0.2.1 over webdav with \\u{1b}[2J\\r\\nGET: why (3 times)"
        );
    }

    #[test]
    fn audit_time_filters_accept_ages_and_dates() {
        let now = UnixMillis::from_millis(1_777_968_000_000);
        let cases = [("24h", "2026-05-04T08:00:00Z"), ("2026-05-05", "2026-05-05T00:00:00Z")];
        for (text, time) in cases {
            assert_eq!(AuditStart::parse(text).expect(text).time(now).to_string(), time);
        }
        assert_eq!(AuditStart::parse("2026-05-05T10:00:00+02:00").expect("offset").time(now), now);
        for text in ["", "yesterday", "24", "2026-13-01"] {
            assert!(AuditStart::parse(text).is_err(), "{text}");
        }
    }
}
