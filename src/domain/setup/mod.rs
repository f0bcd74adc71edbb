//! How to connect with the clients people use: exact steps for one gateway and one user.
//!
//! Pure text, for `patgate client` and the console. No step holds a secret: a command takes the token
//! from the shell variable `TOKEN`, which its first step reads, and a program with windows asks for it as
//! the password. The commands and files of what is [`tried`](Setup::tried) are run as they stand by the
//! checks with real clients, so that they can't go stale.

mod desktop;
mod programs;
mod scripts;
mod shell;
mod site;

use std::fmt;
use std::str::FromStr;

use serde::Serialize;

pub use site::{Site, SiteError};

/// A program that people connect with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Client {
    /// rclone, over both protocols.
    Rclone,
    /// davfs2: a WebDAV folder mounted on Linux.
    Davfs2,
    /// GNOME Files, and `gio`.
    Gnome,
    /// KDE's Dolphin.
    Kde,
    /// Windows Explorer.
    Windows,
    /// macOS Finder.
    Macos,
    /// Cyberduck.
    Cyberduck,
    /// sshfs: an SFTP folder mounted on Linux.
    Sshfs,
    /// OpenSSH's `sftp` and `scp`.
    Openssh,
    /// WinSCP.
    Winscp,
    /// FileZilla.
    Filezilla,
    /// lftp.
    Lftp,
    /// restic: backups.
    Restic,
    /// duplicity: backups.
    Duplicity,
    /// Joplin: notes.
    Joplin,
    /// KeePassXC: passwords.
    Keepassxc,
    /// Zotero: references.
    Zotero,
    /// paramiko: SFTP for Python.
    Paramiko,
    /// fsspec: file systems for Python, here over paramiko.
    Fsspec,
    /// Ansible: machines set up by playbooks.
    Ansible,
}

impl Client {
    /// Every client there are steps for.
    pub const ALL: [Client; 20] = [
        Client::Rclone,
        Client::Davfs2,
        Client::Gnome,
        Client::Kde,
        Client::Windows,
        Client::Macos,
        Client::Cyberduck,
        Client::Sshfs,
        Client::Openssh,
        Client::Winscp,
        Client::Filezilla,
        Client::Lftp,
        Client::Restic,
        Client::Duplicity,
        Client::Joplin,
        Client::Keepassxc,
        Client::Zotero,
        Client::Paramiko,
        Client::Fsspec,
        Client::Ansible,
    ];

    /// Returns the name it is asked for by.
    pub fn name(self) -> &'static str {
        match self {
            Client::Rclone => "rclone",
            Client::Davfs2 => "davfs2",
            Client::Gnome => "gnome",
            Client::Kde => "kde",
            Client::Windows => "windows",
            Client::Macos => "macos",
            Client::Cyberduck => "cyberduck",
            Client::Sshfs => "sshfs",
            Client::Openssh => "openssh",
            Client::Winscp => "winscp",
            Client::Filezilla => "filezilla",
            Client::Lftp => "lftp",
            Client::Restic => "restic",
            Client::Duplicity => "duplicity",
            Client::Joplin => "joplin",
            Client::Keepassxc => "keepassxc",
            Client::Zotero => "zotero",
            Client::Paramiko => "paramiko",
            Client::Fsspec => "fsspec",
            Client::Ansible => "ansible",
        }
    }

    /// Returns what people call it.
    pub fn title(self) -> &'static str {
        match self {
            Client::Rclone => "rclone",
            Client::Davfs2 => "davfs2",
            Client::Gnome => "GNOME Files",
            Client::Kde => "KDE Dolphin",
            Client::Windows => "Windows Explorer",
            Client::Macos => "macOS Finder",
            Client::Cyberduck => "Cyberduck",
            Client::Sshfs => "sshfs",
            Client::Openssh => "OpenSSH sftp and scp",
            Client::Winscp => "WinSCP",
            Client::Filezilla => "FileZilla",
            Client::Lftp => "lftp",
            Client::Restic => "restic",
            Client::Duplicity => "duplicity",
            Client::Joplin => "Joplin",
            Client::Keepassxc => "KeePassXC",
            Client::Zotero => "Zotero",
            Client::Paramiko => "paramiko (Python)",
            Client::Fsspec => "fsspec over SFTP (Python)",
            Client::Ansible => "Ansible",
        }
    }

    /// Tells whether patgate's own checks run its steps with the program itself.
    pub fn tried(self) -> bool {
        match self {
            Client::Rclone
            | Client::Davfs2
            | Client::Gnome
            | Client::Kde
            | Client::Sshfs
            | Client::Openssh
            | Client::Lftp
            | Client::Restic
            | Client::Duplicity
            | Client::Joplin
            | Client::Keepassxc
            | Client::Paramiko
            | Client::Fsspec
            | Client::Ansible => true,
            Client::Windows
            | Client::Macos
            | Client::Cyberduck
            | Client::Winscp
            | Client::Filezilla
            | Client::Zotero => false,
        }
    }
}

