//! `patgate apitoken`: creates, lists, shows, edits, revokes and rotates tokens.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use serde_json::json;

use super::context::CommandContext;
use super::token_flags::{NewTokenFlags, TokenRestrictionFlags, read_ssh_key};
use super::{CommandError, Result, output, token_format};
use crate::api::types::{RevealedSecret, TokenWithSecret};
use crate::auth::Clock;
use crate::domain::{Lifetime, Login, TokenId};
use crate::tokens::{NarrowRequest, RequestedLifetime, Rotation, StateFilter, TokenLabel, TokenRequest};

/// Manage tokens
#[derive(Debug, Args)]
#[command(after_help = "Example:
  patgate apitoken list --owner alice")]
pub(super) struct ApitokenCommand {
    #[command(subcommand)]
    subcommand: ApitokenSubcommand,
}

#[derive(Debug, Subcommand)]
enum ApitokenSubcommand {
    Create(Box<CreateTokenArgs>),
    List(ListTokensArgs),
    /// Show a token; never its secret
    #[command(after_help = "Example:\n  patgate apitoken show JhxND7ci")]
    Show {
        /// The token's id
        id: TokenId,
    },
    Edit(Box<EditTokenArgs>),
    Revoke(RevokeTokensArgs),
    Rotate(RotateTokenArgs),
}

/// Create a token
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  patgate apitoken create --owner alice --expiry-date 30d
  patgate apitoken create --owner alice --name laptop --protocol sftp --ip 192.0.2.0/24")]
struct CreateTokenArgs {
    /// The owner
    #[arg(long, value_name = "LOGIN")]
    owner: Option<Login>,
    /// Lifetime, such as 30d [default: the policy's default-lifetime]
    #[arg(long, value_name = "DURATION", allow_hyphen_values = true)]
    expiry_date: Option<RequestedLifetime>,
    #[command(flatten)]
    flags: NewTokenFlags,
}

/// List tokens
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  patgate apitoken list
  patgate --state /var/lib/patgate apitoken list --owner alice --status live --json")]
struct ListTokensArgs {
    /// Only tokens of this user
    #[arg(long, value_name = "LOGIN")]
    owner: Option<Login>,
    /// Only tokens with this status: live, expired, revoked or dangling (with a scope whose node is gone)
    #[arg(long, value_name = "STATUS")]
    status: Option<StateFilter>,
}

/// Change the name of a token, or narrow it: it can't be widened again
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  patgate apitoken edit JhxND7ci --name laptop --tag holiday
  patgate apitoken edit JhxND7ci -s path:/projects:r --ip 192.0.2.0/24 --expiry-date 7d
  patgate apitoken edit JhxND7ci --quota 2GiB

Omitted options are not changed; a given limit replaces the present one.")]
struct EditTokenArgs {
    /// The token's id
    id: TokenId,
    /// New name
    #[arg(long, value_name = "NAME")]
    name: Option<TokenLabel>,
    /// New description
    #[arg(long, value_name = "TEXT")]
    description: Option<TokenLabel>,
    /// Expire in this time, such as 7d; only earlier than now
    #[arg(long, value_name = "DURATION", allow_hyphen_values = true)]
    expiry_date: Option<Lifetime>,
    #[command(flatten)]
    restrictions: TokenRestrictionFlags,
}

/// Revoke tokens: they are refused from the next request on, and their open sessions are closed
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  patgate apitoken revoke JhxND7ci
  patgate apitoken revoke --all --owner alice")]
struct RevokeTokensArgs {
    /// The tokens' ids
    #[arg(value_name = "ID", required_unless_present = "all", conflicts_with = "all")]
    ids: Vec<TokenId>,
    /// All tokens of --owner
    #[arg(long, requires = "owner")]
    all: bool,
    /// The owner of the tokens
    #[arg(long, value_name = "LOGIN", requires = "all")]
    owner: Option<Login>,
}

/// Rotate a token: it gets a new secret, and keeps id, expiration and scopes
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  patgate apitoken rotate JhxND7ci
  patgate apitoken rotate JhxND7ci --grace 1h
  patgate apitoken rotate JhxND7ci --ssh-key /home/backup/.ssh/new.pub --grace 1h")]
struct RotateTokenArgs {
    /// The token's id
    id: TokenId,
    /// Grace period during which the old secret or key is still accepted, 24h at most [default: none]
    #[arg(long, value_name = "DURATION", allow_hyphen_values = true)]
    grace: Option<Lifetime>,
    /// File with the SSH public key that proves the token from now on, in place of a new secret (- is standard input)
    #[arg(long, value_name = "FILE")]
    ssh_key: Option<PathBuf>,
    /// Print only the token; with --ssh-key, only its id
    #[arg(short, long, conflicts_with = "json")]
    quiet: bool,
}

