//! Tests of the token rows: creation, revocation, uses, rotation, and the states and pages of lists.

use std::time::Duration;

use super::*;
use crate::domain::{Actor, Lifetime, Permission, StateLimits, UserQuotaLimits};
use crate::store::AuditContext;
use crate::store::sqlite::{empty_write_ahead_log, query_plan};
use crate::store::testing::{
    delete_node, id, insert_directory, insert_file, login, new_token, node, now, open_temp_store, scope, secret_proof,
};

const R: Permission = Permission::R;

fn seconds_later(seconds: u64) -> UnixMillis {
    now().saturating_add(Duration::from_secs(seconds))
}

fn sliding_expiry(seconds: u64, cap: u64) -> TokenExpiry {
    TokenExpiry::Sliding { window_ms: seconds * 1000, cap: seconds_later(cap) }
}

fn last_use_at(seconds: u64) -> LastUseRecord {
    LastUseRecord {
        at: seconds_later(seconds),
        address: Some("192.0.2.1".to_owned()),
        client: None,
        protocol: Some(Protocol::Sftp),
    }
}

fn token_use_at(name: &str, seconds: u64) -> TokenUse {
    TokenUse { token: id(name), last_use: last_use_at(seconds) }
}

fn token_state_at(store: &Store, name: &str, at: UnixMillis) -> TokenState {
    store.token(id(name), at).expect("read").expect("there").state
}

#[test]
fn token_roundtrips_through_store() {
    let (_temp_dir, store) = open_temp_store();
    store.create_user(&login("alice"), &[], now()).expect("user");
    insert_directory(&store, 0, 0, "");
    insert_directory(&store, 1, 0, "a");
    let limits = TokenLimits { protocols: vec![Protocol::Sftp], ..TokenLimits::default() };
    let scopes = Some(vec![scope(1, R), scope(1, Permission::W)]);
    let new = NewTokenRow { limits: limits.clone(), scopes, ..new_token("aaaaaaaa", "alice", sliding_expiry(60, 600)) };
    store.add_token(&new).expect("stored");
    let read = store.token(new.id, now()).expect("read").expect("there");
    assert_eq!((read.expiry(), read.owner, read.limits), (new.expiry, new.login, limits));
    let located = read.scopes.expect("scoped");
    assert_eq!(located.len(), 1);
    assert_eq!(located[0].scope(), scope(1, Permission::RW));
    assert_eq!(located[0].path.as_ref().map(ToString::to_string).as_deref(), Some("/a"));
}

#[test]
fn invalid_token_is_refused_and_rolled_back() {
    let (_temp_dir, store) = open_temp_store();
    store.create_user(&login("alice"), &[], now()).expect("user");
    let new = new_token("aaaaaaaa", "alice", TokenExpiry::Never);
    let dangling = NewTokenRow { scopes: Some(vec![scope(9, R)]), ..new.clone() };
    let orphan = NewTokenRow { parent: Some(id("zzzzzzzz")), ..new.clone() };
    let nobody = NewTokenRow { login: login("bob"), ..new.clone() };
    for refused in [dangling, orphan, nobody] {
        assert!(matches!(store.add_token(&refused), Err(StoreError::NotFound(_))), "{refused:?}");
    }
    assert!(!store.has_tokens().expect("read"));
    store.add_token(&new).expect("stored");
    assert!(matches!(store.add_token(&new), Err(StoreError::AlreadyExists(_))));
}

#[test]
fn token_chain_length_is_bounded() {
    let (_temp_dir, store) = open_temp_store();
    store.create_user(&login("alice"), &[], now()).expect("user");
    store.set_policy("max-tokens-per-user", "100").expect("set");
    let mut parent = None;
    let mut refused = None;
    for number in 0..40 {
        let new = NewTokenRow { parent, ..new_token(&format!("{number:08}"), "alice", TokenExpiry::Never) };
        parent = Some(new.id);
        if let Err(error) = store.add_token(&new) {
            refused = Some((number, error));
            break;
        }
    }
    let (number, error) = refused.expect("refused at last");
    assert!(matches!(error, StoreError::ChainTooLong(_)), "{error}");
    assert_eq!(number, MAX_CHAIN_TOKENS + 1);
    assert!(store.effective_access(id(&format!("{MAX_CHAIN_TOKENS:08}"))).expect("read").is_some());
}

