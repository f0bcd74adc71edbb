//! What the audit trail hears of authentication.

use super::*;
use crate::domain::{AuditEvent, EventKind};
use crate::store::{EventCursor, EventFilter};

/// Writes down what is due and returns all events, oldest first.
fn flushed_events(world: &AuthEnv) -> Vec<AuditEvent> {
    world.auth.core.flush_due();
    let noted = world.store.audit_events(&EventFilter::default(), EventCursor::After(0), 1000).expect("read");
    noted.into_iter().map(|noted| noted.event).collect()
}

fn flushed_event_kinds(world: &AuthEnv) -> Vec<EventKind> {
    flushed_events(world).into_iter().map(|event| event.kind).collect()
}

#[tokio::test]
async fn first_use_and_each_new_network_are_audited_once() {
    let world = AuthEnv::new();
    let text = world.create_token(TokenExpiry::Never, |_| ());
    for address in ["192.0.2.1", "192.0.2.1", "2001:db8::1", "2001:db8::2", "192.0.2.2"] {
        world.auth.authenticate(credential(&text), peer(address)).await.expect("let in").record_use();
        world.auth.core.flush_due();
    }
    let told: Vec<_> =
        flushed_events(&world).into_iter().map(|event| (event.kind, event.address.expect("address"))).collect();
    let new = EventKind::TokenNewAddress;
    let expected = [(EventKind::TokenFirstUsed, "192.0.2.1"), (new, "2001:db8::1"), (new, "192.0.2.2")];
    assert_eq!(told, expected.map(|(kind, address)| (kind, address.to_owned())));

    let restarted = Authenticator::new(world.store.clone(), world.clock.clone()).expect("opens");
    restarted.authenticate(credential(&text), peer("192.0.2.2")).await.expect("let in").record_use();
    restarted.core.flush_due();
    assert_eq!(flushed_events(&world).len(), 3, "what is written down is known after a restart");
}

#[tokio::test]
async fn login_without_activity_is_not_a_use() {
    let world = AuthEnv::new();
    let text = world.create_token(TokenExpiry::Never, |_| ());
    world.login(&text).await.expect("let in");
    assert!(flushed_events(&world).is_empty());
}

#[tokio::test]
async fn former_secrets_are_audited_differently_from_wrong_ones() {
    let world = AuthEnv::new();
    let rotated = world.create_token(TokenExpiry::Never, |_| ());
    let revoked = world.create_token(TokenExpiry::Never, |_| ());
    let expired = world.create_token(hard_expiry(&world, 60), |_| ());
    let fresh = with_fresh_secret(&rotated);
    world.store.rotate_token(rotated.id(), &world.hash_secret(&fresh), None).expect("rotated");
    world.store.revoke_tokens(&[revoked.id()], world.clock.now()).expect("revoked");
    world.clock.advance(secs(60));
    for text in [&rotated, &revoked, &expired] {
        assert_denied(world.login(text).await);
    }
    let mut told = flushed_events(&world);
    let expiries = told.extract_if(.., |event| event.kind == EventKind::TokenExpired).count();
    assert_eq!(expiries, 1, "noted once it is found out");
    assert!(told.iter().all(|event| event.kind == EventKind::DeadSecretUsed), "{told:?}");
    let details: Vec<_> = told.iter().map(|event| (event.token, event.detail.as_deref().expect("why"))).collect();
    for (text, word) in [(&rotated, "rotation"), (&revoked, "revoked"), (&expired, "expired")] {
        assert!(details.iter().any(|(id, why)| *id == Some(text.id()) && why.contains(word)), "{word}: {details:?}");
    }
    assert_eq!(told[0].user, Some(login("alice")));

    assert_denied(world.login(&with_fresh_secret(&revoked)).await);
    assert_eq!(
        flushed_event_kinds(&world).last(),
        Some(&EventKind::AttemptRefused),
        "a wrong secret of a dead token is wrong"
    );
}

#[tokio::test]
async fn secret_retired_long_ago_is_audited_as_dead() {
    let world = AuthEnv::new();
    let first = world.create_token(TokenExpiry::Never, |_| ());
    for grace in [None, Some(world.clock.now().saturating_add(secs(60))), None] {
        let next = with_fresh_secret(&first);
        world.store.rotate_token(first.id(), &world.hash_secret(&next), grace).expect("rotated");
    }
    assert_denied(world.login(&first).await);
    assert_eq!(flushed_event_kinds(&world), [EventKind::DeadSecretUsed]);
}

#[tokio::test]
async fn refused_attempts_are_aggregated_by_address_token_and_reason() {
    let world = AuthEnv::new();
    let text = world.create_token(TokenExpiry::Never, |_| ());
    let malformed = || Credential { login: None, token: b"pgt_".to_vec().into() };
    for _ in 0..3 {
        assert_denied(world.login(&with_fresh_secret(&text)).await);
        assert_denied(world.auth.authenticate(malformed(), peer("192.0.2.7")).await);
        assert_denied(world.login(&generate_token().expect("random")).await);
    }
    let told = flushed_events(&world);
    assert_eq!(told.len(), 3, "{told:?}");
    assert!(told.iter().all(|event| event.kind == EventKind::AttemptRefused && event.count == 3), "{told:?}");
    let wrong = told.iter().find(|event| event.token == Some(text.id())).expect("the known token");
    assert_eq!(wrong.user, Some(login("alice")));
    assert_eq!(told.iter().filter(|event| event.token.is_none()).count(), 2, "an unknown id is a stranger's text");
}

