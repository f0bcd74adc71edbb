//! `patgate admin user token`: creates a token for a user.

use clap::Args;

use super::backend::ManagementBackend;
use super::context::CommandContext;
use super::token_flags::{NewTokenFlags, parse_window};
use super::{Result, output, token_format};
use crate::api::types::RevealedSecret;
use crate::domain::{Lifetime, Login, Roles, TokenLimits};
use crate::tokens::{RequestedLifetime, TokenRequest};

/// Create a token for a user
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  patgate admin user token -u alice -e 24h
  patgate admin user token -u backup -a 36h -s path:/backup:w -q
  patgate admin user token -u alice -e 7d -a 1h -s node:6f1c2c5e-8a55-4f0e-9d3c-0f4b6a2f7a11:r
  patgate admin user token -u carol -e 30d --role none
  patgate admin user token -u backup -e 90d --ssh-key /home/backup/.ssh/id_ed25519.pub

Without a scope or a limit it has the roles of its owner, as after a login, unless --role says otherwise.")]
pub(super) struct CreateUserTokenCommand {
    /// The owner
    #[arg(short, long, value_name = "LOGIN")]
    user: Login,
    /// Hard limit: it expires after this time, such as 24h (or never, if the policy allows it) [default: the policy's
    /// default-lifetime; with --auto its max-lifetime]
    #[arg(short, long, value_name = "DURATION", allow_hyphen_values = true)]
    expire: Option<RequestedLifetime>,
    /// Sliding window: each use moves the expiration to now + this; a bare number is seconds
    #[arg(short, long, value_name = "DURATION", value_parser = parse_window, allow_hyphen_values = true)]
    auto: Option<Lifetime>,
    #[command(flatten)]
    flags: NewTokenFlags,
}

impl CreateUserTokenCommand {
    /// Creates the token and prints it, once.
    pub(super) fn run(&self, context: &CommandContext) -> Result {
        let backend = context.backend()?;
        let request = TokenRequest {
            owner: Some(self.user.clone()),
            lifetime: self.expire,
            window: self.auto,
            roles: self.roles(&*backend)?,
            ..self.flags.token_request()?
        };
        let created = backend.create_token(request)?;
        let token = &created.record;
        if self.flags.quiet {
            return output::print_line(created.token.as_ref().map_or(token.id.as_str(), RevealedSecret::as_str));
        }
        if context.prints_json() {
            return output::print_json(&created);
        }
        // A token without scopes has the grants of its owner, which say more than "all access".
        let access = match (&token.scopes, token.parent) {
            (None, None) => {
                let grants: Vec<_> =
                    backend.list_grants(&self.user)?.iter().map(token_format::format_permission).collect();
                if grants.is_empty() { "nothing yet".to_owned() } else { grants.join(", ") }
            }
            _ => token_format::format_access(token),
        };
        let mut fields = Vec::new();
        fields.extend(created.token.as_ref().map(|secret| ("token", secret.as_str().to_owned())));
        fields.extend(token.ssh_key.clone().map(|fingerprint| ("SSH key", fingerprint)));
        fields.extend([
            ("id", token.id.to_string()),
            ("access", access),
            ("expires", token_format::format_expiration(token)),
        ]);
        fields.extend(token_format::format_limits(&token.limits).map(|limits| ("limits", limits)));
        // Always, since a token may have got them without being asked for.
        fields.push(("roles", token_format::format_roles(&token.roles).unwrap_or_else(|| "none".to_owned())));
        fields.extend(
            token
                .parent
                .map(|parent| ("parent", format!("{parent}: this token never has more access, and expires with it"))),
        );
        output::print_fields(&fields)?;
        output::print_line(match created.token {
            Some(_) => "The token is shown only now: keep it safe.",
            None => "There is no secret: SFTP accepts a login with this key.",
        })
    }

    /// Returns the roles of the token: those that were given, or those of its owner where nothing restricts it, as after a
    /// login.
    fn roles(&self, backend: &dyn ManagementBackend) -> Result<Roles> {
        let restrictions = &self.flags.restrictions;
        match restrictions.roles()? {
            Some(roles) => Ok(roles),
            None if restrictions.scopes().is_none() && restrictions.limits() == TokenLimits::default() => {
                // An unknown owner is refused with the request, in the words of that refusal.
                Ok(backend.user(&self.user).map(|owner| owner.roles).unwrap_or_default())
            }
            None => Ok(Roles::default()),
        }
    }
}
