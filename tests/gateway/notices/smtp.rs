//! A mail server that is strict about the protocol: lines end with CR LF, commands come in their order, nothing comes before
//! TLS that belongs behind it. It keeps the mails that it accepts.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};

/// Long enough for any machine.
const TIMEOUT: Duration = Duration::from_secs(120);
/// Longest line of a command or a text (RFC 5321 section 4.5.3.1).
const MAX_LINE_BYTES: usize = 1000;

/// A mail that was accepted.
#[derive(Clone, Debug)]
pub(crate) struct ReceivedMail {
    pub(crate) from: String,
    pub(crate) to: String,
    /// Header and text, unescaped.
    pub(crate) text: String,
    pub(crate) login: Option<String>,
}

/// How the server behaves.
#[derive(Clone, Debug, Default)]
pub(crate) struct SmtpBehavior {
    /// TLS from the first byte, in place of STARTTLS.
    pub(crate) implicit_tls: bool,
    /// Whether it offers no STARTTLS at all.
    pub(crate) without_tls: bool,
    /// Login and password; without them it asks for none.
    pub(crate) credentials: Option<(&'static str, &'static str)>,
    /// Recipient that it refuses.
    pub(crate) refused_recipient: Option<&'static str>,
}

/// The server; stopped when dropped.
pub(crate) struct SmtpServer {
    pub(crate) port: u16,
    /// Certificate that clients have to trust, PEM.
    pub(crate) certificate_pem: String,
    mails: Arc<Mutex<Vec<ReceivedMail>>>,
    /// Violations of the protocol.
    violations: Arc<Mutex<Vec<String>>>,
    task: tokio::task::JoinHandle<()>,
}

