//! Checksums of content: those that clients announce (`OC-Checksum`, the digests of RFC 9530), computed while the
//! content arrives, and those that they request.
//!
//! A digest of an unsupported algorithm is ignored, as RFC 9530 allows; one of a supported algorithm must match.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use data_encoding::{HEXLOWER, HEXLOWER_PERMISSIVE};
use http::{HeaderMap, HeaderValue};
use sha1::Digest;

use super::error::{Error, Result};
use super::structured_field::item_without_parameters;
use crate::tree::{CancellationFlag, FileReader};

/// Maximum size of a file whose digest is computed on request.
const REPR_DIGEST_MAX_FILE_BYTES: u64 = 64 << 20;
/// Number of bytes read at once to compute a requested digest.
const DIGEST_READ_BYTES: usize = 256 * 1024;

/// Selection of announced checksums by what they cover.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ChecksumScope {
    /// All checksums: the body is the whole file.
    BodyAndFile,
    /// Checksums of the body, which is a part of the file.
    Body,
    /// Checksums of the whole file.
    File,
}

/// Announced checksums, and the hashers that compute the actual ones.
#[derive(Default)]
pub(super) struct ContentChecksums {
    expected: Vec<ExpectedDigest>,
    /// Checksums to store for content that came with `OC-Checksum`: sync clients differ in the algorithm that they
    /// compare.
    stored: Vec<(&'static str, ContentHasher)>,
}

struct ExpectedDigest {
    digest: Vec<u8>,
    hasher: ContentHasher,
}

enum ContentHasher {
    Sha1(sha1::Sha1),
    Sha256(sha2::Sha256),
    Sha512(sha2::Sha512),
    Md5(md5::Context),
    Adler32(Adler32),
}

impl ContentChecksums {
    /// Parses the checksums that a request announces for its body or file.
    pub(super) fn from_headers(headers: &HeaderMap, scope: ChecksumScope) -> Self {
        let (mut expected, mut stored) = (Vec::new(), Vec::new());
        let texts = |name: &str| {
            let values: Vec<&str> = headers.get_all(name).iter().filter_map(|value| value.to_str().ok()).collect();
            values.join(",")
        };
        if scope != ChecksumScope::Body {
            // One is enough of several algorithms: the first that is supported.
            expected.extend(texts("oc-checksum").split([' ', ',']).filter_map(parse_oc_checksum).take(1));
            if !expected.is_empty() {
                stored = vec![
                    ("SHA1", ContentHasher::Sha1(sha1::Sha1::default())),
                    ("MD5", ContentHasher::Md5(md5::Context::new())),
                ];
            }
            expected.extend(texts("repr-digest").split(',').filter_map(parse_digest_field));
        }
        // These cover the body of one request, which may be a part of the file.
        if scope != ChecksumScope::File {
            expected.extend(texts("content-digest").split(',').filter_map(parse_digest_field));
        }
        Self { expected, stored }
    }

    /// Tells whether no checksum was announced.
    pub(super) fn is_empty(&self) -> bool {
        self.expected.is_empty()
    }

    /// Adds the next bytes.
    pub(super) fn update(&mut self, bytes: &[u8]) {
        self.expected.iter_mut().for_each(|member| member.hasher.update(bytes));
        self.stored.iter_mut().for_each(|(_, hasher)| hasher.update(bytes));
    }

