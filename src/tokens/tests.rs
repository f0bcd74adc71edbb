//! What a token may be made of, and what happens to it then.

mod attention;
mod climbing;
mod explain;
mod jumps;
mod kin;
mod noted;
mod sealing;
mod tidy;

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
use crate::tree::{Durability, Options, Tree};

const ADMIN: &Authority = &Authority::Administrator;
const DAY: Duration = Duration::from_secs(86_400);

struct Site {
    _folder: tempfile::TempDir,
    root: std::path::PathBuf,
    store: Store,
    clock: Clock,
    tree: Tree,
    tokens: Tokens,
    auth: Authenticator,
    callers: AtomicU32,
}

/// A served folder with `/alice`, `/alice/below/file`, `/bob`, and alice, who reads and writes her home.
fn site() -> Site {
    let folder = tempfile::tempdir().expect("folder");
    let root = folder.path().join("files");
    std::fs::create_dir_all(root.join("alice/below")).expect("folders");
    std::fs::create_dir_all(root.join("bob")).expect("folders");
    std::fs::write(root.join("alice/below/file"), "x").expect("file");
    let store = Store::open(&folder.path().join("state")).expect("store");
    let clock = Clock::manual(UnixMillis::from_millis(1_777_968_000_000));
    let options = Options { root: root.clone(), durability: Durability::Fast };
    let tree = Tree::open(options, store.clone(), clock.clone()).expect("tree");
    let tokens = Tokens::new(store.clone(), clock.clone()).with_tree(tree.clone());
    let auth = Authenticator::new(store.clone(), clock.clone()).expect("authenticator");
    let site = Site { _folder: folder, root, store, clock, tree, tokens, auth, callers: AtomicU32::new(0) };
    site.user("alice", &["/alice:rw"]);
    site
}

impl Site {
    fn user(&self, login: &str, grants: &[&str]) {
        let grants = grants.iter().map(|grant| grant.parse().expect("grant")).collect();
        let request = UserRequest { login: self::login(login), roles: Roles::none(), grants, home: Home::No };
        self.tokens.create_user(ADMIN, &request).expect("user");
    }

    fn scoped(&self, scopes: &[&str]) -> Result<Issued> {
        let scopes = (!scopes.is_empty()).then(|| scopes.iter().map(|scope| scope.parse().expect("scope")).collect());
        self.tokens.issue(ADMIN, TokenRequest { scopes, ..TokenRequest::new(login("alice")) })
    }

    /// Comes in over WebDAV, each time from another address.
    fn come_in(&self, text: &TokenText) -> Session {
        self.knock(text).expect("let in")
    }

    fn refuses(&self, text: &TokenText) -> bool {
        matches!(self.knock(text), Err(AuthError::Denied))
    }

    fn knock(&self, text: &TokenText) -> std::result::Result<Session, AuthError> {
        let token = Zeroizing::new(text.reveal().as_bytes().to_vec());
        let number = self.callers.fetch_add(1, Ordering::Relaxed);
        let peer = testing::peer(&std::net::Ipv4Addr::from(0x0a00_0000 + number).to_string());
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("runtime");
        runtime.block_on(self.auth.authenticate(Credential { login: None, token }, peer))
    }

    fn all(&self) -> Vec<TokenRecord> {
        self.tokens.page(ADMIN, &TokenQuery::default(), 1000).expect("a page").items
    }

    fn count(&self) -> usize {
        self.all().len()
    }

    fn node(&self, path: &str) -> NodeId {
        self.tree.mint(&at(path)).expect("node")
    }
}

fn login(text: &str) -> Login {
    text.parse().expect("login")
}

fn at(path: &str) -> TreePath {
    TreePath::parse(path.as_bytes()).expect("path")
}

fn lifetime(text: &str) -> Lifetime {
    text.parse().expect("duration")
}

#[test]
fn all_that_is_changed_about_a_user_or_the_policy_is_changed_in_one_write() {
    let site = site();
    let writes = |change: &dyn Fn()| {
        let before = site.store.write_count();
        change();
        site.store.write_count() - before
    };
    let change = UserUpdate { disabled: Some(true), roles: Some([Role::ReadAudit].into_iter().collect()) };
    assert_eq!(writes(&|| drop(site.tokens.change_user(ADMIN, &login("alice"), &change).expect("changed"))), 1);
    let user = site.tokens.user(ADMIN, &login("alice")).expect("there");
    assert!(user.disabled_at.is_some() && user.roles.includes(Role::ReadAudit));
    let settings = Policy { allow_never: true, max_lifetime: lifetime("2Y"), ..Policy::default() }.settings();
    assert_eq!(writes(&|| assert!(site.tokens.change_policy(ADMIN, &settings).is_ok())), 1);
    let policy = site.tokens.policy(ADMIN).expect("read");
    assert!(policy.allow_never && policy.max_lifetime == lifetime("2Y"));
}

