//! The command line over HTTPS: which certificates it accepts, and how it reports the ones that it refuses. What the
//! commands print is in `rest_cli.rs`.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Command;

use patgate::auth::Clock;

use crate::support::Fixture;

/// Returns the path of a certificate or key of these tests, which no system trusts.
fn certificate_path(name: &str) -> String {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/gateway/tls");
    folder.join(format!("{name}.pem")).display().to_string()
}

/// A gateway with one of the certificates, and a token of its administrator.
async fn start_with_certificate(certificate: &str) -> (Fixture, String) {
    let tls = Some((certificate_path(certificate).into(), certificate_path("key").into()));
    let gateway = Fixture::start_with(Clock::system(), |settings| settings.tls = tls).await;
    gateway.run_cli(&["admin", "user", "create", "root", "--no-home", "--role", "admin"]);
    let token = gateway.create_token("root", &["-e", "1h", "--role", "admin"]);
    (gateway, token)
}

/// Runs `policy show`; returns the exit code and the output.
fn run_policy_show(server: &str, token: &str, variables: &[(&str, String)], flags: &[&str]) -> (Option<i32>, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_patgate"));
    // The authorities of this machine are those of the tests: none of theirs.
    command.env_clear().env("SSL_CERT_FILE", certificate_path("stranger")).env("PATGATE_TOKEN", token);
    command.envs(variables.iter().map(|(name, value)| (name, value)));
    let output = command.args(["policy", "show", "--server", server]).args(flags).output().expect("it runs");
    let text = [output.stdout, output.stderr].concat();
    (output.status.code(), String::from_utf8(text).expect("text"))
}

fn https_url(host: &str, address: SocketAddr) -> String {
    format!("https://{host}:{}", address.port())
}

