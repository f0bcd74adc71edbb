//! Guides for graphical clients.

use super::connection_details::ConnectionDetails;
use super::shell::shell_quote;
use super::{GuideStep, GuideText};

/// Returns a note that a program requires TLS, where the address has none.
fn tls_required_note(details: &ConnectionDetails, program: &str) -> Option<String> {
    let text = "sends passwords over TLS alone: give the gateway a certificate, or a reverse proxy that has one.";
    (!details.is_https()).then(|| format!("{program} {text}"))
}

pub(super) fn gnome(details: &ConnectionDetails) -> GuideText {
    let url = details.url_with_scheme("dav", true);
    let steps = vec![
        GuideStep::instruction(format!(
            "In Files: Other Locations (or Network), Connect to Server: {url}; the password is the token."
        )),
        GuideStep::command("Or in a terminal; the password is the token", format!("gio mount {}", shell_quote(&url))),
        GuideStep::command(
            "Look and copy",
            format!("gio list {0}\ngio copy ~/Documents/letter.odt {0}", shell_quote(&url)),
        ),
        GuideStep::command("When done", format!("gio mount -u {}", shell_quote(&url))),
        GuideStep::command(
            "SFTP works the same",
            format!("gio mount {}", shell_quote(&format!("{}/", details.sftp_url()))),
        ),
    ];
    let notes = vec!["Programs that don't know these addresses find the mount below /run/user/UID/gvfs.".into()];
    (steps, notes)
}

pub(super) fn kde(details: &ConnectionDetails) -> GuideText {
    let url = details.url_with_scheme("webdav", true);
    let sftp = shell_quote(&format!("{}/", details.sftp_url()));
    let steps = vec![
        GuideStep::instruction(format!("In Dolphin's address bar (Ctrl+L): {url}; the password is the token.")),
        GuideStep::command(
            "Or in a terminal; a window asks for the token",
            format!("kioclient copy ~/Documents/letter.odt {0}\nkioclient ls {0}", shell_quote(&url)),
        ),
        GuideStep::command("SFTP works the same", format!("kioclient ls {sftp}")),
    ];
    let notes = vec![
        "Over WebDAV, files take the time of their upload; over SFTP they keep their own.".into(),
        "Programs that are not KDE's open a copy; save goes back through Dolphin's question to upload it.".into(),
    ];
    (steps, notes)
}

pub(super) fn windows(details: &ConnectionDetails) -> GuideText {
    let url = details.url();
    let parameters = r"HKLM\SYSTEM\CurrentControlSet\Services\WebClient\Parameters";
    let steps = vec![
        GuideStep::instruction(format!(
            "In Explorer: This PC, Map network drive, folder {url}, with \"Connect using different credentials\"; user {}, the password is the token.",
            details.login()
        )),
        GuideStep::command(
            "Or in a command prompt; it asks for the token",
            format!("net use Z: {} * /user:{} /persistent:yes", url.trim_end_matches('/'), details.login()),
        ),
        GuideStep::command(
            "As administrator, once: Windows refuses files over 50 MB and long listings unless told (4 GB is the most)",
            format!(
                "reg add {parameters} /v FileSizeLimitInBytes /t REG_DWORD /d 0xffffffff /f\n\
                 reg add {parameters} /v FileAttributesLimitInBytes /t REG_DWORD /d 0x05f5e100 /f\n\
                 net stop webclient\nnet start webclient"
            ),
        ),
    ];
    let mut notes: Vec<String> = tls_required_note(details, "Windows").into_iter().collect();
    notes.extend([
        "The certificate must be one that Windows trusts.".into(),
        "On a server edition the WebDAV Redirector is a feature to be installed; the service WebClient must run."
            .into(),
        "Names with \\ / : * ? \" < > | or a full stop or space at their end can't be used from Windows.".into(),
        "Newer Windows also brings OpenSSH: sftp works there as elsewhere.".into(),
    ]);
    (steps, notes)
}

pub(super) fn macos(details: &ConnectionDetails) -> GuideText {
    let url = details.url();
    let steps = vec![
        GuideStep::instruction(format!(
            "In Finder: Go, Connect to Server (⌘K): {url}; user {}, the password is the token.",
            details.login()
        )),
        GuideStep::command(
            "Or in a terminal; it asks for user and token",
            format!("mkdir -p ~/patgate\nmount_webdav -i {} ~/patgate", shell_quote(&url)),
        ),
        GuideStep::command(
            "To keep .DS_Store files off network drives",
            "defaults write com.apple.desktopservices DSDontWriteNetworkStores -bool TRUE",
        ),
    ];
    let mut notes: Vec<String> = tls_required_note(details, "Finder").into_iter().collect();
    notes.extend([
        "Finder writes a ._ file beside each file, for what WebDAV can't hold of it.".into(),
        "macOS decomposes accented letters in names (NFD); patgate finds a file in either form, and keeps that of a new one.".into(),
        "Large uploads go better with Cyberduck, rclone or sftp: Finder holds a file in its cache first.".into(),
    ]);
    (steps, notes)
}

pub(super) fn cyberduck(details: &ConnectionDetails) -> GuideText {
    let scheme = if details.is_https() { "WebDAV (HTTPS)" } else { "WebDAV (HTTP)" };
    let steps = vec![
        GuideStep::instruction(format!(
            "Open Connection, {scheme}: server {}, port {}, user name {}, password the token; More Options, path {}.",
            details.host(),
            details.port(),
            details.login(),
            details.path()
        )),
        GuideStep::instruction(format!(
            "Or SFTP (SSH File Transfer Protocol): server {}, port {}, the same user name and password.",
            details.sftp_hostname(),
            details.sftp_port()
        )),
        GuideStep::command(
            "Or its command line; it asks for the token",
            format!(
                "duck --username {} --list {}",
                shell_quote(details.login().as_str()),
                shell_quote(&details.url_with_scheme("dav", false))
            ),
        ),
    ];
    let notes = vec![
        "Over SFTP, Transfers, Upload Temporary File Name can stay off: patgate shows an upload when it is whole."
            .into(),
    ];
    (steps, notes)
}

pub(super) fn winscp(details: &ConnectionDetails) -> GuideText {
    let steps = vec![
        GuideStep::instruction(format!(
            "New Site: file protocol SFTP, host name {}, port {}, user name {}, password the token.",
            details.sftp_hostname(),
            details.sftp_port(),
            details.login()
        )),
        GuideStep::command(
            "Or in a command prompt; it asks for the token",
            format!("winscp.com /command \"open {}/\"", details.sftp_url()),
        ),
    ];
    let notes = vec![
        "Preferences, Transfer, Endurance: transfer to temporary file name can be off; patgate shows an upload when it is whole.".into(),
        format!(
            "WebDAV works, too: file protocol WebDAV, {}, host {}, port {}, remote directory {}.",
            if details.is_https() { "TLS/SSL implicit encryption" } else { "no encryption" },
            details.host(),
            details.port(),
            details.path()
        ),
    ];
    (steps, notes)
}

pub(super) fn filezilla(details: &ConnectionDetails) -> GuideText {
    let steps = vec![GuideStep::instruction(format!(
        "Site Manager, New site: protocol SFTP, host {}, port {}, logon type Ask for password, user {}; the password is the token.",
        details.sftp_hostname(),
        details.sftp_port(),
        details.login()
    ))];
    let notes = vec![
        "The logon type Interactive works as well.".into(),
        "Edit, Settings, Transfers: preserve timestamps keeps the files' times.".into(),
    ];
    (steps, notes)
}
