//! Guides for programs that store their data on a server: backups, notes, passwords, references.

use super::connection_details::ConnectionDetails;
use super::shell::{rclone, read_token_step, shell_quote};
use super::{GuideStep, GuideText};

pub(super) fn restic(details: &ConnectionDetails) -> GuideText {
    let mut steps = rclone(details).0;
    steps.pop();
    steps.extend([
        GuideStep::command(
            "Make the repository, over one of the two; restic asks for a password of its own",
            "restic -r rclone:patgate:backup init",
        ),
        GuideStep::command("Back up", "restic -r rclone:patgate:backup backup ~/Documents"),
        GuideStep::command("Or over SFTP", "restic -r rclone:patgate-sftp:backup backup ~/Documents"),
    ]);
    let notes = vec![
        "A token with a sliding window of a few missed backups, narrowed to the folder, fits: -a 7d -s path:/…/backup:rw.".into(),
        "restic's own sftp: needs a login without a question: ssh with keys, which patgate does not take. Through rclone it needs none.".into(),
    ];
    (steps, notes)
}

pub(super) fn duplicity(details: &ConnectionDetails) -> GuideText {
    let (dav, sftp) = (details.url_with_scheme("webdav", true), format!("pexpect+{}", details.sftp_url()));
    let run =
        |url: String| format!("FTP_PASSWORD=\"$TOKEN\" duplicity --no-encryption ~/Documents {}", shell_quote(&url));
    let steps = vec![
        read_token_step(),
        GuideStep::command("Back up over WebDAV; the folder is made", run(format!("{dav}backup"))),
        GuideStep::command("Or over SFTP", run(format!("{sftp}/backup"))),
        GuideStep::command(
            "Restore",
            format!(
                "FTP_PASSWORD=\"$TOKEN\" duplicity restore --no-encryption {} ~/restored",
                shell_quote(&format!("{dav}backup"))
            ),
        ),
    ];
    let notes = vec![
        "Over SFTP, connect once with sftp before, so that the host key is known.".into(),
        "With pexpect+sftp, duplicity runs OpenSSH's sftp (it takes the package python3-pexpect). With sftp alone it goes \
         through paramiko and tries keys of yours before the token, which this server can't answer: the backup fails."
            .into(),
        "Without --no-encryption, duplicity encrypts with the passphrase in the variable PASSPHRASE.".into(),
    ];
    (steps, notes)
}

pub(super) fn joplin(details: &ConnectionDetails) -> GuideText {
    let folder = format!("{}joplin", details.url());
    let steps = vec![
        read_token_step(),
        GuideStep::command(
            "Make a folder for the notes",
            format!(
                "printf 'user = \"%s:%s\"\\n' {} \"$TOKEN\" | curl -f -K - -X MKCOL {}",
                shell_quote(details.login().as_str()),
                shell_quote(&folder)
            ),
        ),
        GuideStep::instruction(format!(
            "In Joplin: Options, Synchronisation, target WebDAV: URL {folder}, user name {}, password the token; Check synchronisation configuration.",
            details.login()
        )),
        GuideStep::command(
            "Or its command line",
            format!(
                "joplin config sync.target 6\njoplin config sync.6.path {}\njoplin config sync.6.username {}\njoplin config sync.6.password \"$TOKEN\"\njoplin sync",
                shell_quote(&folder),
                shell_quote(details.login().as_str())
            ),
        ),
    ];
    (steps, vec!["Only Joplin should write in that folder; a token narrowed to it is enough.".into()])
}

pub(super) fn keepassxc(details: &ConnectionDetails) -> GuideText {
    let steps = vec![
        GuideStep::instruction(
            "KeePassXC opens files, not addresses: mount the folder first, with the steps for davfs2, sshfs, gnome, windows or macos.",
        ),
        GuideStep::command(
            "Copy your database there, or make one; it asks for a password of its own",
            "keepassxc-cli db-create -p ~/patgate/Passwords.kdbx",
        ),
        GuideStep::instruction("Database, Open Database: the file in the mounted folder."),
        GuideStep::instruction(
            "Tools, Settings, General, File Management: Safely save database files stays on, with Use alternative saving method (temporary file) where saving fails.",
        ),
        GuideStep::instruction(format!(
            "Other programs of its kind open addresses: KeePass 2 and KeePassDX take {}NAME.kdbx with user {} and the token.",
            details.url(),
            details.login()
        )),
    ];
    let notes = vec!["A token narrowed to the one file would not do: saving makes a second file beside it. Narrow it to a folder that holds only the database.".into()];
    (steps, notes)
}

pub(super) fn zotero(details: &ConnectionDetails) -> GuideText {
    let scheme = if details.is_https() { "https" } else { "http" };
    let address = details.url();
    let shown = address.split_once("://").map_or(address.as_str(), |(_, rest)| rest).trim_end_matches('/');
    let steps = vec![
        GuideStep::instruction(format!(
            "Settings, Sync, File Syncing: sync attachment files using WebDAV, {scheme}://, URL {shown} (Zotero adds /zotero/), user name {}, password the token.",
            details.login()
        )),
        GuideStep::instruction("Verify Server, and Create when it offers to make the folder zotero."),
    ];
    (steps, vec!["Zotero keeps each attachment as a .zip with a .prop beside it; leave them to it.".into()])
}
