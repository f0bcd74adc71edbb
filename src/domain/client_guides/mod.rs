//! How to connect with the clients people use: exact steps for one gateway and one user.
//!
//! Pure text, for `patgate client` and the console. No step holds a secret: a command takes the token
//! from the shell variable `TOKEN`, which its first step reads, and a program with windows asks for it as
//! the password. The commands and files of what is [`is_tested`](ClientGuide::tried) are run as they stand by the
//! checks with real clients, so that they can't go stale.

mod connection_details;
mod desktop;
mod programs;
mod scripts;
mod shell;

use std::fmt;
use std::str::FromStr;

use serde::Serialize;

pub use connection_details::{ConnectionDetails, InvalidGatewayAddress};

/// A program that people connect with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ClientProgram {
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

impl ClientProgram {
    /// Every client there are steps for.
    pub const ALL: [ClientProgram; 20] = [
        ClientProgram::Rclone,
        ClientProgram::Davfs2,
        ClientProgram::Gnome,
        ClientProgram::Kde,
        ClientProgram::Windows,
        ClientProgram::Macos,
        ClientProgram::Cyberduck,
        ClientProgram::Sshfs,
        ClientProgram::Openssh,
        ClientProgram::Winscp,
        ClientProgram::Filezilla,
        ClientProgram::Lftp,
        ClientProgram::Restic,
        ClientProgram::Duplicity,
        ClientProgram::Joplin,
        ClientProgram::Keepassxc,
        ClientProgram::Zotero,
        ClientProgram::Paramiko,
        ClientProgram::Fsspec,
        ClientProgram::Ansible,
    ];

    /// Returns the name it is asked for by.
    pub fn name(self) -> &'static str {
        match self {
            ClientProgram::Rclone => "rclone",
            ClientProgram::Davfs2 => "davfs2",
            ClientProgram::Gnome => "gnome",
            ClientProgram::Kde => "kde",
            ClientProgram::Windows => "windows",
            ClientProgram::Macos => "macos",
            ClientProgram::Cyberduck => "cyberduck",
            ClientProgram::Sshfs => "sshfs",
            ClientProgram::Openssh => "openssh",
            ClientProgram::Winscp => "winscp",
            ClientProgram::Filezilla => "filezilla",
            ClientProgram::Lftp => "lftp",
            ClientProgram::Restic => "restic",
            ClientProgram::Duplicity => "duplicity",
            ClientProgram::Joplin => "joplin",
            ClientProgram::Keepassxc => "keepassxc",
            ClientProgram::Zotero => "zotero",
            ClientProgram::Paramiko => "paramiko",
            ClientProgram::Fsspec => "fsspec",
            ClientProgram::Ansible => "ansible",
        }
    }

    /// Returns what people call it.
    pub fn title(self) -> &'static str {
        match self {
            ClientProgram::Rclone => "rclone",
            ClientProgram::Davfs2 => "davfs2",
            ClientProgram::Gnome => "GNOME Files",
            ClientProgram::Kde => "KDE Dolphin",
            ClientProgram::Windows => "Windows Explorer",
            ClientProgram::Macos => "macOS Finder",
            ClientProgram::Cyberduck => "Cyberduck",
            ClientProgram::Sshfs => "sshfs",
            ClientProgram::Openssh => "OpenSSH sftp and scp",
            ClientProgram::Winscp => "WinSCP",
            ClientProgram::Filezilla => "FileZilla",
            ClientProgram::Lftp => "lftp",
            ClientProgram::Restic => "restic",
            ClientProgram::Duplicity => "duplicity",
            ClientProgram::Joplin => "Joplin",
            ClientProgram::Keepassxc => "KeePassXC",
            ClientProgram::Zotero => "Zotero",
            ClientProgram::Paramiko => "paramiko (Python)",
            ClientProgram::Fsspec => "fsspec over SFTP (Python)",
            ClientProgram::Ansible => "Ansible",
        }
    }

    /// Tells whether patgate's own checks run its steps with the program itself.
    pub fn is_tested(self) -> bool {
        match self {
            ClientProgram::Rclone
            | ClientProgram::Davfs2
            | ClientProgram::Gnome
            | ClientProgram::Kde
            | ClientProgram::Sshfs
            | ClientProgram::Openssh
            | ClientProgram::Lftp
            | ClientProgram::Restic
            | ClientProgram::Duplicity
            | ClientProgram::Joplin
            | ClientProgram::Keepassxc
            | ClientProgram::Paramiko
            | ClientProgram::Fsspec
            | ClientProgram::Ansible => true,
            ClientProgram::Windows
            | ClientProgram::Macos
            | ClientProgram::Cyberduck
            | ClientProgram::Winscp
            | ClientProgram::Filezilla
            | ClientProgram::Zotero => false,
        }
    }
}

