//! What the audit trail hears of authentication.

use super::*;
use crate::domain::{AuditEvent, EventKind};
use crate::store::{EventCursor, EventFilter};

/// Writes down what is due and returns all events, oldest first.
fn events(world: &World) -> Vec<AuditEvent> {
    world.auth.core.write_due();
    let noted = world.store.audit_events(&EventFilter::default(), EventCursor::After(0), 1000).expect("read");
    noted.into_iter().map(|noted| noted.event).collect()
}

fn kinds(world: &World) -> Vec<EventKind> {
    events(world).into_iter().map(|event| event.kind).collect()
}

#[tokio::test]
async fn the_first_use_and_each_new_network_are_noted_once() {
    let world = World::new();
    let text = world.token(TokenExpiry::Never, |_| ());
    for address in ["192.0.2.1", "192.0.2.1", "2001:db8::1", "2001:db8::2", "192.0.2.2"] {
        world.auth.authenticate(credential(&text), peer(address)).await.expect("let in").used();
        world.auth.core.write_due();
    }
    let told: Vec<_> = events(&world).into_iter().map(|event| (event.kind, event.address.expect("address"))).collect();
    let new = EventKind::TokenNewAddress;
    let expected = [(EventKind::TokenFirstUsed, "192.0.2.1"), (new, "2001:db8::1"), (new, "192.0.2.2")];
    assert_eq!(told, expected.map(|(kind, address)| (kind, address.to_owned())));

    let restarted = Authenticator::new(world.store.clone(), world.clock.clone()).expect("opens");
    restarted.authenticate(credential(&text), peer("192.0.2.2")).await.expect("let in").used();
    restarted.core.write_due();
    assert_eq!(events(&world).len(), 3, "what is written down is known after a restart");
}

#[tokio::test]
async fn a_session_that_is_let_in_and_does_nothing_is_no_use() {
    let world = World::new();
    let text = world.token(TokenExpiry::Never, |_| ());
    world.login(&text).await.expect("let in");
    assert!(events(&world).is_empty());
}

#[tokio::test]
async fn secrets_that_were_right_once_are_told_from_wrong_ones() {
    let world = World::new();
    let rotated = world.token(TokenExpiry::Never, |_| ());
    let revoked = world.token(TokenExpiry::Never, |_| ());
    let expired = world.token(hard(&world, 60), |_| ());
    let fresh = with_secret_of_nobody(&rotated);
    world.store.rotate_token(rotated.id(), &world.seal(&fresh), None).expect("rotated");
    world.store.revoke_tokens(&[revoked.id()], world.clock.now()).expect("revoked");
    world.clock.turn(secs(60));
    for text in [&rotated, &revoked, &expired] {
        denied(world.login(text).await);
    }
    let mut told = events(&world);
    let expiries = told.extract_if(.., |event| event.kind == EventKind::TokenExpired).count();
    assert_eq!(expiries, 1, "noted once it is found out");
    assert!(told.iter().all(|event| event.kind == EventKind::DeadSecretUsed), "{told:?}");
    let details: Vec<_> = told.iter().map(|event| (event.token, event.detail.as_deref().expect("why"))).collect();
    for (text, word) in [(&rotated, "rotation"), (&revoked, "revoked"), (&expired, "expired")] {
        assert!(details.iter().any(|(id, why)| *id == Some(text.id()) && why.contains(word)), "{word}: {details:?}");
    }
    assert_eq!(told[0].user, Some(login("alice")));

    denied(world.login(&with_secret_of_nobody(&revoked)).await);
    assert_eq!(kinds(&world).last(), Some(&EventKind::AttemptRefused), "a wrong secret of a dead token is wrong");
}

#[tokio::test]
async fn a_secret_replaced_long_ago_is_still_known_to_be_dead() {
    let world = World::new();
    let first = world.token(TokenExpiry::Never, |_| ());
    for grace in [None, Some(world.clock.now().saturating_add(secs(60))), None] {
        let next = with_secret_of_nobody(&first);
        world.store.rotate_token(first.id(), &world.seal(&next), grace).expect("rotated");
    }
    denied(world.login(&first).await);
    assert_eq!(kinds(&world), [EventKind::DeadSecretUsed]);
}

#[tokio::test]
async fn refused_attempts_are_counted_by_address_token_and_reason() {
    let world = World::new();
    let text = world.token(TokenExpiry::Never, |_| ());
    let malformed = || Credential { login: None, token: b"pgt_".to_vec().into() };
    for _ in 0..3 {
        denied(world.login(&with_secret_of_nobody(&text)).await);
        denied(world.auth.authenticate(malformed(), peer("192.0.2.7")).await);
        denied(world.login(&mint().expect("random")).await);
    }
    let told = events(&world);
    assert_eq!(told.len(), 3, "{told:?}");
    assert!(told.iter().all(|event| event.kind == EventKind::AttemptRefused && event.count == 3), "{told:?}");
    let wrong = told.iter().find(|event| event.token == Some(text.id())).expect("the known token");
    assert_eq!(wrong.user, Some(login("alice")));
    assert_eq!(told.iter().filter(|event| event.token.is_none()).count(), 2, "an unknown id is a stranger's text");
}

