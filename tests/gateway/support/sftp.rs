//! An SFTP client that sends single packets, so that a test can send malformed ones too.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;

use russh::client;
use russh::keys::{Algorithm, Certificate, HashAlg, PrivateKey, PrivateKeyWithHashAlg};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// Flags of OPEN (SSH_FXF_, draft-ietf-secsh-filexfer-02 section 6.3), and the three with which `put` opens a file.
pub(crate) mod open_flags {
    pub(crate) const READ: u32 = 1;
    pub(crate) const WRITE: u32 = 2;
    pub(crate) const APPEND: u32 = 4;
    pub(crate) const CREATE: u32 = 8;
    pub(crate) const TRUNCATE: u32 = 16;
    pub(crate) const EXCLUSIVE: u32 = 32;
    pub(crate) const REPLACE: u32 = WRITE | CREATE | TRUNCATE;
}

/// A status other than OK: its code and message, or the end of the session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum SftpError {
    /// SSH_FX_…
    Status(u32, String),
    /// The channel or connection is gone.
    ConnectionLost,
}

impl SftpError {
    /// The status code; 0 for a lost session.
    pub(crate) fn code(&self) -> u32 {
        match self {
            SftpError::Status(code, _) => *code,
            SftpError::ConnectionLost => 0,
        }
    }
}

type Result<T> = std::result::Result<T, SftpError>;

/// Returns the status code of a refused request.
pub(crate) fn status_code<T: std::fmt::Debug>(result: Result<T>) -> u32 {
    result.expect_err("refused").code()
}

/// The attributes of a reply.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct SftpAttributes {
    pub(crate) size: Option<u64>,
    pub(crate) mode: Option<u32>,
    pub(crate) times: Option<(u32, u32)>,
}

struct AcceptAnyServerKey;

impl client::Handler for AcceptAnyServerKey {
    type Error = russh::Error;

    async fn check_server_key(
        &mut self,
        _key: &russh::keys::PublicKeyOrCertificate,
    ) -> std::result::Result<bool, Self::Error> {
        Ok(true)
    }
}

/// An SSH connection, and its socket, to be cut.
struct SshConnection {
    ssh: client::Handle<AcceptAnyServerKey>,
    socket: std::net::TcpStream,
}

/// A byte stream in both directions that carries SFTP packets.
pub(crate) trait PacketStream: AsyncRead + AsyncWrite + Send + Sync + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Sync + Unpin> PacketStream for S {}

/// One SFTP channel: of an SSH connection, which other channels may share, or over a stream of its own.
pub(crate) struct SftpClient {
    connection: Option<Arc<SshConnection>>,
    stream: Box<dyn PacketStream>,
    next_request_id: u32,
    /// The extensions that the server announced.
    pub(crate) extensions: Vec<String>,
    unmatched_replies: VecDeque<(u32, u8, Vec<u8>)>,
}

impl SftpClient {
    /// Logs in with a password; `None` when it is refused, or its user has too many connections.
    pub(crate) async fn connect(address: SocketAddr, login: &str, token: &str) -> Option<Self> {
        let (mut ssh, socket) = Self::connect_ssh(address).await.ok()?;
        let accepted = ssh.authenticate_password(login, token).await.ok()?.success();
        if !accepted {
            return None;
        }
        Self::open(Arc::new(SshConnection { ssh, socket })).await.ok()
    }

    /// Offers keys one after the other, as an agent does; `None` when none of them is accepted.
    #[allow(dead_code, reason = "for tests/gateway")]
    pub(crate) async fn connect_with_keys(address: SocketAddr, login: &str, keys: &[Arc<PrivateKey>]) -> Option<Self> {
        let (mut ssh, socket) = Self::connect_ssh(address).await.ok()?;
        for key in keys {
            let hash = matches!(key.algorithm(), Algorithm::Rsa { .. }).then_some(HashAlg::Sha512);
            let key = PrivateKeyWithHashAlg::new(Arc::clone(key), hash);
            if ssh.authenticate_publickey(login, key).await.ok()?.success() {
                return Self::open(Arc::new(SshConnection { ssh, socket })).await.ok();
            }
        }
        None
    }