#[test]
fn user_without_inactive_tokens_takes_the_place_of_the_longest_inactive_one() {
    let (_temp_dir, store) = open_temp_store();
    ["alice", "bob"].iter().for_each(|user| store.create_user(&login(user), &[], now()).expect("user"));
    let tokens = UserQuotaLimits { per_user: 10, total: 4 };
    store.set_state_limits(StateLimits { tokens, ..StateLimits::default() });
    store.add_token(&new_token("alice000", "alice", TokenExpiry::Never)).expect("stored");
    store.add_token(&new_token("alice001", "alice", TokenExpiry::Hard(seconds_later(60)))).expect("stored");
    store.add_token(&new_token("alice002", "alice", TokenExpiry::Never)).expect("stored");
    store.revoke_tokens(&[id("alice002")], seconds_later(90)).expect("revoked");
    store.mark_expired(seconds_later(60), 10).expect("recorded");
    let bobs_token = |number: u32| new_token(&format!("bob0000{number}"), "bob", TokenExpiry::Never);
    for (number, remaining_of_alice) in [(0, 3), (1, 2), (2, 1)] {
        store.add_token(&bobs_token(number)).expect("takes a place");
        let of_alice = TokenFilter { owner: Some(login("alice")), ..TokenFilter::default() };
        assert_eq!(store.tokens(&of_alice, None, 10, now()).expect("read").len(), remaining_of_alice);
    }
    assert!(matches!(store.add_token(&bobs_token(3)), Err(StoreError::QuotaExceeded(_))), "all are live");
    store.revoke_tokens(&[id("bob00001")], seconds_later(100)).expect("revoked");
    store.add_token(&bobs_token(3)).expect("takes the place of the user's own");
    assert!(store.token(id("alice000"), now()).expect("read").is_some());
}

#[test]
fn sliding_token_counts_as_live_while_use_may_be_unwritten() {
    let (_temp_dir, store) = open_temp_store();
    store.create_user(&login("alice"), &[], now()).expect("user");
    store.set_policy("max-tokens-per-user", "1").expect("set");
    store.add_token(&new_token("sliding0", "alice", sliding_expiry(600, 86_400))).expect("stored");
    let add = |seconds| {
        let created_at = seconds_later(seconds);
        store.add_token(&NewTokenRow { created_at, ..new_token("another0", "alice", TokenExpiry::Never) })
    };
    assert_eq!(
        store.count_live_tokens(&login("alice"), seconds_later(601)).expect("read"),
        0,
        "as far as is written down"
    );
    let refused = add(629);
    assert!(matches!(refused, Err(StoreError::Policy(PolicyViolation::TooManyTokens(1)))), "{refused:?}");
    add(632).expect("dead for certain");
}

#[test]
fn token_limit_holds_under_concurrent_creation() {
    let (temp_dir, store) = open_temp_store();
    store.create_user(&login("alice"), &[], now()).expect("user");
    store.add_token(&new_token("revoked0", "alice", TokenExpiry::Never)).expect("stored");
    store.revoke_tokens(&[id("revoked0")], now()).expect("revoked");
    store.add_token(&new_token("expired0", "alice", TokenExpiry::Hard(now()))).expect("stored");
    let second_process = Store::open(&temp_dir.path().join("state")).expect("a second process");
    let created: usize = std::thread::scope(|threads| {
        let runs: Vec<_> = (0..4)
            .map(|thread| {
                let store = if thread % 2 == 0 { store.clone() } else { second_process.clone() };
                threads.spawn(move || {
                    let names = (0..5).map(|number| format!("aaaaa{thread}0{number}"));
                    names.filter(|name| store.add_token(&new_token(name, "alice", TokenExpiry::Never)).is_ok()).count()
                })
            })
            .collect();
        runs.into_iter().map(|run| run.join().expect("joins")).sum()
    });
    assert_eq!(created, 5);
    let refused = store.add_token(&new_token("bbbbbbbb", "alice", TokenExpiry::Never));
    assert!(matches!(refused, Err(StoreError::Policy(PolicyViolation::TooManyTokens(5)))), "{refused:?}");
}