impl ApitokenCommand {
    /// Runs the subcommand.
    pub(super) fn run(&self, context: &CommandContext) -> Result {
        match &self.subcommand {
            ApitokenSubcommand::Create(create) => create.run(context),
            ApitokenSubcommand::List(list) => list.run(context),
            ApitokenSubcommand::Show { id } => print_token(context, *id),
            ApitokenSubcommand::Edit(edit) => edit.run(context),
            ApitokenSubcommand::Revoke(revoke) => revoke.run(context),
            ApitokenSubcommand::Rotate(rotate) => rotate.run(context),
        }
    }
}

impl CreateTokenArgs {
    fn run(&self, context: &CommandContext) -> Result {
        if self.owner.is_none() && !context.is_remote()? {
            return Err(CommandError::usage("the owner is missing")
                .with_hint("name one: patgate apitoken create --owner LOGIN (patgate admin user list shows them)"));
        }
        let backend = context.backend()?;
        let request =
            TokenRequest { owner: self.owner.clone(), lifetime: self.expiry_date, ..self.flags.token_request()? };
        print_secret(context, &backend.create_token(request)?, self.flags.quiet, "created")
    }
}

impl EditTokenArgs {
    fn run(&self, context: &CommandContext) -> Result {
        let request = NarrowRequest {
            name: self.name.clone(),
            description: self.description.clone(),
            scopes: self.restrictions.scopes(),
            limits: self.restrictions.limits(),
            roles: self.restrictions.roles()?,
            expires_at: self.expiry_date.map(|lifetime| Clock::system().now().saturating_add(lifetime.as_duration())),
        };
        if request.is_empty() {
            return Err(CommandError::usage("no change is given")
                .with_hint("patgate apitoken edit --help shows what can be changed, with an example"));
        }
        let token = context.backend()?.narrow(self.id, &request)?;
        if context.prints_json() {
            output::print_json(&token)
        } else {
            output::print_fields(&token_format::token_fields(token))
        }
    }
}

impl RotateTokenArgs {
    fn run(&self, context: &CommandContext) -> Result {
        let rotation = Rotation { grace: self.grace, ssh_key: self.ssh_key.as_deref().map(read_ssh_key).transpose()? };
        print_secret(context, &context.backend()?.rotate(self.id, rotation)?, self.quiet, "rotated")
    }
}

/// Prints a token with its secret, once.
fn print_secret(context: &CommandContext, token: &TokenWithSecret, quiet: bool, outcome: &str) -> Result {
    let id = token.record.id;
    let secret = token.token.as_ref().map(RevealedSecret::as_str);
    if quiet {
        return output::print_line(secret.unwrap_or(id.as_str()));
    }
    if context.prints_json() {
        return output::print_json(token);
    }
    output::print_line(&match (secret, &token.record.ssh_key) {
        (Some(secret), _) => {
            format!("ApiToken with id: {id} has been {outcome}, your token is: {secret} please keep it safe")
        }
        (None, key) => {
            let fingerprint = key.as_deref().unwrap_or_default();
            format!("ApiToken with id: {id} has been {outcome}, proven by the SSH key {fingerprint}")
        }
    })
}

impl ListTokensArgs {
    fn run(&self, context: &CommandContext) -> Result {
        let tokens = context.backend()?.list_tokens(self.owner.as_ref(), self.status)?;
        if context.prints_json() {
            return output::print_json(&tokens);
        }
        output::print_table(
            token_format::TOKEN_TABLE_HEADING,
            &tokens.into_iter().map(token_format::token_row).collect::<Vec<_>>(),
        )
    }
}

fn print_token(context: &CommandContext, id: TokenId) -> Result {
    let token = context.backend()?.token(id)?;
    if context.prints_json() {
        output::print_json(&token)
    } else {
        output::print_fields(&token_format::token_fields(token))
    }
}

impl RevokeTokensArgs {
    fn run(&self, context: &CommandContext) -> Result {
        let backend = context.backend()?;
        if let Some(owner) = &self.owner {
            let count = backend.revoke_all(owner)?;
            if context.prints_json() {
                return output::print_json(&json!({ "owner": owner, "revoked": count }));
            }
            let (tokens, have) = if count == 1 { ("token", "has") } else { ("tokens", "have") };
            return output::print_line(&format!("{count} {tokens} of {owner} {have} been revoked"));
        }
        backend.revoke(&self.ids)?;
        if context.prints_json() {
            return output::print_json(&json!({ "ids": self.ids, "revoked": self.ids.len() }));
        }
        self.ids.iter().try_for_each(|id| output::print_line(&format!("ApiToken with id: {id} has been revoked")))
    }
}
