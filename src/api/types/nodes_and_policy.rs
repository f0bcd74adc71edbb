//! Nodes and the policy.

use std::num::NonZeroU32;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::super::schema;
use super::TextValue;
use crate::domain::{Lifetime, NodeId, Policy, PolicySetting};
use crate::tree::NamedNode;

/// A named node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct NodeResponse {
    /// Its id.
    #[schema(value_type = schema::NodeId)]
    pub node: NodeId,
    /// Where it is.
    #[schema(value_type = schema::Path)]
    pub path: String,
    /// Whether nothing is there any more.
    #[serde(default)]
    pub dangling: bool,
}

impl NodeResponse {
    /// Shows a named node.
    pub fn from_named_node(named: &NamedNode) -> Self {
        Self { node: named.id, path: named.path.to_string(), dangling: named.dangling }
    }
}

/// What tokens may ask for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
#[schema(as = Policy)]
pub struct PolicyResponse {
    /// How many live tokens a user may own.
    #[schema(value_type = schema::Count)]
    pub max_tokens_per_user: NonZeroU32,
    /// How long a token lives that asks for nothing.
    #[schema(value_type = schema::Duration)]
    pub default_lifetime: TextValue<Lifetime>,
    /// How long a token may live.
    #[schema(value_type = schema::Duration)]
    pub max_lifetime: TextValue<Lifetime>,
    /// Whether a token may live until it is revoked.
    pub allow_never: bool,
    /// How long a token is kept that has expired or was revoked.
    #[schema(value_type = schema::Duration)]
    pub token_retention: TextValue<Lifetime>,
    /// How long an event of the audit trail is kept.
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

/// What to change about the policy; what is left out stays.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct UpdatePolicyRequest {
    /// How many live tokens a user may own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<schema::Count>)]
    pub max_tokens_per_user: Option<NonZeroU32>,
    /// How long a token lives that asks for nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<schema::Duration>)]
    pub default_lifetime: Option<TextValue<Lifetime>>,
    /// How long a token may live.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<schema::Duration>)]
    pub max_lifetime: Option<TextValue<Lifetime>>,
    /// Whether a token may live until it is revoked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub allow_never: Option<bool>,
    /// How long a token is kept that has expired or was revoked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<schema::Duration>)]
    pub token_retention: Option<TextValue<Lifetime>>,
    /// How long an event of the audit trail is kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<schema::Duration>)]
    pub audit_retention: Option<TextValue<Lifetime>>,
}

impl UpdatePolicyRequest {
    /// Asks for one key to be changed.
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

    /// Returns the keys to change.
    pub(in crate::api) fn into_settings(self) -> Vec<PolicySetting> {
        let lifetime = |value: Option<TextValue<Lifetime>>| value.map(|value| value.0);
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
