//! Nobody mints, narrows or rotates his way up; and what is one's own may be done without a role.

use super::*;
use crate::domain::{ByteSize, Protocol, Role};

/// Who comes in with a token.
#[derive(Clone)]
struct Bearer {
    id: TokenId,
    who: Authority,
}

/// Alice and bob with their homes; `help`, who has every role over tokens and users but no `admin`;
/// `root`, who has `admin`; and a token of each without scopes or limits.
struct World {
    site: Site,
    alice: Bearer,
    bob: Bearer,
    help: Bearer,
    root: Bearer,
}

const HELP: [Role; 4] = [Role::GenerateTokens, Role::AuthenticationLookup, Role::RevokeTokens, Role::ManageUsers];

impl World {
    fn new() -> Self {
        let site = site();
        site.user("bob", &["/bob:rw"]);
        for (name, roles) in [("help", &HELP[..]), ("root", &[Role::Admin])] {
            site.user(name, &[]);
            site.tokens.set_roles(ADMIN, &login(name), &roles.iter().copied().collect()).expect("roles");
        }
        let [alice, bob, help, root] = ["alice", "bob", "help", "root"].map(|name| {
            let roles = site.tokens.user(ADMIN, &login(name)).expect("user").roles;
            site.bearer(ADMIN, name, |request| request.roles = roles)
        });
        Self { site, alice, bob, help, root }
    }
}

impl Site {
    /// Makes a token and comes in with it.
    fn bearer(&self, by: &Authority, owner: &str, change: impl FnOnce(&mut TokenRequest)) -> Bearer {
        let issued = self.made(by, owner, change).expect("a token");
        Bearer { id: issued.text.id(), who: Authority::Session(self.come_in(&issued.text)) }
    }

    fn made(&self, by: &Authority, owner: &str, change: impl FnOnce(&mut TokenRequest)) -> Result<Issued> {
        let mut request = TokenRequest::new(login(owner));
        change(&mut request);
        self.tokens.issue(by, request)
    }

    fn narrow(&self, by: &Bearer, id: TokenId, change: Narrowing) -> Result<()> {
        self.tokens.narrow(&by.who, id, &change, None).map(drop)
    }

    fn session(&self, of: &Bearer) -> crate::auth::Session {
        match &of.who {
            Authority::Session(session) => session.clone(),
            Authority::Administrator | Authority::SystemUser(_) => unreachable!("a bearer has a session"),
        }
    }
}

/// A token of alice's that reads below her home alone.
fn scoped(w: &World) -> Bearer {
    w.site.bearer(ADMIN, "alice", |request| request.scopes = scopes(&["path:/alice/below:r"]))
}

/// A token of alice's that is good for two doors alone.
fn limited(w: &World) -> Bearer {
    w.site.bearer(ADMIN, "alice", |request| request.limits = doors(&[Protocol::Api, Protocol::Webdav]))
}

/// A token of alice's that dies in an hour.
fn short(w: &World) -> Bearer {
    w.site.bearer(ADMIN, "alice", |request| request.lifetime = Asked::For(lifetime("1h")))
}

/// One that did.
fn dead(w: &World) -> Bearer {
    let short = short(w);
    w.site.clock.advance(DAY / 24);
    short
}

/// A token of `help` with its roles that is good for small files alone, for an hour.
fn narrow_help(w: &World) -> Bearer {
    w.site.bearer(ADMIN, "help", |request| {
        request.roles = roles(&HELP);
        request.limits = size(1024);
        request.lifetime = Asked::For(lifetime("1h"));
    })
}

/// A token of `help` with its roles, whole but for an hour only.
fn short_help(w: &World) -> Bearer {
    w.site.bearer(ADMIN, "help", |request| {
        request.roles = roles(&HELP);
        request.lifetime = Asked::For(lifetime("1h"));
    })
}

/// A token of `help` with its roles that reads one folder.
fn scoped_help(w: &World) -> Bearer {
    w.site.tokens.grant(ADMIN, &login("help"), &"/bob:rw".parse().expect("grant")).expect("granted");
    w.site.bearer(ADMIN, "help", |request| {
        request.roles = roles(&HELP);
        request.scopes = scopes(&["path:/bob:r"]);
    })
}

