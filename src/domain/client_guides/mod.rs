//! Guides for connecting with common clients: exact steps for one gateway and one user.
//!
//! Pure text, for `patgate client` and the console. No step holds a secret: a command takes the token
//! from the shell variable `TOKEN`, which its first step reads, and a graphical program asks for it as
//! the password. The commands and files of clients that are [tested](ClientProgram::is_tested) are run unchanged by the
//! tests with real clients, so that they can't become outdated.

mod connection_details;
mod desktop;
mod programs;
mod scripts;
mod shell;

use std::fmt;
use std::str::FromStr;

use serde::Serialize;

pub use connection_details::{ConnectionDetails, InvalidGatewayAddress};

/// A client program.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ClientProgram {
    /// rclone, over both protocols.
    Rclone,
    /// davfs2: WebDAV mounted on Linux.
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
    /// sshfs: SFTP mounted on Linux.
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
    /// All clients with a guide.
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

    /// Returns the name of the client in commands.
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

    /// Returns the title of the client.
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

    /// Tells whether patgate's own tests run its steps with the program itself.
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

/// A name that is not that of a client with a guide.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("there are no steps for {0:?}: `patgate client` lists the clients")]
pub struct UnknownClient(String);

/// A guide for connecting with one client.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ClientGuide {
    /// Title of the client.
    pub title: &'static str,
    /// Whether patgate's own tests run these steps with the program itself.
    pub tried: bool,
    /// The steps, in order.
    pub steps: Vec<GuideStep>,
    /// Limits and quirks of the client.
    pub notes: Vec<String>,
}

/// One step of a guide: an instruction, with commands or lines of a file where it has some.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct GuideStep {
    /// The instruction.
    pub text: String,
    /// Commands or lines of a file, where the step has some.
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

/// Commands to run or lines to write.
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
        /// Path of the file.
        file: &'static str,
        /// The lines.
        content: String,
    },
}

const CLEARTEXT_WARNING: &str = "The address begins with http:// and is not on this machine: anybody on the network can read the \
    token. Use https://, or SFTP, which is always encrypted.";

/// Returns the guide for connecting with a client.
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
    // Guides that use SFTP only: the token is encrypted whatever the WebDAV address is.
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

/// Steps and notes of a guide.
type GuideText = (Vec<GuideStep>, Vec<String>);

#[cfg(test)]
mod tests;
