//! Tests that secrets are hashed only after the whole request was authorized, in a fair queue, and not for requests
//! that were dropped.

use std::task::Poll;

use super::*;
use crate::domain::TokenLimits;

/// A server's token service, and the calls to it.
struct TestServer {
    env: TokensEnv,
    tokens: TokenService,
    runtime: tokio::runtime::Runtime,
}

impl TestServer {
    fn new() -> Self {
        let env = tokens_env();
        let tokens = env.tokens.clone().with_authenticator(env.auth.clone());
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
        Self { env, tokens, runtime: runtime.expect("a runtime") }
    }

    fn issue(&self, principal: &Principal, request: TokenRequest) -> Result<IssuedToken> {
        self.runtime.block_on(self.tokens.issue_queued(principal.clone(), request, || ()))
    }

    fn rotate(&self, principal: &Principal, id: TokenId, grace: Option<Lifetime>) -> Result<RotatedToken> {
        self.runtime.block_on(self.tokens.rotate_queued(principal.clone(), id, with_grace(grace), || ()))
    }

    /// Creates a user with roles, and opens a session with a token of it.
    fn issue_bearer(&self, name: &str, roles: &[Role], change: impl FnOnce(&mut TokenRequest)) -> (TokenId, Principal) {
        let roles: Roles = roles.iter().copied().collect();
        if self.env.store.user(&login(name)).expect("read").is_none() {
            self.env.create_user(name, &[]);
        }
        self.env.tokens.set_roles(ADMIN, &login(name), &roles).expect("roles");
        let mut request = TokenRequest { roles, ..TokenRequest::new(login(name)) };
        change(&mut request);
        let text = self.env.tokens.issue(ADMIN, request).expect("a token").text.expect("a secret");
        (text.id(), Principal::Session(self.env.open_session(&text)))
    }

    /// Starts a request, and returns it once it waits for its turn.
    fn poll_until_queued<T>(&self, future: impl Future<Output = T>) -> std::pin::Pin<Box<impl Future<Output = T>>> {
        let (mut future, before) = (Box::pin(future), self.env.auth.hashing_queue_len());
        self.runtime.block_on(std::future::poll_fn(|context| {
            assert!(future.as_mut().poll(context).is_pending());
            let waits = self.env.auth.hashing_queue_len() > before;
            // The blocking work wakes this when it is done.
            if waits { Poll::Ready(()) } else { Poll::Pending }
        }));
        future
    }
}

#[test]
fn refused_creation_hashes_no_secret_and_creates_no_node() {
    let server = TestServer::new();
    let env = &server.env;
    env.create_user("gone", &[]);
    env.tokens.disable_user(ADMIN, &login("gone")).expect("disabled");
    let (_, alice) =
        server.issue_bearer("alice", &[], |request| request.limits.protocols = vec![crate::domain::Protocol::Webdav]);
    let nodes = env.store.nodes().expect("read").len();
    let scopes = |path| Some(vec![ScopeTarget::Path(tree_path(path), Permission::RW)]);
    let ask = || TokenRequest::new(login("alice"));
    let roles: Roles = [Role::Admin].into_iter().collect();
    let cases = [
        ("unknown owner", ADMIN, TokenRequest::new(login("nobody"))),
        ("disabled owner", ADMIN, TokenRequest::new(login("gone"))),
        ("another's", &alice, TokenRequest::new(login("gone"))),
        ("a role", ADMIN, TokenRequest { roles, ..ask() }),
        ("lifetime", ADMIN, TokenRequest { lifetime: Some(RequestedLifetime::For(lifetime("2Y"))), ..ask() }),
        ("never", ADMIN, TokenRequest { lifetime: Some(RequestedLifetime::Never), ..ask() }),
        ("longer than the maker", &alice, TokenRequest { lifetime: Some(RequestedLifetime::Never), ..ask() }),
        ("no scopes", ADMIN, TokenRequest { scopes: Some(Vec::new()), ..ask() }),
        ("out of reach", ADMIN, TokenRequest { scopes: scopes("/bob"), ..ask() }),
        ("not there", ADMIN, TokenRequest { scopes: scopes("/alice/none"), ..ask() }),
        (
            "wider limits",
            &alice,
            TokenRequest {
                limits: TokenLimits { protocols: vec![crate::domain::Protocol::Sftp], ..TokenLimits::default() },
                ..ask()
            },
        ),
    ];
    for (what, principal, request) in cases {
        assert!(server.issue(principal, request).is_err(), "{what}");
    }
    while env.store.count_live_tokens(&login("alice"), env.clock.now()).expect("read") < 5 {
        env.issue_scoped(&[]).expect("a token");
    }
    for principal in [ADMIN, &alice] {
        let limits = TokenLimits { protocols: vec![crate::domain::Protocol::Webdav], ..TokenLimits::default() };
        let refused = server.issue(principal, TokenRequest { scopes: scopes("/alice/below"), limits, ..ask() });
        assert!(matches!(refused, Err(Error::Policy(PolicyViolation::TooManyTokens(5)))), "{refused:?}");
    }
    assert_eq!(env.auth.secret_hash_runs(), 0);
    assert_eq!(env.store.nodes().expect("read").len(), nodes);
}

