//! Tokens with their secret in JSON.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::RevealedSecret;
use crate::domain::{TokenText, schema};
use crate::store::TokenRecord;

/// A token with its secret, which no later response reveals.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TokenWithSecret {
    /// The token with its secret; absent for one that is proven by an SSH key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<schema::TokenText>)]
    pub token: Option<RevealedSecret>,
    /// The token without its secret.
    #[serde(flatten)]
    pub record: TokenRecord,
}

impl TokenWithSecret {
    /// Joins a token and its record, for the one time that it is shown.
    pub fn new(text: Option<&TokenText>, record: TokenRecord) -> Self {
        Self { token: text.map(|text| RevealedSecret::from(text.reveal().to_string())), record }
    }
}
