//! Tests that nobody gains privileges by creating, narrowing or rotating tokens, and that a caller's own tokens need no
//! role.

use super::*;
use crate::domain::{ByteSize, Protocol, Role};

/// A caller with its token.
#[derive(Clone)]
pub(super) struct TestBearer {
    pub(super) id: TokenId,
    pub(super) principal: Principal,
}

/// Alice and bob with their homes; `help`, who has every role over tokens and users but no `admin`;
/// `root`, who has `admin`; and a token of each without scopes or limits.
pub(super) struct EscalationEnv {
    pub(super) env: TokensEnv,
    pub(super) alice: TestBearer,
    bob: TestBearer,
    help: TestBearer,
    root: TestBearer,
}

const HELPDESK_ROLES: [Role; 4] =
    [Role::GenerateTokens, Role::AuthenticationLookup, Role::RevokeTokens, Role::ManageUsers];

impl EscalationEnv {
    pub(super) fn new() -> Self {
        let env = tokens_env();
        env.create_user("bob", &["/bob:rw"]);
        for (name, roles) in [("help", &HELPDESK_ROLES[..]), ("root", &[Role::Admin])] {
            env.create_user(name, &[]);
            env.tokens.set_roles(ADMIN, &login(name), &roles.iter().copied().collect()).expect("roles");
        }
        let [alice, bob, help, root] = ["alice", "bob", "help", "root"].map(|name| {
            let roles = env.tokens.user(ADMIN, &login(name)).expect("user").roles;
            env.issue_bearer(ADMIN, name, |request| request.roles = roles)
        });
        Self { env, alice, bob, help, root }
    }
}

impl TokensEnv {
    /// Issues a token and opens a session with it.
    pub(super) fn issue_bearer(
        &self,
        by: &Principal,
        owner: &str,
        change: impl FnOnce(&mut TokenRequest),
    ) -> TestBearer {
        let issued = self.issue_with(by, owner, change).expect("a token");
        TestBearer {
            id: issued.record.id,
            principal: Principal::Session(self.open_session(issued.text.as_ref().expect("a secret"))),
        }
    }

    pub(super) fn issue_with(
        &self,
        by: &Principal,
        owner: &str,
        change: impl FnOnce(&mut TokenRequest),
    ) -> Result<IssuedToken> {
        let mut request = TokenRequest::new(login(owner));
        change(&mut request);
        self.tokens.issue(by, request)
    }

    pub(super) fn narrow(&self, by: &TestBearer, id: TokenId, change: NarrowRequest) -> Result<()> {
        self.tokens.narrow(&by.principal, id, &change, None).map(drop)
    }

    pub(super) fn session_of(&self, of: &TestBearer) -> crate::auth::Session {
        match &of.principal {
            Principal::Session(session) => session.clone(),
            Principal::Administrator | Principal::SystemUser(_) => unreachable!("a bearer has a session"),
        }
    }
}

/// A token of alice with a scope to read a directory in her home.
fn scoped_token(w: &EscalationEnv) -> TestBearer {
    w.env.issue_bearer(ADMIN, "alice", |request| request.scopes = scope_targets(&["path:/alice/below:r"]))
}

/// A token of alice that is limited to two protocols.
fn limited_token(w: &EscalationEnv) -> TestBearer {
    w.env.issue_bearer(ADMIN, "alice", |request| request.limits = protocol_limits(&[Protocol::Api, Protocol::Webdav]))
}

/// A token of alice that expires in an hour.
fn short_lived_token(w: &EscalationEnv) -> TestBearer {
    w.env.issue_bearer(ADMIN, "alice", |request| request.lifetime = Some(RequestedLifetime::For(lifetime("1h"))))
}

/// A token that has expired.
fn expired_token(w: &EscalationEnv) -> TestBearer {
    let short = short_lived_token(w);
    w.env.clock.advance(ONE_DAY / 24);
    short
}

/// A token of `help` with its roles that is limited to small files and expires in an hour.
fn limited_helpdesk_token(w: &EscalationEnv) -> TestBearer {
    w.env.issue_bearer(ADMIN, "help", |request| {
        request.roles = role_set(&HELPDESK_ROLES);
        request.limits = file_size_limit(1024);
        request.lifetime = Some(RequestedLifetime::For(lifetime("1h")));
    })
}

