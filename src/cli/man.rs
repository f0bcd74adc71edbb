//! `patgate man`: manual pages.

use std::path::PathBuf;

use clap::Args;

use super::{CommandError, Result};

/// Write manual pages into a directory
#[derive(Debug, Args)]
#[command(after_help = "Example:
  patgate man /usr/local/share/man/man1")]
pub(super) struct ManCommand {
    /// The directory; created if it is missing
    dir: PathBuf,
}

impl ManCommand {
    /// Writes one page for each command.
    pub(super) fn run(&self) -> Result {
        let result =
            std::fs::create_dir_all(&self.dir).and_then(|()| clap_mangen::generate_to(super::command(), &self.dir));
        result.map_err(|error| CommandError::new(format!("{} can't be written to: {error}", self.dir.display())))
    }
}