impl fmt::Display for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Client {
    type Err = UnknownClient;

    fn from_str(text: &str) -> Result<Self, UnknownClient> {
        let known = Self::ALL.into_iter().find(|client| client.name().eq_ignore_ascii_case(text));
        known.ok_or_else(|| UnknownClient(text.chars().take(80).collect()))
    }
}

/// A name that no client here has.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("there are no steps for {0:?}: `patgate client` lists the clients")]
pub struct UnknownClient(String);

/// What to do to connect with one client.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Setup {
    /// What people call the client.
    pub title: &'static str,
    /// Whether patgate's own checks run these steps with the program itself.
    pub tried: bool,
    /// The steps, in order.
    pub steps: Vec<Step>,
    /// What is good to know: limits and oddities of the client.
    pub notes: Vec<String>,
}

/// One step: what to do, in words, and what to type or to write for it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Step {
    /// What to do.
    pub text: String,
    /// Commands or lines of a file, where the step takes some.
    #[serde(flatten)]
    pub code: Option<Code>,
}

impl Step {
    fn words(text: impl Into<String>) -> Self {
        Self { text: text.into(), code: None }
    }

    fn command(text: impl Into<String>, command: impl Into<String>) -> Self {
        Self { text: text.into(), code: Some(Code::Command { command: command.into() }) }
    }

    fn file(text: impl Into<String>, file: &'static str, content: impl Into<String>) -> Self {
        Self { text: text.into(), code: Some(Code::File { file, content: content.into() }) }
    }
}

/// What to type or to write.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum Code {
    /// Lines for a command prompt: a Unix shell's unless the step says otherwise.
    Command {
        /// The lines.
        command: String,
    },
    /// Lines to add to a file.
    File {
        /// Where the file is.
        file: &'static str,
        /// The lines.
        content: String,
    },
}

const IN_THE_CLEAR: &str = "The address begins with http:// and leads off this machine: anybody on the way can read the \
    token. Use https://, or SFTP, which is always encrypted.";

/// Returns the steps to connect with a client.
pub fn steps(client: Client, site: &Site) -> Setup {
    let (steps, notes) = match client {
        Client::Rclone => shell::rclone(site),
        Client::Davfs2 => shell::davfs2(site),
        Client::Sshfs => shell::sshfs(site),
        Client::Openssh => shell::openssh(site),
        Client::Lftp => shell::lftp(site),
        Client::Gnome => desktop::gnome(site),
        Client::Kde => desktop::kde(site),
        Client::Windows => desktop::windows(site),
        Client::Macos => desktop::macos(site),
        Client::Cyberduck => desktop::cyberduck(site),
        Client::Winscp => desktop::winscp(site),
        Client::Filezilla => desktop::filezilla(site),
        Client::Restic => programs::restic(site),
        Client::Duplicity => programs::duplicity(site),
        Client::Joplin => programs::joplin(site),
        Client::Keepassxc => programs::keepassxc(site),
        Client::Zotero => programs::zotero(site),
        Client::Paramiko => scripts::paramiko(site),
        Client::Fsspec => scripts::fsspec(site),
        Client::Ansible => scripts::ansible(site),
    };
    let encrypted = matches!(
        client,
        Client::Sshfs | Client::Openssh | Client::Lftp | Client::Filezilla | Client::Paramiko | Client::Fsspec
    );
    let warning = (site.in_the_clear() && !encrypted).then(|| IN_THE_CLEAR.to_owned());
    let notes = warning.into_iter().chain(notes).collect();
    Setup { title: client.title(), tried: client.tried(), steps, notes }
}

/// Steps and notes, as the texts are made.
type Text = (Vec<Step>, Vec<String>);

#[cfg(test)]
mod tests;
