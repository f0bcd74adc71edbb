//! Every change of users, tokens and policy is in the audit trail, with who made it.

use super::*;
use crate::domain::{Actor, EventKind, Role};
use crate::store::{EventCursor, EventFilter, RecordedEvent};

/// What is done, and what the trail tells of it: the kind, the user, and a part of the detail or path.
type AuditedAction = (fn(&TokensEnv, &Principal, TokenId), &'static [(EventKind, Option<&'static str>, &'static str)]);

fn scoped_to(text: &str) -> Option<Vec<ScopeTarget>> {
    Some(vec![text.parse().expect("scope")])
}

const AUDITED_ACTIONS: &[AuditedAction] = &[
    (
        |site, who, _| {
            let grants = vec!["/bob:r".parse().expect("grant")];
            let roles = [Role::ReadAudit].into_iter().collect();
            let request = UserRequest { login: login("carol"), roles, grants, home: HomeOption::Create };
            site.tokens.create_user(who, &request).expect("made");
        },
        &[
            (EventKind::UserCreated, Some("carol"), "audit.read"),
            (EventKind::UserGranted, Some("carol"), "/bob"),
            (EventKind::UserGranted, Some("carol"), "/carol"),
        ],
    ),
    (
        |site, who, _| site.tokens.set_roles(who, &login("carol"), &Roles::none()).expect("changed"),
        &[(EventKind::UserRoles, Some("carol"), "no roles")],
    ),
    (|site, who, _| site.tokens.set_roles(who, &login("carol"), &Roles::none()).expect("nothing to do"), &[]),
    (
        |site, who, _| drop(site.tokens.grant(who, &login("carol"), &"/alice:w".parse().expect("grant"))),
        &[(EventKind::UserGranted, Some("carol"), "/alice")],
    ),
    (|site, who, _| drop(site.tokens.grant(who, &login("carol"), &"/alice:w".parse().expect("grant"))), &[]),
    (
        |site, who, _| drop(site.tokens.grant(who, &login("carol"), &"/alice:rw".parse().expect("grant"))),
        &[(EventKind::UserGranted, Some("carol"), "rw")],
    ),
    (
        |site, who, _| {
            site.tokens.revoke_grant(who, &login("carol"), &"/alice".parse().expect("place")).expect("taken back");
        },
        &[(EventKind::GrantRevoked, Some("carol"), "/alice")],
    ),
    (
        |site, who, _| {
            let request = TokenRequest { scopes: scoped_to("path:/carol:r"), ..TokenRequest::new(login("carol")) };
            site.tokens.issue(who, request).expect("made");
        },
        &[(EventKind::TokenCreated, Some("carol"), "1 scope: carol_api_token")],
    ),
    (
        |site, who, id| {
            let name = Some("other".parse().expect("label"));
            site.tokens.narrow(who, id, &NarrowRequest { name, ..NarrowRequest::default() }, None).expect("renamed");
        },
        &[(EventKind::TokenRenamed, Some("alice"), "alice_api_token -> other")],
    ),
    (
        |site, who, id| {
            let change = NarrowRequest { scopes: scoped_to("path:/alice/below:r"), ..NarrowRequest::default() };
            site.tokens.narrow(who, id, &change, None).expect("narrowed");
        },
        &[(EventKind::TokenNarrowed, Some("alice"), "1 scope")],
    ),
    (
        |site, who, id| {
            let before = site.tokens.find(who, id).expect("there");
            let change = NarrowRequest { scopes: scoped_to("path:/alice/below:r"), ..NarrowRequest::default() };
            assert_eq!(site.tokens.narrow(who, id, &change, None).expect("nothing to do").version, before.version);
        },
        &[],
    ),
    (
        |site, who, id| drop(site.tokens.rotate(who, id, Some(lifetime("1h"))).expect("rotated")),
        &[(EventKind::TokenRotated, Some("alice"), "the old secret until")],
    ),
    (|site, who, id| site.tokens.revoke(who, &[id]).expect("revoked"), &[(EventKind::TokenRevoked, Some("alice"), "")]),
    (|site, who, id| site.tokens.revoke(who, &[id]).expect("nothing to do"), &[]),
    (
        |site, who, _| assert_eq!(site.tokens.revoke_all(who, &login("carol")).expect("revoked"), 1),
        &[(EventKind::TokenRevoked, Some("carol"), "")],
    ),
    (
        |site, who, _| site.tokens.disable_user(who, &login("carol")).expect("disabled"),
        &[(EventKind::UserDisabled, Some("carol"), "")],
    ),
    (|site, who, _| site.tokens.disable_user(who, &login("carol")).expect("nothing to do"), &[]),
    (
        |site, who, _| site.tokens.enable_user(who, &login("carol")).expect("enabled"),
        &[(EventKind::UserEnabled, Some("carol"), "")],
    ),
    (
        |site, who, _| site.tokens.delete_user(who, &login("carol")).expect("deleted"),
        &[(EventKind::UserDeleted, Some("carol"), "")],
    ),
    (
        |site, who, _| assert!(site.tokens.set_policy(who, "allow-never", "true").expect("set").allow_never),
        &[(EventKind::PolicyChanged, None, "allow-never true")],
    ),
    (|site, who, _| assert!(site.tokens.set_policy(who, "allow-never", "true").is_ok()), &[]),
    (|site, who, _| drop(site.tokens.set_policy(who, "allow-never", "perhaps")), &[]),
];

#[test]
fn every_change_is_audited_with_actor() {
    for by_token in [false, true] {
        let site = tokens_env();
        site.create_user("root", &[]);
        site.tokens.set_roles(ADMIN, &login("root"), &[Role::Admin].into_iter().collect()).expect("roles");
        let roles: Roles = [Role::Admin].into_iter().collect();
        let issued = site.tokens.issue(ADMIN, TokenRequest { roles, ..TokenRequest::new(login("root")) });
        let root = issued.expect("a token").text;
        let who = if by_token { Principal::Session(site.open_session(&root)) } else { Principal::Administrator };
        let actor = match by_token {
            true => Actor::Bearer { login: login("root"), token: root.id() },
            false => Actor::Administrator,
        };
        let id = site.issue_scoped(&[]).expect("a token").text.id();
        for (n, (deed, told)) in AUDITED_ACTIONS.iter().enumerate() {
            let latest = site.tokens.latest_event_id(ADMIN).expect("a number");
            deed(&site, &who, id);
            let noted =
                site.tokens.events(ADMIN, &EventFilter::default(), EventCursor::After(latest), 100).expect("read");
            assert_eq!(noted.len(), told.len(), "{n}: {noted:?}");
            for (RecordedEvent { event, .. }, (kind, user, part)) in noted.iter().zip(*told) {
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
