//! An SSH client that logs in attempt by attempt and records how the server ended the connection.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use patgate::auth::Clock;
use patgate::sftp::SftpOptions;
use russh::client::{self, AuthResult, DisconnectReason, Handle, RemoteDisconnectInfo};
use russh::keys::PrivateKeyWithHashAlg;
use russh::keys::ssh_key::private::{Ed25519Keypair, PrivateKey};
use russh::{Channel, ChannelMsg, Disconnect};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;

use super::Fixture;

/// Long enough for any machine.
pub(crate) const SSH_TIMEOUT: Duration = Duration::from_secs(30);

/// The server's SSH_MSG_DISCONNECT.
#[derive(Clone, Default)]
pub(crate) struct DisconnectRecorder(Arc<Mutex<Option<RemoteDisconnectInfo>>>);

impl client::Handler for DisconnectRecorder {
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

/// A client, and the disconnect that it received.
pub(crate) struct SshClient {
    pub(crate) ssh: Handle<DisconnectRecorder>,
    disconnect: DisconnectRecorder,
}

impl SshClient {
    pub(crate) async fn connect(gateway: &Fixture) -> Self {
        Self::connect_with(gateway, client::Config::default()).await
    }

    pub(crate) async fn connect_with(gateway: &Fixture, config: client::Config) -> Self {
        let stream = TcpStream::connect(gateway.sftp).await.expect("connects");
        Self::over_stream(stream, config).await
    }

    /// Connects over a stream that leads to the server.
    pub(crate) async fn over_stream(
        stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
        config: client::Config,
    ) -> Self {
        let farewell = DisconnectRecorder::default();
        let ssh = client::connect_stream(Arc::new(config), stream, farewell.clone()).await.expect("connects");
        Self { ssh, disconnect: farewell }
    }

    pub(crate) async fn try_password(&mut self, token: &str) -> bool {
        self.ssh.authenticate_password("alice", token).await.is_ok_and(|answer| answer.success())
    }

    pub(crate) async fn try_none(&mut self) -> Option<AuthResult> {
        self.ssh.authenticate_none("alice").await.ok()
    }

    /// Offers a key that no other test has.
    pub(crate) async fn try_new_key(&mut self, number: u8) -> bool {
        let key = Arc::new(PrivateKey::from(Ed25519Keypair::from_seed(&[number; 32])));
        let answer = self.ssh.authenticate_publickey("alice", PrivateKeyWithHashAlg::new(key, None)).await;
        answer.is_ok_and(|answer| answer.success())
    }

    /// Waits for the server's end of the connection; returns the reason and words it gave.
    pub(crate) async fn wait_for_disconnect(&self) -> (Disconnect, String) {
        // The handler is told after the connection counts as closed.
        let disconnect_received = async {
            loop {
                if let Some(info) = self.disconnect.0.lock().expect("no panic").take() {
                    return info;
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        let info = tokio::time::timeout(SSH_TIMEOUT, disconnect_received)
            .await
            .expect("the server ends the connection with a reason");
        (info.reason_code, info.message)
    }

    pub(crate) async fn starts_sftp(&self) -> bool {
        let Ok(channel) = self.ssh.channel_open_session().await else { return false };
        channel.request_subsystem(true, "sftp").await.is_ok()
    }
}

/// A client on a network that can be stopped in both directions, as a program that is stopped does not read.
pub(crate) struct PausableClient {
    pub(crate) client: SshClient,
    pub(crate) running: Arc<Semaphore>,
}

impl PausableClient {
    /// Connects; while a permit of `running` is held, nothing reaches the client.
    pub(crate) async fn connect(gateway: &Fixture) -> Self {
        let (mut from_server, mut to_server) = TcpStream::connect(gateway.sftp).await.expect("connects").into_split();
        let (client_stream, server_stream) = tokio::io::duplex(1 << 16);
        let (mut from_client, mut to_client) = tokio::io::split(server_stream);
        let running = Arc::new(Semaphore::new(1));
        let pump = running.clone();
        tokio::spawn(async move { tokio::io::copy(&mut from_client, &mut to_server).await });
        tokio::spawn(async move {
            let mut buffer = [0; 4096];
            while let Ok(size @ 1..) = from_server.read(&mut buffer).await {
                let _running = pump.acquire().await;
                let _ = to_client.write_all(&buffer[..size]).await;
            }
        });
        // For all that a test asks for at once: where the buffer of its channel is full, russh's client reads nothing and
        // takes no further request until the test has received something.
        let config = client::Config { channel_buffer_size: 1024, ..client::Config::default() };
        Self { client: SshClient::over_stream(client_stream, config).await, running }
    }
}

/// Starts a gateway with settings of its SFTP side, and a user `alice` who may write everywhere; returns her token.
pub(crate) async fn start_gateway(adapt: impl FnOnce(&mut SftpOptions)) -> (Fixture, String) {
    let mut options = SftpOptions::default();
    adapt(&mut options);
    let gateway = Fixture::start_with(Clock::system(), |settings| settings.sftp_options = options).await;
    let token = gateway.create_user_and_token("alice", "/:rw");
    (gateway, token)
}

/// Waits for the next message of a channel that isn't about windows.
pub(crate) async fn next_message(channel: &mut Channel<client::Msg>) -> Option<ChannelMsg> {
    loop {
        match tokio::time::timeout(SSH_TIMEOUT, channel.wait()).await.expect("something comes") {
            Some(ChannelMsg::WindowAdjusted { .. }) => {}
            message => return message,
        }
    }
}
