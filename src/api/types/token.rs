//! Tokens with their secret in JSON.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::RevealedSecret;
use crate::domain::{TokenText, schema};
use crate::store::TokenRecord;

/// A token with its secret, which no later response reveals.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TokenWithSecret {
    /// The token with its secret.
    #[schema(value_type = schema::TokenText)]
    pub token: RevealedSecret,
    /// The token without its secret.
    #[serde(flatten)]
    pub record: TokenRecord,
}

impl TokenWithSecret {
    /// Joins a token and its record, for the one time that it is shown.
    pub fn new(text: &TokenText, record: TokenRecord) -> Self {
        Self { token: RevealedSecret::from(text.reveal().to_string()), record }
    }
}
