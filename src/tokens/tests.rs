//! Tests of token management: creation within the owner's access, rotation, revocation, users and grants. Escalation,
//! child tokens, retention and audit events are in `tests/`.

mod audit_events;
mod clock_jumps;
mod descendants;
mod expiring;
mod explain;
mod privilege_escalation;
mod retention;
mod secret_hashing;

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use zeroize::Zeroizing;

use super::*;
use crate::auth::{AuthError, Authenticator, Credential, Session, testing};
use crate::domain::{
    Lifetime, NodeId, Permission, PolicyViolation, Roles, Scope, ScopeTarget, TokenId, TokenLimits, TokenText,
    TreePath, UnixMillis,
};
use crate::store::{TokenRecord, TokenState, UserUpdate};
use crate::tree::{CommitDurability, Tree, TreeOptions};

const ADMIN: &Principal = &Principal::Administrator;
const ONE_DAY: Duration = Duration::from_secs(86_400);

/// Returns a rotation to a new secret.
fn with_grace(grace: Option<Lifetime>) -> Rotation {
    Rotation { grace, ssh_key: None }
}

struct TokensEnv {
    _temp_dir: tempfile::TempDir,
    root: std::path::PathBuf,
    store: Store,
    clock: Clock,
    tree: Tree,
    tokens: TokenService,
    auth: Authenticator,
    callers: AtomicU32,
}

/// Creates a served directory with `/alice`, `/alice/below/file`, `/bob`, and alice, who may read and write her home.
fn tokens_env() -> TokensEnv {
    let temp_dir = tempfile::tempdir().expect("folder");
    let root = temp_dir.path().join("files");
    std::fs::create_dir_all(root.join("alice/below")).expect("folders");
    std::fs::create_dir_all(root.join("bob")).expect("folders");
    std::fs::write(root.join("alice/below/file"), "x").expect("file");
    let store = Store::open(&temp_dir.path().join("state")).expect("store");
    let clock = Clock::manual(UnixMillis::from_millis(1_777_968_000_000));
    let options = TreeOptions { root: root.clone(), durability: CommitDurability::Fast };
    let tree = Tree::open(options, store.clone(), clock.clone()).expect("tree");
    let tokens = TokenService::new(store.clone(), clock.clone()).with_tree(tree.clone());
    let auth = Authenticator::new(store.clone(), clock.clone()).expect("authenticator");
    let env = TokensEnv { _temp_dir: temp_dir, root, store, clock, tree, tokens, auth, callers: AtomicU32::new(0) };
    env.create_user("alice", &["/alice:rw"]);
    env
}

impl TokensEnv {
    fn create_user(&self, login: &str, grants: &[&str]) {
        let grants = grants.iter().map(|grant| grant.parse().expect("grant")).collect();
        let request = UserRequest {
            login: self::login(login),
            roles: Roles::none(),
            grants,
            home: HomeOption::Skip,
            quota: None,
        };
        self.tokens.create_user(ADMIN, &request).expect("user");
    }

    fn issue_scoped(&self, scopes: &[&str]) -> Result<IssuedToken> {
        let scopes = (!scopes.is_empty()).then(|| scopes.iter().map(|scope| scope.parse().expect("scope")).collect());
        self.tokens.issue(ADMIN, TokenRequest { scopes, ..TokenRequest::new(login("alice")) })
    }

    /// Opens a session over WebDAV, each time from another address.
    fn open_session(&self, text: &TokenText) -> Session {
        self.authenticate(text).expect("let in")
    }

    fn is_denied(&self, text: &TokenText) -> bool {
        matches!(self.authenticate(text), Err(AuthError::Denied))
    }

    fn authenticate(&self, text: &TokenText) -> std::result::Result<Session, AuthError> {
        let token = Zeroizing::new(text.reveal().as_bytes().to_vec());
        let number = self.callers.fetch_add(1, Ordering::Relaxed);
        let peer = testing::peer(&std::net::Ipv4Addr::from(0x0a00_0000 + number).to_string());
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("runtime");
        runtime.block_on(self.auth.authenticate(Credential { login: None, token }, peer))
    }

    fn all_tokens(&self) -> Vec<TokenRecord> {
        self.tokens.list(ADMIN, &TokenQuery::default(), 1000).expect("a page").items
    }

