//! How the costs grow with what is kept: the same questions to a store with ten tokens of one user, and
//! to one with 100,000 tokens of 1,000 users, five of them revoked, a twentieth expired, a tenth
//! made with others and a third with a scope.
//!
//! `cargo bench --bench bench_scale` prints the figures that the README shows.

#![allow(missing_docs, clippy::expect_used)]

use std::hint::black_box;
use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;
use std::time::Duration;

use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use patgate::auth::{AuthError, Authenticator, Clock, Credential, generate_token};
use patgate::domain::{ForeignRoles, Peer, Protocol, Roles, TokenExpiry, TokenId, TokenLimits, TokenText};
use patgate::gateway::{Gateway, GatewayDependencies, GatewaySettings};
use patgate::sftp::HostKeys;
use patgate::store::{NewTokenRow, Store, TokenProof};
use patgate::tokens::{Principal, StateFilter, TokenQuery, TokenService};
use tempfile::TempDir;
use tokio::runtime::Runtime;
use zeroize::Zeroizing;

/// A state directory with so much in it, and one token whose secret is known.
struct BenchState {
    folder: TempDir,
    store: Store,
    auth: Authenticator,
    tokens: TokenService,
    known_token: TokenText,
}

impl BenchState {
    fn new(tokens: u32, users: u32) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        std::fs::create_dir(folder.path().join("files")).expect("a folder");
        let (state, clock) = (folder.path().join("state"), Clock::system());
        let store = Store::open(&state).expect("a store");
        let auth = Authenticator::new(store.clone(), clock.clone()).expect("an authenticator");
        let known = generate_token().expect("random");
        store.create_user(&"alice".parse().expect("login"), &[], clock.now()).expect("a user");
        let sealed = auth.secret_hasher().hash(known.secret()).expect("sealed");
        let new = NewTokenRow {
            id: known.id(),
            login: "alice".parse().expect("login"),
            parent: None,
            name: "known".to_owned(),
            description: String::new(),
            proof: TokenProof::Secret(sealed),
            created_at: clock.now(),
            expiry: TokenExpiry::Never,
            scopes: None,
            limits: TokenLimits::default(),
            roles: Roles::none(),
            foreign_roles: ForeignRoles::default(),
        };
        store.add_token(&new).expect("a token");
        fill_store(&state, tokens - 1, users, clock.now().as_millis());
        let tokens = TokenService::new(store.clone(), clock);
        Self { folder, store, auth, tokens, known_token: known }
    }

    fn settings(&self) -> GatewaySettings {
        let mut settings = GatewaySettings::new(self.folder.path().join("files"), self.folder.path().join("state"));
        settings.http = Some((Ipv4Addr::LOCALHOST, 0).into());
        settings.sftp = Some((Ipv4Addr::LOCALHOST, 0).into());
        settings
    }
}

/// Fills a store by its rows, in one transaction.
fn fill_store(state: &Path, tokens: u32, users: u32, now: i64) {
    let database = rusqlite::Connection::open(state.join("patgate.db")).expect("the database");
    database
        .execute_batch(&format!(
            "BEGIN;
             WITH RECURSIVE n (i) AS (VALUES (1) UNION ALL SELECT i + 1 FROM n WHERE i < {users})
             INSERT INTO users (login, created_at) SELECT printf('user%05d', i), {now} FROM n;
             WITH RECURSIVE n (i) AS (VALUES (1) UNION ALL SELECT i + 1 FROM n WHERE i < {tokens})
             INSERT INTO tokens (id, user_id, name, phc, prefilter, created_at, hard_limit_at, scoped, revoked_at, expiry_recorded)
             SELECT printf('%08d', i * 797), 2 + i % {users}, printf('token %d', i),
                    '$argon2id$v=19$m=19456,t=2,p=1$' || hex(randomblob(11)) || '$' || hex(randomblob(21)),
                    randomblob(8), {now}, iif(i % 20 = 1, {now} - 1000, {now} + 8000000000), 0,
                    iif(i % 20000 = 2, {now}, NULL), i % 20 = 1
             FROM n;
             INSERT INTO nodes (id, name, is_directory) VALUES (zeroblob(16), x'', 1);
             UPDATE tokens SET scoped = 1 WHERE name <> 'known' AND (id / 797) % 3 = 0;
             INSERT INTO scopes (token_id, node, permission) SELECT id, zeroblob(16), 1 FROM tokens WHERE scoped;
             UPDATE tokens SET parent = printf('%08d', (substr(id, 1) / 797 - 1) * 797)
             WHERE name <> 'known' AND (id / 797) % 10 = 5;
             COMMIT;
             ANALYZE;"
        ))
        .expect("filled");
}

