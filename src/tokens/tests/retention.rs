//! What leaves the store by itself, and when.

use super::*;
use crate::domain::{Protocol, UsageCount, UsageKind};
use crate::store::{EventCursor, EventFilter};

fn count_events(site: &TokensEnv) -> usize {
    site.tokens.events(ADMIN, &EventFilter::default(), EventCursor::Latest, 1000).expect("read").len()
}

#[test]
fn inactive_token_is_kept_for_retention() {
    let site = tokens_env();
    let request =
        TokenRequest { lifetime: RequestedLifetime::For(lifetime("10d")), ..TokenRequest::new(login("alice")) };
    let expiring = site.tokens.issue(ADMIN, request).expect("a token").record;
    let revoked = site.issue_scoped(&[]).expect("a token").record;
    let live = site.issue_scoped(&[]).expect("a token").record;
    site.tokens.revoke(ADMIN, &[revoked.id]).expect("revoked");
    site.clock.advance(30 * ONE_DAY - Duration::from_millis(1));
    assert_eq!(site.tokens.apply_retention().expect("tidied").deleted_tokens, 0, "never before");
    assert!(site.all_tokens().iter().any(|record| record.id == expiring.id), "it expired later");
    site.clock.advance(Duration::from_millis(1));
    assert_eq!(site.tokens.apply_retention().expect("tidied").deleted_tokens, 1);
    assert!(matches!(site.tokens.find(ADMIN, revoked.id), Err(Error::UnknownToken(_))));
    site.clock.advance(10 * ONE_DAY);
    assert_eq!(site.tokens.apply_retention().expect("tidied").deleted_tokens, 1);
    assert_eq!(site.all_tokens().iter().map(|record| record.id).collect::<Vec<_>>(), [live.id]);
}

#[test]
fn events_are_kept_for_audit_retention() {
    let site = tokens_env();
    let token = site.issue_scoped(&[]).expect("a token").record.id;
    site.tokens.set_policy(ADMIN, "token-retention", "1d").expect("set");
    site.tokens.revoke(ADMIN, &[token]).expect("revoked");
    site.clock.advance(ONE_DAY);
    assert_eq!(site.tokens.apply_retention().expect("tidied").deleted_tokens, 1);
    let of_token = EventFilter { token: Some(token), ..EventFilter::default() };
    let kept = site.tokens.events(ADMIN, &of_token, EventCursor::Latest, 1000).expect("read");
    assert!(kept.len() >= 3, "made, revoked and removed: {kept:?}");
    site.clock.advance(89 * ONE_DAY + Duration::from_millis(1));
    assert!(site.tokens.apply_retention().expect("tidied").deleted_events >= 3);
    assert_eq!(count_events(&site), 1, "that it was removed, a day later");
}

#[test]
fn counts_are_deleted_one_day_after_events() {
    let site = tokens_env();
    let hour = site.clock.now().start_of_hour();
    let count = UsageCount { hour, protocol: Protocol::Sftp, kind: UsageKind::Use, count: 7 };
    site.store.add_usage_counts(&[count]).expect("added");
    let kept = || site.tokens.usage_counts(ADMIN, hour).expect("read").len();
    site.clock.advance(91 * ONE_DAY - Duration::from_secs(3600));
    assert_eq!((site.tokens.apply_retention().expect("tidied").deleted_counts, kept()), (0, 1));
    site.clock.advance(Duration::from_secs(3601));
    assert_eq!((site.tokens.apply_retention().expect("tidied").deleted_counts, kept()), (1, 0));
}

#[test]
fn journal_of_revoked_token_is_deleted_in_next_round() {
    let site = tokens_env();
    let tokens =
        [site.issue_scoped(&[]).expect("a token").record.id, site.issue_scoped(&[]).expect("a token").record.id];
    site.tokens.revoke(ADMIN, &tokens[..1]).expect("revoked");
    for token in tokens {
        site.store
            .ensure_sync_journal(token, &TreePath::root(), true, site.clock.now())
            .expect("by a request still under way");
    }
    assert_eq!(site.tokens.apply_retention().expect("tidied").deleted_sync_entries, 1);
    assert_eq!(site.tokens.apply_retention().expect("tidied").deleted_sync_entries, 0, "what lives keeps its own");
}