/// An unrestricted token of `help` with its roles that expires in an hour.
fn short_lived_helpdesk_token(w: &EscalationEnv) -> TestBearer {
    w.env.issue_bearer(ADMIN, "help", |request| {
        request.roles = role_set(&HELPDESK_ROLES);
        request.lifetime = Some(RequestedLifetime::For(lifetime("1h")));
    })
}

/// A token of `help` with its roles and a scope to read one directory.
fn scoped_helpdesk_token(w: &EscalationEnv) -> TestBearer {
    w.env.tokens.grant(ADMIN, &login("help"), &"/bob:rw".parse().expect("grant")).expect("granted");
    w.env.issue_bearer(ADMIN, "help", |request| {
        request.roles = role_set(&HELPDESK_ROLES);
        request.scopes = scope_targets(&["path:/bob:r"]);
    })
}

/// Another user with the roles of `help`, and a token with them.
fn second_helpdesk_token(w: &EscalationEnv) -> TestBearer {
    w.env.create_user("peer", &[]);
    w.env.tokens.set_roles(ADMIN, &login("peer"), &role_set(&HELPDESK_ROLES)).expect("roles");
    w.env.issue_bearer(ADMIN, "peer", |request| request.roles = role_set(&HELPDESK_ROLES))
}

/// A token of `help` without roles.
fn roleless_helpdesk_token(w: &EscalationEnv) -> TestBearer {
    w.env.issue_bearer(ADMIN, "help", |_| ())
}

pub(super) fn scope_targets(texts: &[&str]) -> Option<Vec<ScopeTarget>> {
    Some(texts.iter().map(|text| text.parse().expect("scope")).collect())
}

pub(super) fn protocol_limits(doors: &[Protocol]) -> TokenLimits {
    TokenLimits { protocols: doors.to_vec(), ..TokenLimits::default() }
}

fn file_size_limit(bytes: u64) -> TokenLimits {
    TokenLimits { max_file_size: Some(ByteSize::from_bytes(bytes)), ..TokenLimits::default() }
}

fn role_set(roles: &[Role]) -> Roles {
    roles.iter().copied().collect()
}

/// An attempt to gain privileges: the attacker, its call, and the start of the expected error.
struct EscalationAttempt {
    description: &'static str,
    attacker: fn(&EscalationEnv) -> TestBearer,
    attempt: fn(&EscalationEnv, &TestBearer) -> Result<()>,
    expected_error: &'static str,
}

macro_rules! escalation_attempts {
    ($($description:literal: $principal:expr => |$w:ident, $by:ident| $tries:expr, refused $message:literal;)*) => {
        &[$(EscalationAttempt { description: $description, attacker: $principal, attempt: |$w, $by| $tries, expected_error: $message }),*]
    };
}

