//! Checksums that sync clients announce (`OC-Checksum`), reckoned while the content comes in.

use http::HeaderMap;
use sha1::Digest;

/// A checksum that was announced, and what has been reckoned so far.
pub(super) struct Checksum {
    announced: String,
    running: Running,
}

enum Running {
    Sha1(sha1::Sha1),
    Sha256(sha2::Sha256),
    Md5(md5::Context),
    Adler32(Adler32),
}

impl Checksum {
    /// Reads `OC-Checksum`: `SHA1:…`, `SHA256:…`, `MD5:…` or `ADLER32:…` in hexadecimal; none for other kinds.
    pub(super) fn announced(headers: &HeaderMap) -> Option<Self> {
        let value = headers.get("oc-checksum")?.to_str().ok()?;
        value.split_ascii_whitespace().find_map(|one| {
            let (kind, digits) = one.split_once(':')?;
            let running = match kind.to_ascii_uppercase().as_str() {
                "SHA1" => Running::Sha1(sha1::Sha1::default()),
                "SHA256" => Running::Sha256(sha2::Sha256::default()),
                "MD5" => Running::Md5(md5::Context::new()),
                "ADLER32" => Running::Adler32(Adler32::default()),
                _ => return None,
            };
            Some(Self { announced: digits.to_ascii_lowercase(), running })
        })
    }

    /// Takes the next bytes in.
    pub(super) fn update(&mut self, bytes: &[u8]) {
        match &mut self.running {
            Running::Sha1(running) => running.update(bytes),
            Running::Sha256(running) => running.update(bytes),
            Running::Md5(running) => running.consume(bytes),
            Running::Adler32(running) => running.update(bytes),
        }
    }

    /// Tells whether all that was taken in has the checksum that was announced.
    pub(super) fn holds(self) -> bool {
        let hex = |bytes: &[u8]| bytes.iter().map(|b| format!("{b:02x}")).collect::<String>();
        let found = match self.running {
            Running::Sha1(running) => hex(&running.finalize()),
            Running::Sha256(running) => hex(&running.finalize()),
            Running::Md5(running) => hex(&running.finalize().0),
            Running::Adler32(running) => hex(&running.value().to_be_bytes()),
        };
        found == self.announced
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
        // So many bytes can be summed up before the sums outgrow 32 bits.
        for part in bytes.chunks(5552) {
            for &byte in part {
                self.0 += u32::from(byte);
                self.1 += self.0;
            }
            self.0 %= 65_521;
            self.1 %= 65_521;
        }
    }

    fn value(&self) -> u32 {
        (self.1 << 16) | self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn holds(value: &str, content: &[u8]) -> Option<bool> {
        let mut headers = HeaderMap::new();
        headers.insert("oc-checksum", value.parse().expect("value"));
        let mut checksum = Checksum::announced(&headers)?;
        content.chunks(3).for_each(|part| checksum.update(part));
        Some(checksum.holds())
    }

    #[test]
    fn checksums_of_every_known_kind_are_compared() {
        for value in [
            "SHA1:a9993e364706816aba3e25717850c26c9cd0d89d",
            "sha256:BA7816BF8F01CFEA414140DE5DAE2223B00361A396177A9CB410FF61F20015AD",
            "MD5:900150983cd24fb0d6963f7d28e17f72",
            "ADLER32:024d0127",
            "SHA3-256:00 MD5:900150983cd24fb0d6963f7d28e17f72",
        ] {
            assert_eq!(holds(value, b"abc"), Some(true), "{value}");
            assert_eq!(holds(value, b"abd"), Some(false), "{value}");
        }
        assert_eq!(holds("SHA1:", b"abc"), Some(false));
        assert_eq!(holds("CRC64:1", b"abc"), None);
        assert_eq!(holds("ADLER32:d7ac6b67", &[0xff; 100_000]), Some(adler_of(&[0xff; 100_000]) == 0xd7ac_6b67));
    }

    fn adler_of(bytes: &[u8]) -> u32 {
        let (a, b) = bytes.iter().fold((1u64, 0u64), |(a, b), &x| {
            let a = (a + u64::from(x)) % 65_521;
            (a, (a + b) % 65_521)
        });
        u32::try_from(b << 16 | a).expect("32 bits")
    }
}
