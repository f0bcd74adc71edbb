//! What the store promises of tokens.

use std::time::Duration;

use super::*;
use crate::domain::{Actor, Lifetime, Permission};
use crate::store::Author;
use crate::store::testing::{by_hand, file, folder, id, login, node, now, opened, remove, scope, token};

const R: Permission = Permission::R;

fn later(seconds: u64) -> UnixMillis {
    now().saturating_add(Duration::from_secs(seconds))
}

fn sliding(seconds: u64, cap: u64) -> TokenExpiry {
    TokenExpiry::Sliding { window_ms: seconds * 1000, cap: later(cap) }
}

fn last(seconds: u64) -> LastUse {
    LastUse { at: later(seconds), from: Some("192.0.2.1".to_owned()), client: None, protocol: Some(Protocol::Sftp) }
}

fn used(name: &str, seconds: u64) -> Use {
    Use { token: id(name), last: last(seconds) }
}

fn state(store: &Store, name: &str, at: UnixMillis) -> TokenState {
    store.token(id(name), at).expect("read").expect("there").state
}

#[test]
fn a_token_is_read_back_as_it_was_made() {
    let (_folder, store) = opened();
    store.create_user(&login("alice"), &[], now()).expect("user");
    folder(&store, 0, 0, "");
    folder(&store, 1, 0, "a");
    let limits = TokenLimits { protocols: vec![Protocol::Sftp], ..TokenLimits::default() };
    let scopes = Some(vec![scope(1, R), scope(1, Permission::W)]);
    let new = NewToken { limits: limits.clone(), scopes, ..token("aaaaaaaa", "alice", sliding(60, 600)) };
    store.add_token(&new).expect("kept");
    let kept = store.token(new.id, now()).expect("read").expect("there");
    assert_eq!((kept.login, kept.limits, kept.expiry), (new.login, limits, new.expiry));
    let placed = kept.scopes.expect("scoped");
    assert_eq!(placed.len(), 1);
    assert_eq!(placed[0].scope, scope(1, Permission::RW));
    assert_eq!(placed[0].path.as_ref().map(ToString::to_string).as_deref(), Some("/a"));
}

#[test]
fn a_token_that_cannot_be_is_refused_and_nothing_of_it_is_kept() {
    let (_folder, store) = opened();
    store.create_user(&login("alice"), &[], now()).expect("user");
    let new = token("aaaaaaaa", "alice", TokenExpiry::Never);
    let dangling = NewToken { scopes: Some(vec![scope(9, R)]), ..new.clone() };
    let orphan = NewToken { parent: Some(id("zzzzzzzz")), ..new.clone() };
    let nobody = NewToken { login: login("bob"), ..new.clone() };
    for refused in [dangling, orphan, nobody] {
        assert!(matches!(store.add_token(&refused), Err(StoreError::Missing(_))), "{refused:?}");
    }
    assert!(!store.has_tokens().expect("read"));
    store.add_token(&new).expect("kept");
    assert!(matches!(store.add_token(&new), Err(StoreError::Exists(_))));
}

#[test]
fn chains_of_tokens_stay_short() {
    let (_folder, store) = opened();
    store.create_user(&login("alice"), &[], now()).expect("user");
    store.set_policy("max-tokens-per-user", "100").expect("set");
    let mut parent = None;
    let mut refused = None;
    for number in 0..40 {
        let new = NewToken { parent, ..token(&format!("{number:08}"), "alice", TokenExpiry::Never) };
        parent = Some(new.id);
        if let Err(error) = store.add_token(&new) {
            refused = Some((number, error));
            break;
        }
    }
    let (number, error) = refused.expect("refused at last");
    assert!(matches!(error, StoreError::Chain(_)), "{error}");
    assert_eq!(number, MAX_CHAIN + 1);
    assert!(store.reach(id(&format!("{MAX_CHAIN:08}"))).expect("read").is_some());
}

#[test]
fn a_sliding_token_counts_while_a_use_of_it_may_not_be_written_down_yet() {
    let (_folder, store) = opened();
    store.create_user(&login("alice"), &[], now()).expect("user");
    store.set_policy("max-tokens-per-user", "1").expect("set");
    store.add_token(&token("sliding0", "alice", sliding(600, 86_400))).expect("kept");
    let add = |seconds| {
        let created_at = later(seconds);
        store.add_token(&NewToken { created_at, ..token("another0", "alice", TokenExpiry::Never) })
    };
    assert_eq!(store.live_tokens(&login("alice"), later(601)).expect("read"), 0, "as far as is written down");
    let refused = add(629);
    assert!(matches!(refused, Err(StoreError::Policy(PolicyViolation::TooManyTokens(1)))), "{refused:?}");
    add(632).expect("dead for certain");
}

