//! Tests of the audit events of authentication: uses, refusals, throttled addresses and closed sessions, aggregated so
//! that a flood writes few rows.

use super::*;
use crate::domain::{AuditEvent, EventKind};
use crate::store::testing::{break_table, panic_after_commits, restore_table};
use crate::store::{EventCursor, EventFilter};

/// Writes the events that are due, and returns all, the oldest first.
fn flushed_events(env: &AuthEnv) -> Vec<AuditEvent> {
    env.auth.core.flush_due();
    let noted = env.store.audit_events(&EventFilter::default(), EventCursor::After(0), 1000).expect("read");
    noted.into_iter().map(|noted| noted.event).collect()
}

fn flushed_event_kinds(env: &AuthEnv) -> Vec<EventKind> {
    flushed_events(env).into_iter().map(|event| event.kind).collect()
}

#[tokio::test]
async fn first_use_and_each_new_network_are_audited_once() {
    let env = AuthEnv::new();
    let text = env.create_token(TokenExpiry::Never, |_| ());
    for address in ["192.0.2.1", "192.0.2.1", "2001:db8::1", "2001:db8::2", "192.0.2.2"] {
        env.auth.authenticate(credential(&text), peer(address)).await.expect("accepted").record_use();
        env.auth.core.flush_due();
    }
    let events: Vec<_> =
        flushed_events(&env).into_iter().map(|event| (event.kind, event.address.expect("address"))).collect();
    let new = EventKind::TokenNewAddress;
    let expected = [(EventKind::TokenFirstUsed, "192.0.2.1"), (new, "2001:db8::1"), (new, "192.0.2.2")];
    assert_eq!(events, expected.map(|(kind, address)| (kind, address.to_owned())));

    let restarted = Authenticator::new(env.store.clone(), env.clock.clone()).expect("opens");
    restarted.authenticate(credential(&text), peer("192.0.2.2")).await.expect("accepted").record_use();
    restarted.core.flush_due();
    assert_eq!(flushed_events(&env).len(), 3, "what is in the store is known after a restart");
}

#[tokio::test]
async fn login_without_activity_is_not_a_use() {
    let env = AuthEnv::new();
    let text = env.create_token(TokenExpiry::Never, |_| ());
    env.login(&text).await.expect("accepted");
    assert!(flushed_events(&env).is_empty());
}

#[tokio::test]
async fn former_secrets_are_audited_differently_from_wrong_ones() {
    let env = AuthEnv::new();
    let rotated = env.create_token(TokenExpiry::Never, |_| ());
    let revoked = env.create_token(TokenExpiry::Never, |_| ());
    let expired = env.create_token(hard_expiry(&env, 60), |_| ());
    let fresh = with_fresh_secret(&rotated);
    env.rotate(rotated.id(), &fresh, None);
    env.store.revoke_tokens(&[revoked.id()], env.clock.now()).expect("revoked");
    env.clock.advance(secs(60));
    for text in [&rotated, &revoked, &expired] {
        assert_denied(env.login(text).await);
    }
    let mut events = flushed_events(&env);
    let expiries = events.extract_if(.., |event| event.kind == EventKind::TokenExpired).count();
    assert_eq!(expiries, 1, "noted once it is found out");
    assert!(events.iter().all(|event| event.kind == EventKind::DeadSecretUsed), "{events:?}");
    let details: Vec<_> = events.iter().map(|event| (event.token, event.detail.as_deref().expect("why"))).collect();
    for (text, word) in [(&rotated, "rotation"), (&revoked, "revoked"), (&expired, "expired")] {
        assert!(details.iter().any(|(id, why)| *id == Some(text.id()) && why.contains(word)), "{word}: {details:?}");
    }
    assert_eq!(events[0].user, Some(login("alice")));

    assert_denied(env.login(&with_fresh_secret(&revoked)).await);
    assert_eq!(
        flushed_event_kinds(&env).last(),
        Some(&EventKind::AttemptRefused),
        "a wrong secret of a revoked token counts as wrong"
    );
}

#[tokio::test]
async fn secret_retired_long_ago_is_audited_as_inactive_token() {
    let env = AuthEnv::new();
    let first = env.create_token(TokenExpiry::Never, |_| ());
    for grace in [None, Some(env.clock.now().saturating_add(secs(60))), None] {
        let next = with_fresh_secret(&first);
        env.rotate(first.id(), &next, grace);
    }
    assert_denied(env.login(&first).await);
    assert_eq!(flushed_event_kinds(&env), [EventKind::DeadSecretUsed]);
}

#[tokio::test]
async fn refused_attempts_are_aggregated_by_address_token_and_reason() {
    let env = AuthEnv::new();
    let text = env.create_token(TokenExpiry::Never, |_| ());
    let malformed = || Credential { login: None, token: b"pgt_".to_vec().into() };
    for _ in 0..3 {
        assert_denied(env.login(&with_fresh_secret(&text)).await);
        assert_denied(env.auth.authenticate(malformed(), peer("192.0.2.7")).await);
        assert_denied(env.login(&generate_token().expect("random")).await);
    }
    let events = flushed_events(&env);
    assert_eq!(events.len(), 3, "{events:?}");
    assert!(events.iter().all(|event| event.kind == EventKind::AttemptRefused && event.count == 3), "{events:?}");
    let wrong = events.iter().find(|event| event.token == Some(text.id())).expect("the known token");
    assert_eq!(wrong.user, Some(login("alice")));
    assert_eq!(
        events.iter().filter(|event| event.token.is_none()).count(),
        2,
        "an unknown id is not recorded as a token"
    );
}

