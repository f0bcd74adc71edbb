//! Tests of the configuration: which values are refused, which source wins (flags, environment, file, defaults), and
//! that the example file is complete.

use std::time::Duration;

use super::example::example_line;
use super::settings::find_key;
use super::*;

fn sources(file: &str) -> (tempfile::TempDir, ConfigSources) {
    let dir = tempfile::tempdir().expect("folder");
    let root = dir.path().join("files");
    std::fs::create_dir(&root).expect("root");
    let path = dir.path().join("patgate.toml");
    std::fs::write(&path, file.replace("ROOT", root.to_str().expect("text"))).expect("file");
    let sources = ConfigSources {
        default_state_directory: dir.path().join("state"),
        file: Some(path),
        ..ConfigSources::default()
    };
    (dir, sources)
}

fn load_errors(sources: &ConfigSources) -> Vec<String> {
    let dir = sources.default_state_directory.parent().expect("folder").to_str().expect("text").to_owned() + "/";
    let error = Config::load(sources).expect_err("faults");
    error.messages().map(|fault| fault.replace(&dir, "")).collect()
}

fn flag(key: &str, value: &str) -> CommandLineSetting {
    CommandLineSetting { typed_name: format!("--{key}"), key: key.to_owned(), value: value.to_owned() }
}

#[test]
fn every_invalid_setting_is_reported_with_its_line() {
    let (_dir, mut sources) = sources(
        "root = \"ROOT\"\nhtpp = \"off\"\n\nhttp = 8080\nsftp = \"here\"\nunauthenticated_connections = 0\n[log]\nlevel = 1\n",
    );
    sources.environment = vec![("PATGATE_DURABILITY".into(), "some".into())];
    sources.flags = vec![flag("tls_cert", "/x"), flag("nonsense", "1")];
    let faults = load_errors(&sources);
    let expected = [
        "patgate.toml:2: unknown key \"htpp\", did you mean http?",
        "patgate.toml:4: http: give a text in quotation marks",
        "patgate.toml:5: sftp = \"here\": give an IP address and a port, such as 127.0.0.1:8080, or off",
        "patgate.toml:6: unauthenticated_connections = \"0\": give a whole number from 1 to 1000000",
        "patgate.toml:7: log: give a text in quotation marks",
        "PATGATE_DURABILITY: durability = \"some\": give full or fast",
        "--nonsense: unknown key \"nonsense\"",
        "--tls_cert: tls_cert needs tls_key",
    ];
    assert_eq!(faults, expected);
}

#[test]
fn toml_syntax_errors_are_reported_with_other_errors() {
    let (_dir, sources) = sources("root = \"ROOT\"\nsftp = \nstate = 5\nlog = \"loud\"\n");
    let faults = load_errors(&sources);
    assert!(faults.iter().any(|f| f.starts_with("patgate.toml:2: ")), "{faults:?}");
    assert!(faults.iter().any(|f| f.starts_with("patgate.toml:4: log = \"loud\"")), "{faults:?}");
}

#[test]
fn flags_win_over_environment_over_file_over_default() {
    let (_dir, mut sources) =
        sources("root = \"ROOT\"\nunauthenticated_connections = 1\nsftp_connections = 1\nhttp_connections = 1\n");
    sources.environment = [
        ("PATGATE_UNAUTHENTICATED_CONNECTIONS", "2"),
        ("PATGATE_SFTP_CONNECTIONS", "2"),
        ("PATGATEX", "?"),
        ("PATGATE_TOKEN", "x"),
    ]
    .map(|(n, v)| (n.into(), v.into()))
    .to_vec();
    sources.flags = vec![flag("unauthenticated_connections", "3")];
    let LoadedConfig { config, warnings, .. } = Config::load(&sources).expect("loads");
    assert_eq!(
        (
            config.settings.unauthenticated_connections.0,
            config.settings.sftp_connections.0,
            config.settings.http_connections.0
        ),
        (3, 2, 1)
    );
    assert_eq!(config.settings.unauthenticated_connections_per_address, Count(64));
    assert_eq!(warnings, Vec::<String>::new());
}

