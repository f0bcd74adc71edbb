//! Tests of explanations: they name the deciding rule, and reveal nothing that is hidden from the caller.

use super::*;
use crate::domain::{AccessExplanation, AccessQuery, DecidingRule, TokenId, TreeOperation};

fn explain(env: &TokensEnv, token: TokenId, operation: &str, path: &str) -> AccessExplanation {
    explain_with(env, token, operation, path, |_| ())
}

fn explain_with(
    env: &TokensEnv,
    token: TokenId,
    operation: &str,
    path: &str,
    more: impl FnOnce(&mut AccessQuery),
) -> AccessExplanation {
    let operation: TreeOperation = operation.parse().expect("operation");
    let mut question = AccessQuery::new(operation, tree_path(path));
    more(&mut question);
    env.tokens.explain(ADMIN, token, &question).expect("a verdict")
}

#[test]
fn deciding_grant_or_scope_is_named() {
    let env = tokens_env();
    let whole = env.issue_scoped(&[]).expect("a token").record.id;
    let scoped = env.issue_scoped(&["path:/alice/below:r"]).expect("a token").record.id;
    let verdict = explain(&env, whole, "write", "/alice/below/file");
    assert_eq!(verdict.decided_by, DecidingRule::Granted);
    assert_eq!(
        verdict.sentence,
        format!("alice may write /alice/below/file with the token {whole}: it is granted rw on /alice")
    );
    let verdict = explain(&env, scoped, "read", "/alice/below/file");
    assert_eq!(
        verdict.allowed_by.iter().map(|source| source.path.to_string()).collect::<Vec<_>>(),
        ["/alice", "/alice/below"]
    );
    assert!(verdict.allowed && verdict.sentence.contains("rw on /alice, with r on /alice/below"), "{verdict:?}");

    let cases = [
        (whole, "read", "/bob", DecidingRule::NoGrant { at: tree_path("/bob") }),
        (whole, "delete", "/alice", DecidingRule::NoGrant { at: tree_path("/") }),
        (whole, "delete", "/", DecidingRule::TreeRoot),
        (whole, "stat", "/", DecidingRule::VisibleOnly),
        (scoped, "stat", "/alice", DecidingRule::VisibleOnly),
        (
            scoped,
            "write",
            "/alice/below/file",
            DecidingRule::OutOfScope { token: scoped, at: tree_path("/alice/below/file") },
        ),
        (scoped, "read", "/alice/x", DecidingRule::OutOfScope { token: scoped, at: tree_path("/alice/x") }),
    ];
    for (token, operation, path, rule) in cases {
        let verdict = explain(&env, token, operation, path);
        assert_eq!((verdict.allowed, &verdict.decided_by), (rule.allows(), &rule), "{operation} {path}");
    }
}

#[test]
fn deciding_limit_and_unchecked_limits_are_named() {
    let env = tokens_env();
    let limits = TokenLimits {
        protocols: vec![crate::domain::Protocol::Sftp],
        ips: vec!["192.0.2.0/24".parse().expect("net")],
        mimes: vec!["image/*".parse().expect("type")],
        max_file_size: Some("1MiB".parse().expect("size")),
        tags: vec!["blue".parse().expect("tag")],
        ..TokenLimits::default()
    };
    let request = TokenRequest { limits, ..TokenRequest::new(login("alice")) };
    let token = env.tokens.issue(ADMIN, request).expect("a token").record.id;
    let create = |more: &dyn Fn(&mut AccessQuery)| explain_with(&env, token, "create", "/alice/x", more).decided_by;
    let max = "1MiB".parse().expect("size");
    assert_eq!(create(&|query| query.protocol = "webdav".parse().ok()), DecidingRule::Protocol { token });
    assert_eq!(create(&|query| query.address = "198.51.100.1".parse().ok()), DecidingRule::Address { token });
    assert_eq!(create(&|query| query.size = "2MiB".parse().ok()), DecidingRule::FileSize { token, max });
    assert_eq!(create(&|query| query.mime = Some("text/plain".to_owned())), DecidingRule::MediaType { token });
    let red: crate::domain::FileTag = "red".parse().expect("tag");
    assert_eq!(create(&|query| query.tags = vec![red.clone()]), DecidingRule::Tag { token, tag: red.clone() });

    let verdict = explain_with(&env, token, "create", "/alice/x", |query| query.size = Some(max));
    assert!(verdict.allowed);
    assert_eq!(verdict.unchecked_limits.len(), 3, "{verdict:?}");
    let read = explain_with(&env, token, "read", "/alice/below/file", |query| query.size = "2MiB".parse().ok());
    assert!(read.allowed, "the size of what is read is no upload");
}

#[test]
fn deciding_revocation_or_expiration_is_named() {
    let env = tokens_env();
    let issue = |lifetime| TokenRequest { lifetime: Some(lifetime), ..TokenRequest::new(login("alice")) };
    let short =
        env.tokens.issue(ADMIN, issue(RequestedLifetime::For(self::lifetime("1h")))).expect("a token").record.id;
    let revoked = env.tokens.issue(ADMIN, issue(RequestedLifetime::Default)).expect("a token").record.id;
    let live = env.tokens.issue(ADMIN, issue(RequestedLifetime::Default)).expect("a token").record.id;
    let end = env.clock.now().saturating_add(Duration::from_secs(3600));
    env.clock.advance(Duration::from_secs(3600));
    env.tokens.revoke(ADMIN, &[revoked]).expect("revoked");
    let decides = |token| explain(&env, token, "read", "/alice").decided_by;
    assert_eq!(decides(short), DecidingRule::Expired { token: short, at: end });
    assert_eq!(decides(revoked), DecidingRule::Revoked { token: revoked });
    assert_eq!(decides(live), DecidingRule::Granted);
    env.tokens.disable_user(ADMIN, &login("alice")).expect("disabled");
    assert_eq!(decides(live), DecidingRule::Disabled);
    let unknown = "00000000".parse().expect("id");
    let result = env.tokens.explain(ADMIN, unknown, &AccessQuery::new(TreeOperation::Read, tree_path("/")));
    assert!(matches!(result, Err(Error::UnknownToken(_))));
}