const ROTATION_ATTEMPTS: &[EscalationAttempt] = escalation_attempts! {
    "a scoped token rotates a wide one of its owner": scoped_token => |w, by|
        w.env.tokens.rotate(&by.principal, w.alice.id, &with_grace(None)).map(drop), refused "there is no token";
    "a limited token rotates a wide one of its owner": limited_token => |w, by|
        w.env.tokens.rotate(&by.principal, w.alice.id, &with_grace(None)).map(drop), refused "there is no token";
    "a child rotates its parent": |w| w.env.issue_bearer(&w.alice.principal, "alice", |_| ()) => |w, by|
        w.env.tokens.rotate(&by.principal, w.alice.id, &with_grace(None)).map(drop), refused "there is no token";
    "a user rotates another's token": |w| w.alice.clone() => |w, by|
        w.env.tokens.rotate(&by.principal, w.bob.id, &with_grace(None)).map(drop), refused "there is no token";
    "a limited token with the role rotates a wide one of its owner": |w| w.env.issue_bearer(ADMIN, "help", |request| {
        request.roles = role_set(&HELPDESK_ROLES);
        request.limits = protocol_limits(&[Protocol::Api, Protocol::Webdav]);
    }) => |w, by| w.env.tokens.rotate(&by.principal, w.help.id, &with_grace(None)).map(drop),
        refused "a token can only be rotated with one that has all of its privileges: its limit on protocols";
    "a scoped token with the role rotates a wide one of its owner": |w| {
        w.env.tokens.grant(ADMIN, &login("help"), &"/bob:rw".parse().expect("grant")).expect("granted");
        w.env.issue_bearer(ADMIN, "help", |request| {
            request.roles = role_set(&HELPDESK_ROLES);
            request.scopes = scope_targets(&["path:/bob:r"]);
        })
    } => |w, by| w.env.tokens.rotate(&by.principal, w.help.id, &with_grace(None)).map(drop),
        refused "a token can only be rotated with one that has all of its privileges: it has access to /bob";
    "a token without roles rotates one with roles of its owner": roleless_helpdesk_token => |w, by|
        w.env.tokens.rotate(&by.principal, w.help.id, &with_grace(None)).map(drop),
        refused "a token can only be rotated with one that has all of its privileges: it has the role";
    "a helpdesk role rotates an administrator's token": |w| w.help.clone() => |w, by|
        w.env.tokens.rotate(&by.principal, w.root.id, &with_grace(None)).map(drop), refused "this needs the role admin";
    "a rotation goes beyond a hard limit": expired_token => |w, by|
        w.env.tokens.rotate(&w.alice.principal, by.id, &with_grace(None)).map(drop), refused "the token";
    "a limited token with the role rotates one with roles of another user": |w| {
        second_helpdesk_token(w);
        limited_helpdesk_token(w)
    } => |w, by| {
        let peers = w.env.all_tokens().into_iter().find(|token| token.owner == login("peer")).expect("a token");
        w.env.tokens.rotate(&by.principal, peers.id, &with_grace(None)).map(drop)
    }, refused "this needs a token without scopes, limits or parent";
    "a short token with the role rotates one of its owner that lives longer": |w| {
        w.env.issue_bearer(ADMIN, "help", |request| request.limits = file_size_limit(1024));
        limited_helpdesk_token(w)
    } => |w, by| {
        let long = w.env.all_tokens().into_iter().find(|token| token.limits == file_size_limit(1024) && token.id != by.id);
        w.env.tokens.rotate(&by.principal, long.expect("a token").id, &with_grace(None)).map(drop)
    }, refused "a token can only be rotated with one that has all of its privileges: it expires later";
    "a scoped token with the role rotates a wide one of another user": scoped_helpdesk_token => |w, by|
        w.env.tokens.rotate(&by.principal, w.bob.id, &with_grace(None)).map(drop),
        refused "this needs a token without scopes, limits or parent";
    "a short token with the role rotates one with roles of another user that lives longer": |w| {
        second_helpdesk_token(w);
        short_lived_helpdesk_token(w)
    } => |w, by| {
        let peers = w.env.all_tokens().into_iter().find(|token| token.owner == login("peer")).expect("a token");
        w.env.tokens.rotate(&by.principal, peers.id, &with_grace(None)).map(drop)
    }, refused "a token can only be rotated with one that has all of its privileges: it expires later";
    "a short token rotates one with roles of its owner that lives longer": short_lived_helpdesk_token => |w, by|
        w.env.tokens.rotate(&by.principal, w.help.id, &with_grace(None)).map(drop),
        refused "a token can only be rotated with one that has all of its privileges: it expires later";
    "a token that died rotates itself": expired_token => |w, by|
        w.env.tokens.rotate(&by.principal, by.id, &with_grace(None)).map(drop), refused "the session has ended";
};

