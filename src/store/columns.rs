//! Conversion of domain values to columns and back. A value that can't be read back means a damaged database.

use std::str::FromStr;

use rusqlite::types::{FromSql, FromSqlError, FromSqlResult, ToSql, ToSqlOutput, Value, ValueRef};
use rusqlite::{Result as SqlResult, Row};

use super::{Result, StoreError};
use crate::domain::{
    BannedNetwork, ForeignRoles, Login, NodeId, Permission, Role, Roles, TokenExpiry, TokenId, TokenLimits, TreePath,
    UnixMillis,
};

fn parse_column<T: FromStr>(value: ValueRef<'_>) -> FromSqlResult<T> {
    value.as_str()?.parse().map_err(|_| FromSqlError::InvalidType)
}

macro_rules! impl_text_columns {
    ($($target:ty),*) => {$(
        impl FromSql for $target {
            fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
                parse_column(value)
            }
        }
        impl ToSql for $target {
            fn to_sql(&self) -> SqlResult<ToSqlOutput<'_>> {
                Ok(self.as_str().into())
            }
        }
    )*};
}
impl_text_columns!(TokenId, Login, Role);

impl FromSql for BannedNetwork {
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
        parse_column(value)
    }
}

impl ToSql for BannedNetwork {
    fn to_sql(&self) -> SqlResult<ToSqlOutput<'_>> {
        Ok(self.to_string().into())
    }
}

impl FromSql for UnixMillis {
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
        value.as_i64().map(UnixMillis::from_millis)
    }
}

impl ToSql for UnixMillis {
    fn to_sql(&self) -> SqlResult<ToSqlOutput<'_>> {
        Ok(self.as_millis().into())
    }
}

impl FromSql for NodeId {
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
        <[u8; 16]>::column_result(value).map(NodeId::from_bytes)
    }
}

impl ToSql for NodeId {
    fn to_sql(&self) -> SqlResult<ToSqlOutput<'_>> {
        Ok(self.as_bytes()[..].into())
    }
}

impl FromSql for Permission {
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
        let bits = value.as_i64()?;
        u8::try_from(bits).ok().and_then(Permission::from_bits).ok_or(FromSqlError::OutOfRange(bits))
    }
}

impl ToSql for Permission {
    fn to_sql(&self) -> SqlResult<ToSqlOutput<'_>> {
        Ok(self.bits().into())
    }
}

macro_rules! impl_json_columns {
    ($($target:ty = $empty:literal),*) => {$(
        impl FromSql for $target {
            fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
                match value.as_str()? {
                    // The default of most rows needs no JSON parser.
                    $empty => Ok(Self::default()),
                    text => serde_json::from_str(text).map_err(|error| FromSqlError::Other(Box::new(error))),
                }
            }
        }
        impl ToSql for $target {
            fn to_sql(&self) -> SqlResult<ToSqlOutput<'_>> {
                let text = serde_json::to_string(self);
                let text = text.map_err(|error| rusqlite::Error::ToSqlConversionFailure(Box::new(error)))?;
                Ok(ToSqlOutput::Owned(Value::Text(text)))
            }
        }
    )*};
}
impl_json_columns!(TokenLimits = "{}", Roles = "[]", ForeignRoles = "[]");

/// Returns an expiry as the columns `hard_limit_at` and `window_ms`.
pub(super) fn expiry_columns(expiry: TokenExpiry) -> (Option<UnixMillis>, Option<i64>) {
    match expiry {
        TokenExpiry::Hard(at) => (Some(at), None),
        TokenExpiry::Sliding { window_ms, cap } => (Some(cap), Some(i64::try_from(window_ms).unwrap_or(i64::MAX))),
        TokenExpiry::Never => (None, None),
    }
}

/// Reads the columns `hard_limit_at` and `window_ms`, the second right after the first.
pub(super) fn expiry_from_row(row: &Row<'_>, hard_limit_at: usize) -> Result<TokenExpiry> {
    let hard_limit: Option<UnixMillis> = row.get(hard_limit_at)?;
    let Some(window_ms) = row.get::<_, Option<i64>>(hard_limit_at + 1)? else {
        return Ok(hard_limit.map_or(TokenExpiry::Never, TokenExpiry::Hard));
    };
    let window_ms = u64::try_from(window_ms).map_err(|_| StoreError::Corrupt("a negative window".to_owned()))?;
    Ok(TokenExpiry::Sliding { window_ms, cap: hard_limit.unwrap_or(UnixMillis::MAX) })
}

pub(super) fn parse_stored_path(bytes: &[u8]) -> Result<TreePath> {
    TreePath::parse(bytes).map_err(|error| StoreError::Corrupt(format!("a stored path: {error}")))
}

/// Reads an unsigned number that is stored in SQLite's signed 64-bit form.
pub(super) fn get_u64(row: &Row<'_>, column: usize) -> Result<u64> {
    Ok(row.get::<_, i64>(column)?.cast_unsigned())
}

/// Returns an unsigned number as a signed one, at most `i64::MAX`.
pub(super) fn to_sql_integer(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// Returns a page size as the value of a LIMIT clause.
pub(super) fn sql_limit(limit: usize) -> i64 {
    i64::try_from(limit).unwrap_or(i64::MAX)
}
