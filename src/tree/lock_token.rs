//! Tokens by which clients name locks (RFC 4918 section 6.5).

use std::fmt;

/// A lock token: `urn:uuid:…` (RFC 4918 section 6.5).
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LockToken(String);

impl LockToken {
    /// Wraps a token as a client sent it, whatever its scheme; one that is unknown matches no lock.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// Returns the token as a URI, without angle brackets.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for LockToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