const ISSUE_ATTEMPTS: &[EscalationAttempt] = escalation_attempts! {
    "a user creates a token for another": |w| w.alice.clone() => |w, by|
        w.env.issue_with(&by.principal, "bob", |_| ()).map(drop), refused "this needs the role security.generate_tokens";
    "a user creates a token for one who is not there": |w| w.alice.clone() => |w, by|
        w.env.issue_with(&by.principal, "nobody", |_| ()).map(drop), refused "this needs the role security.generate_tokens";
    "a helpdesk role creates a token for an administrator": |w| w.help.clone() => |w, by|
        w.env.issue_with(&by.principal, "root", |_| ()).map(drop), refused "this needs the role admin";
    "a token without roles creates one with a role of its owner": roleless_helpdesk_token => |w, by|
        w.env.issue_with(&by.principal, "help", |request| request.roles = role_set(&[Role::RevokeTokens])).map(drop),
        refused "this needs the role security.revoke_tokens";
    "a child without roles creates one with those of its parent": |w| w.env.issue_bearer(&w.help.principal, "help", |_| ())
        => |w, by| w.env.issue_with(&by.principal, "help", |request| request.roles = role_set(&[Role::ManageUsers])).map(drop),
        refused "this needs the role users.manage";
    "a token creates one with a role that its owner lacks": |w| w.help.clone() => |w, by|
        w.env.issue_with(&by.principal, "help", |request| request.roles = role_set(&[Role::ReadAudit])).map(drop),
        refused "the user help does not hold the role audit.read";
    "a helpdesk role creates a token with a role that its owner lacks, for another user": |w| w.help.clone() => |w, by|
        w.env.issue_with(&by.principal, "bob", |request| request.roles = role_set(&[Role::RevokeTokens])).map(drop),
        refused "the user bob does not hold the role security.revoke_tokens";
    "a child may do more than its parent": scoped_token => |w, by|
        w.env.issue_with(&by.principal, "alice", |request| request.scopes = scope_targets(&["path:/alice/below:rw"])).map(drop),
        refused "the scope path:/alice/below:rw is outside";
    "a child reaches further than its parent": scoped_token => |w, by|
        w.env.issue_with(&by.principal, "alice", |request| request.scopes = scope_targets(&["path:/alice:r"])).map(drop),
        refused "the scope path:/alice:r is outside";
    "a child names a node that its parent does not reach": scoped_token => |w, by| {
        let hidden = format!("node:{}:r", w.env.node_id("/alice"));
        w.env.issue_with(&by.principal, "alice", |request| request.scopes = scope_targets(&[&hidden])).map(drop)
    }, refused "the node";
    "a child is allowed what its parent is not": limited_token => |w, by|
        w.env.issue_with(&by.principal, "alice", |request| request.limits = protocol_limits(&[Protocol::Sftp])).map(drop),
        refused "a token can't have more privileges than its parent: its limit on protocols";
    "a grandchild is allowed what its grandparent is not": |w| {
        let parent = w.env.issue_bearer(ADMIN, "alice", |request| request.limits = file_size_limit(10));
        w.env.issue_bearer(&parent.principal, "alice", |_| ())
    } => |w, by| w.env.issue_with(&by.principal, "alice", |request| request.limits = file_size_limit(11)).map(drop),
        refused "a token can't have more privileges than its parent: its limit on the file size";
    "a limited token with the role creates one with roles for another user": |w| {
        second_helpdesk_token(w);
        limited_helpdesk_token(w)
    } => |w, by| w.env.issue_with(&by.principal, "peer", |request| request.roles = role_set(&HELPDESK_ROLES)).map(drop),
        refused "this needs a token without scopes, limits or parent";
    "a limited token with the role creates a wide one for another user": limited_helpdesk_token => |w, by|
        w.env.issue_with(&by.principal, "bob", |_| ()).map(drop), refused "this needs a token without scopes, limits or parent";
    "a scoped token with the role creates a token for another user": scoped_helpdesk_token => |w, by|
        w.env.issue_with(&by.principal, "bob", |_| ()).map(drop), refused "this needs a token without scopes, limits or parent";
    "a child with the role creates a token for another user": |w|
        w.env.issue_bearer(&w.help.principal, "help", |request| request.roles = role_set(&HELPDESK_ROLES)) => |w, by|
        w.env.issue_with(&by.principal, "bob", |_| ()).map(drop), refused "this needs a token without scopes, limits or parent";
    "a limited token of an administrator creates a token for another user": |w| w.env.issue_bearer(ADMIN, "root", |request| {
        request.roles = role_set(&[Role::Admin]);
        request.limits = file_size_limit(1024);
    }) => |w, by| w.env.issue_with(&by.principal, "help", |request| request.roles = role_set(&HELPDESK_ROLES)).map(drop),
        refused "this needs a token without scopes, limits or parent";
    "a revoked token creates a token": |w| {
        w.env.tokens.revoke(ADMIN, &[w.alice.id]).expect("revoked");
        w.alice.clone()
    } => |w, by| w.env.issue_with(&by.principal, "alice", |_| ()).map(drop), refused "the session has ended";
};

