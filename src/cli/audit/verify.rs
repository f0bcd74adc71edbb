//! `patgate audit verify`: verifies the hash chain of the audit trail, or of an exported file.

use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::path::{Path, PathBuf};

use clap::Args;
use serde_json::json;

use super::super::context::CommandContext;
use super::super::{CommandError, Result, output};
use crate::store::{ChainHead, ChainItem, ChainReport, ChainVerifier};

/// Number of rows that are read at once.
const ROWS_PER_READ: usize = 500;

/// Verify that no row of the audit trail was changed, removed or reordered
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  patgate audit verify
  patgate audit verify --head 1280:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08
  patgate audit verify trail.jsonl

Prints the head: number and hash of the last row. Note it elsewhere: --head checks later that this row is still there, or
was removed by retention. FILE is what patgate audit --export has printed; - is standard input.")]
pub(super) struct VerifyCommand {
    /// An exported trail in place of the stored one
    #[arg(value_name = "FILE")]
    file: Option<PathBuf>,
    /// A head that was noted before; repeatable
    #[arg(long, value_name = "NUMBER:HASH")]
    head: Vec<ChainHead>,
}

impl VerifyCommand {
    /// Verifies and prints the result; fails where the chain is broken.
    pub(super) fn run(&self, context: &CommandContext) -> Result {
        let report = match &self.file {
            Some(file) => self.verify_file(file)?,
            None => self.verify_store(context)?,
        };
        print_report(context, &report)?;
        let Some(fault) = report.faults.first() else { return Ok(()) };
        Err(CommandError::new(format!("the audit trail was tampered with: {}", fault.text)).with_hint(
            "compare it with an export or a forwarded copy of before; docs/audit.md says what a fault means",
        ))
    }

    fn verify_store(&self, context: &CommandContext) -> Result<ChainReport> {
        let backend = context.backend()?;
        let mut verifier = ChainVerifier::new(self.head.clone());
        let mut after = 0;
        loop {
            let page = backend.audit_chain(after, ROWS_PER_READ)?;
            page.items.iter().for_each(|item| verifier.add(item));
            let Some(last) = page.items.last() else { return Ok(verifier.finish(page.last_number)) };
            after = last.number();
        }
    }

    fn verify_file(&self, file: &Path) -> Result<ChainReport> {
        let unreadable = |error: io::Error| CommandError::new(format!("{} can't be read: {error}", file.display()));
        let reader: Box<dyn BufRead> = if file == Path::new("-") {
            Box::new(io::stdin().lock())
        } else {
            Box::new(BufReader::new(File::open(file).map_err(unreadable)?))
        };
        let mut verifier = ChainVerifier::new(self.head.clone());
        let mut last_number = 0;
        for (line_number, line) in (1..).zip(reader.lines()) {
            let line = line.map_err(unreadable)?;
            match serde_json::from_str::<ChainItem>(&line) {
                Ok(item) => {
                    last_number = item.number();
                    verifier.add(&item);
                }
                Err(_) => verifier.add_fault(last_number, format!("line {line_number} of the file is not a row")),
            }
        }
        Ok(verifier.finish(None))
    }
}

fn print_report(context: &CommandContext, report: &ChainReport) -> Result {
    let verdict = if report.is_intact() { "ok" } else { "fail" };
    if context.prints_json() {
        return output::print_json(&json!({
            "verdict": verdict, "rows": report.rows, "removed": report.removed, "head": report.head,
            "faults": report.faults, "further_faults": report.further_faults,
        }));
    }
    for fault in &report.faults {
        output::print_line(&fault.text)?;
    }
    if report.further_faults > 0 {
        output::print_line(&format!("and {} further faults", report.further_faults))?;
    }
    output::print_fields(&[
        ("verdict", verdict.to_owned()),
        ("rows", report.rows.to_string()),
        ("removed by retention", report.removed.to_string()),
        ("head", report.head.to_string()),
    ])
}