#[test]
fn recorded_expiration_is_named_after_clock_set_back() {
    let env = tokens_env();
    let request =
        TokenRequest { lifetime: Some(RequestedLifetime::For(lifetime("1h"))), ..TokenRequest::new(login("alice")) };
    let text = env.tokens.issue(ADMIN, request).expect("a token").text.expect("a secret");
    let (start, end) = (env.clock.now(), env.clock.now().saturating_add(Duration::from_secs(3600)));
    env.clock.advance(Duration::from_secs(2 * 3600));
    env.tokens.apply_retention().expect("recorded");
    env.clock.set(start);
    let verdict = explain(&env, text.id(), "read", "/alice");
    assert!(!verdict.allowed, "{verdict:?}");
    assert_eq!(verdict.decided_by, DecidingRule::Expired { token: text.id(), at: end });
}

#[test]
fn source_and_target_of_move_are_evaluated() {
    let env = tokens_env();
    env.create_user("carol", &["/alice/below:w", "/bob:rw"]);
    let token = env.tokens.issue(ADMIN, TokenRequest::new(login("carol"))).expect("a token").record.id;
    let to = |operation: &str, path: &str| {
        let target = tree_path(path);
        explain_with(&env, token, operation, "/alice/below/file", |query| query.target = Some(target)).decided_by
    };
    assert_eq!(to("move", "/alice/below/new"), DecidingRule::Granted);
    assert_eq!(to("move", "/bob/new"), DecidingRule::WouldReveal);
    assert_eq!(to("move", "/alice/new"), DecidingRule::NoGrant { at: tree_path("/alice") });
}

#[test]
fn replaced_directory_is_named_as_deciding_rule() {
    let env = tokens_env();
    let token = env.issue_scoped(&["path:/alice/below:rw"]).expect("a token").record.id;
    std::fs::rename(env.root.join("alice/below"), env.root.join("alice/elsewhere")).expect("moved");
    std::fs::create_dir(env.root.join("alice/below")).expect("folder");
    let verdict = explain(&env, token, "read", "/alice/below/file");
    assert_eq!(verdict.decided_by, DecidingRule::NodeReplaced { at: tree_path("/alice/below") });
}

#[test]
fn scoped_token_learns_nothing_of_owner_grants() {
    let env = tokens_env();
    let caller = env.issue_scoped(&["path:/alice/below:r"]).expect("a token");
    let (token, principal) =
        (caller.record.id, Principal::Session(env.open_session(caller.text.as_ref().expect("a secret"))));
    let explain = |operation: &str, path: &str| {
        let question = AccessQuery::new(operation.parse().expect("operation"), tree_path(path));
        env.tokens.explain(&principal, token, &question).expect("a verdict")
    };
    for operation in TreeOperation::ALL.map(TreeOperation::as_str) {
        let sentence = |path: &str| explain(operation, path).sentence.replace(path, "/it");
        // The owner's grant covers the first, and not the second.
        let [granted, not] = ["/alice/x", "/other/x"].map(sentence);
        assert_eq!(granted.replace("/alice", "/other"), not, "{operation}");
    }
    for operation in ["read", "write"] {
        assert_eq!(
            explain(operation, "/alice").decided_by,
            DecidingRule::OutOfScope { token, at: tree_path("/alice") }
        );
        assert_eq!(explain(operation, "/bob").decided_by, DecidingRule::OutOfScope { token, at: tree_path("/bob") });
    }
    let allowed_by = explain("read", "/alice/below/file").allowed_by;
    assert_eq!(allowed_by.iter().map(|source| source.path.to_string()).collect::<Vec<_>>(), ["/alice/below"]);
    assert_eq!(allowed_by.first().map(|source| source.scope.permission), Some(Permission::R));
}

#[test]
fn refused_scope_reveals_no_grant_to_scoped_token() {
    let env = tokens_env();
    let caller = env.issue_scoped(&["path:/alice/below:r"]).expect("a token");
    let principal = Principal::Session(env.open_session(caller.text.as_ref().expect("a secret")));
    let child = env.tokens.issue(&principal, TokenRequest::new(login("alice"))).expect("a child").record.id;
    for path in ["path:/alice:r", "path:/bob:r", "path:/alice/below:rw"] {
        let scopes = Some(vec![path.parse().expect("scope")]);
        let change = NarrowRequest { scopes: scopes.clone(), ..NarrowRequest::default() };
        let changed = env.tokens.narrow(&principal, child, &change, None).map(drop);
        let issued =
            env.tokens.issue(&principal, TokenRequest { scopes, ..TokenRequest::new(login("alice")) }).map(drop);
        for refused in [changed, issued] {
            let Err(Error::OutsideAccess { reach, .. }) = refused else { panic!("{path}: {refused:?}") };
            assert_eq!(reach, ["r /alice/below"], "{path}");
        }
    }
}
