//! Write locks (RFC 4918 section 6): on canonical paths, kept in the store, binding both protocols.

use std::fmt;
use std::time::Duration;

use crate::domain::{Login, Time, TreePath};

/// Names a lock: `urn:uuid:…` (RFC 4918 section 6.5).
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LockToken(String);

impl LockToken {
    /// Takes a token as a client sent it, whatever its scheme; one that names no lock fits none.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// Returns the text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for LockToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What a client asks for with LOCK.
#[derive(Clone, Debug)]
pub struct LockRequest {
    /// Whether nobody else may hold a lock there.
    pub exclusive: bool,
    /// Whether it covers all below.
    pub deep: bool,
    /// The client's owner element, as XML text (may be empty).
    pub owner: String,
    /// How long, at most; capped by the gateway.
    pub timeout: Duration,
}

/// A lock that is held.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lock {
    /// Its token.
    pub token: LockToken,
    /// Where it was taken.
    pub root: TreePath,
    /// Whether it covers all below.
    pub deep: bool,
    /// Whether it excludes others.
    pub exclusive: bool,
    /// The user that it belongs to.
    pub login: Login,
    /// The client's owner element.
    pub owner: String,
    /// How long it was given.
    pub timeout: Duration,
    /// When it ends unless refreshed.
    pub expires: Time,
}
