//! What authentication promises.

mod audit;
mod expiry;
mod jumps;

use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::testing::{World, credential, peer};
use super::watch::Watched;
use super::*;
use crate::domain::{Permission, Protocol, Secret, TokenExpiry, TokenLimits, TreePath};
use crate::store::testing::{execute_externally, login, move_node, scope, set_limits};
use crate::store::{TokenRecord, TokenState};

const R: Permission = Permission::R;

fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn sliding(world: &World, window: u64, cap: u64) -> TokenExpiry {
    TokenExpiry::Sliding { window_ms: window * 1000, cap: world.clock.now().saturating_add(secs(cap)) }
}

fn hard(world: &World, seconds: u64) -> TokenExpiry {
    TokenExpiry::Hard(world.clock.now().saturating_add(secs(seconds)))
}

fn at(path: &str) -> TreePath {
    TreePath::parse(path.as_bytes()).expect("path")
}

fn with_secret_of_nobody(text: &TokenText) -> TokenText {
    TokenText::new(text.id(), mint_secret().expect("random"))
}

fn record(world: &World, text: &TokenText) -> TokenRecord {
    world.store.token(text.id(), world.clock.now()).expect("read").expect("there")
}

fn denied(outcome: Result<Session, Refusal>) -> String {
    let refusal = outcome.expect_err("refused");
    assert!(matches!(refusal, Refusal::Denied), "{refusal:?}");
    format!("{refusal:?} {refusal}")
}

/// What the watch does again and again.
fn look(world: &World, watched: &mut Watched) {
    world.auth.core.look(watched);
    world.auth.core.write_due();
}

async fn within_a_second(future: impl Future<Output = ()>) {
    tokio::time::timeout(secs(1), future).await.expect("within a second");
}

/// Runs the watch for as long as the guard lives; it has looked at the store when this returns.
async fn watch_of(world: &World) -> (tokio_util::sync::DropGuard, tokio::task::JoinHandle<()>) {
    let (auth, stop) = (world.auth.clone(), CancellationToken::new());
    let guard = stop.clone().drop_guard();
    let watch = tokio::spawn(async move { auth.watch(stop).await });
    let first = world.token(TokenExpiry::Never, |_| ());
    let session = world.login(&first).await.expect("let in");
    world.elsewhere().revoke_tokens(&[first.id()], world.clock.now()).expect("revoked");
    within_a_second(session.ended()).await;
    (guard, watch)
}

#[tokio::test]
async fn a_live_token_opens_a_session_that_reaches_what_its_owner_may() {
    let world = World::new();
    let text = world.token(TokenExpiry::Never, |_| ());
    let session = world.login(&text).await.expect("let in");
    assert_eq!((session.login().as_str(), session.token()), ("alice", text.id()));
    assert!(session.access().expect("lives").may(&at("/a/x"), Permission::RW));
    let bearer = Credential { login: None, ..credential(&text) };
    world.auth.authenticate(bearer, peer("192.0.2.1")).await.expect("the token names its owner");
}