    /// Logs in with a key and its certificate; `None` when that is refused.
    #[allow(dead_code, reason = "for tests/gateway")]
    pub(crate) async fn connect_with_certificate(
        address: SocketAddr,
        login: &str,
        key: Arc<PrivateKey>,
        certificate: Certificate,
    ) -> Option<Self> {
        let (mut ssh, socket) = Self::connect_ssh(address).await.ok()?;
        let accepted = ssh.authenticate_openssh_cert(login, key, certificate).await.ok()?.success();
        if !accepted {
            return None;
        }
        Self::open(Arc::new(SshConnection { ssh, socket })).await.ok()
    }

    /// Opens another SFTP channel of the same connection.
    pub(crate) async fn open_second_channel(&self) -> Result<Self> {
        Self::open(self.connection().clone()).await
    }

    /// Starts SFTP over a stream that leads to a server without SSH between.
    pub(crate) async fn over_stream(stream: impl PacketStream + 'static) -> Result<Self> {
        Self::start_on_stream(None, Box::new(stream)).await
    }

    async fn connect_ssh(
        address: SocketAddr,
    ) -> std::result::Result<(client::Handle<AcceptAnyServerKey>, std::net::TcpStream), russh::Error> {
        let stream = tokio::net::TcpStream::connect(address).await?.into_std()?;
        let socket = stream.try_clone()?;
        let stream = tokio::net::TcpStream::from_std(stream)?;
        let connection =
            client::connect_stream(Arc::new(client::Config::default()), stream, AcceptAnyServerKey).await?;
        Ok((connection, socket))
    }

    async fn open(connection: Arc<SshConnection>) -> Result<Self> {
        let connection_lost = |_| SftpError::ConnectionLost;
        let channel = connection.ssh.channel_open_session().await.map_err(connection_lost)?;
        channel.request_subsystem(true, "sftp").await.map_err(connection_lost)?;
        Self::start_on_stream(Some(connection), Box::new(channel.into_stream())).await
    }

    async fn start_on_stream(connection: Option<Arc<SshConnection>>, stream: Box<dyn PacketStream>) -> Result<Self> {
        let mut sftp =
            Self { connection, stream, next_request_id: 0, extensions: Vec::new(), unmatched_replies: VecDeque::new() };
        sftp.send_raw(&encode_packet(1, &3u32.to_be_bytes())).await?;
        let (kind, body) = sftp.read_packet().await?;
        assert_eq!((kind, &body[..4]), (2, &3u32.to_be_bytes()[..]), "VERSION 3");
        let mut pairs = &body[4..];
        while !pairs.is_empty() {
            sftp.extensions.push(String::from_utf8_lossy(take_string(&mut pairs)).into_owned());
            take_string(&mut pairs);
        }
        Ok(sftp)
    }

    /// Logs in by keyboard-interactive; tells whether that was accepted.
    pub(crate) async fn answer_prompt(address: SocketAddr, login: &str, token: &str) -> bool {
        use client::KeyboardInteractiveAuthResponse::{Failure, InfoRequest, Success};
        let (mut connection, _) = Self::connect_ssh(address).await.expect("connected");
        let mut answer = connection.authenticate_keyboard_interactive_start(login, None).await.expect("answered");
        loop {
            let prompts = match answer {
                Success => return true,
                Failure { .. } => return false,
                InfoRequest { prompts, .. } => prompts,
            };
            let answers = prompts.iter().map(|_| token.to_owned()).collect();
            answer = connection.authenticate_keyboard_interactive_respond(answers).await.expect("answered");
        }
    }

    /// Opens another channel of the connection.
    pub(crate) async fn channel(&self) -> russh::Channel<client::Msg> {
        self.connection().ssh.channel_open_session().await.expect("a channel")
    }

    /// Cuts the connection, as a network that fails does.
    pub(crate) fn drop_connection(self) {
        self.connection().socket.shutdown(std::net::Shutdown::Both).expect("cut");
    }

    /// Sends SSH_MSG_DISCONNECT.
    pub(crate) async fn disconnect(self) {
        self.connection().ssh.disconnect(russh::Disconnect::ByApplication, "", "").await.expect("sent");
    }

