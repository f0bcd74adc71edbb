//! The server's certificate: files that are replaced while it runs, and certificates of an authority (ACME) by Pebble, a
//! strict one for tests. Without Pebble (Debian: `pebble`) those say that they were not tried; `PATGATE_TEST_PEBBLE=1`
//! has them fail.

use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use patgate::auth::Clock;
use patgate::gateway::AcmeSettings;
use rustls::pki_types::{CertificateDer, ServerName};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::support::Fixture;

/// Long enough for any machine.
const TIMEOUT: Duration = Duration::from_secs(120);
const POLL_INTERVAL: Duration = Duration::from_millis(20);
const HEALTH_REQUEST: &[u8] = b"GET /healthz HTTP/1.1\r\nHost: files.test\r\n\r\n";

/// A certificate for files.test that is signed with its own key.
struct SelfSigned {
    certificate: CertificateDer<'static>,
    certificate_pem: String,
    key_pem: String,
}

impl SelfSigned {
    fn new() -> Self {
        let key = rcgen::KeyPair::generate().expect("a key");
        let parameters = rcgen::CertificateParams::new(["files.test".to_owned()]).expect("a name");
        let certificate = parameters.self_signed(&key).expect("signed");
        let pem = |label: &str, der: &[u8]| {
            use base64::Engine;
            let text = base64::engine::general_purpose::STANDARD.encode(der);
            format!("-----BEGIN {label}-----\n{text}\n-----END {label}-----\n")
        };
        Self {
            certificate_pem: pem("CERTIFICATE", certificate.der()),
            key_pem: pem("PRIVATE KEY", &key.serialize_der()),
            certificate: certificate.der().clone(),
        }
    }
}

