//! Clients that try what they may not do: with a grant that comes and goes, in a folder outside of their scope, on a
//! file that somebody else has locked.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::gateway_process::GatewayProcess;
use crate::history::{ALLOWED, DENIED, Outcome, Seen};
use crate::outcome::send;
use crate::random::Random;
use crate::recorder::Recorder;
use crate::support::{DavClient, LOCK_BODY, SftpClient, open_flags, send_raw};
use crate::token_clients::run_command;

/// Grants a path to a user and takes it back, again and again, and looks each time.
pub(crate) async fn toggle_grant(
    recorder: Arc<Recorder>,
    gateway: Arc<GatewayProcess>,
    guest: DavClient,
    mut random: Random,
    stop: Arc<AtomicBool>,
) {
    let register = "grant:/shared";
    let mut is_granted = false;
    while !stop.load(Ordering::Relaxed) {
        let (arguments, value) = if is_granted {
            (["admin", "user", "revoke-grant", "guest", "/shared"], DENIED)
        } else {
            (["admin", "user", "grant", "guest", "/shared:rw"], ALLOWED)
        };
        // Of a command that has failed, on a full disk, it is not known whether it has taken effect: the next one does
        // the other thing, and fails where there was nothing to do.
        is_granted = !is_granted;
        let (span, outcome) = run_command(&recorder, &gateway, "grant or revoke a grant", &arguments).await;
        recorder.permission(register, value, span, outcome);
        for _ in 0..1 + random.below(20) {
            let answer = send(&recorder, "use of a grant", &guest, ("GET", "/dav/shared/file"), &[], "").await;
            let seen = match answer.status() {
                200 => ALLOWED,
                // Hidden is answered as missing is.
                403 | 404 => DENIED,
                _ => continue,
            };
            recorder.observe(register, Seen::Value(seen), answer.span, None);
        }
    }
}

/// Locks a file, has another client write to it, and unlocks it.
pub(crate) async fn lock_and_intrude(
    recorder: Arc<Recorder>,
    holder: DavClient,
    intruder: DavClient,
    mut random: Random,
    stop: Arc<AtomicBool>,
) {
    let mut number = 0;
    let mut lock = None;
    while !stop.load(Ordering::Relaxed) {
        let Some((path, token)) = &lock else {
            // A new name each time: a LOCK whose answer was lost holds its name.
            number += 1;
            lock = take_lock(&recorder, &holder, format!("/dav/locked/{number}")).await;
            continue;
        };
        let register = format!("lock:{path}");
        if random.percent(5) {
            let headers = [("lock-token", &**token)];
            let answer = send(&recorder, "UNLOCK", &holder, ("UNLOCK", path), &headers, "").await;
            recorder.permission(&register, ALLOWED, answer.span, answer.outcome);
            if answer.outcome == Outcome::Refused && [400, 403, 409, 412].contains(&answer.status()) {
                recorder.fault(format!("the lock of {path} is gone: UNLOCK was answered with {}", answer.status()));
            }
            if answer.outcome == Outcome::Acknowledged {
                let answer = send(&recorder, "PUT after UNLOCK", &intruder, ("PUT", path), &[], "x").await;
                observe_lock(&recorder, &register, answer.status(), answer.span);
                send(&recorder, "DELETE", &holder, ("DELETE", path), &[], "").await;
            }
            if answer.response.is_none_or(|response| response.status / 100 == 2) {
                lock = None;
            }
        } else {
            let answer = send(&recorder, "PUT without the lock", &intruder, ("PUT", path), &[], "x").await;
            observe_lock(&recorder, &register, answer.status(), answer.span);
        }
    }
}

fn observe_lock(recorder: &Recorder, register: &str, status: u16, span: crate::history::Span) {
    let seen = match status {
        200..300 => ALLOWED,
        423 => DENIED,
        _ => return,
    };
    recorder.observe(register, Seen::Value(seen), span, None);
}