/// Another holder of the roles of `help`, with a token that has them.
fn peer(w: &World) -> Bearer {
    w.site.user("peer", &[]);
    w.site.tokens.set_roles(ADMIN, &login("peer"), &roles(&HELP)).expect("roles");
    w.site.bearer(ADMIN, "peer", |request| request.roles = roles(&HELP))
}

/// A token of `help` without roles.
fn plain(w: &World) -> Bearer {
    w.site.bearer(ADMIN, "help", |_| ())
}

fn scopes(texts: &[&str]) -> Option<Vec<ScopeTarget>> {
    Some(texts.iter().map(|text| text.parse().expect("scope")).collect())
}

fn doors(doors: &[Protocol]) -> TokenLimits {
    TokenLimits { protocols: doors.to_vec(), ..TokenLimits::default() }
}

fn size(bytes: u64) -> TokenLimits {
    TokenLimits { max_file_size: Some(ByteSize::from_bytes(bytes)), ..TokenLimits::default() }
}

fn roles(roles: &[Role]) -> Roles {
    roles.iter().copied().collect()
}

/// What is tried: who tries it, how, and the start of what it is told.
struct Climb {
    what: &'static str,
    who: fn(&World) -> Bearer,
    tries: fn(&World, &Bearer) -> Result<()>,
    told: &'static str,
}

macro_rules! climbs {
    ($($what:literal: $who:expr => |$w:ident, $by:ident| $tries:expr, told $told:literal;)*) => {
        &[$(Climb { what: $what, who: $who, tries: |$w, $by| $tries, told: $told }),*]
    };
}

const ROTATIONS: &[Climb] = climbs! {
    "a scoped token rotates a wide one of its owner": scoped => |w, by|
        w.site.tokens.rotate(&by.who, w.alice.id, None).map(drop), told "there is no token";
    "a limited token rotates a wide one of its owner": limited => |w, by|
        w.site.tokens.rotate(&by.who, w.alice.id, None).map(drop), told "there is no token";
    "a child rotates its parent": |w| w.site.bearer(&w.alice.who, "alice", |_| ()) => |w, by|
        w.site.tokens.rotate(&by.who, w.alice.id, None).map(drop), told "there is no token";
    "a user rotates another's token": |w| w.alice.clone() => |w, by|
        w.site.tokens.rotate(&by.who, w.bob.id, None).map(drop), told "there is no token";
    "a limited token with the role rotates a wide one of its owner": |w| w.site.bearer(ADMIN, "help", |request| {
        request.roles = roles(&HELP);
        request.limits = doors(&[Protocol::Api, Protocol::Webdav]);
    }) => |w, by| w.site.tokens.rotate(&by.who, w.help.id, None).map(drop),
        told "a token is rotated only with one that is at least as wide: its limit on protocols";
    "a scoped token with the role rotates a wide one of its owner": |w| {
        w.site.tokens.grant(ADMIN, &login("help"), &"/bob:rw".parse().expect("grant")).expect("granted");
        w.site.bearer(ADMIN, "help", |request| {
            request.roles = roles(&HELP);
            request.scopes = scopes(&["path:/bob:r"]);
        })
    } => |w, by| w.site.tokens.rotate(&by.who, w.help.id, None).map(drop),
        told "a token is rotated only with one that is at least as wide: it reaches /bob";
    "a token without roles rotates one with roles of its owner": plain => |w, by|
        w.site.tokens.rotate(&by.who, w.help.id, None).map(drop),
        told "a token is rotated only with one that is at least as wide: it has the role";
    "a helpdesk role rotates an administrator's token": |w| w.help.clone() => |w, by|
        w.site.tokens.rotate(&by.who, w.root.id, None).map(drop), told "this needs the role admin";
    "a rotation goes beyond a hard limit": dead => |w, by|
        w.site.tokens.rotate(&w.alice.who, by.id, None).map(drop), told "the token";
    "a limited token with the role rotates one with roles of another user": |w| {
        peer(w);
        narrow_help(w)
    } => |w, by| {
        let peers = w.site.all().into_iter().find(|token| token.login == login("peer")).expect("a token");
        w.site.tokens.rotate(&by.who, peers.id, None).map(drop)
    }, told "this needs a token without scopes, limits or parent";
    "a short token with the role rotates one of its owner that lives longer": |w| {
        w.site.bearer(ADMIN, "help", |request| request.limits = size(1024));
        narrow_help(w)
    } => |w, by| {
        let long = w.site.all().into_iter().find(|token| token.limits == size(1024) && token.id != by.id);
        w.site.tokens.rotate(&by.who, long.expect("a token").id, None).map(drop)
    }, told "a token is rotated only with one that is at least as wide: it lives longer";
    "a scoped token with the role rotates a wide one of another user": scoped_help => |w, by|
        w.site.tokens.rotate(&by.who, w.bob.id, None).map(drop),
        told "this needs a token without scopes, limits or parent";
    "a short token with the role rotates one with roles of another user that lives longer": |w| {
        peer(w);
        short_help(w)
    } => |w, by| {
        let peers = w.site.all().into_iter().find(|token| token.login == login("peer")).expect("a token");
        w.site.tokens.rotate(&by.who, peers.id, None).map(drop)
    }, told "a token is rotated only with one that is at least as wide: it lives longer";
    "a short token rotates one with roles of its owner that lives longer": short_help => |w, by|
        w.site.tokens.rotate(&by.who, w.help.id, None).map(drop),
        told "a token is rotated only with one that is at least as wide: it lives longer";
    "a token that died rotates itself": dead => |w, by|
        w.site.tokens.rotate(&by.who, by.id, None).map(drop), told "the session has ended";
};