#[test]
fn as_many_live_tokens_as_the_policy_gives_and_no_more_from_any_thread() {
    let (folder, store) = opened();
    store.create_user(&login("alice"), &[], now()).expect("user");
    store.add_token(&token("revoked0", "alice", TokenExpiry::Never)).expect("kept");
    store.revoke_tokens(&[id("revoked0")], now()).expect("revoked");
    store.add_token(&token("expired0", "alice", TokenExpiry::Hard(now()))).expect("kept");
    let again = Store::open(&folder.path().join("state")).expect("a second process");
    let made: usize = std::thread::scope(|threads| {
        let runs: Vec<_> = (0..4)
            .map(|thread| {
                let store = if thread % 2 == 0 { store.clone() } else { again.clone() };
                threads.spawn(move || {
                    let names = (0..5).map(|number| format!("aaaaa{thread}0{number}"));
                    names.filter(|name| store.add_token(&token(name, "alice", TokenExpiry::Never)).is_ok()).count()
                })
            })
            .collect();
        runs.into_iter().map(|run| run.join().expect("joins")).sum()
    });
    assert_eq!(made, 5);
    let refused = store.add_token(&token("bbbbbbbb", "alice", TokenExpiry::Never));
    assert!(matches!(refused, Err(StoreError::Policy(PolicyViolation::TooManyTokens(5)))), "{refused:?}");
}

#[test]
fn a_token_is_as_dead_as_the_deadest_above_it() {
    let (_folder, store) = opened();
    store.create_user(&login("alice"), &[], now()).expect("user");
    store.add_token(&token("aaaaaaaa", "alice", sliding(60, 600))).expect("kept");
    let child = NewToken { parent: Some(id("aaaaaaaa")), ..token("bbbbbbbb", "alice", TokenExpiry::Never) };
    store.add_token(&child).expect("kept");
    assert_eq!(state(&store, "bbbbbbbb", later(59)), TokenState::Live);
    assert_eq!(state(&store, "bbbbbbbb", later(60)), TokenState::Expired);
    store.revoke_tokens(&[id("aaaaaaaa")], later(1)).expect("revoked");
    assert_eq!(state(&store, "bbbbbbbb", later(60)), TokenState::Revoked);
}

#[test]
fn revoking_is_all_or_nothing_and_keeps_the_first_time() {
    let (_folder, store) = opened();
    store.create_user(&login("alice"), &[], now()).expect("user");
    store.add_token(&token("aaaaaaaa", "alice", TokenExpiry::Never)).expect("kept");
    store.add_token(&token("bbbbbbbb", "alice", TokenExpiry::Never)).expect("kept");
    assert!(store.revoke_tokens(&[id("aaaaaaaa"), id("zzzzzzzz")], now()).is_err());
    assert_eq!(state(&store, "aaaaaaaa", now()), TokenState::Live);
    store.revoke_tokens(&[id("aaaaaaaa")], now()).expect("revoked");
    store.revoke_tokens(&[id("aaaaaaaa")], later(9)).expect("repeated");
    let record = store.token(id("aaaaaaaa"), now()).expect("read").expect("there");
    assert_eq!(record.revoked_at, Some(now()));
    assert_eq!(store.revoke_tokens_of(&login("alice"), now()).expect("revoked"), 1);
}

#[test]
fn uses_move_forward_and_revive_nothing() {
    let (_folder, store) = opened();
    store.create_user(&login("alice"), &[], now()).expect("user");
    store.add_token(&token("aaaaaaaa", "alice", sliding(60, 600))).expect("kept");
    let epoch = store.epoch().expect("read");
    store.record_uses(&[used("aaaaaaaa", 30), used("aaaaaaaa", 20)], false).expect("written");
    assert_eq!(store.epoch().expect("read"), epoch, "a use changes nothing that sessions derive");
    let record = store.token(id("aaaaaaaa"), now()).expect("read").expect("there");
    assert_eq!(record.last_use, Some(last(30)));
    assert_eq!(record.deadline(), later(90));
    store.revoke_tokens(&[id("aaaaaaaa")], later(31)).expect("revoked");
    store.record_uses(&[used("aaaaaaaa", 40)], false).expect("written");
    let record = store.token(id("aaaaaaaa"), now()).expect("read").expect("there");
    assert_eq!((record.last_use, record.state), (Some(last(30)), TokenState::Revoked));
}

#[test]
fn rotation_keeps_the_old_secret_only_for_its_grace() {
    let (_folder, store) = opened();
    store.create_user(&login("alice"), &[], now()).expect("user");
    store.add_token(&token("aaaaaaaa", "alice", TokenExpiry::Never)).expect("kept");
    let sealed = |number| Sealed { phc: format!("phc{number}"), prefilter: [number; 8] };
    store.rotate_token(id("aaaaaaaa"), &sealed(2), Some(later(10))).expect("rotated");
    let caller = store.caller(id("aaaaaaaa")).expect("read").expect("there");
    assert_eq!(caller.sealed, sealed(2));
    assert_eq!(caller.grace.map(|grace| (grace.sealed.phc, grace.until)), Some(("phc".to_owned(), later(10))));
    store.rotate_token(id("aaaaaaaa"), &sealed(3), None).expect("rotated");
    let caller = store.caller(id("aaaaaaaa")).expect("read").expect("there");
    assert_eq!((caller.sealed, caller.grace), (sealed(3), None));
    store.revoke_tokens(&[id("aaaaaaaa")], now()).expect("revoked");
    assert!(store.rotate_token(id("aaaaaaaa"), &sealed(4), None).is_err());
}