#[test]
fn token_state_includes_ancestors() {
    let (_temp_dir, store) = open_temp_store();
    store.create_user(&login("alice"), &[], now()).expect("user");
    store.add_token(&new_token("aaaaaaaa", "alice", sliding_expiry(60, 600))).expect("stored");
    let child = NewTokenRow { parent: Some(id("aaaaaaaa")), ..new_token("bbbbbbbb", "alice", TokenExpiry::Never) };
    store.add_token(&child).expect("stored");
    assert_eq!(token_state_at(&store, "bbbbbbbb", seconds_later(59)), TokenState::Live);
    assert_eq!(token_state_at(&store, "bbbbbbbb", seconds_later(60)), TokenState::Expired);
    store.revoke_tokens(&[id("aaaaaaaa")], seconds_later(1)).expect("revoked");
    assert_eq!(token_state_at(&store, "bbbbbbbb", seconds_later(60)), TokenState::Revoked);
}

#[test]
fn revocation_is_atomic_and_keeps_first_timestamp() {
    let (_temp_dir, store) = open_temp_store();
    store.create_user(&login("alice"), &[], now()).expect("user");
    store.add_token(&new_token("aaaaaaaa", "alice", TokenExpiry::Never)).expect("stored");
    store.add_token(&new_token("bbbbbbbb", "alice", TokenExpiry::Never)).expect("stored");
    assert!(store.revoke_tokens(&[id("aaaaaaaa"), id("zzzzzzzz")], now()).is_err());
    assert_eq!(token_state_at(&store, "aaaaaaaa", now()), TokenState::Live);
    store.revoke_tokens(&[id("aaaaaaaa")], now()).expect("revoked");
    store.revoke_tokens(&[id("aaaaaaaa")], seconds_later(9)).expect("repeated");
    let record = store.token(id("aaaaaaaa"), now()).expect("read").expect("there");
    assert_eq!(record.revoked_at, Some(now()));
    assert_eq!(store.revoke_user_tokens(&login("alice"), now()).expect("revoked"), 1);
}

#[test]
fn late_uses_neither_move_back_nor_revive_token() {
    let (_temp_dir, store) = open_temp_store();
    store.create_user(&login("alice"), &[], now()).expect("user");
    store.add_token(&new_token("aaaaaaaa", "alice", sliding_expiry(60, 600))).expect("stored");
    let epoch = store.epoch().expect("read");
    store.record_uses(&[token_use_at("aaaaaaaa", 30), token_use_at("aaaaaaaa", 20)], None, false).expect("written");
    assert_eq!(store.epoch().expect("read"), epoch, "a use changes nothing that sessions derive");
    let record = store.token(id("aaaaaaaa"), now()).expect("read").expect("there");
    assert_eq!(record.last_use, Some(last_use_at(30)));
    assert_eq!(record.deadline(), seconds_later(90));
    store.revoke_tokens(&[id("aaaaaaaa")], seconds_later(31)).expect("revoked");
    store.record_uses(&[token_use_at("aaaaaaaa", 40)], None, false).expect("written");
    let record = store.token(id("aaaaaaaa"), now()).expect("read").expect("there");
    assert_eq!((record.last_use, record.state), (Some(last_use_at(30)), TokenState::Revoked));
}

#[test]
fn rotation_keeps_previous_secret_for_grace_only() {
    let (_temp_dir, store) = open_temp_store();
    store.create_user(&login("alice"), &[], now()).expect("user");
    store.add_token(&new_token("aaaaaaaa", "alice", TokenExpiry::Never)).expect("stored");
    let proof = |number: u8| secret_proof(&format!("phc{number}"), number);
    store.rotate_token(id("aaaaaaaa"), &proof(2), Some(seconds_later(10)), now()).expect("rotated");
    let credentials = store.credential_row(id("aaaaaaaa")).expect("read").expect("there");
    assert_eq!(credentials.proof, proof(2));
    assert_eq!(
        credentials.previous_proof.map(|grace| (grace.proof, grace.valid_until)),
        Some((secret_proof("phc", 1), seconds_later(10)))
    );
    store.rotate_token(id("aaaaaaaa"), &proof(3), None, now()).expect("rotated");
    let credentials = store.credential_row(id("aaaaaaaa")).expect("read").expect("there");
    assert_eq!((credentials.proof, credentials.previous_proof), (proof(3), None));
    store.revoke_tokens(&[id("aaaaaaaa")], now()).expect("revoked");
    assert!(store.rotate_token(id("aaaaaaaa"), &proof(4), None, now()).is_err());
}

