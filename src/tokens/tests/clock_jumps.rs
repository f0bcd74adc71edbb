//! Tests of retention under a wall clock that jumps: a jump deletes nothing and revives no secret.

use super::*;
use crate::domain::{Protocol, UsageCount, UsageKind};
use crate::store::{EventCursor, EventFilter};
use crate::tokens::RetentionReport;

const ONE_YEAR: Duration = Duration::from_secs(365 * 86_400);
const ONE_HOUR: Duration = Duration::from_secs(3600);

/// Creates one row of each kind that is deleted by age: a revoked and an expired token, events, counts, and a journal.
fn create_expirable_rows(env: &TokensEnv) -> TokenId {
    let request =
        TokenRequest { lifetime: Some(RequestedLifetime::For(lifetime("1h"))), ..TokenRequest::new(login("alice")) };
    env.tokens.issue(ADMIN, request).expect("a token");
    let revoked = env.issue_scoped(&[]).expect("a token").record.id;
    let live = env.issue_scoped(&[]).expect("a token").record.id;
    let hour = env.clock.now().start_of_hour();
    env.store
        .add_usage_counts(&[UsageCount { hour, protocol: Protocol::Sftp, kind: UsageKind::Use, count: 7 }])
        .expect("added");
    env.store.ensure_sync_journal(live, &TreePath::root(), true, env.clock.now()).expect("begun");
    env.tokens.revoke(ADMIN, &[revoked]).expect("revoked");
    env.clock.advance(2 * ONE_HOUR);
    let tidied = env.tokens.apply_retention().expect("tidied");
    assert_eq!(tidied, RetentionReport { expired_tokens: 1, ..RetentionReport::default() });
    live
}

fn deleted_rows(env: &TokensEnv) -> usize {
    let tidied = env.tokens.apply_retention().expect("tidied");
    tidied.deleted_tokens + tidied.deleted_events + tidied.deleted_counts + tidied.deleted_sync_entries
}

#[test]
fn clock_jump_corrected_within_a_day_deletes_nothing() {
    for ahead in [true, false] {
        let env = tokens_env();
        let live = create_expirable_rows(&env);
        let events = env.tokens.events(ADMIN, &EventFilter::default(), EventCursor::Latest, 1000).expect("read").len();
        let right = env.clock.now();
        env.clock.set(if ahead { right.saturating_add(ONE_YEAR) } else { right.saturating_sub(ONE_YEAR) });
        for _ in 0..23 {
            assert_eq!(deleted_rows(&env), 0);
            env.clock.advance(ONE_HOUR);
        }
        env.clock.set(right.saturating_add(23 * ONE_HOUR));
        for _ in 0..30 {
            assert_eq!(deleted_rows(&env), 0);
            env.clock.advance(ONE_HOUR);
        }
        assert_eq!(env.all_tokens().len(), 3);
        let now = env.tokens.events(ADMIN, &EventFilter::default(), EventCursor::Latest, 1000).expect("read").len();
        assert_eq!(now, events, "not one more either");
        let journal = env.store.find_sync_journal(live, &TreePath::root(), true, env.clock.now()).expect("read");
        assert!(journal.is_some());
    }
}

#[test]
fn retention_resumes_one_day_after_clock_jump() {
    let env = tokens_env();
    create_expirable_rows(&env);
    env.clock.set(env.clock.now().saturating_add(ONE_YEAR));
    assert_eq!(deleted_rows(&env), 0);
    env.clock.advance(24 * ONE_HOUR - Duration::from_millis(1));
    assert_eq!(deleted_rows(&env), 0);
    env.clock.advance(Duration::from_millis(1));
    assert!(deleted_rows(&env) > 4, "tokens, events, counts and the journal");
    assert!(env.all_tokens().is_empty() || env.all_tokens().iter().all(|record| record.state == TokenState::Expired));
}

#[test]
fn retention_after_long_downtime_waits_one_day_of_boottime() {
    let env = tokens_env();
    create_expirable_rows(&env);
    env.store.save_clock_checkpoint(&env.clock.checkpoint().expect("looked at")).expect("written");
    let off = crate::auth::Clock::manual(env.clock.now().saturating_add(ONE_YEAR));
    off.restore(env.store.clock_checkpoint().expect("read").expect("written"));
    let tokens = TokenService::new(env.store.clone(), off.clone());
    let removed = || tokens.apply_retention().expect("tidied").deleted_tokens;
    assert_eq!(removed(), 0);
    off.advance(24 * ONE_HOUR - Duration::from_millis(1));
    assert_eq!(removed(), 0);
    off.advance(Duration::from_millis(1));
    assert_eq!(removed(), 3, "what expired meanwhile, too");
}

#[test]
fn secret_past_grace_is_not_revived_by_clock_set_back() {
    let env = tokens_env();
    let token = env.issue_scoped(&[]).expect("a token").record.id;
    let (start, grace) = (env.clock.now(), Some(lifetime("1h")));
    env.tokens.rotate(ADMIN, token, &with_grace(grace)).expect("rotated");
    env.clock.advance(2 * ONE_HOUR);
    env.tokens.apply_retention().expect("tidied");
    env.clock.set(start);
    assert_eq!(env.tokens.find(ADMIN, token).expect("there").old_secret_until, None);
}