    /// Compares the checksums of all added bytes with the announced ones. Returns those to store, in the format of
    /// `oc:checksums`.
    ///
    /// # Errors
    /// [`Error::ChecksumMismatch`] when any differs.
    pub(super) fn verify(self) -> Result<Option<String>> {
        // Not in constant time: a checksum is not a secret.
        if !self.expected.into_iter().all(|member| member.hasher.finish() == member.digest) {
            return Err(Error::ChecksumMismatch);
        }
        let stored: Vec<String> = self
            .stored
            .into_iter()
            .map(|(algorithm, hasher)| format!("{algorithm}:{}", HEXLOWER.encode(&hasher.finish())))
            .collect();
        Ok(Some(stored.join(" ")).filter(|stored| !stored.is_empty()))
    }
}

/// Returns the one of the stored checksums that is sent as `OC-Checksum`.
pub(super) fn first_stored_checksum(stored: &str) -> &str {
    stored.split(' ').next().unwrap_or_default()
}

/// Computes the digest for `Want-Repr-Digest` (RFC 9530 section 4): the supported one with the highest preference;
/// `None` for a file of more than [`REPR_DIGEST_MAX_FILE_BYTES`].
///
/// # Errors
/// The errors of reading; [`crate::tree::Error::SessionEnded`] once the request is cancelled.
pub(super) fn repr_digest(
    headers: &HeaderMap,
    reader: &FileReader,
    cancellation: &CancellationFlag,
) -> Result<Option<HeaderValue>> {
    let size = reader.entry().size;
    let Some(value) = headers.get("want-repr-digest").and_then(|value| value.to_str().ok()) else { return Ok(None) };
    let candidates = value.split(',').filter_map(|member| {
        let (name, weight) = member.split_once('=')?;
        // A weight of 0 means "not acceptable" (RFC 9530 section 4).
        let weight = item_without_parameters(weight.as_bytes()).and_then(|weight| std::str::from_utf8(weight).ok())?;
        let weight: u8 = weight.parse().ok().filter(|weight| *weight > 0)?;
        // Only SHA-2: the other algorithms are insecure, and deprecated by RFC 9530.
        Some((weight, name.trim(), ContentHasher::from_name(name.trim()).filter(|_| name.contains("sha-"))?))
    });
    let Some((_, name, mut hasher)) =
        candidates.max_by_key(|(weight, ..)| *weight).filter(|_| size <= REPR_DIGEST_MAX_FILE_BYTES)
    else {
        return Ok(None);
    };
    let mut buffer = vec![0; DIGEST_READ_BYTES];
    let mut offset = 0;
    while offset < size {
        cancellation.check()?;
        let count = reader.read_at(&mut buffer, offset)?;
        // The file was truncated meanwhile: no digest is better than a wrong one.
        if count == 0 {
            return Ok(None);
        }
        hasher.update(&buffer[..count]);
        offset += count as u64;
    }
    let text = format!("{}=:{}:", name.to_ascii_lowercase(), STANDARD.encode(hasher.finish()));
    Ok(HeaderValue::try_from(text).ok())
}

/// Parses `SHA1:…`, in hexadecimal.
fn parse_oc_checksum(text: &str) -> Option<ExpectedDigest> {
    let (algorithm, digits) = text.split_once(':')?;
    Some(ExpectedDigest { hasher: ContentHasher::from_name(algorithm)?, digest: decode_hex(digits) })
}

/// Parses `sha-256=:…:`, a member of a dictionary (RFC 8941 section 3.2) that is a byte sequence.
fn parse_digest_field(text: &str) -> Option<ExpectedDigest> {
    let (algorithm, value) = text.trim().split_once('=')?;
    let value = value.split(';').next().unwrap_or_default();
    let inner = value.trim().strip_prefix(':').and_then(|value| value.strip_suffix(':')).unwrap_or_default();
    Some(ExpectedDigest { hasher: ContentHasher::from_name(algorithm)?, digest: decode_base64(inner) })
}

/// Decodes base64; malformed text becomes an empty digest, which never matches.
fn decode_base64(text: &str) -> Vec<u8> {
    STANDARD.decode(text.trim()).unwrap_or_default()
}

/// Decodes hexadecimal digits of either case; malformed text becomes an empty digest, which never matches.
fn decode_hex(text: &str) -> Vec<u8> {
    HEXLOWER_PERMISSIVE.decode(text.trim().as_bytes()).unwrap_or_default()
}

impl ContentHasher {
    fn from_name(algorithm: &str) -> Option<Self> {
        Some(match algorithm.trim().to_ascii_lowercase().as_str() {
            "sha1" | "sha" => Self::Sha1(sha1::Sha1::default()),
            "sha256" | "sha-256" => Self::Sha256(sha2::Sha256::default()),
            "sha512" | "sha-512" => Self::Sha512(sha2::Sha512::default()),
            "md5" => Self::Md5(md5::Context::new()),
            "adler32" => Self::Adler32(Adler32::default()),
            _ => return None,
        })
    }

    fn update(&mut self, bytes: &[u8]) {
        match self {
            Self::Sha1(hasher) => hasher.update(bytes),
            Self::Sha256(hasher) => hasher.update(bytes),
            Self::Sha512(hasher) => hasher.update(bytes),
            Self::Md5(hasher) => hasher.consume(bytes),
            Self::Adler32(hasher) => hasher.update(bytes),
        }
    }

