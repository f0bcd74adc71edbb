//! Clients over SFTP: whole files as `put` writes them, and blocks that are written in place and synced.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::content::{BLOCK_BYTES, content, recognize};
use crate::history::{Change, Outcome, Seen, Value};
use crate::outcome::within_timeout;
use crate::random::Random;
use crate::recorder::Recorder;
use crate::support::{SftpClient, SftpError, open_flags};
use crate::webdav_clients::{FILES_PER_WRITER, file_register};

/// Number of blocks of each file that is written in place.
const BLOCKS_PER_FILE: usize = 32;
/// SSH_FX_NO_SUCH_FILE
const NO_SUCH_FILE: u32 = 2;

/// A client that writes its files over SFTP, connecting again whenever the server has ended.
pub(crate) struct SftpWriter {
    pub(crate) recorder: Arc<Recorder>,
    pub(crate) address: SocketAddr,
    pub(crate) login: String,
    pub(crate) token: String,
    pub(crate) directory: String,
    pub(crate) random: Random,
    pub(crate) known: HashMap<String, Value>,
}

type SftpResult<T> = Result<T, SftpError>;

/// How far a change has come where it has failed.
enum ChangeError {
    /// Nothing was sent that may take effect.
    BeforeEffect(SftpError),
    /// The last request was sent, and its reply is missing or a refusal.
    AtEffect(SftpError),
}

impl SftpWriter {
    pub(crate) async fn run(mut self, stop: Arc<AtomicBool>) {
        for number in 0..FILES_PER_WRITER {
            self.known.insert(format!("{}/f{number}", self.directory), None);
        }
        while !stop.load(Ordering::Relaxed) {
            let start = self.recorder.now();
            let connecting = SftpClient::connect(self.address, &self.login, &self.token);
            let Some(mut sftp) = within_timeout(&self.recorder, "SFTP login", start, connecting).await.flatten() else {
                tokio::time::sleep(Duration::from_millis(200)).await;
                continue;
            };
            self.recorder.count("SFTP login", self.recorder.since(start), Outcome::Acknowledged);
            // Some sessions are short, so that logins are among what is killed.
            for _ in 0..20 + self.random.below(200) {
                if stop.load(Ordering::Relaxed) || self.work(&mut sftp).await.is_none() {
                    break;
                }
            }
        }
    }

    /// Does one thing; `None` when the connection is lost.
    async fn work(&mut self, sftp: &mut SftpClient) -> Option<()> {
        let path = format!("{}/f{}", self.directory, self.random.below(FILES_PER_WRITER));
        match self.random.below(100) {
            _ if !self.known.contains_key(&path) => self.read(sftp, &path).await,
            0..25 => self.put(sftp, &path).await,
            25..45 => self.read(sftp, &path).await,
            45..55 => self.rename(sftp, &path).await,
            55..62 => self.remove(sftp, &path).await,
            _ => self.write_blocks(sftp).await,
        }
    }

    async fn put(&mut self, sftp: &mut SftpClient, path: &str) -> Option<()> {
        let number = self.recorder.new_number();
        let body = content(number, self.random.length());
        let start = self.recorder.now();
        let result = within_timeout(&self.recorder, "SFTP put", start, put_whole(sftp, path, &body)).await;
        self.changed("SFTP put", start, result, &[(path, Some(number))])
    }

    async fn rename(&mut self, sftp: &mut SftpClient, from: &str) -> Option<()> {
        let to = format!("{}/f{}", self.directory, self.random.below(FILES_PER_WRITER));
        let value = self.known[from];
        if value.is_none() || !self.known.contains_key(&to) || to == from {
            return Some(());
        }
        let start = self.recorder.now();
        let renaming = async { sftp.posix_rename(from, &to).await.map_err(ChangeError::AtEffect) };
        let result = within_timeout(&self.recorder, "SFTP rename", start, renaming).await;
        self.changed("SFTP rename", start, result, &[(from, None), (&to, value)])
    }

    async fn remove(&mut self, sftp: &mut SftpClient, path: &str) -> Option<()> {
        if self.known[path].is_none() {
            return Some(());
        }
        let start = self.recorder.now();
        let removing = async { sftp.remove(path).await.map_err(ChangeError::AtEffect) };
        let result = within_timeout(&self.recorder, "SFTP remove", start, removing).await;
        self.changed("SFTP remove", start, result, &[(path, None)])
    }

    /// Records the changes of one operation; `None` when the connection is lost.
    fn changed(
        &mut self,
        kind: &'static str,
        start: u64,
        result: Option<Result<(), ChangeError>>,
        changes: &[(&str, Value)],
    ) -> Option<()> {
        let (outcome, goes_on) = match &result {
            Some(Ok(())) => (Outcome::Acknowledged, true),
            Some(Err(ChangeError::BeforeEffect(error))) => (Outcome::Refused, is_reply(error)),
            Some(Err(ChangeError::AtEffect(error))) if is_reply(error) => (Outcome::Refused, true),
            Some(Err(ChangeError::AtEffect(_))) | None => (Outcome::Unknown, false),
        };
        let (span, operation) = (self.recorder.since(start), self.recorder.new_number());
        self.recorder.count(kind, span, outcome);
        for (path, value) in changes {
            let change = Change { register: file_register(path), operation, value: *value, span, outcome, etag: None };
            self.recorder.change(change);
            match outcome {
                Outcome::Acknowledged => self.known.insert((*path).to_owned(), *value),
                Outcome::Refused => None,
                Outcome::Unknown => self.known.remove(*path),
            };
        }
        goes_on.then_some(())
    }

