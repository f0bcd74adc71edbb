//! Tests of authentication: who gets a session, what ends it, and when argon2 runs. Expiration, audit events and clock
//! jumps are in `tests/`, logins over real sockets in `tests/gateway`.

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
use crate::store::testing::{login, move_node, revoke_all_externally, scope, set_limits};
use crate::store::{TokenRecord, TokenState};

const R: Permission = Permission::R;

fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn sliding_expiry(env: &AuthEnv, window: u64, cap: u64) -> TokenExpiry {
    TokenExpiry::Sliding { window_ms: window * 1000, cap: env.clock.now().saturating_add(secs(cap)) }
}

fn hard_expiry(env: &AuthEnv, seconds: u64) -> TokenExpiry {
    TokenExpiry::Hard(env.clock.now().saturating_add(secs(seconds)))
}

fn tree_path(path: &str) -> TreePath {
    TreePath::parse(path.as_bytes()).expect("path")
}

fn with_fresh_secret(text: &TokenText) -> TokenText {
    TokenText::new(text.id(), generate_secret().expect("random"))
}

fn token_record(env: &AuthEnv, text: &TokenText) -> TokenRecord {
    env.store.token(text.id(), env.clock.now()).expect("read").expect("exists")
}

fn assert_denied(outcome: Result<Session, AuthError>) -> String {
    let refusal = outcome.expect_err("refused");
    assert!(matches!(refusal, AuthError::Denied), "{refusal:?}");
    format!("{refusal:?} {refusal}")
}

/// Runs one round of the watcher.
fn poll_watcher(env: &AuthEnv, state: &mut StoreWatchState) {
    env.auth.core.poll_store(state);
    env.auth.core.flush_due();
}

async fn within_one_second(future: impl Future<Output = ()>) {
    tokio::time::timeout(secs(1), future).await.expect("within a second");
}

/// Runs the watcher until the guard is dropped; it has polled the store when this returns.
async fn spawn_watcher(env: &AuthEnv) -> (tokio_util::sync::DropGuard, tokio::task::JoinHandle<()>) {
    let (auth, stop) = (env.auth.clone(), CancellationToken::new());
    let guard = stop.clone().drop_guard();
    let watch = tokio::spawn(async move { auth.watch(stop).await });
    let first = env.create_token(TokenExpiry::Never, |_| ());
    let session = env.login(&first).await.expect("accepted");
    env.open_second_store().revoke_tokens(&[first.id()], env.clock.now()).expect("revoked");
    within_one_second(session.closed()).await;
    (guard, watch)
}

#[tokio::test]
async fn live_token_opens_session_with_owner_access() {
    let env = AuthEnv::new();
    let text = env.create_token(TokenExpiry::Never, |_| ());
    let session = env.login(&text).await.expect("accepted");
    assert_eq!((session.login().as_str(), session.token()), ("alice", text.id()));
    assert!(session.access().expect("valid").may(&tree_path("/a/x"), Permission::RW));
    let bearer = Credential { login: None, ..credential(&text) };
    env.auth.authenticate(bearer, peer("192.0.2.1")).await.expect("the token names its owner");
}