const BIRTHS: &[Climb] = climbs! {
    "a user mints for another": |w| w.alice.clone() => |w, by|
        w.site.made(&by.who, "bob", |_| ()).map(drop), told "this needs the role security.generate_tokens";
    "a user mints for one who is not there": |w| w.alice.clone() => |w, by|
        w.site.made(&by.who, "nobody", |_| ()).map(drop), told "this needs the role security.generate_tokens";
    "a helpdesk role mints for an administrator": |w| w.help.clone() => |w, by|
        w.site.made(&by.who, "root", |_| ()).map(drop), told "this needs the role admin";
    "a token without roles mints one with a role of its owner": plain => |w, by|
        w.site.made(&by.who, "help", |request| request.roles = roles(&[Role::RevokeTokens])).map(drop),
        told "this needs the role security.revoke_tokens";
    "a child without roles mints one with those of its parent": |w| w.site.bearer(&w.help.who, "help", |_| ())
        => |w, by| w.site.made(&by.who, "help", |request| request.roles = roles(&[Role::ManageUsers])).map(drop),
        told "this needs the role users.manage";
    "a token mints one with a role that its owner lacks": |w| w.help.clone() => |w, by|
        w.site.made(&by.who, "help", |request| request.roles = roles(&[Role::ReadAudit])).map(drop),
        told "the user help does not hold the role audit.read";
    "a helpdesk role mints a role for one who lacks it": |w| w.help.clone() => |w, by|
        w.site.made(&by.who, "bob", |request| request.roles = roles(&[Role::RevokeTokens])).map(drop),
        told "the user bob does not hold the role security.revoke_tokens";
    "a child may do more than its parent": scoped => |w, by|
        w.site.made(&by.who, "alice", |request| request.scopes = scopes(&["path:/alice/below:rw"])).map(drop),
        told "the scope path:/alice/below:rw is outside";
    "a child reaches further than its parent": scoped => |w, by|
        w.site.made(&by.who, "alice", |request| request.scopes = scopes(&["path:/alice:r"])).map(drop),
        told "the scope path:/alice:r is outside";
    "a child names a node that its parent does not reach": scoped => |w, by| {
        let hidden = format!("node:{}:r", w.site.node("/alice"));
        w.site.made(&by.who, "alice", |request| request.scopes = scopes(&[&hidden])).map(drop)
    }, told "the node";
    "a child is allowed what its parent is not": limited => |w, by|
        w.site.made(&by.who, "alice", |request| request.limits = doors(&[Protocol::Sftp])).map(drop),
        told "a token can't be wider than the one it is made with: its limit on protocols";
    "a grandchild is allowed what its grandparent is not": |w| {
        let parent = w.site.bearer(ADMIN, "alice", |request| request.limits = size(10));
        w.site.bearer(&parent.who, "alice", |_| ())
    } => |w, by| w.site.made(&by.who, "alice", |request| request.limits = size(11)).map(drop),
        told "a token can't be wider than the one it is made with: its limit on the file size";
    "a limited token with the role mints one with roles for another user": |w| {
        peer(w);
        narrow_help(w)
    } => |w, by| w.site.made(&by.who, "peer", |request| request.roles = roles(&HELP)).map(drop),
        told "this needs a token without scopes, limits or parent";
    "a limited token with the role mints a wide one for another user": narrow_help => |w, by|
        w.site.made(&by.who, "bob", |_| ()).map(drop), told "this needs a token without scopes, limits or parent";
    "a scoped token with the role mints for another user": scoped_help => |w, by|
        w.site.made(&by.who, "bob", |_| ()).map(drop), told "this needs a token without scopes, limits or parent";
    "a child with the role mints for another user": |w|
        w.site.bearer(&w.help.who, "help", |request| request.roles = roles(&HELP)) => |w, by|
        w.site.made(&by.who, "bob", |_| ()).map(drop), told "this needs a token without scopes, limits or parent";
    "a limited token of an administrator mints for another user": |w| w.site.bearer(ADMIN, "root", |request| {
        request.roles = roles(&[Role::Admin]);
        request.limits = size(1024);
    }) => |w, by| w.site.made(&by.who, "help", |request| request.roles = roles(&HELP)).map(drop),
        told "this needs a token without scopes, limits or parent";
    "a revoked token mints": |w| {
        w.site.tokens.revoke(ADMIN, &[w.alice.id]).expect("revoked");
        w.alice.clone()
    } => |w, by| w.site.made(&by.who, "alice", |_| ()).map(drop), told "the session has ended";
};