#[test]
fn renamed_key_is_refused_with_its_new_name() {
    let (_dir, mut sources) = sources("root = \"ROOT\"\nstrangers = 1\n");
    sources.environment = vec![("PATGATE_DEEP_LISTING".into(), "1".into())];
    sources.flags = vec![flag("unfinished_uploads", "1GiB")];
    let faults = Config::load(&sources).expect_err("refused").to_string();
    for sentence in [
        "patgate.toml:2: strangers is called unauthenticated_connections now",
        "PATGATE_DEEP_LISTING: deep_listing is called propfind_infinity_entries now",
        "unfinished_uploads is called unfinished_upload_space now",
    ] {
        assert!(faults.contains(sentence), "{faults}");
    }
    assert!(RENAMED_KEYS.iter().all(|key| find_key(key.old).is_none() && find_key(key.new).is_some()));
}

#[test]
fn unknown_environment_variable_is_a_warning() {
    let (_dir, mut sources) = sources("root = \"ROOT\"\n");
    sources.environment = vec![("PATGATE_SERVICE_HOST".into(), "10.0.0.1".into())];
    let warnings = Config::load(&sources).expect("loads").warnings;
    assert_eq!(warnings, ["the environment variable PATGATE_SERVICE_HOST is not a setting"]);
}

#[test]
fn state_and_root_may_not_contain_each_other_even_through_links() {
    let (dir, mut sources) = sources("root = \"ROOT\"\n");
    std::os::unix::fs::symlink(dir.path().join("files"), dir.path().join("link")).expect("link");
    for state in ["files", "files/below/it", "link/below", ""] {
        sources.flags = vec![flag("state", dir.path().join(state).to_str().expect("text"))];
        let faults = load_errors(&sources);
        assert!(faults.len() == 1 && faults[0].contains("may not contain each other"), "{state}: {faults:?}");
    }
    sources.flags = vec![flag("state", dir.path().join("files-state").to_str().expect("text"))];
    assert!(Config::load(&sources).is_ok());
}

#[test]
fn root_and_at_least_one_listener_are_required() {
    let (_dir, mut sources) = sources("http = \"off\"\nsftp = \"off\"\n");
    let found = load_errors(&sources);
    assert_eq!(found[0], "root is missing: name the directory to serve");
    assert!(found[1].starts_with("patgate.toml:1: ") && found.len() == 2, "{found:?}");
    sources.flags = vec![flag("root", "/nowhere/at/all")];
    assert!(load_errors(&sources)[0].starts_with("--root: root: /nowhere/at/all is not a directory"));
}

#[test]
fn cleartext_http_off_loopback_warns() {
    let (_dir, mut sources) = sources("root = \"ROOT\"\nhttp = \"0.0.0.0:80\"\n");
    let warnings = Config::load(&sources).expect("loads").warnings;
    assert!(warnings[0].contains("nobody will be answered"), "{warnings:?}");
    sources.flags = vec![flag("trusted_proxies", "10.0.0.0/8, 192.0.2.1")];
    let loaded = Config::load(&sources).expect("loads");
    assert!(loaded.warnings[0].contains("trusted proxies"), "{:?}", loaded.warnings);
    assert_eq!(loaded.config.settings.trusted_proxies.0.len(), 2);
    sources.flags = vec![flag("insecure_http", "true")];
    assert!(Config::load(&sources).expect("loads").warnings.is_empty());
}

#[test]
fn local_commands_need_no_root() {
    let (_dir, mut sources) = sources("durability = \"fast\"\n");
    let local = LocalConfig::load(&sources).expect("loads");
    assert_eq!((local.root, local.durability), (None, DurabilitySetting::Fast));
    assert_eq!(local.state, sources.default_state_directory);
    sources.file = Some("/nowhere/patgate.toml".into());
    assert!(LocalConfig::load(&sources).is_err());
}

