//! What holds for the steps of every client.

use super::*;

fn site(url: &str) -> Site {
    Site::new(url, None, "alice".parse().expect("a login")).expect(url)
}

fn whole(client: Client, site: &Site) -> String {
    format!("{:?}", steps(client, site))
}

#[test]
fn every_client_has_steps_under_its_own_name() {
    let site = site("https://files.example.org/dav/");
    for client in Client::ALL {
        assert_eq!(client.name().parse(), Ok(client));
        let setup = steps(client, &site);
        assert!(!setup.steps.is_empty() && !setup.title.is_empty(), "{client}");
        assert!(setup.steps.iter().all(|step| !step.text.is_empty()), "{client}");
        let text = whole(client, &site);
        let mounted = client == Client::Keepassxc;
        assert!(mounted || text.contains("alice"), "{client} does not say who: {text}");
        assert!(text.contains("files.example.org"), "{client} does not say where: {text}");
    }
    assert!("netscape".parse::<Client>().is_err());
}

#[test]
fn the_addresses_given_are_those_of_the_site() {
    let site =
        Site::new("http://[::1]:8080", Some("sftp.example.org:22"), "a@b+c".parse().expect("a login")).expect("a site");
    assert_eq!((site.url().as_str(), site.origin().as_str()), ("http://[::1]:8080/dav/", "http://[::1]:8080"));
    assert_eq!(site.as_scheme("dav", true), "dav://a%40b%2Bc@[::1]:8080/dav/");
    assert_eq!((site.host(), site.port(), site.path()), ("[::1]", 8080, "/dav/"));
    assert_eq!(site.sftp_url(), "sftp://a%40b%2Bc@sftp.example.org:22");
    let site = Site::new("https://h/node/x", Some("[::1]"), "alice".parse().expect("a login")).expect("a site");
    assert_eq!((site.url().as_str(), site.port()), ("https://h/node/x/", 443));
    assert_eq!((site.sftp_host(), site.sftp_name(), site.sftp_port()), ("[::1]", "::1", 2022));
}

#[test]
fn what_is_no_address_makes_no_steps() {
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
        assert!(Site::new(url, sftp, "alice".parse().expect("a login")).is_err(), "{url} {sftp:?}");
    }
}

#[test]
fn words_are_quoted_for_the_shell() {
    assert_eq!(shell::quoted("https://h:8080/dav/"), "https://h:8080/dav/");
    assert_eq!(shell::quoted("http://h/a&b;it's/"), "'http://h/a&b;it'\\''s/'");
    assert_eq!(shell::quoted(""), "''");
}

#[test]
fn without_tls_those_that_want_it_say_so() {
    let (plain, secure) = (site("http://h/"), site("https://h/"));
    for client in [Client::Windows, Client::Macos] {
        assert!(whole(client, &plain).contains("over TLS alone"), "{client}");
        assert!(!whole(client, &secure).contains("over TLS alone"), "{client}");
    }
}

#[test]
fn who_would_send_the_token_in_the_clear_to_another_machine_is_warned() {
    let warns = |client, url: &str| steps(client, &site(url)).notes.iter().any(|note| note == IN_THE_CLEAR);
    for client in Client::ALL {
        let sftp = [Client::Sshfs, Client::Openssh, Client::Lftp, Client::Filezilla, Client::Paramiko, Client::Fsspec]
            .contains(&client);
        assert_eq!(warns(client, "http://files.example.org/dav/"), !sftp, "{client}");
        for url in ["https://files.example.org", "http://127.0.0.1:8080", "http://[::1]:8080", "http://localhost"] {
            assert!(!warns(client, url), "{client} {url}");
        }
    }
}

#[test]
fn clients_over_paramiko_offer_the_token_alone() {
    let site = site("https://files.example.org/dav/");
    for client in [Client::Paramiko, Client::Fsspec] {
        let text = whole(client, &site);
        assert!(text.contains("look_for_keys=False") && text.contains("allow_agent=False"), "{client}: {text}");
    }
    let duplicity = whole(Client::Duplicity, &site);
    assert!(duplicity.contains(" pexpect+sftp://alice@files.example.org:2022/backup"), "{duplicity}");
    assert!(!duplicity.contains(" sftp://"), "{duplicity}");
}
