//! Tests of the lists of tokens that expire soon or have dangling scopes, and of paging backwards.

use super::*;

const ONE_HOUR: Duration = Duration::from_secs(3600);

fn issue_token(env: &TokensEnv, owner: &str, life: &str, window: Option<&str>) -> TokenId {
    let (lifetime, window) = (Some(RequestedLifetime::For(lifetime(life))), window.map(self::lifetime));
    let request = TokenRequest { lifetime, window, ..TokenRequest::new(login(owner)) };
    env.tokens.issue(ADMIN, request).expect("a token").record.id
}

fn token_ids(found: &TokenListSummary) -> Vec<TokenId> {
    found.records.iter().map(|record| record.id).collect()
}

#[test]
fn expiring_tokens_are_listed_earliest_first() {
    let env = tokens_env();
    env.create_user("bob", &["/bob:rw"]);
    let whole = issue_token(&env, "bob", "300d", None);
    let (later, sooner, other) = (
        issue_token(&env, "alice", "20d", None),
        issue_token(&env, "alice", "16d", None),
        issue_token(&env, "bob", "18d", None),
    );
    let (resting, short) =
        (issue_token(&env, "alice", "300d", Some("15d")), issue_token(&env, "alice", "300d", Some("10m")));
    let revoked = issue_token(&env, "bob", "17d", None);
    env.tokens.revoke(ADMIN, &[revoked]).expect("revoked");
    let ending = |owner: Option<&str>| env.tokens.expiring(ADMIN, owner.map(login).as_ref(), 10).expect("found");
    assert_eq!(ending(None).count, 0, "none is near its end");
    env.clock.advance(11 * ONE_DAY + 7 * ONE_HOUR);
    assert_eq!(token_ids(&ending(None)), [resting], "of its rest, less than a quarter is left");
    env.clock.advance(3 * ONE_DAY);
    assert_eq!(token_ids(&ending(None)), [resting, sooner, other]);
    env.clock.advance(12 * ONE_HOUR);
    assert_eq!(token_ids(&ending(None)), [resting, sooner, other], "of the one of 20 days, a quarter is left");
    env.clock.advance(12 * ONE_HOUR);
    assert_eq!(token_ids(&ending(Some("alice"))), [sooner, later]);
    assert_eq!(token_ids(&ending(Some("bob"))), [other]);
    let some = env.tokens.expiring(ADMIN, None, 1).expect("found");
    assert_eq!((token_ids(&some), some.count, some.may_have_more), (vec![sooner], 3, false));
    assert!(![whole, short].iter().any(|id| token_ids(&ending(None)).contains(id)));
}

#[test]
fn dangling_tokens_are_found_beyond_first_page() {
    let env = tokens_env();
    env.tokens.set_policy(ADMIN, "max-tokens-per-user", "1000").expect("set");
    for _ in 0..150 {
        env.issue_scoped(&["path:/alice:r"]).expect("a token");
    }
    let two = env.issue_scoped(&["path:/alice/below:r", "path:/alice/below/file:r"]).expect("a token");
    let dead = env.issue_scoped(&["path:/alice/below:r"]).expect("a token");
    let (parent, dangling) =
        (env.issue_scoped(&[]).expect("a token"), || env.tokens.dangling(ADMIN, None, 10).expect("found"));
    let principal = Principal::from(env.open_session(parent.text.as_ref().expect("a secret")));
    let scopes = Some(vec!["path:/alice/below:r".parse().expect("scope")]);
    let child =
        env.tokens.issue(&principal, TokenRequest { scopes, ..TokenRequest::new(login("alice")) }).expect("a child");
    env.tokens.revoke(ADMIN, &[dead.record.id]).expect("revoked");
    assert_eq!(dangling().count, 0);
    std::fs::remove_dir_all(env.root.join("alice/below")).expect("removed");
    let mut expected = vec![two.record.id, child.record.id];
    expected.sort();
    assert_eq!(token_ids(&dangling()), expected, "each once, the dead not at all");
    env.tokens.revoke(ADMIN, &[parent.record.id]).expect("revoked");
    assert_eq!(token_ids(&dangling()), [two.record.id], "the dead parent's child is dead");
}

