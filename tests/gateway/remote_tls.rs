//! The command line over the network to a server with certificates of a private authority.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Command;

use patgate::auth::Clock;

use crate::support::Fixture;

/// A certificate or key of these tests, which nobody else trusts.
fn pem(name: &str) -> String {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/gateway/tls");
    folder.join(format!("{name}.pem")).display().to_string()
}

/// A gateway with one of the certificates, and a token of its administrator.
async fn gateway(certificate: &str) -> (Fixture, String) {
    let tls = Some((pem(certificate).into(), pem("key").into()));
    let gateway = Fixture::start_with(Clock::system(), |settings| settings.tls = tls).await;
    gateway.patgate(&["admin", "user", "create", "root", "--no-home", "--role", "admin"]);
    let token = gateway.token("root", &["-e", "1h", "--role", "admin"]);
    (gateway, token)
}

/// Asks for the policy; returns the exit code and all that was printed.
fn ask(server: &str, token: &str, variables: &[(&str, String)], flags: &[&str]) -> (Option<i32>, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_patgate"));
    // The authorities of this machine are those of the tests: none of theirs.
    command.env_clear().env("SSL_CERT_FILE", pem("stranger")).env("PATGATE_TOKEN", token);
    command.envs(variables.iter().map(|(name, value)| (name, value)));
    let output = command.args(["policy", "show", "--server", server]).args(flags).output().expect("it runs");
    let text = [output.stdout, output.stderr].concat();
    (output.status.code(), String::from_utf8(text).expect("text"))
}

