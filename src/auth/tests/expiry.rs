//! Tests of hard limits and sliding windows, and of the uses that are written to the store for them.

use super::*;
use crate::store::testing::{accept_last_uses, refuse_last_uses};

#[tokio::test]
async fn hard_limit_closes_sessions_and_is_not_extended_by_use() {
    let env = AuthEnv::new();
    let text = env.create_token(hard_expiry(&env, 60), |_| ());
    let session = env.login(&text).await.expect("accepted");
    env.clock.advance(secs(59));
    session.record_use();
    session.access().expect("valid");
    let session_closed = tokio::spawn({
        let session = session.clone();
        async move { session.closed().await }
    });
    tokio::task::yield_now().await;
    assert!(!session_closed.is_finished());
    env.clock.advance(secs(1));
    within_one_second(async { session_closed.await.expect("joins") }).await;
    assert_eq!(session.access(), Err(SessionEnded));
    assert_denied(env.login(&text).await);
}

#[tokio::test]
async fn use_extends_sliding_window_up_to_hard_limit() {
    let env = AuthEnv::new();
    let text = env.create_token(sliding_expiry(&env, 60, 150), |_| ());
    let session = env.login(&text).await.expect("accepted");
    for _ in 0..2 {
        env.clock.advance(secs(59));
        session.access().expect("valid");
        session.record_use();
    }
    assert_eq!(session.deadline(), start_time().saturating_add(secs(150)));
    env.clock.advance(secs(31));
    session.access().expect("valid");
    session.record_use();
    env.clock.advance(secs(1));
    assert_eq!(session.access(), Err(SessionEnded), "the cap");
    session.record_use();
    assert_denied(env.login(&text).await);
}

#[tokio::test]
async fn token_idle_beyond_window_expires() {
    let env = AuthEnv::new();
    let text = env.create_token(sliding_expiry(&env, 60, 600), |_| ());
    let session = env.login(&text).await.expect("accepted");
    env.clock.advance(secs(60));
    session.record_use();
    assert_eq!(session.access(), Err(SessionEnded), "a use after the end comes too late");
    within_one_second(session.closed()).await;
    assert_denied(env.login(&text).await);
}

#[tokio::test]
async fn sliding_window_is_exact_despite_delayed_writes() {
    let env = AuthEnv::new();
    let text = env.create_token(sliding_expiry(&env, 600, 6000), |_| ());
    env.login(&text).await.expect("accepted").record_use();
    let mut state = StoreWatchState::default();
    poll_watcher(&env, &mut state);
    assert_eq!(token_record(&env, &text).last_use.map(|last| last.at), Some(start_time()), "the first use, at once");
    env.clock.advance(secs(20));
    env.login(&text).await.expect("accepted").record_use();
    poll_watcher(&env, &mut state);
    assert_eq!(
        token_record(&env, &text).last_use.map(|last| last.at),
        Some(start_time()),
        "the second, within window/20"
    );
    env.clock.advance(secs(599));
    env.login(&text).await.expect("599 s after the last use");
    poll_watcher(&env, &mut state);
    assert_eq!(
        token_record(&env, &text).last_use.map(|last| last.at),
        Some(start_time().saturating_add(secs(20))),
        "later on"
    );
    env.clock.advance(secs(1));
    assert_denied(env.login(&text).await);
}

#[tokio::test]
async fn use_recorded_by_another_process_extends_window() {
    let env = AuthEnv::new();
    let text = env.create_token(sliding_expiry(&env, 60, 600), |_| ());
    let session = env.login(&text).await.expect("accepted");
    let other = Authenticator::new(env.open_second_store(), env.clock.clone()).expect("opens");
    env.clock.advance(secs(50));
    other.authenticate(credential(&text), peer("192.0.2.1")).await.expect("accepted").record_use();
    other.core.flush();
    env.clock.advance(secs(50));
    session.access().expect("used 50 s ago");
    env.clock.advance(secs(10));
    assert_eq!(session.access(), Err(SessionEnded));
}

#[tokio::test]
async fn uses_are_written_once_per_interval_and_flushed_at_shutdown() {
    let env = AuthEnv::new();
    let text = env.create_token(sliding_expiry(&env, 200, 6000), |_| ());
    let session = env.login(&text).await.expect("accepted");
    let mut state = StoreWatchState::default();
    let before = env.store.write_count();
    for _ in 0..100 {
        session.record_use();
        poll_watcher(&env, &mut state);
        env.clock.advance(secs(1));
    }
    let written = env.store.write_count() - before;
    assert_eq!(written, 10 + 2, "a window of 200 s: once every 10 s, and once that it is the first use, and counted");
    session.record_use();
    let last = env.clock.now();
    let (stop, watch) = spawn_watcher(&env).await;
    drop(stop);
    watch.await.expect("joins");
    let used = token_record(&env, &text).last_use.expect("written");
    assert_eq!((used.at, used.address.as_deref(), used.client.as_deref()), (last, Some("192.0.2.1"), Some("test/1")));
    assert_eq!(used.protocol, Some(Protocol::Webdav));
}

#[tokio::test]
async fn late_use_does_not_revive_revoked_token() {
    let env = AuthEnv::new();
    let text = env.create_token(sliding_expiry(&env, 60, 600), |_| ());
    let session = env.login(&text).await.expect("accepted");
    env.clock.advance(secs(30));
    session.record_use();
    env.open_second_store().revoke_tokens(&[text.id()], env.clock.now()).expect("revoked");
    env.auth.core.flush();
    let record = token_record(&env, &text);
    assert_eq!((record.state, record.last_use), (TokenState::Revoked, None));
    assert_denied(env.login(&text).await);
}

#[tokio::test]
async fn unwritten_use_is_retried_at_next_flush() {
    let env = AuthEnv::new();
    let (hour, month) = (3600, 30 * 86_400);
    let text = env.create_token(sliding_expiry(&env, month, 12 * month), |_| ());
    let session = env.login(&text).await.expect("accepted");
    session.record_use();
    env.auth.core.flush_due();
    refuse_last_uses(&env.store);
    env.clock.advance(secs(40 * hour));
    session.record_use();
    let used_at = env.clock.now();
    env.auth.core.flush_due();
    accept_last_uses(&env.store);
    env.clock.advance(secs(1));
    env.auth.core.flush_due();
    assert_eq!(token_record(&env, &text).last_use.map(|last| last.at), Some(used_at), "and not 36 h later");
    session.record_use();
    env.auth.core.flush_due();
    assert_eq!(token_record(&env, &text).last_use.map(|last| last.at), Some(used_at), "at intervals again");
}
