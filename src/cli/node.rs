//! `patgate node`: the stable ids of files and directories.

use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use clap::{Args, Subcommand};
use serde_json::json;

use super::context::CommandContext;
use super::{CommandError, Result, output};
use crate::api::types;
use crate::domain::{NodeId, TreePath};
use crate::tree::{NodeMatch, NodeReattachment};

/// Look up and repair the stable ids of files and folders
#[derive(Debug, Args)]
#[command(after_help = "Example:
  patgate node id /alice/backup")]
pub(super) struct NodeCommand {
    #[command(subcommand)]
    subcommand: NodeSubcommand,
}

#[derive(Debug, Subcommand)]
enum NodeSubcommand {
    /// Print the id of the node at a path; assigns one on first use
    #[command(after_help = "Example:\n  patgate node id /alice/backup")]
    Id {
        /// The path in the served folder
        path: OsString,
    },
    /// Show the path of a node
    #[command(after_help = "Example:\n  patgate node show 6f1c2c5e-8a55-4f0e-9d3c-0f4b6a2f7a11")]
    Show {
        /// The node's id
        #[arg(value_name = "UUID")]
        node: NodeId,
    },
    /// List the nodes that have an id
    #[command(after_help = "Examples:\n  patgate node list\n  patgate node list /alice --json")]
    List {
        /// Only this path and below
        path: Option<OsString>,
    },
    /// Check every node: complete or undo interrupted changes, drop ids that nothing refers to
    #[command(after_help = "Example:\n  patgate node repair")]
    Repair,
    /// Bind nodes to the entries that are at their paths now, after a restore or a move of the tree
    #[command(after_help = "Examples:
  patgate node reattach
  patgate node reattach --yes
  patgate node reattach --root /srv/restored --yes

Without --yes it only lists what is at the path of each node: the same file or folder, another one, or nothing of its
kind (missing). The server must not run.")]
    Reattach {
        /// The folder, if it is not the one that was served last
        #[arg(long, value_name = "DIR")]
        root: Option<PathBuf>,
        /// Carry it out
        #[arg(long)]
        yes: bool,
    },
}

impl NodeCommand {
    /// Runs the subcommand.
    pub(super) fn run(&self, context: &CommandContext) -> Result {
        match &self.subcommand {
            NodeSubcommand::Id { path } => print_node(context, &context.backend()?.node_at(&tree_path(path)?)?),
            NodeSubcommand::Show { node } => {
                let node = context.backend()?.node(*node)?;
                if context.prints_json() { print_node(context, &node) } else { output::print_line(&node.path) }
            }
            NodeSubcommand::List { path } => {
                let path = path.as_ref().map(tree_path).transpose()?.unwrap_or_default();
                let mut nodes = context.backend()?.list_nodes(&path)?;
                // The REST API lists by id, the local backend by path: output must be the same with both.
                nodes.sort_by(|one, other| one.path.cmp(&other.path));
                print_nodes(context, &nodes)
            }
            NodeSubcommand::Repair => {
                context.require_local("repairing")?;
                let repaired = context.open_state()?.tree()?.repair()?;
                print_nodes(context, &repaired.iter().map(types::NodeResponse::from_named_node).collect::<Vec<_>>())
            }
            NodeSubcommand::Reattach { root, yes } => {
                context.require_local("reattaching")?;
                print_reattachments(context, &context.open_state()?.reattach(root.clone(), *yes)?)
            }
        }
    }
}

fn tree_path(text: &OsString) -> Result<TreePath> {
    TreePath::parse(text.as_bytes()).map_err(|error| {
        CommandError::usage(format!("{}: {error}", text.display()))
            .with_hint("give a path of the served folder, such as /alice")
    })
}

fn print_node(context: &CommandContext, node: &types::NodeResponse) -> Result {
    if context.prints_json() {
        return output::print_json(&json!({ "node": node.node, "path": node.path }));
    }
    output::print_line(&node.node.to_string())
}

fn print_reattachments(context: &CommandContext, nodes: &[NodeReattachment]) -> Result {
    let state = |node: &NodeReattachment| match node.node_match {
        NodeMatch::Same => "same",
        NodeMatch::Different => "another",
        NodeMatch::Missing => "missing",
    };
    if context.prints_json() {
        let row =
            |node: &NodeReattachment| json!({ "node": node.id, "state": state(node), "path": node.path.to_string() });
        return output::print_json(&nodes.iter().map(row).collect::<Vec<_>>());
    }
    let rows: Vec<_> = nodes.iter().map(|n| [n.id.to_string(), state(n).to_owned(), n.path.to_string()]).collect();
    output::print_table(["NODE", "STATE", "PATH"], &rows)
}

fn print_nodes(context: &CommandContext, nodes: &[types::NodeResponse]) -> Result {
    if context.prints_json() {
        return output::print_json(&nodes);
    }
    let state = |dangling| if dangling { "dangling" } else { "there" }.to_owned();
    let rows: Vec<_> = nodes.iter().map(|n| [n.node.to_string(), state(n.dangling), n.path.clone()]).collect();
    output::print_table(["NODE", "STATE", "PATH"], &rows)
}
