//! Logins over SSH: every attempt is answered or its end is told, and who is let in may take its time.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use patgate::auth::Clock;
use patgate::sftp::SftpOptions;
use russh::client::{self, AuthResult, DisconnectReason, GexParams, Handle, RemoteDisconnectInfo};
use russh::keys::PrivateKeyWithHashAlg;
use russh::keys::ssh_key::private::{Ed25519Keypair, PrivateKey};
use russh::{Disconnect, Preferred, kex};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::support::{Fixture, Sftp, packet};

/// Long enough for any machine.
const PATIENCE: Duration = Duration::from_secs(30);

/// What a server said with SSH_MSG_DISCONNECT.
#[derive(Clone, Default)]
struct Farewell(Arc<Mutex<Option<RemoteDisconnectInfo>>>);

impl client::Handler for Farewell {
    type Error = russh::Error;

    async fn check_server_key(&mut self, _key: &russh::keys::PublicKeyOrCertificate) -> Result<bool, Self::Error> {
        Ok(true)
    }

    async fn disconnected(&mut self, reason: DisconnectReason<Self::Error>) -> Result<(), Self::Error> {
        if let DisconnectReason::ReceivedDisconnect(info) = reason {
            *self.0.lock().expect("no panic") = Some(info);
        }
        Ok(())
    }
}

/// A client, and what it is told at its end.
struct Client {
    ssh: Handle<Farewell>,
    farewell: Farewell,
}

impl Client {
    async fn dial(gateway: &Fixture) -> Self {
        Self::dial_with(gateway, client::Config::default()).await
    }

    async fn dial_with(gateway: &Fixture, config: client::Config) -> Self {
        let farewell = Farewell::default();
        let ssh = client::connect(Arc::new(config), gateway.sftp, farewell.clone()).await.expect("connects");
        Self { ssh, farewell }
    }

    async fn password(&mut self, token: &str) -> bool {
        self.ssh.authenticate_password("alice", token).await.is_ok_and(|answer| answer.success())
    }

    async fn none(&mut self) -> Option<AuthResult> {
        self.ssh.authenticate_none("alice").await.ok()
    }

    /// Offers a key that no other test has.
    async fn key(&mut self, number: u8) -> bool {
        let key = Arc::new(PrivateKey::from(Ed25519Keypair::from_seed(&[number; 32])));
        let answer = self.ssh.authenticate_publickey("alice", PrivateKeyWithHashAlg::new(key, None)).await;
        answer.is_ok_and(|answer| answer.success())
    }

