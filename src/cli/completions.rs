//! `patgate completions`: completion scripts for shells.

use clap::Args;
use clap_complete::Shell;

use super::{Result, output};

/// Print the completion script for a shell
#[derive(Debug, Args)]
#[command(after_help = "Example:
  patgate completions bash > /etc/bash_completion.d/patgate")]
pub(super) struct CompletionsCommand {
    /// The shell
    shell: Shell,
}

impl CompletionsCommand {
    /// Prints the script.
    pub(super) fn run(&self) -> Result {
        let mut text = Vec::new();
        clap_complete::generate(self.shell, &mut super::command(), "patgate", &mut text);
        output::print_line(String::from_utf8_lossy(&text).trim_end())
    }
}
