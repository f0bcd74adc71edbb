//! `check-file-handle` and `check-file-name`: hashes of a file's content, so that a client need not read it back
//! (draft-ietf-secsh-filexfer-extensions-00 section 3).

use sha2::Digest;

use super::attributes::SftpAttributes;
use super::error::{Error, Result};
use super::hash_limit::HashPermit;
use super::packet_input::MAX_PACKET_BYTES;
use super::reply::ReplyBatch;
use super::request::{CheckFileRequest, HandleId, OpenFlags};
use super::worker::{ChannelWorker, SftpSession};
use crate::tree::OpenFile;

/// Number of bytes that are read and hashed at a time.
const HASH_READ_BYTES: usize = 256 * 1024;
/// Minimum size of a block with a hash of its own, as the draft requires.
const MIN_HASH_BLOCK_BYTES: u32 = 256;
/// Upper bound of a reply's size without its hashes.
const REPLY_OVERHEAD_BYTES: usize = 64;

/// A hash algorithm that check-file supports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum CheckFileAlgorithm {
    Md5,
    Sha1,
    Sha224,
    Sha256,
    Sha384,
    Sha512,
}

impl CheckFileAlgorithm {
    const ALL: [Self; 6] = [Self::Md5, Self::Sha1, Self::Sha224, Self::Sha256, Self::Sha384, Self::Sha512];

    fn name(self) -> &'static str {
        match self {
            Self::Md5 => "md5",
            Self::Sha1 => "sha1",
            Self::Sha224 => "sha224",
            Self::Sha256 => "sha256",
            Self::Sha384 => "sha384",
            Self::Sha512 => "sha512",
        }
    }

    fn digest_bytes(self) -> usize {
        match self {
            Self::Md5 => 16,
            Self::Sha1 => 20,
            Self::Sha224 => 28,
            Self::Sha256 => 32,
            Self::Sha384 => 48,
            Self::Sha512 => 64,
        }
    }

    /// Returns the first algorithm of a comma-separated list that is supported.
    fn first_supported(list: &[u8]) -> Option<Self> {
        let known =
            |name: &[u8]| Self::ALL.into_iter().find(|algorithm| algorithm.name().as_bytes() == name.trim_ascii());
        list.split(|byte| *byte == b',').find_map(known)
    }
}

/// Running state of a hash.
enum CheckFileHasher {
    Md5(md5::Context),
    Sha1(sha1::Sha1),
    Sha224(sha2::Sha224),
    Sha256(sha2::Sha256),
    Sha384(sha2::Sha384),
    Sha512(sha2::Sha512),
}

impl CheckFileHasher {
    fn new(algorithm: CheckFileAlgorithm) -> Self {
        match algorithm {
            CheckFileAlgorithm::Md5 => Self::Md5(md5::Context::new()),
            CheckFileAlgorithm::Sha1 => Self::Sha1(sha1::Sha1::new()),
            CheckFileAlgorithm::Sha224 => Self::Sha224(sha2::Sha224::new()),
            CheckFileAlgorithm::Sha256 => Self::Sha256(sha2::Sha256::new()),
            CheckFileAlgorithm::Sha384 => Self::Sha384(sha2::Sha384::new()),
            CheckFileAlgorithm::Sha512 => Self::Sha512(sha2::Sha512::new()),
        }
    }

    fn update(&mut self, bytes: &[u8]) {
        match self {
            Self::Md5(hasher) => hasher.consume(bytes),
            Self::Sha1(hasher) => hasher.update(bytes),
            Self::Sha224(hasher) => hasher.update(bytes),
            Self::Sha256(hasher) => hasher.update(bytes),
            Self::Sha384(hasher) => hasher.update(bytes),
            Self::Sha512(hasher) => hasher.update(bytes),
        }
    }

    fn finish(self, out: &mut Vec<u8>) {
        match self {
            Self::Md5(hasher) => out.extend_from_slice(&hasher.finalize().0),
            Self::Sha1(hasher) => out.extend_from_slice(&hasher.finalize()),
            Self::Sha224(hasher) => out.extend_from_slice(&hasher.finalize()),
            Self::Sha256(hasher) => out.extend_from_slice(&hasher.finalize()),
            Self::Sha384(hasher) => out.extend_from_slice(&hasher.finalize()),
            Self::Sha512(hasher) => out.extend_from_slice(&hasher.finalize()),
        }
    }
}

impl ChannelWorker {
    /// Answers check-file for a path; a symbolic link is followed.
    pub(super) fn check_file_name(
        &mut self,
        id: u32,
        path: &[u8],
        request: &CheckFileRequest,
        out: &mut ReplyBatch,
    ) -> Result<()> {
        // Opened like any file: the same rights and the same limit of handles.
        let handle = self.open(path, OpenFlags::READ, &SftpAttributes::default())?;
        let result = self.check_file_handle(id, handle, request, out);
        // Before the result is looked at: a refused hash must not leak its handle.
        self.handles.remove(handle)?;
        result
    }