#[tokio::test(flavor = "multi_thread")]
async fn ca_file_from_flag_or_variable_is_the_only_trust_anchor() {
    let (gateway, token) = start_with_certificate("server").await;
    let (ca, other_ca) = (certificate_path("ca"), certificate_path("stranger"));
    for host in ["127.0.0.1", "localhost"] {
        let (code, text) = run_policy_show(&https_url(host, gateway.http), &token, &[], &["--ca-file", &ca]);
        assert!(code == Some(0) && text.contains("max-tokens-per-user"), "{host}: {text}");
    }
    let server = https_url("127.0.0.1", gateway.http);
    assert_eq!(run_policy_show(&server, &token, &[("PATGATE_CA_FILE", ca.clone())], &[]).0, Some(0));
    assert_eq!(
        run_policy_show(&server, &token, &[("SSL_CERT_FILE", ca.clone())], &[]).0,
        Some(0),
        "one that the system trusts"
    );
    let untrusted =
        "an authority that is not trusted here\nhint: pass the certificate of its authority (PEM): --ca-file FILE";
    for (variables, flags) in [
        (vec![], vec![]),
        (vec![], vec!["--ca-file", other_ca.as_str()]),
        (vec![("PATGATE_CA_FILE", ca.clone())], vec!["--ca-file", other_ca.as_str()]),
        (vec![("SSL_CERT_FILE", ca.clone())], vec!["--ca-file", other_ca.as_str()]),
    ] {
        let (code, text) = run_policy_show(&server, &token, &variables, &flags);
        assert!(code == Some(1) && text.contains(untrusted), "{variables:?} {flags:?}: {text}");
        assert!(text.starts_with(&format!("error: {server}/ presents ")), "{text}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn certificate_errors_have_a_reason_and_a_hint() {
    for (certificate, ca, fault, remedy) in [
        ("elsewhere", "ca", "presents a certificate for another host name", "hint: use the host name"),
        ("expired", "ca", "presents a certificate that has expired", "hint: renew the server's certificate"),
        ("self", "self", "presents a certificate that can't be used (", "basicConstraints=CA:FALSE"),
    ] {
        let (gateway, token) = start_with_certificate(certificate).await;
        let (code, text) =
            run_policy_show(&https_url("127.0.0.1", gateway.http), &token, &[], &["--ca-file", &certificate_path(ca)]);
        assert!(code == Some(1) && text.contains(fault) && text.contains(remedy), "{certificate}: {text}");
        assert_eq!(text.lines().count(), 2, "{certificate}: {text}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn tls_setup_errors_have_a_reason_and_a_hint() {
    let (gateway, token) = start_with_certificate("server").await;
    let plain = Fixture::start().await;
    let (ca, key) = (certificate_path("ca"), certificate_path("key"));
    let nobody = {
        let listener = std::net::TcpListener::bind(("127.0.0.1", 0)).expect("a port");
        listener.local_addr().expect("an address")
    };
    let nowhere = ("SSL_CERT_FILE", "/nowhere".to_owned());
    for (server, variables, flags, fault, remedy) in [
        (https_url("127.0.0.1", plain.http), vec![], vec!["--ca-file", &ca], "does not speak TLS there", "at http://"),
        (format!("http://{}", gateway.http), vec![], vec![], "does not answer with HTTP", "at https://"),
        (https_url("127.0.0.1", nobody), vec![], vec!["--ca-file", &ca], "can't be reached: ", "server is running"),
        (
            https_url("127.0.0.1", gateway.http),
            vec![],
            vec!["--ca-file", "/nowhere"],
            "/nowhere can't be used",
            "in PEM",
        ),
        (https_url("127.0.0.1", gateway.http), vec![], vec!["--ca-file", &key], "holds no certificate", "in PEM"),
        (https_url("127.0.0.1", gateway.http), vec![nowhere], vec![], "TLS can't be used here", "--ca-file FILE"),
    ] {
        let (code, text) = run_policy_show(&server, &token, &variables, &flags);
        assert!(code == Some(1) && text.contains(fault) && text.contains(remedy), "{server} {flags:?}: {text}");
        assert!(!text.contains(&token), "{text}");
        assert_eq!(text.lines().count(), 2, "{server} {flags:?}: {text}");
    }
}

/// Runs the doctor where nothing but these variables says how.
fn run_doctor(variables: &[(&str, &str)], arguments: &[&str]) -> (Option<i32>, String) {
    let state = tempfile::tempdir().expect("a folder");
    let mut command = Command::new(env!("CARGO_BIN_EXE_patgate"));
    command
        .env_clear()
        .env("PATGATE_STATE", state.path().join("none"))
        .env("SSL_CERT_FILE", certificate_path("stranger"));
    let output = command.envs(variables.iter().copied()).arg("doctor").args(arguments).output().expect("it runs");
    (output.status.code(), String::from_utf8([output.stdout, output.stderr].concat()).expect("text"))
}

#[tokio::test(flavor = "multi_thread")]
async fn doctor_reports_certificate_errors() {
    for (certificate, key, verdict, part) in [
        ("server", "key", "ok", "can be used"),
        ("elsewhere", "key", "ok", "can be used"),
        ("expired", "key", "fail", "it has expired"),
        ("self", "key", "fail", "it is the certificate of an authority"),
        ("server", "server", "fail", "it holds no private key"),
        ("key", "key", "fail", "it holds no certificate"),
    ] {
        let (tls_cert, tls_key) = (certificate_path(certificate), certificate_path(key));
        let (code, text) = run_doctor(&[("PATGATE_TLS_CERT", &tls_cert), ("PATGATE_TLS_KEY", &tls_key)], &[]);
        let line = text.lines().find(|line| line.starts_with("certificate ")).unwrap_or_default();
        assert!(line.contains(verdict) && line.contains(part), "{certificate}: {text}");
        assert_eq!(code == Some(1), verdict == "fail", "{certificate}: {text}");
        for debugging in ["CaUsedAsEndEntity", "Other(", "InvalidCertificate", "NoItemsFound"] {
            assert!(!text.contains(debugging), "{text}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn health_check_works_over_tls() {
    let (gateway, _) = start_with_certificate("server").await;
    let (url, ca) = (https_url("localhost", gateway.http), certificate_path("ca"));
    let (code, text) = run_doctor(&[], &["--health", &url, "--ca-file", &ca]);
    assert!(code == Some(0) && text.contains("healthy"), "{text}");
    let (code, text) = run_doctor(&[], &["--health", &format!("{url}/console/none"), "--ca-file", &ca]);
    assert!(code == Some(1) && text.contains("it answers 4"), "{text}");
    let (code, text) = run_doctor(&[], &["--health", &url]);
    assert!(code == Some(1) && text.contains("an authority that is not trusted here"), "{text}");
    let (http, cert, key) = (gateway.http.to_string(), certificate_path("server"), certificate_path("key"));
    let configured = [
        ("PATGATE_HTTP", http.as_str()),
        ("PATGATE_SFTP", "off"),
        ("PATGATE_TLS_CERT", &cert),
        ("PATGATE_TLS_KEY", &key),
    ];
    let (code, text) = run_doctor(&configured, &["--health"]);
    assert!(code == Some(0) && text.contains("healthy"), "{text}");
    let plain = Fixture::start().await;
    let (code, text) = run_doctor(&[], &["--health", &https_url("127.0.0.1", plain.http)]);
    assert!(code == Some(1) && text.contains("does not speak TLS there"), "{text}");
}