impl SmtpServer {
    pub(crate) async fn start(behavior: SmtpBehavior) -> Self {
        let (acceptor, certificate_pem) = tls_acceptor();
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let (mails, violations) = (Arc::<Mutex<Vec<_>>>::default(), Arc::<Mutex<Vec<String>>>::default());
        let (to_keep, to_report) = (Arc::clone(&mails), Arc::clone(&violations));
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (behavior, acceptor) = (behavior.clone(), acceptor.clone());
                let (mails, violations) = (Arc::clone(&to_keep), Arc::clone(&to_report));
                tokio::spawn(async move {
                    if let Err(violation) = serve(stream, acceptor, behavior, mails).await {
                        violations.lock().expect("no panic").push(violation);
                    }
                });
            }
        });
        Self { port, certificate_pem, mails, violations, task }
    }

    pub(crate) fn mails(&self) -> Vec<ReceivedMail> {
        let violations = self.violations.lock().expect("no panic").clone();
        assert_eq!(violations, Vec::<String>::new());
        self.mails.lock().expect("no panic").clone()
    }

    /// Waits for a mail whose subject holds a text.
    pub(crate) async fn wait_for(&self, subject: &str) -> ReceivedMail {
        let wait = async {
            loop {
                let is_it = |mail: &ReceivedMail| {
                    mail.text.lines().any(|line| line.starts_with("Subject: ") && line.contains(subject))
                };
                if let Some(found) = self.mails().into_iter().find(is_it) {
                    return found;
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        let found = tokio::time::timeout(TIMEOUT, wait).await;
        found.unwrap_or_else(|_| panic!("no {subject:?} in {:#?}", self.mails()))
    }
}

impl Drop for SmtpServer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Returns what accepts TLS for localhost, and the certificate that clients have to trust, PEM.
pub(crate) fn tls_acceptor() -> (TlsAcceptor, String) {
    let key = rcgen::KeyPair::generate().expect("a key");
    let parameters = rcgen::CertificateParams::new(["localhost".to_owned()]).expect("a name");
    let certificate = parameters.self_signed(&key).expect("signed");
    let certificate_pem =
        format!("-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n", BASE64.encode(certificate.der()));
    let provider = Arc::new(tokio_rustls::rustls::crypto::aws_lc_rs::default_provider());
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_no_client_auth()
        .with_single_cert(vec![certificate.der().clone()], key)
        .expect("a certificate");
    (TlsAcceptor::from(Arc::new(config)), certificate_pem)
}

/// A connection, encrypted or not yet.
struct SmtpStream<S>(S);

impl<S: AsyncRead + AsyncWrite + Unpin> SmtpStream<S> {
    /// Reads a line byte by byte: what a client sends beyond a command, before the answer, stays unread.
    async fn read_line(&mut self) -> Result<Option<String>, String> {
        let mut line = Vec::new();
        loop {
            let mut byte = [0];
            match self.0.read(&mut byte).await {
                Ok(1) => line.push(byte[0]),
                // Clients that have been refused may just go.
                Ok(_) | Err(_) => return Ok(None),
            }
            if line.ends_with(b"\n") {
                if !line.ends_with(b"\r\n") || line.len() > MAX_LINE_BYTES {
                    return Err(format!("a bad line: {:?}", String::from_utf8_lossy(&line)));
                }
                line.truncate(line.len() - 2);
                let text = String::from_utf8(line).map_err(|_| "a line is not UTF-8".to_owned())?;
                return Ok(Some(text));
            }
        }
    }

    async fn reply(&mut self, text: &str) {
        let _ = self.0.write_all(format!("{text}\r\n").as_bytes()).await;
        let _ = self.0.flush().await;
    }
}

async fn serve(
    stream: TcpStream,
    acceptor: TlsAcceptor,
    behavior: SmtpBehavior,
    mails: Arc<Mutex<Vec<ReceivedMail>>>,
) -> Result<(), String> {
    if behavior.implicit_tls {
        let Ok(stream) = acceptor.accept(stream).await else { return Ok(()) };
        let mut stream = SmtpStream(stream);
        stream.reply("220 mail.test ESMTP").await;
        return receive(stream, &behavior, &mails).await;
    }
    let mut stream = SmtpStream(stream);
    stream.reply("220 mail.test ESMTP").await;
    loop {
        let Some(line) = stream.read_line().await? else { return Ok(()) };
        match line.as_str() {
            _ if line.starts_with("EHLO ") && behavior.without_tls => stream.reply("250 mail.test").await,
            _ if line.starts_with("EHLO ") => stream.reply("250-mail.test\r\n250 STARTTLS").await,
            "STARTTLS" if !behavior.without_tls => break,
            "QUIT" => {
                stream.reply("221 bye").await;
                return Ok(());
            }
            other => return Err(format!("before TLS: {other}")),
        }
    }
    stream.reply("220 go ahead").await;
    let Ok(stream) = acceptor.accept(stream.0).await else { return Ok(()) };
    receive(SmtpStream(stream), &behavior, &mails).await
}

/// Receives mails over an encrypted connection.
async fn receive<S: AsyncRead + AsyncWrite + Unpin>(
    mut stream: SmtpStream<S>,
    behavior: &SmtpBehavior,
    mails: &Arc<Mutex<Vec<ReceivedMail>>>,
) -> Result<(), String> {
    let (mut is_greeted, mut login, mut from, mut to) = (false, None, None, None);
    loop {
        let Some(line) = stream.read_line().await? else { return Ok(()) };
        if line.starts_with("EHLO ") {
            is_greeted = true;
            let extension = if behavior.credentials.is_some() { "250 AUTH PLAIN" } else { "250 HELP" };
            stream.reply(&format!("250-mail.test\r\n{extension}")).await;
        } else if !is_greeted {
            return Err(format!("before EHLO: {line}"));
        } else if let Some(initial) = line.strip_prefix("AUTH PLAIN ") {
            let decoded = BASE64.decode(initial).map_err(|_| "AUTH is not Base64".to_owned())?;
            let expected = behavior.credentials.map(|(login, password)| format!("\0{login}\0{password}"));
            if expected.is_some_and(|expected| expected.as_bytes() == decoded) {
                login = behavior.credentials.map(|(login, _)| login.to_owned());
                stream.reply("235 welcome").await;
            } else {
                stream.reply("535 5.7.8 wrong login or password").await;
            }
        } else if let Some(address) = line.strip_prefix("MAIL FROM:<") {
            if behavior.credentials.is_some() && login.is_none() {
                stream.reply("530 5.7.0 log in first").await;
                continue;
            }
            from = Some(address.split('>').next().unwrap_or_default().to_owned());
            stream.reply("250 ok").await;
        } else if let Some(address) = line.strip_prefix("RCPT TO:<").filter(|_| from.is_some()) {
            let address = address.split('>').next().unwrap_or_default();
            if behavior.refused_recipient == Some(address) {
                stream.reply("550 5.1.1 no such user").await;
                continue;
            }
            to = Some(address.to_owned());
            stream.reply("250 ok").await;
        } else if line == "DATA" && to.is_some() {
            stream.reply("354 go on").await;
            let Some(text) = read_text(&mut stream).await? else { return Ok(()) };
            let (from, to) = (from.take().unwrap_or_default(), to.take().unwrap_or_default());
            mails.lock().expect("no panic").push(ReceivedMail { from, to, text, login: login.clone() });
            stream.reply("250 kept").await;
        } else if line == "QUIT" {
            stream.reply("221 bye").await;
            return Ok(());
        } else if line == "RSET" || line == "NOOP" {
            stream.reply("250 ok").await;
        } else {
            return Err(format!("out of order: {line}"));
        }
    }
}

/// Reads a text up to the line with a dot, without the dots that escape others.
async fn read_text<S: AsyncRead + AsyncWrite + Unpin>(stream: &mut SmtpStream<S>) -> Result<Option<String>, String> {
    let mut text = String::new();
    loop {
        let Some(line) = stream.read_line().await? else { return Ok(None) };
        if line == "." {
            return Ok(Some(text));
        }
        if !line.is_ascii() {
            return Err(format!("8 bits without 8BITMIME: {line}"));
        }
        text.push_str(line.strip_prefix('.').unwrap_or(&line));
        text.push('\n');
    }
}