/// Connects, trusting `roots` alone. `None` where the handshake fails.
async fn connect_tls(address: SocketAddr, roots: &[CertificateDer<'static>]) -> Option<TlsStream<TcpStream>> {
    let mut store = rustls::RootCertStore::empty();
    store.add_parsable_certificates(roots.iter().cloned());
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_root_certificates(store)
        .with_no_client_auth();
    let stream = TcpStream::connect(address).await.expect("it listens");
    let name = ServerName::try_from("files.test").expect("a name");
    TlsConnector::from(Arc::new(config)).connect(name, stream).await.ok()
}

async fn presented_certificate(address: SocketAddr, roots: &[CertificateDer<'static>]) -> Option<Vec<u8>> {
    let stream = connect_tls(address, roots).await?;
    let (_, connection) = stream.get_ref();
    Some(connection.peer_certificates()?.first()?.to_vec())
}

/// Asks on an open connection, which goes on.
async fn assert_answers(stream: &mut TlsStream<TcpStream>) {
    stream.write_all(HEALTH_REQUEST).await.expect("sent");
    let mut answer = [0; 15];
    stream.read_exact(&mut answer).await.expect("an answer");
    assert_eq!(&answer, b"HTTP/1.1 200 OK");
    let mut rest = vec![0; 4096];
    let _ = stream.read(&mut rest).await.expect("the rest");
}

/// Waits until `condition` holds.
async fn wait_until(what: &str, mut condition: impl AsyncFnMut() -> bool) {
    let waiting = async {
        while !condition().await {
            tokio::time::sleep(POLL_INTERVAL).await;
        }
    };
    tokio::time::timeout(TIMEOUT, waiting).await.expect(what);
}

#[tokio::test(flavor = "multi_thread")]
async fn replaced_certificate_is_used_and_an_unusable_pair_is_not() {
    let folder = tempfile::tempdir().expect("a folder");
    let (certificate, key) = (folder.path().join("cert.pem"), folder.path().join("key.pem"));
    let (old, new) = (SelfSigned::new(), SelfSigned::new());
    let roots = [old.certificate.clone(), new.certificate.clone()];
    std::fs::write(&certificate, &old.certificate_pem).expect("written");
    std::fs::write(&key, &old.key_pem).expect("written");
    let tls = Some((certificate.clone(), key.clone()));
    let gateway = Fixture::start_with(Clock::system(), |settings| {
        settings.tls = tls;
        settings.certificate_poll_interval = POLL_INTERVAL;
    })
    .await;
    let mut open = connect_tls(gateway.http, &roots).await.expect("connected");
    assert_answers(&mut open).await;

    // A certificate that is written half, and one whose key is still the old one.
    let half = &new.certificate_pem[..new.certificate_pem.len() / 2];
    for unusable in [half, &new.certificate_pem] {
        std::fs::write(&certificate, unusable).expect("written");
        tokio::time::sleep(10 * POLL_INTERVAL).await;
        let presented = presented_certificate(gateway.http, &roots).await;
        assert_eq!(presented.as_deref(), Some(&*old.certificate), "the old one stays");
    }
    // Renamed into place, as programs do that renew certificates.
    let renewed = folder.path().join("renewed.pem");
    std::fs::write(&renewed, &new.key_pem).expect("written");
    std::fs::rename(&renewed, &key).expect("renamed");
    wait_until("the new certificate is used", async || {
        presented_certificate(gateway.http, &roots).await.as_deref() == Some(&*new.certificate)
    })
    .await;
    assert_answers(&mut open).await;
}

/// Pebble and its DNS server, which gives every name the address of this machine.
struct Pebble {
    processes: Vec<Child>,
    _folder: tempfile::TempDir,
    directory: String,
    management: String,
}

fn test_file(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/gateway/tls").join(name)
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("an address").port()
}

impl Pebble {
    /// Starts it, to validate challenges at these ports; `None` where it is not installed.
    async fn start(http_port: u16, tls_port: u16) -> Option<Self> {
        if Command::new("pebble").arg("-help").output().is_err() {
            assert!(std::env::var_os("PATGATE_TEST_PEBBLE").is_none(), "pebble is not installed");
            eprintln!("not tried: pebble is not installed");
            return None;
        }
        let folder = tempfile::tempdir().expect("a folder");
        let [port, management, dns, dns_management] = [(); 4].map(|()| free_port());
        let config = serde_json::json!({ "pebble": {
            "listenAddress": format!("127.0.0.1:{port}"),
            "managementListenAddress": format!("127.0.0.1:{management}"),
            "certificate": test_file("server.pem"),
            "privateKey": test_file("key.pem"),
            "httpPort": http_port,
            "tlsPort": tls_port,
        }});
        let config_file = folder.path().join("pebble.json");
        std::fs::write(&config_file, config.to_string()).expect("written");
        let dns = format!("127.0.0.1:{dns}");
        let start = |program: &str, arguments: &[&str]| {
            let mut command = Command::new(program);
            // Some nonces are refused, as servers do that are restarted. An order fails at the third in a row: with 2 percent
            // that is one of 10,000 orders.
            command.env("PEBBLE_VA_NOSLEEP", "1").env("PEBBLE_WFE_NONCEREJECT", "2");
            command.args(arguments).stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("it runs")
        };
        let names = ["-defaultIPv4", "127.0.0.1", "-defaultIPv6", "", "-dns01", &dns, "-management"];
        let others = ["-http01", "", "-https01", "", "-tlsalpn01", ""];
        let dns_management = format!("127.0.0.1:{dns_management}");
        let processes = vec![
            start("pebble-challtestsrv", &[&names[..], &[&dns_management], &others].concat()),
            start("pebble", &["-strict", "-dnsserver", &dns, "-config", config_file.to_str().expect("text")]),
        ];
        for port in [port, management] {
            wait_until("pebble starts", async || TcpStream::connect(("127.0.0.1", port)).await.is_ok()).await;
        }
        let directory = format!("https://localhost:{port}/dir");
        let management = format!("https://localhost:{management}");
        Some(Self { processes, _folder: folder, directory, management })
    }

    /// Returns the authority that it issues certificates by, a new one in each start.
    async fn root(&self) -> CertificateDer<'static> {
        use rustls::pki_types::pem::PemObject;
        patgate::net::install_default_crypto_provider();
        let client = reqwest::Client::builder().no_proxy().tls_danger_accept_invalid_certs(true).build();
        let response = client.expect("a client").get(format!("{}/roots/0", self.management)).send();
        let pem = response.await.expect("an answer").bytes().await.expect("a certificate");
        CertificateDer::from_pem_slice(&pem).expect("PEM")
    }

    fn settings(&self, domains: &[&str], http: Option<SocketAddr>) -> AcmeSettings {
        AcmeSettings {
            domains: domains.iter().map(|&domain| domain.to_owned()).collect(),
            contact: Some("ops@files.test".to_owned()),
            directory: self.directory.clone(),
            ca_file: Some(test_file("ca.pem")),
            http,
        }
    }
}

impl Drop for Pebble {
    fn drop(&mut self) {
        for process in &mut self.processes {
            let _ = process.kill();
            let _ = process.wait();
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn authority_validates_over_tls_and_a_failed_order_leaves_the_certificate() {
    let port = free_port();
    let Some(pebble) = Pebble::start(free_port(), port).await else { return };
    let acme = pebble.settings(&["files.test", "other.test"], None);
    let mut gateway = Fixture::start_with(Clock::system(), |settings| {
        settings.http = Some(([127, 0, 0, 1], port).into());
        settings.acme = Some(acme.clone());
    })
    .await;
    let roots = [pebble.root().await];
    wait_until("a certificate is issued", async || presented_certificate(gateway.http, &roots).await.is_some()).await;
    let issued = presented_certificate(gateway.http, &roots).await;
    let files = std::fs::read_dir(gateway.state().join("acme")).expect("files");
    let files: Vec<_> = files.map(|entry| entry.expect("an entry").path()).collect();
    assert_eq!(files.len(), 3, "account, certificate, status: {files:?}");
    for file in &files {
        let mode = std::fs::metadata(file).expect("there").permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{}", file.display());
    }

    // The next start has the certificate at once, and orders none.
    let status = gateway.state().join("acme/status.json");
    let ordered = std::fs::metadata(&status).expect("there").modified().expect("a time");
    gateway
        .restart_with(|settings| {
            settings.http = Some(([127, 0, 0, 1], port).into());
            settings.acme = Some(acme);
        })
        .await;
    assert_eq!(presented_certificate(gateway.http, &roots).await, issued);
    tokio::time::sleep(10 * POLL_INTERVAL).await;
    assert_eq!(std::fs::metadata(&status).expect("there").modified().expect("a time"), ordered);

    // The authority looks for the challenge where nobody answers it.
    let acme = pebble.settings(&["files.test", "third.test"], Some(([127, 0, 0, 1], 0).into()));
    gateway
        .restart_with(|settings| {
            settings.http = Some(([127, 0, 0, 1], port).into());
            settings.acme = Some(acme);
        })
        .await;
    wait_until("the failure is recorded", async || {
        std::fs::read_to_string(&status).is_ok_and(|text| text.contains("\"failures\":1"))
    })
    .await;
    assert_eq!(presented_certificate(gateway.http, &roots).await, issued, "the old one stays");
}

#[tokio::test(flavor = "multi_thread")]
async fn authority_validates_over_http_and_others_are_sent_to_https() {
    let http_port = free_port();
    let Some(pebble) = Pebble::start(http_port, free_port()).await else { return };
    let challenge_address: SocketAddr = ([127, 0, 0, 1], http_port).into();
    let acme = pebble.settings(&["files.test"], Some(challenge_address));
    let gateway = Fixture::start_with(Clock::system(), |settings| settings.acme = Some(acme)).await;
    let roots = [pebble.root().await];
    wait_until("a certificate is issued", async || presented_certificate(gateway.http, &roots).await.is_some()).await;
    let mut stream = TcpStream::connect(challenge_address).await.expect("it listens");
    stream.write_all(b"GET /dav/ HTTP/1.1\r\nHost: files.test\r\n\r\n").await.expect("sent");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.expect("an answer");
    assert!(answer.starts_with("HTTP/1.1 308 ") && answer.contains("https://files.test/dav/"), "{answer}");
}
