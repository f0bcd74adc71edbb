//! What authentication promises.

mod audit;
mod clock_jumps;
mod expiry;

use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::store_watcher::StoreWatchState;
use super::testing::{AuthEnv, credential, peer};
use super::*;
use crate::domain::{Permission, Protocol, Secret, TokenExpiry, TokenLimits, TreePath};
use crate::store::testing::{execute_externally, login, move_node, scope, set_limits};
use crate::store::{TokenRecord, TokenState};

const R: Permission = Permission::R;

fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn sliding_expiry(world: &AuthEnv, window: u64, cap: u64) -> TokenExpiry {
    TokenExpiry::Sliding { window_ms: window * 1000, cap: world.clock.now().saturating_add(secs(cap)) }
}

fn hard_expiry(world: &AuthEnv, seconds: u64) -> TokenExpiry {
    TokenExpiry::Hard(world.clock.now().saturating_add(secs(seconds)))
}

fn tree_path(path: &str) -> TreePath {
    TreePath::parse(path.as_bytes()).expect("path")
}

fn with_fresh_secret(text: &TokenText) -> TokenText {
    TokenText::new(text.id(), generate_secret().expect("random"))
}

fn token_record(world: &AuthEnv, text: &TokenText) -> TokenRecord {
    world.store.token(text.id(), world.clock.now()).expect("read").expect("there")
}

fn assert_denied(outcome: Result<Session, AuthError>) -> String {
    let refusal = outcome.expect_err("refused");
    assert!(matches!(refusal, AuthError::Denied), "{refusal:?}");
    format!("{refusal:?} {refusal}")
}

/// What the watch does again and again.
fn poll_watcher(world: &AuthEnv, watched: &mut StoreWatchState) {
    world.auth.core.poll_store(watched);
    world.auth.core.flush_due();
}

async fn within_one_second(future: impl Future<Output = ()>) {
    tokio::time::timeout(secs(1), future).await.expect("within a second");
}

/// Runs the watch for as long as the guard lives; it has looked at the store when this returns.
async fn spawn_watcher(world: &AuthEnv) -> (tokio_util::sync::DropGuard, tokio::task::JoinHandle<()>) {
    let (auth, stop) = (world.auth.clone(), CancellationToken::new());
    let guard = stop.clone().drop_guard();
    let watch = tokio::spawn(async move { auth.watch(stop).await });
    let first = world.create_token(TokenExpiry::Never, |_| ());
    let session = world.login(&first).await.expect("let in");
    world.open_second_store().revoke_tokens(&[first.id()], world.clock.now()).expect("revoked");
    within_one_second(session.closed()).await;
    (guard, watch)
}

#[tokio::test]
async fn live_token_opens_session_with_owner_access() {
    let world = AuthEnv::new();
    let text = world.create_token(TokenExpiry::Never, |_| ());
    let session = world.login(&text).await.expect("let in");
    assert_eq!((session.login().as_str(), session.token()), ("alice", text.id()));
    assert!(session.access().expect("lives").may(&tree_path("/a/x"), Permission::RW));
    let bearer = Credential { login: None, ..credential(&text) };
    world.auth.authenticate(bearer, peer("192.0.2.1")).await.expect("the token names its owner");
}