    /// Ends the channel in order (SSH_MSG_CHANNEL_EOF) and waits for the server to close it.
    pub(crate) async fn close_channel(mut self) {
        self.stream.shutdown().await.expect("sent");
        let mut rest = Vec::new();
        self.stream.read_to_end(&mut rest).await.expect("closed");
        assert!(rest.is_empty(), "{rest:?}");
    }

    fn connection(&self) -> &Arc<SshConnection> {
        self.connection.as_ref().expect("an SSH connection")
    }

    /// Sends bytes as they are.
    pub(crate) async fn send_raw(&mut self, bytes: &[u8]) -> Result<()> {
        self.stream.write_all(bytes).await.map_err(|_| SftpError::ConnectionLost)?;
        self.stream.flush().await.map_err(|_| SftpError::ConnectionLost)
    }

    /// Sends a request without waiting for its answer; returns its id.
    pub(crate) async fn send(&mut self, kind: u8, body: &[&[u8]]) -> Result<u32> {
        self.next_request_id += 1;
        let id = self.next_request_id;
        let mut payload = id.to_be_bytes().to_vec();
        payload.extend(body.concat());
        self.send_raw(&encode_packet(kind, &payload)).await?;
        Ok(id)
    }

    /// Waits for the answer with this id: its type and what follows the id.
    pub(crate) async fn receive(&mut self, id: u32) -> Result<(u8, Vec<u8>)> {
        if let Some(at) = self.unmatched_replies.iter().position(|(other, ..)| *other == id)
            && let Some((_, kind, body)) = self.unmatched_replies.remove(at)
        {
            return Ok((kind, body));
        }
        loop {
            let (kind, body) = self.read_packet().await?;
            let other = u32::from_be_bytes(body[..4].try_into().expect("an id"));
            if other == id {
                return Ok((kind, body[4..].to_vec()));
            }
            self.unmatched_replies.push_back((other, kind, body[4..].to_vec()));
        }
    }

    /// Sends a request and waits for its answer; a status other than OK is an error.
    pub(crate) async fn request(&mut self, kind: u8, body: &[&[u8]]) -> Result<(u8, Vec<u8>)> {
        let id = self.send(kind, body).await?;
        let (kind, body) = self.receive(id).await?;
        if kind == 101 {
            let code = u32::from_be_bytes(body[..4].try_into().expect("a code"));
            if code != 0 {
                let message = String::from_utf8_lossy(take_string(&mut &body[4..])).into_owned();
                return Err(SftpError::Status(code, message));
            }
        }
        Ok((kind, body))
    }

    /// Sends requests while their answers are read: so many, in the order in which they come, each with its id.
    pub(crate) async fn exchange(&mut self, requests: &[u8], answers: usize) -> Result<Vec<(u32, u8, Vec<u8>)>> {
        let (mut reading, mut writing) = tokio::io::split(&mut self.stream);
        let sending = async {
            writing.write_all(requests).await.map_err(|_| SftpError::ConnectionLost)?;
            writing.flush().await.map_err(|_| SftpError::ConnectionLost)
        };
        let receiving = async {
            let mut received = Vec::new();
            for _ in 0..answers {
                let (kind, body) = read_packet(&mut reading).await?;
                received.push((take_u32(&mut &body[..4]), kind, body[4..].to_vec()));
            }
            Ok(received)
        };
        tokio::try_join!(sending, receiving).map(|((), received)| received)
    }

    async fn read_packet(&mut self) -> Result<(u8, Vec<u8>)> {
        read_packet(&mut self.stream).await
    }

    /// Opens a file: SSH_FXF_ flags READ 1, WRITE 2, APPEND 4, CREAT 8, TRUNC 16, EXCL 32.
    pub(crate) async fn open_file(&mut self, path: &[u8], flags: u32) -> Result<Vec<u8>> {
        let (_, body) = self.request(3, &[&encode_string(path), &flags.to_be_bytes(), &[0; 4]]).await?;
        Ok(take_string(&mut &body[..]).to_vec())
    }

