//! Clients and the server process of `tests/gateway`, shared.

#![allow(dead_code)]

#[path = "../../gateway/support/dav.rs"]
pub(crate) mod dav;
#[path = "../../gateway/support/server.rs"]
pub(crate) mod server;
#[path = "../../gateway/support/sftp.rs"]
pub(crate) mod sftp;

use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

/// The name of a copy of the program, for an owner who may not be able to reach the program itself.
pub(crate) const PROGRAM_COPY: &str = "patgate";

/// The program under test, on a state directory, as the owner of the directory above it.
pub(crate) fn patgate_command(state: &Path) -> Command {
    let above = state.parent().expect("a directory");
    let owner = above.metadata().expect("metadata").uid();
    let copy = above.join(PROGRAM_COPY);
    let program = if copy.exists() { copy } else { env!("CARGO_BIN_EXE_patgate").into() };
    let mut command = Command::new(program);
    command.env_clear().env("PATGATE_STATE", state);
    if owner != rustix::process::geteuid().as_raw() {
        command.uid(owner).gid(owner);
    }
    command
}