impl fmt::Display for ClientProgram {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for ClientProgram {
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
pub struct ClientGuide {
    /// What people call the client.
    pub title: &'static str,
    /// Whether patgate's own checks run these steps with the program itself.
    pub tried: bool,
    /// The steps, in order.
    pub steps: Vec<GuideStep>,
    /// What is good to know: limits and oddities of the client.
    pub notes: Vec<String>,
}

/// One step: what to do, in words, and what to type or to write for it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct GuideStep {
    /// What to do.
    pub text: String,
    /// Commands or lines of a file, where the step takes some.
    #[serde(flatten)]
    pub code: Option<GuideCode>,
}

impl GuideStep {
    fn instruction(text: impl Into<String>) -> Self {
        Self { text: text.into(), code: None }
    }

    fn command(text: impl Into<String>, command: impl Into<String>) -> Self {
        Self { text: text.into(), code: Some(GuideCode::Command { command: command.into() }) }
    }

    fn file(text: impl Into<String>, file: &'static str, content: impl Into<String>) -> Self {
        Self { text: text.into(), code: Some(GuideCode::File { file, content: content.into() }) }
    }
}

/// What to type or to write.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum GuideCode {
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

const CLEARTEXT_WARNING: &str = "The address begins with http:// and leads off this machine: anybody on the way can read the \
    token. Use https://, or SFTP, which is always encrypted.";

/// Returns the steps to connect with a client.
pub fn client_guide(client: ClientProgram, details: &ConnectionDetails) -> ClientGuide {
    let (steps, notes) = match client {
        ClientProgram::Rclone => shell::rclone(details),
        ClientProgram::Davfs2 => shell::davfs2(details),
        ClientProgram::Sshfs => shell::sshfs(details),
        ClientProgram::Openssh => shell::openssh(details),
        ClientProgram::Lftp => shell::lftp(details),
        ClientProgram::Gnome => desktop::gnome(details),
        ClientProgram::Kde => desktop::kde(details),
        ClientProgram::Windows => desktop::windows(details),
        ClientProgram::Macos => desktop::macos(details),
        ClientProgram::Cyberduck => desktop::cyberduck(details),
        ClientProgram::Winscp => desktop::winscp(details),
        ClientProgram::Filezilla => desktop::filezilla(details),
        ClientProgram::Restic => programs::restic(details),
        ClientProgram::Duplicity => programs::duplicity(details),
        ClientProgram::Joplin => programs::joplin(details),
        ClientProgram::Keepassxc => programs::keepassxc(details),
        ClientProgram::Zotero => programs::zotero(details),
        ClientProgram::Paramiko => scripts::paramiko(details),
        ClientProgram::Fsspec => scripts::fsspec(details),
        ClientProgram::Ansible => scripts::ansible(details),
    };
    let encrypted = matches!(
        client,
        ClientProgram::Sshfs
            | ClientProgram::Openssh
            | ClientProgram::Lftp
            | ClientProgram::Filezilla
            | ClientProgram::Paramiko
            | ClientProgram::Fsspec
    );
    let warning = (details.sends_cleartext() && !encrypted).then(|| CLEARTEXT_WARNING.to_owned());
    let notes = warning.into_iter().chain(notes).collect();
    ClientGuide { title: client.title(), tried: client.is_tested(), steps, notes }
}

/// Steps and notes, as the texts are made.
type GuideText = (Vec<GuideStep>, Vec<String>);

#[cfg(test)]
mod tests;
