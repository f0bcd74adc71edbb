//! `patgate explain`: explains whether a token may carry out an operation.

use std::net::IpAddr;

use clap::Args;

use super::context::CommandContext;
use super::token_flags::parse_item;
use super::{CommandError, Result, output};
use crate::domain::{AccessQuery, ByteSize, FileTag, Protocol, TokenId, TreeOperation, TreePath};

/// Tell whether a token may carry out an operation, and which grant, scope, limit or expiration decides
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  patgate explain --token JhxND7ci write /alice/notes.txt
  patgate explain --token JhxND7ci move /alice/a --to /team/a --json
  patgate explain --token JhxND7ci create /alice/x.iso --size 5GiB --protocol sftp --ip 192.0.2.7")]
pub(super) struct ExplainCommand {
    /// The token's id
    #[arg(long, value_name = "ID")]
    token: TokenId,
    /// stat, list, read, copy, write, create, delete, move or link
    #[arg(value_name = "OP")]
    operation: TreeOperation,
    /// The path, from the root of the served tree
    #[arg(value_parser = parse_path)]
    path: TreePath,
    /// The target path, for copy, move and link
    #[arg(long, value_name = "PATH", value_parser = parse_path)]
    to: Option<TreePath>,
    /// Over this protocol: webdav, sftp or api
    #[arg(long)]
    protocol: Option<Protocol>,
    /// From this client address
    #[arg(long, value_name = "ADDRESS")]
    ip: Option<IpAddr>,
    /// With this user agent
    #[arg(long, value_name = "TEXT")]
    user_agent: Option<String>,
    /// A file of this size
    #[arg(long)]
    size: Option<ByteSize>,
    /// Of this media type
    #[arg(long, value_name = "TYPE")]
    mime: Option<String>,
    /// With this tag; repeatable
    #[arg(long = "tag", value_name = "TAG", value_delimiter = ',', value_parser = parse_item::<FileTag>)]
    tags: Vec<FileTag>,
}

impl ExplainCommand {
    /// Prints the explanation.
    pub(super) fn run(&self, context: &CommandContext) -> Result {
        let Self { operation, path, to, protocol, ip, user_agent, size, mime, tags, .. } = self;
        let query = AccessQuery {
            operation: *operation,
            path: path.clone(),
            target: None,
            protocol: *protocol,
            address: *ip,
            user_agent: user_agent.clone(),
            size: *size,
            mime: mime.clone(),
            tags: tags.clone(),
        };
        // Checked here as well as by the server, so that misuse has exit code 2 with both backends.
        let query = query.with_target(to.clone()).map_err(|error| {
            CommandError::usage(error.to_string())
                .with_hint("for example: patgate explain --token ID move /from --to /where")
        })?;
        let explanation = context.backend()?.explain(self.token, &query)?;
        if context.prints_json() { output::print_json(&explanation) } else { output::print_line(&explanation.sentence) }
    }
}

fn parse_path(text: &str) -> std::result::Result<TreePath, String> {
    TreePath::parse(text.as_bytes()).map_err(|why| format!("{text:?}: {why}"))
}
