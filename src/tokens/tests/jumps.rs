//! A clock that jumps deletes nothing.

use super::*;
use crate::domain::{Protocol, UsageCount, UsageKind};
use crate::store::{EventCursor, EventFilter};
use crate::tokens::Tidied;

const YEAR: Duration = Duration::from_secs(365 * 86_400);
const HOUR: Duration = Duration::from_secs(3600);

/// Makes one of all that is deleted by age: a revoked and an expired token, events, counts, and a journal.
fn with_all_kinds(site: &Site) -> TokenId {
    let request = TokenRequest { lifetime: Asked::For(lifetime("1h")), ..TokenRequest::new(login("alice")) };
    site.tokens.issue(ADMIN, request).expect("a token");
    let revoked = site.scoped(&[]).expect("a token").record.id;
    let live = site.scoped(&[]).expect("a token").record.id;
    let hour = site.clock.now().start_of_hour();
    site.store
        .add_usage_counts(&[UsageCount { hour, protocol: Protocol::Sftp, kind: UsageKind::Use, count: 7 }])
        .expect("added");
    site.store.ensure_sync_journal(live, &TreePath::root(), true, site.clock.now()).expect("begun");
    site.tokens.revoke(ADMIN, &[revoked]).expect("revoked");
    site.clock.advance(2 * HOUR);
    let tidied = site.tokens.tidy().expect("tidied");
    assert_eq!(tidied, Tidied { expired: 1, ..Tidied::default() });
    live
}

fn deleted(site: &Site) -> usize {
    let tidied = site.tokens.tidy().expect("tidied");
    tidied.removed + tidied.forgotten + tidied.counts + tidied.marks
}

#[test]
fn clock_that_jumps_and_is_set_right_within_a_day_deletes_nothing() {
    for ahead in [true, false] {
        let site = site();
        let live = with_all_kinds(&site);
        let events = site.tokens.events(ADMIN, &EventFilter::default(), EventCursor::Latest, 1000).expect("read").len();
        let right = site.clock.now();
        site.clock.set(if ahead { right.saturating_add(YEAR) } else { right.saturating_sub(YEAR) });
        for _ in 0..23 {
            assert_eq!(deleted(&site), 0);
            site.clock.advance(HOUR);
        }
        site.clock.set(right.saturating_add(23 * HOUR));
        for _ in 0..30 {
            assert_eq!(deleted(&site), 0);
            site.clock.advance(HOUR);
        }
        assert_eq!(site.all().len(), 3);
        let now = site.tokens.events(ADMIN, &EventFilter::default(), EventCursor::Latest, 1000).expect("read").len();
        assert_eq!(now, events, "not one more either");
        let journal = site.store.find_sync_journal(live, &TreePath::root(), true, site.clock.now()).expect("read");
        assert!(journal.is_some());
    }
}

#[test]
fn what_is_old_goes_once_a_jump_is_a_day_old() {
    let site = site();
    with_all_kinds(&site);
    site.clock.set(site.clock.now().saturating_add(YEAR));
    assert_eq!(deleted(&site), 0);
    site.clock.advance(24 * HOUR - Duration::from_millis(1));
    assert_eq!(deleted(&site), 0);
    site.clock.advance(Duration::from_millis(1));
    assert!(deleted(&site) > 4, "tokens, events, counts and the journal");
    assert!(site.all().is_empty() || site.all().iter().all(|record| record.state == TokenState::Expired));
}

#[test]
fn start_after_months_waits_a_day_of_running_time_and_no_more() {
    let site = site();
    with_all_kinds(&site);
    site.store.save_clock_checkpoint(&site.clock.checkpoint().expect("looked at")).expect("written");
    let off = crate::auth::Clock::manual(site.clock.now().saturating_add(YEAR));
    off.restore(site.store.clock_checkpoint().expect("read").expect("written"));
    let tokens = Tokens::new(site.store.clone(), off.clone());
    let removed = || tokens.tidy().expect("tidied").removed;
    assert_eq!(removed(), 0);
    off.advance(24 * HOUR - Duration::from_millis(1));
    assert_eq!(removed(), 0);
    off.advance(Duration::from_millis(1));
    assert_eq!(removed(), 3, "what expired meanwhile, too");
}

#[test]
fn replaced_secret_whose_grace_is_over_is_not_revived() {
    let site = site();
    let token = site.scoped(&[]).expect("a token").record.id;
    let (start, grace) = (site.clock.now(), Some(lifetime("1h")));
    site.tokens.rotate(ADMIN, token, grace).expect("rotated");
    site.clock.advance(2 * HOUR);
    site.tokens.tidy().expect("tidied");
    site.clock.set(start);
    assert_eq!(site.tokens.find(ADMIN, token).expect("there").grace_until, None);
}