#[test]
fn a_scope_within_the_owners_reach_makes_a_token() {
    let site = site();
    let below = site.node("/alice/below");
    let issued = site.scoped(&[&format!("node:{below}:r"), "path:/alice/below/file:w"]).expect("a token");
    let scopes = issued.record.scopes.expect("scopes");
    let read = Scope { node: below, permission: Permission::R };
    let write = Scope { node: site.node("/alice/below/file"), permission: Permission::W };
    assert!(scopes.iter().any(|placed| placed.scope == read && placed.path == Some(at("/alice/below"))));
    assert!(scopes.iter().any(|placed| placed.scope == write));
    assert_eq!(issued.record.name, "alice_api_token");
}

#[test]
fn a_scope_outside_the_owners_reach_makes_no_token() {
    let site = site();
    site.user("reader", &["/alice:r"]);
    let bob = site.node("/bob");
    for scope in ["path:/bob:r".to_owned(), format!("node:{bob}:r"), "path:/:r".to_owned()] {
        let refused = site.scoped(&["path:/alice:r", &scope]);
        assert!(matches!(refused, Err(Error::OutsideReach { .. })), "{scope}: {refused:?}");
    }
    let wide = ScopeTarget::Path(at("/alice/below"), Permission::RW);
    let request = TokenRequest { scopes: Some(vec![wide]), ..TokenRequest::new(login("reader")) };
    let refused = site.tokens.issue(ADMIN, request);
    assert!(matches!(refused, Err(Error::OutsideReach { .. })), "rw where r is granted: {refused:?}");
    assert_eq!(site.count(), 0);
}

#[test]
fn a_scope_on_what_is_not_there_makes_no_token() {
    let site = site();
    std::os::unix::fs::symlink("below", site.root.join("alice/link")).expect("link");
    let ended = site.node("/alice/below");
    std::fs::remove_dir_all(site.root.join("alice/below")).expect("removed");
    let never = NodeId::from_random([7; 16]);
    let cases = [
        "path:/alice/none:r".into(),
        format!("node:{never}:r"),
        format!("node:{ended}:r"),
        "path:/alice/link:r".into(),
    ];
    for scope in cases {
        let refused = site.scoped(&[&scope]);
        let told = matches!(refused, Err(Error::NoPath(_) | Error::UnknownNode(_) | Error::Unnameable(_)));
        assert!(told, "{scope}: {refused:?}");
    }
    assert_eq!(site.count(), 0);
}

#[test]
fn unknown_and_disabled_owners_get_no_token() {
    let site = site();
    let refused = site.tokens.issue(ADMIN, TokenRequest::new(login("nobody")));
    assert!(matches!(refused, Err(Error::UnknownUser(_))), "{refused:?}");
    site.tokens.disable_user(ADMIN, &login("alice")).expect("disabled");
    assert!(matches!(site.scoped(&[]), Err(Error::Disabled(_))));
    assert_eq!(site.count(), 0);
}

#[test]
fn the_policy_bounds_how_many_and_how_long() {
    let site = site();
    let ask = |lifetime, window| TokenRequest { lifetime, window, ..TokenRequest::new(login("alice")) };
    let cases = [
        (ask(Asked::For(lifetime("2Y")), None), "longer than"),
        (ask(Asked::Default, Some(lifetime("2Y"))), "longer than"),
        (ask(Asked::Never, None), "never expire"),
        (ask(Asked::Never, Some(lifetime("1h"))), "sliding window"),
    ];
    for (request, why) in cases {
        let refused = site.tokens.issue(ADMIN, request).expect_err(why).to_string();
        assert!(refused.contains(why), "{refused}");
    }
    for _ in 0..5 {
        site.scoped(&[]).expect("a token");
    }
    assert!(matches!(site.scoped(&[]), Err(Error::Policy(PolicyViolation::TooManyTokens(5)))));
    assert_eq!(site.count(), 5);
    let first = site.all()[0].id;
    site.tokens.revoke(ADMIN, &[first]).expect("revoked");
    site.scoped(&[]).expect("only live tokens count");
}