fn https(host: &str, address: SocketAddr) -> String {
    format!("https://{host}:{}", address.port())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_private_authority_is_named_by_flag_or_variable_and_trusted_alone() {
    let (gateway, token) = gateway("server").await;
    let (ca, stranger) = (pem("ca"), pem("stranger"));
    for host in ["127.0.0.1", "localhost"] {
        let (code, text) = ask(&https(host, gateway.http), &token, &[], &["--ca-file", &ca]);
        assert!(code == Some(0) && text.contains("max-tokens-per-user"), "{host}: {text}");
    }
    let server = https("127.0.0.1", gateway.http);
    assert_eq!(ask(&server, &token, &[("PATGATE_CA_FILE", ca.clone())], &[]).0, Some(0));
    assert_eq!(ask(&server, &token, &[("SSL_CERT_FILE", ca.clone())], &[]).0, Some(0), "one that the system trusts");
    let untrusted = "an authority that is not trusted here\nhint: name the file of its authority (PEM): --ca-file FILE";
    for (variables, flags) in [
        (vec![], vec![]),
        (vec![], vec!["--ca-file", stranger.as_str()]),
        (vec![("PATGATE_CA_FILE", ca.clone())], vec!["--ca-file", stranger.as_str()]),
        (vec![("SSL_CERT_FILE", ca.clone())], vec!["--ca-file", stranger.as_str()]),
    ] {
        let (code, text) = ask(&server, &token, &variables, &flags);
        assert!(code == Some(1) && text.contains(untrusted), "{variables:?} {flags:?}: {text}");
        assert!(text.starts_with(&format!("error: {server}/ shows ")), "{text}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_wrong_with_a_certificate_is_said_with_what_to_do() {
    for (certificate, ca, fault, remedy) in [
        ("elsewhere", "ca", "shows a certificate of another name", "hint: give the address under the name"),
        ("expired", "ca", "shows a certificate that has expired", "hint: give the server a new one"),
        ("self", "self", "shows a certificate that can't be used (", "basicConstraints=CA:FALSE"),
    ] {
        let (gateway, token) = gateway(certificate).await;
        let (code, text) = ask(&https("127.0.0.1", gateway.http), &token, &[], &["--ca-file", &pem(ca)]);
        assert!(code == Some(1) && text.contains(fault) && text.contains(remedy), "{certificate}: {text}");
        assert_eq!(text.lines().count(), 2, "{certificate}: {text}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_stands_in_the_way_of_tls_is_said_with_what_to_do() {
    let (gateway, token) = gateway("server").await;
    let plain = Fixture::start().await;
    let (ca, key) = (pem("ca"), pem("key"));
    let nobody = {
        let listener = std::net::TcpListener::bind(("127.0.0.1", 0)).expect("a port");
        listener.local_addr().expect("an address")
    };
    let nowhere = ("SSL_CERT_FILE", "/nowhere".to_owned());
    for (server, variables, flags, fault, remedy) in [
        (https("127.0.0.1", plain.http), vec![], vec!["--ca-file", &ca], "does not speak TLS there", "at http://"),
        (format!("http://{}", gateway.http), vec![], vec![], "does not answer as HTTP has it", "at https://"),
        (https("127.0.0.1", nobody), vec![], vec!["--ca-file", &ca], "can't be reached: ", "is the server running"),
        (https("127.0.0.1", gateway.http), vec![], vec!["--ca-file", "/nowhere"], "/nowhere can't be used", "in PEM"),
        (https("127.0.0.1", gateway.http), vec![], vec!["--ca-file", &key], "holds no certificate", "in PEM"),
        (https("127.0.0.1", gateway.http), vec![nowhere], vec![], "TLS can't be used here", "--ca-file FILE"),
    ] {
        let (code, text) = ask(&server, &token, &variables, &flags);
        assert!(code == Some(1) && text.contains(fault) && text.contains(remedy), "{server} {flags:?}: {text}");
        assert!(!text.contains(&token), "{text}");
        assert_eq!(text.lines().count(), 2, "{server} {flags:?}: {text}");
    }
}

/// Runs the doctor where nothing but these variables says how.
fn doctor(variables: &[(&str, &str)], arguments: &[&str]) -> (Option<i32>, String) {
    let state = tempfile::tempdir().expect("a folder");
    let mut command = Command::new(env!("CARGO_BIN_EXE_patgate"));
    command.env_clear().env("PATGATE_STATE", state.path().join("none")).env("SSL_CERT_FILE", pem("stranger"));
    let output = command.envs(variables.iter().copied()).arg("doctor").args(arguments).output().expect("it runs");
    (output.status.code(), String::from_utf8([output.stdout, output.stderr].concat()).expect("text"))
}

#[tokio::test(flavor = "multi_thread")]
async fn doctor_says_what_is_wrong_with_the_configured_certificate() {
    for (certificate, key, verdict, part) in [
        ("server", "key", "good", "can be used"),
        ("elsewhere", "key", "good", "can be used"),
        ("expired", "key", "BAD", "it has expired"),
        ("self", "key", "BAD", "it is that of an authority"),
        ("server", "server", "BAD", "it holds no private key"),
        ("key", "key", "BAD", "it holds no certificate"),
    ] {
        let (tls_cert, tls_key) = (pem(certificate), pem(key));
        let (code, text) = doctor(&[("PATGATE_TLS_CERT", &tls_cert), ("PATGATE_TLS_KEY", &tls_key)], &[]);
        let line = text.lines().find(|line| line.starts_with("certificate ")).unwrap_or_default();
        assert!(line.contains(verdict) && line.contains(part), "{certificate}: {text}");
        assert_eq!(code == Some(1), verdict == "BAD", "{certificate}: {text}");
        for debugging in ["CaUsedAsEndEntity", "Other(", "InvalidCertificate", "NoItemsFound"] {
            assert!(!text.contains(debugging), "{text}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn health_is_asked_over_tls() {
    let (gateway, _) = gateway("server").await;
    let (url, ca) = (https("localhost", gateway.http), pem("ca"));
    let (code, text) = doctor(&[], &["--health", &url, "--ca-file", &ca]);
    assert!(code == Some(0) && text.contains("healthy"), "{text}");
    let (code, text) = doctor(&[], &["--health", &format!("{url}/console/none"), "--ca-file", &ca]);
    assert!(code == Some(1) && text.contains("it says 4"), "{text}");
    let (code, text) = doctor(&[], &["--health", &url]);
    assert!(code == Some(1) && text.contains("an authority that is not trusted here"), "{text}");
    let (http, cert, key) = (gateway.http.to_string(), pem("server"), pem("key"));
    let configured = [
        ("PATGATE_HTTP", http.as_str()),
        ("PATGATE_SFTP", "off"),
        ("PATGATE_TLS_CERT", &cert),
        ("PATGATE_TLS_KEY", &key),
    ];
    let (code, text) = doctor(&configured, &["--health"]);
    assert!(code == Some(0) && text.contains("healthy"), "{text}");
    let plain = Fixture::start().await;
    let (code, text) = doctor(&[], &["--health", &https("127.0.0.1", plain.http)]);
    assert!(code == Some(1) && text.contains("does not speak TLS there"), "{text}");
}