const CHANGES: &[Climb] = climbs! {
    "a helpdesk role narrows an administrator's token": |w| w.help.clone() => |w, by|
        w.site.narrow(by, w.root.id, Narrowing::default()), told "this needs the role admin";
    "a narrowing widens the scopes": scoped => |w, by|
        w.site.narrow(by, by.id, Narrowing { scopes: scopes(&["path:/alice:r"]), ..Narrowing::default() }),
        told "the scope path:/alice:r is outside";
    "a narrowing widens the permission": scoped => |w, by|
        w.site.narrow(by, by.id, Narrowing { scopes: scopes(&["path:/alice/below:rw"]), ..Narrowing::default() }),
        told "the scope path:/alice/below:rw is outside";
    "a narrowing takes the scopes off": scoped => |w, by|
        w.site.narrow(by, by.id, Narrowing { scopes: Some(Vec::new()), ..Narrowing::default() }),
        told "an empty list of scopes";
    "a narrowing widens a limit": limited => |w, by|
        w.site.narrow(by, by.id, Narrowing { limits: doors(&[Protocol::Sftp]), ..Narrowing::default() }),
        told "a token can be made narrower only: its limit on protocols";
    "a narrowing adds a role": plain => |w, by| {
        let change = Narrowing { roles: Some(roles(&[Role::RevokeTokens])), ..Narrowing::default() };
        w.site.narrow(&w.help, by.id, change)
    }, told "a token can be made narrower only: it has the role security.revoke_tokens";
    "a narrowing makes a life longer": short => |w, by| {
        let at = w.site.clock.now().saturating_add(2 * DAY);
        w.site.narrow(&w.alice, by.id, Narrowing { expires: Some(at), ..Narrowing::default() })
    }, told "the token";
    "a limited token with the role changes another user's": narrow_help => |w, by|
        w.site.narrow(by, w.bob.id, Narrowing::default()), told "this needs a token without scopes, limits or parent";
    "a parent gives its child a node that is hidden from itself": |w| {
        std::fs::write(w.site.root.join("alice/hidden"), "x").expect("file");
        let parent = scoped(w);
        w.site.bearer(&parent.who, "alice", |_| ());
        parent
    } => |w, by| {
        let child = w.site.all().into_iter().find(|token| token.parent == Some(by.id)).expect("a child");
        let told = |path: &str| {
            let change = Narrowing { scopes: scopes(&[path]), ..Narrowing::default() };
            w.site.narrow(by, child.id, change).expect_err("outside").to_string().replace("missing", "hidden")
        };
        assert_eq!(told("path:/alice/hidden:r"), told("path:/alice/missing:r"));
        let hidden = format!("node:{}:r", w.site.node("/alice/hidden"));
        let change = Narrowing { scopes: scopes(&[&hidden]), ..Narrowing::default() };
        w.site.narrow(by, child.id, change)
    }, told "the node";
    "a child narrows its parent": |w| w.site.bearer(&w.alice.who, "alice", |_| ()) => |w, by|
        w.site.narrow(by, w.alice.id, Narrowing::default()), told "there is no token";
};