async fn take_lock(recorder: &Recorder, holder: &DavClient, path: String) -> Option<(String, String)> {
    let headers = [("timeout", "Infinite"), ("depth", "0")];
    let answer = send(recorder, "LOCK", holder, ("LOCK", &path), &headers, LOCK_BODY).await;
    let token = answer.response.as_ref().map(|response| response.header("lock-token").to_owned());
    (answer.outcome == Outcome::Acknowledged).then(|| {
        recorder.permission(&format!("lock:{path}"), DENIED, answer.span, Outcome::Acknowledged);
        (path, token.unwrap_or_default())
    })
}

/// Tries to leave a scope that allows to read one folder, over both protocols.
pub(crate) async fn leave_scope(
    recorder: Arc<Recorder>,
    (http, sftp): (SocketAddr, SocketAddr),
    (login, token): (String, String),
    mut random: Random,
    stop: Arc<AtomicBool>,
) {
    // Escapes and dots as they are, which an HTTP library would resolve.
    const REQUESTS: [(&str, &str, &str); 11] = [
        ("GET", "/dav/w1/f0", ""),
        ("GET", "/dav/scoped/../w1/f0", ""),
        ("GET", "/dav/scoped/%2e%2e/w1/f0", ""),
        ("GET", "/dav/scoped%2f..%2fw1%2ff0", ""),
        ("GET", "/dav/scoped/link/f0", ""),
        ("PROPFIND", "/dav/w1/", "Depth: 1\r\n"),
        ("PUT", "/dav/scoped/new", ""),
        ("DELETE", "/dav/scoped/file", ""),
        ("COPY", "/dav/w1/f0", "Destination: /dav/scoped/stolen\r\n"),
        ("COPY", "/dav/scoped/file", "Destination: /dav/w1/f9\r\n"),
        ("MOVE", "/dav/scoped/file", "Destination: /dav/w1/f9\r\n"),
    ];
    let authorization = DavClient::new(http, &login, &token).authorization().to_owned();
    while !stop.load(Ordering::Relaxed) {
        let (method, path, headers) = REQUESTS[random.below(REQUESTS.len())];
        let request = format!(
            "{method} {path} HTTP/1.1\r\nHost: {http}\r\nAuthorization: {authorization}\r\n{headers}\
             Content-Length: 0\r\nConnection: close\r\n\r\n"
        );
        let start = recorder.now();
        if tokio::net::TcpStream::connect(http).await.is_ok() {
            let exchange = tokio::spawn(async move { send_raw(http, request.as_bytes()).await });
            // The server may have ended between the two connections.
            let Ok(response) = exchange.await else { continue };
            let span = recorder.since(start);
            recorder.count("attempt to leave a scope", span, Outcome::Refused);
            if response.starts_with(b"HTTP/1.1 2") {
                recorder.observe(&format!("scope:{method} {path}"), Seen::Value(ALLOWED), span, None);
            }
        }
        if random.percent(10) {
            leave_scope_over_sftp(&recorder, sftp, &login, &token).await;
        }
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
}

async fn leave_scope_over_sftp(recorder: &Recorder, address: SocketAddr, login: &str, token: &str) {
    let Some(mut sftp) = SftpClient::connect(address, login, token).await else { return };
    for (path, flags) in [
        ("/w1/f0", open_flags::READ),
        ("/scoped/../w1/f0", open_flags::READ),
        ("/scoped/new", open_flags::REPLACE),
        ("/scoped/link/f0", open_flags::READ),
    ] {
        let start = recorder.now();
        let opened = sftp.open_file(path.as_bytes(), flags).await.is_ok();
        let span = recorder.since(start);
        recorder.count("attempt to leave a scope", span, Outcome::Refused);
        if opened {
            recorder.observe(&format!("scope:SFTP {path}"), Seen::Value(ALLOWED), span, None);
        }
    }
}
