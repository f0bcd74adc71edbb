//! Tests of child tokens: a child never exceeds its parent, in random sequences of creating, narrowing, rotating,
//! revoking and granting.

use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use proptest::sample::{select, subsequence};

use super::privilege_escalation::{EscalationEnv, protocol_limits, scope_targets};
use super::*;
use crate::domain::{ByteSize, Protocol, Role};

/// An action with one of the tokens that exist so far, by its number modulo their count.
#[derive(Clone, Debug)]
enum ChainAction {
    Issue(usize, RequestedPrivileges),
    Narrow(usize, usize, RequestedPrivileges),
    Rotate(usize, usize),
    Revoke(usize, usize),
    SetRoles(Vec<Role>),
    Grant(&'static str, Permission),
    RevokeGrant(&'static str),
    AdvanceClock(u64),
}

/// A requested token.
#[derive(Clone, Debug)]
struct RequestedPrivileges {
    scopes: Option<Vec<(&'static str, Permission)>>,
    limits: TokenLimits,
    roles: Vec<Role>,
    hours: u64,
}

impl RequestedPrivileges {
    fn scopes(&self) -> Option<Vec<ScopeTarget>> {
        let target = |(path, permission): &(&str, Permission)| ScopeTarget::Path(tree_path(path), *permission);
        self.scopes.as_ref().map(|scopes| scopes.iter().map(target).collect())
    }

    fn roles(&self) -> Roles {
        self.roles.iter().copied().collect()
    }
}

/// The tokens that exist so far, each with a session that was opened with its last secret.
struct TokenFamily {
    env: TokensEnv,
    members: Vec<(TokenId, Option<Session>)>,
}

const OWNER_ROLES: [Role; 3] = [Role::GenerateTokens, Role::RevokeTokens, Role::Admin];

impl TokenFamily {
    fn new() -> Self {
        let env = tokens_env();
        env.tokens.set_policy(ADMIN, "max-tokens-per-user", "1000").expect("set");
        env.tokens.set_roles(ADMIN, &login("alice"), &OWNER_ROLES.into_iter().collect()).expect("roles");
        let roles = OWNER_ROLES.into_iter().collect();
        let first = env.tokens.issue(ADMIN, TokenRequest { roles, ..TokenRequest::new(login("alice")) });
        let mut family = Self { env, members: Vec::new() };
        family.add_member(first.expect("a token").text.as_ref().expect("a secret"));
        family
    }

    fn add_member(&mut self, text: &TokenText) {
        let session = self.env.authenticate(text).ok();
        self.members.retain(|(id, _)| *id != text.id());
        self.members.push((text.id(), session));
    }

    fn member(&self, number: usize) -> (TokenId, Option<Principal>) {
        let (id, session) = &self.members[number % self.members.len()];
        (*id, session.clone().map(Principal::Session))
    }

    /// Runs an action, which may be refused.
    fn apply(&mut self, action: &ChainAction) {
        let alice = login("alice");
        match action {
            ChainAction::Issue(by, ask) => {
                let Some(principal) = self.member(*by).1 else { return };
                let request = TokenRequest {
                    scopes: ask.scopes(),
                    limits: ask.limits.clone(),
                    roles: ask.roles(),
                    lifetime: Lifetime::from_secs(ask.hours * 3600).map(RequestedLifetime::For),
                    ..TokenRequest::new(alice)
                };
                if let Ok(issued) = self.env.tokens.issue(&principal, request) {
                    self.add_member(issued.text.as_ref().expect("a secret"));
                }
            }
            ChainAction::Narrow(by, of, ask) => {
                let change = NarrowRequest {
                    scopes: ask.scopes(),
                    limits: ask.limits.clone(),
                    roles: (!ask.roles.is_empty()).then(|| ask.roles()),
                    expires_at: (ask.hours % 3 == 0).then(|| self.env.clock.now().saturating_add(ONE_DAY / 24 * 5)),
                    ..NarrowRequest::default()
                };
                let (Some(principal), (id, _)) = (self.member(*by).1, self.member(*of)) else { return };
                drop(self.env.tokens.narrow(&principal, id, &change, None));
            }
            ChainAction::Rotate(by, of) => {
                let (Some(principal), (id, _)) = (self.member(*by).1, self.member(*of)) else { return };
                if let Ok(rotated) = self.env.tokens.rotate(&principal, id, &with_grace(None)) {
                    self.add_member(rotated.text.as_ref().expect("a secret"));
                }
            }
            ChainAction::Revoke(by, of) => {
                let (Some(principal), (id, _)) = (self.member(*by).1, self.member(*of)) else { return };
                drop(self.env.tokens.revoke(&principal, &[id]));
            }
            ChainAction::SetRoles(roles) => {
                self.env.tokens.set_roles(ADMIN, &alice, &roles.iter().copied().collect()).expect("changed");
            }
            ChainAction::Grant(path, permission) => {
                let grant = Grant { path: tree_path(path), permission: *permission };
                self.env.tokens.grant(ADMIN, &alice, &grant).expect("granted");
            }
            ChainAction::RevokeGrant(path) => {
                drop(self.env.tokens.revoke_grant(ADMIN, &alice, &GrantTarget::Path(tree_path(path))));
            }
            ChainAction::AdvanceClock(hours) => {
                self.env.clock.advance(Duration::from_secs(hours * 3600));
            }
        }
    }

    fn check(&self) -> std::result::Result<(), TestCaseError> {
        for (id, session) in &self.members {
            let child = self.env.tokens.find(ADMIN, *id).expect("there");
            let Some(parent) = child.parent else { continue };
            let above = self.env.tokens.find(ADMIN, parent).expect("there");
            let opened = session.as_ref().and_then(|session| Some((session, session.privileges().ok()?)));
            if above.state != TokenState::Live {
                prop_assert!(child.state != TokenState::Live && opened.is_none(), "it outlives its parent");
                continue;
            }
            let most = self.env.store.effective_access(parent).expect("read").expect("there").into_privileges();
            let least = self.env.store.effective_access(*id).expect("read").expect("there").into_privileges();
            let opened = opened.map(|(session, width)| (session.deadline(), (*width).clone()));
            let hard_limit = above.expiry().hard_limit();
            prop_assert!(opened.as_ref().is_none_or(|(deadline, _)| *deadline <= hard_limit), "it ends later");
            for width in opened.into_iter().map(|(_, width)| width).chain([least]) {
                prop_assert_eq!(most.check_covers(&width), Ok(()));
                prop_assert!(width.hard_limit <= most.hard_limit);
                for (root, path) in width.access.effective_grants().iter().map(|root| (root, &root.path)) {
                    prop_assert!(most.access.may(path, root.permission), "{path}");
                }
            }
        }
        Ok(())
    }
}

fn any_path() -> impl Strategy<Value = &'static str> {
    select(vec!["/", "/alice", "/alice/below", "/alice/below/file", "/bob"])
}

fn any_permission() -> impl Strategy<Value = Permission> {
    select(vec![Permission::R, Permission::W, Permission::RW])
}

fn any_request() -> impl Strategy<Value = RequestedPrivileges> {
    let doors = subsequence(vec![Protocol::Webdav, Protocol::Sftp, Protocol::Api], 2..=3);
    let limits = (option::weighted(0.3, doors), option::weighted(0.3, 1u64..4)).prop_map(|(doors, size)| TokenLimits {
        protocols: doors.unwrap_or_default(),
        max_file_size: size.map(ByteSize::from_bytes),
        ..TokenLimits::default()
    });
    let scopes = option::weighted(0.4, vec((any_path(), any_permission()), 1..3));
    (scopes, limits, subsequence(OWNER_ROLES.to_vec(), 0..=2), 1u64..30)
        .prop_map(|(scopes, limits, roles, hours)| RequestedPrivileges { scopes, limits, roles, hours })
}

fn any_action() -> impl Strategy<Value = ChainAction> {
    let index = || 0usize..8;
    prop_oneof![
        8 => (index(), any_request()).prop_map(|(by, request)| ChainAction::Issue(by, request)),
        4 => (index(), index(), any_request()).prop_map(|(by, of, request)| ChainAction::Narrow(by, of, request)),
        2 => (index(), index()).prop_map(|(by, of)| ChainAction::Rotate(by, of)),
        1 => (index(), index()).prop_map(|(by, of)| ChainAction::Revoke(by, of)),
        1 => subsequence(OWNER_ROLES.to_vec(), 0..=3).prop_map(ChainAction::SetRoles),
        2 => (any_path(), any_permission()).prop_map(|(path, permission)| ChainAction::Grant(path, permission)),
        1 => any_path().prop_map(ChainAction::RevokeGrant),
        1 => (1u64..6).prop_map(ChainAction::AdvanceClock),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, max_shrink_iters: 100, ..ProptestConfig::default() })]

