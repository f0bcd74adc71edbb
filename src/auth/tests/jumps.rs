//! What a clock that jumps does to tokens: it deletes none, and revives none.

use super::*;
use crate::store::{EventCursor, EventFilter};

const YEAR: u64 = 365 * 86_400;

fn noted(world: &World, text: &TokenText) -> usize {
    let filter = EventFilter { kind: Some(EventKind::TokenExpired), token: Some(text.id()), ..EventFilter::default() };
    world.store.audit_events(&filter, EventCursor::Latest, 10).expect("read").len()
}

#[tokio::test]
async fn token_that_expired_while_the_clock_was_steady_stays_expired_when_the_clock_goes_back() {
    for restarts in [false, true] {
        let world = World::new();
        let texts = [world.token(hard(&world, 60), |_| ()), world.token(sliding(&world, 60, 600), |_| ())];
        for text in &texts {
            world.login(text).await.expect("let in").used();
        }
        world.clock.turn(secs(61));
        for text in &texts {
            denied(world.login(text).await);
        }
        world.clock.set(store_now());
        for text in &texts {
            denied(world.login(text).await);
        }
        world.auth.write_down();
        for text in &texts {
            assert_eq!((record(&world, text).state, noted(&world, text)), (TokenState::Expired, 1));
            let auth = match restarts {
                true => Authenticator::new(world.elsewhere(), world.clock.clone()).expect("opens"),
                false => world.auth.clone(),
            };
            denied(auth.authenticate(credential(text), peer("192.0.2.1")).await);
        }
    }
}

#[tokio::test]
async fn child_of_an_expired_token_stays_dead_with_it_when_the_clock_goes_back() {
    let world = World::new();
    let above = world.token(hard(&world, 60), |_| ());
    let below = world.token(hard(&world, 600), |new| new.parent = Some(above.id()));
    world.login(&below).await.expect("let in");
    world.clock.turn(secs(61));
    denied(world.login(&below).await);
    world.auth.write_down();
    world.clock.set(store_now());
    denied(world.login(&below).await);
    denied(world.login(&above).await);
    assert_eq!((noted(&world, &above), noted(&world, &below)), (1, 0), "the child itself did not expire");
}

#[tokio::test]
async fn token_that_only_a_jump_expired_works_again_when_the_clock_is_right() {
    let world = World::new();
    let texts = [world.token(hard(&world, 600), |_| ()), world.token(sliding(&world, 600, YEAR / 2), |_| ())];
    let session = world.login(&texts[0]).await.expect("let in");
    world.login(&texts[1]).await.expect("let in").used();
    world.clock.set(store_now().saturating_add(secs(YEAR)));
    assert_eq!(session.access(), Err(Ended), "judged by what the clock shows");
    for text in &texts {
        denied(world.login(text).await);
    }
    world.clock.turn(secs(60));
    world.auth.write_down();
    world.clock.set(store_now().saturating_add(secs(60)));
    for text in &texts {
        world.login(text).await.expect("let in again");
        assert_eq!((record(&world, text).state, noted(&world, text)), (TokenState::Live, 0));
    }
    assert_eq!(session.access(), Err(Ended), "what has ended has ended");
}

#[tokio::test]
async fn clock_that_is_a_day_ahead_for_a_day_counts() {
    let world = World::new();
    let text = world.token(hard(&world, YEAR / 2), |_| ());
    world.clock.set(store_now().saturating_add(secs(YEAR)));
    denied(world.login(&text).await);
    world.clock.turn(secs(86_401));
    denied(world.login(&text).await);
    world.auth.write_down();
    assert_eq!(noted(&world, &text), 1);
    world.clock.set(store_now());
    denied(world.login(&text).await);
}
