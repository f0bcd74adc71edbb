//! Clients with windows.

use super::shell::quoted;
use super::site::Site;
use super::{Step, Text};

/// Says that TLS is wanted where the address has none.
fn wants_tls(site: &Site, who: &str) -> Option<String> {
    let text = "sends passwords over TLS alone: give the gateway a certificate, or a reverse proxy that has one.";
    (!site.secure()).then(|| format!("{who} {text}"))
}

pub(super) fn gnome(site: &Site) -> Text {
    let url = site.as_scheme("dav", true);
    let steps = vec![
        Step::words(format!(
            "In Files: Other Locations (or Network), Connect to Server: {url}; the password is the token."
        )),
        Step::command("Or in a terminal; the password is the token", format!("gio mount {}", quoted(&url))),
        Step::command("Look and copy", format!("gio list {0}\ngio copy ~/Documents/letter.odt {0}", quoted(&url))),
        Step::command("When done", format!("gio mount -u {}", quoted(&url))),
        Step::command("SFTP works the same", format!("gio mount {}", quoted(&format!("{}/", site.sftp_url())))),
    ];
    let notes = vec!["Programs that don't know these addresses find the mount below /run/user/UID/gvfs.".into()];
    (steps, notes)
}

pub(super) fn kde(site: &Site) -> Text {
    let url = site.as_scheme("webdav", true);
    let sftp = quoted(&format!("{}/", site.sftp_url()));
    let steps = vec![
        Step::words(format!("In Dolphin's address bar (Ctrl+L): {url}; the password is the token.")),
        Step::command(
            "Or in a terminal; a window asks for the token",
            format!("kioclient copy ~/Documents/letter.odt {0}\nkioclient ls {0}", quoted(&url)),
        ),
        Step::command("SFTP works the same", format!("kioclient ls {sftp}")),
    ];
    let notes = vec![
        "Over WebDAV, files take the time of their upload; over SFTP they keep their own.".into(),
        "Programs that are not KDE's open a copy; save goes back through Dolphin's question to upload it.".into(),
    ];
    (steps, notes)
}

pub(super) fn windows(site: &Site) -> Text {
    let url = site.url();
    let parameters = r"HKLM\SYSTEM\CurrentControlSet\Services\WebClient\Parameters";
    let steps = vec![
        Step::words(format!(
            "In Explorer: This PC, Map network drive, folder {url}, with \"Connect using different credentials\"; user {}, the password is the token.",
            site.login()
        )),
        Step::command(
            "Or in a command prompt; it asks for the token",
            format!("net use Z: {} * /user:{} /persistent:yes", url.trim_end_matches('/'), site.login()),
        ),
        Step::command(
            "As administrator, once: Windows refuses files over 50 MB and long listings unless told (4 GB is the most)",
            format!(
                "reg add {parameters} /v FileSizeLimitInBytes /t REG_DWORD /d 0xffffffff /f\n\
                 reg add {parameters} /v FileAttributesLimitInBytes /t REG_DWORD /d 0x05f5e100 /f\n\
                 net stop webclient\nnet start webclient"
            ),
        ),
    ];
    let mut notes: Vec<String> = wants_tls(site, "Windows").into_iter().collect();
    notes.extend([
        "The certificate must be one that Windows trusts.".into(),
        "On a server edition the WebDAV Redirector is a feature to be installed; the service WebClient must run."
            .into(),
        "Names with \\ / : * ? \" < > | or a full stop or space at their end can't be used from Windows.".into(),
        "Newer Windows also brings OpenSSH: sftp works there as elsewhere.".into(),
    ]);
    (steps, notes)
}

pub(super) fn macos(site: &Site) -> Text {
    let url = site.url();
    let steps = vec![
        Step::words(format!(
            "In Finder: Go, Connect to Server (⌘K): {url}; user {}, the password is the token.",
            site.login()
        )),
        Step::command(
            "Or in a terminal; it asks for user and token",
            format!("mkdir -p ~/patgate\nmount_webdav -i {} ~/patgate", quoted(&url)),
        ),
        Step::command(
            "To keep .DS_Store files off network drives",
            "defaults write com.apple.desktopservices DSDontWriteNetworkStores -bool TRUE",
        ),
    ];
    let mut notes: Vec<String> = wants_tls(site, "Finder").into_iter().collect();
    notes.extend([
        "Finder writes a ._ file beside each file, for what WebDAV can't hold of it.".into(),
        "macOS decomposes accented letters in names (NFD); patgate finds a file in either form, and keeps that of a new one.".into(),
        "Large uploads go better with Cyberduck, rclone or sftp: Finder holds a file in its cache first.".into(),
    ]);
    (steps, notes)
}

pub(super) fn cyberduck(site: &Site) -> Text {
    let scheme = if site.secure() { "WebDAV (HTTPS)" } else { "WebDAV (HTTP)" };
    let steps = vec![
        Step::words(format!(
            "Open Connection, {scheme}: server {}, port {}, user name {}, password the token; More Options, path {}.",
            site.host(),
            site.port(),
            site.login(),
            site.path()
        )),
        Step::words(format!(
            "Or SFTP (SSH File Transfer Protocol): server {}, port {}, the same user name and password.",
            site.sftp_name(),
            site.sftp_port()
        )),
        Step::command(
            "Or its command line; it asks for the token",
            format!(
                "duck --username {} --list {}",
                quoted(site.login().as_str()),
                quoted(&site.as_scheme("dav", false))
            ),
        ),
    ];
    let notes = vec![
        "Over SFTP, Transfers, Upload Temporary File Name can stay off: patgate shows an upload when it is whole."
            .into(),
    ];
    (steps, notes)
}

pub(super) fn winscp(site: &Site) -> Text {
    let steps = vec![
        Step::words(format!(
            "New Site: file protocol SFTP, host name {}, port {}, user name {}, password the token.",
            site.sftp_name(),
            site.sftp_port(),
            site.login()
        )),
        Step::command(
            "Or in a command prompt; it asks for the token",
            format!("winscp.com /command \"open {}/\"", site.sftp_url()),
        ),
    ];
    let notes = vec![
        "Preferences, Transfer, Endurance: transfer to temporary file name can be off; patgate shows an upload when it is whole.".into(),
        format!(
            "WebDAV works, too: file protocol WebDAV, {}, host {}, port {}, remote directory {}.",
            if site.secure() { "TLS/SSL implicit encryption" } else { "no encryption" },
            site.host(),
            site.port(),
            site.path()
        ),
    ];
    (steps, notes)
}

pub(super) fn filezilla(site: &Site) -> Text {
    let steps = vec![Step::words(format!(
        "Site Manager, New site: protocol SFTP, host {}, port {}, logon type Ask for password, user {}; the password is the token.",
        site.sftp_name(),
        site.sftp_port(),
        site.login()
    ))];
    let notes = vec![
        "The logon type Interactive works as well.".into(),
        "Edit, Settings, Transfers: preserve timestamps keeps the files' times.".into(),
    ];
    (steps, notes)
}