const NARROW_ATTEMPTS: &[EscalationAttempt] = escalation_attempts! {
    "a helpdesk role narrows an administrator's token": |w| w.help.clone() => |w, by|
        w.env.narrow(by, w.root.id, NarrowRequest::default()), refused "this needs the role admin";
    "a narrowing widens the scopes": scoped_token => |w, by|
        w.env.narrow(by, by.id, NarrowRequest { scopes: scope_targets(&["path:/alice:r"]), ..NarrowRequest::default() }),
        refused "the scope path:/alice:r is outside";
    "a narrowing widens the permission": scoped_token => |w, by|
        w.env.narrow(by, by.id, NarrowRequest { scopes: scope_targets(&["path:/alice/below:rw"]), ..NarrowRequest::default() }),
        refused "the scope path:/alice/below:rw is outside";
    "a narrowing takes the scopes off": scoped_token => |w, by|
        w.env.narrow(by, by.id, NarrowRequest { scopes: Some(Vec::new()), ..NarrowRequest::default() }),
        refused "an empty list of scopes";
    "a narrowing widens a limit": limited_token => |w, by|
        w.env.narrow(by, by.id, NarrowRequest { limits: protocol_limits(&[Protocol::Sftp]), ..NarrowRequest::default() }),
        refused "a token can only be narrowed: its limit on protocols";
    "a narrowing adds a role": roleless_helpdesk_token => |w, by| {
        let change = NarrowRequest { roles: Some(role_set(&[Role::RevokeTokens])), ..NarrowRequest::default() };
        w.env.narrow(&w.help, by.id, change)
    }, refused "a token can only be narrowed: it has the role security.revoke_tokens";
    "a narrowing makes a life longer": short_lived_token => |w, by| {
        let at = w.env.clock.now().saturating_add(2 * ONE_DAY);
        w.env.narrow(&w.alice, by.id, NarrowRequest { expires_at: Some(at), ..NarrowRequest::default() })
    }, refused "the token";
    "a limited token with the role changes another user's": limited_helpdesk_token => |w, by|
        w.env.narrow(by, w.bob.id, NarrowRequest::default()), refused "this needs a token without scopes, limits or parent";
    "a parent gives its child a node that is hidden from itself": |w| {
        std::fs::write(w.env.root.join("alice/hidden"), "x").expect("file");
        let parent = scoped_token(w);
        w.env.issue_bearer(&parent.principal, "alice", |_| ());
        parent
    } => |w, by| {
        let child = w.env.all_tokens().into_iter().find(|token| token.parent == Some(by.id)).expect("a child");
        let refusal = |path: &str| {
            let change = NarrowRequest { scopes: scope_targets(&[path]), ..NarrowRequest::default() };
            w.env.narrow(by, child.id, change).expect_err("outside").to_string().replace("missing", "hidden")
        };
        assert_eq!(refusal("path:/alice/hidden:r"), refusal("path:/alice/missing:r"));
        let hidden = format!("node:{}:r", w.env.node_id("/alice/hidden"));
        let change = NarrowRequest { scopes: scope_targets(&[&hidden]), ..NarrowRequest::default() };
        w.env.narrow(by, child.id, change)
    }, refused "the node";
    "a child narrows its parent": |w| w.env.issue_bearer(&w.alice.principal, "alice", |_| ()) => |w, by|
        w.env.narrow(by, w.alice.id, NarrowRequest::default()), refused "there is no token";
};