#[test]
fn tokens_are_paged_and_filtered_by_state() {
    let (_temp_dir, store) = open_temp_store();
    store.set_policy("max-tokens-per-user", "100").expect("set");
    for owner in ["alice", "bob"] {
        store.create_user(&login(owner), &[], now()).expect("user");
        for number in 0..5 {
            store.add_token(&new_token(&format!("{owner:x<6}0{number}"), owner, TokenExpiry::Never)).expect("stored");
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
fn scope_on_deleted_node_is_reported_dangling() {
    let (_temp_dir, store) = open_temp_store();
    store.create_user(&login("alice"), &[], now()).expect("user");
    insert_directory(&store, 0, 0, "");
    insert_directory(&store, 1, 0, "a");
    insert_file(&store, 2, 1, "f");
    let new = NewTokenRow { scopes: Some(vec![scope(2, R)]), ..new_token("aaaaaaaa", "alice", TokenExpiry::Never) };
    store.add_token(&new).expect("stored");
    assert!(!store.token(new.id, now()).expect("read").expect("there").dangling);
    delete_node(&store, 1);
    let record = store.token(new.id, now()).expect("read").expect("there");
    assert!(record.dangling);
    assert_eq!(record.scopes, Some(vec![LocatedScope { node: node(2), permission: R, path: None }]));
    assert_eq!(record.scopes.map(|s| s[0].node), Some(node(2)));
}

#[test]
fn token_listing_uses_primary_key_index() {
    let (_temp_dir, store) = open_temp_store();
    store.create_user(&login("alice"), &[], now()).expect("user");
    let lifetime = Lifetime::from_secs(60).expect("in range");
    store
        .add_token(&new_token("aaaaaaaa", "alice", TokenExpiry::Hard(now().saturating_add(lifetime.as_duration()))))
        .expect("stored");
    let plan = store
        .read(|c| {
            let state = state_sql(WINDOW_SQL);
            let query = format!("SELECT {RECORD_COLUMNS}, {state} FROM tokens t JOIN users u ON u.id = t.user_id WHERE t.id > :after ORDER BY t.id LIMIT 5");
            query_plan(c, &query, named_params! {":after": "", ":now": now()})
        })
        .expect("planned");
    assert!(!plan.contains("TEMP B-TREE") && !plan.contains("SCAN t\n"), "{plan}");
}

#[test]
fn revoking_1000_tokens_fits_in_half_the_ballast() {
    let (_temp_dir, store) = open_temp_store();
    store.create_user(&login("alice"), &[], now()).expect("user");
    store.set_policy("max-tokens-per-user", "2000").expect("set");
    for number in 0..1000 {
        store
            .add_token(&new_token(&format!("{number:08}"), "alice", TokenExpiry::Hard(seconds_later(86_400))))
            .expect("stored");
    }
    let state = store.state_dir().to_owned();
    empty_write_ahead_log(&store);
    let size =
        || ["patgate.db", "patgate.db-wal"].map(|name| std::fs::metadata(state.join(name)).expect("there").len());
    let before: u64 = size().iter().sum();
    let acting = store.with_audit_context(AuditContext { actor: Actor::Server, peer: None, at: now() });
    assert_eq!(acting.revoke_user_tokens(&login("alice"), now()).expect("revoked"), 1000);
    let log = size()[1];
    empty_write_ahead_log(&store);
    let grown = log + size()[0].saturating_sub(before);
    assert!(grown > 100_000 && grown < 8 << 20, "{grown} bytes");
    eprintln!("{grown} bytes");
}