#[tokio::test]
async fn throttled_address_is_audited() {
    let env = AuthEnv::new();
    let text = env.create_token(TokenExpiry::Never, |_| ());
    while let Err(AuthError::Denied) = env.login(&with_fresh_secret(&text)).await {}
    let events = flushed_events(&env);
    assert_eq!(events.iter().map(|event| event.count).sum::<u64>(), 21, "{events:?}");
    assert!(
        events.iter().any(|event| event.detail.as_deref().is_some_and(|why| why.contains("too many"))),
        "{events:?}"
    );
}

#[tokio::test]
async fn flood_of_wrong_secrets_writes_few_audit_rows() {
    let env = AuthEnv::new();
    let text = env.create_token(TokenExpiry::Never, |_| ());
    for number in 0..10_000u32 {
        let address = format!("198.18.{}.{}", number / 250, number % 250);
        assert_denied(env.auth.authenticate(credential(&with_fresh_secret(&text)), peer(&address)).await);
        if number % 1000 == 0 {
            env.auth.core.flush_due();
        }
    }
    env.auth.core.flush();
    let events = flushed_events(&env);
    assert!(events.len() < 300, "{} rows", events.len());
    assert_eq!(events.iter().map(|event| event.count).sum::<u64>(), 10_000);
    assert_eq!(env.auth.verification_runs(), 0);
}