const ADMINISTRATION_ATTEMPTS: &[EscalationAttempt] = escalation_attempts! {
    "a helpdesk role revokes an administrator's token among others": |w| w.help.clone() => |w, by|
        w.env.tokens.revoke(&by.principal, &[w.bob.id, w.root.id]), refused "this needs the role admin";
    "a helpdesk role revokes all of an administrator's tokens": |w| w.help.clone() => |w, by|
        w.env.tokens.revoke_all(&by.principal, &login("root")).map(drop), refused "this needs the role admin";
    "a scoped token revokes all of its owner's": scoped_token => |w, by|
        w.env.tokens.revoke_all(&by.principal, &login("alice")).map(drop), refused "this needs the role security.revoke_tokens";
    "a role whose owner lost it revokes": |w| {
        let left = role_set(&[Role::AuthenticationLookup]);
        w.env.tokens.set_roles(ADMIN, &login("help"), &left).expect("roles");
        w.help.clone()
    } => |w, by| w.env.tokens.revoke(&by.principal, &[w.bob.id]), refused "this needs the role security.revoke_tokens";
    "a helpdesk role makes an administrator": |w| w.help.clone() => |w, by| {
        let (login, roles) = (login("eve"), role_set(&[Role::Admin]));
        let request = UserRequest { login, roles, grants: Vec::new(), home: HomeOption::Skip, quota: None };
        w.env.tokens.create_user(&by.principal, &request).map(drop)
    }, refused "this needs the role admin";
    "a helpdesk role makes itself an administrator": |w| w.help.clone() => |w, by|
        w.env.tokens.set_roles(&by.principal, &login("help"), &role_set(&[Role::Admin])), refused "this needs the role admin";
    "a helpdesk role takes an administrator's role away": |w| w.help.clone() => |w, by|
        w.env.tokens.set_roles(&by.principal, &login("root"), &Roles::none()), refused "this needs the role admin";
    "a helpdesk role disables an administrator": |w| w.help.clone() => |w, by|
        w.env.tokens.disable_user(&by.principal, &login("root")), refused "this needs the role admin";
    "a helpdesk role deletes an administrator": |w| w.help.clone() => |w, by|
        w.env.tokens.delete_user(&by.principal, &login("root")), refused "this needs the role admin";
    "a helpdesk role changes what an administrator reaches": |w| w.help.clone() => |w, by|
        w.env.tokens.grant(&by.principal, &login("root"), &"/bob:rw".parse().expect("grant")).map(drop),
        refused "this needs the role admin";
    "a token without roles manages its owner": roleless_helpdesk_token => |w, by|
        w.env.tokens.grant(&by.principal, &login("help"), &"/bob:rw".parse().expect("grant")).map(drop),
        refused "this needs the role users.manage";
    "a manager grants itself all files": |w| w.help.clone() => |w, by|
        w.env.tokens.grant(&by.principal, &login("help"), &"/:rw".parse().expect("grant")).map(drop),
        refused "this needs the role admin";
    "a manager grants what is hidden from it": |w| w.help.clone() => |w, by| {
        let refusal = |path: &str| {
            let grant = format!("{path}:r").parse().expect("grant");
            w.env.tokens.grant(&by.principal, &login("bob"), &grant).expect_err("hidden").to_string().replace(path, "/it")
        };
        assert_eq!(refusal("/alice/below"), refusal("/alice/missing"));
        w.env.tokens.grant(&by.principal, &login("help"), &"/alice:r".parse().expect("grant")).map(drop)
    }, refused "nothing is at /alice";
    "a scoped manager grants what its owner reaches": scoped_helpdesk_token => |w, by|
        w.env.tokens.grant(&by.principal, &login("alice"), &"/bob:rw".parse().expect("grant")).map(drop),
        refused "this needs the role admin";
    "a manager makes a user that reaches more than itself": |w| w.help.clone() => |w, by| {
        let grants = vec!["/alice:r".parse().expect("grant")];
        let request = UserRequest { login: login("eve"), roles: Roles::none(), grants, home: HomeOption::Skip, quota: None };
        w.env.tokens.create_user(&by.principal, &request).map(drop)
    }, refused "nothing is at /alice";
    "a manager makes a user whose home was somebody's": |w| {
        std::fs::create_dir(w.env.root.join("eve")).expect("folder");
        w.help.clone()
    } => |w, by| {
        let request = UserRequest { login: login("eve"), roles: Roles::none(), grants: Vec::new(), home: HomeOption::Create, quota: None };
        w.env.tokens.create_user(&by.principal, &request).map(drop)
    }, refused "this needs the role admin";
    "a helpdesk role changes the policy": |w| w.help.clone() => |w, by|
        w.env.tokens.set_policy(&by.principal, "allow-never", "true").map(drop), refused "this needs the role policy.manage";
    "a helpdesk role reads the audit trail": |w| w.help.clone() => |w, by|
        w.env.tokens.latest_event_id(&by.principal).map(drop), refused "this needs the role audit.read";
    "a user lists another's tokens": |w| w.alice.clone() => |w, by| {
        let query = TokenQuery { owner: Some(login("bob")), ..TokenQuery::default() };
        w.env.tokens.list(&by.principal, &query, 10).map(drop)
    }, refused "this needs the role security.authentication_lookup";
    "a user looks at another's token": |w| w.alice.clone() => |w, by|
        w.env.tokens.find(&by.principal, w.bob.id).map(drop), refused "there is no token";
    "a user looks at another": |w| w.alice.clone() => |w, by|
        w.env.tokens.grants(&by.principal, &login("bob")).map(drop), refused "this needs the role users.manage";
    "a scoped token looks at what its owner reaches": scoped_token => |w, by|
        w.env.tokens.grants(&by.principal, &login("alice")).map(drop), refused "this needs the role users.manage";
};

