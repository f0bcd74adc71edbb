//! What decides is named, and nothing else.

use super::*;
use crate::domain::{AccessExplanation, AccessQuery, DecidingRule, TokenId, TreeOperation};

fn ask(site: &Site, token: TokenId, operation: &str, path: &str) -> AccessExplanation {
    ask_with(site, token, operation, path, |_| ())
}

fn ask_with(
    site: &Site,
    token: TokenId,
    operation: &str,
    path: &str,
    more: impl FnOnce(&mut AccessQuery),
) -> AccessExplanation {
    let operation: TreeOperation = operation.parse().expect("operation");
    let mut question = AccessQuery::new(operation, at(path));
    more(&mut question);
    site.tokens.explain(ADMIN, token, &question).expect("a verdict")
}

#[test]
fn the_grant_or_scope_that_decides_is_named() {
    let site = site();
    let whole = site.scoped(&[]).expect("a token").text.id();
    let scoped = site.scoped(&["path:/alice/below:r"]).expect("a token").text.id();
    let verdict = ask(&site, whole, "write", "/alice/below/file");
    assert_eq!(verdict.decided_by, DecidingRule::Granted);
    assert_eq!(
        verdict.sentence,
        format!("alice may write /alice/below/file with the token {whole}: it is granted rw on /alice")
    );
    let verdict = ask(&site, scoped, "read", "/alice/below/file");
    assert_eq!(verdict.by.iter().map(|source| source.path.to_string()).collect::<Vec<_>>(), ["/alice", "/alice/below"]);
    assert!(verdict.allowed && verdict.sentence.contains("rw on /alice, with r on /alice/below"), "{verdict:?}");

    let cases = [
        (whole, "read", "/bob", DecidingRule::NoGrant { at: at("/bob") }),
        (whole, "delete", "/alice", DecidingRule::NoGrant { at: at("/") }),
        (whole, "delete", "/", DecidingRule::TopOfTree),
        (whole, "stat", "/", DecidingRule::OnTheWay),
        (scoped, "stat", "/alice", DecidingRule::OnTheWay),
        (scoped, "write", "/alice/below/file", DecidingRule::OutOfScope { token: scoped, at: at("/alice/below/file") }),
        (scoped, "read", "/alice/x", DecidingRule::OutOfScope { token: scoped, at: at("/alice/x") }),
    ];
    for (token, operation, path, rule) in cases {
        let verdict = ask(&site, token, operation, path);
        assert_eq!((verdict.allowed, &verdict.decided_by), (rule.allows(), &rule), "{operation} {path}");
    }
}

#[test]
fn the_limit_that_decides_is_named_and_what_is_left_open_too() {
    let site = site();
    let limits = TokenLimits {
        protocols: vec![crate::domain::Protocol::Sftp],
        ips: vec!["192.0.2.0/24".parse().expect("net")],
        mimes: vec!["image/*".parse().expect("type")],
        max_file_size: Some("1MiB".parse().expect("size")),
        tags: vec!["blue".parse().expect("tag")],
        ..TokenLimits::default()
    };
    let request = TokenRequest { limits, ..TokenRequest::new(login("alice")) };
    let token = site.tokens.issue(ADMIN, request).expect("a token").text.id();
    let create = |more: &dyn Fn(&mut AccessQuery)| ask_with(&site, token, "create", "/alice/x", more).decided_by;
    let most = "1MiB".parse().expect("size");
    assert_eq!(create(&|ask| ask.protocol = "webdav".parse().ok()), DecidingRule::Protocol { token });
    assert_eq!(create(&|ask| ask.address = "198.51.100.1".parse().ok()), DecidingRule::Address { token });
    assert_eq!(create(&|ask| ask.size = "2MiB".parse().ok()), DecidingRule::FileSize { token, most });
    assert_eq!(create(&|ask| ask.mime = Some("text/plain".to_owned())), DecidingRule::MediaType { token });
    let red: crate::domain::FileTag = "red".parse().expect("tag");
    assert_eq!(create(&|ask| ask.tags = vec![red.clone()]), DecidingRule::Tag { token, tag: red.clone() });

    let verdict = ask_with(&site, token, "create", "/alice/x", |ask| ask.size = Some(most));
    assert!(verdict.allowed);
    assert_eq!(verdict.provided.len(), 3, "{verdict:?}");
    let read = ask_with(&site, token, "read", "/alice/below/file", |ask| ask.size = "2MiB".parse().ok());
    assert!(read.allowed, "the size of what is read is no upload");
}