    fn count_tokens(&self) -> usize {
        self.all_tokens().len()
    }

    fn node_id(&self, path: &str) -> NodeId {
        self.tree.assign_node_id(&tree_path(path)).expect("node")
    }
}

fn login(text: &str) -> Login {
    text.parse().expect("login")
}

fn tree_path(path: &str) -> TreePath {
    TreePath::parse(path.as_bytes()).expect("path")
}

fn lifetime(text: &str) -> Lifetime {
    text.parse().expect("duration")
}

#[test]
fn user_and_policy_updates_are_single_writes() {
    let env = tokens_env();
    let writes = |change: &dyn Fn()| {
        let before = env.store.write_count();
        change();
        env.store.write_count() - before
    };
    let roles = Some([Role::ReadAudit].into_iter().collect());
    let change = UserUpdate { disabled: Some(true), roles, quota: None };
    assert_eq!(writes(&|| drop(env.tokens.update_user(ADMIN, &login("alice"), &change).expect("changed"))), 1);
    let user = env.tokens.user(ADMIN, &login("alice")).expect("there");
    assert!(user.disabled_at.is_some() && user.roles.includes(Role::ReadAudit));
    let settings = Policy { allow_never: true, max_lifetime: lifetime("2Y"), ..Policy::default() }.settings();
    assert_eq!(writes(&|| assert!(env.tokens.change_policy(ADMIN, &settings).is_ok())), 1);
    let policy = env.tokens.policy(ADMIN).expect("read");
    assert!(policy.allow_never && policy.max_lifetime == lifetime("2Y"));
}

#[test]
fn scope_within_owner_access_creates_token() {
    let env = tokens_env();
    let below = env.node_id("/alice/below");
    let issued = env.issue_scoped(&[&format!("node:{below}:r"), "path:/alice/below/file:w"]).expect("a token");
    let scopes = issued.record.scopes.expect("scopes");
    let read = Scope { node: below, permission: Permission::R };
    let write = Scope { node: env.node_id("/alice/below/file"), permission: Permission::W };
    assert!(scopes.iter().any(|located| located.scope() == read && located.path == Some(tree_path("/alice/below"))));
    assert!(scopes.iter().any(|located| located.scope() == write));
    assert_eq!(issued.record.name, "alice_api_token");
}

#[test]
fn scope_outside_owner_access_creates_no_token() {
    let env = tokens_env();
    env.create_user("reader", &["/alice:r"]);
    let bob = env.node_id("/bob");
    for scope in ["path:/bob:r".to_owned(), format!("node:{bob}:r"), "path:/:r".to_owned()] {
        let refused = env.issue_scoped(&["path:/alice:r", &scope]);
        assert!(matches!(refused, Err(Error::OutsideAccess { .. })), "{scope}: {refused:?}");
    }
    let wide = ScopeTarget::Path(tree_path("/alice/below"), Permission::RW);
    let request = TokenRequest { scopes: Some(vec![wide]), ..TokenRequest::new(login("reader")) };
    let refused = env.tokens.issue(ADMIN, request);
    assert!(matches!(refused, Err(Error::OutsideAccess { .. })), "rw where r is granted: {refused:?}");
    assert_eq!(env.count_tokens(), 0);
}

#[test]
fn scope_on_missing_node_creates_no_token() {
    let env = tokens_env();
    std::os::unix::fs::symlink("below", env.root.join("alice/link")).expect("link");
    let dangling_node = env.node_id("/alice/below");
    std::fs::remove_dir_all(env.root.join("alice/below")).expect("removed");
    let never = NodeId::from_random([7; 16]);
    let cases = [
        "path:/alice/none:r".into(),
        format!("node:{never}:r"),
        format!("node:{dangling_node}:r"),
        "path:/alice/link:r".into(),
    ];
    for scope in cases {
        let refused = env.issue_scoped(&[&scope]);
        let message =
            matches!(refused, Err(Error::PathNotFound(_) | Error::UnknownNode(_) | Error::UnsupportedNodeType(_)));
        assert!(message, "{scope}: {refused:?}");
    }
    assert_eq!(env.count_tokens(), 0);
}

