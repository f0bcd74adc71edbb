//! What a clock that jumps does to tokens: it deletes none, and revives none.

use super::*;
use crate::store::{EventCursor, EventFilter};

const YEAR_SECONDS: u64 = 365 * 86_400;

fn expiration_events(world: &AuthEnv, text: &TokenText) -> usize {
    let filter = EventFilter { kind: Some(EventKind::TokenExpired), token: Some(text.id()), ..EventFilter::default() };
    world.store.audit_events(&filter, EventCursor::Latest, 10).expect("read").len()
}

#[tokio::test]
async fn token_expired_under_steady_clock_stays_expired_after_clock_set_back() {
    for restarts in [false, true] {
        let world = AuthEnv::new();
        let texts = [
            world.create_token(hard_expiry(&world, 60), |_| ()),
            world.create_token(sliding_expiry(&world, 60, 600), |_| ()),
        ];
        for text in &texts {
            world.login(text).await.expect("let in").record_use();
        }
        world.clock.advance(secs(61));
        for text in &texts {
            assert_denied(world.login(text).await);
        }
        world.clock.set(start_time());
        for text in &texts {
            assert_denied(world.login(text).await);
        }
        world.auth.flush();
        for text in &texts {
            assert_eq!((token_record(&world, text).state, expiration_events(&world, text)), (TokenState::Expired, 1));
            let auth = match restarts {
                true => Authenticator::new(world.open_second_store(), world.clock.clone()).expect("opens"),
                false => world.auth.clone(),
            };
            assert_denied(auth.authenticate(credential(text), peer("192.0.2.1")).await);
        }
    }
}

#[tokio::test]
async fn child_of_expired_token_stays_refused_after_clock_set_back() {
    let world = AuthEnv::new();
    let above = world.create_token(hard_expiry(&world, 60), |_| ());
    let below = world.create_token(hard_expiry(&world, 600), |new| new.parent = Some(above.id()));
    world.login(&below).await.expect("let in");
    world.clock.advance(secs(61));
    assert_denied(world.login(&below).await);
    world.auth.flush();
    world.clock.set(start_time());
    assert_denied(world.login(&below).await);
    assert_denied(world.login(&above).await);
    assert_eq!(
        (expiration_events(&world, &above), expiration_events(&world, &below)),
        (1, 0),
        "the child itself did not expire"
    );
}

#[tokio::test]
async fn token_expired_by_clock_jump_works_again_once_clock_is_corrected() {
    let world = AuthEnv::new();
    let texts = [
        world.create_token(hard_expiry(&world, 600), |_| ()),
        world.create_token(sliding_expiry(&world, 600, YEAR_SECONDS / 2), |_| ()),
    ];
    let session = world.login(&texts[0]).await.expect("let in");
    world.login(&texts[1]).await.expect("let in").record_use();
    world.clock.set(start_time().saturating_add(secs(YEAR_SECONDS)));
    assert_eq!(session.access(), Err(SessionEnded), "judged by what the clock shows");
    for text in &texts {
        assert_denied(world.login(text).await);
    }
    world.clock.advance(secs(60));
    world.auth.flush();
    world.clock.set(start_time().saturating_add(secs(60)));
    for text in &texts {
        world.login(text).await.expect("let in again");
        assert_eq!((token_record(&world, text).state, expiration_events(&world, text)), (TokenState::Live, 0));
    }
    assert_eq!(session.access(), Err(SessionEnded), "what has ended has ended");
}

#[tokio::test]
async fn clock_jump_is_trusted_after_one_day_of_boottime() {
    let world = AuthEnv::new();
    let text = world.create_token(hard_expiry(&world, YEAR_SECONDS / 2), |_| ());
    world.clock.set(start_time().saturating_add(secs(YEAR_SECONDS)));
    assert_denied(world.login(&text).await);
    world.clock.advance(secs(86_401));
    assert_denied(world.login(&text).await);
    world.auth.flush();
    assert_eq!(expiration_events(&world, &text), 1);
    world.clock.set(start_time());
    assert_denied(world.login(&text).await);
}
