//! How long pages of the console take where there is much to show: a list of 10,000 tokens, all of one
//! user, and a folder of 10,000 files, over HTTP, as a browser asks for them.
//!
//! `cargo bench --bench console`; the aim is 200 ms a page.

#![allow(missing_docs, clippy::expect_used)]

use std::path::Path;
use std::time::Duration;

use criterion::{Criterion, criterion_group, criterion_main};
use patgate::auth::{Clock, generate_token};
use patgate::domain::{ForeignRoles, Roles, TokenExpiry, TokenLimits};
use patgate::gateway::{Gateway, GatewayDependencies, GatewaySettings};
use patgate::sftp::HostKeys;
use patgate::store::{NewTokenRow, TokenProof};
use patgate::tokens::{Grant, HomeOption, Principal, TokenService, UserRequest};
use reqwest::header::{COOKIE, SET_COOKIE};
use tokio::runtime::Runtime;
use tokio_util::sync::CancellationToken;

const TOKEN_COUNT: u32 = 10_000;

/// Makes many tokens of the first user, a third of them with a scope.
fn fill_store(state: &Path, now: i64) {
    let database = rusqlite::Connection::open(state.join("patgate.db")).expect("the database");
    database
        .execute_batch(&format!(
            "BEGIN;
             WITH RECURSIVE n (i) AS (VALUES (1) UNION ALL SELECT i + 1 FROM n WHERE i < {TOKEN_COUNT})
             INSERT INTO tokens (id, user_id, name, phc, prefilter, created_at, hard_limit_at, scoped)
             SELECT printf('%08d', i * 797), (SELECT min(id) FROM users), printf('token %d', i),
                    '$argon2id$v=19$m=19456,t=2,p=1$' || hex(randomblob(11)) || '$' || hex(randomblob(21)),
                    randomblob(8), {now}, {now} + 8000000000, i % 3 = 0
             FROM n;
             INSERT INTO scopes (token_id, node, permission)
             SELECT id, (SELECT node FROM grants LIMIT 1), 1 FROM tokens WHERE scoped;
             COMMIT;
             ANALYZE;"
        ))
        .expect("filled");
}

fn settings(folder: &Path) -> GatewaySettings {
    let mut settings = GatewaySettings::new(folder.join("files"), folder.join("state"));
    settings.http = Some(([127, 0, 0, 1], 0).into());
    settings.sftp = None;
    settings
}

/// Serves a folder with much in it; returns where, and the cookie of one who is signed in.
async fn start_with_many_tokens(folder: &Path, stop: CancellationToken) -> (String, String) {
    let many = folder.join("files/many");
    std::fs::create_dir_all(&many).expect("a folder");
    for number in 0..TOKEN_COUNT {
        std::fs::write(many.join(format!("file {number}")), "").expect("a file");
    }
    let parts = GatewayDependencies {
        clock: Clock::system(),
        host_keys: Some(HostKeys::ephemeral()),
        ..GatewayDependencies::default()
    };
    let gateway = Gateway::open(settings(folder), parts).await.expect("it starts");
    let tokens = TokenService::new(gateway.store().clone(), Clock::system()).with_tree(gateway.tree().clone());
    let login: patgate::domain::Login = "alice".parse().expect("a login");
    let grants = vec!["/many:rw".parse::<Grant>().expect("a grant")];
    let user = UserRequest { login: login.clone(), roles: Roles::none(), grants, home: HomeOption::Skip, quota: None };
    tokens.create_user(&Principal::Administrator, &user).expect("a user");
    let (text, now) = (generate_token().expect("random"), Clock::system().now());
    let known = NewTokenRow {
        id: text.id(),
        login,
        parent: None,
        name: "known".to_owned(),
        description: String::new(),
        proof: TokenProof::Secret(gateway.auth().secret_hasher().hash(text.secret()).expect("sealed")),
        created_at: now,
        expiry: TokenExpiry::Never,
        scopes: None,
        limits: TokenLimits::default(),
        roles: Roles::none(),
        foreign_roles: ForeignRoles::default(),
    };
    gateway.store().add_token(&known).expect("a token");
    fill_store(&folder.join("state"), now.as_millis());
    let base = format!("http://{}", gateway.http_address().expect("an address"));
    tokio::spawn(gateway.run(stop));
    let client = client();
    let form = format!("login=alice&token={}", &*text.reveal());
    let request = client.post(format!("{base}/console/sign-in"));
    let request = request.header("content-type", "application/x-www-form-urlencoded").body(form);
    let answer = request.send().await.expect("an answer");
    let cookie = answer.headers().get(SET_COOKIE).expect("a cookie").to_str().expect("text");
    (base, cookie.split(';').next().expect("a pair").to_owned())
}

fn client() -> reqwest::Client {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let client = reqwest::Client::builder().no_proxy().redirect(reqwest::redirect::Policy::none()).build();
    client.expect("a client")
}

fn bench_pages(c: &mut Criterion) {
    let runtime = Runtime::new().expect("a runtime");
    let (folder, stop) = (tempfile::tempdir().expect("a folder"), CancellationToken::new());
    let (base, cookie) = runtime.block_on(start_with_many_tokens(folder.path(), stop.clone()));
    let client = client();
    let mut group = c.benchmark_group("console");
    let cases = [
        ("the first of 10,000 tokens", "/console/tokens"),
        ("tokens in the middle", "/console/tokens?after=04000000"),
        ("tokens in the middle, backwards", "/console/tokens?before=04000000"),
        ("tokens by a part of their name", "/console/tokens?find=token%209999"),
        ("the first of 10,000 files", "/console/files/many"),
        ("files in the middle", "/console/files/many?after=fZmlsZSA1MDAw"),
        ("files by a part of their name", "/console/files/many?find=file%209999"),
    ];
    for (name, page) in cases {
        group.bench_function(name, |b| {
            b.iter(|| {
                let answer = client.get(format!("{base}{page}")).header(COOKIE, &cookie).send();
                let answer = runtime.block_on(async { answer.await.expect("an answer").text().await.expect("a page") });
                assert!(answer.contains("Sign out"), "{answer}");
            });
        });
    }
    group.finish();
    stop.cancel();
}

criterion_group! {
    name = benches;
    config = Criterion::default()
        .sample_size(20)
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(3));
    targets = bench_pages
}
criterion_main!(benches);
