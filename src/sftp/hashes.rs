//! `check-file-handle` and `check-file-name`: hashes of what the server holds, so that a client need not read it
//! back (draft-ietf-secsh-filexfer-extensions-00 section 3).

use bytes::Bytes;
use sha2::Digest;

use super::attributes::Change;
use super::error::{Error, Result};
use super::hashing::Hasher;
use super::input::MAX_PACKET;
use super::reply::Replies;
use super::request::{HandleId, OpenFlags};
use super::worker::{Shared, Worker};
use crate::tree::OpenFile;

/// How much is read at a time.
const PIECE: usize = 256 * 1024;
/// The smallest block that has a hash of its own.
const SMALLEST_BLOCK: u32 = 256;
/// What an answer holds beside its hashes, and a little more.
const HEAD: usize = 64;

/// Which hashes are asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Hashes {
    /// Names of algorithms with commas; the first that is known is taken.
    pub(super) algorithms: Bytes,
    /// Where to begin.
    pub(super) offset: u64,
    /// How many bytes; zero: up to the end.
    pub(super) length: u64,
    /// Bytes of each block with a hash of its own; zero: one hash of all.
    pub(super) block: u32,
}

/// A kind of hash.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Algorithm {
    Md5,
    Sha1,
    Sha224,
    Sha256,
    Sha384,
    Sha512,
}

impl Algorithm {
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

    fn length(self) -> usize {
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
    fn first(list: &[u8]) -> Option<Self> {
        let known = |name: &[u8]| Self::ALL.into_iter().find(|one| one.name().as_bytes() == name.trim_ascii());
        list.split(|byte| *byte == b',').find_map(known)
    }
}

/// A hash under way.
enum Running {
    Md5(md5::Context),
    Sha1(sha1::Sha1),
    Sha224(sha2::Sha224),
    Sha256(sha2::Sha256),
    Sha384(sha2::Sha384),
    Sha512(sha2::Sha512),
}

impl Running {
    fn new(algorithm: Algorithm) -> Self {
        match algorithm {
            Algorithm::Md5 => Self::Md5(md5::Context::new()),
            Algorithm::Sha1 => Self::Sha1(sha1::Sha1::new()),
            Algorithm::Sha224 => Self::Sha224(sha2::Sha224::new()),
            Algorithm::Sha256 => Self::Sha256(sha2::Sha256::new()),
            Algorithm::Sha384 => Self::Sha384(sha2::Sha384::new()),
            Algorithm::Sha512 => Self::Sha512(sha2::Sha512::new()),
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

impl Worker {
    /// Answers hashes of a file by its name; a link is followed.
    pub(super) fn check_name(&mut self, id: u32, path: &[u8], wanted: &Hashes, out: &mut Replies) -> Result<()> {
        let handle = self.open(path, OpenFlags::READ, &Change::default())?;
        let answered = self.check_handle(id, handle, wanted, out);
        self.handles.remove(handle)?;
        answered
    }

    /// Answers hashes of what a handle reads.
    pub(super) fn check_handle(&mut self, id: u32, handle: HandleId, wanted: &Hashes, out: &mut Replies) -> Result<()> {
        let algorithm = Algorithm::first(&wanted.algorithms).ok_or(Error::NoHash)?;
        if wanted.block != 0 && wanted.block < SMALLEST_BLOCK {
            return Err(Error::SmallBlock);
        }
        let size = self.handle_stat(handle)?.size;
        let left = size.checked_sub(wanted.offset).ok_or(Error::Eof)?;
        let length = if wanted.length == 0 { left } else { wanted.length.min(left) };
        let block = if wanted.block == 0 { length.max(1) } else { u64::from(wanted.block) };
        let most = (MAX_PACKET - HEAD) / algorithm.length();
        if usize::try_from(length.div_ceil(block)).map_or(true, |count| count > most) {
            return Err(Error::ManyBlocks(most));
        }
        let shared = self.shared.clone();
        let file = self.handles.file(handle)?;
        // An empty file, too, is hashed only by who may read it.
        file.read_at(&mut [], wanted.offset)?;
        let hasher = shared.hashing.enter(shared.login()).ok_or(Error::ManyHashes)?;
        let mut source = Source { shared: &shared, file, at: wanted.offset, end: wanted.offset + length, hasher };
        let hashes = source.hashes(algorithm, block, wanted.block == 0)?;
        out.hashes(id, algorithm.name(), &hashes);
        Ok(())
    }
}

/// What is hashed of an open file.
struct Source<'a> {
    shared: &'a Shared,
    file: &'a OpenFile,
    at: u64,
    end: u64,
    hasher: Hasher,
}

impl Source<'_> {
    /// Returns the hash of each block, one after the other; of nothing, too, where the whole is one block.
    fn hashes(&mut self, algorithm: Algorithm, block: u64, whole: bool) -> Result<Vec<u8>> {
        let (mut hashes, mut buffer) = (Vec::new(), vec![0; PIECE]);
        while self.at < self.end || whole && hashes.is_empty() {
            let (mut running, stop) = (Running::new(algorithm), self.end.min(self.at.saturating_add(block)));
            while self.at < stop {
                let found = self.read(&mut buffer, stop)?;
                self.hasher.in_turn(|| running.update(buffer.get(..found).unwrap_or_default()));
                if found == 0 {
                    // It was cut meanwhile: what was there is what is hashed.
                    self.end = self.at;
                    break;
                }
            }
            running.finish(&mut hashes);
        }
        Ok(hashes)
    }

    fn read(&mut self, buffer: &mut [u8], stop: u64) -> Result<usize> {
        if self.shared.over.is_cancelled() {
            return Err(crate::auth::Ended.into());
        }
        let part = usize::try_from(stop - self.at).unwrap_or(PIECE).min(PIECE);
        let found = self.file.read_at(buffer.get_mut(..part).unwrap_or_default(), self.at)?;
        self.shared.view().session().used();
        self.at += u64::try_from(found).unwrap_or_default();
        Ok(found)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_algorithm_that_is_known_is_taken() {
        assert_eq!(Algorithm::first(b"crc32,sha256,md5"), Some(Algorithm::Sha256));
        assert_eq!(Algorithm::first(b"md5"), Some(Algorithm::Md5));
        assert_eq!(Algorithm::first(b"crc32"), None);
        assert_eq!(Algorithm::first(b""), None);
    }

    #[test]
    fn every_hash_is_as_long_as_it_says() {
        for algorithm in Algorithm::ALL {
            let mut hash = Vec::new();
            Running::new(algorithm).finish(&mut hash);
            assert_eq!(hash.len(), algorithm.length(), "{algorithm:?}");
        }
    }
}