fn assert_all_denied(attempts: &[EscalationAttempt]) {
    for EscalationAttempt { description, attacker, attempt, expected_error } in attempts {
        let env = EscalationEnv::new();
        let state = || {
            let of = |token: TokenRecord| (token.id, token.version, token.revoked_at);
            let tokens = env.env.all_tokens().into_iter().map(of).collect::<Vec<_>>();
            let users = env.env.store.users(None, 100).expect("users");
            (tokens, users, env.env.store.policy().expect("policy"))
        };
        let by = attacker(&env);
        let before = state();
        let error = attempt(&env, &by).err().unwrap_or_else(|| panic!("{description}: it was done"));
        assert!(error.to_string().starts_with(expected_error), "{description}: {error}");
        assert_eq!(state(), before, "{description}: a refusal changes nothing");
    }
}

#[test]
fn token_rotation_cannot_escalate_privileges() {
    assert_all_denied(ROTATION_ATTEMPTS);
}

#[test]
fn token_creation_cannot_escalate_privileges() {
    assert_all_denied(ISSUE_ATTEMPTS);
}

#[test]
fn update_never_widens_token() {
    assert_all_denied(NARROW_ATTEMPTS);
}

#[test]
fn actions_require_their_role() {
    assert_all_denied(ADMINISTRATION_ATTEMPTS);
}

#[test]
fn own_tokens_need_no_role() {
    let EscalationEnv { env, alice, bob, .. } = EscalationEnv::new();
    let other = env.issue_bearer(ADMIN, "alice", |_| ());
    let narrow = env.issue_bearer(ADMIN, "alice", |request| request.limits = protocol_limits(&[Protocol::Webdav]));
    let child = env.issue_bearer(&narrow.principal, "alice", |_| ());
    let grandchild = env.issue_bearer(&child.principal, "alice", |_| ());
    let visible_tokens = |by: &TestBearer| {
        let page = env.tokens.list(&by.principal, &TokenQuery::default(), 100).expect("a page");
        let mut seen: Vec<_> = page.items.iter().map(|token| token.id).collect();
        assert!(seen.iter().all(|id| env.tokens.find(&by.principal, *id).is_ok()));
        seen.sort();
        seen
    };
    let sorted = |mut ids: Vec<TokenId>| {
        ids.sort();
        ids
    };
    assert_eq!(visible_tokens(&alice), sorted(vec![alice.id, other.id, narrow.id, child.id, grandchild.id]));
    assert_eq!(visible_tokens(&narrow), sorted(vec![narrow.id, child.id, grandchild.id]));
    assert_eq!(visible_tokens(&grandchild), [grandchild.id]);
    assert_eq!(visible_tokens(&bob), [bob.id]);

    env.narrow(&narrow, grandchild.id, NarrowRequest { limits: file_size_limit(5), ..NarrowRequest::default() })
        .expect("narrowed");
    env.tokens.rotate(&narrow.principal, child.id, &with_grace(None)).expect("rotated");
    env.tokens.rotate(&alice.principal, other.id, &with_grace(None)).expect("rotated");
    env.tokens.rotate(&alice.principal, alice.id, &with_grace(Some(lifetime("1h")))).expect("its own");
    env.tokens.revoke(&narrow.principal, &[grandchild.id]).expect("revoked");
    env.tokens.revoke(&narrow.principal, &[grandchild.id]).expect("it may be asked for again");
    assert_eq!(env.tokens.revoke_all(&alice.principal, &login("alice")).expect("revoked"), 4);
    assert!(matches!(env.tokens.find(&alice.principal, alice.id), Err(Error::SessionEnded)));
}

#[test]
fn roles_allow_acting_on_other_users() {
    let EscalationEnv { env, bob, help, root, .. } = EscalationEnv::new();
    let issued = env.issue_with(&help.principal, "bob", |_| ()).expect("created");
    assert_eq!(issued.record.parent, None, "made for somebody under a role: no parent");
    env.tokens.rotate(&help.principal, bob.id, &with_grace(None)).expect("rotated");
    env.tokens.revoke(&help.principal, &[bob.id]).expect("revoked");
    assert_eq!(
        env.tokens.list(&help.principal, &TokenQuery::default(), 100).expect("a page").items.len(),
        env.count_tokens()
    );
    env.tokens.grant(ADMIN, &self::login("help"), &"/bob:rw".parse().expect("grant")).expect("granted");
    let (login, grants) = (login("eve"), vec!["/bob:r".parse().expect("grant")]);
    let request = UserRequest {
        login: login.clone(),
        roles: role_set(&[Role::RevokeTokens]),
        grants,
        home: HomeOption::Create,
        quota: None,
    };
    let created = env.tokens.create_user(&help.principal, &request).expect("made");
    assert!(created.home == Some(tree_path("/eve")) && !created.home_existed, "a home of its own");
    env.tokens.grant(&help.principal, &login, &"/bob:rw".parse().expect("grant")).expect("what it has itself");
    env.tokens.grant(&root.principal, &login, &"/alice:r".parse().expect("grant")).expect("an administrator gives all");
    env.tokens.set_roles(&help.principal, &login, &Roles::none()).expect("changed");
    env.tokens.disable_user(&help.principal, &login).expect("disabled");
    env.tokens.delete_user(&help.principal, &login).expect("deleted");
    env.tokens.rotate(&root.principal, help.id, &with_grace(None)).expect("admin includes every role");
    env.tokens.set_policy(&root.principal, "allow-never", "true").expect("set");
}