#[test]
fn example_shows_every_key_with_its_default_and_loads() {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/patgate.toml");
    if std::env::var_os("UPDATE_EXAMPLE").is_some() {
        std::fs::write(&path, example_file()).expect("written");
    }
    let example = std::fs::read_to_string(&path).expect("the example");
    assert_eq!(example, example_file(), "write it anew with UPDATE_EXAMPLE=1");
    assert!(CONFIG_KEYS.iter().all(|key| example.lines().any(|line| line == example_line(key))));

    let (dir, sources) = sources(&example.replace("/srv/files", "ROOT"));
    let loaded = Config::load(&sources).expect("loads");
    std::fs::write(dir.path().join("patgate.toml"), format!("root = {:?}\n", dir.path().join("files"))).expect("file");
    assert_eq!(loaded, Config::load(&sources).expect("loads"), "what the example shows is not the default");
}

#[test]
fn proxy_protocol_requires_trusted_proxies() {
    let (_dir, mut sources) = sources("root = \"ROOT\"\n");
    sources.flags.push(flag("proxy_protocol", "sftp"));
    assert!(load_errors(&sources).iter().any(|fault| fault.contains("needs trusted_proxies")));
    sources.flags.push(flag("trusted_proxies", "10.0.0.0/8"));
    let loaded = Config::load(&sources).expect("loads");
    assert_eq!(loaded.config.settings.proxy_protocol, ProxyProtocolSetting { http: false, sftp: true });
    sources.flags.push(flag("proxy_protocol", "ftp"));
    assert!(load_errors(&sources).iter().any(|fault| fault.contains("give http, sftp or both")));
}

#[test]
fn sftp_timeouts_outside_their_range_are_refused() {
    let (_dir, mut sources) = sources("root = \"ROOT\"\nsftp_idle_seconds = 0\nsftp_keepalive_seconds = 0\n");
    let config = Config::load(&sources).expect("0 is never").config;
    assert_eq!(
        (config.settings.sftp_login_seconds, config.settings.sftp_unanswered_seconds),
        (Seconds(Duration::from_secs(120)), Seconds(Duration::from_secs(3600)))
    );
    assert!(config.settings.sftp_idle_seconds.0.is_zero() && config.settings.sftp_keepalive_seconds.0.is_zero());
    for (key, value, range) in [
        ("sftp_login_seconds", "0", "from 1 to 600"),
        ("sftp_unanswered_seconds", "0", "from 1 to 604800"),
        ("sftp_keepalive_seconds", "5m", "from 0 to 86400"),
        ("sftp_idle_seconds", "-1", "from 0 to 604800"),
        ("sftp_login_attempts", "0", "from 1 to"),
    ] {
        sources.flags = vec![flag(key, value)];
        let faults = load_errors(&sources);
        assert!(matches!(&faults[..], [fault] if fault.contains(range)), "{key}: {faults:?}");
    }
}

#[test]
fn access_log_is_a_file_outside_the_served_folder() {
    let (_dir, faulty) = sources("root = \"ROOT\"\naccess_log = \"ROOT/log\"\naccess_log_format = \"xml\"\n");
    assert_eq!(
        load_errors(&faulty),
        [
            "patgate.toml:3: access_log_format = \"xml\": give json or combined",
            "patgate.toml:2: access_log files/log may not lie in root files",
        ]
    );
    let (_dir, mut sources) = sources("root = \"ROOT\"\naccess_log = \"/var/log/patgate/access.log\"\n");
    sources.flags = vec![flag("access_log", "stderr"), flag("access_log_format", "combined")];
    let log = Config::load(&sources).expect("loads").config.settings;
    assert_eq!((log.access_log, log.access_log_format), (AccessLogSetting::Stderr, AccessLogFormatSetting::Combined));
}