const OFFICES: &[Climb] = climbs! {
    "a helpdesk role revokes an administrator's token among others": |w| w.help.clone() => |w, by|
        w.site.tokens.revoke(&by.who, &[w.bob.id, w.root.id]), told "this needs the role admin";
    "a helpdesk role revokes all of an administrator's tokens": |w| w.help.clone() => |w, by|
        w.site.tokens.revoke_all(&by.who, &login("root")).map(drop), told "this needs the role admin";
    "a scoped token revokes all of its owner's": scoped => |w, by|
        w.site.tokens.revoke_all(&by.who, &login("alice")).map(drop), told "this needs the role security.revoke_tokens";
    "a role whose owner lost it revokes": |w| {
        let left = roles(&[Role::AuthenticationLookup]);
        w.site.tokens.set_roles(ADMIN, &login("help"), &left).expect("roles");
        w.help.clone()
    } => |w, by| w.site.tokens.revoke(&by.who, &[w.bob.id]), told "this needs the role security.revoke_tokens";
    "a helpdesk role makes an administrator": |w| w.help.clone() => |w, by| {
        let (login, roles) = (login("eve"), roles(&[Role::Admin]));
        let request = UserRequest { login, roles, grants: Vec::new(), home: Home::No };
        w.site.tokens.create_user(&by.who, &request).map(drop)
    }, told "this needs the role admin";
    "a helpdesk role makes itself an administrator": |w| w.help.clone() => |w, by|
        w.site.tokens.set_roles(&by.who, &login("help"), &roles(&[Role::Admin])), told "this needs the role admin";
    "a helpdesk role takes an administrator's role away": |w| w.help.clone() => |w, by|
        w.site.tokens.set_roles(&by.who, &login("root"), &Roles::none()), told "this needs the role admin";
    "a helpdesk role disables an administrator": |w| w.help.clone() => |w, by|
        w.site.tokens.disable_user(&by.who, &login("root")), told "this needs the role admin";
    "a helpdesk role deletes an administrator": |w| w.help.clone() => |w, by|
        w.site.tokens.delete_user(&by.who, &login("root")), told "this needs the role admin";
    "a helpdesk role changes what an administrator reaches": |w| w.help.clone() => |w, by|
        w.site.tokens.grant(&by.who, &login("root"), &"/bob:rw".parse().expect("grant")).map(drop),
        told "this needs the role admin";
    "a token without roles manages its owner": plain => |w, by|
        w.site.tokens.grant(&by.who, &login("help"), &"/bob:rw".parse().expect("grant")).map(drop),
        told "this needs the role users.manage";
    "a manager grants itself all files": |w| w.help.clone() => |w, by|
        w.site.tokens.grant(&by.who, &login("help"), &"/:rw".parse().expect("grant")).map(drop),
        told "this needs the role admin";
    "a manager grants what is hidden from it": |w| w.help.clone() => |w, by| {
        let told = |path: &str| {
            let grant = format!("{path}:r").parse().expect("grant");
            w.site.tokens.grant(&by.who, &login("bob"), &grant).expect_err("hidden").to_string().replace(path, "/it")
        };
        assert_eq!(told("/alice/below"), told("/alice/missing"));
        w.site.tokens.grant(&by.who, &login("help"), &"/alice:r".parse().expect("grant")).map(drop)
    }, told "nothing is at /alice";
    "a scoped manager grants what its owner reaches": scoped_help => |w, by|
        w.site.tokens.grant(&by.who, &login("alice"), &"/bob:rw".parse().expect("grant")).map(drop),
        told "this needs the role admin";
    "a manager makes a user that reaches more than itself": |w| w.help.clone() => |w, by| {
        let grants = vec!["/alice:r".parse().expect("grant")];
        let request = UserRequest { login: login("eve"), roles: Roles::none(), grants, home: Home::No };
        w.site.tokens.create_user(&by.who, &request).map(drop)
    }, told "nothing is at /alice";
    "a manager makes a user whose home was somebody's": |w| {
        std::fs::create_dir(w.site.root.join("eve")).expect("folder");
        w.help.clone()
    } => |w, by| {
        let request = UserRequest { login: login("eve"), roles: Roles::none(), grants: Vec::new(), home: Home::Own };
        w.site.tokens.create_user(&by.who, &request).map(drop)
    }, told "this needs the role admin";
    "a helpdesk role changes the policy": |w| w.help.clone() => |w, by|
        w.site.tokens.set_policy(&by.who, "allow-never", "true").map(drop), told "this needs the role policy.manage";
    "a helpdesk role reads the audit trail": |w| w.help.clone() => |w, by|
        w.site.tokens.latest_event(&by.who).map(drop), told "this needs the role audit.read";
    "a user lists another's tokens": |w| w.alice.clone() => |w, by| {
        let query = TokenQuery { owner: Some(login("bob")), ..TokenQuery::default() };
        w.site.tokens.page(&by.who, &query, 10).map(drop)
    }, told "this needs the role security.authentication_lookup";
    "a user looks at another's token": |w| w.alice.clone() => |w, by|
        w.site.tokens.find(&by.who, w.bob.id).map(drop), told "there is no token";
    "a user looks at another": |w| w.alice.clone() => |w, by|
        w.site.tokens.grants(&by.who, &login("bob")).map(drop), told "this needs the role users.manage";
    "a scoped token looks at what its owner reaches": scoped => |w, by|
        w.site.tokens.grants(&by.who, &login("alice")).map(drop), told "this needs the role users.manage";
};

