//! Nodes and the policy.

use std::num::NonZeroU32;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::super::schema;
use super::Text;
use crate::domain::{Lifetime, NodeId, Policy, PolicySetting};
use crate::tree::NamedNode;

/// A named node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Node {
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

impl Node {
    /// Shows a named node.
    pub fn of(named: &NamedNode) -> Self {
        Self { node: named.id, path: named.path.to_string(), dangling: named.dangling }
    }
}

/// What tokens may ask for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
#[schema(as = Policy)]
pub struct PolicyShown {
    /// How many live tokens a user may own.
    #[schema(value_type = schema::Count)]
    pub max_tokens_per_user: NonZeroU32,
    /// How long a token lives that asks for nothing.
    #[schema(value_type = schema::Duration)]
    pub default_lifetime: Text<Lifetime>,
    /// How long a token may live.
    #[schema(value_type = schema::Duration)]
    pub max_lifetime: Text<Lifetime>,
    /// Whether a token may live until it is revoked.
    pub allow_never: bool,
    /// How long a token is kept that has expired or was revoked.
    #[schema(value_type = schema::Duration)]
    pub token_retention: Text<Lifetime>,
    /// How long an event of the audit trail is kept.
    #[schema(value_type = schema::Duration)]
    pub audit_retention: Text<Lifetime>,
}

impl From<Policy> for PolicyShown {
    fn from(policy: Policy) -> Self {
        Self {
            max_tokens_per_user: policy.max_tokens_per_user,
            default_lifetime: Text(policy.default_lifetime),
            max_lifetime: Text(policy.max_lifetime),
            allow_never: policy.allow_never,
            token_retention: Text(policy.token_retention),
            audit_retention: Text(policy.audit_retention),
        }
    }
}

/// What to change about the policy; what is left out stays.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct PolicyChange {
    /// How many live tokens a user may own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<schema::Count>)]
    pub max_tokens_per_user: Option<NonZeroU32>,
    /// How long a token lives that asks for nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<schema::Duration>)]
    pub default_lifetime: Option<Text<Lifetime>>,
    /// How long a token may live.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<schema::Duration>)]
    pub max_lifetime: Option<Text<Lifetime>>,
    /// Whether a token may live until it is revoked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub allow_never: Option<bool>,
    /// How long a token is kept that has expired or was revoked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<schema::Duration>)]
    pub token_retention: Option<Text<Lifetime>>,
    /// How long an event of the audit trail is kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<schema::Duration>)]
    pub audit_retention: Option<Text<Lifetime>>,
}

impl PolicyChange {
    /// Asks for one key to be changed.
    pub fn of(setting: PolicySetting) -> Self {
        let mut change = Self::default();
        match setting {
            PolicySetting::MaxTokensPerUser(count) => change.max_tokens_per_user = Some(count),
            PolicySetting::DefaultLifetime(lifetime) => change.default_lifetime = Some(Text(lifetime)),
            PolicySetting::MaxLifetime(lifetime) => change.max_lifetime = Some(Text(lifetime)),
            PolicySetting::AllowNever(allow) => change.allow_never = Some(allow),
            PolicySetting::TokenRetention(lifetime) => change.token_retention = Some(Text(lifetime)),
            PolicySetting::AuditRetention(lifetime) => change.audit_retention = Some(Text(lifetime)),
        }
        change
    }

    /// Returns the keys to change.
    pub(in crate::api) fn settings(self) -> Vec<PolicySetting> {
        let lifetime = |value: Option<Text<Lifetime>>| value.map(|value| value.0);
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
