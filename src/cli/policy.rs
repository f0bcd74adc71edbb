//! `patgate policy`: what tokens may ask for.

use clap::{Args, Subcommand};
use serde_json::json;

use super::site::Site;
use super::{Result, output};
use crate::domain::Policy;
use crate::tokens::Authority;

/// Show or change what tokens may ask for
#[derive(Debug, Args)]
#[command(
    name = "policy",
    after_help = "Example:
  patgate policy show"
)]
pub(super) struct PolicyCommand {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Show every key
    #[command(after_help = "Example:\n  patgate policy show --json")]
    Show,
    /// Change a key; tokens that live already stay as they are
    #[command(after_help = "Examples:
  patgate policy set max-tokens-per-user 20
  patgate policy set default-lifetime 30d
  patgate policy set max-lifetime 1Y
  patgate policy set allow-never true
  patgate policy set token-retention 30d
  patgate policy set audit-retention 1Y")]
    Set {
        /// max-tokens-per-user, default-lifetime, max-lifetime, allow-never, token-retention or audit-retention
        key: String,
        /// Its value
        value: String,
    },
}

impl PolicyCommand {
    /// Does what was asked.
    pub(super) fn run(&self, site: &Site) -> Result {
        let policy = match &self.what {
            What::Show => site.open()?.tokens.policy(&Authority::Administrator)?,
            What::Set { key, value } => {
                site.open_or_make()?.tokens.set_policy(&Authority::Administrator, key, value)?
            }
        };
        print(site, &policy)
    }
}

fn print(site: &Site, policy: &Policy) -> Result {
    let Policy { max_tokens_per_user, default_lifetime, max_lifetime, allow_never, .. } = policy;
    let Policy { token_retention, audit_retention, .. } = policy;
    if site.json() {
        return output::json(&json!({
            "max-tokens-per-user": max_tokens_per_user,
            "default-lifetime": default_lifetime.to_string(),
            "max-lifetime": max_lifetime.to_string(),
            "allow-never": allow_never,
            "token-retention": token_retention.to_string(),
            "audit-retention": audit_retention.to_string(),
        }));
    }
    output::facts(&[
        ("max-tokens-per-user", max_tokens_per_user.to_string()),
        ("default-lifetime", default_lifetime.to_string()),
        ("max-lifetime", max_lifetime.to_string()),
        ("allow-never", allow_never.to_string()),
        ("token-retention", token_retention.to_string()),
        ("audit-retention", audit_retention.to_string()),
    ])
}