    #[test]
    fn child_never_exceeds_parent(actions in vec(any_action(), 5..25)) {
        let mut family = TokenFamily::new();
        for action in &actions {
            family.apply(action);
            family.check()?;
        }
    }
}

#[test]
fn child_never_exceeds_narrowed_parent() {
    let EscalationEnv { env, alice, .. } = EscalationEnv::new();
    let parent = env.issue_bearer(&alice.principal, "alice", |request| {
        request.lifetime = Some(RequestedLifetime::For(lifetime("10d")))
    });
    let request_with = |text| {
        env.issue_with(&parent.principal, "alice", |request| {
            request.lifetime = Some(RequestedLifetime::For(lifetime(text)))
        })
    };
    assert!(matches!(request_with("30d"), Err(Error::OutlivesParent { .. })), "a lifetime is not shortened in silence");
    assert!(request_with("10d").is_ok());
    let child = env.issue_bearer(&parent.principal, "alice", |_| {});
    let record = env.tokens.find(ADMIN, child.id).expect("there");
    assert_eq!(record.parent, Some(parent.id));
    assert_eq!(record.expiry().hard_limit(), env.clock.now().saturating_add(10 * ONE_DAY), "the default is bounded");

    let session = env.session_of(&child);
    let below = tree_path("/alice/below");
    assert!(session.access().expect("open").may(&below, Permission::RW));
    let change = NarrowRequest { scopes: scope_targets(&["path:/alice/below:r"]), ..NarrowRequest::default() };
    env.narrow(&alice, parent.id, change).expect("narrowed");
    let access = session.access().expect("open");
    assert!(
        access.may(&below, Permission::R)
            && !access.may(&below, Permission::W)
            && !access.may(&tree_path("/alice"), Permission::R)
    );

    let at = env.clock.now().saturating_add(ONE_DAY);
    env.narrow(&alice, parent.id, NarrowRequest { expires_at: Some(at), ..NarrowRequest::default() })
        .expect("narrowed");
    session.access().expect("open still");
    assert_eq!(session.deadline(), at, "a child does not outlive a narrowed parent");
    assert_eq!(env.tokens.find(ADMIN, child.id).expect("there").deadline(), at, "and says so");
    env.narrow(
        &alice,
        parent.id,
        NarrowRequest { limits: protocol_limits(&[Protocol::Sftp]), ..NarrowRequest::default() },
    )
    .expect("ok");
    assert!(session.access().is_err(), "an open session whose door was closed ends");
    assert_eq!(env.tokens.find(ADMIN, child.id).expect("there").state, TokenState::Live);
    env.clock.advance(ONE_DAY);
    assert_eq!(env.tokens.find(ADMIN, child.id).expect("there").state, TokenState::Expired);
}

#[test]
fn revoking_parent_closes_descendant_sessions() {
    let EscalationEnv { env, alice, .. } = EscalationEnv::new();
    let child = env.issue_bearer(&alice.principal, "alice", |_| ());
    let grandchild = env.issue_bearer(&child.principal, "alice", |_| ());
    let session = env.session_of(&grandchild);
    assert!(session.access().is_ok());
    env.tokens.revoke(&alice.principal, &[child.id]).expect("revoked");
    assert!(session.access().is_err());
    assert_eq!(env.tokens.find(ADMIN, grandchild.id).expect("there").state, TokenState::Revoked);
}

#[test]
fn child_counts_toward_owner_token_limit() {
    let EscalationEnv { env, alice, .. } = EscalationEnv::new();
    for _ in 0..4 {
        env.issue_with(&alice.principal, "alice", |_| ()).expect("created");
    }
    let refused = env.issue_with(&alice.principal, "alice", |_| ());
    assert!(matches!(refused, Err(Error::Policy(PolicyViolation::TooManyTokens(5)))), "{refused:?}");
}