    pub(crate) async fn close(&mut self, handle: &[u8]) -> Result<()> {
        self.request(4, &[&encode_string(handle)]).await.map(drop)
    }

    pub(crate) async fn read_at(&mut self, handle: &[u8], offset: u64, length: u32) -> Result<Vec<u8>> {
        let (_, body) =
            self.request(5, &[&encode_string(handle), &offset.to_be_bytes(), &length.to_be_bytes()]).await?;
        Ok(take_string(&mut &body[..]).to_vec())
    }

    pub(crate) async fn write_at(&mut self, handle: &[u8], offset: u64, data: &[u8]) -> Result<()> {
        self.request(6, &[&encode_string(handle), &offset.to_be_bytes(), &encode_string(data)]).await.map(drop)
    }

    /// Reads a whole file.
    pub(crate) async fn get(&mut self, path: &str) -> Result<Vec<u8>> {
        let handle = self.open_file(path.as_bytes(), 1).await?;
        let mut content = Vec::new();
        let end = loop {
            match self.read_at(&handle, content.len() as u64, 32768).await {
                Ok(block) => content.extend(block),
                Err(SftpError::Status(1, _)) => break Ok(content),
                Err(error) => break Err(error),
            }
        };
        self.close(&handle).await?;
        end
    }

    /// Writes a whole file as `put` does: CREAT and TRUNC.
    pub(crate) async fn put(&mut self, path: &str, content: &[u8]) -> Result<()> {
        let handle = self.open_file(path.as_bytes(), 2 | 8 | 16).await?;
        for (number, block) in content.chunks(32768).enumerate() {
            self.write_at(&handle, number as u64 * 32768, block).await?;
        }
        self.close(&handle).await
    }

    /// The names in a folder, without `.` and `..`, sorted.
    pub(crate) async fn list(&mut self, path: &str) -> Result<Vec<String>> {
        Ok(self.entries(path).await?.into_iter().map(|(name, _)| name).collect())
    }

    /// The entries of a folder with their attributes, without `.` and `..`, sorted by name.
    pub(crate) async fn entries(&mut self, path: &str) -> Result<Vec<(String, SftpAttributes)>> {
        let (_, body) = self.request(11, &[&encode_string(path.as_bytes())]).await?;
        let handle = take_string(&mut &body[..]).to_vec();
        let mut entries = Vec::new();
        loop {
            match self.request(12, &[&encode_string(&handle)]).await {
                Ok((_, body)) => entries.extend(take_entries(&body)),
                Err(SftpError::Status(1, _)) => break,
                Err(error) => return Err(error),
            }
        }
        self.close(&handle).await?;
        entries.retain(|(name, _)| name != "." && name != "..");
        entries.sort_by(|(first, _), (second, _)| first.cmp(second));
        Ok(entries)
    }

    pub(crate) async fn stat(&mut self, path: &str) -> Result<SftpAttributes> {
        self.request(17, &[&encode_string(path.as_bytes())]).await.map(|(_, body)| take_attrs(&mut &body[..]))
    }

    pub(crate) async fn lstat(&mut self, path: &str) -> Result<SftpAttributes> {
        self.request(7, &[&encode_string(path.as_bytes())]).await.map(|(_, body)| take_attrs(&mut &body[..]))
    }

    /// Sets the permission bits.
    pub(crate) async fn chmod(&mut self, path: &str, mode: u32) -> Result<()> {
        self.request(9, &[&encode_string(path.as_bytes()), &4u32.to_be_bytes(), &mode.to_be_bytes()]).await.map(drop)
    }

    pub(crate) async fn mkdir(&mut self, path: &str) -> Result<()> {
        self.request(14, &[&encode_string(path.as_bytes()), &[0; 4]]).await.map(drop)
    }

    pub(crate) async fn remove(&mut self, path: &str) -> Result<()> {
        self.request(13, &[&encode_string(path.as_bytes())]).await.map(drop)
    }

    pub(crate) async fn rmdir(&mut self, path: &str) -> Result<()> {
        self.request(15, &[&encode_string(path.as_bytes())]).await.map(drop)
    }

