//! Whether a token may do something, as it is asked and answered.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::super::schema;
use super::TextValue;
use crate::domain::{
    AccessExplanation, AccessQuery, ByteSize, FileTag, Login, Protocol, TargetError, TokenId, TreeOperation, TreePath,
};

/// A question; what is left out is left open.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = Question)]
pub struct ExplainRequest {
    /// The token; the one that asks unless given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<schema::TokenId>)]
    pub token: Option<TokenId>,
    /// What is to be done.
    #[schema(value_type = schema::Operation)]
    pub operation: TextValue<TreeOperation>,
    /// Where.
    #[schema(value_type = schema::Path)]
    pub path: TextValue<TreePath>,
    /// Where to: needed for copy, move and link, and for nothing else.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<schema::Path>)]
    pub to: Option<TextValue<TreePath>>,
    /// By which door.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<schema::Protocol>)]
    pub protocol: Option<Protocol>,
    /// From which address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, example = "192.0.2.7")]
    pub address: Option<IpAddr>,
    /// With which program.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user_agent: Option<String>,
    /// How large a file, in bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<schema::Bytes>)]
    pub size: Option<ByteSize>,
    /// Of which media type.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mime: Option<String>,
    /// Labelled how.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schema(value_type = Vec<schema::Tag>)]
    pub tags: Vec<FileTag>,
}

impl TryFrom<ExplainRequest> for AccessQuery {
    type Error = TargetError;

    fn try_from(request: ExplainRequest) -> Result<Self, TargetError> {
        let query = Self {
            operation: request.operation.0,
            path: request.path.0,
            target: None,
            protocol: request.protocol,
            address: request.address,
            user_agent: request.user_agent,
            size: request.size,
            mime: request.mime,
            tags: request.tags,
        };
        query.with_target(request.to.map(|to| to.0))
    }
}

impl ExplainRequest {
    /// Writes down what is asked of a token.
    pub fn from_query(token: TokenId, query: &AccessQuery) -> Self {
        let AccessQuery { operation, path, target: to, protocol, address, user_agent, size, mime, tags } =
            query.clone();
        let (operation, path, to) = (TextValue(operation), TextValue(path), to.map(TextValue));
        Self { token: Some(token), operation, path, to, protocol, address, user_agent, size, mime, tags }
    }
}

/// The answer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[schema(as = Verdict)]
pub struct ExplainResponse {
    /// Whether it is allowed.
    pub allowed: bool,
    /// The answer as a sentence.
    pub sentence: String,
    /// What decides: a `rule`, and what it concerns.
    #[schema(value_type = Object)]
    pub decided_by: serde_json::Value,
    /// The token.
    #[schema(value_type = schema::TokenId)]
    pub token: TokenId,
    /// Its owner.
    #[schema(value_type = schema::Login)]
    pub user: Login,
    /// What was asked.
    #[schema(value_type = schema::Operation)]
    pub operation: TextValue<TreeOperation>,
    /// Where.
    pub path: String,
    /// The permission that it needs, or `none`.
    pub needs: String,
    /// The grants, and the scopes that narrow them, that allow it.
    pub by: Vec<ExplainSource>,
    /// Limits that were not asked about and have to be met as well.
    pub provided: Vec<String>,
}

/// A grant or scope that allows something.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[schema(as = Source)]
pub struct ExplainSource {
    /// The node and what is allowed there.
    pub scope: String,
    /// Where it is.
    pub path: String,
}

impl ExplainResponse {
    /// Shows an answer.
    pub fn from_explanation(explanation: &AccessExplanation) -> Self {
        let by = explanation.by.iter();
        let by = by.map(|by| ExplainSource { scope: by.scope.to_string(), path: by.path.to_string() });
        Self {
            allowed: explanation.allowed,
            sentence: explanation.sentence.clone(),
            decided_by: serde_json::to_value(&explanation.decided_by).unwrap_or_default(),
            token: explanation.token,
            user: explanation.user.clone(),
            operation: TextValue(explanation.operation),
            path: explanation.path.to_string(),
            needs: explanation.needs.to_string(),
            by: by.collect(),
            provided: explanation.provided.clone(),
        }
    }
}
