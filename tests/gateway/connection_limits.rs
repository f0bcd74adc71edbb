//! Limits on connections, of unauthenticated clients and of users: at a limit nobody else is blocked, idle connections
//! are closed first, and buffers of unread responses are bounded. Slow peers are in `slow_peers.rs`, limits of SSH in
//! `ssh.rs`.

use std::net::SocketAddr;
use std::time::Duration;

use patgate::auth::Clock;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};

use crate::support::Fixture;

/// Seconds after which something that has to come is taken as lost.
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(30);

async fn start_with_limits(connections: usize, per_user: usize, strangers: usize, per_address: usize) -> Fixture {
    let limits = patgate::net::ConnectionLimits {
        connections,
        per_user,
        unauthenticated: strangers,
        unauthenticated_per_address: per_address,
    };
    let gateway = Fixture::start_with(Clock::system(), |settings| {
        settings.http_connection_limits = limits;
        settings.sftp_connection_limits = limits;
    })
    .await;
    gateway.create_user("alice", &["/:rw"]);
    gateway.create_user("bob", &["/:rw"]);
    gateway
}

async fn connect_from(last: u8, to: SocketAddr) -> TcpStream {
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.bind(([127, 0, 0, last], 0).into()).expect("an address");
    socket.connect(to).await.expect("a connection")
}

fn request_head(method: &str, path: &str, authorization: &str, length: usize) -> String {
    format!("{method} {path} HTTP/1.1\r\nHost: x\r\nAuthorization: {authorization}\r\nContent-Length: {length}\r\n\r\n")
}

/// Reads the head of one answer; empty where the connection ends before.
async fn read_response_head(stream: &mut TcpStream) -> String {
    let mut head = Vec::new();
    let read = async {
        while !head.ends_with(b"\r\n\r\n") {
            match stream.read_u8().await {
                Ok(byte) => head.push(byte),
                Err(_) => break,
            }
        }
    };
    tokio::time::timeout(RESPONSE_TIMEOUT, read).await.expect("an answer in time");
    String::from_utf8(head).expect("text")
}

/// Waits until the server has ended a connection.
async fn wait_for_close(stream: &mut TcpStream) {
    let end = tokio::time::timeout(RESPONSE_TIMEOUT, stream.read(&mut [0])).await.expect("an end in time");
    assert!(matches!(end, Ok(0) | Err(_)), "the connection goes on");
}