#[test]
fn unknown_or_disabled_owner_gets_no_token() {
    let env = tokens_env();
    let refused = env.tokens.issue(ADMIN, TokenRequest::new(login("nobody")));
    assert!(matches!(refused, Err(Error::UnknownUser(_))), "{refused:?}");
    env.tokens.disable_user(ADMIN, &login("alice")).expect("disabled");
    assert!(matches!(env.issue_scoped(&[]), Err(Error::UserDisabled(_))));
    assert_eq!(env.count_tokens(), 0);
}

#[test]
fn policy_bounds_token_count_and_lifetime() {
    let env = tokens_env();
    let ask = |lifetime, window| TokenRequest { lifetime: Some(lifetime), window, ..TokenRequest::new(login("alice")) };
    let cases = [
        (ask(RequestedLifetime::For(lifetime("2Y")), None), "longer than"),
        (ask(RequestedLifetime::Default, Some(lifetime("2Y"))), "longer than"),
        (ask(RequestedLifetime::Never, None), "never expire"),
        (ask(RequestedLifetime::Never, Some(lifetime("1h"))), "sliding window"),
    ];
    for (request, why) in cases {
        let refused = env.tokens.issue(ADMIN, request).expect_err(why).to_string();
        assert!(refused.contains(why), "{refused}");
    }
    for _ in 0..5 {
        env.issue_scoped(&[]).expect("a token");
    }
    assert!(matches!(env.issue_scoped(&[]), Err(Error::Policy(PolicyViolation::TooManyTokens(5)))));
    assert_eq!(env.count_tokens(), 5);
    let first = env.all_tokens()[0].id;
    env.tokens.revoke(ADMIN, &[first]).expect("revoked");
    env.issue_scoped(&[]).expect("only live tokens count");
}

#[test]
fn rotated_token_keeps_id_and_expiration() {
    let env = tokens_env();
    let request =
        TokenRequest { lifetime: Some(RequestedLifetime::For(lifetime("30d"))), ..TokenRequest::new(login("alice")) };
    let issued = env.tokens.issue(ADMIN, request).expect("a token");
    env.clock.advance(ONE_DAY);
    let rotated = env.tokens.rotate(ADMIN, issued.record.id, &with_grace(Some(lifetime("24h")))).expect("rotated");
    assert_eq!(rotated.record.id, issued.record.id);
    let secret = |text: &Option<TokenText>| text.as_ref().expect("a secret").secret().clone();
    assert_ne!(secret(&rotated.text), secret(&issued.text));
    assert_eq!(rotated.record.expiry(), issued.record.expiry());
    assert_eq!(rotated.record.old_secret_until, Some(env.clock.now().saturating_add(ONE_DAY)));
    let at_once = env.tokens.rotate(ADMIN, issued.record.id, &with_grace(None)).expect("rotated");
    assert_eq!(at_once.record.old_secret_until, None);
}

#[test]
fn only_previous_secret_is_accepted_during_grace() {
    let env = tokens_env();
    let rotate =
        TokenRequest { lifetime: Some(RequestedLifetime::For(lifetime("10h"))), ..TokenRequest::new(login("alice")) };
    let first = env.tokens.issue(ADMIN, rotate).expect("a token").text.expect("a secret");
    let second = env
        .tokens
        .rotate(ADMIN, first.id(), &with_grace(Some(lifetime("2h"))))
        .expect("rotated")
        .text
        .expect("a secret");
    let old = env.open_session(&first);
    assert!(old.access().is_ok() && env.open_session(&second).access().is_ok());
    assert_eq!(old.deadline(), env.clock.now().saturating_add(ONE_DAY / 12));

    let third = env
        .tokens
        .rotate(ADMIN, first.id(), &with_grace(Some(lifetime("2h"))))
        .expect("rotated")
        .text
        .expect("a secret");
    assert!(old.access().is_err(), "rotating twice kills the secret before the last");
    assert!(env.is_denied(&first));
    let old = env.open_session(&second);
    let new = env.open_session(&third);
    env.clock.advance(ONE_DAY / 12);
    assert!(old.access().is_err() && env.is_denied(&second), "the grace is over");
    assert!(new.access().is_ok());

    let late = env.tokens.rotate(ADMIN, first.id(), &with_grace(Some(lifetime("24h")))).expect("rotated");
    assert_eq!(
        late.record.old_secret_until,
        Some(late.record.expiry().hard_limit()),
        "a grace is no longer than the life"
    );
    env.clock.advance(ONE_DAY / 3);
    assert!(
        env.is_denied(&third) && env.is_denied(late.text.as_ref().expect("a secret")),
        "rotation never lengthens a life"
    );
}

