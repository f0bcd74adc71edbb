//! Guides for command-line clients.

use super::connection_details::ConnectionDetails;
use super::{GuideStep, GuideText};

/// Mount point in the guides.
const MOUNT_POINT: &str = "~/patgate";

/// Returns the step that reads the token into a variable for the commands after it.
pub(super) fn read_token_step() -> GuideStep {
    let text = "Paste the token; it is not shown, and stays out of the shell's history";
    GuideStep::command(text, "IFS= read -rs TOKEN")
}

pub(super) fn rclone(details: &ConnectionDetails) -> GuideText {
    let (url, login, host, port) = (
        shell_quote(&details.url()),
        shell_quote(details.login().as_str()),
        details.sftp_hostname(),
        details.sftp_port(),
    );
    let obscured = r#"pass="$(printf %s "$TOKEN" | rclone obscure -)""#;
    let steps = vec![
        read_token_step(),
        GuideStep::command(
            "Make a remote for WebDAV",
            format!("rclone config create patgate webdav url={url} vendor=owncloud user={login} {obscured}"),
        ),
        GuideStep::command(
            "Or one for SFTP",
            format!(
                "rclone config create patgate-sftp sftp host={} port={port} user={login} shell_type=none {obscured}",
                shell_quote(host)
            ),
        ),
        GuideStep::command(
            "Look and copy; over SFTP, with patgate-sftp in place of patgate",
            "rclone lsf patgate:\nrclone copy ~/Documents patgate:Documents",
        ),
    ];
    let notes = vec![
        "The vendor owncloud keeps modification times; with the vendor other, files take the time of their upload."
            .into(),
        format!(
            "Newer versions upload large files in chunks with vendor=nextcloud and \
             url={}/remote.php/dav/files/{}/ (the same tree).",
            details.origin(),
            details.login()
        ),
        "shell_type=none spares rclone the search for a shell that is not there.".into(),
    ];
    (steps, notes)
}

pub(super) fn davfs2(details: &ConnectionDetails) -> GuideText {
    let (url, login) = (shell_quote(&details.url()), shell_quote(details.login().as_str()));
    let steps = vec![
        GuideStep::file(
            "Set davfs2 up: from Linux 6 on, the kernel reads folders in larger pieces than davfs2's default",
            "~/.davfs2/davfs2.conf",
            "buf_size 256\n",
        ),
        read_token_step(),
        GuideStep::command(
            "Mount the folder",
            format!(
                "mkdir -p {MOUNT_POINT}\nprintf '%s\\n' \"$TOKEN\" | sudo mount -t davfs -o conf=\"$HOME/.davfs2/davfs2.conf\",username={login},uid=\"$(id -u)\" {url} {MOUNT_POINT}"
            ),
        ),
        GuideStep::command("When done; it waits until everything is uploaded", format!("sudo umount {MOUNT_POINT}")),
    ];
    let notes = vec![
        "davfs2 uploads a file some seconds after it was closed: a copy that seems done is done after umount.".into(),
        "The folder lost+found is davfs2's own.".into(),
    ];
    (steps, notes)
}

pub(super) fn sshfs(details: &ConnectionDetails) -> GuideText {
    let (target, port) = (shell_quote(&format!("{}@{}:", details.login(), details.sftp_host())), details.sftp_port());
    let steps = vec![
        read_token_step(),
        GuideStep::command(
            "Mount the folder",
            format!(
                "mkdir -p {MOUNT_POINT}\nprintf '%s\\n' \"$TOKEN\" | sshfs -p {port} -o password_stdin,idmap=user {target} {MOUNT_POINT}"
            ),
        ),
        GuideStep::command("When done", format!("fusermount3 -u {MOUNT_POINT}")),
    ];
    let notes = vec![
        "Connect once with sftp before, so that the host key is known.".into(),
        "Within the mount, git wants: git clone --no-hardlinks.".into(),
        "A new file is seen by others once it is closed.".into(),
    ];
    (steps, notes)
}

pub(super) fn openssh(details: &ConnectionDetails) -> GuideText {
    let config = format!(
        "Host patgate\n    HostName {}\n    Port {}\n    User {}\n    PreferredAuthentications password\n    PubkeyAuthentication no\n",
        details.sftp_hostname(),
        details.sftp_port(),
        details.login()
    );
    let steps = vec![
        GuideStep::file("Name the gateway", "~/.ssh/config", config),
        GuideStep::command("Open a session; the password is the token", "sftp patgate"),
        GuideStep::command("Or copy", "scp -r -s ~/Documents patgate:"),
    ];
    let notes = vec![
        "patgate takes no keys: those that a client offers first are refused, and cost the token no attempt.".into(),
        "scp needs -s before OpenSSH 9.0, which made SFTP its protocol.".into(),
        "A file that put has sent is on disk; what reput or another edit in place writes is once the file is closed."
            .into(),
    ];
    (steps, notes)
}

pub(super) fn lftp(details: &ConnectionDetails) -> GuideText {
    let (url, login) =
        (format!("sftp://{}:{}", details.sftp_host(), details.sftp_port()), shell_quote(details.login().as_str()));
    let steps = vec![
        read_token_step(),
        GuideStep::command(
            "Mirror a folder there",
            format!(
                "LFTP_PASSWORD=\"$TOKEN\" lftp --env-password -u {login} -e 'set cmd:fail-exit yes; mirror -R --parallel=4 ~/Documents Documents; bye' {url}"
            ),
        ),
        GuideStep::command("Or look around", format!("LFTP_PASSWORD=\"$TOKEN\" lftp --env-password -u {login} {url}")),
    ];
    (steps, vec!["Connect once with sftp before, so that the host key is known.".into()])
}

/// Returns a word quoted for a shell, where it has to be.
pub(super) fn shell_quote(text: &str) -> String {
    let is_safe = |b: u8| b.is_ascii_alphanumeric() || b"./_-+,@%:=".contains(&b);
    if !text.is_empty() && text.bytes().all(is_safe) {
        text.to_owned()
    } else {
        format!("'{}'", text.replace('\'', "'\\''"))
    }
}
