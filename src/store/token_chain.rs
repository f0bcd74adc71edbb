//! The chain of tokens above a token: its maximum length, and the SQL condition that a token of it is not accepted any
//! more.

/// Maximum number of tokens above a token, which bounds the rows that a request has to read.
pub(super) const MAX_CHAIN_TOKENS: usize = 32;

/// Returns a condition that is true where the token in a column, or one above it, was revoked or recorded as expired.
pub(super) fn inactive_token_sql(column: &str) -> String {
    // UNION drops rows that it has seen, so that a cycle in an edited database ends.
    format!(
        "EXISTS (
            WITH RECURSIVE chain (id) AS (
                SELECT {column}
                UNION SELECT above.parent FROM chain JOIN tokens above ON above.id = chain.id
                WHERE above.parent IS NOT NULL)
            SELECT 1 FROM chain JOIN tokens link ON link.id = chain.id
            WHERE link.revoked_at IS NOT NULL OR link.expiry_recorded = 1)"
    )
}