fn try_all(climbs: &[Climb]) {
    for Climb { what, who, tries, told } in climbs {
        let world = World::new();
        let state = || {
            let of = |token: TokenRecord| (token.id, token.version, token.revoked_at);
            let tokens = world.site.all().into_iter().map(of).collect::<Vec<_>>();
            let users = world.site.store.users(None, 100).expect("users");
            (tokens, users, world.site.store.policy().expect("policy"))
        };
        let by = who(&world);
        let before = state();
        let error = tries(&world, &by).err().unwrap_or_else(|| panic!("{what}: it was done"));
        assert!(error.to_string().starts_with(told), "{what}: {error}");
        assert_eq!(state(), before, "{what}: a refusal changes nothing");
    }
}

#[test]
fn nobody_rotates_his_way_up() {
    try_all(ROTATIONS);
}

#[test]
fn nobody_mints_his_way_up() {
    try_all(BIRTHS);
}

#[test]
fn no_change_makes_a_token_wider() {
    try_all(CHANGES);
}

#[test]
fn nobody_does_what_needs_a_role_that_he_lacks() {
    try_all(OFFICES);
}

#[test]
fn what_is_ones_own_needs_no_role() {
    let World { site, alice, bob, .. } = World::new();
    let other = site.bearer(ADMIN, "alice", |_| ());
    let narrow = site.bearer(ADMIN, "alice", |request| request.limits = doors(&[Protocol::Webdav]));
    let child = site.bearer(&narrow.who, "alice", |_| ());
    let grandchild = site.bearer(&child.who, "alice", |_| ());
    let sees = |by: &Bearer| {
        let page = site.tokens.page(&by.who, &TokenQuery::default(), 100).expect("a page");
        let mut seen: Vec<_> = page.items.iter().map(|token| token.id).collect();
        assert!(seen.iter().all(|id| site.tokens.find(&by.who, *id).is_ok()));
        seen.sort();
        seen
    };
    let sorted = |mut ids: Vec<TokenId>| {
        ids.sort();
        ids
    };
    assert_eq!(sees(&alice), sorted(vec![alice.id, other.id, narrow.id, child.id, grandchild.id]));
    assert_eq!(sees(&narrow), sorted(vec![narrow.id, child.id, grandchild.id]));
    assert_eq!(sees(&grandchild), [grandchild.id]);
    assert_eq!(sees(&bob), [bob.id]);

    site.narrow(&narrow, grandchild.id, Narrowing { limits: size(5), ..Narrowing::default() }).expect("narrowed");
    site.tokens.rotate(&narrow.who, child.id, None).expect("rotated");
    site.tokens.rotate(&alice.who, other.id, None).expect("rotated");
    site.tokens.rotate(&alice.who, alice.id, Some(lifetime("1h"))).expect("its own");
    site.tokens.revoke(&narrow.who, &[grandchild.id]).expect("revoked");
    site.tokens.revoke(&narrow.who, &[grandchild.id]).expect("it may be asked for again");
    assert_eq!(site.tokens.revoke_all(&alice.who, &login("alice")).expect("revoked"), 4);
    assert!(matches!(site.tokens.find(&alice.who, alice.id), Err(Error::Ended)));
}

