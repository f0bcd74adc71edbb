//! Storage quotas: the accounts whose stored bytes are counted, and what is known of one.

use std::fmt;

use super::limits::ByteSize;
use super::time::UnixMillis;
use super::token::TokenId;
use super::user::Login;

/// A user or a token with a storage quota.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum StorageAccount {
    /// The quota of a user, which all its tokens share.
    User(Login),
    /// The quota of a token, which it shares with the tokens that were created with it.
    Token(TokenId),
}

impl StorageAccount {
    /// Returns `user` or `token`.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::User(_) => "user",
            Self::Token(_) => "token",
        }
    }
}

impl fmt::Display for StorageAccount {
    /// Writes `user:alice` or `token:JhxND7ci`: the key of the account in the store.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::User(login) => write!(f, "user:{login}"),
            Self::Token(token) => write!(f, "token:{token}"),
        }
    }
}

/// The bytes that are counted for an account.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StorageUsage {
    /// Number of bytes.
    pub used: u64,
    /// End of the last count of its files; `None` before the first, and when a new one was asked for.
    pub counted_at: Option<UnixMillis>,
    /// Bytes that the count under way has found so far.
    pub recount_bytes: Option<u64>,
}

/// The space that a quota leaves to a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QuotaSpace {
    /// Maximum number of bytes.
    pub max: ByteSize,
    /// Number of bytes that are stored.
    pub used: u64,
}

impl QuotaSpace {
    /// Returns the number of bytes that may be added.
    pub fn available(self) -> u64 {
        self.max.bytes().saturating_sub(self.used)
    }
}