#[tokio::test]
async fn refusals_are_indistinguishable_and_run_no_argon2() {
    let env = AuthEnv::new();
    let good = env.create_token(TokenExpiry::Never, |_| ());
    let revoked = env.create_token(TokenExpiry::Never, |_| ());
    let child = env.create_token(TokenExpiry::Never, |new| new.parent = Some(revoked.id()));
    let expired = env.create_token(hard_expiry(&env, 60), |_| ());
    let idle_expired = env.create_token(sliding_expiry(&env, 60, 600), |_| ());
    let ip_limited =
        env.create_token(TokenExpiry::Never, |new| new.limits.ips = vec!["198.51.100.0/24".parse().expect("net")]);
    let sftp = env.create_token(TokenExpiry::Never, |new| new.limits.protocols = vec![Protocol::Sftp]);
    let agent = env.create_token(TokenExpiry::Never, |new| {
        new.limits.user_agents = vec!["rclone/*".parse().expect("user agent")];
    });
    env.store.create_user(&login("bob"), &[], env.clock.now()).expect("user");
    let disabled = env.create_token(TokenExpiry::Never, |new| new.login = login("bob"));
    env.store.disable_user(&login("bob"), env.clock.now()).expect("disabled");
    env.store.revoke_tokens(&[revoked.id()], env.clock.now()).expect("revoked");
    env.clock.advance(secs(60));

    let from = |credential| env.auth.authenticate(credential, peer("192.0.2.1"));
    let mut answers = Vec::new();
    for text in [&revoked, &child, &expired, &idle_expired, &ip_limited, &sftp, &agent] {
        answers.push(assert_denied(from(credential(text)).await));
    }
    answers.push(assert_denied(from(Credential { login: Some("bob".to_owned()), ..credential(&disabled) }).await));
    answers.push(assert_denied(from(Credential { login: Some("bob".to_owned()), ..credential(&good) }).await));
    answers.push(assert_denied(from(credential(&with_fresh_secret(&good))).await));
    answers.push(assert_denied(from(credential(&generate_token().expect("random"))).await));
    answers.push(assert_denied(from(Credential { login: None, token: b"pgt_".to_vec().into() }).await));
    answers.dedup();
    assert_eq!(answers.len(), 1, "{answers:?}");
    assert_eq!(env.auth.verification_runs(), 0);
    from(credential(&good)).await.expect("accepted");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn concurrent_first_uses_run_argon2_once() {
    let env = AuthEnv::new();
    let text = env.create_token(TokenExpiry::Never, |_| ());
    let mut uses = JoinSet::new();
    for number in 0..1000u32 {
        let (auth, credential) = (env.auth.clone(), credential(&text));
        let peer = peer(&format!("192.0.2.{}", number % 250));
        uses.spawn(async move { auth.authenticate(credential, peer).await.map(drop) });
    }
    let outcomes = uses.join_all().await;
    assert!(outcomes.iter().all(Result::is_ok));
    assert_eq!(env.auth.verification_runs(), 1);
}

#[tokio::test]
async fn wrong_secrets_never_reach_argon2() {
    let env = AuthEnv::new();
    let text = env.create_token(TokenExpiry::Never, |_| ());
    for number in 0..10_000u32 {
        let address = format!("198.18.{}.{}", number / 250, number % 250);
        let wrong = credential(&with_fresh_secret(&text));
        assert_denied(env.auth.authenticate(wrong, peer(&address)).await);
    }
    assert_eq!(env.auth.verification_runs(), 0);
}

#[tokio::test]
async fn verified_secret_expires_when_idle_or_old() {
    let env = AuthEnv::new();
    let text = env.create_token(TokenExpiry::Never, |_| ());
    let mut runs = Vec::new();
    for minutes in [0, 9, 9, 9, 9, 9, 9, 9, 10] {
        env.clock.advance(secs(minutes * 60));
        env.login(&text).await.expect("accepted");
        runs.push(env.auth.verification_runs());
    }
    assert_eq!(runs, [1, 1, 1, 1, 1, 1, 1, 2, 3], "63 minutes in use, then ten idle");
}

#[tokio::test]
async fn valid_token_is_accepted_from_throttled_address() {
    let env = AuthEnv::new();
    let valid = env.create_token(TokenExpiry::Never, |_| ());
    let fresh = env.create_token(TokenExpiry::Never, |_| ());
    env.login(&valid).await.expect("accepted");
    let mut throttled = None;
    for _ in 0..100 {
        match env.login(&with_fresh_secret(&valid)).await {
            Err(AuthError::Denied) => {}
            other => {
                throttled = other.err();
                break;
            }
        }
    }
    assert!(matches!(throttled, Some(AuthError::Throttled(wait)) if wait <= secs(3)), "{throttled:?}");
    env.login(&valid).await.expect("a caller whose secret was verified is accepted");
    env.login(&fresh).await.expect("so is one whose secret has to be verified first");
    assert_eq!(env.auth.verification_runs(), 2);
    let guess = generate_token().expect("random");
    assert!(matches!(env.login(&guess).await, Err(AuthError::Throttled(_))), "a guess waits");
    let from_other_address = env.auth.authenticate(credential(&guess), peer("192.0.2.2")).await;
    assert!(matches!(from_other_address, Err(AuthError::Denied)), "not from another address");
    env.clock.advance(secs(3));
    assert!(matches!(env.login(&guess).await, Err(AuthError::Denied)), "nor after the wait");
}

#[tokio::test]
async fn current_or_former_secret_is_not_counted_as_guess() {
    let env = AuthEnv::new();
    let good = env.create_token(TokenExpiry::Never, |_| ());
    let revoked = env.create_token(TokenExpiry::Never, |_| ());
    let expired = env.create_token(hard_expiry(&env, 60), |_| ());
    let sftp = env.create_token(TokenExpiry::Never, |new| new.limits.protocols = vec![Protocol::Sftp]);
    env.store.revoke_tokens(&[revoked.id()], env.clock.now()).expect("revoked");
    env.clock.advance(secs(60));
    let misnamed = || Credential { login: Some("alcie".to_owned()), ..credential(&good) };
    for _ in 0..50 {
        for text in [&revoked, &expired, &sftp] {
            assert_denied(env.login(text).await);
        }
        assert_denied(env.auth.authenticate(misnamed(), peer("192.0.2.1")).await);
    }
    let guess = env.login(&generate_token().expect("random")).await;
    assert!(matches!(guess, Err(AuthError::Denied)), "none of them filled the bucket");
    for _ in 0..50 {
        let _ = env.login(&generate_token().expect("random")).await;
    }
    assert_denied(env.login(&revoked).await);
    assert_denied(env.auth.authenticate(misnamed(), peer("192.0.2.1")).await);
}

#[tokio::test]
async fn successful_logins_are_never_throttled() {
    let env = AuthEnv::new();
    let text = env.create_token(TokenExpiry::Never, |_| ());
    for _ in 0..500 {
        env.login(&text).await.expect("accepted");
    }
}

#[tokio::test]
async fn revocation_by_another_process_refuses_next_request_and_closes_session() {
    let env = AuthEnv::new();
    let text = env.create_token(TokenExpiry::Never, |_| ());
    let session = env.login(&text).await.expect("accepted");
    let _watch = spawn_watcher(&env).await;
    session.access().expect("valid");
    env.open_second_store().revoke_tokens(&[text.id()], env.clock.now()).expect("revoked");
    assert_denied(env.login(&text).await);
    within_one_second(session.closed()).await;
    assert_eq!(session.access(), Err(SessionEnded));
}

#[tokio::test]
async fn invalidated_token_closes_sessions_within_one_second() {
    type InvalidateFn = fn(&Store, &TokenText);
    let invalidations: [(&str, InvalidateFn); 4] = [
        ("a revocation", |store, text| store.revoke_tokens(&[text.id()], start_time()).expect("revoked")),
        ("all revoked", |store, _| store.revoke_user_tokens(&login("alice"), start_time()).map(drop).expect("revoked")),
        ("its owner disabled", |store, _| store.disable_user(&login("alice"), start_time()).expect("disabled")),
        ("its owner deleted", |store, _| store.delete_user(&login("alice")).expect("deleted")),
    ];
    for (what, invalidate) in invalidations {
        let env = AuthEnv::new();
        let text = env.create_token(TokenExpiry::Never, |_| ());
        let child = env.create_token(TokenExpiry::Never, |new| new.parent = Some(text.id()));
        let session = env.login(&text).await.expect("accepted");
        let below = env.login(&child).await.expect("accepted");
        let _watch = spawn_watcher(&env).await;
        invalidate(&env.open_second_store(), &text);
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
    let env = AuthEnv::new();
    let text = env.create_token(TokenExpiry::Never, |new| new.scopes = Some(vec![scope(1, R)]));
    let session = env.login(&text).await.expect("accepted");
    assert!(session.access().expect("valid").may(&tree_path("/a"), R));
    move_node(&env.store, 1, 0, "z");
    let access = session.access().expect("valid");
    assert!(access.may(&tree_path("/z"), R) && !access.may(&tree_path("/a"), R));
    env.store.revoke_tokens(&[text.id()], env.clock.now()).expect("revoked");
    assert_eq!(session.access(), Err(SessionEnded));
}

#[tokio::test]
async fn unchanged_store_is_not_read_again() {
    let env = AuthEnv::new();
    let text = env.create_token(TokenExpiry::Never, |_| ());
    let session = env.login(&text).await.expect("accepted");
    let first = session.access().expect("valid");
    assert!(Arc::ptr_eq(&first, &session.access().expect("valid")));
    let second_session = env.login(&text).await.expect("accepted");
    assert!(
        Arc::ptr_eq(&first, &second_session.access().expect("valid")),
        "a request at the same epoch reads nothing else"
    );
    env.store.set_policy("allow-never", "true").expect("set");
    assert!(Arc::ptr_eq(&first, &session.access().expect("valid")), "nor does a write that moves no epoch");
}

#[tokio::test]
async fn parent_bounds_child_access_limits_and_lifetime() {
    let env = AuthEnv::new();
    let parent = env.create_token(sliding_expiry(&env, 60, 600), |new| new.scopes = Some(vec![scope(1, R)]));
    let child = env.create_token(TokenExpiry::Never, |new| {
        new.parent = Some(parent.id());
        new.limits.max_file_size = Some(crate::domain::ByteSize::from_bytes(10));
    });
    let session = env.login(&child).await.expect("accepted");
    let access = session.access().expect("valid");
    assert!(access.may(&tree_path("/a"), R) && !access.may(&tree_path("/a"), Permission::RW));
    let size = crate::domain::ByteSize::from_bytes(5);
    set_limits(&env.store, parent.id(), &TokenLimits { max_file_size: Some(size), ..TokenLimits::default() });
    session.access().expect("valid");
    assert_eq!(session.upload_rule().max_file_size(), Some(size));
    session.record_use();
    assert_eq!(
        session.deadline(),
        env.clock.now().saturating_add(secs(60)),
        "the use of a child is none of its parent"
    );
    set_limits(&env.store, parent.id(), &TokenLimits { protocols: vec![Protocol::Sftp], ..TokenLimits::default() });
    assert_eq!(session.access(), Err(SessionEnded));
    assert_denied(env.login(&child).await);
    set_limits(&env.store, parent.id(), &TokenLimits::default());
    env.clock.advance(secs(60));
    assert_denied(env.login(&child).await);
}

#[tokio::test]
async fn narrowed_ip_limit_closes_only_excluded_sessions() {
    let env = AuthEnv::new();
    let text = env.create_token(TokenExpiry::Never, |_| ());
    let excluded_session = env.login(&text).await.expect("accepted");
    let allowed_session = env.auth.authenticate(credential(&text), peer("198.51.100.1")).await.expect("accepted");
    let _watch = spawn_watcher(&env).await;
    let ips = vec!["198.51.100.0/24".parse().expect("net")];
    set_limits(&env.open_second_store(), text.id(), &TokenLimits { ips, ..TokenLimits::default() });
    within_one_second(excluded_session.closed()).await;
    allowed_session.access().expect("still admitted");
}

#[tokio::test]
async fn rotation_without_grace_refuses_old_secret_and_closes_its_sessions() {
    let env = AuthEnv::new();
    let old = env.create_token(TokenExpiry::Never, |_| ());
    let session = env.login(&old).await.expect("accepted");
    let new = with_fresh_secret(&old);
    env.rotate(old.id(), &new, None);
    assert_eq!(session.access(), Err(SessionEnded));
    assert_denied(env.login(&old).await);
    env.login(&new).await.expect("accepted");
}

#[tokio::test]
async fn rotation_with_grace_accepts_old_secret_until_grace_expires() {
    let env = AuthEnv::new();
    let old = env.create_token(TokenExpiry::Never, |_| ());
    let session = env.login(&old).await.expect("accepted");
    let new = with_fresh_secret(&old);
    let until = env.clock.now().saturating_add(secs(60));
    env.rotate(old.id(), &new, Some(until));
    env.login(&new).await.expect("accepted");
    let new_session = env.login(&new).await.expect("accepted");
    for _ in 0..3 {
        env.login(&old).await.expect("accepted");
        env.login(&new).await.expect("accepted");
    }
    assert_eq!(env.auth.verification_runs(), 2, "both are remembered side by side");
    session.access().expect("valid");
    let closed_session = tokio::spawn({
        let session = session.clone();
        async move { session.closed().await }
    });
    tokio::task::yield_now().await;
    env.clock.advance(secs(60));
    within_one_second(async { closed_session.await.expect("joins") }).await;
    new_session.access().expect("the new secret's session stays");
    assert_denied(env.login(&old).await);
    env.login(&new).await.expect("accepted");
}

#[tokio::test]
async fn reenabled_user_can_log_in_but_closed_sessions_stay_closed() {
    let env = AuthEnv::new();
    let text = env.create_token(TokenExpiry::Never, |_| ());
    let session = env.login(&text).await.expect("accepted");
    env.store.disable_user(&login("alice"), env.clock.now()).expect("disabled");
    assert_eq!(session.access(), Err(SessionEnded));
    env.store.enable_user(&login("alice")).expect("enabled");
    env.login(&text).await.expect("accepted").access().expect("valid");
    assert_eq!(session.access(), Err(SessionEnded));
}

#[tokio::test]
async fn token_revoked_during_verification_is_refused() {
    let env = AuthEnv::new();
    let text = env.create_token(TokenExpiry::Never, |_| ());
    let attempt = env.login(&text);
    tokio::pin!(attempt);
    tokio::select! {
        biased;
        _ = &mut attempt => panic!("argon2 was not waited for"),
        () = std::future::ready(()) => {}
    }
    env.open_second_store().revoke_tokens(&[text.id()], env.clock.now()).expect("revoked");
    assert_denied(attempt.await);
    assert_eq!(env.auth.verification_runs(), 1);
}

#[tokio::test]
async fn open_sessions_are_listed_until_their_last_clone_is_dropped() {
    let env = AuthEnv::new();
    let text = env.create_token(TokenExpiry::Never, |_| ());
    let session = env.login(&text).await.expect("accepted");
    let clone = session.clone();
    drop(session);
    let open = env.auth.sessions();
    assert_eq!(open.len(), 1);
    assert_eq!((open[0].token, open[0].login.as_str(), open[0].opened_at), (text.id(), "alice", env.clock.now()));
    drop(clone);
    assert!(env.auth.sessions().is_empty());
}

#[tokio::test]
async fn idle_tokens_are_evicted_from_cache() {
    let env = AuthEnv::new();
    let idle = env.create_token(TokenExpiry::Never, |_| ());
    let busy = env.create_token(TokenExpiry::Never, |_| ());
    env.login(&idle).await.expect("accepted").record_use();
    let session = env.login(&busy).await.expect("accepted");
    let mut state = StoreWatchState::default();
    poll_watcher(&env, &mut state);
    assert_eq!(env.auth.core.token_cache.count(), 2, "kept for the next request");
    env.clock.advance(secs(59));
    poll_watcher(&env, &mut state);
    env.login(&idle).await.expect("accepted").record_use();
    env.clock.advance(secs(59));
    poll_watcher(&env, &mut state);
    assert_eq!(env.auth.core.token_cache.count(), 2, "kept since it was asked for");
    for _ in 0..2 {
        env.clock.advance(secs(60));
        poll_watcher(&env, &mut state);
    }
    assert_eq!(env.auth.core.token_cache.count(), 1);
    assert_eq!(env.auth.core.last_used.count(), 1);
    session.access().expect("valid");
}

#[tokio::test]
async fn persistent_store_failure_closes_sessions_and_refuses_logins() {
    let env = AuthEnv::new();
    let text = env.create_token(TokenExpiry::Never, |_| ());
    let resting = env.create_token(TokenExpiry::Never, |_| ());
    env.login(&resting).await.expect("accepted");
    let session = env.login(&text).await.expect("accepted");
    let mut state = StoreWatchState::default();
    poll_watcher(&env, &mut state);
    let session_closed = session.closed();
    tokio::pin!(session_closed);
    crate::store::testing::break_epoch(&env.open_second_store());
    for _ in 0..4 {
        tokio::select! {
            biased;
            () = &mut session_closed => panic!("a fault that passes ends no session"),
            () = std::future::ready(()) => {}
        }
        poll_watcher(&env, &mut state);
    }
    within_one_second(session_closed).await;
    for text in [text, resting] {
        assert!(matches!(env.login(&text).await, Err(AuthError::Store(_))));
    }
}

#[tokio::test]
async fn persistent_panic_of_store_poll_closes_sessions() {
    let mut env = AuthEnv::new();
    // Without a thread no poll returns: the watcher sees the same as when every poll panics.
    let core = Arc::get_mut(&mut env.auth.core).expect("not shared yet");
    core.watcher_pool = WorkerPool::new("patgate-watch", 0).expect("starts no thread");
    let text = env.create_token(TokenExpiry::Never, |_| ());
    let session = env.login(&text).await.expect("accepted");
    let (auth, stop) = (env.auth.clone(), CancellationToken::new());
    let _guard = stop.clone().drop_guard();
    tokio::spawn(async move { auth.watch(stop).await });
    tokio::time::timeout(secs(10), session.closed()).await.expect("closed after some polls");
    assert_eq!(session.access(), Err(SessionEnded));
}

#[tokio::test]
async fn store_failure_in_own_process_closes_session_at_once() {
    let env = AuthEnv::new();
    let text = env.create_token(TokenExpiry::Never, |_| ());
    let session = env.login(&text).await.expect("accepted");
    crate::store::testing::break_epoch(&env.store);
    assert_eq!(session.access(), Err(SessionEnded));
}

#[test]
fn pepper_is_created_once_with_mode_0600() {
    let env = AuthEnv::new();
    let path = env.state.join("pepper");
    let pepper = std::fs::read(&path).expect("read");
    assert_eq!(pepper.len(), 32);
    assert_eq!(std::fs::metadata(&path).expect("exists").permissions().mode() & 0o777, 0o600);
    env.create_token(TokenExpiry::Never, |_| ());
    Authenticator::new(env.open_second_store(), env.clock.clone()).expect("opens again");
    assert_eq!(std::fs::read(&path).expect("read"), pepper);
    let names: Vec<_> = std::fs::read_dir(&env.state).expect("listed").flatten().map(|e| e.file_name()).collect();
    assert!(names.iter().all(|name| !name.to_string_lossy().starts_with("pepper.")), "{names:?}");
}

#[test]
fn missing_or_corrupt_pepper_is_reported() {
    let env = AuthEnv::new();
    env.create_token(TokenExpiry::Never, |_| ());
    let path = env.state.join("pepper");
    let start = || Authenticator::new(env.open_second_store(), env.clock.clone()).map(drop);
    std::fs::write(&path, b"short").expect("cut");
    assert!(matches!(start(), Err(StoreError::PepperCorrupt(_))));
    std::fs::remove_file(&path).expect("removed");
    let refused = start().expect_err("refused");
    assert!(matches!(refused, StoreError::PepperMissing(_)), "{refused:?}");
    assert!(refused.to_string().contains("restore it from the backup"), "{refused}");
    assert!(!path.exists(), "no new one is made");
}

#[test]
fn secret_hash_is_argon2id_of_that_secret_alone() {
    let env = AuthEnv::new();
    let secret: Secret = generate_secret().expect("random");
    let secret_hash = env.auth.secret_hasher().hash(&secret).expect("hashed");
    let mut memory = secret_hash::Argon2Memory::default();
    assert!(secret_hash.phc.starts_with("$argon2id$v=19$m="), "{}", secret_hash.phc);
    assert!(secret_hash::verify_phc(&secret, &secret_hash.phc, &mut memory));
    assert!(!secret_hash::verify_phc(&generate_secret().expect("random"), &secret_hash.phc, &mut memory));
    let second_hash = env.auth.secret_hasher().hash(&secret).expect("hashed");
    assert_ne!(second_hash.phc, secret_hash.phc, "the salt is new");
    assert_eq!(second_hash.prefilter, secret_hash.prefilter);
}

#[tokio::test]
async fn store_watcher_detects_external_database_changes() {
    let env = AuthEnv::new();
    let text = env.create_token(TokenExpiry::Never, |_| ());
    env.login(&text).await.expect("accepted");
    revoke_all_externally(&env.store);
    poll_watcher(&env, &mut StoreWatchState::default());
    assert_denied(env.login(&text).await);
}
