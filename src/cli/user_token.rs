//! `patgate admin user token`: makes a token for a user.

use clap::Args;

use super::site::Site;
use super::token_flags::{TokenFlags, asked, window};
use super::token_view::{self, NewToken, Reach, Token};
use super::{Result, output};
use crate::domain::{Lifetime, Login};
use crate::tokens::{Asked, Authority, Issued, TokenRequest};

/// Make a token for a user
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  patgate admin user token -u alice -e 24h
  patgate admin user token -u backup -a 36h -s path:/backup:w -q
  patgate admin user token -u alice -e 7d -a 1h -s node:6f1c2c5e-8a55-4f0e-9d3c-0f4b6a2f7a11:r

A duration is a whole number and a unit: s, m, h, d, w, M (30 days) or Y (365 days).")]
pub(super) struct UserToken {
    /// The owner
    #[arg(short, long, value_name = "LOGIN")]
    user: Login,
    /// Hard limit: it dies after this long, such as 24h (or never, where the policy allows it)
    #[arg(short, long, value_name = "DURATION", value_parser = asked)]
    expire: Option<Asked>,
    /// Sliding window: each use moves its expiry to now + this; a bare number is seconds
    #[arg(short, long, value_name = "DURATION", value_parser = window)]
    auto: Option<Lifetime>,
    #[command(flatten)]
    flags: TokenFlags,
}

impl UserToken {
    /// Makes the token and shows it, once.
    pub(super) fn run(&self, site: &Site) -> Result {
        let open = site.open()?;
        let request = TokenRequest {
            owner: self.user.clone(),
            name: self.flags.name.clone(),
            description: self.flags.description.clone(),
            lifetime: self.expire.unwrap_or_default(),
            window: self.auto,
            scopes: self.flags.scopes(),
            limits: self.flags.limits(),
            roles: self.flags.roles(),
        };
        let issued = open.issue(request)?;
        let Issued { text, record } = &issued;
        let secret = text.reveal();
        if self.flags.quiet {
            return output::say(&secret);
        }
        if site.json() {
            return output::json(&NewToken { token: &secret, record: Token::of(record) });
        }
        let reaches = match &record.scopes {
            Some(_) => Token::of(record).reaches(),
            None => {
                let grants = open.looking().grants(&Authority::Administrator, &self.user)?;
                let grants: Vec<_> = grants.iter().map(|grant| Reach::of(grant).text()).collect();
                if grants.is_empty() { "nothing yet".to_owned() } else { grants.join(", ") }
            }
        };
        output::facts(&[
            ("token", secret.to_string()),
            ("id", record.id.to_string()),
            ("reaches", reaches),
            ("expires", token_view::expires(record)),
        ])?;
        output::say("This is the only time that the token is shown: keep it safe.")
    }
}