#[test]
fn inactive_tokens_and_long_graces_are_not_rotated() {
    let env = tokens_env();
    let id = env.issue_scoped(&[]).expect("a token").record.id;
    assert!(matches!(env.tokens.rotate(ADMIN, id, &with_grace(Some(lifetime("25h")))), Err(Error::GraceTooLong(_))));
    let other = env.issue_scoped(&[]).expect("a token").record.id;
    env.tokens.revoke(ADMIN, &[other]).expect("revoked");
    assert!(matches!(
        env.tokens.rotate(ADMIN, other, &with_grace(None)),
        Err(Error::TokenInactive(_, TokenState::Revoked))
    ));
    env.clock.advance(91 * ONE_DAY);
    assert!(matches!(
        env.tokens.rotate(ADMIN, id, &with_grace(None)),
        Err(Error::TokenInactive(_, TokenState::Expired))
    ));
    let unknown = "00000000".parse().expect("id");
    assert!(matches!(env.tokens.rotate(ADMIN, unknown, &with_grace(None)), Err(Error::UnknownToken(_))));
}

#[test]
fn revoking_one_unknown_token_revokes_none() {
    let env = tokens_env();
    let id = env.issue_scoped(&[]).expect("a token").record.id;
    let unknown = "00000000".parse().expect("id");
    assert!(matches!(env.tokens.revoke(ADMIN, &[id, unknown]), Err(Error::UnknownToken(_))));
    assert_eq!(env.tokens.find(ADMIN, id).expect("there").state, TokenState::Live);
    env.issue_scoped(&[]).expect("another");
    assert_eq!(env.tokens.revoke_all(ADMIN, &login("alice")).expect("revoked"), 2);
    assert_eq!(env.tokens.revoke_all(ADMIN, &login("alice")).expect("revoked"), 0);
}

#[test]
fn new_user_gets_home_and_existing_content_is_kept() {
    let env = tokens_env();
    let request = |login: &str| UserRequest {
        login: self::login(login),
        roles: Roles::none(),
        grants: Vec::new(),
        home: HomeOption::Create,
        quota: None,
    };
    let carol = env.tokens.create_user(ADMIN, &request("carol")).expect("made");
    assert_eq!((carol.home, carol.home_existed), (Some(tree_path("/carol")), false));
    assert!(env.root.join("carol").is_dir());
    let bob = env.tokens.create_user(ADMIN, &request("bob")).expect("made");
    assert!(bob.home_existed);
    let grants = env.tokens.grants(ADMIN, &login("bob")).expect("grants");
    assert_eq!(grants[0].path, Some(tree_path("/bob")));
    assert_eq!(grants[0].permission, Permission::RW);

    std::fs::write(env.root.join("dave"), "a file").expect("file");
    assert!(matches!(env.tokens.create_user(ADMIN, &request("dave")), Err(Error::HomeNotDirectory(_))));
    assert!(matches!(env.tokens.create_user(ADMIN, &request("bob")), Err(Error::UserExists(_))));
    assert!(matches!(env.tokens.user(ADMIN, &login("dave")), Err(Error::UnknownUser(_))), "no half-made user");
}

#[test]
fn grant_on_missing_path_creates_no_user() {
    let env = tokens_env();
    let grants = vec!["/none:r".parse().expect("grant")];
    let request =
        UserRequest { login: login("erin"), roles: Roles::none(), grants, home: HomeOption::Skip, quota: None };
    assert!(matches!(env.tokens.create_user(ADMIN, &request), Err(Error::PathNotFound(_))));
    assert!(matches!(env.tokens.user(ADMIN, &login("erin")), Err(Error::UnknownUser(_))));
}

