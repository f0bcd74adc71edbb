//! When tokens die by themselves, and what is written down of their uses.

use super::*;

#[tokio::test]
async fn hard_limit_closes_sessions_and_is_not_extended_by_use() {
    let world = AuthEnv::new();
    let text = world.create_token(hard_expiry(&world, 60), |_| ());
    let session = world.login(&text).await.expect("let in");
    world.clock.advance(secs(59));
    session.record_use();
    session.access().expect("lives");
    let ended = tokio::spawn({
        let session = session.clone();
        async move { session.closed().await }
    });
    tokio::task::yield_now().await;
    assert!(!ended.is_finished());
    world.clock.advance(secs(1));
    within_one_second(async { ended.await.expect("joins") }).await;
    assert_eq!(session.access(), Err(SessionEnded));
    assert_denied(world.login(&text).await);
}

#[tokio::test]
async fn use_extends_sliding_window_up_to_hard_limit() {
    let world = AuthEnv::new();
    let text = world.create_token(sliding_expiry(&world, 60, 150), |_| ());
    let session = world.login(&text).await.expect("let in");
    for _ in 0..2 {
        world.clock.advance(secs(59));
        session.access().expect("lives");
        session.record_use();
    }
    assert_eq!(session.deadline(), start_time().saturating_add(secs(150)));
    world.clock.advance(secs(31));
    session.access().expect("lives");
    session.record_use();
    world.clock.advance(secs(1));
    assert_eq!(session.access(), Err(SessionEnded), "the cap");
    session.record_use();
    assert_denied(world.login(&text).await);
}

#[tokio::test]
async fn token_idle_beyond_window_expires() {
    let world = AuthEnv::new();
    let text = world.create_token(sliding_expiry(&world, 60, 600), |_| ());
    let session = world.login(&text).await.expect("let in");
    world.clock.advance(secs(60));
    session.record_use();
    assert_eq!(session.access(), Err(SessionEnded), "a use after the end comes too late");
    within_one_second(session.closed()).await;
    assert_denied(world.login(&text).await);
}

#[tokio::test]
async fn sliding_window_is_exact_despite_delayed_writes() {
    let world = AuthEnv::new();
    let text = world.create_token(sliding_expiry(&world, 600, 6000), |_| ());
    world.login(&text).await.expect("let in").record_use();
    let mut watched = StoreWatchState::default();
    poll_watcher(&world, &mut watched);
    assert_eq!(token_record(&world, &text).last_use.map(|last| last.at), Some(start_time()), "the first use, at once");
    world.clock.advance(secs(20));
    world.login(&text).await.expect("let in").record_use();
    poll_watcher(&world, &mut watched);
    assert_eq!(
        token_record(&world, &text).last_use.map(|last| last.at),
        Some(start_time()),
        "the second, within window/20"
    );
    world.clock.advance(secs(599));
    world.login(&text).await.expect("599 s after the last use");
    poll_watcher(&world, &mut watched);
    assert_eq!(
        token_record(&world, &text).last_use.map(|last| last.at),
        Some(start_time().saturating_add(secs(20))),
        "later on"
    );
    world.clock.advance(secs(1));
    assert_denied(world.login(&text).await);
}

#[tokio::test]
async fn use_recorded_by_another_process_extends_window() {
    let world = AuthEnv::new();
    let text = world.create_token(sliding_expiry(&world, 60, 600), |_| ());
    let session = world.login(&text).await.expect("let in");
    let other = Authenticator::new(world.open_second_store(), world.clock.clone()).expect("opens");
    world.clock.advance(secs(50));
    other.authenticate(credential(&text), peer("192.0.2.1")).await.expect("let in").record_use();
    other.core.flush();
    world.clock.advance(secs(50));
    session.access().expect("used 50 s ago");
    world.clock.advance(secs(10));
    assert_eq!(session.access(), Err(SessionEnded));
}

#[tokio::test]
async fn uses_are_written_once_per_interval_and_flushed_at_shutdown() {
    let world = AuthEnv::new();
    let text = world.create_token(sliding_expiry(&world, 200, 6000), |_| ());
    let session = world.login(&text).await.expect("let in");
    let mut watched = StoreWatchState::default();
    let before = world.store.write_count();
    for _ in 0..100 {
        session.record_use();
        poll_watcher(&world, &mut watched);
        world.clock.advance(secs(1));
    }
    let written = world.store.write_count() - before;
    assert_eq!(written, 10 + 2, "a window of 200 s: once every 10 s, and once that it is the first use, and counted");
    session.record_use();
    let last = world.clock.now();
    let (stop, watch) = spawn_watcher(&world).await;
    drop(stop);
    watch.await.expect("joins");
    let used = token_record(&world, &text).last_use.expect("written");
    assert_eq!((used.at, used.address.as_deref(), used.client.as_deref()), (last, Some("192.0.2.1"), Some("test/1")));
    assert_eq!(used.protocol, Some(Protocol::Webdav));
}

#[tokio::test]
async fn late_use_does_not_revive_revoked_token() {
    let world = AuthEnv::new();
    let text = world.create_token(sliding_expiry(&world, 60, 600), |_| ());
    let session = world.login(&text).await.expect("let in");
    world.clock.advance(secs(30));
    session.record_use();
    world.open_second_store().revoke_tokens(&[text.id()], world.clock.now()).expect("revoked");
    world.auth.core.flush();
    let kept = token_record(&world, &text);
    assert_eq!((kept.state, kept.last_use), (TokenState::Revoked, None));
    assert_denied(world.login(&text).await);
}
