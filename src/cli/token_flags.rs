//! Options of the commands that create or edit tokens.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use clap::Args;

use super::CommandError;
use crate::domain::{
    ByteSize, FileTag, IpNet, Lifetime, MimePattern, Protocol, Role, Roles, ScopeTarget, SshPublicKey, TokenLimits,
    UserAgentPattern, parse_network,
};
use crate::tokens::{TokenLabel, TokenRequest};

/// Maximum number of bytes that are read of a key's file.
const MAX_KEY_FILE_BYTES: u64 = 64 * 1024;

/// Options of a new token.
#[derive(Clone, Debug, Args)]
pub(super) struct NewTokenFlags {
    #[command(flatten)]
    pub(super) restrictions: TokenRestrictionFlags,
    /// Name for people [default: OWNER_api_token]
    #[arg(long, value_name = "NAME")]
    name: Option<TokenLabel>,
    /// Description for people
    #[arg(long, value_name = "TEXT")]
    description: Option<TokenLabel>,
    /// File with the SSH public key that proves the token, in place of a secret (- is standard input); SFTP alone
    #[arg(long, value_name = "FILE")]
    ssh_key: Option<PathBuf>,
    /// Print only the token; with --ssh-key, only its id
    #[arg(short, long, conflicts_with = "json")]
    pub(super) quiet: bool,
}

/// Reads an SSH public key from a file, or from standard input (`-`).
///
/// # Errors
/// [`CommandError`] where that can't be read or holds no key that is accepted.
pub(super) fn read_ssh_key(path: &Path) -> Result<SshPublicKey, CommandError> {
    let mut text = String::new();
    let read = if path == Path::new("-") {
        io::stdin().lock().take(MAX_KEY_FILE_BYTES).read_to_string(&mut text)
    } else {
        File::open(path).and_then(|file| file.take(MAX_KEY_FILE_BYTES).read_to_string(&mut text))
    };
    let name = if path == Path::new("-") { "standard input".to_owned() } else { path.display().to_string() };
    read.map_err(|error| {
        CommandError::new(format!("{name} can't be read: {error}"))
            .with_hint("give the file of an SSH public key, such as ~/.ssh/id_ed25519.pub")
    })?;
    text.parse().map_err(|error| {
        CommandError::new(format!("{name}: {error}")).with_hint("ssh-keygen -t ed25519 creates a key and its .pub file")
    })
}

impl NewTokenFlags {
    /// Returns the request, without owner and expiration, whose options the commands name differently.
    ///
    /// # Errors
    /// As [`TokenRestrictionFlags::roles`] and [`read_ssh_key`].
    pub(super) fn token_request(&self) -> Result<TokenRequest, CommandError> {
        Ok(TokenRequest {
            name: self.name.clone(),
            description: self.description.clone(),
            ssh_key: self.ssh_key.as_deref().map(read_ssh_key).transpose()?,
            scopes: self.restrictions.scopes(),
            limits: self.restrictions.limits(),
            roles: self.restrictions.roles()?.unwrap_or_default(),
            ..TokenRequest::default()
        })
    }
}

/// Options that restrict a new or existing token.
#[derive(Clone, Debug, Args)]
pub(super) struct TokenRestrictionFlags {
    /// Restrict it to a node: node:UUID:PERM or path:/some/path:PERM, PERM is r, w or rw; repeatable
    #[arg(short, long = "scope", value_name = "SCOPE", value_delimiter = ',', value_parser = parse_item::<ScopeTarget>)]
    scopes: Vec<ScopeTarget>,
    /// Allow only this protocol: webdav, sftp or api; repeatable
    #[arg(long = "protocol", value_name = "PROTOCOL", value_delimiter = ',', value_parser = parse_item::<Protocol>)]
    protocols: Vec<Protocol>,
    /// Allow only clients from this address or network; repeatable
    #[arg(long = "ip", value_name = "CIDR", value_delimiter = ',', value_parser = parse_network_item)]
    ips: Vec<IpNet>,
    /// Allow only this user agent (HTTP User-Agent or SSH identification), * matches anything; repeatable, since it may
    /// hold commas
    #[arg(long = "user-agent", value_name = "TEXT", value_parser = parse_item::<UserAgentPattern>)]
    user_agents: Vec<UserAgentPattern>,
    /// Allow only uploads of this media type, such as image/png or image/*; repeatable
    #[arg(long = "mime", value_name = "TYPE", value_delimiter = ',', value_parser = parse_item::<MimePattern>)]
    mimes: Vec<MimePattern>,
    /// Allow only this tag on uploads; repeatable
    #[arg(long = "tag", value_name = "TAG", value_delimiter = ',', value_parser = parse_item::<FileTag>)]
    tags: Vec<FileTag>,
    /// Maximum size of a file that it writes, such as 10MiB
    #[arg(long, value_name = "SIZE")]
    max_file_size: Option<ByteSize>,
    /// Maximum size of all files together where it may write, such as 5GiB
    #[arg(long, value_name = "SIZE")]
    quota: Option<ByteSize>,
    /// Role in the REST API and the console, beyond its own tokens: one that its owner has, such as admin or
    /// audit.read, or none; repeatable
    #[arg(long = "role", value_name = "ROLE", value_delimiter = ',', value_parser = parse_role_or_none)]
    roles: Vec<RoleOrNone>,
}

impl TokenRestrictionFlags {
    /// Returns the scopes, if any were given.
    pub(super) fn scopes(&self) -> Option<Vec<ScopeTarget>> {
        (!self.scopes.is_empty()).then(|| self.scopes.clone())
    }

    /// Returns the roles, if any or `none` were given.
    ///
    /// # Errors
    /// [`CommandError`] for `none` together with a role.
    pub(super) fn roles(&self) -> Result<Option<Roles>, CommandError> {
        let roles: Roles = self.roles.iter().filter_map(|role| role.0).collect();
        // Silently preferring one of the two could give a token more than its creator meant.
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
            quota: self.quota,
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

/// Parses an item of a comma-separated list, with white space around it.
pub(super) fn parse_item<T: FromStr>(text: &str) -> Result<T, T::Err> {
    text.trim().parse()
}

/// Parses a network of a comma-separated list, with white space around it.
fn parse_network_item(text: &str) -> Result<IpNet, String> {
    parse_network(text.trim())
}

/// Parses a sliding window, where a bare number is seconds.
pub(super) fn parse_window(text: &str) -> Result<Lifetime, String> {
    Lifetime::parse_window(text).map_err(|error| error.to_string())
}
