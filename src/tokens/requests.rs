//! Requests of callers: the JSON bodies of the REST API, which command line, console and upload service build as well.
//! The texts of the fields are those of the OpenAPI document.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::principal::AuthorizedCaller;
use super::{Error, Result, TokenLabel};
use crate::domain::{
    ForeignRoles, Lifetime, LifetimeError, Login, Policy, Roles, ScopeTarget, SshPublicKey, TokenExpiry, TokenLimits,
    UnixMillis, deserialize_object, impl_text_json, optional_text, schema,
};

/// The requested lifetime of a token: a duration, `never` or `default`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum RequestedLifetime {
    /// The default of the policy.
    #[default]
    Default,
    /// A hard limit, as a duration.
    For(Lifetime),
    /// No expiration.
    Never,
}

impl FromStr for RequestedLifetime {
    type Err = LifetimeError;

    fn from_str(text: &str) -> std::result::Result<Self, LifetimeError> {
        match text {
            "default" => Ok(Self::Default),
            "never" => Ok(Self::Never),
            _ => text.parse().map(Self::For),
        }
    }
}

impl fmt::Display for RequestedLifetime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::For(lifetime) => lifetime.fmt(f),
            Self::Never => f.write_str("never"),
        }
    }
}

impl_text_json!(RequestedLifetime);

/// A token to create. Omitted fields take the default of the policy, or narrow nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = CreateTokenRequest)]
pub struct TokenRequest {
    /// Login of the owner; by default the caller.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<schema::Login>)]
    pub owner: Option<Login>,
    /// Name for people; by default `OWNER_api_token`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<schema::Label>)]
    pub name: Option<TokenLabel>,
    /// Description for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<schema::Label>)]
    pub description: Option<TokenLabel>,
    /// Lifetime: a duration, `never` for no expiration, or `default` for the default of the policy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<schema::Lifetime>)]
    pub lifetime: Option<RequestedLifetime>,
    /// Expiration, in place of `lifetime`.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "optional_text")]
    #[schema(value_type = Option<schema::Time>)]
    pub expires_at: Option<UnixMillis>,
    /// Sliding window: each use moves the expiration to now + window.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<schema::Duration>)]
    pub window: Option<Lifetime>,
    /// Scopes; by default all access of the owner.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Vec<schema::Scope>>)]
    pub scopes: Option<Vec<ScopeTarget>>,
    /// SSH public key that proves the token in place of a secret: the line of a `.pub` file. SFTP accepts it for the owner's
    /// login; no secret exists.
    #[serde(default, rename = "sshKey", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<schema::SshPublicKey>)]
    pub ssh_key: Option<SshPublicKey>,
    /// Limits.
    #[serde(default, deserialize_with = "deserialize_object")]
    pub limits: TokenLimits,
    /// Roles.
    #[serde(default, skip_serializing_if = "Roles::is_empty")]
    #[schema(value_type = Vec<schema::Role>)]
    pub roles: Roles,
    /// Roles of another service to store with it, which grant nothing here. Only that service's own call sets them.
    #[serde(skip)]
    pub foreign_roles: ForeignRoles,
}

/// Changes of a token. Omitted fields are not changed, and no field may widen the token.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = UpdateTokenRequest)]
pub struct NarrowRequest {
    /// New name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<schema::Label>)]
    pub name: Option<TokenLabel>,
    /// New description.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<schema::Label>)]
    pub description: Option<TokenLabel>,
    /// Scopes in place of the present ones.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Vec<schema::Scope>>)]
    pub scopes: Option<Vec<ScopeTarget>>,
    /// Limits, each in place of the present one.
    // A limit can't be removed, so an empty one stays as it is.
    #[serde(default, deserialize_with = "deserialize_object")]
    pub limits: TokenLimits,
    /// Roles to keep.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Vec<schema::Role>>)]
    pub roles: Option<Roles>,
    /// Earlier expiration.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "optional_text")]
    #[schema(value_type = Option<schema::Time>)]
    pub expires_at: Option<UnixMillis>,
}