#[test]
fn a_rotated_token_keeps_its_id_and_its_end() {
    let site = site();
    let request = TokenRequest { lifetime: Asked::For(lifetime("30d")), ..TokenRequest::new(login("alice")) };
    let issued = site.tokens.issue(ADMIN, request).expect("a token");
    site.clock.advance(DAY);
    let rotated = site.tokens.rotate(ADMIN, issued.text.id(), Some(lifetime("24h"))).expect("rotated");
    assert_eq!(rotated.text.id(), issued.text.id());
    assert_ne!(rotated.text.secret(), issued.text.secret());
    assert_eq!(rotated.record.expiry, issued.record.expiry);
    assert_eq!(rotated.record.grace_until, Some(site.clock.now().saturating_add(DAY)));
    let at_once = site.tokens.rotate(ADMIN, issued.text.id(), None).expect("rotated");
    assert_eq!(at_once.record.grace_until, None);
}

#[test]
fn an_old_secret_is_good_for_its_grace_and_only_the_last_one() {
    let site = site();
    let ask = TokenRequest { lifetime: Asked::For(lifetime("10h")), ..TokenRequest::new(login("alice")) };
    let first = site.tokens.issue(ADMIN, ask).expect("a token").text;
    let second = site.tokens.rotate(ADMIN, first.id(), Some(lifetime("2h"))).expect("rotated").text;
    let old = site.come_in(&first);
    assert!(old.access().is_ok() && site.come_in(&second).access().is_ok());
    assert_eq!(old.deadline(), site.clock.now().saturating_add(DAY / 12));

    let third = site.tokens.rotate(ADMIN, first.id(), Some(lifetime("2h"))).expect("rotated").text;
    assert!(old.access().is_err(), "rotating twice kills the secret before the last");
    assert!(site.refuses(&first));
    let old = site.come_in(&second);
    let new = site.come_in(&third);
    site.clock.advance(DAY / 12);
    assert!(old.access().is_err() && site.refuses(&second), "the grace is over");
    assert!(new.access().is_ok());

    let late = site.tokens.rotate(ADMIN, first.id(), Some(lifetime("24h"))).expect("rotated");
    assert_eq!(late.record.grace_until, Some(late.record.expiry.hard_limit()), "a grace is no longer than the life");
    site.clock.advance(DAY / 3);
    assert!(site.refuses(&third) && site.refuses(&late.text), "rotation never lengthens a life");
}

#[test]
fn dead_tokens_and_long_graces_are_not_rotated() {
    let site = site();
    let id = site.scoped(&[]).expect("a token").text.id();
    assert!(matches!(site.tokens.rotate(ADMIN, id, Some(lifetime("25h"))), Err(Error::Grace(_))));
    let other = site.scoped(&[]).expect("a token").text.id();
    site.tokens.revoke(ADMIN, &[other]).expect("revoked");
    assert!(matches!(site.tokens.rotate(ADMIN, other, None), Err(Error::Dead(_, TokenState::Revoked))));
    site.clock.advance(91 * DAY);
    assert!(matches!(site.tokens.rotate(ADMIN, id, None), Err(Error::Dead(_, TokenState::Expired))));
    let unknown = "00000000".parse().expect("id");
    assert!(matches!(site.tokens.rotate(ADMIN, unknown, None), Err(Error::UnknownToken(_))));
}

#[test]
fn revoking_one_unknown_token_revokes_none() {
    let site = site();
    let id = site.scoped(&[]).expect("a token").text.id();
    let unknown = "00000000".parse().expect("id");
    assert!(matches!(site.tokens.revoke(ADMIN, &[id, unknown]), Err(Error::UnknownToken(_))));
    assert_eq!(site.tokens.find(ADMIN, id).expect("there").state, TokenState::Live);
    site.scoped(&[]).expect("another");
    assert_eq!(site.tokens.revoke_all(ADMIN, &login("alice")).expect("revoked"), 2);
    assert_eq!(site.tokens.revoke_all(ADMIN, &login("alice")).expect("revoked"), 0);
}

#[test]
fn a_new_user_gets_a_home_and_keeps_what_was_there() {
    let site = site();
    let ask = |login: &str| UserRequest {
        login: self::login(login),
        roles: Roles::none(),
        grants: Vec::new(),
        home: Home::Own,
    };
    let carol = site.tokens.create_user(ADMIN, &ask("carol")).expect("made");
    assert_eq!((carol.home, carol.home_was_there), (Some(at("/carol")), false));
    assert!(site.root.join("carol").is_dir());
    let bob = site.tokens.create_user(ADMIN, &ask("bob")).expect("made");
    assert!(bob.home_was_there);
    let grants = site.tokens.grants(ADMIN, &login("bob")).expect("grants");
    assert_eq!(grants[0].path, Some(at("/bob")));
    assert_eq!(grants[0].scope.permission, Permission::RW);

    std::fs::write(site.root.join("dave"), "a file").expect("file");
    assert!(matches!(site.tokens.create_user(ADMIN, &ask("dave")), Err(Error::NoHome(_))));
    assert!(matches!(site.tokens.create_user(ADMIN, &ask("bob")), Err(Error::UserExists(_))));
    assert!(matches!(site.tokens.user(ADMIN, &login("dave")), Err(Error::UnknownUser(_))), "no half-made user");
}