#[tokio::test]
async fn an_address_that_is_throttled_is_told_of() {
    let world = World::new();
    let text = world.token(TokenExpiry::Never, |_| ());
    while let Err(Refusal::Denied) = world.login(&with_secret_of_nobody(&text)).await {}
    let told = events(&world);
    assert_eq!(told.iter().map(|event| event.count).sum::<u64>(), 21, "{told:?}");
    assert!(told.iter().any(|event| event.detail.as_deref().is_some_and(|why| why.contains("too many"))), "{told:?}");
}

#[tokio::test]
async fn ten_thousand_wrong_secrets_leave_a_few_rows() {
    let world = World::new();
    let text = world.token(TokenExpiry::Never, |_| ());
    for number in 0..10_000u32 {
        let address = format!("198.18.{}.{}", number / 250, number % 250);
        denied(world.auth.authenticate(credential(&with_secret_of_nobody(&text)), peer(&address)).await);
        if number % 1000 == 0 {
            world.auth.core.write_due();
        }
    }
    world.auth.core.flush();
    let told = events(&world);
    assert!(told.len() < 300, "{} rows", told.len());
    assert_eq!(told.iter().map(|event| event.count).sum::<u64>(), 10_000);
    assert_eq!(world.auth.proof_runs(), 0);
}

#[tokio::test]
async fn an_ended_session_is_noted_with_the_reason() {
    let world = World::new();
    type End<'a> = &'a dyn Fn(&TokenText);
    let narrowed = TokenLimits { protocols: vec![Protocol::Sftp], ..TokenLimits::default() };
    let ends: [(&str, End<'_>); 4] = [
        ("revoked", &|text| world.store.revoke_tokens(&[text.id()], world.clock.now()).expect("revoked")),
        ("rotation", &|text| {
            let next = with_secret_of_nobody(text);
            world.store.rotate_token(text.id(), &world.seal(&next), None).expect("rotated");
        }),
        ("limits", &|text| set_limits(&world.store, text.id(), &narrowed)),
        ("expired", &|_| world.clock.turn(secs(60))),
    ];
    for (word, end) in ends {
        let text = world.token(hard(&world, 60), |_| ());
        let session = world.login(&text).await.expect("let in");
        end(&text);
        within_a_second(session.ended()).await;
        let told = events(&world);
        let of_session = |event: &&AuditEvent| event.token == Some(text.id()) && event.kind != EventKind::TokenExpired;
        let last = told.iter().find(of_session).expect("an event");
        assert_eq!(last.kind, EventKind::SessionEnded);
        assert!(last.detail.as_deref().is_some_and(|why| why.contains(word)), "{word}: {last:?}");
    }
}

#[tokio::test]
async fn no_secret_that_is_shown_gets_into_the_state_directory() {
    let world = World::new();
    let good = world.token(TokenExpiry::Never, |_| ());
    let wrong = with_secret_of_nobody(&good);
    let unknown = mint().expect("random");
    world.login(&good).await.expect("let in").used();
    denied(world.login(&wrong).await);
    denied(world.login(&unknown).await);
    world.store.revoke_tokens(&[good.id()], world.clock.now()).expect("revoked");
    denied(world.login(&good).await);
    world.auth.core.flush();
    assert!(events(&world).len() >= 4);
    for entry in std::fs::read_dir(&world.state).expect("state") {
        let path = entry.expect("entry").path();
        let bytes = std::fs::read(&path).expect("file");
        for text in [&good, &wrong, &unknown] {
            assert!(memchr::memmem::find(&bytes, text.secret().expose()).is_none(), "{}", path.display());
        }
    }
}

#[tokio::test]
async fn a_session_is_counted_once_an_hour_and_each_refusal() {
    let world = World::new();
    let text = world.token(TokenExpiry::Never, |_| ());
    let sum = |what: UsageKind| {
        let all = world
            .store
            .usage_counts(UnixMillis::from_millis(0))
            .expect("read")
            .into_iter()
            .chain(world.auth.unwritten_counts());
        all.filter(|count| count.kind == what).map(|count| count.count).sum::<u64>()
    };
    let session = world.login(&text).await.expect("let in");
    assert_eq!(sum(UsageKind::Use), 0, "nothing was done yet");
    for _ in 0..5 {
        session.used();
        session.clone().used();
    }
    world.login(&text).await.expect("let in").used();
    assert_eq!(sum(UsageKind::Use), 2);
    world.clock.turn(secs(3600));
    session.used();
    assert_eq!(sum(UsageKind::Use), 3);
    session.denied("write", None);
    denied(world.login(&with_secret_of_nobody(&text)).await);
    assert_eq!((sum(UsageKind::Use), sum(UsageKind::Refusal)), (3, 2));
    world.auth.core.flush();
    assert!(world.auth.unwritten_counts().is_empty());
    assert_eq!((sum(UsageKind::Use), sum(UsageKind::Refusal)), (3, 2), "written down");
}

#[tokio::test]
async fn counts_that_could_not_be_written_are_kept() {
    let world = World::new();
    let text = world.token(TokenExpiry::Never, |_| ());
    execute_externally(&world.store, "ALTER TABLE counts RENAME TO gone");
    world.login(&text).await.expect("let in").used();
    world.auth.core.flush();
    assert_eq!(world.auth.unwritten_counts().len(), 1);
    execute_externally(&world.store, "ALTER TABLE gone RENAME TO counts");
    world.auth.core.flush();
    assert_eq!(world.store.usage_counts(UnixMillis::from_millis(0)).expect("read").len(), 1);
}
