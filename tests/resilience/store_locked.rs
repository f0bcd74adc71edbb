//! A store that another process holds locked: writes are refused within a bounded time, reads are answered.

use std::time::{Duration, Instant};

use rusqlite::Connection;

use crate::support::{Fixture, HttpResponse, LOCK_BODY, RestClient, SftpError, token_id};

/// Long enough for any machine, and far less than what a queue without end would take.
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(120);
/// Number of concurrent callers.
const CONCURRENT_CALLERS: usize = 60;

fn is_busy(answer: &HttpResponse) -> bool {
    answer.status == 503 && answer.headers.contains_key("retry-after") && answer.text().contains("store is busy")
}

#[tokio::test(flavor = "multi_thread")]
async fn locked_store_answers_busy_in_bounded_time_without_partial_writes() {
    let gateway = Fixture::start().await;
    gateway.create_user("root", &["/:rw"]);
    gateway.run_cli(&["admin", "user", "roles", "root", "admin"]);
    let admin = RestClient::new(gateway.dav("root", &gateway.create_token("root", &["-e", "1h", "--role", "admin"])));
    gateway.create_host_directory("named");
    gateway.create_user("alice", &["/:rw", "/named:rw"]);
    let alice = gateway.create_token("alice", &["-e", "1h"]);
    let victim = gateway.create_token("alice", &["-e", "1h"]);
    let dav = gateway.dav("alice", &alice);
    let mut sftp = gateway.sftp("alice", &alice).await;
    assert_eq!(dav.put("/dav/a", "x").await.status, 201);

    let holder = Connection::open(gateway.state().join("patgate.db")).expect("opens");
    holder.busy_timeout(RESPONSE_TIMEOUT).expect("set");
    holder.execute_batch("BEGIN IMMEDIATE").expect("held");
    let since = Instant::now();
    let mut calls = tokio::task::JoinSet::new();
    for number in 0..CONCURRENT_CALLERS {
        let dav = gateway.dav("alice", &alice);
        // Locks, properties, and changes of what a grant names: each has a guard of its own.
        calls.spawn(async move {
            match number % 3 {
                0 => dav.send("LOCK", &format!("/dav/new{number}"), &[], LOCK_BODY).await,
                1 => {
                    let set = "<set><prop><p xmlns='u:'>x</p></prop></set>";
                    let body = format!("<propertyupdate xmlns='DAV:'>{set}</propertyupdate>");
                    dav.send("PROPPATCH", "/dav/a", &[], body).await
                }
                _ => {
                    let to = dav.url(&format!("/dav/moved{number}"));
                    dav.send("MOVE", "/dav/named", &[("destination", &to)], "").await
                }
            }
        });
    }
    let refused = async {
        while let Some(answer) = calls.join_next().await {
            let answer = answer.expect("joins");
            assert!(is_busy(&answer), "{} {}", answer.status, answer.text());
        }
        assert!(is_busy(
            &admin.send("DELETE", &format!("/api/v1/tokens/{}", token_id(&victim)), serde_json::Value::Null).await
        ));
        let renamed = sftp.rename("/named", "/moved").await;
        assert!(matches!(&renamed, Err(SftpError::Status(4, why)) if why.contains("store is busy")), "{renamed:?}");
    };
    tokio::time::timeout(RESPONSE_TIMEOUT, refused).await.expect("nobody queues behind it");
    eprintln!("{CONCURRENT_CALLERS} callers were refused in {:?}", since.elapsed());
    // Requests that need no write are answered meanwhile.
    assert_eq!(dav.send("PROPFIND", "/dav/", &[("depth", "1")], "").await.status, 207);
    assert_eq!((dav.get("/dav/a").await.status, dav.put("/dav/plain", "x").await.status), (200, 201));
    assert_eq!(gateway.dav("alice", &victim).status("PROPFIND", "/dav/").await, 207);
    assert!(gateway.host_path("/named").exists() && !gateway.host_path("/new0").exists());

    holder.execute_batch("COMMIT").expect("let go");
    assert_eq!(dav.send("LOCK", "/dav/new0", &[], LOCK_BODY).await.status, 201);
    let path = format!("/api/v1/tokens/{}", token_id(&victim));
    assert_eq!(admin.send("DELETE", &path, serde_json::Value::Null).await.status / 100, 2);
    assert_eq!(gateway.dav("alice", &victim).status("PROPFIND", "/dav/").await, 401);
    sftp.rename("/named", "/moved").await.expect("renamed");
}
