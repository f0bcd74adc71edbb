//! `check-file-handle` and `check-file-name`: hashes of what the server holds, so that a client need not read it
//! back (draft-ietf-secsh-filexfer-extensions-00 section 3).

use sha2::Digest;

use super::attributes::SftpAttributes;
use super::error::{Error, Result};
use super::hash_limit::HashPermit;
use super::packet_input::MAX_PACKET_BYTES;
use super::reply::ReplyBatch;
use super::request::{CheckFileRequest, HandleId, OpenFlags};
use super::worker::{ChannelWorker, SftpSession};
use crate::tree::OpenFile;

/// How much is read at a time.
const HASH_READ_BYTES: usize = 256 * 1024;
/// The smallest block that has a hash of its own.
const MIN_HASH_BLOCK_BYTES: u32 = 256;
/// What an answer holds beside its hashes, and a little more.
const REPLY_OVERHEAD_BYTES: usize = 64;

/// A kind of hash.
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

    /// Returns the first of a list that is known.
    fn first_supported(list: &[u8]) -> Option<Self> {
        let known = |name: &[u8]| Self::ALL.into_iter().find(|one| one.name().as_bytes() == name.trim_ascii());
        list.split(|byte| *byte == b',').find_map(known)
    }
}

/// A hash under way.
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
            Self::Md5(running) => running.consume(bytes),
            Self::Sha1(running) => running.update(bytes),
            Self::Sha224(running) => running.update(bytes),
            Self::Sha256(running) => running.update(bytes),
            Self::Sha384(running) => running.update(bytes),
            Self::Sha512(running) => running.update(bytes),
        }
    }

    fn finish(self, out: &mut Vec<u8>) {
        match self {
            Self::Md5(running) => out.extend_from_slice(&running.finalize().0),
            Self::Sha1(running) => out.extend_from_slice(&running.finalize()),
            Self::Sha224(running) => out.extend_from_slice(&running.finalize()),
            Self::Sha256(running) => out.extend_from_slice(&running.finalize()),
            Self::Sha384(running) => out.extend_from_slice(&running.finalize()),
            Self::Sha512(running) => out.extend_from_slice(&running.finalize()),
        }
    }
}

impl ChannelWorker {
    /// Answers hashes of a file by its name; a link is followed.
    pub(super) fn check_file_name(
        &mut self,
        id: u32,
        path: &[u8],
        wanted: &CheckFileRequest,
        out: &mut ReplyBatch,
    ) -> Result<()> {
        let handle = self.open(path, OpenFlags::READ, &SftpAttributes::default())?;
        let answered = self.check_file_handle(id, handle, wanted, out);
        self.handles.remove(handle)?;
        answered
    }

    /// Answers hashes of what a handle reads.
    pub(super) fn check_file_handle(
        &mut self,
        id: u32,
        handle: HandleId,
        wanted: &CheckFileRequest,
        out: &mut ReplyBatch,
    ) -> Result<()> {
        let algorithm = CheckFileAlgorithm::first_supported(&wanted.algorithms).ok_or(Error::UnknownHashAlgorithm)?;
        if wanted.block_bytes != 0 && wanted.block_bytes < MIN_HASH_BLOCK_BYTES {
            return Err(Error::HashBlockTooSmall);
        }
        let size = self.fstat(handle)?.size;
        let left = size.checked_sub(wanted.offset).ok_or(Error::Eof)?;
        let length = if wanted.length == 0 { left } else { wanted.length.min(left) };
        let block = if wanted.block_bytes == 0 { length.max(1) } else { u64::from(wanted.block_bytes) };
        let most = (MAX_PACKET_BYTES - REPLY_OVERHEAD_BYTES) / algorithm.digest_bytes();
        if usize::try_from(length.div_ceil(block)).map_or(true, |count| count > most) {
            return Err(Error::TooManyHashBlocks(most));
        }
        let shared = self.session.clone();
        let file = self.handles.file(handle)?;
        // An empty file, too, is hashed only by who may read it.
        file.read_at(&mut [], wanted.offset)?;
        let hasher = shared.hash_limiter.acquire(shared.login()).ok_or(Error::TooManyHashes)?;
        let mut source =
            HashedRange { shared: &shared, file, position: wanted.offset, end: wanted.offset + length, permit: hasher };
        let hashes = source.hash_blocks(algorithm, block, wanted.block_bytes == 0)?;
        out.check_file(id, algorithm.name(), &hashes);
        Ok(())
    }
}

/// What is hashed of an open file.
struct HashedRange<'a> {
    shared: &'a SftpSession,
    file: &'a OpenFile,
    position: u64,
    end: u64,
    permit: HashPermit,
}

impl HashedRange<'_> {
    /// Returns the hash of each block, one after the other; of nothing, too, where the whole is one block.
    fn hash_blocks(&mut self, algorithm: CheckFileAlgorithm, block: u64, whole: bool) -> Result<Vec<u8>> {
        let (mut hashes, mut buffer) = (Vec::new(), vec![0; HASH_READ_BYTES]);
        while self.position < self.end || whole && hashes.is_empty() {
            let (mut running, stop) =
                (CheckFileHasher::new(algorithm), self.end.min(self.position.saturating_add(block)));
            while self.position < stop {
                let found = self.read_chunk(&mut buffer, stop)?;
                self.permit.run_in_slot(|| running.update(buffer.get(..found).unwrap_or_default()));
                if found == 0 {
                    // It was cut meanwhile: what was there is what is hashed.
                    self.end = self.position;
                    break;
                }
            }
            running.finish(&mut hashes);
        }
        Ok(hashes)
    }

    fn read_chunk(&mut self, buffer: &mut [u8], stop: u64) -> Result<usize> {
        if self.shared.closing.is_cancelled() {
            return Err(crate::auth::SessionEnded.into());
        }
        let part = usize::try_from(stop - self.position).unwrap_or(HASH_READ_BYTES).min(HASH_READ_BYTES);
        let found = self.file.read_at(buffer.get_mut(..part).unwrap_or_default(), self.position)?;
        self.shared.view().session().record_use();
        self.position += u64::try_from(found).unwrap_or_default();
        Ok(found)
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
