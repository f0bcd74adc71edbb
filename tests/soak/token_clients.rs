//! Clients that create, use and revoke tokens, over REST and on the command line, and try the revoked ones again for as
//! long as the run lasts.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde_json::json;

use crate::gateway_process::GatewayProcess;
use crate::history::{ALLOWED, DENIED, Outcome, Seen, Span};
use crate::outcome::{send, within_timeout};
use crate::random::Random;
use crate::recorder::Recorder;
use crate::support::{DavClient, SftpClient, token_id};

/// Number of tokens that are live at a time.
const LIVE_TOKENS: usize = 6;
/// Time after which a revoked token must have lost its open sessions: one second, and more on a machine that others use.
const SESSION_END: Duration = Duration::from_secs(10);

/// A client with a token of an administrator.
pub(crate) struct TokenManager {
    pub(crate) recorder: Arc<Recorder>,
    pub(crate) gateway: Arc<GatewayProcess>,
    pub(crate) client: DavClient,
    pub(crate) login: String,
    pub(crate) random: Random,
    pub(crate) live: Vec<String>,
    pub(crate) revoked: Vec<String>,
    /// Ids of tokens whose creation or revocation was acknowledged, for the audit trail.
    pub(crate) acknowledged: Vec<(&'static str, String)>,
}

fn token_register(token: &str) -> String {
    format!("token:{}", token_id(token))
}

impl TokenManager {
    /// Goes on until told to stop; returns the changes that the audit trail must have.
    pub(crate) async fn run(mut self, stop: Arc<AtomicBool>) -> Vec<(&'static str, String)> {
        while !stop.load(Ordering::Relaxed) {
            match self.random.below(100) {
                _ if self.live.len() < LIVE_TOKENS => self.create().await,
                0..15 => self.revoke().await,
                15..18 => self.revoke_with_open_session().await,
                18..60 => self.use_one_of(false).await,
                _ => self.use_one_of(true).await,
            }
        }
        self.acknowledged
    }

    async fn create(&mut self) {
        let body = json!({ "lifetime": "7d", "name": "soak" }).to_string();
        let headers = [("content-type", "application/json")];
        let answer =
            send(&self.recorder, "token create", &self.client, ("POST", "/api/v1/tokens"), &headers, body).await;
        if [401, 403].contains(&answer.status()) {
            self.recorder.fault(format!("the token of an administrator was refused with {}", answer.status()));
        }
        let Some(response) = answer.response.filter(|response| response.status / 100 == 2) else { return };
        let token = response.json()["token"].as_str().unwrap_or_default().to_owned();
        self.recorder.permission(&token_register(&token), ALLOWED, answer.span, Outcome::Acknowledged);
        self.acknowledged.push(("token.created", token_id(&token).to_owned()));
        self.live.push(token);
    }

    async fn revoke(&mut self) {
        let token = self.live.swap_remove(self.random.below(self.live.len()));
        self.revoke_token(&token).await;
        self.revoked.push(token);
    }

    /// Revokes over REST or on the command line; true if that was acknowledged.
    async fn revoke_token(&mut self, token: &str) -> Option<Span> {
        let id = token_id(token).to_owned();
        let (span, outcome) = if self.random.percent(60) {
            let path = format!("/api/v1/tokens/{id}");
            let answer = send(&self.recorder, "token revoke", &self.client, ("DELETE", &path), &[], "").await;
            (answer.span, answer.outcome)
        } else {
            run_command(&self.recorder, &self.gateway, "revoke on the command line", &["apitoken", "revoke", &id]).await
        };
        // A command line that has failed may have written before.
        self.recorder.permission(&token_register(token), DENIED, span, outcome);
        (outcome == Outcome::Acknowledged).then(|| {
            self.acknowledged.push(("token.revoked", id));
            span
        })
    }

    async fn use_one_of(&mut self, revoked: bool) {
        let tokens = if revoked { &self.revoked } else { &self.live };
        if tokens.is_empty() {
            return;
        }
        let token = tokens[self.random.below(tokens.len())].clone();
        if self.random.percent(20) {
            return self.use_over_sftp(&token).await;
        }
        let mut client = DavClient::new(self.gateway.http, &self.login, &token);
        if self.random.percent(30) {
            client = client.with_http2();
        }
        let (method, path) =
            if self.random.percent(50) { ("PROPFIND", "/dav/") } else { ("GET", "/api/v1/tokens/self") };
        let answer = send(&self.recorder, "token use", &client, (method, path), &[("depth", "0")], "").await;
        let seen = match answer.status() {
            200 | 207 => ALLOWED,
            401 => DENIED,
            _ => return,
        };
        self.recorder.observe(&token_register(&token), Seen::Value(seen), answer.span, None);
    }

    async fn use_over_sftp(&mut self, token: &str) {
        let start = self.recorder.now();
        let connecting = SftpClient::connect(self.gateway.sftp, &self.login, token);
        // A login that fails may have met a server that is down: it tells nothing.
        if let Some(Some(_)) = within_timeout(&self.recorder, "SFTP login", start, connecting).await {
            self.recorder.observe(&token_register(token), Seen::Value(ALLOWED), self.recorder.since(start), None);
        }
    }

    /// Revokes a token while an SFTP session with it is open, which must end.
    async fn revoke_with_open_session(&mut self) {
        let token = self.live.swap_remove(self.random.below(self.live.len()));
        let session = open_session(&self.recorder, self.gateway.sftp, &self.login, &token).await;
        let revocation = self.revoke_token(&token).await;
        if let (Some(mut session), Some(_)) = (session, revocation) {
            tokio::time::sleep(SESSION_END).await;
            let start = self.recorder.now();
            let looked = within_timeout(&self.recorder, "SFTP stat", start, session.stat("/")).await;
            let outcome = if matches!(looked, Some(Ok(_))) { Outcome::Acknowledged } else { Outcome::Refused };
            self.recorder.count("open session of a revoked token", self.recorder.since(start), outcome);
            if outcome == Outcome::Acknowledged {
                self.recorder.fault(format!("a session outlived its token {} by {SESSION_END:?}", token_id(&token)));
            }
        }
        self.revoked.push(token);
    }
}

async fn open_session(recorder: &Recorder, address: SocketAddr, login: &str, token: &str) -> Option<SftpClient> {
    let start = recorder.now();
    within_timeout(recorder, "SFTP login", start, SftpClient::connect(address, login, token)).await.flatten()
}

/// Runs a command on the state directory. One that fails may have taken effect before.
pub(crate) async fn run_command(
    recorder: &Recorder,
    gateway: &Arc<GatewayProcess>,
    kind: &'static str,
    arguments: &[&str],
) -> (Span, Outcome) {
    let start = recorder.now();
    let (gateway, owned) = (Arc::clone(gateway), arguments.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>());
    let running = tokio::task::spawn_blocking(move || {
        gateway.run_cli(&owned.iter().map(String::as_str).collect::<Vec<_>>()).is_ok()
    });
    let succeeded = running.await.expect("no panic");
    let span = recorder.since(start);
    let outcome = if succeeded { Outcome::Acknowledged } else { Outcome::Unknown };
    recorder.count(kind, span, outcome);
    (span, outcome)
}
