//! Tests that every change of users, tokens and policy is in the audit trail, with its actor.

use super::*;
use crate::domain::{Actor, EventKind, Role};
use crate::store::{EventCursor, EventFilter, RecordedEvent};

/// An action, and the expected events: the kind, the user, and a part of the detail or path.
type AuditedAction = (fn(&TokensEnv, &Principal, TokenId), &'static [(EventKind, Option<&'static str>, &'static str)]);

fn scoped_to(text: &str) -> Option<Vec<ScopeTarget>> {
    Some(vec![text.parse().expect("scope")])
}

const AUDITED_ACTIONS: &[AuditedAction] = &[
    (
        |env, principal, _| {
            let grants = vec!["/bob:r".parse().expect("grant")];
            let roles = [Role::ReadAudit].into_iter().collect();
            let request = UserRequest { login: login("carol"), roles, grants, home: HomeOption::Create, quota: None };
            env.tokens.create_user(principal, &request).expect("made");
        },
        &[
            (EventKind::UserCreated, Some("carol"), "audit.read"),
            (EventKind::UserGranted, Some("carol"), "/bob"),
            (EventKind::UserGranted, Some("carol"), "/carol"),
        ],
    ),
    (
        |env, principal, _| env.tokens.set_roles(principal, &login("carol"), &Roles::none()).expect("changed"),
        &[(EventKind::UserRolesChanged, Some("carol"), "no roles")],
    ),
    (|env, principal, _| env.tokens.set_roles(principal, &login("carol"), &Roles::none()).expect("nothing to do"), &[]),
    (
        |env, principal, _| drop(env.tokens.grant(principal, &login("carol"), &"/alice:w".parse().expect("grant"))),
        &[(EventKind::UserGranted, Some("carol"), "/alice")],
    ),
    (|env, principal, _| drop(env.tokens.grant(principal, &login("carol"), &"/alice:w".parse().expect("grant"))), &[]),
    (
        |env, principal, _| drop(env.tokens.grant(principal, &login("carol"), &"/alice:rw".parse().expect("grant"))),
        &[(EventKind::UserGranted, Some("carol"), "rw")],
    ),
    (
        |env, principal, _| {
            env.tokens.revoke_grant(principal, &login("carol"), &"/alice".parse().expect("place")).expect("taken back");
        },
        &[(EventKind::GrantRevoked, Some("carol"), "/alice")],
    ),
    (
        |env, principal, _| {
            let request = TokenRequest { scopes: scoped_to("path:/carol:r"), ..TokenRequest::new(login("carol")) };
            env.tokens.issue(principal, request).expect("made");
        },
        &[(EventKind::TokenCreated, Some("carol"), "1 scope: carol_api_token")],
    ),
    (
        |env, principal, id| {
            let name = Some("other".parse().expect("label"));
            env.tokens
                .narrow(principal, id, &NarrowRequest { name, ..NarrowRequest::default() }, None)
                .expect("renamed");
        },
        &[(EventKind::TokenRenamed, Some("alice"), "alice_api_token -> other")],
    ),
    (
        |env, principal, id| {
            let change = NarrowRequest { scopes: scoped_to("path:/alice/below:r"), ..NarrowRequest::default() };
            env.tokens.narrow(principal, id, &change, None).expect("narrowed");
        },
        &[(EventKind::TokenNarrowed, Some("alice"), "1 scope")],
    ),
    (
        |env, principal, id| {
            let before = env.tokens.find(principal, id).expect("there");
            let change = NarrowRequest { scopes: scoped_to("path:/alice/below:r"), ..NarrowRequest::default() };
            assert_eq!(env.tokens.narrow(principal, id, &change, None).expect("nothing to do").version, before.version);
        },
        &[],
    ),
    (
        |env, principal, id| {
            drop(env.tokens.rotate(principal, id, &with_grace(Some(lifetime("1h")))).expect("rotated"))
        },
        &[(EventKind::TokenRotated, Some("alice"), "the old secret until")],
    ),
    (
        |env, principal, id| env.tokens.revoke(principal, &[id]).expect("revoked"),
        &[(EventKind::TokenRevoked, Some("alice"), "")],
    ),
    (|env, principal, id| env.tokens.revoke(principal, &[id]).expect("nothing to do"), &[]),
    (
        |env, principal, _| assert_eq!(env.tokens.revoke_all(principal, &login("carol")).expect("revoked"), 1),
        &[(EventKind::TokenRevoked, Some("carol"), "")],
    ),
    (
        |env, principal, _| env.tokens.disable_user(principal, &login("carol")).expect("disabled"),
        &[(EventKind::UserDisabled, Some("carol"), "")],
    ),
    (|env, principal, _| env.tokens.disable_user(principal, &login("carol")).expect("nothing to do"), &[]),
    (
        |env, principal, _| env.tokens.enable_user(principal, &login("carol")).expect("enabled"),
        &[(EventKind::UserEnabled, Some("carol"), "")],
    ),
    (
        |env, principal, _| env.tokens.delete_user(principal, &login("carol")).expect("deleted"),
        &[(EventKind::UserDeleted, Some("carol"), "")],
    ),
    (
        |env, principal, _| assert!(env.tokens.set_policy(principal, "allow-never", "true").expect("set").allow_never),
        &[(EventKind::PolicyChanged, None, "allow-never true")],
    ),
    (|env, principal, _| assert!(env.tokens.set_policy(principal, "allow-never", "true").is_ok()), &[]),
    (|env, principal, _| drop(env.tokens.set_policy(principal, "allow-never", "perhaps")), &[]),
];

#[test]
fn every_change_is_audited_with_actor() {
    for by_token in [false, true] {
        let env = tokens_env();
        env.create_user("root", &[]);
        env.tokens.set_roles(ADMIN, &login("root"), &[Role::Admin].into_iter().collect()).expect("roles");
        let roles: Roles = [Role::Admin].into_iter().collect();
        let issued = env.tokens.issue(ADMIN, TokenRequest { roles, ..TokenRequest::new(login("root")) });
        let root = issued.expect("a token").text.expect("a secret");
        let principal = if by_token { Principal::Session(env.open_session(&root)) } else { Principal::Administrator };
        let actor = match by_token {
            true => Actor::Bearer { login: login("root"), token: root.id() },
            false => Actor::Administrator,
        };
        let id = env.issue_scoped(&[]).expect("a token").record.id;
        for (n, (action, expected)) in AUDITED_ACTIONS.iter().enumerate() {
            let latest = env.tokens.latest_event_id(ADMIN).expect("a number");
            action(&env, &principal, id);
            let recorded =
                env.tokens.events(ADMIN, &EventFilter::default(), EventCursor::After(latest), 100).expect("read");
            assert_eq!(recorded.len(), expected.len(), "{n}: {recorded:?}");
            for (RecordedEvent { event, .. }, (kind, user, part)) in recorded.iter().zip(*expected) {
                assert_eq!((event.kind, event.user.as_ref().map(Login::as_str)), (*kind, *user), "{n}");
                assert_eq!(event.by.as_ref(), Some(&actor), "{n}");
                assert_eq!(event.address.is_some(), by_token, "{n}: from where a caller came");
                let text = format!("{} {}", event.detail.as_deref().unwrap_or(""), event.path.as_deref().unwrap_or(""));
                assert!(text.contains(part), "{n}: {text}");
                assert_eq!(event.token.is_some(), kind.as_str().starts_with("token."), "{n}");
            }
        }
    }
}