#[test]
fn refused_rotation_hashes_no_secret() {
    let server = TestServer::new();
    let env = &server.env;
    let (own, alice) = server.issue_bearer("alice", &[], |_| ());
    let (_, help) = server.issue_bearer("help", &[Role::GenerateTokens], |_| ());
    let (dead, _) = server.issue_bearer("dead", &[], |_| ());
    env.tokens.revoke(ADMIN, &[dead]).expect("revoked");
    let unknown = crate::auth::generate_token_id().expect("random");
    let (admins, _) = server.issue_bearer("root", &[Role::Admin], |_| ());
    let rotations = [
        ("unknown", ADMIN, unknown, None),
        ("dead", ADMIN, dead, None),
        ("grace", ADMIN, own, Some(lifetime("25h"))),
        ("another's", &alice, dead, None),
        ("one with more roles", &help, admins, None),
    ];
    for (what, principal, id, grace) in rotations {
        assert!(server.rotate(principal, id, grace).is_err(), "{what}");
    }
    assert_eq!(env.auth.secret_hash_runs(), 0);
    let rotated = server.rotate(ADMIN, own, None).expect("rotated");
    assert_eq!(env.auth.secret_hash_runs(), 1);
    env.open_session(rotated.text.as_ref().expect("a secret"));
}

#[test]
fn full_hashing_queue_share_is_busy_for_one_user_only() {
    let server = TestServer::new();
    let auth = &server.env.auth;
    let (own, alice) = server.issue_bearer("alice", &[], |_| ());
    let (_, bob) = server.issue_bearer("bob", &[], |_| ());
    let held = auth.occupy_hashing_threads();
    auth.fill_hashing_queue_share(&login("alice"));
    assert!(matches!(server.issue(&alice, TokenRequest::new(login("alice"))), Err(Error::Busy)));
    assert!(matches!(server.rotate(&alice, own, None), Err(Error::Busy)));
    assert_eq!(auth.secret_hash_runs(), 0);
    let waiting = server.poll_until_queued(server.tokens.issue_queued(bob, TokenRequest::new(login("bob")), || ()));
    drop(held);
    server.runtime.block_on(waiting).expect("a token");
    assert_eq!(auth.secret_hash_runs(), 1);
}

#[test]
fn dropped_queued_request_creates_nothing() {
    let server = TestServer::new();
    let auth = &server.env.auth;
    let held = auth.occupy_hashing_threads();
    let started = std::sync::atomic::AtomicBool::new(false);
    let begin = || started.store(true, Ordering::Relaxed);
    let request = TokenRequest::new(login("alice"));
    let waiting = server.poll_until_queued(server.tokens.issue_queued(Principal::Administrator, request, begin));
    drop(waiting);
    assert_eq!(auth.hashing_queue_len(), 0, "its place is free");
    drop(held);
    assert_eq!((auth.secret_hash_runs(), server.env.count_tokens()), (0, 0));
    assert!(!started.load(Ordering::Relaxed));
}

#[test]
fn caller_revoked_while_queued_changes_nothing() {
    let server = TestServer::new();
    let (env, auth) = (&server.env, &server.env.auth);
    let (help_id, help) = server.issue_bearer("help", &[Role::GenerateTokens], |_| ());
    let issued = env.issue_scoped(&[]).expect("a token");
    let before = env.all_tokens();
    let held = auth.occupy_hashing_threads();
    let request = TokenRequest::new(login("alice"));
    let issue = server.poll_until_queued(server.tokens.issue_queued(help.clone(), request, || ()));
    let rotate =
        server.poll_until_queued(server.tokens.rotate_queued(help, issued.record.id, Rotation::default(), || ()));
    env.tokens.revoke(ADMIN, &[help_id]).expect("revoked");
    drop(held);
    assert!(matches!(server.runtime.block_on(issue), Err(Error::SessionEnded)));
    assert!(matches!(server.runtime.block_on(rotate), Err(Error::SessionEnded)));
    assert_eq!(env.count_tokens(), before.len());
    env.open_session(issued.text.as_ref().expect("a secret"));
}

#[test]
fn queued_creations_respect_token_limit() {
    let server = TestServer::new();
    let held = server.env.auth.occupy_hashing_threads();
    let issue = || server.tokens.issue_queued(Principal::Administrator, TokenRequest::new(login("alice")), || ());
    let waiting: Vec<_> = (0..8).map(|_| server.poll_until_queued(issue())).collect();
    drop(held);
    let results = waiting.into_iter().map(|waiting| server.runtime.block_on(waiting));
    let (created, refused): (Vec<_>, Vec<_>) = results.partition(|answer| answer.is_ok());
    assert_eq!((created.len(), refused.len(), server.env.count_tokens()), (5, 3, 5));
}
