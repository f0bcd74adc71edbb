//! Nodes and the policy.

use std::num::NonZeroU32;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::domain::{Lifetime, NodeId, Policy, PolicySetting, TextValue, schema};
use crate::tree::NamedNode;

/// A node that has an id.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[schema(as = Node)]
pub struct NodeResponse {
    /// Id of the node.
    #[schema(value_type = schema::NodeId)]
    pub node: NodeId,
    /// Path of the node.
    #[schema(value_type = schema::Path)]
    pub path: String,
    /// Whether the file or directory is gone.
    #[serde(default)]
    pub dangling: bool,
}

impl NodeResponse {
    /// Converts a named node.
    pub fn from_named_node(named: &NamedNode) -> Self {
        Self { node: named.id, path: named.path.to_string(), dangling: named.dangling }
    }
}

/// Limits for new tokens.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
#[schema(as = Policy)]
pub struct PolicyResponse {
    /// Maximum number of live tokens of a user.
    #[schema(value_type = schema::Count)]
    pub max_tokens_per_user: NonZeroU32,
    /// Lifetime of a token that requests none.
    #[schema(value_type = schema::Duration)]
    pub default_lifetime: TextValue<Lifetime>,
    /// Maximum lifetime of a token.
    #[schema(value_type = schema::Duration)]
    pub max_lifetime: TextValue<Lifetime>,
    /// Whether tokens without expiration are allowed.
    pub allow_never: bool,
    /// Time after which an expired or revoked token is deleted.
    #[schema(value_type = schema::Duration)]
    pub token_retention: TextValue<Lifetime>,
    /// Time after which an event of the audit trail is deleted.
    #[schema(value_type = schema::Duration)]
    pub audit_retention: TextValue<Lifetime>,
}

impl From<Policy> for PolicyResponse {
    fn from(policy: Policy) -> Self {
        Self {
            max_tokens_per_user: policy.max_tokens_per_user,
            default_lifetime: TextValue(policy.default_lifetime),
            max_lifetime: TextValue(policy.max_lifetime),
            allow_never: policy.allow_never,
            token_retention: TextValue(policy.token_retention),
            audit_retention: TextValue(policy.audit_retention),
        }
    }
}

/// Changes of the policy; omitted keys are not changed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct UpdatePolicyRequest {
    /// Maximum number of live tokens of a user.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<schema::Count>)]
    pub max_tokens_per_user: Option<NonZeroU32>,
    /// Lifetime of a token that requests none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<schema::Duration>)]
    pub default_lifetime: Option<TextValue<Lifetime>>,
    /// Maximum lifetime of a token.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<schema::Duration>)]
    pub max_lifetime: Option<TextValue<Lifetime>>,
    /// Whether tokens without expiration are allowed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub allow_never: Option<bool>,
    /// Time after which an expired or revoked token is deleted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<schema::Duration>)]
    pub token_retention: Option<TextValue<Lifetime>>,
    /// Time after which an event of the audit trail is deleted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<schema::Duration>)]
    pub audit_retention: Option<TextValue<Lifetime>>,
}

impl UpdatePolicyRequest {
    /// Converts the change of one key.
    pub fn from_setting(setting: PolicySetting) -> Self {
        let mut change = Self::default();
        match setting {
            PolicySetting::MaxTokensPerUser(count) => change.max_tokens_per_user = Some(count),
            PolicySetting::DefaultLifetime(lifetime) => change.default_lifetime = Some(TextValue(lifetime)),
            PolicySetting::MaxLifetime(lifetime) => change.max_lifetime = Some(TextValue(lifetime)),
            PolicySetting::AllowNever(allow) => change.allow_never = Some(allow),
            PolicySetting::TokenRetention(lifetime) => change.token_retention = Some(TextValue(lifetime)),
            PolicySetting::AuditRetention(lifetime) => change.audit_retention = Some(TextValue(lifetime)),
        }
        change
    }

    /// Returns the changed keys.
    pub(in crate::api) fn into_settings(self) -> Vec<PolicySetting> {
        let lifetime = |value: Option<TextValue<Lifetime>>| value.map(|value| value.0);
        // All keys go to one transaction, so that two of them that depend on each other can change together.
        let settings = [
            self.max_tokens_per_user.map(PolicySetting::MaxTokensPerUser),
            lifetime(self.default_lifetime).map(PolicySetting::DefaultLifetime),
            lifetime(self.max_lifetime).map(PolicySetting::MaxLifetime),
            self.allow_never.map(PolicySetting::AllowNever),
            lifetime(self.token_retention).map(PolicySetting::TokenRetention),
            lifetime(self.audit_retention).map(PolicySetting::AuditRetention),
        ];
        settings.into_iter().flatten().collect()
    }
}