#[test]
fn a_role_reaches_beyond_ones_own() {
    let World { site, bob, help, root, .. } = World::new();
    let issued = site.made(&help.who, "bob", |_| ()).expect("minted");
    assert_eq!(issued.record.parent, None, "made for somebody under a role: no parent");
    site.tokens.rotate(&help.who, bob.id, None).expect("rotated");
    site.tokens.revoke(&help.who, &[bob.id]).expect("revoked");
    assert_eq!(site.tokens.page(&help.who, &TokenQuery::default(), 100).expect("a page").items.len(), site.count());
    site.tokens.grant(ADMIN, &self::login("help"), &"/bob:rw".parse().expect("grant")).expect("granted");
    let (login, grants) = (login("eve"), vec!["/bob:r".parse().expect("grant")]);
    let request = UserRequest { login: login.clone(), roles: roles(&[Role::RevokeTokens]), grants, home: Home::Own };
    let made = site.tokens.create_user(&help.who, &request).expect("made");
    assert!(made.home == Some(at("/eve")) && !made.home_was_there, "a home of its own");
    site.tokens.grant(&help.who, &login, &"/bob:rw".parse().expect("grant")).expect("what it has itself");
    site.tokens.grant(&root.who, &login, &"/alice:r".parse().expect("grant")).expect("an administrator gives all");
    site.tokens.set_roles(&help.who, &login, &Roles::none()).expect("changed");
    site.tokens.disable_user(&help.who, &login).expect("disabled");
    site.tokens.delete_user(&help.who, &login).expect("deleted");
    site.tokens.rotate(&root.who, help.id, None).expect("admin includes every role");
    site.tokens.set_policy(&root.who, "allow-never", "true").expect("set");
}

#[test]
fn a_role_is_given_for_no_longer_than_its_giver_has_it() {
    let w = World::new();
    peer(&w);
    let (by, site) = (short_help(&w), &w.site);
    let end = site.tokens.find(ADMIN, by.id).expect("there").expiry.hard_limit();
    let long = |request: &mut TokenRequest| request.lifetime = Asked::For(lifetime("30d"));
    let refused = site.made(&by.who, "peer", |request| {
        long(request);
        request.roles = roles(&[Role::RevokeTokens]);
    });
    let Err(Error::Outlives { longest, until, .. }) = refused else { panic!("not shortened in silence: {refused:?}") };
    assert_eq!(
        (longest.map(|longest| longest.as_secs()), until),
        (Some(end.saturating_duration_since(site.clock.now()).as_secs()), end)
    );
    let made = site.made(&by.who, "peer", |request| request.roles = roles(&[Role::RevokeTokens]));
    let record = made.expect("made").record;
    assert_eq!((record.expiry.hard_limit(), record.parent), (end, None));
    let plain = site.made(&by.who, "bob", long).expect("made").record;
    assert_eq!(
        plain.expiry.hard_limit(),
        site.clock.now().saturating_add(30 * DAY),
        "one without roles is what the role hands out"
    );
    site.tokens.rotate(&by.who, w.bob.id, None).expect("nor is a role got by rotating one without");
    site.tokens.rotate(&by.who, record.id, None).expect("nor one that dies no later");
}

