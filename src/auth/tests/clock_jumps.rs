//! Tests of authentication under a wall clock that jumps: no token is deleted, none is revived, throttling and caches
//! keep their times.

use super::*;
use crate::store::{EventCursor, EventFilter};

const YEAR_SECONDS: u64 = 365 * 86_400;

fn expiration_events(env: &AuthEnv, text: &TokenText) -> usize {
    let filter = EventFilter { kind: Some(EventKind::TokenExpired), token: Some(text.id()), ..EventFilter::default() };
    env.store.audit_events(&filter, EventCursor::Latest, 10).expect("read").len()
}

#[tokio::test]
async fn token_expired_under_steady_clock_stays_expired_after_clock_set_back() {
    for restarts in [false, true] {
        let env = AuthEnv::new();
        let texts =
            [env.create_token(hard_expiry(&env, 60), |_| ()), env.create_token(sliding_expiry(&env, 60, 600), |_| ())];
        for text in &texts {
            env.login(text).await.expect("accepted").record_use();
        }
        env.clock.advance(secs(61));
        for text in &texts {
            assert_denied(env.login(text).await);
        }
        env.clock.set(start_time());
        for text in &texts {
            assert_denied(env.login(text).await);
        }
        env.auth.flush();
        for text in &texts {
            assert_eq!((token_record(&env, text).state, expiration_events(&env, text)), (TokenState::Expired, 1));
            let auth = match restarts {
                true => Authenticator::new(env.open_second_store(), env.clock.clone()).expect("opens"),
                false => env.auth.clone(),
            };
            assert_denied(auth.authenticate(credential(text), peer("192.0.2.1")).await);
        }
    }
}

#[tokio::test]
async fn child_of_expired_token_stays_refused_after_clock_set_back() {
    let env = AuthEnv::new();
    let above = env.create_token(hard_expiry(&env, 60), |_| ());
    let below = env.create_token(hard_expiry(&env, 600), |new| new.parent = Some(above.id()));
    env.login(&below).await.expect("accepted");
    env.clock.advance(secs(61));
    assert_denied(env.login(&below).await);
    env.auth.flush();
    env.clock.set(start_time());
    assert_denied(env.login(&below).await);
    assert_denied(env.login(&above).await);
    assert_eq!(
        (expiration_events(&env, &above), expiration_events(&env, &below)),
        (1, 0),
        "the child itself did not expire"
    );
}

#[tokio::test]
async fn token_expired_by_clock_jump_works_again_once_clock_is_corrected() {
    let env = AuthEnv::new();
    let texts = [
        env.create_token(hard_expiry(&env, 600), |_| ()),
        env.create_token(sliding_expiry(&env, 600, YEAR_SECONDS / 2), |_| ()),
    ];
    let session = env.login(&texts[0]).await.expect("accepted");
    env.login(&texts[1]).await.expect("accepted").record_use();
    env.clock.set(start_time().saturating_add(secs(YEAR_SECONDS)));
    assert_eq!(session.access(), Err(SessionEnded), "judged by what the clock shows");
    for text in &texts {
        assert_denied(env.login(text).await);
    }
    env.clock.advance(secs(60));
    env.auth.flush();
    env.clock.set(start_time().saturating_add(secs(60)));
    for text in &texts {
        env.login(text).await.expect("accepted again");
        assert_eq!((token_record(&env, text).state, expiration_events(&env, text)), (TokenState::Live, 0));
    }
    assert_eq!(session.access(), Err(SessionEnded), "what has ended has ended");
}

#[tokio::test]
async fn clock_jump_is_trusted_after_one_day_of_boottime() {
    let env = AuthEnv::new();
    let text = env.create_token(hard_expiry(&env, YEAR_SECONDS / 2), |_| ());
    env.clock.set(start_time().saturating_add(secs(YEAR_SECONDS)));
    assert_denied(env.login(&text).await);
    env.clock.advance(secs(86_401));
    assert_denied(env.login(&text).await);
    env.auth.flush();
    assert_eq!(expiration_events(&env, &text), 1);
    env.clock.set(start_time());
    assert_denied(env.login(&text).await);
}