    /// Waits for the server's end of the connection; returns the reason and words it gave.
    async fn end(&self) -> (Disconnect, String) {
        // The handler is told after the connection counts as closed.
        let told = async {
            loop {
                if let Some(info) = self.farewell.0.lock().expect("no panic").take() {
                    return info;
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        let info = tokio::time::timeout(PATIENCE, told).await.expect("the server ends the connection with a reason");
        (info.reason_code, info.message)
    }

    async fn starts_sftp(&self) -> bool {
        let Ok(channel) = self.ssh.channel_open_session().await else { return false };
        channel.request_subsystem(true, "sftp").await.is_ok()
    }
}

async fn started(adapt: impl FnOnce(&mut SftpOptions)) -> (Fixture, String) {
    let mut options = SftpOptions::default();
    adapt(&mut options);
    let gateway = Fixture::start_with(Clock::system(), |settings| settings.sftp_options = options).await;
    let token = gateway.login("alice", "/:rw");
    (gateway, token)
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_and_none_do_not_use_up_login_attempts() {
    let (gateway, token) = started(|options| options.login_attempts = 2).await;
    let mut client = Client::dial(&gateway).await;
    assert!(!client.none().await.expect("answered").success());
    for number in 0..8 {
        assert!(!client.key(number).await);
    }
    assert!(!client.password("wrong").await);
    assert!(client.password(&token).await, "one wrong token of two");
    assert!(client.starts_sftp().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn end_of_login_attempts_is_told() {
    let (gateway, _) = started(|options| options.login_attempts = 2).await;
    let mut client = Client::dial(&gateway).await;
    assert!(!client.password("wrong").await && !client.password("wrong").await);
    let (reason, words) = client.end().await;
    assert!(matches!(reason, Disconnect::NoMoreAuthMethodsAvailable), "{reason:?}");
    assert!(words.contains("2 wrong tokens"), "{words}");

    let mut client = Client::dial(&gateway).await;
    let mut probes = 0;
    while client.none().await.is_some() {
        probes += 1;
        assert!(probes < 110, "attempts without a token are bounded, too");
    }
    assert!(probes >= 50, "no agent holds so many keys");
    let (_, words) = client.end().await;
    assert!(words.contains("takes tokens alone"), "{words}");
}

#[tokio::test(flavor = "multi_thread")]
async fn request_without_answer_ends_the_login_in_two_seconds_with_the_way_out() {
    let (gateway, _) = started(|_| {}).await;
    let mut client = Client::dial(&gateway).await;
    assert!(!client.none().await.expect("answered").success());
    let begin = Instant::now();
    // russh answers no request of another phase, as it answers no second SSH_MSG_SERVICE_REQUEST.
    client.ssh.send_keepalive(true).await.expect("sent");
    let (reason, words) = client.end().await;
    assert!(begin.elapsed() < Duration::from_secs(2), "after {:?}", begin.elapsed());
    assert!(matches!(reason, Disconnect::ServiceNotAvailable), "{reason:?}");
    assert!(words.contains("look_for_keys=False") && words.contains("patgate client"), "{words}");
}

#[tokio::test(flavor = "multi_thread")]
async fn client_that_takes_its_time_between_attempts_is_not_ended() {
    let (gateway, token) = started(|_| {}).await;
    let mut client = Client::dial(&gateway).await;
    tokio::time::sleep(Duration::from_millis(2200)).await;
    assert!(!client.none().await.expect("answered").success());
    tokio::time::sleep(Duration::from_millis(2200)).await;
    assert!(!client.password("wrong").await);
    tokio::time::sleep(Duration::from_millis(2200)).await;
    assert!(client.password(&token).await);
    assert!(client.starts_sftp().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn end_of_the_time_for_a_login_is_told() {
    let (gateway, _) = started(|options| options.authentication = Duration::from_secs(1)).await;
    let (_, words) = Client::dial(&gateway).await.end().await;
    assert!(words.contains("no login within 1 s"), "{words}");
}

#[tokio::test(flavor = "multi_thread")]
async fn connection_past_the_limit_per_user_is_told_so_and_its_token_not_called_wrong() {
    let (gateway, token) = started(|options| options.connections_per_user = 1).await;
    let _first = gateway.sftp("alice", &token).await;
    let mut second = Client::dial(&gateway).await;
    assert!(second.password(&token).await, "the token is right");
    assert!(!second.starts_sftp().await);
    let (reason, words) = second.end().await;
    assert!(matches!(reason, Disconnect::TooManyConnections), "{reason:?}");
    assert!(words.contains("has 1 SFTP connections open"), "{words}");
    let mut third = Client::dial(&gateway).await;
    assert!(!third.password("wrong").await, "a wrong one is still wrong");
}

#[tokio::test(flavor = "multi_thread")]
async fn white_space_around_token_and_login_is_not_part_of_them() {
    let (gateway, token) = started(|_| {}).await;
    for pasted in [format!("{token}\n"), format!("{token}\r\n"), format!(" {token}\t")] {
        assert!(Sftp::connect(gateway.sftp, "alice", &pasted).await.is_some(), "{pasted:?}");
        assert!(Sftp::answer_prompt(gateway.sftp, "alice", &pasted).await, "{pasted:?}");
    }
    for login in ["alice ", "alice\n"] {
        assert!(Sftp::connect(gateway.sftp, login, &token).await.is_some(), "{login:?}");
    }
    let broken = format!("{} {}", &token[..9], &token[9..]);
    assert!(Sftp::connect(gateway.sftp, "alice", &broken).await.is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn client_that_knows_group_exchange_alone_comes_in() {
    let (gateway, token) = started(|_| {}).await;
    for (smallest, preferred, largest) in [(2048, 2048, 8192), (3072, 8192, 8192)] {
        let gex = GexParams::new(smallest, preferred, largest).expect("a request");
        let preferred = Preferred { kex: vec![kex::DH_GEX_SHA256].into(), ..Preferred::default() };
        let config = client::Config { preferred, gex, ..client::Config::default() };
        let mut client = Client::dial_with(&gateway, config).await;
        assert!(client.password(&token).await);
        assert!(client.starts_sftp().await);
    }
}

/// A client that reads, and whose answers reach the server until the task is aborted.
async fn silenced(gateway: &Fixture, token: &str) -> (Client, JoinHandle<()>) {
    let (mut from_server, to_server) = TcpStream::connect(gateway.sftp).await.expect("connects").into_split();
    let (near, far) = tokio::io::duplex(1 << 16);
    let (mut from_client, mut to_client) = tokio::io::split(far);
    // A half that is dropped would end the connection.
    let to_server = Arc::new(tokio::sync::Mutex::new(to_server));
    let kept = to_server.clone();
    tokio::spawn(async move {
        let _kept = kept;
        let _ = tokio::io::copy(&mut from_server, &mut to_client).await;
        // The client sees the end of the connection.
        let _ = to_client.shutdown().await;
    });
    let writing = tokio::spawn(async move {
        let mut buffer = [0; 4096];
        while let Ok(size @ 1..) = from_client.read(&mut buffer).await {
            if to_server.lock().await.write_all(&buffer[..size]).await.is_err() {
                break;
            }
        }
    });
    let farewell = Farewell::default();
    let config = Arc::new(client::Config::default());
    let ssh = client::connect_stream(config, near, farewell.clone()).await.expect("connects");
    let mut client = Client { ssh, farewell };
    assert!(client.password(token).await);
    (client, writing)
}

/// Asks after two seconds of silence, and waits for so long after it.
fn watchful(options: &mut SftpOptions, patience: Duration) {
    (options.authentication, options.keepalive) = (Duration::from_secs(2), Duration::from_secs(1));
    options.patience = patience;
}

#[tokio::test(flavor = "multi_thread")]
async fn client_that_answers_keepalives_stays_and_one_that_does_not_is_ended() {
    let (gateway, token) = started(|options| watchful(options, Duration::from_secs(1))).await;
    let mut resting = Client::dial(&gateway).await;
    assert!(resting.password(&token).await);
    let (asleep, writing) = silenced(&gateway, &token).await;
    writing.abort();
    let begin = Instant::now();
    let (reason, words) = asleep.end().await;
    assert!(matches!(reason, Disconnect::ConnectionLost) && words.contains("keepalive"), "{reason:?}: {words}");
    let took = begin.elapsed();
    assert!(took > Duration::from_millis(2500), "ended after {took:?}, before it could answer");
    tokio::time::sleep(Duration::from_secs(4)).await;
    assert!(resting.starts_sftp().await, "whoever answers stays");
}

#[tokio::test(flavor = "multi_thread")]
async fn client_that_leaves_keepalives_unanswered_for_a_while_stays() {
    let (gateway, token) = started(|options| watchful(options, Duration::from_secs(20))).await;
    let (mut from_server, mut to_server) = TcpStream::connect(gateway.sftp).await.expect("connects").into_split();
    let (near, far) = tokio::io::duplex(1 << 16);
    let (mut from_client, mut to_client) = tokio::io::split(far);
    let awake = Arc::new(tokio::sync::Semaphore::new(1));
    let pump = awake.clone();
    tokio::spawn(async move { tokio::io::copy(&mut from_client, &mut to_server).await });
    tokio::spawn(async move {
        let mut buffer = [0; 4096];
        while let Ok(size @ 1..) = from_server.read(&mut buffer).await {
            let _awake = pump.acquire().await;
            let _ = to_client.write_all(&buffer[..size]).await;
        }
    });
    let farewell = Farewell::default();
    let config = Arc::new(client::Config::default());
    let ssh = client::connect_stream(config, near, farewell.clone()).await.expect("connects");
    let mut client = Client { ssh, farewell };
    assert!(client.password(&token).await);
    let asleep = awake.acquire().await;
    tokio::time::sleep(Duration::from_secs(7)).await;
    drop(asleep);
    assert!(client.starts_sftp().await, "it was asked twice, and answers now");
}

#[tokio::test(flavor = "multi_thread")]
async fn session_without_requests_ends_where_a_setting_says_so() {
    let (gateway, token) = started(|options| options.idle = Duration::from_secs(1)).await;
    let mut idle = Client::dial(&gateway).await;
    assert!(idle.password(&token).await);
    let mut busy = gateway.sftp("alice", &token).await;
    for _ in 0..8 {
        tokio::time::sleep(Duration::from_millis(400)).await;
        busy.send_raw(&packet(16, &[0, 0, 0, 1, 0, 0, 0, 1, b'/'])).await.expect("it goes on");
    }
    let (_, words) = idle.end().await;
    assert!(words.contains("sftp_idle_seconds"), "{words}");
}

#[test]
fn defaults_are_as_patient_as_openssh() {
    let options = SftpOptions::default();
    assert_eq!(options.authentication, Duration::from_secs(120), "LoginGraceTime");
    assert_eq!(options.login_attempts, 6, "MaxAuthTries");
    assert!(options.idle.is_zero());
    assert!(options.patience >= Duration::from_secs(1800), "a script that rests, a laptop asleep");
}
