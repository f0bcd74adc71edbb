//! States of tokens.

use serde::{Deserialize, Serialize};

/// State of a token by its own row and those of the tokens above it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TokenState {
    /// Neither revoked nor expired.
    Live,
    /// The token, or one above it, has expired.
    Expired,
    /// The token, or one above it, was revoked.
    Revoked,
}

impl TokenState {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            TokenState::Live => "live",
            TokenState::Expired => "expired",
            TokenState::Revoked => "revoked",
        }
    }

    /// Returns a condition that every token in this state fulfils and that is cheaper to check than the state itself:
    /// inactive tokens are few, and indexes find them and their descendants.
    pub(super) fn prefilter_sql(self) -> &'static str {
        match self {
            TokenState::Live => {
                "t.revoked_at IS NULL AND t.expiry_recorded = 0 AND coalesce(t.expires_at > :now, TRUE)"
            }
            TokenState::Expired => {
                "t.id IN (WITH RECURSIVE inactive (id) AS (
                    SELECT id FROM tokens WHERE expires_at <= :now
                    UNION SELECT id FROM tokens WHERE expiry_recorded = 1
                    UNION SELECT child.id FROM inactive JOIN tokens child ON child.parent = inactive.id)
                 SELECT id FROM inactive)"
            }
            TokenState::Revoked => {
                "t.id IN (WITH RECURSIVE inactive (id) AS (
                    SELECT id FROM tokens WHERE revoked_at IS NOT NULL
                    UNION SELECT child.id FROM inactive JOIN tokens child ON child.parent = inactive.id)
                 SELECT id FROM inactive)"
            }
        }
    }
}
