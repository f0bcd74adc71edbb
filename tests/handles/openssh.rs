//! The tested server OpenSSH: one sftp-server process per channel, over one directory.

use std::fs;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use tempfile::TempDir;

use crate::driver::{self, OpenHandles};
use crate::file_system::BASE_NAME;
use crate::model::StepOutcome;
use crate::runner::SftpTarget;
use crate::steps::{CHANNELS, SftpRequest, WebDavRequest, session_of};
use crate::support::sftp::SftpClient;

/// Paths of the program on Linux distributions.
const SFTP_SERVER_PATHS: [&str; 4] = [
    "/usr/lib/openssh/sftp-server",
    "/usr/libexec/openssh/sftp-server",
    "/usr/lib/ssh/sftp-server",
    "/usr/libexec/sftp-server",
];

/// Finds the program: `SFTP_SERVER`, or where it usually is.
pub(crate) fn sftp_server_program() -> PathBuf {
    let named = std::env::var_os("SFTP_SERVER").map(PathBuf::from);
    let usual = || SFTP_SERVER_PATHS.iter().map(PathBuf::from).find(|path| path.exists());
    named.or_else(usual).expect("OpenSSH's sftp-server: install openssh-sftp-server or set SFTP_SERVER")
}

struct SftpServerChannel {
    process: KilledOnDrop,
    sftp: SftpClient,
}

/// A process that is killed when it is dropped.
struct KilledOnDrop(Child);

impl Drop for KilledOnDrop {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Three sessions of OpenSSH.
pub(crate) struct OpenSshTarget {
    folder: TempDir,
    program: PathBuf,
    user: Option<u32>,
    channels: Vec<SftpServerChannel>,
    handles: OpenHandles,
}

impl OpenSshTarget {
    /// Starts the processes, as the user with this number where one is given.
    pub(crate) async fn start(program: &Path, user: Option<u32>) -> Self {
        let folder = tempfile::tempdir().expect("a directory");
        let base = folder.path().join(BASE_NAME);
        fs::create_dir(&base).expect("a directory");
        if let Some(user) = user {
            for path in [folder.path(), &base] {
                std::os::unix::fs::chown(path, Some(user), Some(user)).expect("given away");
            }
        }
        let handles = std::array::from_fn(|_| Vec::new());
        let mut target = Self { folder, program: program.to_owned(), user, channels: Vec::new(), handles };
        for _ in 0..CHANNELS {
            let channel = target.channel().await.expect("a session");
            target.channels.push(channel);
        }
        target
    }

    async fn channel(&self) -> Result<SftpServerChannel, String> {
        let (client_end, server_end) = UnixStream::pair().map_err(|error| error.to_string())?;
        let other = server_end.try_clone().map_err(|error| error.to_string())?;
        let mut command = Command::new(&self.program);
        command.args(["-u", "0022"]).current_dir(self.folder.path().join(BASE_NAME));
        command.stdin(OwnedFd::from(server_end)).stdout(OwnedFd::from(other)).stderr(Stdio::null());
        if let Some(user) = self.user {
            command.uid(user).gid(user);
        }
        let process = KilledOnDrop(command.spawn().map_err(|error| error.to_string())?);
        drop(command);
        client_end.set_nonblocking(true).map_err(|error| error.to_string())?;
        let stream = tokio::net::UnixStream::from_std(client_end).map_err(|error| error.to_string())?;
        let sftp = SftpClient::over_stream(stream).await.map_err(|error| format!("{error:?}"))?;
        Ok(SftpServerChannel { process, sftp })
    }

    async fn replace(&mut self, number: usize) -> Result<(), String> {
        let fresh = self.channel().await?;
        drop(std::mem::replace(&mut self.channels[number], fresh));
        self.handles[number].clear();
        Ok(())
    }
}

impl SftpTarget for OpenSshTarget {
    async fn reset(&mut self) -> Result<(), String> {
        let clear = |directory: &Path, keep: &str| -> std::io::Result<()> {
            for entry in fs::read_dir(directory)? {
                let entry = entry?;
                match entry.file_type()?.is_dir() {
                    true if entry.file_name() == keep => {}
                    true => fs::remove_dir_all(entry.path())?,
                    false => fs::remove_file(entry.path())?,
                }
            }
            Ok(())
        };
        let cleared =
            clear(self.folder.path(), BASE_NAME).and_then(|()| clear(&self.folder.path().join(BASE_NAME), ""));
        cleared.map_err(|error| error.to_string())
    }

    fn root(&self) -> PathBuf {
        self.folder.path().to_owned()
    }

    async fn request(&mut self, channel: usize, request: &SftpRequest) -> Result<StepOutcome, String> {
        let sftp = &mut self.channels[channel].sftp;
        driver::outcome(driver::perform(sftp, &mut self.handles[channel], "", request).await)
    }

    async fn drop_session(&mut self, session: usize) -> Result<(), String> {
        for channel in (0..CHANNELS).filter(|channel| session_of(*channel) == session) {
            self.replace(channel).await?;
        }
        Ok(())
    }

    async fn end_channel(&mut self, channel: usize) -> Result<(), String> {
        let fresh = self.channel().await?;
        let old = std::mem::replace(&mut self.channels[channel], fresh);
        self.handles[channel].clear();
        let SftpServerChannel { mut process, sftp } = old;
        sftp.close_channel().await;
        process.0.wait().map(drop).map_err(|error| error.to_string())
    }

    fn has_web_dav(&self) -> bool {
        false
    }

    async fn web_dav(&mut self, _request: &WebDavRequest, _expected: &StepOutcome) -> Result<StepOutcome, String> {
        Err("sftp-server has no WebDAV".to_owned())
    }
}