#[test]
fn the_death_that_decides_is_named() {
    let site = site();
    let issue = |lifetime| TokenRequest { lifetime, ..TokenRequest::new(login("alice")) };
    let short = site.tokens.issue(ADMIN, issue(Asked::For(self::lifetime("1h")))).expect("a token").text.id();
    let revoked = site.tokens.issue(ADMIN, issue(Asked::Default)).expect("a token").text.id();
    let live = site.tokens.issue(ADMIN, issue(Asked::Default)).expect("a token").text.id();
    let end = site.clock.now().saturating_add(Duration::from_secs(3600));
    site.clock.advance(Duration::from_secs(3600));
    site.tokens.revoke(ADMIN, &[revoked]).expect("revoked");
    let decides = |token| ask(&site, token, "read", "/alice").decided_by;
    assert_eq!(decides(short), DecidingRule::Expired { token: short, at: end });
    assert_eq!(decides(revoked), DecidingRule::Revoked { token: revoked });
    assert_eq!(decides(live), DecidingRule::Granted);
    site.tokens.disable_user(ADMIN, &login("alice")).expect("disabled");
    assert_eq!(decides(live), DecidingRule::Disabled);
    let unknown = "00000000".parse().expect("id");
    let asked = site.tokens.explain(ADMIN, unknown, &AccessQuery::new(TreeOperation::Read, at("/")));
    assert!(matches!(asked, Err(Error::UnknownToken(_))));
}

#[test]
fn both_ends_of_a_move_are_judged() {
    let site = site();
    site.user("carol", &["/alice/below:w", "/bob:rw"]);
    let token = site.tokens.issue(ADMIN, TokenRequest::new(login("carol"))).expect("a token").text.id();
    let to = |operation: &str, path: &str| {
        let target = at(path);
        ask_with(&site, token, operation, "/alice/below/file", |ask| ask.target = Some(target)).decided_by
    };
    assert_eq!(to("move", "/alice/below/new"), DecidingRule::Granted);
    assert_eq!(to("move", "/bob/new"), DecidingRule::WouldReveal);
    assert_eq!(to("move", "/alice/new"), DecidingRule::NoGrant { at: at("/alice") });
}

#[test]
fn a_folder_that_was_swapped_decides() {
    let site = site();
    let token = site.scoped(&["path:/alice/below:rw"]).expect("a token").text.id();
    std::fs::rename(site.root.join("alice/below"), site.root.join("alice/elsewhere")).expect("moved");
    std::fs::create_dir(site.root.join("alice/below")).expect("folder");
    let verdict = ask(&site, token, "read", "/alice/below/file");
    assert_eq!(verdict.decided_by, DecidingRule::Swapped { at: at("/alice/below") });
}

#[test]
fn a_narrow_token_learns_nothing_of_its_owners_grants() {
    let site = site();
    let asker = site.scoped(&["path:/alice/below:r"]).expect("a token");
    let (token, who) = (asker.text.id(), Authority::Session(site.come_in(&asker.text)));
    let ask = |operation: &str, path: &str| {
        let question = AccessQuery::new(operation.parse().expect("operation"), at(path));
        site.tokens.explain(&who, token, &question).expect("a verdict")
    };
    for operation in TreeOperation::ALL.map(TreeOperation::as_str) {
        let told = |path: &str| ask(operation, path).sentence.replace(path, "/it");
        // The owner's grant covers the first, and not the second.
        let [granted, not] = ["/alice/x", "/other/x"].map(told);
        assert_eq!(granted.replace("/alice", "/other"), not, "{operation}");
    }
    for operation in ["read", "write"] {
        assert_eq!(ask(operation, "/alice").decided_by, DecidingRule::OutOfScope { token, at: at("/alice") });
        assert_eq!(ask(operation, "/bob").decided_by, DecidingRule::OutOfScope { token, at: at("/bob") });
    }
    let by = ask("read", "/alice/below/file").by;
    assert_eq!(by.iter().map(|source| source.path.to_string()).collect::<Vec<_>>(), ["/alice/below"]);
    assert_eq!(by.first().map(|source| source.scope.permission), Some(Permission::R));
}

#[test]
fn a_scope_that_is_refused_names_no_grant_to_a_narrow_token() {
    let site = site();
    let asker = site.scoped(&["path:/alice/below:r"]).expect("a token");
    let who = Authority::Session(site.come_in(&asker.text));
    let child = site.tokens.issue(&who, TokenRequest::new(login("alice"))).expect("a child").text.id();
    for path in ["path:/alice:r", "path:/bob:r", "path:/alice/below:rw"] {
        let scopes = Some(vec![path.parse().expect("scope")]);
        let change = Narrowing { scopes: scopes.clone(), ..Narrowing::default() };
        let changed = site.tokens.narrow(&who, child, &change, None).map(drop);
        let made = site.tokens.issue(&who, TokenRequest { scopes, ..TokenRequest::new(login("alice")) }).map(drop);
        for refused in [changed, made] {
            let Err(Error::OutsideReach { reach, .. }) = refused else { panic!("{path}: {refused:?}") };
            assert_eq!(reach, ["r /alice/below"], "{path}");
        }
    }
}