#[test]
fn a_child_lives_no_longer_and_reaches_no_further_than_its_parent_whatever_becomes_of_that() {
    let World { site, alice, .. } = World::new();
    let parent = site.bearer(&alice.who, "alice", |request| request.lifetime = Asked::For(lifetime("10d")));
    let asking = |text| site.made(&parent.who, "alice", |request| request.lifetime = Asked::For(lifetime(text)));
    assert!(matches!(asking("30d"), Err(Error::Outlives { .. })), "a lifetime is not shortened in silence");
    assert!(asking("10d").is_ok());
    let child = site.bearer(&parent.who, "alice", |_| {});
    let record = site.tokens.find(ADMIN, child.id).expect("there");
    assert_eq!(record.parent, Some(parent.id));
    assert_eq!(record.expiry.hard_limit(), site.clock.now().saturating_add(10 * DAY), "the default is bounded");

    let session = site.session(&child);
    let below = at("/alice/below");
    assert!(session.access().expect("open").may(&below, Permission::RW));
    let change = Narrowing { scopes: scopes(&["path:/alice/below:r"]), ..Narrowing::default() };
    site.narrow(&alice, parent.id, change).expect("narrowed");
    let access = session.access().expect("open");
    assert!(
        access.may(&below, Permission::R)
            && !access.may(&below, Permission::W)
            && !access.may(&at("/alice"), Permission::R)
    );

    let at = site.clock.now().saturating_add(DAY);
    site.narrow(&alice, parent.id, Narrowing { expires: Some(at), ..Narrowing::default() }).expect("narrowed");
    session.access().expect("open still");
    assert_eq!(session.deadline(), at, "a child does not outlive a narrowed parent");
    assert_eq!(site.tokens.find(ADMIN, child.id).expect("there").deadline(), at, "and says so");
    site.narrow(&alice, parent.id, Narrowing { limits: doors(&[Protocol::Sftp]), ..Narrowing::default() }).expect("ok");
    assert!(session.access().is_err(), "an open session whose door was closed ends");
    assert_eq!(site.tokens.find(ADMIN, child.id).expect("there").state, TokenState::Live);
    site.clock.advance(DAY);
    assert_eq!(site.tokens.find(ADMIN, child.id).expect("there").state, TokenState::Expired);
}

#[test]
fn a_parents_end_ends_its_childrens_sessions() {
    let World { site, alice, .. } = World::new();
    let child = site.bearer(&alice.who, "alice", |_| ());
    let grandchild = site.bearer(&child.who, "alice", |_| ());
    let session = site.session(&grandchild);
    assert!(session.access().is_ok());
    site.tokens.revoke(&alice.who, &[child.id]).expect("revoked");
    assert!(session.access().is_err());
    assert_eq!(site.tokens.find(ADMIN, grandchild.id).expect("there").state, TokenState::Revoked);
}

#[test]
fn roles_count_while_the_owner_and_every_token_above_have_them() {
    let World { site, help, .. } = World::new();
    let child =
        site.bearer(&help.who, "help", |request| request.roles = roles(&[Role::RevokeTokens, Role::ManageUsers]));
    let session = site.session(&child);
    assert_eq!(session.roles(), Ok(roles(&[Role::RevokeTokens, Role::ManageUsers])));
    site.tokens.set_roles(ADMIN, &login("help"), &roles(&[Role::RevokeTokens, Role::ReadAudit])).expect("changed");
    assert_eq!(session.roles(), Ok(roles(&[Role::RevokeTokens])));
    site.tokens.set_roles(ADMIN, &login("help"), &roles(&[Role::Admin])).expect("changed");
    assert_eq!(session.roles(), Ok(roles(&[Role::RevokeTokens, Role::ManageUsers])), "admin includes them");
    site.narrow(&help, help.id, Narrowing { roles: Some(roles(&[Role::ManageUsers])), ..Narrowing::default() })
        .expect("ok");
    assert_eq!(session.roles(), Ok(roles(&[Role::ManageUsers])));
}

#[test]
fn a_child_counts_as_a_token_of_its_owner() {
    let World { site, alice, .. } = World::new();
    for _ in 0..4 {
        site.made(&alice.who, "alice", |_| ()).expect("minted");
    }
    let refused = site.made(&alice.who, "alice", |_| ());
    assert!(matches!(refused, Err(Error::Policy(PolicyViolation::TooManyTokens(5)))), "{refused:?}");
}

#[test]
fn a_change_is_made_to_the_version_that_was_seen() {
    let World { site, alice, .. } = World::new();
    let named = |name: &str| Narrowing { name: Some(name.parse().expect("label")), ..Narrowing::default() };
    let seen = site.tokens.find(&alice.who, alice.id).expect("there").version;
    let first = site.tokens.narrow(&alice.who, alice.id, &named("one"), Some(seen)).expect("changed");
    assert!(first.version != seen && first.name == "one");
    let stale = site.tokens.narrow(&alice.who, alice.id, &named("two"), Some(seen));
    assert!(matches!(stale, Err(Error::Changed(_))), "{stale:?}");
    let forced = site.tokens.narrow(&alice.who, alice.id, &named("three"), None).expect("changed");
    assert_eq!((forced.name.as_str(), forced.scopes.is_none()), ("three", true));
}