#[tokio::test]
async fn every_refusal_is_the_same_and_costs_no_argon2() {
    let world = World::new();
    let good = world.token(TokenExpiry::Never, |_| ());
    let revoked = world.token(TokenExpiry::Never, |_| ());
    let child = world.token(TokenExpiry::Never, |new| new.parent = Some(revoked.id()));
    let expired = world.token(hard(&world, 60), |_| ());
    let rested = world.token(sliding(&world, 60, 600), |_| ());
    let elsewhere =
        world.token(TokenExpiry::Never, |new| new.limits.ips = vec!["198.51.100.0/24".parse().expect("net")]);
    let sftp = world.token(TokenExpiry::Never, |new| new.limits.protocols = vec![Protocol::Sftp]);
    let agent = world.token(TokenExpiry::Never, |new| {
        new.limits.user_agents = vec![crate::domain::UserAgentPattern::new("rclone/*")];
    });
    world.store.create_user(&login("bob"), &[], world.clock.now()).expect("user");
    let disabled = world.token(TokenExpiry::Never, |new| new.login = login("bob"));
    world.store.disable_user(&login("bob"), world.clock.now()).expect("disabled");
    world.store.revoke_tokens(&[revoked.id()], world.clock.now()).expect("revoked");
    world.clock.turn(secs(60));

    let from = |credential| world.auth.authenticate(credential, peer("192.0.2.1"));
    let mut answers = Vec::new();
    for text in [&revoked, &child, &expired, &rested, &elsewhere, &sftp, &agent] {
        answers.push(denied(from(credential(text)).await));
    }
    answers.push(denied(from(Credential { login: Some("bob".to_owned()), ..credential(&disabled) }).await));
    answers.push(denied(from(Credential { login: Some("bob".to_owned()), ..credential(&good) }).await));
    answers.push(denied(from(credential(&with_secret_of_nobody(&good))).await));
    answers.push(denied(from(credential(&mint().expect("random"))).await));
    answers.push(denied(from(Credential { login: None, token: b"pgt_".to_vec().into() }).await));
    answers.dedup();
    assert_eq!(answers.len(), 1, "{answers:?}");
    assert_eq!(world.auth.proof_runs(), 0);
    from(credential(&good)).await.expect("let in");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_first_uses_at_once_run_argon2_once() {
    let world = World::new();
    let text = world.token(TokenExpiry::Never, |_| ());
    let mut uses = JoinSet::new();
    for number in 0..1000u32 {
        let (auth, credential) = (world.auth.clone(), credential(&text));
        let peer = peer(&format!("192.0.2.{}", number % 250));
        uses.spawn(async move { auth.authenticate(credential, peer).await.map(drop) });
    }
    let outcomes = uses.join_all().await;
    assert!(outcomes.iter().all(Result::is_ok));
    assert_eq!(world.auth.proof_runs(), 1);
}

#[tokio::test]
async fn wrong_secrets_never_reach_argon2() {
    let world = World::new();
    let text = world.token(TokenExpiry::Never, |_| ());
    for number in 0..10_000u32 {
        let address = format!("198.18.{}.{}", number / 250, number % 250);
        let wrong = credential(&with_secret_of_nobody(&text));
        denied(world.auth.authenticate(wrong, peer(&address)).await);
    }
    assert_eq!(world.auth.proof_runs(), 0);
}

#[tokio::test]
async fn a_proof_is_forgotten_when_it_rests_or_grows_old() {
    let world = World::new();
    let text = world.token(TokenExpiry::Never, |_| ());
    let mut runs = Vec::new();
    for minutes in [0, 9, 9, 9, 9, 9, 9, 9, 10] {
        world.clock.turn(secs(minutes * 60));
        world.login(&text).await.expect("let in");
        runs.push(world.auth.proof_runs());
    }
    assert_eq!(runs, [1, 1, 1, 1, 1, 1, 1, 2, 3], "63 minutes in use, then ten at rest");
}

#[tokio::test]
async fn right_token_gets_in_from_a_throttled_address() {
    let world = World::new();
    let proven = world.token(TokenExpiry::Never, |_| ());
    let fresh = world.token(TokenExpiry::Never, |_| ());
    world.login(&proven).await.expect("let in");
    let mut throttled = None;
    for _ in 0..100 {
        match world.login(&with_secret_of_nobody(&proven)).await {
            Err(Refusal::Denied) => {}
            other => {
                throttled = other.err();
                break;
            }
        }
    }
    assert!(matches!(throttled, Some(Refusal::Throttled(wait)) if wait <= secs(3)), "{throttled:?}");
    world.login(&proven).await.expect("a proven caller passes");
    world.login(&fresh).await.expect("one that has to be proven first, too");
    assert_eq!(world.auth.proof_runs(), 2);
    let guess = mint().expect("random");
    assert!(matches!(world.login(&guess).await, Err(Refusal::Throttled(_))), "a guess waits");
    let elsewhere = world.auth.authenticate(credential(&guess), peer("192.0.2.2")).await;
    assert!(matches!(elsewhere, Err(Refusal::Denied)), "not from another address");
    world.clock.turn(secs(3));
    assert!(matches!(world.login(&guess).await, Err(Refusal::Denied)), "nor after the wait");
}

#[tokio::test]
async fn secret_that_is_or_was_right_is_no_guess() {
    let world = World::new();
    let good = world.token(TokenExpiry::Never, |_| ());
    let revoked = world.token(TokenExpiry::Never, |_| ());
    let expired = world.token(hard(&world, 60), |_| ());
    let sftp = world.token(TokenExpiry::Never, |new| new.limits.protocols = vec![Protocol::Sftp]);
    world.store.revoke_tokens(&[revoked.id()], world.clock.now()).expect("revoked");
    world.clock.turn(secs(60));
    let misnamed = || Credential { login: Some("alcie".to_owned()), ..credential(&good) };
    for _ in 0..50 {
        for text in [&revoked, &expired, &sftp] {
            denied(world.login(text).await);
        }
        denied(world.auth.authenticate(misnamed(), peer("192.0.2.1")).await);
    }
    let guess = world.login(&mint().expect("random")).await;
    assert!(matches!(guess, Err(Refusal::Denied)), "none of them filled the bucket");
    for _ in 0..50 {
        let _ = world.login(&mint().expect("random")).await;
    }
    denied(world.login(&revoked).await);
    denied(world.auth.authenticate(misnamed(), peer("192.0.2.1")).await);
}

#[tokio::test]
async fn callers_who_never_fail_are_never_throttled() {
    let world = World::new();
    let text = world.token(TokenExpiry::Never, |_| ());
    for _ in 0..500 {
        world.login(&text).await.expect("let in");
    }
}

#[tokio::test]
async fn another_process_that_revokes_refuses_the_next_request_and_ends_the_session_within_a_second() {
    let world = World::new();
    let text = world.token(TokenExpiry::Never, |_| ());
    let session = world.login(&text).await.expect("let in");
    let _watch = watch_of(&world).await;
    session.access().expect("lives");
    world.elsewhere().revoke_tokens(&[text.id()], world.clock.now()).expect("revoked");
    denied(world.login(&text).await);
    within_a_second(session.ended()).await;
    assert_eq!(session.access(), Err(Ended));
}

#[tokio::test]
async fn whatever_kills_a_token_ends_its_sessions_within_a_second() {
    type Kill = fn(&Store, &TokenText);
    let kills: [(&str, Kill); 4] = [
        ("a revocation", |store, text| store.revoke_tokens(&[text.id()], store_now()).expect("revoked")),
        ("all revoked", |store, _| store.revoke_user_tokens(&login("alice"), store_now()).map(drop).expect("revoked")),
        ("its owner disabled", |store, _| store.disable_user(&login("alice"), store_now()).expect("disabled")),
        ("its owner deleted", |store, _| store.delete_user(&login("alice")).expect("deleted")),
    ];
    for (what, kill) in kills {
        let world = World::new();
        let text = world.token(TokenExpiry::Never, |_| ());
        let child = world.token(TokenExpiry::Never, |new| new.parent = Some(text.id()));
        let session = world.login(&text).await.expect("let in");
        let below = world.login(&child).await.expect("let in");
        let _watch = watch_of(&world).await;
        kill(&world.elsewhere(), &text);
        within_a_second(async {
            tokio::join!(session.ended(), below.ended());
        })
        .await;
        assert_eq!((session.access().err(), below.access().err()), (Some(Ended), Some(Ended)), "{what}");
    }
}

fn store_now() -> UnixMillis {
    crate::store::testing::now()
}

#[tokio::test]
async fn what_this_process_changes_counts_at_once() {
    let world = World::new();
    let text = world.token(TokenExpiry::Never, |new| new.scopes = Some(vec![scope(1, R)]));
    let session = world.login(&text).await.expect("let in");
    assert!(session.access().expect("lives").may(&at("/a"), R));
    move_node(&world.store, 1, 0, "z");
    let access = session.access().expect("lives");
    assert!(access.may(&at("/z"), R) && !access.may(&at("/a"), R));
    world.store.revoke_tokens(&[text.id()], world.clock.now()).expect("revoked");
    assert_eq!(session.access(), Err(Ended));
}

#[tokio::test]
async fn a_session_costs_no_reading_while_nothing_changes() {
    let world = World::new();
    let text = world.token(TokenExpiry::Never, |_| ());
    let session = world.login(&text).await.expect("let in");
    let first = session.access().expect("lives");
    assert!(Arc::ptr_eq(&first, &session.access().expect("lives")));
    let again = world.login(&text).await.expect("let in");
    assert!(Arc::ptr_eq(&first, &again.access().expect("lives")), "a request at the same epoch reads nothing else");
    world.store.set_policy("allow-never", "true").expect("set");
    assert!(Arc::ptr_eq(&first, &session.access().expect("lives")), "nor does a write that moves no epoch");
}

#[tokio::test]
async fn a_parent_bounds_its_children_in_reach_limits_and_life() {
    let world = World::new();
    let parent = world.token(sliding(&world, 60, 600), |new| new.scopes = Some(vec![scope(1, R)]));
    let child = world.token(TokenExpiry::Never, |new| {
        new.parent = Some(parent.id());
        new.limits.max_file_size = Some(crate::domain::ByteSize::from_bytes(10));
    });
    let session = world.login(&child).await.expect("let in");
    let access = session.access().expect("lives");
    assert!(access.may(&at("/a"), R) && !access.may(&at("/a"), Permission::RW));
    let size = crate::domain::ByteSize::from_bytes(5);
    set_limits(&world.store, parent.id(), &TokenLimits { max_file_size: Some(size), ..TokenLimits::default() });
    session.access().expect("lives");
    assert_eq!(session.upload_rule().max_file_size(), Some(size));
    session.used();
    assert_eq!(
        session.deadline(),
        world.clock.now().saturating_add(secs(60)),
        "the use of a child is none of its parent"
    );
    set_limits(&world.store, parent.id(), &TokenLimits { protocols: vec![Protocol::Sftp], ..TokenLimits::default() });
    assert_eq!(session.access(), Err(Ended));
    denied(world.login(&child).await);
    set_limits(&world.store, parent.id(), &TokenLimits::default());
    world.clock.turn(secs(60));
    denied(world.login(&child).await);
}

#[tokio::test]
async fn a_narrowed_peer_is_put_out_and_others_stay() {
    let world = World::new();
    let text = world.token(TokenExpiry::Never, |_| ());
    let near = world.login(&text).await.expect("let in");
    let far = world.auth.authenticate(credential(&text), peer("198.51.100.1")).await.expect("let in");
    let _watch = watch_of(&world).await;
    let ips = vec!["198.51.100.0/24".parse().expect("net")];
    set_limits(&world.elsewhere(), text.id(), &TokenLimits { ips, ..TokenLimits::default() });
    within_a_second(near.ended()).await;
    far.access().expect("still admitted");
}

#[tokio::test]
async fn rotation_without_grace_kills_the_old_secret_and_its_sessions() {
    let world = World::new();
    let old = world.token(TokenExpiry::Never, |_| ());
    let session = world.login(&old).await.expect("let in");
    let new = with_secret_of_nobody(&old);
    world.store.rotate_token(old.id(), &world.seal(&new), None).expect("rotated");
    assert_eq!(session.access(), Err(Ended));
    denied(world.login(&old).await);
    world.login(&new).await.expect("let in");
}

#[tokio::test]
async fn rotation_with_grace_keeps_the_old_secret_until_its_end() {
    let world = World::new();
    let old = world.token(TokenExpiry::Never, |_| ());
    let session = world.login(&old).await.expect("let in");
    let new = with_secret_of_nobody(&old);
    let until = world.clock.now().saturating_add(secs(60));
    world.store.rotate_token(old.id(), &world.seal(&new), Some(until)).expect("rotated");
    world.login(&new).await.expect("let in");
    let kept = world.login(&new).await.expect("let in");
    for _ in 0..3 {
        world.login(&old).await.expect("let in");
        world.login(&new).await.expect("let in");
    }
    assert_eq!(world.auth.proof_runs(), 2, "both are remembered side by side");
    session.access().expect("lives");
    let ended = tokio::spawn({
        let session = session.clone();
        async move { session.ended().await }
    });
    tokio::task::yield_now().await;
    world.clock.turn(secs(60));
    within_a_second(async { ended.await.expect("joins") }).await;
    kept.access().expect("the new secret's session stays");
    denied(world.login(&old).await);
    world.login(&new).await.expect("let in");
}

#[tokio::test]
async fn a_user_enabled_again_gets_in_anew_and_its_ended_sessions_stay_so() {
    let world = World::new();
    let text = world.token(TokenExpiry::Never, |_| ());
    let session = world.login(&text).await.expect("let in");
    world.store.disable_user(&login("alice"), world.clock.now()).expect("disabled");
    assert_eq!(session.access(), Err(Ended));
    world.store.enable_user(&login("alice")).expect("enabled");
    world.login(&text).await.expect("let in").access().expect("lives");
    assert_eq!(session.access(), Err(Ended));
}

#[tokio::test]
async fn a_token_revoked_while_it_is_proven_is_refused() {
    let world = World::new();
    let text = world.token(TokenExpiry::Never, |_| ());
    let attempt = world.login(&text);
    tokio::pin!(attempt);
    tokio::select! {
        biased;
        _ = &mut attempt => panic!("argon2 was not waited for"),
        () = std::future::ready(()) => {}
    }
    world.elsewhere().revoke_tokens(&[text.id()], world.clock.now()).expect("revoked");
    denied(attempt.await);
    assert_eq!(world.auth.proof_runs(), 1);
}

#[tokio::test]
async fn open_sessions_are_listed_until_their_last_clone_is_dropped() {
    let world = World::new();
    let text = world.token(TokenExpiry::Never, |_| ());
    let session = world.login(&text).await.expect("let in");
    let clone = session.clone();
    drop(session);
    let open = world.auth.sessions();
    assert_eq!(open.len(), 1);
    assert_eq!((open[0].token, open[0].login.as_str(), open[0].since), (text.id(), "alice", world.clock.now()));
    drop(clone);
    assert!(world.auth.sessions().is_empty());
}

#[tokio::test]
async fn tokens_without_sessions_are_forgotten_in_time() {
    let world = World::new();
    let idle = world.token(TokenExpiry::Never, |_| ());
    let busy = world.token(TokenExpiry::Never, |_| ());
    world.login(&idle).await.expect("let in").used();
    let session = world.login(&busy).await.expect("let in");
    let mut watched = Watched::default();
    look(&world, &mut watched);
    assert_eq!(world.auth.core.lives.count(), 2, "kept for the next request");
    world.clock.turn(secs(59));
    look(&world, &mut watched);
    world.login(&idle).await.expect("let in").used();
    world.clock.turn(secs(59));
    look(&world, &mut watched);
    assert_eq!(world.auth.core.lives.count(), 2, "kept since it was asked for");
    for _ in 0..2 {
        world.clock.turn(secs(60));
        look(&world, &mut watched);
    }
    assert_eq!(world.auth.core.lives.count(), 1);
    assert_eq!(world.auth.core.uses.count(), 1);
    session.access().expect("lives");
}

#[tokio::test]
async fn a_store_that_cannot_answer_vouches_for_nobody() {
    let world = World::new();
    let text = world.token(TokenExpiry::Never, |_| ());
    let resting = world.token(TokenExpiry::Never, |_| ());
    world.login(&resting).await.expect("let in");
    let session = world.login(&text).await.expect("let in");
    let mut watched = Watched::default();
    look(&world, &mut watched);
    let ended = session.ended();
    tokio::pin!(ended);
    crate::store::testing::break_epoch(&world.elsewhere());
    for _ in 0..4 {
        tokio::select! {
            biased;
            () = &mut ended => panic!("a fault that passes ends no session"),
            () = std::future::ready(()) => {}
        }
        look(&world, &mut watched);
    }
    within_a_second(ended).await;
    for text in [text, resting] {
        assert!(matches!(world.login(&text).await, Err(Refusal::Store(_))));
    }
}

#[tokio::test]
async fn a_session_whose_store_was_broken_by_this_process_ends_at_once() {
    let world = World::new();
    let text = world.token(TokenExpiry::Never, |_| ());
    let session = world.login(&text).await.expect("let in");
    crate::store::testing::break_epoch(&world.store);
    assert_eq!(session.access(), Err(Ended));
}

#[test]
fn the_pepper_is_made_once_and_nobody_else_can_read_it() {
    let world = World::new();
    let path = world.state.join("pepper");
    let pepper = std::fs::read(&path).expect("read");
    assert_eq!(pepper.len(), 32);
    assert_eq!(std::fs::metadata(&path).expect("there").permissions().mode() & 0o777, 0o600);
    world.token(TokenExpiry::Never, |_| ());
    Authenticator::new(world.elsewhere(), world.clock.clone()).expect("opens again");
    assert_eq!(std::fs::read(&path).expect("read"), pepper);
    let names: Vec<_> = std::fs::read_dir(&world.state).expect("listed").flatten().map(|e| e.file_name()).collect();
    assert!(names.iter().all(|name| !name.to_string_lossy().starts_with("pepper.")), "{names:?}");
}

#[test]
fn a_pepper_that_is_missing_or_damaged_is_said_so() {
    let world = World::new();
    world.token(TokenExpiry::Never, |_| ());
    let path = world.state.join("pepper");
    let start = || Authenticator::new(world.elsewhere(), world.clock.clone()).map(drop);
    std::fs::write(&path, b"short").expect("cut");
    assert!(matches!(start(), Err(StoreError::PepperCorrupt(_))));
    std::fs::remove_file(&path).expect("removed");
    let refused = start().expect_err("refused");
    assert!(matches!(refused, StoreError::PepperMissing(_)), "{refused:?}");
    assert!(refused.to_string().contains("restore it from the backup"), "{refused}");
    assert!(!path.exists(), "no new one is made");
}

#[test]
fn what_is_kept_of_a_secret_is_argon2id_with_the_agreed_cost() {
    let world = World::new();
    let secret: Secret = mint_secret().expect("random");
    let sealed = world.auth.sealer().seal(&secret).expect("sealed");
    let mut memory = seal::Argon2Memory::default();
    assert!(sealed.phc.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{}", sealed.phc);
    assert!(seal::fits(&secret, &sealed.phc, &mut memory));
    assert!(!seal::fits(&mint_secret().expect("random"), &sealed.phc, &mut memory));
    let again = world.auth.sealer().seal(&secret).expect("sealed");
    assert_ne!(again.phc, sealed.phc, "the salt is new");
    assert_eq!(again.prefilter, sealed.prefilter);
}

#[tokio::test]
async fn what_another_program_did_to_the_store_is_found_by_the_watch() {
    let world = World::new();
    let text = world.token(TokenExpiry::Never, |_| ());
    world.login(&text).await.expect("let in");
    execute_externally(&world.store, "UPDATE tokens SET revoked_at = 1");
    look(&world, &mut Watched::default());
    denied(world.login(&text).await);
}