#[test]
fn a_grant_on_what_is_not_there_makes_no_user() {
    let site = site();
    let grants = vec!["/none:r".parse().expect("grant")];
    let request = UserRequest { login: login("erin"), roles: Roles::none(), grants, home: Home::No };
    assert!(matches!(site.tokens.create_user(ADMIN, &request), Err(Error::NoPath(_))));
    assert!(matches!(site.tokens.user(ADMIN, &login("erin")), Err(Error::UnknownUser(_))));
}

#[test]
fn grants_are_changed_and_taken_back_by_path_or_node() {
    let site = site();
    let alice = login("alice");
    site.tokens.grant(ADMIN, &alice, &"/bob:r".parse().expect("grant")).expect("granted");
    site.tokens.grant(ADMIN, &alice, &"/bob:w".parse().expect("grant")).expect("granted");
    let bob = site.node("/bob");
    let grants = site.tokens.grants(ADMIN, &alice).expect("grants");
    let here: Vec<_> = grants.iter().filter(|grant| grant.scope.node == bob).collect();
    assert!(here.len() == 1 && here[0].scope.permission == Permission::W, "{here:?}");
    let place: GrantPlace = "/bob".parse().expect("place");
    site.tokens.revoke_grant(ADMIN, &alice, &place).expect("taken back");
    assert!(matches!(site.tokens.revoke_grant(ADMIN, &alice, &place), Err(Error::NoGrant { .. })));
    site.tokens.revoke_grant(ADMIN, &alice, &GrantPlace::Node(site.node("/alice"))).expect("taken back");
    assert!(site.tokens.grants(ADMIN, &alice).expect("grants").is_empty());
}

#[test]
fn tokens_come_in_pages_of_those_that_fit() {
    let site = site();
    site.user("bob", &["/bob:rw"]);
    let named = |name: &str| Some(name.parse().expect("label"));
    for name in ["Laptop", "phone", "old laptop"] {
        let request = TokenRequest { name: named(name), ..TokenRequest::new(login("alice")) };
        site.tokens.issue(ADMIN, request).expect("a token");
    }
    let below = site.scoped(&["path:/alice/below:r"]).expect("a token").text.id();
    site.tokens.issue(ADMIN, TokenRequest::new(login("bob"))).expect("a token");
    let seen = |query: TokenQuery, limit| {
        let (mut query, mut seen) = (query, Vec::new());
        loop {
            let page = site.tokens.page(ADMIN, &query, limit).expect("a page");
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
    std::fs::remove_dir_all(site.root.join("alice/below")).expect("removed");
    assert_eq!(seen(dangling(), 9), [below], "the served folder decides, not the index");
    let owned = TokenQuery { owner: Some(login("nobody")), ..TokenQuery::default() };
    assert!(matches!(site.tokens.page(ADMIN, &owned, 9), Err(Error::UnknownUser(_))));
}

#[test]
fn limits_and_labels_are_kept() {
    let site = site();
    let limits = TokenLimits { ips: vec!["192.0.2.0/24".parse().expect("net")], ..TokenLimits::default() };
    let request = TokenRequest {
        name: Some("laptop".parse().expect("label")),
        description: "the old one".parse().expect("label"),
        limits: limits.clone(),
        ..TokenRequest::new(login("alice"))
    };
    let record = site.tokens.issue(ADMIN, request).expect("a token").record;
    assert_eq!((record.name.as_str(), record.description.as_str(), record.limits), ("laptop", "the old one", limits));
}

#[test]
fn no_form_of_a_new_secret_is_in_the_state_directory() {
    let site = site();
    let issued = site.scoped(&[]).expect("a token");
    let rotated = site.tokens.rotate(ADMIN, issued.text.id(), Some(lifetime("1h"))).expect("rotated");
    for text in [&issued.text, &rotated.text] {
        let secret = text.secret().expose();
        for entry in std::fs::read_dir(site.store.state_dir()).expect("state") {
            let path = entry.expect("entry").path();
            let bytes = std::fs::read(&path).expect("file");
            assert!(memchr::memmem::find(&bytes, secret).is_none(), "{}", path.display());
        }
    }
}