    /// Answers check-file for an open file.
    pub(super) fn check_file_handle(
        &mut self,
        id: u32,
        handle: HandleId,
        request: &CheckFileRequest,
        out: &mut ReplyBatch,
    ) -> Result<()> {
        let algorithm = CheckFileAlgorithm::first_supported(&request.algorithms).ok_or(Error::UnknownHashAlgorithm)?;
        if request.block_bytes != 0 && request.block_bytes < MIN_HASH_BLOCK_BYTES {
            return Err(Error::HashBlockTooSmall);
        }
        // All limits are checked before the first read.
        let size = self.fstat(handle)?.size;
        let available = size.checked_sub(request.offset).ok_or(Error::Eof)?;
        let length = if request.length == 0 { available } else { request.length.min(available) };
        let block = if request.block_bytes == 0 { length.max(1) } else { u64::from(request.block_bytes) };
        // The reply has to fit into one packet. OpenSSH's client accepts 256 KiB, as the server does.
        let max_blocks = (MAX_PACKET_BYTES - REPLY_OVERHEAD_BYTES) / algorithm.digest_bytes();
        if usize::try_from(length.div_ceil(block)).map_or(true, |count| count > max_blocks) {
            return Err(Error::TooManyHashBlocks(max_blocks));
        }
        let session = self.session.clone();
        let file = self.handles.file(handle)?;
        // An empty read checks the right to read: the loop below reads nothing of an empty file.
        file.read_at(&mut [], request.offset)?;
        // Refused at the limit, not queued: each waiting hash would hold a thread.
        let permit = session.hash_limiter.acquire(session.login()).ok_or(Error::TooManyHashes)?;
        let mut range =
            HashedRange { session: &session, file, position: request.offset, end: request.offset + length, permit };
        let hashes = range.hash_blocks(algorithm, block, request.block_bytes == 0)?;
        out.check_file(id, algorithm.name(), &hashes);
        Ok(())
    }
}

/// A range of an open file that is being hashed.
struct HashedRange<'a> {
    session: &'a SftpSession,
    file: &'a OpenFile,
    position: u64,
    end: u64,
    permit: HashPermit,
}

impl HashedRange<'_> {
    /// Returns the concatenated hashes of all blocks; a single block is hashed even if it is empty.
    fn hash_blocks(&mut self, algorithm: CheckFileAlgorithm, block: u64, is_single_block: bool) -> Result<Vec<u8>> {
        let (mut hashes, mut buffer) = (Vec::new(), vec![0; HASH_READ_BYTES]);
        while self.position < self.end || is_single_block && hashes.is_empty() {
            let (mut hasher, block_end) =
                (CheckFileHasher::new(algorithm), self.end.min(self.position.saturating_add(block)));
            while self.position < block_end {
                let count = self.read_chunk(&mut buffer, block_end)?;
                // The slot covers the hashing only: a slow disk must not keep CPUs from other users' hashes.
                self.permit.run_in_slot(|| hasher.update(buffer.get(..count).unwrap_or_default()));
                if count == 0 {
                    // The file was truncated meanwhile: the hash covers the bytes that were read.
                    self.end = self.position;
                    break;
                }
            }
            hasher.finish(&mut hashes);
        }
        Ok(hashes)
    }

    fn read_chunk(&mut self, buffer: &mut [u8], block_end: u64) -> Result<usize> {
        // For each chunk: nobody reads the hash of a connection that ended.
        if self.session.closing.is_cancelled() {
            return Err(crate::auth::SessionEnded.into());
        }
        let chunk = usize::try_from(block_end - self.position).unwrap_or(HASH_READ_BYTES).min(HASH_READ_BYTES);
        let count = self.file.read_at(buffer.get_mut(..chunk).unwrap_or_default(), self.position)?;
        // Each chunk is a use: a sliding expiration must not end a token in the middle of a hash.
        self.session.view().session().record_use();
        self.position += u64::try_from(count).unwrap_or_default();
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn first_supported_algorithm_is_used() {
        assert_eq!(CheckFileAlgorithm::first_supported(b"crc32,sha256,md5"), Some(CheckFileAlgorithm::Sha256));
        assert_eq!(CheckFileAlgorithm::first_supported(b"md5"), Some(CheckFileAlgorithm::Md5));
        assert_eq!(CheckFileAlgorithm::first_supported(b"crc32"), None);
        assert_eq!(CheckFileAlgorithm::first_supported(b""), None);
    }

    #[test]
    fn digests_have_declared_length() {
        for algorithm in CheckFileAlgorithm::ALL {
            let mut hash = Vec::new();
            CheckFileHasher::new(algorithm).finish(&mut hash);
            assert_eq!(hash.len(), algorithm.digest_bytes(), "{algorithm:?}");
        }
    }
}