#[tokio::test(flavor = "multi_thread")]
async fn silent_unauthenticated_connections_do_not_block_others() {
    let gateway = start_with_limits(64, 16, 8, 2).await;
    let token = gateway.create_token("alice", &["-e", "1h"]);
    let dav = gateway.dav("alice", &token);
    let mut silent = Vec::new();
    for last in 1..=4 {
        for _ in 0..2 {
            let mut web = connect_from(last, gateway.http).await;
            web.write_all(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n").await.expect("sent");
            assert!(read_response_head(&mut web).await.starts_with("HTTP/1.1 200"));
            silent.push(web);
            silent.push(connect_from(last, gateway.sftp).await);
        }
    }
    let unauthenticated = dav.with_local_address(([127, 0, 0, 9]).into());
    assert_eq!(unauthenticated.send("PROPFIND", "/dav/", &[("depth", "0")], "").await.status, 207);
    let mut sftp = gateway.sftp("alice", &token).await;
    assert!(sftp.stat("/").await.is_ok());
    // Evicted connections were closed.
    let mut closed = 0;
    for stream in &mut silent {
        let mut rest = Vec::new();
        let end = tokio::time::timeout(Duration::from_millis(100), stream.read_to_end(&mut rest)).await;
        closed += usize::from(end.is_ok());
    }
    assert!(closed >= 2, "nobody made room");
    gateway.run_cli(&["apitoken", "revoke", crate::support::token_id(&token)]);
    assert_eq!(unauthenticated.send("PROPFIND", "/dav/", &[("depth", "0")], "").await.status, 401);
}

#[tokio::test(flavor = "multi_thread")]
async fn concurrent_first_uploads_from_one_address_all_succeed() {
    let gateway = start_with_limits(256, 128, 8, 4).await;
    let authorization = gateway.dav("alice", &gateway.create_token("alice", &["-e", "1h"])).authorization().to_owned();
    let upload = |number: usize| {
        let (authorization, to) = (authorization.clone(), gateway.http);
        async move {
            let mut stream = connect_from(1, to).await;
            let head = request_head("PUT", &format!("/dav/file-{number}"), &authorization, 6);
            stream.write_all(head.as_bytes()).await.expect("sent");
            stream.write_all(b"one").await.expect("sent");
            // All of them are under way at once: more than the limit on unauthenticated connections of one address.
            tokio::time::sleep(Duration::from_millis(500)).await;
            stream.write_all(b"two").await.expect("sent");
            read_response_head(&mut stream).await
        }
    };
    let mut uploads = tokio::task::JoinSet::new();
    for number in 0..32 {
        uploads.spawn(upload(number));
    }
    for answered in uploads.join_all().await {
        assert!(answered.starts_with("HTTP/1.1 201"), "{answered:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn per_user_connection_limit_leaves_capacity_and_answers_503() {
    let gateway = start_with_limits(64, 2, 16, 16).await;
    let alice = gateway.dav("alice", &gateway.create_token("alice", &["-e", "1h"])).authorization().to_owned();
    let bob = gateway.dav("bob", &gateway.create_token("bob", &["-e", "1h"]));
    let mut busy = Vec::new();
    for number in 0..2 {
        let mut stream = connect_from(1, gateway.http).await;
        let head = request_head("PUT", &format!("/dav/{number}"), &alice, 6)
            .replace("\r\n\r\n", "\r\nExpect: 100-continue\r\n\r\n");
        stream.write_all(head.as_bytes()).await.expect("sent");
        assert!(read_response_head(&mut stream).await.starts_with("HTTP/1.1 100"), "the upload begins");
        busy.push(stream);
    }
    let mut third = connect_from(2, gateway.http).await;
    third.write_all(request_head("GET", "/dav/", &alice, 0).as_bytes()).await.expect("sent");
    let answered = read_response_head(&mut third).await.to_lowercase();
    assert!(answered.starts_with("http/1.1 503"), "{answered}");
    assert!(answered.contains("retry-after: 1") && answered.contains("connection: close"), "{answered}");
    assert_eq!(bob.put("/dav/of-bob", "x").await.status, 201);
    for mut stream in busy {
        stream.write_all(b"onetwo").await.expect("sent");
        assert!(read_response_head(&mut stream).await.starts_with("HTTP/1.1 201"));
        // It waits now, and makes room.
        let mut next = connect_from(2, gateway.http).await;
        let mut answered = String::new();
        for _ in 0..100 {
            next.write_all(request_head("PUT", "/dav/next", &alice, 0).as_bytes()).await.expect("sent");
            answered = read_response_head(&mut next).await;
            if !answered.starts_with("HTTP/1.1 503") {
                break;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
            next = connect_from(2, gateway.http).await;
        }
        assert!(answered.starts_with("HTTP/1.1 20"), "{answered:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_close_when_token_is_revoked_or_user_disabled() {
    let gateway = start_with_limits(64, 16, 16, 16).await;
    for (end, by_user) in [("revoke", false), ("disable", true)] {
        let token = gateway.create_token("alice", &["-e", "1h"]);
        let authorization = gateway.dav("alice", &token).authorization().to_owned();
        let mut stream = connect_from(1, gateway.http).await;
        stream.write_all(request_head("PUT", "/dav/a", &authorization, 0).as_bytes()).await.expect("sent");
        assert!(read_response_head(&mut stream).await.starts_with("HTTP/1.1 20"));
        match by_user {
            false => gateway.run_cli(&["apitoken", end, crate::support::token_id(&token)]),
            true => gateway.run_cli(&["admin", "user", end, "alice"]),
        };
        wait_for_close(&mut stream).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn idle_connection_is_closed_over_http1_and_http2() {
    let idle =
        |settings: &mut patgate::gateway::GatewaySettings| settings.http_idle_timeout = Duration::from_millis(300);
    let gateway = Fixture::start_with(Clock::system(), idle).await;
    let authorization =
        gateway.dav("alice", &gateway.create_user_and_token("alice", "/:rw")).authorization().to_owned();
    let mut first = connect_from(1, gateway.http).await;
    first.write_all(request_head("PUT", "/dav/a", &authorization, 0).as_bytes()).await.expect("sent");
    assert!(read_response_head(&mut first).await.starts_with("HTTP/1.1 201"));
    wait_for_close(&mut first).await;
    let stream = connect_from(1, gateway.http).await;
    let (mut requests, connection) = h2::client::handshake(stream).await.expect("HTTP/2");
    let connection = tokio::spawn(connection);
    let get = http::Request::get(format!("http://{}/dav/a", gateway.http)).header("authorization", &authorization);
    let (response, _) = requests.send_request(get.body(()).expect("a request"), true).expect("sent");
    assert_eq!(response.await.expect("an answer").status(), 200);
    tokio::time::timeout(RESPONSE_TIMEOUT, connection)
        .await
        .expect("an end in time")
        .expect("joined")
        .expect("in order");
}

#[tokio::test(flavor = "multi_thread")]
async fn http2_flow_control_window_is_small_before_authentication() {
    let gateway = Fixture::start().await;
    let authorization =
        gateway.dav("alice", &gateway.create_user_and_token("alice", "/:rw")).authorization().to_owned();
    let stream = connect_from(1, gateway.http).await;
    let (requests, connection) = h2::client::handshake(stream).await.expect("HTTP/2");
    tokio::spawn(connection);
    let mut requests = requests.ready().await.expect("ready");
    let put = |path: &str| {
        let request = http::Request::put(format!("http://{}{path}", gateway.http));
        request.header("authorization", &authorization).header("expect", "100-continue").body(()).expect("a request")
    };
    let mut capacity = Vec::new();
    for path in ["/dav/first", "/dav/second"] {
        let (response, mut body) = requests.send_request(put(path), false).expect("sent");
        body.reserve_capacity(8 << 20);
        let expected = if capacity.is_empty() { 1 } else { 65_536 };
        let enough = async {
            while body.capacity() < expected {
                std::future::poll_fn(|cx| body.poll_capacity(cx)).await.expect("open").expect("capacity");
            }
        };
        tokio::time::timeout(RESPONSE_TIMEOUT, enough).await.expect("a window in time");
        capacity.push(body.capacity());
        body.send_data("content".into(), true).expect("sent");
        assert_eq!(response.await.expect("an answer").status(), 201);
    }
    assert!(capacity[0] <= 65_535, "{capacity:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn unread_http2_responses_are_bounded_per_user() {
    let gateway = Fixture::start().await;
    gateway.write_host_file("/large", vec![7; 1 << 20]);
    let alice = gateway.dav("alice", &gateway.create_user_and_token("alice", "/:rw")).authorization().to_owned();
    let bob = gateway.dav("bob", &gateway.create_user_and_token("bob", "/:rw"));
    let get = || {
        let request = http::Request::get(format!("http://{}/dav/large", gateway.http));
        request.header("authorization", &alice).body(()).expect("a request")
    };
    let (mut unread, mut refused) = (Vec::new(), 0);
    for _ in 0..6 {
        let stream = connect_from(1, gateway.http).await;
        let (requests, connection) = h2::client::handshake(stream).await.expect("HTTP/2");
        tokio::spawn(connection);
        let mut requests = requests.ready().await.expect("ready");
        for _ in 0..60 {
            requests = requests.ready().await.expect("ready");
            let (response, _) = requests.send_request(get(), true).expect("sent");
            let response = tokio::time::timeout(RESPONSE_TIMEOUT, response).await.expect("in time").expect("an answer");
            match response.status().as_u16() {
                // None of it is read.
                200 => unread.push(response),
                503 => {
                    assert!(response.headers().contains_key("retry-after"));
                    refused += 1;
                }
                other => panic!("{other}"),
            }
        }
    }
    assert_eq!((unread.len(), refused), (256, 104), "64 MiB at 256 KiB each");
    assert_eq!(bob.get("/dav/large").await.body.len(), 1 << 20);
    drop(unread);
    for _ in 0..100 {
        let stream = connect_from(1, gateway.http).await;
        let (mut requests, connection) = h2::client::handshake(stream).await.expect("HTTP/2");
        tokio::spawn(connection);
        let (response, _) = requests.send_request(get(), true).expect("sent");
        if response.await.expect("an answer").status() == 200 {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("what was held is not given back");
}

#[tokio::test(flavor = "multi_thread")]
async fn small_http2_responses_count_toward_the_limit_until_they_are_read() {
    const BYTES: usize = 60_000;
    let gateway = Fixture::start().await;
    gateway.write_host_file("/small", vec![7; BYTES]);
    let alice = gateway.dav("alice", &gateway.create_user_and_token("alice", "/:rw")).authorization().to_owned();
    let (mut unread, mut refused) = (Vec::new(), 0);
    for _ in 0..20 {
        let stream = connect_from(1, gateway.http).await;
        // The window has a byte for each response, and never more: all of the file but this byte waits.
        let mut client = h2::client::Builder::new();
        let (requests, connection) =
            client.initial_window_size(1).handshake::<_, bytes::Bytes>(stream).await.expect("HTTP/2");
        tokio::spawn(connection);
        let mut requests = requests.ready().await.expect("ready");
        for _ in 0..60 {
            requests = requests.ready().await.expect("ready");
            let request = http::Request::get(format!("http://{}/dav/small", gateway.http));
            let request = request.header("authorization", &alice).body(()).expect("a request");
            let (response, _) = requests.send_request(request, true).expect("sent");
            let response = tokio::time::timeout(RESPONSE_TIMEOUT, response).await.expect("in time").expect("an answer");
            match response.status().as_u16() {
                200 => unread.push(response),
                503 => refused += 1,
                other => panic!("{other}"),
            }
        }
    }
    assert_eq!((unread.len(), refused), ((64 << 20) / BYTES, 20 * 60 - (64 << 20) / BYTES), "64 MiB of them");
}

#[tokio::test(flavor = "multi_thread")]
async fn unread_propfind_responses_are_bounded_per_user() {
    let gateway = Fixture::start().await;
    for number in 0..1000 {
        gateway.write_host_file(&format!("/many/{number}"), vec![7]);
    }
    let alice = gateway.dav("alice", &gateway.create_user_and_token("alice", "/:rw"));
    let stream = connect_from(1, gateway.http).await;
    let mut client = h2::client::Builder::new();
    let (requests, connection) =
        client.initial_window_size(1).handshake::<_, bytes::Bytes>(stream).await.expect("HTTP/2");
    tokio::spawn(connection);
    let (mut requests, mut unread) = (requests, Vec::new());
    for _ in 0..6 {
        requests = requests.ready().await.expect("ready");
        let request = http::Request::builder().method("PROPFIND").uri(format!("http://{}/dav/many/", gateway.http));
        let request = request.header("depth", "infinity").header("authorization", alice.authorization());
        let (response, _) = requests.send_request(request.body(()).expect("a request"), true).expect("sent");
        let response = tokio::time::timeout(RESPONSE_TIMEOUT, response).await.expect("in time").expect("an answer");
        assert_eq!(response.status(), 207);
        unread.push(response);
    }
    // One that is held whole has a length. The others are written while they are sent.
    let complete = unread.iter().filter(|response| response.headers().contains_key("content-length")).count();
    assert_eq!(complete, 4, "16 MiB at 4 MiB each");
    let streamed = alice.send("PROPFIND", "/dav/many/", &[("depth", "infinity")], "").await;
    assert_eq!(streamed.text().matches("<D:response>").count(), 1001);
    drop((unread, requests));
}
