//! Tests of retention: which rows are deleted from the store, and when.

use super::*;
use crate::domain::{Protocol, UsageCount, UsageKind};
use crate::store::{EventCursor, EventFilter};

fn count_events(env: &TokensEnv) -> usize {
    env.tokens.events(ADMIN, &EventFilter::default(), EventCursor::Latest, 1000).expect("read").len()
}

#[test]
fn inactive_token_is_kept_for_retention() {
    let env = tokens_env();
    let request =
        TokenRequest { lifetime: Some(RequestedLifetime::For(lifetime("10d"))), ..TokenRequest::new(login("alice")) };
    let expiring = env.tokens.issue(ADMIN, request).expect("a token").record;
    let revoked = env.issue_scoped(&[]).expect("a token").record;
    let live = env.issue_scoped(&[]).expect("a token").record;
    env.tokens.revoke(ADMIN, &[revoked.id]).expect("revoked");
    env.clock.advance(30 * ONE_DAY - Duration::from_millis(1));
    assert_eq!(env.tokens.apply_retention().expect("tidied").deleted_tokens, 0, "never before");
    assert!(env.all_tokens().iter().any(|record| record.id == expiring.id), "it expired later");
    env.clock.advance(Duration::from_millis(1));
    assert_eq!(env.tokens.apply_retention().expect("tidied").deleted_tokens, 1);
    assert!(matches!(env.tokens.find(ADMIN, revoked.id), Err(Error::UnknownToken(_))));
    env.clock.advance(10 * ONE_DAY);
    assert_eq!(env.tokens.apply_retention().expect("tidied").deleted_tokens, 1);
    assert_eq!(env.all_tokens().iter().map(|record| record.id).collect::<Vec<_>>(), [live.id]);
}

#[test]
fn events_are_kept_for_audit_retention() {
    let env = tokens_env();
    let token = env.issue_scoped(&[]).expect("a token").record.id;
    env.tokens.set_policy(ADMIN, "token-retention", "1d").expect("set");
    env.tokens.revoke(ADMIN, &[token]).expect("revoked");
    env.clock.advance(ONE_DAY);
    assert_eq!(env.tokens.apply_retention().expect("tidied").deleted_tokens, 1);
    let of_token = EventFilter { token: Some(token), ..EventFilter::default() };
    let remaining = env.tokens.events(ADMIN, &of_token, EventCursor::Latest, 1000).expect("read");
    assert!(remaining.len() >= 3, "made, revoked and removed: {remaining:?}");
    env.clock.advance(89 * ONE_DAY + Duration::from_millis(1));
    assert!(env.tokens.apply_retention().expect("tidied").deleted_events >= 3);
    assert_eq!(count_events(&env), 1, "that it was removed, a day later");
}

#[test]
fn counts_are_deleted_one_day_after_events() {
    let env = tokens_env();
    let hour = env.clock.now().start_of_hour();
    let count = UsageCount { hour, protocol: Protocol::Sftp, kind: UsageKind::Use, count: 7 };
    env.store.add_usage_counts(&[count]).expect("added");
    let remaining = || env.tokens.usage_counts(ADMIN, hour).expect("read").len();
    env.clock.advance(91 * ONE_DAY - Duration::from_secs(3600));
    assert_eq!((env.tokens.apply_retention().expect("tidied").deleted_counts, remaining()), (0, 1));
    env.clock.advance(Duration::from_secs(3601));
    assert_eq!((env.tokens.apply_retention().expect("tidied").deleted_counts, remaining()), (1, 0));
}

#[test]
fn journal_of_revoked_token_is_deleted_in_next_round() {
    let env = tokens_env();
    let tokens = [env.issue_scoped(&[]).expect("a token").record.id, env.issue_scoped(&[]).expect("a token").record.id];
    env.tokens.revoke(ADMIN, &tokens[..1]).expect("revoked");
    for token in tokens {
        env.store
            .ensure_sync_journal(token, &TreePath::root(), true, env.clock.now())
            .expect("by a request still under way");
    }
    assert_eq!(env.tokens.apply_retention().expect("tidied").deleted_sync_entries, 1);
    assert_eq!(env.tokens.apply_retention().expect("tidied").deleted_sync_entries, 0, "what lives keeps its own");
}
