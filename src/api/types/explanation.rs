//! Request and response of the explain call.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::domain::{
    AccessExplanation, AccessQuery, ByteSize, FileTag, Login, Protocol, TargetError, TextValue, TokenId, TreeOperation,
    TreePath, schema,
};

/// An operation to explain. Limits on omitted properties are not evaluated.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ExplainRequest {
    /// The token; by default the caller's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<schema::TokenId>)]
    pub token: Option<TokenId>,
    /// The operation.
    #[schema(value_type = schema::Operation)]
    pub operation: TextValue<TreeOperation>,
    /// Path of the operation.
    #[schema(value_type = schema::Path)]
    pub path: TextValue<TreePath>,
    /// Target path: required for copy, move and link, not allowed for others.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<schema::Path>)]
    pub to: Option<TextValue<TreePath>>,
    /// Protocol of the client.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<schema::Protocol>)]
    pub protocol: Option<Protocol>,
    /// Address of the client.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, example = "192.0.2.7")]
    pub address: Option<IpAddr>,
    /// User agent of the client.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user_agent: Option<String>,
    /// Size of the uploaded file in bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<schema::Bytes>)]
    pub size: Option<ByteSize>,
    /// Media type of the uploaded file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mime: Option<String>,
    /// Tags of the uploaded file.
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
    /// Converts a query about a token.
    pub fn from_query(token: TokenId, query: &AccessQuery) -> Self {
        let AccessQuery { operation, path, target: to, protocol, address, user_agent, size, mime, tags } =
            query.clone();
        let (operation, path, to) = (TextValue(operation), TextValue(path), to.map(TextValue));
        Self { token: Some(token), operation, path, to, protocol, address, user_agent, size, mime, tags }
    }
}

/// The explanation of an access decision.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[schema(as = Explanation)]
pub struct ExplainResponse {
    /// Whether the operation is allowed.
    pub allowed: bool,
    /// The explanation as a sentence.
    pub sentence: String,
    /// The deciding `rule`, and the object that it concerns.
    #[schema(value_type = Object)]
    pub decided_by: serde_json::Value,
    /// The token.
    #[schema(value_type = schema::TokenId)]
    pub token: TokenId,
    /// The owner of the token.
    #[schema(value_type = schema::Login)]
    pub user: Login,
    /// The operation.
    #[schema(value_type = schema::Operation)]
    pub operation: TextValue<TreeOperation>,
    /// Path of the operation.
    pub path: String,
    /// The required permission, or `none`.
    pub needs: String,
    /// Grants and scopes that allow the operation.
    pub allowed_by: Vec<ExplainSource>,
    /// Limits that were not evaluated and have to be met as well.
    pub unchecked_limits: Vec<String>,
}

/// A grant or scope that allows the operation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[schema(as = AccessSource)]
pub struct ExplainSource {
    /// Node and permission, as `node:UUID:PERMISSION`.
    pub scope: String,
    /// Path of the node.
    pub path: String,
}

impl ExplainResponse {
    /// Converts an explanation.
    pub fn from_explanation(explanation: &AccessExplanation) -> Self {
        let allowed_by = explanation.allowed_by.iter();
        let allowed_by =
            allowed_by.map(|source| ExplainSource { scope: source.scope.to_string(), path: source.path.to_string() });
        Self {
            allowed: explanation.allowed,
            sentence: explanation.sentence.clone(),
            decided_by: serde_json::to_value(&explanation.decided_by).unwrap_or_default(),
            token: explanation.token,
            user: explanation.user.clone(),
            operation: TextValue(explanation.operation),
            path: explanation.path.to_string(),
            needs: explanation.needs.to_string(),
            allowed_by: allowed_by.collect(),
            unchecked_limits: explanation.unchecked_limits.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use crate::domain::{DecidingRule, TokenId, TreePath};

    #[test]
    fn rules_have_their_names_in_json() {
        let at = TreePath::root();
        for (rule, wanted) in [
            (DecidingRule::VisibleOnly, json!({"rule": "visible_only"})),
            (DecidingRule::TreeRoot, json!({"rule": "tree_root"})),
            (DecidingRule::NodeReplaced { at }, json!({"rule": "node_replaced", "at": "/"})),
            (DecidingRule::NoSingleGrant, json!({"rule": "no_single_grant"})),
        ] {
            assert_eq!(serde_json::to_value(&rule).expect("JSON"), wanted);
        }
        let token: TokenId = "JhxND7ci".parse().expect("id");
        let size = DecidingRule::FileSize { token, max: "1MiB".parse().expect("size") };
        assert_eq!(serde_json::to_value(&size).expect("JSON")["max"], json!("1MiB"));
    }
}
