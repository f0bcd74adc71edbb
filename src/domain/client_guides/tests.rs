//! Tests of the set-up guides of all clients: quoting, addresses, and warnings without TLS.

use super::*;

fn connection_details(url: &str) -> ConnectionDetails {
    ConnectionDetails::new(url, None, "alice".parse().expect("a login")).expect(url)
}

fn guide_text(client: ClientProgram, details: &ConnectionDetails) -> String {
    format!("{:?}", client_guide(client, details))
}

#[test]
fn every_client_has_guide_under_own_name() {
    let details = connection_details("https://files.example.org/dav/");
    for client in ClientProgram::ALL {
        assert_eq!(client.name().parse(), Ok(client));
        let guide = client_guide(client, &details);
        assert!(!guide.steps.is_empty() && !guide.title.is_empty(), "{client}");
        assert!(guide.steps.iter().all(|step| !step.text.is_empty()), "{client}");
        let text = guide_text(client, &details);
        let mounted = client == ClientProgram::Keepassxc;
        assert!(mounted || text.contains("alice"), "{client} does not say who: {text}");
        assert!(text.contains("files.example.org"), "{client} does not say where: {text}");
    }
    assert!("netscape".parse::<ClientProgram>().is_err());
}

#[test]
fn guide_addresses_match_connection_details() {
    let details =
        ConnectionDetails::new("http://[::1]:8080", Some("sftp.example.org:22"), "a@b+c".parse().expect("a login"))
            .expect("a site");
    assert_eq!((details.url().as_str(), details.origin().as_str()), ("http://[::1]:8080/dav/", "http://[::1]:8080"));
    assert_eq!(details.url_with_scheme("dav", true), "dav://a%40b%2Bc@[::1]:8080/dav/");
    assert_eq!((details.host(), details.port(), details.path()), ("[::1]", 8080, "/dav/"));
    assert_eq!(details.sftp_url(), "sftp://a%40b%2Bc@sftp.example.org:22");
    let details =
        ConnectionDetails::new("https://h/node/x", Some("[::1]"), "alice".parse().expect("a login")).expect("a site");
    assert_eq!((details.url().as_str(), details.port()), ("https://h/node/x/", 443));
    assert_eq!((details.sftp_host(), details.sftp_hostname(), details.sftp_port()), ("[::1]", "::1", 2022));
}

#[test]
fn invalid_gateway_addresses_are_refused() {
    for (url, sftp) in [
        ("files.example.org", None),
        ("ftp://files.example.org/", None),
        ("https:///dav/", None),
        ("https://-oProxyCommand=x/dav/", None),
        ("https://alice@files.example.org/dav/", None),
        ("https://files.example.org:0/dav/", None),
        ("https://files.example.org:http/dav/", None),
        ("https://files.example.org/dav/?x", None),
        ("https://files.example.org/$(x)/", None),
        ("https://[::1/dav/", None),
        ("https://[::1]x/dav/", None),
        ("https://files.example.org/dav/", Some("host:port")),
        ("https://files.example.org/dav/", Some("")),
    ] {
        assert!(ConnectionDetails::new(url, sftp, "alice".parse().expect("a login")).is_err(), "{url} {sftp:?}");
    }
}

#[test]
fn words_are_shell_quoted() {
    assert_eq!(shell::shell_quote("https://h:8080/dav/"), "https://h:8080/dav/");
    assert_eq!(shell::shell_quote("http://h/a&b;it's/"), "'http://h/a&b;it'\\''s/'");
    assert_eq!(shell::shell_quote(""), "''");
}

#[test]
fn clients_requiring_tls_say_so_without_it() {
    let (plain, secure) = (connection_details("http://h/"), connection_details("https://h/"));
    for client in [ClientProgram::Windows, ClientProgram::Macos] {
        assert!(guide_text(client, &plain).contains("over TLS alone"), "{client}");
        assert!(!guide_text(client, &secure).contains("over TLS alone"), "{client}");
    }
}

#[test]
fn cleartext_address_of_remote_host_adds_warning() {
    let warns = |client, url: &str| {
        client_guide(client, &connection_details(url)).notes.iter().any(|note| note == CLEARTEXT_WARNING)
    };
    for client in ClientProgram::ALL {
        let sftp = [
            ClientProgram::Sshfs,
            ClientProgram::Openssh,
            ClientProgram::Lftp,
            ClientProgram::Filezilla,
            ClientProgram::Paramiko,
            ClientProgram::Fsspec,
        ]
        .contains(&client);
        assert_eq!(warns(client, "http://files.example.org/dav/"), !sftp, "{client}");
        for url in ["https://files.example.org", "http://127.0.0.1:8080", "http://[::1]:8080", "http://localhost"] {
            assert!(!warns(client, url), "{client} {url}");
        }
    }
}

#[test]
fn paramiko_guides_disable_public_keys() {
    let details = connection_details("https://files.example.org/dav/");
    for client in [ClientProgram::Paramiko, ClientProgram::Fsspec] {
        let text = guide_text(client, &details);
        assert!(text.contains("look_for_keys=False") && text.contains("allow_agent=False"), "{client}: {text}");
    }
    let duplicity = guide_text(ClientProgram::Duplicity, &details);
    assert!(duplicity.contains(" pexpect+sftp://alice@files.example.org:2022/backup"), "{duplicity}");
    assert!(!duplicity.contains(" sftp://"), "{duplicity}");
}
