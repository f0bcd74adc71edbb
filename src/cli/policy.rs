//! `patgate policy`: limits for new tokens.

use clap::{Args, Subcommand};

use super::context::CommandContext;
use super::{CommandError, Result, output};
use crate::api::types::PolicyResponse;
use crate::domain::PolicySetting;

/// Show or change the limits for new tokens
#[derive(Debug, Args)]
#[command(
    name = "policy",
    after_help = "Example:
  patgate policy show"
)]
pub(super) struct PolicyCommand {
    #[command(subcommand)]
    subcommand: PolicySubcommand,
}

#[derive(Debug, Subcommand)]
enum PolicySubcommand {
    /// Show every key
    #[command(after_help = "Example:\n  patgate policy show --json")]
    Show,
    /// Change a key; existing tokens are not changed
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
    /// Runs the subcommand.
    pub(super) fn run(&self, context: &CommandContext) -> Result {
        let policy = match &self.subcommand {
            PolicySubcommand::Show => context.backend()?.policy()?,
            PolicySubcommand::Set { key, value } => {
                let setting = PolicySetting::parse(key, value).map_err(invalid_setting)?;
                let policy = context.backend_or_create()?.set_policy(setting)?;
                // The policy has been changed, so the state must stay even if printing fails.
                context.keep_state();
                policy
            }
        };
        print_policy(context, &policy)
    }
}

fn invalid_setting(why: String) -> CommandError {
    CommandError::usage(why).with_hint("patgate policy set --help shows every key with a value")
}

fn print_policy(context: &CommandContext, policy: &PolicyResponse) -> Result {
    if context.prints_json() {
        return output::print_json(policy);
    }
    let PolicyResponse { max_tokens_per_user, default_lifetime, max_lifetime, allow_never, .. } = policy;
    let PolicyResponse { token_retention, audit_retention, .. } = policy;
    output::print_fields(&[
        ("max-tokens-per-user", max_tokens_per_user.to_string()),
        ("default-lifetime", default_lifetime.0.to_string()),
        ("max-lifetime", max_lifetime.0.to_string()),
        ("allow-never", allow_never.to_string()),
        ("token-retention", token_retention.0.to_string()),
        ("audit-retention", audit_retention.0.to_string()),
    ])
}