    async fn read(&mut self, sftp: &mut SftpClient, path: &str) -> Option<()> {
        let start = self.recorder.now();
        let result = within_timeout(&self.recorder, "SFTP get", start, sftp.get(path)).await?;
        let seen = match result {
            Ok(bytes) => recognize(&bytes),
            Err(SftpError::Status(NO_SUCH_FILE, _)) => Seen::Value(None),
            Err(error) => return is_reply(&error).then_some(()),
        };
        let span = self.recorder.since(start);
        self.recorder.count("SFTP get", span, Outcome::Acknowledged);
        if let Seen::Value(value) = seen {
            self.known.insert(path.to_owned(), value);
        }
        self.recorder.observe(&file_register(path), seen, span, None);
        Some(())
    }

    /// Writes some blocks of the file that is written in place, syncs them, and reads others.
    async fn write_blocks(&mut self, sftp: &mut SftpClient) -> Option<()> {
        let path = format!("{}/blocks", self.directory);
        let blocks: Vec<usize> = (0..1 + self.random.below(4)).map(|_| self.random.below(BLOCKS_PER_FILE)).collect();
        // Of several writes of one block the last would count: there is one each.
        let blocks: std::collections::BTreeSet<usize> = blocks.into_iter().collect();
        let numbers: Vec<(usize, u64)> = blocks.into_iter().map(|block| (block, self.recorder.new_number())).collect();
        let start = self.recorder.now();
        let writing = write_and_sync(sftp, &path, &numbers, self.random.percent(50));
        let result = within_timeout(&self.recorder, "SFTP write in place", start, writing).await;
        let outcome = match &result {
            Some(Ok(())) => Outcome::Acknowledged,
            Some(Err(ChangeError::BeforeEffect(_))) => Outcome::Refused,
            // One of several writes may have been carried out.
            Some(Err(ChangeError::AtEffect(_))) | None => Outcome::Unknown,
        };
        let span = self.recorder.since(start);
        self.recorder.count("SFTP write in place", span, outcome);
        for (block, number) in &numbers {
            let register = block_register(&path, *block);
            let change = Change { register, operation: *number, value: Some(*number), span, outcome, etag: None };
            self.recorder.change(change);
        }
        match result {
            Some(Err(ChangeError::BeforeEffect(error) | ChangeError::AtEffect(error))) if !is_reply(&error) => None,
            None => None,
            _ => self.read_block(sftp, &path).await,
        }
    }

    async fn read_block(&mut self, sftp: &mut SftpClient, path: &str) -> Option<()> {
        let block = self.random.below(BLOCKS_PER_FILE);
        let start = self.recorder.now();
        let reading = read_at(sftp, path, block);
        match within_timeout(&self.recorder, "SFTP read", start, reading).await? {
            Ok(bytes) => {
                let seen = if is_hole(&bytes) { Seen::Value(None) } else { recognize(&bytes) };
                self.recorder.observe(&block_register(path, block), seen, self.recorder.since(start), None);
                Some(())
            }
            Err(error) => is_reply(&error).then_some(()),
        }
    }
}

/// A block that was never written: a gap in the file, or behind its end.
fn is_hole(bytes: &[u8]) -> bool {
    bytes.iter().all(|byte| *byte == 0)
}

fn block_register(path: &str, block: usize) -> String {
    format!("file:{path}#{block}")
}

fn is_reply(error: &SftpError) -> bool {
    matches!(error, SftpError::Status(..))
}

async fn put_whole(sftp: &mut SftpClient, path: &str, body: &[u8]) -> Result<(), ChangeError> {
    let handle = sftp.open_file(path.as_bytes(), open_flags::REPLACE).await.map_err(ChangeError::BeforeEffect)?;
    for (number, block) in body.chunks(32768).enumerate() {
        if let Err(error) = sftp.write_at(&handle, number as u64 * 32768, block).await {
            // What has failed is not committed by CLOSE.
            let _ = sftp.close(&handle).await;
            return Err(ChangeError::BeforeEffect(error));
        }
    }
    sftp.close(&handle).await.map_err(ChangeError::AtEffect)
}

async fn write_and_sync(
    sftp: &mut SftpClient,
    path: &str,
    numbers: &[(usize, u64)],
    by_close: bool,
) -> Result<(), ChangeError> {
    let flags = open_flags::READ | open_flags::WRITE | open_flags::CREATE;
    let handle = sftp.open_file(path.as_bytes(), flags).await.map_err(ChangeError::BeforeEffect)?;
    for (block, number) in numbers {
        let offset = (block * BLOCK_BYTES) as u64;
        let written = sftp.write_at(&handle, offset, &content(*number, BLOCK_BYTES)).await;
        if let Err(error) = written {
            let _ = sftp.close(&handle).await;
            return Err(ChangeError::AtEffect(error));
        }
    }
    if !by_close {
        sftp.extended("fsync@openssh.com", &[&handle]).await.map_err(ChangeError::AtEffect)?;
    }
    sftp.close(&handle).await.map_err(ChangeError::AtEffect)
}

async fn read_at(sftp: &mut SftpClient, path: &str, block: usize) -> SftpResult<Vec<u8>> {
    let handle = sftp.open_file(path.as_bytes(), open_flags::READ).await?;
    let bytes = match sftp.read_at(&handle, (block * BLOCK_BYTES) as u64, BLOCK_BYTES as u32).await {
        // SSH_FX_EOF: behind the end.
        Err(SftpError::Status(1, _)) => Ok(Vec::new()),
        other => other,
    };
    sftp.close(&handle).await?;
    bytes
}