fn peer(address: u32) -> Peer {
    let address = IpAddr::from(Ipv4Addr::from(0x0a00_0000 | (address & 0x00ff_ffff)));
    Peer { protocol: Protocol::Webdav, address, user_agent: Some("bench/1".to_owned()) }
}

fn credential(text: &TokenText) -> Credential {
    Credential { login: None, token: Zeroizing::new(text.reveal().as_bytes().to_vec()) }
}

/// A token of one that is kept, with a secret of nobody.
fn wrong_secret(number: u32) -> TokenText {
    let id: TokenId = format!("{:08}", u64::from(number) * 797).parse().expect("id");
    TokenText::new(id, patgate::auth::generate_secret().expect("random"))
}

fn bench_scale(c: &mut Criterion) {
    let runtime = Runtime::new().expect("a runtime");
    for (word, tokens, users) in [("10 tokens", 10, 1), ("100,000 tokens", 100_000, 1_000)] {
        let site = BenchState::new(tokens, users);
        let mut group = c.benchmark_group(word);
        bench_authentication(&mut group, &runtime, &site, tokens);
        bench_lookups(&mut group, &site);
        bench_startup(&mut group, &runtime, &site);
        group.finish();
    }
}

type ScaleGroup<'a> = criterion::BenchmarkGroup<'a, criterion::measurement::WallTime>;

fn bench_authentication(group: &mut ScaleGroup<'_>, runtime: &Runtime, site: &BenchState, tokens: u32) {
    group.bench_function("authenticate, proven lately", |b| {
        let login = || runtime.block_on(site.auth.authenticate(credential(&site.known_token), peer(1)));
        login().expect("let in");
        b.iter(|| black_box(login().expect("let in")));
    });
    let mut number = 0;
    group.bench_function("authenticate, a wrong secret", |b| {
        b.iter_batched(
            || {
                number += 1;
                (credential(&wrong_secret(1 + number % (tokens - 1))), peer(number))
            },
            |(credential, peer)| match runtime.block_on(site.auth.authenticate(credential, peer)) {
                Err(AuthError::Denied | AuthError::Throttled(_)) => {}
                other => panic!("let in or failed: {other:?}"),
            },
            BatchSize::SmallInput,
        );
    });
}

fn bench_lookups(group: &mut ScaleGroup<'_>, site: &BenchState) {
    let all = TokenQuery { after: "5".repeat(8).parse().ok(), ..TokenQuery::default() };
    let of_one = TokenQuery { owner: "user00001".parse().ok(), ..TokenQuery::default() };
    let in_state = |state| TokenQuery { state: Some(state), ..all.clone() };
    for (word, query) in [
        ("list a page of 50", all.clone()),
        ("list a page of 50, of one owner", of_one),
        ("list a page of 50, live", in_state(StateFilter::Live)),
        ("list a page of 50, expired", in_state(StateFilter::Expired)),
        ("list all five revoked", TokenQuery { state: Some(StateFilter::Revoked), ..TokenQuery::default() }),
    ] {
        group.bench_function(word, |b| {
            b.iter(|| black_box(site.tokens.list(&Principal::Administrator, &query, 50).expect("a page")));
        });
    }
    let who = Principal::Administrator;
    group.bench_function("those that end soon", |b| {
        b.iter(|| black_box(site.tokens.expiring(&who, None, 5).expect("found")));
    });
    group.bench_function("those that name what is gone", |b| {
        b.iter(|| black_box(site.tokens.dangling(&who, None, 5).expect("found")));
    });
    group.bench_function("clean-up with nothing to do", |b| b.iter(|| site.tokens.apply_retention().expect("tidied")));
}

fn bench_startup(group: &mut ScaleGroup<'_>, runtime: &Runtime, site: &BenchState) {
    let keys = HostKeys::ephemeral();
    group.bench_function("start", |b| {
        b.iter(|| {
            let parts = GatewayDependencies {
                clock: Clock::system(),
                host_keys: Some(keys.clone()),
                ..GatewayDependencies::default()
            };
            drop(runtime.block_on(Gateway::open(site.settings(), parts)).expect("it starts"));
        });
    });
    assert!(site.store.latest_event_id().is_ok());
}

criterion_group! {
    name = benches;
    config = Criterion::default()
        .sample_size(20)
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(3));
    targets = bench_scale
}
criterion_main!(benches);
