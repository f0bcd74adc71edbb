//! `patgate audit --export`: prints the audit trail with its hash chain, one JSON object a line.

use super::super::backend::ManagementBackend;
use super::super::{CommandError, Result, output};

/// Number of rows that are read at once.
const ROWS_PER_READ: usize = 500;

/// Prints all rows, the oldest first, with the runs that retention removed.
pub(super) fn print_chain(backend: &dyn ManagementBackend) -> Result {
    let mut after = 0;
    loop {
        let page = backend.audit_chain(after, ROWS_PER_READ)?;
        let lines = page.items.iter().map(serde_json::to_string).collect::<std::result::Result<Vec<_>, _>>();
        let lines = lines.map_err(|error| CommandError::new(error.to_string()))?;
        let Some(last) = page.items.last() else { return Ok(()) };
        output::print_line(&lines.join("\n"))?;
        after = last.number();
    }
}
