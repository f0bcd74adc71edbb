//! The flags that both commands which make tokens take.

use clap::Args;

use super::CommandError;
use crate::domain::{
    ByteSize, FileTag, IpNet, Lifetime, MimePattern, Protocol, Role, Roles, ScopeTarget, TokenLimits, UserAgentPattern,
    parse_network,
};
use crate::tokens::{RequestedLifetime, TokenLabel};

/// What names a new token and narrows it.
#[derive(Clone, Debug, Args)]
pub(super) struct NewTokenFlags {
    #[command(flatten)]
    pub(super) restrictions: TokenRestrictionFlags,
    /// A name for people [default: OWNER_api_token]
    #[arg(long, value_name = "NAME")]
    pub(super) name: Option<TokenLabel>,
    /// A description for people
    #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
    pub(super) description: TokenLabel,
    /// Print the token alone
    #[arg(short, long, conflicts_with = "json")]
    pub(super) quiet: bool,
}

/// What narrows a token, a new one or one that is there.
#[derive(Clone, Debug, Args)]
pub(super) struct TokenRestrictionFlags {
    /// Narrow it to a node: node:UUID:PERM or path:/some/path:PERM, PERM is r, w or rw; repeatable
    #[arg(short, long = "scope", value_name = "SCOPE", value_delimiter = ',')]
    scopes: Vec<ScopeTarget>,
    /// Allow only this door: webdav, sftp or api; repeatable
    #[arg(long = "protocol", value_name = "PROTOCOL", value_delimiter = ',')]
    protocols: Vec<Protocol>,
    /// Allow only callers from this address or network; repeatable
    #[arg(long = "ip", value_name = "CIDR", value_delimiter = ',', value_parser = parse_network)]
    ips: Vec<IpNet>,
    /// Allow only this program (HTTP User-Agent or SSH identification), * stands for anything; repeatable, since it may hold commas
    #[arg(long = "user-agent", value_name = "TEXT", value_parser = parse_user_agent)]
    user_agents: Vec<UserAgentPattern>,
    /// Allow only uploads of this media type, such as image/png or image/*; repeatable
    #[arg(long = "mime", value_name = "TYPE", value_delimiter = ',')]
    mimes: Vec<MimePattern>,
    /// Allow only this tag on uploads; repeatable
    #[arg(long = "tag", value_name = "TAG", value_delimiter = ',')]
    tags: Vec<FileTag>,
    /// The largest file it may write, such as 10MiB
    #[arg(long, value_name = "SIZE")]
    max_file_size: Option<ByteSize>,
    /// What it may do through the REST API and in the console beyond its own tokens: one of the roles that its
    /// owner has, such as admin or audit.read, or none; repeatable
    #[arg(long = "role", value_name = "ROLE", value_delimiter = ',', value_parser = parse_role_or_none)]
    roles: Vec<RoleOrNone>,
}

impl TokenRestrictionFlags {
    /// Returns the scopes, where any were given.
    pub(super) fn scopes(&self) -> Option<Vec<ScopeTarget>> {
        (!self.scopes.is_empty()).then(|| self.scopes.clone())
    }

    /// Returns the roles, where any or none were asked for.
    ///
    /// # Errors
    /// [`CommandError`] for `none` beside a role.
    pub(super) fn roles(&self) -> Result<Option<Roles>, CommandError> {
        let roles: Roles = self.roles.iter().filter_map(|role| role.0).collect();
        if !roles.is_empty() && self.roles.contains(&RoleOrNone(None)) {
            return Err(CommandError::usage(format!("--role none and --role {roles} contradict each other"))
                .with_hint("give roles, or none alone"));
        }
        Ok((!self.roles.is_empty()).then_some(roles))
    }

    /// Returns the limits.
    pub(super) fn limits(&self) -> TokenLimits {
        TokenLimits {
            protocols: self.protocols.clone(),
            ips: self.ips.clone(),
            user_agents: self.user_agents.clone(),
            mimes: self.mimes.clone(),
            tags: self.tags.clone(),
            max_file_size: self.max_file_size,
        }
    }
}

/// A role, or the word `none`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct RoleOrNone(Option<Role>);

fn parse_role_or_none(text: &str) -> Result<RoleOrNone, String> {
    match text.trim() {
        "none" => Ok(RoleOrNone(None)),
        role => role.parse().map(|role| RoleOrNone(Some(role))),
    }
}

/// Reads a user agent; an empty one would allow nobody.
fn parse_user_agent(text: &str) -> Result<UserAgentPattern, String> {
    match text.trim() {
        "" => Err("leave it out to allow every program".to_owned()),
        text if text.chars().count() > 256 => Err("a user agent has 256 characters at most".to_owned()),
        text => Ok(UserAgentPattern::new(text)),
    }
}

/// Reads how long a token is to live: a duration, `never` or `default`.
pub(super) fn parse_lifetime(text: &str) -> Result<RequestedLifetime, String> {
    match text {
        "never" => Ok(RequestedLifetime::Never),
        "default" => Ok(RequestedLifetime::Default),
        _ => text.parse::<Lifetime>().map(RequestedLifetime::For).map_err(|error| error.to_string()),
    }
}

/// Reads a sliding window, in which a bare number is seconds.
pub(super) fn parse_window(text: &str) -> Result<Lifetime, String> {
    Lifetime::parse_window(text).map_err(|error| error.to_string())
}