    fn finish(self) -> Vec<u8> {
        match self {
            Self::Sha1(hasher) => hasher.finalize().to_vec(),
            Self::Sha256(hasher) => hasher.finalize().to_vec(),
            Self::Sha512(hasher) => hasher.finalize().to_vec(),
            Self::Md5(hasher) => hasher.finalize().0.to_vec(),
            Self::Adler32(hasher) => hasher.digest().to_be_bytes().to_vec(),
        }
    }
}

/// Adler-32 (RFC 1950 section 8.2).
struct Adler32(u32, u32);

impl Default for Adler32 {
    fn default() -> Self {
        Self(1, 0)
    }
}

impl Adler32 {
    fn update(&mut self, bytes: &[u8]) {
        // 5552 is the largest number of bytes whose sums fit into 32 bits without a reduction (as in zlib).
        for part in bytes.chunks(5552) {
            for &byte in part {
                self.0 += u32::from(byte);
                self.1 += self.0;
            }
            self.0 %= 65_521;
            self.1 %= 65_521;
        }
    }

    fn digest(&self) -> u32 {
        (self.1 << 16) | self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verifies_content_digest(value: &str, content: &[u8]) -> Option<bool> {
        verifies_header("oc-checksum", value, content)
    }

    fn verifies_header(name: &'static str, value: &str, content: &[u8]) -> Option<bool> {
        let mut headers = HeaderMap::new();
        headers.insert(name, value.parse().expect("value"));
        let mut sums = ContentChecksums::from_headers(&headers, ChecksumScope::BodyAndFile);
        content.chunks(3).for_each(|part| sums.update(part));
        (!sums.is_empty()).then(|| sums.verify().is_ok())
    }

    #[test]
    fn digests_of_every_header_are_verified() {
        for (name, value) in [
            ("repr-digest", "sha-256=:ungWv48Bz+pBQUDeXa4iI7ADYaOWF3qctBD/YfIAFa0=:"),
            ("content-digest", "unknown=:AAAA:, sha-256=:ungWv48Bz+pBQUDeXa4iI7ADYaOWF3qctBD/YfIAFa0=:;p=1"),
            ("repr-digest", "md5=:kAFQmDzST7DWlj99KOF/cg==:,sha=:qZk+NkcGgWq6PiVxeFDCbJzQ2J0=:"),
        ] {
            assert_eq!(verifies_header(name, value, b"abc"), Some(true), "{name}: {value}");
            assert_eq!(verifies_header(name, value, b"abd"), Some(false), "{name}: {value}");
        }
        assert_eq!(
            verifies_header("repr-digest", "sha-256=ungWv48", b"abc"),
            Some(false),
            "a digest that can't be read"
        );
        assert_eq!(verifies_header("repr-digest", "crc32c=:AAAA:", b"abc"), None);
        for (name, value) in [("digest", "SHA-256=AAAA"), ("content-md5", "AAAA")] {
            assert_eq!(verifies_header(name, value, b"abc"), None, "{name} is obsolete");
        }
    }

    #[test]
    fn checksums_of_every_known_algorithm_are_verified() {
        for value in [
            "SHA1:a9993e364706816aba3e25717850c26c9cd0d89d",
            "sha256:BA7816BF8F01CFEA414140DE5DAE2223B00361A396177A9CB410FF61F20015AD",
            "MD5:900150983cd24fb0d6963f7d28e17f72",
            "ADLER32:024d0127",
            "SHA3-256:00 MD5:900150983cd24fb0d6963f7d28e17f72",
        ] {
            assert_eq!(verifies_content_digest(value, b"abc"), Some(true), "{value}");
            assert_eq!(verifies_content_digest(value, b"abd"), Some(false), "{value}");
        }
        for value in ["SHA1:", "ADLER32:024d012", "ADLER32:024d01277", "ADLER32:024d 0127", "ADLER32:024d012g"] {
            assert_eq!(verifies_content_digest(value, b"abc"), Some(false), "{value}");
        }
        assert_eq!(verifies_content_digest("CRC64:1", b"abc"), None);
        assert_eq!(
            verifies_content_digest("ADLER32:d7ac6b67", &[0xff; 100_000]),
            Some(adler32(&[0xff; 100_000]) == 0xd7ac_6b67)
        );
    }

    fn adler32(bytes: &[u8]) -> u32 {
        let (a, b) = bytes.iter().fold((1u64, 0u64), |(a, b), &x| {
            let a = (a + u64::from(x)) % 65_521;
            (a, (a + b) % 65_521)
        });
        u32::try_from(b << 16 | a).expect("32 bits")
    }
}
