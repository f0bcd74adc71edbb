//! The text of sync tokens (RFC 6578 section 4), in REPORT and in the property `sync-token`.

use crate::tree::SyncPoint;

const SYNC_TOKEN_PREFIX: &str = "urn:patgate:sync:";

/// Formats a point as a sync token: journal and number, and the base while an initial synchronization is incomplete.
pub(super) fn format_sync_token(point: SyncPoint) -> String {
    let SyncPoint { journal, number, base } = point;
    if base > number {
        format!("{SYNC_TOKEN_PREFIX}{journal}:{number}:{base}")
    } else {
        format!("{SYNC_TOKEN_PREFIX}{journal}:{number}")
    }
}

/// Parses a sync token; `None` where it is malformed.
pub(super) fn parse_sync_token(text: &str) -> Option<SyncPoint> {
    let mut parts = text.trim().strip_prefix(SYNC_TOKEN_PREFIX)?.splitn(3, ':');
    let journal = parts.next()?.parse().ok()?;
    let number = parts.next()?.parse().ok()?;
    let base = parts.next().map_or(Ok(number), str::parse).ok()?;
    Some(SyncPoint { journal, number, base })
}