#[tokio::test]
async fn refusals_are_indistinguishable_and_run_no_argon2() {
    let world = AuthEnv::new();
    let good = world.create_token(TokenExpiry::Never, |_| ());
    let revoked = world.create_token(TokenExpiry::Never, |_| ());
    let child = world.create_token(TokenExpiry::Never, |new| new.parent = Some(revoked.id()));
    let expired = world.create_token(hard_expiry(&world, 60), |_| ());
    let rested = world.create_token(sliding_expiry(&world, 60, 600), |_| ());
    let elsewhere =
        world.create_token(TokenExpiry::Never, |new| new.limits.ips = vec!["198.51.100.0/24".parse().expect("net")]);
    let sftp = world.create_token(TokenExpiry::Never, |new| new.limits.protocols = vec![Protocol::Sftp]);
    let agent = world.create_token(TokenExpiry::Never, |new| {
        new.limits.user_agents = vec![crate::domain::UserAgentPattern::new("rclone/*")];
    });
    world.store.create_user(&login("bob"), &[], world.clock.now()).expect("user");
    let disabled = world.create_token(TokenExpiry::Never, |new| new.login = login("bob"));
    world.store.disable_user(&login("bob"), world.clock.now()).expect("disabled");
    world.store.revoke_tokens(&[revoked.id()], world.clock.now()).expect("revoked");
    world.clock.advance(secs(60));

    let from = |credential| world.auth.authenticate(credential, peer("192.0.2.1"));
    let mut answers = Vec::new();
    for text in [&revoked, &child, &expired, &rested, &elsewhere, &sftp, &agent] {
        answers.push(assert_denied(from(credential(text)).await));
    }
    answers.push(assert_denied(from(Credential { login: Some("bob".to_owned()), ..credential(&disabled) }).await));
    answers.push(assert_denied(from(Credential { login: Some("bob".to_owned()), ..credential(&good) }).await));
    answers.push(assert_denied(from(credential(&with_fresh_secret(&good))).await));
    answers.push(assert_denied(from(credential(&generate_token().expect("random"))).await));
    answers.push(assert_denied(from(Credential { login: None, token: b"pgt_".to_vec().into() }).await));
    answers.dedup();
    assert_eq!(answers.len(), 1, "{answers:?}");
    assert_eq!(world.auth.verification_runs(), 0);
    from(credential(&good)).await.expect("let in");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn concurrent_first_uses_run_argon2_once() {
    let world = AuthEnv::new();
    let text = world.create_token(TokenExpiry::Never, |_| ());
    let mut uses = JoinSet::new();
    for number in 0..1000u32 {
        let (auth, credential) = (world.auth.clone(), credential(&text));
        let peer = peer(&format!("192.0.2.{}", number % 250));
        uses.spawn(async move { auth.authenticate(credential, peer).await.map(drop) });
    }
    let outcomes = uses.join_all().await;
    assert!(outcomes.iter().all(Result::is_ok));
    assert_eq!(world.auth.verification_runs(), 1);
}

#[tokio::test]
async fn wrong_secrets_never_reach_argon2() {
    let world = AuthEnv::new();
    let text = world.create_token(TokenExpiry::Never, |_| ());
    for number in 0..10_000u32 {
        let address = format!("198.18.{}.{}", number / 250, number % 250);
        let wrong = credential(&with_fresh_secret(&text));
        assert_denied(world.auth.authenticate(wrong, peer(&address)).await);
    }
    assert_eq!(world.auth.verification_runs(), 0);
}

#[tokio::test]
async fn verified_secret_expires_when_idle_or_old() {
    let world = AuthEnv::new();
    let text = world.create_token(TokenExpiry::Never, |_| ());
    let mut runs = Vec::new();
    for minutes in [0, 9, 9, 9, 9, 9, 9, 9, 10] {
        world.clock.advance(secs(minutes * 60));
        world.login(&text).await.expect("let in");
        runs.push(world.auth.verification_runs());
    }
    assert_eq!(runs, [1, 1, 1, 1, 1, 1, 1, 2, 3], "63 minutes in use, then ten at rest");
}

#[tokio::test]
async fn valid_token_is_accepted_from_throttled_address() {
    let world = AuthEnv::new();
    let proven = world.create_token(TokenExpiry::Never, |_| ());
    let fresh = world.create_token(TokenExpiry::Never, |_| ());
    world.login(&proven).await.expect("let in");
    let mut throttled = None;
    for _ in 0..100 {
        match world.login(&with_fresh_secret(&proven)).await {
            Err(AuthError::Denied) => {}
            other => {
                throttled = other.err();
                break;
            }
        }
    }
    assert!(matches!(throttled, Some(AuthError::Throttled(wait)) if wait <= secs(3)), "{throttled:?}");
    world.login(&proven).await.expect("a proven caller passes");
    world.login(&fresh).await.expect("one that has to be proven first, too");
    assert_eq!(world.auth.verification_runs(), 2);
    let guess = generate_token().expect("random");
    assert!(matches!(world.login(&guess).await, Err(AuthError::Throttled(_))), "a guess waits");
    let elsewhere = world.auth.authenticate(credential(&guess), peer("192.0.2.2")).await;
    assert!(matches!(elsewhere, Err(AuthError::Denied)), "not from another address");
    world.clock.advance(secs(3));
    assert!(matches!(world.login(&guess).await, Err(AuthError::Denied)), "nor after the wait");
}

#[tokio::test]
async fn current_or_former_secret_is_not_counted_as_guess() {
    let world = AuthEnv::new();
    let good = world.create_token(TokenExpiry::Never, |_| ());
    let revoked = world.create_token(TokenExpiry::Never, |_| ());
    let expired = world.create_token(hard_expiry(&world, 60), |_| ());
    let sftp = world.create_token(TokenExpiry::Never, |new| new.limits.protocols = vec![Protocol::Sftp]);
    world.store.revoke_tokens(&[revoked.id()], world.clock.now()).expect("revoked");
    world.clock.advance(secs(60));
    let misnamed = || Credential { login: Some("alcie".to_owned()), ..credential(&good) };
    for _ in 0..50 {
        for text in [&revoked, &expired, &sftp] {
            assert_denied(world.login(text).await);
        }
        assert_denied(world.auth.authenticate(misnamed(), peer("192.0.2.1")).await);
    }
    let guess = world.login(&generate_token().expect("random")).await;
    assert!(matches!(guess, Err(AuthError::Denied)), "none of them filled the bucket");
    for _ in 0..50 {
        let _ = world.login(&generate_token().expect("random")).await;
    }
    assert_denied(world.login(&revoked).await);
    assert_denied(world.auth.authenticate(misnamed(), peer("192.0.2.1")).await);
}

#[tokio::test]
async fn successful_logins_are_never_throttled() {
    let world = AuthEnv::new();
    let text = world.create_token(TokenExpiry::Never, |_| ());
    for _ in 0..500 {
        world.login(&text).await.expect("let in");
    }
}

#[tokio::test]
async fn revocation_by_another_process_refuses_next_request_and_closes_session() {
    let world = AuthEnv::new();
    let text = world.create_token(TokenExpiry::Never, |_| ());
    let session = world.login(&text).await.expect("let in");
    let _watch = spawn_watcher(&world).await;
    session.access().expect("lives");
    world.open_second_store().revoke_tokens(&[text.id()], world.clock.now()).expect("revoked");
    assert_denied(world.login(&text).await);
    within_one_second(session.closed()).await;
    assert_eq!(session.access(), Err(SessionEnded));
}

#[tokio::test]
async fn invalidated_token_closes_sessions_within_one_second() {
    type InvalidateFn = fn(&Store, &TokenText);
    let kills: [(&str, InvalidateFn); 4] = [
        ("a revocation", |store, text| store.revoke_tokens(&[text.id()], start_time()).expect("revoked")),
        ("all revoked", |store, _| store.revoke_user_tokens(&login("alice"), start_time()).map(drop).expect("revoked")),
        ("its owner disabled", |store, _| store.disable_user(&login("alice"), start_time()).expect("disabled")),
        ("its owner deleted", |store, _| store.delete_user(&login("alice")).expect("deleted")),
    ];
    for (what, kill) in kills {
        let world = AuthEnv::new();
        let text = world.create_token(TokenExpiry::Never, |_| ());
        let child = world.create_token(TokenExpiry::Never, |new| new.parent = Some(text.id()));
        let session = world.login(&text).await.expect("let in");
        let below = world.login(&child).await.expect("let in");
        let _watch = spawn_watcher(&world).await;
        kill(&world.open_second_store(), &text);
        within_one_second(async {
            tokio::join!(session.closed(), below.closed());
        })
        .await;
        assert_eq!((session.access().err(), below.access().err()), (Some(SessionEnded), Some(SessionEnded)), "{what}");
    }
}

fn start_time() -> UnixMillis {
    crate::store::testing::now()
}

#[tokio::test]
async fn own_store_changes_apply_to_open_sessions_at_once() {
    let world = AuthEnv::new();
    let text = world.create_token(TokenExpiry::Never, |new| new.scopes = Some(vec![scope(1, R)]));
    let session = world.login(&text).await.expect("let in");
    assert!(session.access().expect("lives").may(&tree_path("/a"), R));
    move_node(&world.store, 1, 0, "z");
    let access = session.access().expect("lives");
    assert!(access.may(&tree_path("/z"), R) && !access.may(&tree_path("/a"), R));
    world.store.revoke_tokens(&[text.id()], world.clock.now()).expect("revoked");
    assert_eq!(session.access(), Err(SessionEnded));
}

#[tokio::test]
async fn unchanged_store_is_not_read_again() {
    let world = AuthEnv::new();
    let text = world.create_token(TokenExpiry::Never, |_| ());
    let session = world.login(&text).await.expect("let in");
    let first = session.access().expect("lives");
    assert!(Arc::ptr_eq(&first, &session.access().expect("lives")));
    let again = world.login(&text).await.expect("let in");
    assert!(Arc::ptr_eq(&first, &again.access().expect("lives")), "a request at the same epoch reads nothing else");
    world.store.set_policy("allow-never", "true").expect("set");
    assert!(Arc::ptr_eq(&first, &session.access().expect("lives")), "nor does a write that moves no epoch");
}

#[tokio::test]
async fn parent_bounds_child_access_limits_and_lifetime() {
    let world = AuthEnv::new();
    let parent = world.create_token(sliding_expiry(&world, 60, 600), |new| new.scopes = Some(vec![scope(1, R)]));
    let child = world.create_token(TokenExpiry::Never, |new| {
        new.parent = Some(parent.id());
        new.limits.max_file_size = Some(crate::domain::ByteSize::from_bytes(10));
    });
    let session = world.login(&child).await.expect("let in");
    let access = session.access().expect("lives");
    assert!(access.may(&tree_path("/a"), R) && !access.may(&tree_path("/a"), Permission::RW));
    let size = crate::domain::ByteSize::from_bytes(5);
    set_limits(&world.store, parent.id(), &TokenLimits { max_file_size: Some(size), ..TokenLimits::default() });
    session.access().expect("lives");
    assert_eq!(session.upload_rule().max_file_size(), Some(size));
    session.record_use();
    assert_eq!(
        session.deadline(),
        world.clock.now().saturating_add(secs(60)),
        "the use of a child is none of its parent"
    );
    set_limits(&world.store, parent.id(), &TokenLimits { protocols: vec![Protocol::Sftp], ..TokenLimits::default() });
    assert_eq!(session.access(), Err(SessionEnded));
    assert_denied(world.login(&child).await);
    set_limits(&world.store, parent.id(), &TokenLimits::default());
    world.clock.advance(secs(60));
    assert_denied(world.login(&child).await);
}

#[tokio::test]
async fn narrowed_ip_limit_closes_only_excluded_sessions() {
    let world = AuthEnv::new();
    let text = world.create_token(TokenExpiry::Never, |_| ());
    let near = world.login(&text).await.expect("let in");
    let far = world.auth.authenticate(credential(&text), peer("198.51.100.1")).await.expect("let in");
    let _watch = spawn_watcher(&world).await;
    let ips = vec!["198.51.100.0/24".parse().expect("net")];
    set_limits(&world.open_second_store(), text.id(), &TokenLimits { ips, ..TokenLimits::default() });
    within_one_second(near.closed()).await;
    far.access().expect("still admitted");
}

#[tokio::test]
async fn rotation_without_grace_refuses_old_secret_and_closes_its_sessions() {
    let world = AuthEnv::new();
    let old = world.create_token(TokenExpiry::Never, |_| ());
    let session = world.login(&old).await.expect("let in");
    let new = with_fresh_secret(&old);
    world.store.rotate_token(old.id(), &world.hash_secret(&new), None).expect("rotated");
    assert_eq!(session.access(), Err(SessionEnded));
    assert_denied(world.login(&old).await);
    world.login(&new).await.expect("let in");
}

#[tokio::test]
async fn rotation_with_grace_accepts_old_secret_until_grace_expires() {
    let world = AuthEnv::new();
    let old = world.create_token(TokenExpiry::Never, |_| ());
    let session = world.login(&old).await.expect("let in");
    let new = with_fresh_secret(&old);
    let until = world.clock.now().saturating_add(secs(60));
    world.store.rotate_token(old.id(), &world.hash_secret(&new), Some(until)).expect("rotated");
    world.login(&new).await.expect("let in");
    let kept = world.login(&new).await.expect("let in");
    for _ in 0..3 {
        world.login(&old).await.expect("let in");
        world.login(&new).await.expect("let in");
    }
    assert_eq!(world.auth.verification_runs(), 2, "both are remembered side by side");
    session.access().expect("lives");
    let ended = tokio::spawn({
        let session = session.clone();
        async move { session.closed().await }
    });
    tokio::task::yield_now().await;
    world.clock.advance(secs(60));
    within_one_second(async { ended.await.expect("joins") }).await;
    kept.access().expect("the new secret's session stays");
    assert_denied(world.login(&old).await);
    world.login(&new).await.expect("let in");
}

#[tokio::test]
async fn reenabled_user_can_log_in_but_closed_sessions_stay_closed() {
    let world = AuthEnv::new();
    let text = world.create_token(TokenExpiry::Never, |_| ());
    let session = world.login(&text).await.expect("let in");
    world.store.disable_user(&login("alice"), world.clock.now()).expect("disabled");
    assert_eq!(session.access(), Err(SessionEnded));
    world.store.enable_user(&login("alice")).expect("enabled");
    world.login(&text).await.expect("let in").access().expect("lives");
    assert_eq!(session.access(), Err(SessionEnded));
}

#[tokio::test]
async fn token_revoked_during_verification_is_refused() {
    let world = AuthEnv::new();
    let text = world.create_token(TokenExpiry::Never, |_| ());
    let attempt = world.login(&text);
    tokio::pin!(attempt);
    tokio::select! {
        biased;
        _ = &mut attempt => panic!("argon2 was not waited for"),
        () = std::future::ready(()) => {}
    }
    world.open_second_store().revoke_tokens(&[text.id()], world.clock.now()).expect("revoked");
    assert_denied(attempt.await);
    assert_eq!(world.auth.verification_runs(), 1);
}

#[tokio::test]
async fn open_sessions_are_listed_until_their_last_clone_is_dropped() {
    let world = AuthEnv::new();
    let text = world.create_token(TokenExpiry::Never, |_| ());
    let session = world.login(&text).await.expect("let in");
    let clone = session.clone();
    drop(session);
    let open = world.auth.sessions();
    assert_eq!(open.len(), 1);
    assert_eq!((open[0].token, open[0].login.as_str(), open[0].opened_at), (text.id(), "alice", world.clock.now()));
    drop(clone);
    assert!(world.auth.sessions().is_empty());
}

#[tokio::test]
async fn idle_tokens_are_evicted_from_cache() {
    let world = AuthEnv::new();
    let idle = world.create_token(TokenExpiry::Never, |_| ());
    let busy = world.create_token(TokenExpiry::Never, |_| ());
    world.login(&idle).await.expect("let in").record_use();
    let session = world.login(&busy).await.expect("let in");
    let mut watched = StoreWatchState::default();
    poll_watcher(&world, &mut watched);
    assert_eq!(world.auth.core.token_cache.count(), 2, "kept for the next request");
    world.clock.advance(secs(59));
    poll_watcher(&world, &mut watched);
    world.login(&idle).await.expect("let in").record_use();
    world.clock.advance(secs(59));
    poll_watcher(&world, &mut watched);
    assert_eq!(world.auth.core.token_cache.count(), 2, "kept since it was asked for");
    for _ in 0..2 {
        world.clock.advance(secs(60));
        poll_watcher(&world, &mut watched);
    }
    assert_eq!(world.auth.core.token_cache.count(), 1);
    assert_eq!(world.auth.core.last_used.count(), 1);
    session.access().expect("lives");
}

#[tokio::test]
async fn persistent_store_failure_closes_sessions_and_refuses_logins() {
    let world = AuthEnv::new();
    let text = world.create_token(TokenExpiry::Never, |_| ());
    let resting = world.create_token(TokenExpiry::Never, |_| ());
    world.login(&resting).await.expect("let in");
    let session = world.login(&text).await.expect("let in");
    let mut watched = StoreWatchState::default();
    poll_watcher(&world, &mut watched);
    let ended = session.closed();
    tokio::pin!(ended);
    crate::store::testing::break_epoch(&world.open_second_store());
    for _ in 0..4 {
        tokio::select! {
            biased;
            () = &mut ended => panic!("a fault that passes ends no session"),
            () = std::future::ready(()) => {}
        }
        poll_watcher(&world, &mut watched);
    }
    within_one_second(ended).await;
    for text in [text, resting] {
        assert!(matches!(world.login(&text).await, Err(AuthError::Store(_))));
    }
}

#[tokio::test]
async fn store_failure_in_own_process_closes_session_at_once() {
    let world = AuthEnv::new();
    let text = world.create_token(TokenExpiry::Never, |_| ());
    let session = world.login(&text).await.expect("let in");
    crate::store::testing::break_epoch(&world.store);
    assert_eq!(session.access(), Err(SessionEnded));
}

#[test]
fn pepper_is_created_once_with_mode_0600() {
    let world = AuthEnv::new();
    let path = world.state.join("pepper");
    let pepper = std::fs::read(&path).expect("read");
    assert_eq!(pepper.len(), 32);
    assert_eq!(std::fs::metadata(&path).expect("there").permissions().mode() & 0o777, 0o600);
    world.create_token(TokenExpiry::Never, |_| ());
    Authenticator::new(world.open_second_store(), world.clock.clone()).expect("opens again");
    assert_eq!(std::fs::read(&path).expect("read"), pepper);
    let names: Vec<_> = std::fs::read_dir(&world.state).expect("listed").flatten().map(|e| e.file_name()).collect();
    assert!(names.iter().all(|name| !name.to_string_lossy().starts_with("pepper.")), "{names:?}");
}

#[test]
fn missing_or_corrupt_pepper_is_reported() {
    let world = AuthEnv::new();
    world.create_token(TokenExpiry::Never, |_| ());
    let path = world.state.join("pepper");
    let start = || Authenticator::new(world.open_second_store(), world.clock.clone()).map(drop);
    std::fs::write(&path, b"short").expect("cut");
    assert!(matches!(start(), Err(StoreError::PepperCorrupt(_))));
    std::fs::remove_file(&path).expect("removed");
    let refused = start().expect_err("refused");
    assert!(matches!(refused, StoreError::PepperMissing(_)), "{refused:?}");
    assert!(refused.to_string().contains("restore it from the backup"), "{refused}");
    assert!(!path.exists(), "no new one is made");
}

#[test]
fn secret_hash_is_argon2id_with_expected_parameters() {
    let world = AuthEnv::new();
    let secret: Secret = generate_secret().expect("random");
    let sealed = world.auth.secret_hasher().hash(&secret).expect("sealed");
    let mut memory = secret_hash::Argon2Memory::default();
    assert!(sealed.phc.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{}", sealed.phc);
    assert!(secret_hash::verify_phc(&secret, &sealed.phc, &mut memory));
    assert!(!secret_hash::verify_phc(&generate_secret().expect("random"), &sealed.phc, &mut memory));
    let again = world.auth.secret_hasher().hash(&secret).expect("sealed");
    assert_ne!(again.phc, sealed.phc, "the salt is new");
    assert_eq!(again.prefilter, sealed.prefilter);
}

#[tokio::test]
async fn store_watcher_detects_external_database_changes() {
    let world = AuthEnv::new();
    let text = world.create_token(TokenExpiry::Never, |_| ());
    world.login(&text).await.expect("let in");
    execute_externally(&world.store, "UPDATE tokens SET revoked_at = 1");
    poll_watcher(&world, &mut StoreWatchState::default());
    assert_denied(world.login(&text).await);
}