#[test]
fn lists_come_in_pages_and_by_state() {
    let (_folder, store) = opened();
    store.set_policy("max-tokens-per-user", "100").expect("set");
    for owner in ["alice", "bob"] {
        store.create_user(&login(owner), &[], now()).expect("user");
        for number in 0..5 {
            store.add_token(&token(&format!("{owner:x<6}0{number}"), owner, TokenExpiry::Never)).expect("kept");
        }
    }
    store.revoke_tokens(&[id("alicex01")], now()).expect("revoked");
    let mut seen = Vec::new();
    let mut after = None;
    loop {
        let page = store.tokens(&TokenFilter::default(), after, 3, now()).expect("read");
        assert!(page.len() <= 3);
        let Some(last) = page.last() else { break };
        after = Some(last.id);
        seen.extend(page.into_iter().map(|record| record.id));
    }
    assert_eq!(seen.len(), 10);
    assert!(seen.is_sorted());
    let filter = TokenFilter { owner: Some(login("alice")), state: Some(TokenState::Live), ..TokenFilter::default() };
    assert_eq!(store.tokens(&filter, None, 100, now()).expect("read").len(), 4);
    let filter = TokenFilter { state: Some(TokenState::Revoked), ..TokenFilter::default() };
    assert_eq!(store.tokens(&filter, None, 100, now()).expect("read").len(), 1);
}

#[test]
fn a_scope_whose_node_has_ended_dangles_and_shows_as_such() {
    let (_folder, store) = opened();
    store.create_user(&login("alice"), &[], now()).expect("user");
    folder(&store, 0, 0, "");
    folder(&store, 1, 0, "a");
    file(&store, 2, 1, "f");
    let new = NewToken { scopes: Some(vec![scope(2, R)]), ..token("aaaaaaaa", "alice", TokenExpiry::Never) };
    store.add_token(&new).expect("kept");
    assert!(!store.token(new.id, now()).expect("read").expect("there").dangles());
    remove(&store, 1);
    let record = store.token(new.id, now()).expect("read").expect("there");
    assert!(record.dangles());
    assert_eq!(record.scopes, Some(vec![Placed { scope: scope(2, R), path: None }]));
    assert_eq!(record.scopes.map(|s| s[0].scope.node), Some(node(2)));
}

#[test]
fn a_listing_looks_tokens_up_by_their_index() {
    let (_folder, store) = opened();
    store.create_user(&login("alice"), &[], now()).expect("user");
    let lifetime = Lifetime::from_secs(60).expect("in range");
    store
        .add_token(&token("aaaaaaaa", "alice", TokenExpiry::Hard(now().saturating_add(lifetime.as_duration()))))
        .expect("kept");
    let plan = store
        .read(|c| {
            let state = state_by(WINDOW);
            let query = format!("EXPLAIN QUERY PLAN SELECT {RECORD}, {state} FROM tokens t JOIN users u ON u.id = t.user_id WHERE t.id > :after ORDER BY t.id LIMIT 5");
            let mut select = c.prepare(&query)?;
            let mut rows = select.query(named_params! {":after": "", ":now": now()})?;
            let mut plan = Vec::new();
            while let Some(row) = rows.next()? {
                plan.push(row.get::<_, String>(3)?);
            }
            Ok(plan.join("\n"))
        })
        .expect("planned");
    assert!(!plan.contains("TEMP B-TREE") && !plan.contains("SCAN t\n"), "{plan}");
}

#[test]
fn revoking_a_thousand_tokens_of_one_user_takes_less_than_half_of_the_ballast() {
    let (_folder, store) = opened();
    store.create_user(&login("alice"), &[], now()).expect("user");
    store.set_policy("max-tokens-per-user", "2000").expect("set");
    for number in 0..1000 {
        store.add_token(&token(&format!("{number:08}"), "alice", TokenExpiry::Hard(later(86_400)))).expect("kept");
    }
    let state = store.state().to_owned();
    by_hand(&store, "PRAGMA wal_checkpoint(TRUNCATE)");
    let size =
        || ["patgate.db", "patgate.db-wal"].map(|name| std::fs::metadata(state.join(name)).expect("there").len());
    let before: u64 = size().iter().sum();
    let acting = store.acting(Author { actor: Actor::Server, peer: None, at: now() });
    assert_eq!(acting.revoke_tokens_of(&login("alice"), now()).expect("revoked"), 1000);
    let log = size()[1];
    by_hand(&store, "PRAGMA wal_checkpoint(TRUNCATE)");
    let grown = log + size()[0].saturating_sub(before);
    assert!(grown > 100_000 && grown < 8 << 20, "{grown} bytes");
    eprintln!("{grown} bytes");
}
