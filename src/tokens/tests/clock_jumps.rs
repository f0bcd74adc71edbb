//! A clock that jumps deletes nothing.

use super::*;
use crate::domain::{Protocol, UsageCount, UsageKind};
use crate::store::{EventCursor, EventFilter};
use crate::tokens::RetentionReport;

const ONE_YEAR: Duration = Duration::from_secs(365 * 86_400);
const ONE_HOUR: Duration = Duration::from_secs(3600);

/// Makes one of all that is deleted by age: a revoked and an expired token, events, counts, and a journal.
fn create_expirable_rows(site: &TokensEnv) -> TokenId {
    let request =
        TokenRequest { lifetime: RequestedLifetime::For(lifetime("1h")), ..TokenRequest::new(login("alice")) };
    site.tokens.issue(ADMIN, request).expect("a token");
    let revoked = site.issue_scoped(&[]).expect("a token").record.id;
    let live = site.issue_scoped(&[]).expect("a token").record.id;
    let hour = site.clock.now().start_of_hour();
    site.store
        .add_usage_counts(&[UsageCount { hour, protocol: Protocol::Sftp, kind: UsageKind::Use, count: 7 }])
        .expect("added");
    site.store.ensure_sync_journal(live, &TreePath::root(), true, site.clock.now()).expect("begun");
    site.tokens.revoke(ADMIN, &[revoked]).expect("revoked");
    site.clock.advance(2 * ONE_HOUR);
    let tidied = site.tokens.apply_retention().expect("tidied");
    assert_eq!(tidied, RetentionReport { expired_tokens: 1, ..RetentionReport::default() });
    live
}

fn deleted_rows(site: &TokensEnv) -> usize {
    let tidied = site.tokens.apply_retention().expect("tidied");
    tidied.deleted_tokens + tidied.deleted_events + tidied.deleted_counts + tidied.deleted_sync_entries
}

#[test]
fn clock_jump_corrected_within_a_day_deletes_nothing() {
    for ahead in [true, false] {
        let site = tokens_env();
        let live = create_expirable_rows(&site);
        let events = site.tokens.events(ADMIN, &EventFilter::default(), EventCursor::Latest, 1000).expect("read").len();
        let right = site.clock.now();
        site.clock.set(if ahead { right.saturating_add(ONE_YEAR) } else { right.saturating_sub(ONE_YEAR) });
        for _ in 0..23 {
            assert_eq!(deleted_rows(&site), 0);
            site.clock.advance(ONE_HOUR);
        }
        site.clock.set(right.saturating_add(23 * ONE_HOUR));
        for _ in 0..30 {
            assert_eq!(deleted_rows(&site), 0);
            site.clock.advance(ONE_HOUR);
        }
        assert_eq!(site.all_tokens().len(), 3);
        let now = site.tokens.events(ADMIN, &EventFilter::default(), EventCursor::Latest, 1000).expect("read").len();
        assert_eq!(now, events, "not one more either");
        let journal = site.store.find_sync_journal(live, &TreePath::root(), true, site.clock.now()).expect("read");
        assert!(journal.is_some());
    }
}

#[test]
fn retention_resumes_one_day_after_clock_jump() {
    let site = tokens_env();
    create_expirable_rows(&site);
    site.clock.set(site.clock.now().saturating_add(ONE_YEAR));
    assert_eq!(deleted_rows(&site), 0);
    site.clock.advance(24 * ONE_HOUR - Duration::from_millis(1));
    assert_eq!(deleted_rows(&site), 0);
    site.clock.advance(Duration::from_millis(1));
    assert!(deleted_rows(&site) > 4, "tokens, events, counts and the journal");
    assert!(site.all_tokens().is_empty() || site.all_tokens().iter().all(|record| record.state == TokenState::Expired));
}

#[test]
fn retention_after_long_downtime_waits_one_day_of_boottime() {
    let site = tokens_env();
    create_expirable_rows(&site);
    site.store.save_clock_checkpoint(&site.clock.checkpoint().expect("looked at")).expect("written");
    let off = crate::auth::Clock::manual(site.clock.now().saturating_add(ONE_YEAR));
    off.restore(site.store.clock_checkpoint().expect("read").expect("written"));
    let tokens = TokenService::new(site.store.clone(), off.clone());
    let removed = || tokens.apply_retention().expect("tidied").deleted_tokens;
    assert_eq!(removed(), 0);
    off.advance(24 * ONE_HOUR - Duration::from_millis(1));
    assert_eq!(removed(), 0);
    off.advance(Duration::from_millis(1));
    assert_eq!(removed(), 3, "what expired meanwhile, too");
}

#[test]
fn secret_past_grace_is_not_revived_by_clock_set_back() {
    let site = tokens_env();
    let token = site.issue_scoped(&[]).expect("a token").record.id;
    let (start, grace) = (site.clock.now(), Some(lifetime("1h")));
    site.tokens.rotate(ADMIN, token, grace).expect("rotated");
    site.clock.advance(2 * ONE_HOUR);
    site.tokens.apply_retention().expect("tidied");
    site.clock.set(start);
    assert_eq!(site.tokens.find(ADMIN, token).expect("there").grace_until, None);
}
