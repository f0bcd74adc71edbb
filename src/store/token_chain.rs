//! The chain of tokens above a token: its maximum length, and the SQL condition that a token of it is not accepted any
//! more.

/// How many tokens may stand above one another: what a request has to read stays bounded.
pub(super) const MAX_CHAIN_TOKENS: usize = 32;

/// Returns what asks whether the token in a column is dead, by itself or by one above it.
pub(super) fn inactive_token_sql(column: &str) -> String {
    format!(
        "EXISTS (
            WITH RECURSIVE chain (id) AS (
                SELECT {column}
                UNION SELECT above.parent FROM chain JOIN tokens above ON above.id = chain.id
                WHERE above.parent IS NOT NULL)
            SELECT 1 FROM chain JOIN tokens link ON link.id = chain.id
            WHERE link.revoked_at IS NOT NULL OR link.expiry_noted = 1)"
    )
}