#[test]
fn token_with_roles_expires_no_later_than_its_creator() {
    let w = EscalationEnv::new();
    second_helpdesk_token(&w);
    let (by, env) = (short_lived_helpdesk_token(&w), &w.env);
    let end = env.tokens.find(ADMIN, by.id).expect("there").expiry().hard_limit();
    let long = |request: &mut TokenRequest| request.lifetime = Some(RequestedLifetime::For(lifetime("30d")));
    let refused = env.issue_with(&by.principal, "peer", |request| {
        long(request);
        request.roles = role_set(&[Role::RevokeTokens]);
    });
    let Err(Error::OutlivesParent { longest, until, .. }) = refused else {
        panic!("not shortened in silence: {refused:?}")
    };
    assert_eq!(
        (longest.map(|longest| longest.as_secs()), until),
        (Some(end.saturating_duration_since(env.clock.now()).as_secs()), end)
    );
    let issued = env.issue_with(&by.principal, "peer", |request| request.roles = role_set(&[Role::RevokeTokens]));
    let record = issued.expect("made").record;
    assert_eq!((record.expiry().hard_limit(), record.parent), (end, None));
    let plain = env.issue_with(&by.principal, "bob", long).expect("made").record;
    assert_eq!(
        plain.expiry().hard_limit(),
        env.clock.now().saturating_add(30 * ONE_DAY),
        "one without roles is what the role hands out"
    );
    env.tokens.rotate(&by.principal, w.bob.id, &with_grace(None)).expect("nor is a role got by rotating one without");
    env.tokens.rotate(&by.principal, record.id, &with_grace(None)).expect("nor one that dies no later");
}

#[test]
fn roles_are_intersected_with_owner_and_ancestors() {
    let EscalationEnv { env, help, .. } = EscalationEnv::new();
    let child = env.issue_bearer(&help.principal, "help", |request| {
        request.roles = role_set(&[Role::RevokeTokens, Role::ManageUsers])
    });
    let session = env.session_of(&child);
    assert_eq!(session.roles(), Ok(role_set(&[Role::RevokeTokens, Role::ManageUsers])));
    env.tokens.set_roles(ADMIN, &login("help"), &role_set(&[Role::RevokeTokens, Role::ReadAudit])).expect("changed");
    assert_eq!(session.roles(), Ok(role_set(&[Role::RevokeTokens])));
    env.tokens.set_roles(ADMIN, &login("help"), &role_set(&[Role::Admin])).expect("changed");
    assert_eq!(session.roles(), Ok(role_set(&[Role::RevokeTokens, Role::ManageUsers])), "admin includes them");
    env.narrow(
        &help,
        help.id,
        NarrowRequest { roles: Some(role_set(&[Role::ManageUsers])), ..NarrowRequest::default() },
    )
    .expect("ok");
    assert_eq!(session.roles(), Ok(role_set(&[Role::ManageUsers])));
}

#[test]
fn update_with_stale_version_is_refused() {
    let EscalationEnv { env, alice, .. } = EscalationEnv::new();
    let named = |name: &str| NarrowRequest { name: Some(name.parse().expect("label")), ..NarrowRequest::default() };
    let version = env.tokens.find(&alice.principal, alice.id).expect("there").version;
    let first = env.tokens.narrow(&alice.principal, alice.id, &named("one"), Some(version)).expect("changed");
    assert!(first.version != version && first.name == "one");
    let stale = env.tokens.narrow(&alice.principal, alice.id, &named("two"), Some(version));
    assert!(matches!(stale, Err(Error::VersionConflict(_))), "{stale:?}");
    let forced = env.tokens.narrow(&alice.principal, alice.id, &named("three"), None).expect("changed");
    assert_eq!((forced.name.as_str(), forced.scopes.is_none()), ("three", true));
}
