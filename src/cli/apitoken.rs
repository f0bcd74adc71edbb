//! `patgate apitoken`: tokens made, listed, shown, revoked and given new secrets.

use clap::{Args, Subcommand};
use serde_json::json;

use super::site::Site;
use super::token_flags::{TokenFlags, asked};
use super::token_view::{self, NewToken, Token};
use super::{Failure, Result, output};
use crate::domain::{Lifetime, Login, TokenId, TokenText};
use crate::store::TokenRecord;
use crate::tokens::{Asked, Authority, Issued, Rotated, StateFilter, TokenQuery, TokenRequest};

/// How many tokens are read in one go.
const PAGE: usize = 500;

/// Manage tokens
#[derive(Debug, Args)]
#[command(after_help = "Example:
  patgate apitoken list --owner alice")]
pub(super) struct Apitoken {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    Create(Box<Create>),
    List(List),
    /// Show a token; never its secret
    #[command(after_help = "Example:\n  patgate apitoken show JhxND7ci")]
    Show {
        /// The token's id
        id: TokenId,
    },
    Revoke(Revoke),
    Rotate(Rotate),
}

/// Make a token
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  patgate apitoken create --owner alice --expiry-date 30d
  patgate apitoken create --owner alice --name laptop --protocol sftp --ip 192.0.2.0/24")]
struct Create {
    /// The owner
    #[arg(long, value_name = "LOGIN")]
    owner: Option<Login>,
    /// How long it lives, such as 30d [default: the policy's default-lifetime]
    #[arg(long, value_name = "DURATION", value_parser = asked)]
    expiry_date: Option<Asked>,
    #[command(flatten)]
    flags: TokenFlags,
}

/// List tokens
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  patgate apitoken list
  patgate --state /var/lib/patgate apitoken list --owner alice --state live --json")]
struct List {
    /// Only those of this user
    #[arg(long, value_name = "LOGIN")]
    owner: Option<Login>,
    /// Only those in this state: live, expired, revoked or dangling (with a scope whose node has ended);
    /// the state directory is named before the command here
    #[arg(long, value_name = "STATE")]
    state: Option<StateFilter>,
}

/// Take tokens back: refused from the next request on, open sessions end
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  patgate apitoken revoke JhxND7ci
  patgate apitoken revoke --all --owner alice")]
struct Revoke {
    /// The tokens' ids
    #[arg(value_name = "ID", required_unless_present = "all", conflicts_with = "all")]
    ids: Vec<TokenId>,
    /// All tokens of --owner
    #[arg(long, requires = "owner")]
    all: bool,
    /// Whose tokens
    #[arg(long, value_name = "LOGIN", requires = "all")]
    owner: Option<Login>,
}

/// Give a token a new secret; its id, expiry and scopes stay
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  patgate apitoken rotate JhxND7ci
  patgate apitoken rotate JhxND7ci --grace 1h")]
struct Rotate {
    /// The token's id
    id: TokenId,
    /// How long the old secret is accepted still, 24h at most [default: not at all]
    #[arg(long, value_name = "DURATION")]
    grace: Option<Lifetime>,
    /// Print the token alone
    #[arg(short, long, conflicts_with = "json")]
    quiet: bool,
}

impl Apitoken {
    /// Does what was asked.
    pub(super) fn run(&self, site: &Site) -> Result {
        match &self.what {
            What::Create(create) => create.run(site),
            What::List(list) => list.run(site),
            What::Show { id } => show(site, *id),
            What::Revoke(revoke) => revoke.run(site),
            What::Rotate(rotate) => rotate.run(site),
        }
    }
}

impl Create {
    fn run(&self, site: &Site) -> Result {
        let Some(owner) = self.owner.clone() else {
            return Err(Failure::usage("the owner is missing")
                .hint("name one: patgate apitoken create --owner LOGIN (patgate admin user list shows them)"));
        };
        let open = site.open()?;
        let request = TokenRequest {
            name: self.flags.name.clone(),
            description: self.flags.description.clone(),
            lifetime: self.expiry_date.unwrap_or_default(),
            scopes: self.flags.scopes(),
            limits: self.flags.limits(),
            roles: self.flags.roles(),
            ..TokenRequest::new(owner)
        };
        let Issued { text, record } = open.issue(request)?;
        reveal(site, &text, &record, self.flags.quiet, "created")
    }
}

impl Rotate {
    fn run(&self, site: &Site) -> Result {
        let Rotated { text, record } = site.open()?.looking().rotate(&Authority::Administrator, self.id, self.grace)?;
        reveal(site, &text, &record, self.quiet, "rotated")
    }
}

/// Shows a token, once.
fn reveal(site: &Site, text: &TokenText, record: &TokenRecord, quiet: bool, done: &str) -> Result {
    let secret = text.reveal();
    if quiet {
        return output::say(&secret);
    }
    if site.json() {
        return output::json(&NewToken { token: &secret, record: Token::of(record) });
    }
    let (id, secret) = (record.id, secret.as_str());
    output::say(&format!("ApiToken with id: {id} has been {done}, your token is: {secret} please keep it safe"))
}

impl List {
    fn run(&self, site: &Site) -> Result {
        let tokens = site.open()?.looking();
        let mut query = TokenQuery { owner: self.owner.clone(), state: self.state, ..TokenQuery::default() };
        let mut shown = Vec::new();
        loop {
            let page = tokens.page(&Authority::Administrator, &query, PAGE)?;
            shown.extend(page.items.iter().map(Token::of));
            query.after = page.next;
            if query.after.is_none() {
                break;
            }
        }
        if site.json() {
            return output::json(&shown);
        }
        output::table(Token::HEADING, &shown.into_iter().map(Token::row).collect::<Vec<_>>())
    }
}

fn show(site: &Site, id: TokenId) -> Result {
    let record = site.open()?.looking().find(&Authority::Administrator, id)?;
    if site.json() {
        return output::json(&Token::of(&record));
    }
    let mut facts = Token::of(&record).facts();
    facts.push(("expires", token_view::expires(&record)));
    output::facts(&facts)
}

impl Revoke {
    fn run(&self, site: &Site) -> Result {
        let tokens = site.open()?.tokens;
        if let Some(owner) = &self.owner {
            let count = tokens.revoke_all(&Authority::Administrator, owner)?;
            if site.json() {
                return output::json(&json!({ "owner": owner, "revoked": count }));
            }
            return output::say(&format!("{count} tokens of {owner} have been revoked"));
        }
        tokens.revoke(&Authority::Administrator, &self.ids)?;
        if site.json() {
            return output::json(&json!({ "ids": self.ids, "revoked": self.ids.len() }));
        }
        self.ids.iter().try_for_each(|id| output::say(&format!("ApiToken with id: {id} has been revoked")))
    }
}