#[test]
fn grants_are_changed_and_revoked_by_path_or_node() {
    let env = tokens_env();
    let alice = login("alice");
    env.tokens.grant(ADMIN, &alice, &"/bob:r".parse().expect("grant")).expect("granted");
    env.tokens.grant(ADMIN, &alice, &"/bob:w".parse().expect("grant")).expect("granted");
    let bob = env.node_id("/bob");
    let grants = env.tokens.grants(ADMIN, &alice).expect("grants");
    let bob_grants: Vec<_> = grants.iter().filter(|grant| grant.node == bob).collect();
    assert!(bob_grants.len() == 1 && bob_grants[0].permission == Permission::W, "{bob_grants:?}");
    let target: GrantTarget = "/bob".parse().expect("place");
    env.tokens.revoke_grant(ADMIN, &alice, &target).expect("taken back");
    assert!(matches!(env.tokens.revoke_grant(ADMIN, &alice, &target), Err(Error::GrantNotFound { .. })));
    env.tokens.revoke_grant(ADMIN, &alice, &GrantTarget::Node(env.node_id("/alice"))).expect("taken back");
    assert!(env.tokens.grants(ADMIN, &alice).expect("grants").is_empty());
}

#[test]
fn tokens_are_paged_and_filtered() {
    let env = tokens_env();
    env.create_user("bob", &["/bob:rw"]);
    let named = |name: &str| Some(name.parse().expect("label"));
    for name in ["Laptop", "phone", "old laptop"] {
        let request = TokenRequest { name: named(name), ..TokenRequest::new(login("alice")) };
        env.tokens.issue(ADMIN, request).expect("a token");
    }
    let below = env.issue_scoped(&["path:/alice/below:r"]).expect("a token").record.id;
    env.tokens.issue(ADMIN, TokenRequest::new(login("bob"))).expect("a token");
    let seen = |query: TokenQuery, limit| {
        let (mut query, mut seen) = (query, Vec::new());
        loop {
            let page = env.tokens.list(ADMIN, &query, limit).expect("a page");
            assert!(page.items.len() <= limit && (page.next.is_none() || page.items.len() == limit));
            seen.extend(page.items.into_iter().map(|token| token.id));
            query.after = page.next;
            if query.after.is_none() {
                return seen;
            }
        }
    };
    let all = seen(TokenQuery::default(), 100);
    assert_eq!(all.len(), 5);
    for limit in [1, 2, 5] {
        assert_eq!(seen(TokenQuery::default(), limit), all, "by {limit}");
    }
    let of = |text: &str| TokenQuery { text: Some(text.to_owned()), ..TokenQuery::default() };
    assert_eq!((seen(of("LAPTOP"), 1).len(), seen(of("bob"), 9).len(), seen(of("%"), 9).len()), (2, 1, 0));
    assert_eq!(seen(of(below.as_str()), 9), [below]);
    let dangling = || TokenQuery { state: Some(StateFilter::Dangling), ..TokenQuery::default() };
    assert!(seen(dangling(), 9).is_empty());
    std::fs::remove_dir_all(env.root.join("alice/below")).expect("removed");
    assert_eq!(seen(dangling(), 9), [below], "the served folder decides, not the index");
    let owned = TokenQuery { owner: Some(login("nobody")), ..TokenQuery::default() };
    assert!(matches!(env.tokens.list(ADMIN, &owned, 9), Err(Error::UnknownUser(_))));
}

#[test]
fn limits_and_labels_are_stored() {
    let env = tokens_env();
    let limits = TokenLimits { ips: vec!["192.0.2.0/24".parse().expect("net")], ..TokenLimits::default() };
    let request = TokenRequest {
        name: Some("laptop".parse().expect("label")),
        description: Some("the old one".parse().expect("label")),
        limits: limits.clone(),
        ..TokenRequest::new(login("alice"))
    };
    let record = env.tokens.issue(ADMIN, request).expect("a token").record;
    assert_eq!((record.name.as_str(), record.description.as_str(), record.limits), ("laptop", "the old one", limits));
}

#[test]
fn new_secret_never_reaches_state_directory() {
    let env = tokens_env();
    let issued = env.issue_scoped(&[]).expect("a token");
    let rotated = env.tokens.rotate(ADMIN, issued.record.id, &with_grace(Some(lifetime("1h")))).expect("rotated");
    for text in [&issued.text, &rotated.text] {
        let secret = text.as_ref().expect("a secret").secret().expose();
        for entry in std::fs::read_dir(env.store.state_dir()).expect("state") {
            let path = entry.expect("entry").path();
            let bytes = std::fs::read(&path).expect("file");
            assert!(memchr::memmem::find(&bytes, secret).is_none(), "{}", path.display());
        }
    }
}