#[test]
fn dangling_search_is_bounded_and_reports_possible_more() {
    let env = tokens_env();
    env.tokens.set_policy(ADMIN, "max-tokens-per-user", "1000").expect("set");
    let mut of_files = Vec::new();
    for temp_dir in 0..11 {
        let names = (0..100).map(|name| format!("alice/below/{temp_dir}-{name}"));
        let targets: Vec<String> = names
            .map(|name| {
                std::fs::write(env.root.join(&name), "").expect("file");
                format!("path:/{name}:r")
            })
            .collect();
        let targets: Vec<&str> = targets.iter().map(String::as_str).collect();
        of_files.push(env.issue_scoped(&targets).expect("a token").record.id);
    }
    let dangling = || env.tokens.dangling(ADMIN, None, 20).expect("found");
    assert_eq!((dangling().count, dangling().may_have_more), (0, true), "100 were not looked for");
    env.tokens.revoke(ADMIN, &of_files[1..2]).expect("revoked");
    assert_eq!((dangling().count, dangling().may_have_more), (0, false), "what is dead is not looked at");
    let own_token = env.issue_scoped(&["path:/alice/below/file:r"]).expect("a token").record.id;
    env.store.delete_nodes(&[env.node_id("/alice/below/file")]).expect("ended");
    assert_eq!(
        (token_ids(&dangling()), dangling().may_have_more),
        (vec![own_token], true),
        "a node without a row is found before all others"
    );
}

#[test]
fn summaries_hide_other_users_tokens_without_role() {
    let env = tokens_env();
    env.create_user("bob", &["/bob:rw"]);
    let (own_token, other) =
        (env.issue_scoped(&["path:/alice/below:r"]).expect("a token"), issue_token(&env, "bob", "10d", None));
    let bearer = env.tokens.issue(ADMIN, TokenRequest::new(login("bob"))).expect("a token");
    env.clock.advance(9 * ONE_DAY);
    std::fs::remove_dir_all(env.root.join("alice/below")).expect("removed");
    let principal = Principal::from(env.open_session(bearer.text.as_ref().expect("a secret")));
    assert_eq!(token_ids(&env.tokens.expiring(&principal, None, 10).expect("found")), [other]);
    assert_eq!(env.tokens.dangling(&principal, None, 10).expect("found").count, 0, "{}", own_token.record.id);
    for found in [
        env.tokens.expiring(&principal, Some(&login("alice")), 9),
        env.tokens.dangling(&principal, Some(&login("alice")), 9),
    ] {
        assert!(matches!(found, Err(Error::Forbidden(_))), "{found:?}");
    }
}

#[test]
fn backward_paging_returns_same_tokens() {
    let env = tokens_env();
    env.tokens.set_policy(ADMIN, "max-tokens-per-user", "1000").expect("set");
    for at in 0..25 {
        env.issue_scoped(if at % 2 == 0 { &["path:/alice/below:r"] } else { &[] }).expect("a token");
    }
    std::fs::remove_dir_all(env.root.join("alice/below")).expect("removed");
    for state in [None, Some(StateFilter::Dangling)] {
        let page = |after, before| {
            let query = TokenQuery { state, after, before, ..TokenQuery::default() };
            env.tokens.list(ADMIN, &query, 4).expect("a page")
        };
        let all: Vec<TokenId> = {
            let query = TokenQuery { state, ..TokenQuery::default() };
            env.tokens.list(ADMIN, &query, 1000).expect("a page").items.iter().map(|record| record.id).collect()
        };
        let (mut seen, mut before) = (Vec::new(), all.last().copied());
        while before.is_some() {
            let page = page(None, before);
            let ids: Vec<TokenId> = page.items.iter().map(|record| record.id).collect();
            assert!(ids.is_sorted() && page.next.is_none_or(|next| next == ids[0]));
            seen.splice(0..0, ids);
            before = page.next;
        }
        assert_eq!(seen, all[..all.len() - 1]);
        assert_eq!(page(Some(all[3]), None).items[0].id, all[4]);
    }
}
