//! What leaves the store by itself, and when.

use super::*;
use crate::domain::{Protocol, UsageCount, UsageKind};
use crate::store::{EventCursor, EventFilter};

fn events(site: &Site) -> usize {
    site.tokens.events(ADMIN, &EventFilter::default(), EventCursor::Latest, 1000).expect("read").len()
}

#[test]
fn a_dead_token_is_kept_for_its_retention() {
    let site = site();
    let request = TokenRequest { lifetime: Asked::For(lifetime("10d")), ..TokenRequest::new(login("alice")) };
    let expiring = site.tokens.issue(ADMIN, request).expect("a token").record;
    let revoked = site.scoped(&[]).expect("a token").record;
    let live = site.scoped(&[]).expect("a token").record;
    site.tokens.revoke(ADMIN, &[revoked.id]).expect("revoked");
    site.clock.advance(30 * DAY - Duration::from_millis(1));
    assert_eq!(site.tokens.tidy().expect("tidied").removed, 0, "never before");
    assert!(site.all().iter().any(|record| record.id == expiring.id), "it expired later");
    site.clock.advance(Duration::from_millis(1));
    assert_eq!(site.tokens.tidy().expect("tidied").removed, 1);
    assert!(matches!(site.tokens.find(ADMIN, revoked.id), Err(Error::UnknownToken(_))));
    site.clock.advance(10 * DAY);
    assert_eq!(site.tokens.tidy().expect("tidied").removed, 1);
    assert_eq!(site.all().iter().map(|record| record.id).collect::<Vec<_>>(), [live.id]);
}

#[test]
fn events_stay_for_their_own_retention() {
    let site = site();
    let token = site.scoped(&[]).expect("a token").record.id;
    site.tokens.set_policy(ADMIN, "token-retention", "1d").expect("set");
    site.tokens.revoke(ADMIN, &[token]).expect("revoked");
    site.clock.advance(DAY);
    assert_eq!(site.tokens.tidy().expect("tidied").removed, 1);
    let of_token = EventFilter { token: Some(token), ..EventFilter::default() };
    let kept = site.tokens.events(ADMIN, &of_token, EventCursor::Latest, 1000).expect("read");
    assert!(kept.len() >= 3, "made, revoked and removed: {kept:?}");
    site.clock.advance(89 * DAY + Duration::from_millis(1));
    assert!(site.tokens.tidy().expect("tidied").forgotten >= 3);
    assert_eq!(events(&site), 1, "that it was removed, a day later");
}

#[test]
fn counts_leave_a_day_after_the_events_of_their_time() {
    let site = site();
    let hour = site.clock.now().start_of_hour();
    let count = UsageCount { hour, protocol: Protocol::Sftp, kind: UsageKind::Use, count: 7 };
    site.store.add_usage_counts(&[count]).expect("added");
    let kept = || site.tokens.counts(ADMIN, hour).expect("read").len();
    site.clock.advance(91 * DAY - Duration::from_secs(3600));
    assert_eq!((site.tokens.tidy().expect("tidied").counts, kept()), (0, 1));
    site.clock.advance(Duration::from_secs(3601));
    assert_eq!((site.tokens.tidy().expect("tidied").counts, kept()), (1, 0));
}

#[test]
fn a_journal_that_a_dead_token_left_is_forgotten_in_the_next_round() {
    let site = site();
    let tokens = [site.scoped(&[]).expect("a token").record.id, site.scoped(&[]).expect("a token").record.id];
    site.tokens.revoke(ADMIN, &tokens[..1]).expect("revoked");
    for token in tokens {
        site.store
            .ensure_sync_journal(token, &TreePath::root(), true, site.clock.now())
            .expect("by a request still under way");
    }
    assert_eq!(site.tokens.tidy().expect("tidied").marks, 1);
    assert_eq!(site.tokens.tidy().expect("tidied").marks, 0, "what lives keeps its own");
}