impl NarrowRequest {
    /// Tells whether no field is set.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// The hard limit that a request asks for.
#[derive(Clone, Copy)]
enum RequestedEnd {
    Default,
    For(Lifetime),
    Until(UnixMillis),
    Never,
}

impl TokenRequest {
    /// Returns a request for a token of an owner with the policy's default lifetime, no scopes, no limits and no roles.
    pub fn new(owner: Login) -> Self {
        Self { owner: Some(owner), ..Self::default() }
    }

    /// Returns the owner: the named one, or the user of the calling token.
    ///
    /// # Errors
    /// [`Error::OwnerMissing`] where the administrator names none.
    pub(super) fn owner_or_caller<'a>(&'a self, caller: &'a AuthorizedCaller) -> Result<&'a Login> {
        self.owner.as_ref().or_else(|| caller.bearer().map(|bearer| &bearer.login)).ok_or(Error::OwnerMissing)
    }

    /// Returns the hard limit that is asked for.
    fn requested_end(&self) -> Result<RequestedEnd> {
        match (self.lifetime, self.expires_at) {
            // Even if they agree, or the lifetime is the default: preferring one would hide a mistake.
            (Some(_), Some(_)) => Err(Error::LifetimeAndExpiration),
            (None, Some(at)) => Ok(RequestedEnd::Until(at)),
            (None | Some(RequestedLifetime::Default), None) => Ok(RequestedEnd::Default),
            (Some(RequestedLifetime::For(lifetime)), None) => Ok(RequestedEnd::For(lifetime)),
            (Some(RequestedLifetime::Never), None) => Ok(RequestedEnd::Never),
        }
    }

    /// Returns the expiration of the token; `cap` is the hard limit of the token that bounds it, where there is one.
    pub(super) fn resolve_expiry(
        &self,
        policy: &Policy,
        now: UnixMillis,
        cap: Option<UnixMillis>,
    ) -> Result<TokenExpiry> {
        let end = self.requested_end()?;
        if matches!(end, RequestedEnd::Never) {
            self.window.map_or(Ok(()), |_| Err(Error::WindowWithoutExpiration))?;
            // Before the cap is checked: that the policy forbids it says more than that the parent expires earlier.
            policy.unlimited_expiry()?;
        }
        if let Some(cap) = cap {
            self.check_lifetime_within(end, cap, policy, now)?;
        }
        let expiry = match (end, self.window) {
            (RequestedEnd::Default, window) => policy.token_expiry(now, None, window)?,
            (RequestedEnd::For(hard), window) => policy.token_expiry(now, Some(hard), window)?,
            (RequestedEnd::Until(at), window) => {
                // Rounded up to whole seconds for the check of the policy, and cut back to the exact time after it.
                let seconds = at.saturating_duration_since(now).as_millis().div_ceil(1000);
                let hard = u64::try_from(seconds).ok().and_then(Lifetime::from_secs).ok_or(Error::ExpiresInPast(at))?;
                policy.token_expiry(now, Some(hard), window)?.capped_at(at)
            }
            (RequestedEnd::Never, _) => policy.unlimited_expiry()?,
        };
        // Only a default is shortened to the cap: an explicit lifetime beyond it was refused above.
        Ok(cap.map_or(expiry, |cap| expiry.capped_at(cap)))
    }

    /// Checks that an explicitly requested lifetime ends at `cap` at the latest: it is refused and never shortened. A
    /// window beside a hard limit is bounded by that.
    fn check_lifetime_within(
        &self,
        end: RequestedEnd,
        cap: UnixMillis,
        policy: &Policy,
        now: UnixMillis,
    ) -> Result<()> {
        let (latest, asked) = match (end, self.window) {
            (RequestedEnd::Default, None) => return Ok(()),
            (RequestedEnd::Default, Some(window)) => (now.saturating_add(window.as_duration()), window.to_string()),
            (RequestedEnd::For(hard), _) => (now.saturating_add(hard.as_duration()), hard.to_string()),
            (RequestedEnd::Until(at), _) => (at, at.to_string()),
            (RequestedEnd::Never, _) => (UnixMillis::MAX, "never".to_owned()),
        };
        if latest <= cap {
            return Ok(());
        }
        // The suggestion has to pass the policy, too.
        let longest =
            Lifetime::from_secs(cap.saturating_duration_since(now).as_secs()).map(|left| left.min(policy.max_lifetime));
        Err(Error::OutlivesParent { asked, longest, until: cap })
    }
}