fn day_later_or_earlier(env: &AuthEnv, ahead: bool) -> UnixMillis {
    let (now, day) = (env.clock.now(), secs(86_400));
    if ahead { now.saturating_add(day) } else { now.saturating_sub(day) }
}

#[tokio::test]
async fn clock_jump_neither_prolongs_nor_lifts_throttling() {
    for ahead in [false, true] {
        let env = AuthEnv::new();
        let guess = async || env.login(&generate_token().expect("random")).await.expect_err("refused");
        assert!(matches!(guess().await, AuthError::Denied));
        env.clock.set(day_later_or_earlier(&env, ahead));
        assert!(matches!(guess().await, AuthError::Denied), "one failure throttles nobody, whatever the clock does");
        while let AuthError::Denied = guess().await {}
        env.clock.set(day_later_or_earlier(&env, ahead));
        let refused = guess().await;
        assert!(matches!(refused, AuthError::Throttled(wait) if wait <= secs(3)), "{refused:?}");
        env.clock.advance(secs(3));
        assert!(matches!(guess().await, AuthError::Denied), "it waited for as long as it was told");
    }
}

#[tokio::test]
async fn clock_jump_does_not_keep_idle_tokens_and_secrets_in_memory() {
    for ahead in [false, true] {
        let env = AuthEnv::new();
        let text = env.create_token(TokenExpiry::Never, |_| ());
        let mut state = StoreWatchState::default();
        env.login(&text).await.expect("accepted");
        env.clock.set(day_later_or_earlier(&env, ahead));
        poll_watcher(&env, &mut state);
        assert_eq!(env.auth.core.token_cache.count(), 1, "it was requested just now");
        env.login(&text).await.expect("accepted");
        assert_eq!(env.auth.verification_runs(), 1, "the secret was verified just now");
        env.clock.set(day_later_or_earlier(&env, ahead));
        env.clock.advance(secs(10 * 60));
        poll_watcher(&env, &mut state);
        assert_eq!(env.auth.core.token_cache.count(), 0);
        env.login(&text).await.expect("accepted");
        assert_eq!(env.auth.verification_runs(), 2);
    }
}

#[tokio::test]
async fn use_under_clock_set_forward_is_corrected_once_corrected_clock_is_trusted() {
    const DAY_SECONDS: u64 = 86_400;
    for restarts in [false, true] {
        let env = AuthEnv::new();
        let text = env.create_token(sliding_expiry(&env, 30 * DAY_SECONDS, YEAR_SECONDS), |_| ());
        let last_use = || token_record(&env, &text).last_use.expect("used");
        env.clock.set(start_time().saturating_add(secs(20 * DAY_SECONDS)));
        env.login(&text).await.expect("accepted").record_use();
        env.auth.flush();
        assert_eq!(last_use().at, env.clock.now());
        env.clock.set(start_time());
        let auth = match restarts {
            true => Authenticator::new(env.open_second_store(), env.clock.clone()).expect("opens"),
            false => env.auth.clone(),
        };
        let session = auth.authenticate(credential(&text), peer("192.0.2.1")).await.expect("accepted");
        auth.core.flush_due();
        assert!(last_use().at > env.clock.now(), "nobody knows yet which clock was right");
        env.clock.advance(secs(DAY_SECONDS + 60));
        auth.core.flush_due();
        // A use that only the row tells of counts as one of this moment.
        let used_at = if restarts { env.clock.now() } else { start_time() };
        assert_eq!((last_use().at, last_use().protocol), (used_at, Some(Protocol::Webdav)));
        env.clock.advance(secs(30 * DAY_SECONDS - 60 - if restarts { 0 } else { DAY_SECONDS + 60 }));
        session.access().expect("within its window");
        env.clock.advance(secs(60));
        assert_eq!(session.access(), Err(SessionEnded));
    }
}
