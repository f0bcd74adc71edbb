//! When tokens die by themselves, and what is written down of their uses.

use super::*;

#[tokio::test]
async fn a_hard_limit_ends_sessions_and_no_use_moves_it() {
    let world = World::new();
    let text = world.token(hard(&world, 60), |_| ());
    let session = world.login(&text).await.expect("let in");
    world.clock.turn(secs(59));
    session.used();
    session.access().expect("lives");
    let ended = tokio::spawn({
        let session = session.clone();
        async move { session.ended().await }
    });
    tokio::task::yield_now().await;
    assert!(!ended.is_finished());
    world.clock.turn(secs(1));
    within_a_second(async { ended.await.expect("joins") }).await;
    assert_eq!(session.access(), Err(Ended));
    denied(world.login(&text).await);
}

#[tokio::test]
async fn each_use_moves_a_sliding_window_up_to_its_cap() {
    let world = World::new();
    let text = world.token(sliding(&world, 60, 150), |_| ());
    let session = world.login(&text).await.expect("let in");
    for _ in 0..2 {
        world.clock.turn(secs(59));
        session.access().expect("lives");
        session.used();
    }
    assert_eq!(session.deadline(), store_now().saturating_add(secs(150)));
    world.clock.turn(secs(31));
    session.access().expect("lives");
    session.used();
    world.clock.turn(secs(1));
    assert_eq!(session.access(), Err(Ended), "the cap");
    session.used();
    denied(world.login(&text).await);
}

#[tokio::test]
async fn a_token_that_rests_longer_than_its_window_dies() {
    let world = World::new();
    let text = world.token(sliding(&world, 60, 600), |_| ());
    let session = world.login(&text).await.expect("let in");
    world.clock.turn(secs(60));
    session.used();
    assert_eq!(session.access(), Err(Ended), "a use after the end comes too late");
    within_a_second(session.ended()).await;
    denied(world.login(&text).await);
}

#[tokio::test]
async fn a_window_is_exact_in_memory_whatever_is_written_down() {
    let world = World::new();
    let text = world.token(sliding(&world, 600, 6000), |_| ());
    world.login(&text).await.expect("let in").used();
    let mut watched = Watched::default();
    look(&world, &mut watched);
    assert_eq!(record(&world, &text).last_use.map(|last| last.at), Some(store_now()), "the first use, at once");
    world.clock.turn(secs(20));
    world.login(&text).await.expect("let in").used();
    look(&world, &mut watched);
    assert_eq!(record(&world, &text).last_use.map(|last| last.at), Some(store_now()), "the second, within window/20");
    world.clock.turn(secs(599));
    world.login(&text).await.expect("599 s after the last use");
    look(&world, &mut watched);
    assert_eq!(
        record(&world, &text).last_use.map(|last| last.at),
        Some(store_now().saturating_add(secs(20))),
        "later on"
    );
    world.clock.turn(secs(1));
    denied(world.login(&text).await);
}

#[tokio::test]
async fn a_use_that_another_process_wrote_down_counts() {
    let world = World::new();
    let text = world.token(sliding(&world, 60, 600), |_| ());
    let session = world.login(&text).await.expect("let in");
    let other = Authenticator::new(world.elsewhere(), world.clock.clone()).expect("opens");
    world.clock.turn(secs(50));
    other.authenticate(credential(&text), peer("192.0.2.1")).await.expect("let in").used();
    other.core.flush();
    world.clock.turn(secs(50));
    session.access().expect("used 50 s ago");
    world.clock.turn(secs(10));
    assert_eq!(session.access(), Err(Ended));
}

#[tokio::test]
async fn uses_are_written_once_an_interval_and_all_at_the_end() {
    let world = World::new();
    let text = world.token(sliding(&world, 200, 6000), |_| ());
    let session = world.login(&text).await.expect("let in");
    let mut watched = Watched::default();
    let before = world.store.write_count();
    for _ in 0..100 {
        session.used();
        look(&world, &mut watched);
        world.clock.turn(secs(1));
    }
    let written = world.store.write_count() - before;
    assert_eq!(written, 10 + 2, "a window of 200 s: once every 10 s, and once that it is the first use, and counted");
    session.used();
    let last = world.clock.now();
    let (stop, watch) = watch_of(&world).await;
    drop(stop);
    watch.await.expect("joins");
    let used = record(&world, &text).last_use.expect("written");
    assert_eq!((used.at, used.address.as_deref(), used.client.as_deref()), (last, Some("192.0.2.1"), Some("test/1")));
    assert_eq!(used.protocol, Some(Protocol::Webdav));
}

#[tokio::test]
async fn a_late_use_does_not_revive_a_revoked_token() {
    let world = World::new();
    let text = world.token(sliding(&world, 60, 600), |_| ());
    let session = world.login(&text).await.expect("let in");
    world.clock.turn(secs(30));
    session.used();
    world.elsewhere().revoke_tokens(&[text.id()], world.clock.now()).expect("revoked");
    world.auth.core.flush();
    let kept = record(&world, &text);
    assert_eq!((kept.state, kept.last_use), (TokenState::Revoked, None));
    denied(world.login(&text).await);
}