#[tokio::test]
async fn closed_session_is_audited_with_reason() {
    let env = AuthEnv::new();
    type EndSessionFn<'a> = &'a dyn Fn(&TokenText);
    let narrowed = TokenLimits { protocols: vec![Protocol::Sftp], ..TokenLimits::default() };
    let session_ends: [(&str, EndSessionFn<'_>); 4] = [
        ("revoked", &|text| env.store.revoke_tokens(&[text.id()], env.clock.now()).expect("revoked")),
        ("rotation", &|text| {
            let next = with_fresh_secret(text);
            env.rotate(text.id(), &next, None);
        }),
        ("limits", &|text| set_limits(&env.store, text.id(), &narrowed)),
        ("expired", &|_| env.clock.advance(secs(60))),
    ];
    for (word, end) in session_ends {
        let text = env.create_token(hard_expiry(&env, 60), |_| ());
        let session = env.login(&text).await.expect("accepted");
        end(&text);
        within_one_second(session.closed()).await;
        let events = flushed_events(&env);
        let of_session = |event: &&AuditEvent| event.token == Some(text.id()) && event.kind != EventKind::TokenExpired;
        let last = events.iter().find(of_session).expect("an event");
        assert_eq!(last.kind, EventKind::SessionEnded);
        assert!(last.detail.as_deref().is_some_and(|why| why.contains(word)), "{word}: {last:?}");
    }
}

#[tokio::test]
async fn presented_secrets_never_reach_state_directory() {
    let env = AuthEnv::new();
    let good = env.create_token(TokenExpiry::Never, |_| ());
    let wrong = with_fresh_secret(&good);
    let unknown = generate_token().expect("random");
    env.login(&good).await.expect("accepted").record_use();
    assert_denied(env.login(&wrong).await);
    assert_denied(env.login(&unknown).await);
    env.store.revoke_tokens(&[good.id()], env.clock.now()).expect("revoked");
    assert_denied(env.login(&good).await);
    env.auth.core.flush();
    assert!(flushed_events(&env).len() >= 4);
    for entry in std::fs::read_dir(&env.state).expect("state") {
        let path = entry.expect("entry").path();
        let bytes = std::fs::read(&path).expect("file");
        for text in [&good, &wrong, &unknown] {
            assert!(memchr::memmem::find(&bytes, text.secret().expose()).is_none(), "{}", path.display());
        }
    }
}

#[tokio::test]
async fn session_is_counted_once_per_hour_and_each_refusal_counted() {
    let env = AuthEnv::new();
    let text = env.create_token(TokenExpiry::Never, |_| ());
    let sum = |what: UsageKind| {
        let all = env
            .store
            .usage_counts(UnixMillis::from_millis(0))
            .expect("read")
            .into_iter()
            .chain(env.auth.unflushed_counts());
        all.filter(|count| count.kind == what).map(|count| count.count).sum::<u64>()
    };
    let session = env.login(&text).await.expect("accepted");
    assert_eq!(sum(UsageKind::Use), 0, "nothing was done yet");
    for _ in 0..5 {
        session.record_use();
        session.clone().record_use();
    }
    env.login(&text).await.expect("accepted").record_use();
    assert_eq!(sum(UsageKind::Use), 2);
    let next_request = session.reuse().expect("valid");
    next_request.record_use();
    next_request.record_use();
    assert_eq!(sum(UsageKind::Use), 3, "a further request of its connection");
    env.clock.advance(secs(3600));
    session.record_use();
    assert_eq!(sum(UsageKind::Use), 4);
    session.record_denial("write", None);
    assert_denied(env.login(&with_fresh_secret(&text)).await);
    assert_eq!((sum(UsageKind::Use), sum(UsageKind::Refusal)), (4, 2));
    env.auth.core.flush();
    assert!(env.auth.unflushed_counts().is_empty());
    assert_eq!((sum(UsageKind::Use), sum(UsageKind::Refusal)), (4, 2), "in the store");
}

#[tokio::test]
async fn unwritten_counts_are_retained() {
    let env = AuthEnv::new();
    let text = env.create_token(TokenExpiry::Never, |_| ());
    break_table(&env.store, "counts");
    env.login(&text).await.expect("accepted").record_use();
    env.auth.core.flush();
    assert_eq!(env.auth.unflushed_counts().len(), 1);
    restore_table(&env.store, "counts");
    env.auth.core.flush();
    assert_eq!(env.store.usage_counts(UnixMillis::from_millis(0)).expect("read").len(), 1);
}

#[tokio::test]
async fn unwritten_networks_are_audited_once_store_can_be_written_again() {
    let env = AuthEnv::new();
    let text = env.create_token(TokenExpiry::Never, |_| ());
    let use_from = async |address: &str| {
        env.auth.authenticate(credential(&text), peer(address)).await.expect("accepted").record_use();
    };
    break_table(&env.store, "sightings");
    use_from("192.0.2.1").await;
    let mut state = StoreWatchState::default();
    poll_watcher(&env, &mut state);
    for number in 2..100 {
        use_from(&format!("192.0.2.{number}")).await;
        poll_watcher(&env, &mut state);
    }
    assert!(env.auth.core.last_used.new_addresses().len() <= 16, "what a token may keep in memory is bounded");
    for _ in 0..3 {
        env.clock.advance(secs(60));
        poll_watcher(&env, &mut state);
    }
    assert_eq!(env.auth.core.token_cache.count(), 0, "no session holds the token any more");
    restore_table(&env.store, "sightings");
    let events = flushed_events(&env);
    let first = events.iter().filter(|event| event.kind == EventKind::TokenFirstUsed).collect::<Vec<_>>();
    assert!(first.len() == 1 && first[0].address.as_deref() == Some("192.0.2.1"), "{events:?}");
    assert_eq!(first[0].at, start_time(), "by the time of the use");
    assert_eq!(events.iter().filter(|event| event.kind == EventKind::TokenNewAddress).count(), 15, "{events:?}");
    poll_watcher(&env, &mut state);
    assert_eq!((flushed_events(&env).len(), env.auth.core.last_used.count()), (16, 0), "each once; nothing is kept");
}

#[tokio::test]
async fn unwritten_events_and_counts_are_retried_at_next_flush() {
    let env = AuthEnv::new();
    let text = env.create_token(TokenExpiry::Never, |_| ());
    for table in ["events", "counts"] {
        break_table(&env.store, table);
    }
    assert_denied(env.login(&with_fresh_secret(&text)).await);
    env.auth.core.flush_due();
    for table in ["events", "counts"] {
        restore_table(&env.store, table);
    }
    assert_eq!(flushed_event_kinds(&env), [EventKind::AttemptRefused]);
    assert_eq!(env.store.usage_counts(UnixMillis::from_millis(0)).expect("read").len(), 1);
}

#[tokio::test]
async fn panic_while_writing_loses_no_use_count_or_event() {
    for commits in 0.. {
        let env = AuthEnv::new();
        let (used, expiring) =
            (env.create_token(TokenExpiry::Never, |_| ()), env.create_token(hard_expiry(&env, 60), |_| ()));
        env.clock.advance(secs(60));
        env.login(&used).await.expect("accepted").record_use();
        assert_denied(env.login(&expiring).await);
        panic_after_commits(Some(commits));
        let flushed = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| env.auth.core.flush_due()));
        let panicked = panic_after_commits(None);
        assert_eq!(flushed.is_err(), panicked);
        let mut kinds = flushed_event_kinds(&env);
        kinds.sort_by_key(|kind| kind.to_string());
        let expected = [EventKind::DeadSecretUsed, EventKind::TokenExpired, EventKind::TokenFirstUsed];
        assert_eq!(kinds, expected, "a panic at commit {commits}");
        assert_eq!(
            token_record(&env, &used).last_use.map(|last| last.at),
            Some(env.clock.now()),
            "a panic at commit {commits}"
        );
        let counts = env.store.usage_counts(start_time().start_of_hour()).expect("read");
        assert_eq!(counts.iter().map(|count| count.count).collect::<Vec<_>>(), [1, 1], "a panic at commit {commits}");
        if !panicked {
            assert!(commits >= 5, "uses, expirations, addresses, counts and events");
            break;
        }
    }
}