#[tokio::test]
async fn throttled_address_is_audited() {
    let world = AuthEnv::new();
    let text = world.create_token(TokenExpiry::Never, |_| ());
    while let Err(AuthError::Denied) = world.login(&with_fresh_secret(&text)).await {}
    let told = flushed_events(&world);
    assert_eq!(told.iter().map(|event| event.count).sum::<u64>(), 21, "{told:?}");
    assert!(told.iter().any(|event| event.detail.as_deref().is_some_and(|why| why.contains("too many"))), "{told:?}");
}

#[tokio::test]
async fn flood_of_wrong_secrets_writes_few_audit_rows() {
    let world = AuthEnv::new();
    let text = world.create_token(TokenExpiry::Never, |_| ());
    for number in 0..10_000u32 {
        let address = format!("198.18.{}.{}", number / 250, number % 250);
        assert_denied(world.auth.authenticate(credential(&with_fresh_secret(&text)), peer(&address)).await);
        if number % 1000 == 0 {
            world.auth.core.flush_due();
        }
    }
    world.auth.core.flush();
    let told = flushed_events(&world);
    assert!(told.len() < 300, "{} rows", told.len());
    assert_eq!(told.iter().map(|event| event.count).sum::<u64>(), 10_000);
    assert_eq!(world.auth.verification_runs(), 0);
}

#[tokio::test]
async fn closed_session_is_audited_with_reason() {
    let world = AuthEnv::new();
    type EndSessionFn<'a> = &'a dyn Fn(&TokenText);
    let narrowed = TokenLimits { protocols: vec![Protocol::Sftp], ..TokenLimits::default() };
    let ends: [(&str, EndSessionFn<'_>); 4] = [
        ("revoked", &|text| world.store.revoke_tokens(&[text.id()], world.clock.now()).expect("revoked")),
        ("rotation", &|text| {
            let next = with_fresh_secret(text);
            world.store.rotate_token(text.id(), &world.hash_secret(&next), None).expect("rotated");
        }),
        ("limits", &|text| set_limits(&world.store, text.id(), &narrowed)),
        ("expired", &|_| world.clock.advance(secs(60))),
    ];
    for (word, end) in ends {
        let text = world.create_token(hard_expiry(&world, 60), |_| ());
        let session = world.login(&text).await.expect("let in");
        end(&text);
        within_one_second(session.closed()).await;
        let told = flushed_events(&world);
        let of_session = |event: &&AuditEvent| event.token == Some(text.id()) && event.kind != EventKind::TokenExpired;
        let last = told.iter().find(of_session).expect("an event");
        assert_eq!(last.kind, EventKind::SessionEnded);
        assert!(last.detail.as_deref().is_some_and(|why| why.contains(word)), "{word}: {last:?}");
    }
}

#[tokio::test]
async fn presented_secrets_never_reach_state_directory() {
    let world = AuthEnv::new();
    let good = world.create_token(TokenExpiry::Never, |_| ());
    let wrong = with_fresh_secret(&good);
    let unknown = generate_token().expect("random");
    world.login(&good).await.expect("let in").record_use();
    assert_denied(world.login(&wrong).await);
    assert_denied(world.login(&unknown).await);
    world.store.revoke_tokens(&[good.id()], world.clock.now()).expect("revoked");
    assert_denied(world.login(&good).await);
    world.auth.core.flush();
    assert!(flushed_events(&world).len() >= 4);
    for entry in std::fs::read_dir(&world.state).expect("state") {
        let path = entry.expect("entry").path();
        let bytes = std::fs::read(&path).expect("file");
        for text in [&good, &wrong, &unknown] {
            assert!(memchr::memmem::find(&bytes, text.secret().expose()).is_none(), "{}", path.display());
        }
    }
}

#[tokio::test]
async fn session_is_counted_once_per_hour_and_each_refusal_counted() {
    let world = AuthEnv::new();
    let text = world.create_token(TokenExpiry::Never, |_| ());
    let sum = |what: UsageKind| {
        let all = world
            .store
            .usage_counts(UnixMillis::from_millis(0))
            .expect("read")
            .into_iter()
            .chain(world.auth.unflushed_counts());
        all.filter(|count| count.kind == what).map(|count| count.count).sum::<u64>()
    };
    let session = world.login(&text).await.expect("let in");
    assert_eq!(sum(UsageKind::Use), 0, "nothing was done yet");
    for _ in 0..5 {
        session.record_use();
        session.clone().record_use();
    }
    world.login(&text).await.expect("let in").record_use();
    assert_eq!(sum(UsageKind::Use), 2);
    world.clock.advance(secs(3600));
    session.record_use();
    assert_eq!(sum(UsageKind::Use), 3);
    session.record_denial("write", None);
    assert_denied(world.login(&with_fresh_secret(&text)).await);
    assert_eq!((sum(UsageKind::Use), sum(UsageKind::Refusal)), (3, 2));
    world.auth.core.flush();
    assert!(world.auth.unflushed_counts().is_empty());
    assert_eq!((sum(UsageKind::Use), sum(UsageKind::Refusal)), (3, 2), "written down");
}

#[tokio::test]
async fn unwritten_counts_are_retained() {
    let world = AuthEnv::new();
    let text = world.create_token(TokenExpiry::Never, |_| ());
    execute_externally(&world.store, "ALTER TABLE counts RENAME TO gone");
    world.login(&text).await.expect("let in").record_use();
    world.auth.core.flush();
    assert_eq!(world.auth.unflushed_counts().len(), 1);
    execute_externally(&world.store, "ALTER TABLE gone RENAME TO counts");
    world.auth.core.flush();
    assert_eq!(world.store.usage_counts(UnixMillis::from_millis(0)).expect("read").len(), 1);
}
