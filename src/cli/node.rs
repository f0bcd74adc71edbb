//! `patgate node`: the stable names of files and folders.

use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt;

use clap::{Args, Subcommand};
use serde_json::json;

use super::site::Site;
use super::{Failure, Result, output};
use crate::domain::{NodeId, TreePath};
use crate::tree;

/// Look up and repair the stable names of files and folders
#[derive(Debug, Args)]
#[command(after_help = "Example:
  patgate node id /alice/backup")]
pub(super) struct Node {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Print the id of the node at a path; names it on first use
    #[command(after_help = "Example:\n  patgate node id /alice/backup")]
    Id {
        /// The path in the served folder
        path: OsString,
    },
    /// Show where a node is
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
    /// Look at every node again: finish what a stopped server left, drop ids that nothing needs
    #[command(after_help = "Example:\n  patgate node repair")]
    Repair,
}

impl Node {
    /// Does what was asked.
    pub(super) fn run(&self, site: &Site) -> Result {
        let tree = site.open()?.tree()?;
        match &self.what {
            What::Id { path } => {
                let path = tree_path(path)?;
                let node = tree.mint(&path).map_err(|error| refused(&path, &error))?;
                print(site, node, &path)
            }
            What::Show { node } => match tree.locate(*node)? {
                Some(path) if site.json() => print(site, *node, &path),
                Some(path) => output::say(&path.to_string()),
                None => Err(crate::tokens::Error::UnknownNode(*node).into()),
            },
            What::List { path } => {
                let path = path.as_ref().map(tree_path).transpose()?.unwrap_or_default();
                list(site, &tree.nodes(&path)?)
            }
            What::Repair => list(site, &tree.repair()?),
        }
    }
}

fn tree_path(text: &OsString) -> Result<TreePath> {
    TreePath::parse(text.as_bytes()).map_err(|error| {
        Failure::usage(format!("{}: {error}", text.display())).hint("give a path of the served folder, such as /alice")
    })
}

fn refused(path: &TreePath, error: &tree::Error) -> Failure {
    match error {
        tree::Error::Absent | tree::Error::NotFolder => Failure::new(format!("nothing is at {path}"))
            .hint("paths start at the served folder, / is the folder itself"),
        tree::Error::Unsupported => {
            Failure::new(format!("{path} is neither a file nor a folder")).hint("give the path that the link leads to")
        }
        other => Failure::new(other.to_string()),
    }
}

fn print(site: &Site, node: NodeId, path: &TreePath) -> Result {
    if site.json() {
        return output::json(&json!({ "node": node, "path": path.to_string() }));
    }
    output::say(&node.to_string())
}

fn list(site: &Site, nodes: &[tree::Named]) -> Result {
    if site.json() {
        let nodes = nodes
            .iter()
            .map(|node| json!({ "node": node.id, "path": node.path.to_string(), "dangling": node.dangling }));
        return output::json(&nodes.collect::<Vec<_>>());
    }
    let state = |dangling| if dangling { "dangling" } else { "there" }.to_owned();
    let rows: Vec<_> = nodes.iter().map(|n| [n.id.to_string(), state(n.dangling), n.path.to_string()]).collect();
    output::table(["NODE", "STATE", "PATH"], &rows)
}