    pub(crate) async fn rename(&mut self, from: &str, to: &str) -> Result<()> {
        self.request(18, &[&encode_string(from.as_bytes()), &encode_string(to.as_bytes())]).await.map(drop)
    }

    pub(crate) async fn realpath(&mut self, path: &str) -> Result<String> {
        let (_, body) = self.request(16, &[&encode_string(path.as_bytes())]).await?;
        Ok(take_names(&body).swap_remove(0))
    }

    pub(crate) async fn readlink(&mut self, path: &str) -> Result<String> {
        let (_, body) = self.request(19, &[&encode_string(path.as_bytes())]).await?;
        Ok(take_names(&body).swap_remove(0))
    }

    /// Makes a symbolic link, with OpenSSH's order of arguments.
    pub(crate) async fn symlink(&mut self, target: &str, link: &str) -> Result<()> {
        self.request(20, &[&encode_string(target.as_bytes()), &encode_string(link.as_bytes())]).await.map(drop)
    }

    /// An extended request whose arguments are strings.
    pub(crate) async fn extended(&mut self, name: &str, arguments: &[&[u8]]) -> Result<(u8, Vec<u8>)> {
        let mut body = encode_string(name.as_bytes());
        arguments.iter().for_each(|argument| body.extend(encode_string(argument)));
        self.request(200, &[&body]).await
    }

    pub(crate) async fn posix_rename(&mut self, from: &str, to: &str) -> Result<()> {
        self.extended("posix-rename@openssh.com", &[from.as_bytes(), to.as_bytes()]).await.map(drop)
    }

    pub(crate) async fn hard_link(&mut self, from: &str, to: &str) -> Result<()> {
        self.extended("hardlink@openssh.com", &[from.as_bytes(), to.as_bytes()]).await.map(drop)
    }
}

async fn read_packet(stream: &mut (impl AsyncRead + Unpin)) -> Result<(u8, Vec<u8>)> {
    let connection_lost = |_| SftpError::ConnectionLost;
    let length = stream.read_u32().await.map_err(connection_lost)?;
    let mut body = vec![0; length as usize];
    stream.read_exact(&mut body).await.map_err(connection_lost)?;
    Ok((body[0], body[1..].to_vec()))
}

/// A packet: its length, type and body.
pub(crate) fn encode_packet(kind: u8, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(body.len() + 1).expect("short");
    [&length.to_be_bytes()[..], &[kind], body].concat()
}

/// A string of the protocol: its length and bytes.
pub(crate) fn encode_string(bytes: &[u8]) -> Vec<u8> {
    [&u32::try_from(bytes.len()).expect("short").to_be_bytes()[..], bytes].concat()
}

pub(crate) fn take_u32(body: &mut &[u8]) -> u32 {
    let (value, rest) = body.split_first_chunk::<4>().expect("a number");
    *body = rest;
    u32::from_be_bytes(*value)
}

pub(crate) fn take_string<'a>(body: &mut &'a [u8]) -> &'a [u8] {
    let length = take_u32(body) as usize;
    let (value, rest) = body.split_at(length);
    *body = rest;
    value
}

pub(crate) fn take_attrs(body: &mut &[u8]) -> SftpAttributes {
    let flags = take_u32(body);
    let mut attrs = SftpAttributes::default();
    if flags & 1 != 0 {
        attrs.size = Some(u64::from(take_u32(body)) << 32 | u64::from(take_u32(body)));
    }
    if flags & 2 != 0 {
        take_u32(body);
        take_u32(body);
    }
    if flags & 4 != 0 {
        attrs.mode = Some(take_u32(body));
    }
    if flags & 8 != 0 {
        attrs.times = Some((take_u32(body), take_u32(body)));
    }
    attrs
}

fn take_names(body: &[u8]) -> Vec<String> {
    take_entries(body).into_iter().map(|(name, _)| name).collect()
}

fn take_entries(mut body: &[u8]) -> Vec<(String, SftpAttributes)> {
    let count = take_u32(&mut body);
    (0..count)
        .map(|_| {
            let name = String::from_utf8_lossy(take_string(&mut body)).into_owned();
            take_string(&mut body);
            (name, take_attrs(&mut body))
        })
        .collect()
}