#[test]
fn metrics_off_loopback_are_warned_of() {
    let (_dir, mut sources) = sources("root = \"ROOT\"\nmetrics = \"0.0.0.0:9090\"\n");
    let warnings = Config::load(&sources).expect("loads").warnings;
    assert!(warnings.len() == 1 && warnings[0].starts_with("metrics listens on 0.0.0.0:9090: "), "{warnings:?}");
    sources.flags = vec![flag("metrics", "127.0.0.1:8080")];
    assert_eq!(load_errors(&sources), ["--metrics: metrics and http can't both listen on 127.0.0.1:8080"]);
    sources.flags = vec![flag("metrics", "127.0.0.1:0")];
    assert_eq!(Config::load(&sources).expect("loads").warnings, [""; 0]);
}

#[test]
fn acme_is_a_table_or_single_keys_and_excludes_files() {
    let table =
        "root = \"ROOT\"\n[acme]\ndomains = [\"Files.example.org\", \"b.example\"]\ncontact = \"ops@example.org\"\n";
    let keys =
        "root = \"ROOT\"\nacme_domains = [\"files.example.org\", \"b.example\"]\nacme_contact = \"ops@example.org\"\n";
    for file in [table, keys] {
        let (_dir, sources) = sources(file);
        let settings = Config::load(&sources).expect("loads").config.settings;
        assert_eq!(settings.acme_domains.0, ["files.example.org", "b.example"]);
        assert_eq!(settings.acme_contact, Some(MailAddress("ops@example.org".to_owned())));
    }
    let refusals = [
        ("[acme]\ndomains = [\"*.example.org\"]\n", "*.example.org would need a challenge over DNS"),
        ("[acme]\ndomains = [\"127.0.0.1\"]\n", "127.0.0.1 is not a host name"),
        ("[acme]\ncontact = \"nobody\"\n", "patgate.toml:3: acme_contact = \"nobody\": give a mail address"),
        ("[acme]\ndirectory = \"http://ca.example\"\n", "give a URL that begins with https://"),
        ("[acme]\nkind = 1\n", "unknown key \"acme_kind\""),
        (
            "tls_cert = \"/c\"\ntls_key = \"/k\"\n[acme]\ndomains = [\"a.example\"]\n",
            "acme_domains and tls_cert can't both give the certificate",
        ),
        ("http = \"off\"\n[acme]\ndomains = [\"a.example\"]\n", "acme_domains needs http, which is off"),
    ];
    for (file, expected) in refusals {
        let (_dir, sources) = sources(&format!("root = \"ROOT\"\n{file}"));
        let errors = load_errors(&sources);
        assert!(errors.iter().any(|error| error.contains(expected)), "{expected}: {errors:?}");
    }
}

#[test]
fn receivers_of_notices_are_read_and_mail_needs_all_of_its_settings() {
    let file = "root = \"ROOT\"\nnotice_expiry_days = [30, 7]\nnotice_kinds = [\"root.lost\"]\n\
         webhook_urls = [\"https://hooks.example/a\"]\nsmtp_server = \"mail.example.org:587\"\n\
         mail_from = \"patgate@example.org\"\nmail_to = [\"ops@example.org\"]\n";
    let (_dir, with_mail) = sources(file);
    let settings = Config::load(&with_mail).expect("loads").config.settings;
    assert_eq!((settings.notice_expiry_days.0, settings.notice_kinds.0.len()), (vec![30, 7], 1));
    assert_eq!(settings.mail_to.0, ["ops@example.org"]);
    for line in ["smtp_server = \"mail.example.org:587\"", "mail_from = \"a@b.example\"", "mail_to = [\"a@b.example\"]"]
    {
        let (_dir, incomplete) = sources(&format!("root = \"ROOT\"\n{line}\n"));
        let faults = load_errors(&incomplete);
        assert!(faults.len() == 1 && faults[0].ends_with("need one another"), "{line}: {faults:?}");
    }
    let (_dir, mut secrets) = sources("root = \"ROOT\"\n");
    secrets.environment =
        ["PATGATE_WEBHOOK_SECRET", "PATGATE_SMTP_PASSWORD"].map(|name| (name.into(), "x".into())).to_vec();
    assert_eq!(Config::load(&secrets).expect("loads").warnings, Vec::<String>::new());
}
