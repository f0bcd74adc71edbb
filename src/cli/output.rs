//! Output of commands: aligned columns, or JSON.

use std::io::{self, Write};

use serde::Serialize;

use super::{CommandError, Result};

/// Prints a text and a line break on stdout. A closed pipe is no error.
pub(super) fn print_line(text: &str) -> Result {
    let mut stdout = io::stdout().lock();
    let result = stdout.write_all(text.as_bytes()).and_then(|()| stdout.write_all(b"\n")).and_then(|()| stdout.flush());
    match result {
        // `patgate audit | head` closes the pipe early, and must not fail for it.
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(error.into()),
        _ => Ok(()),
    }
}

/// Prints a value as JSON.
pub(super) fn print_json(value: &impl Serialize) -> Result {
    let text = serde_json::to_string_pretty(value).map_err(|error| CommandError::new(error.to_string()))?;
    print_line(&text)
}

/// Prints rows in aligned columns below a heading.
pub(super) fn print_table<const N: usize>(heading: [&str; N], rows: &[[String; N]]) -> Result {
    let heading = heading.map(str::to_owned);
    let all_rows = || std::iter::once(&heading).chain(rows);
    let width = |column: usize| all_rows().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: [usize; N] = std::array::from_fn(width);
    let lines = all_rows().map(|row| {
        let cells = row.iter().zip(widths).map(|(cell, width)| format!("{cell:width$}"));
        cells.collect::<Vec<_>>().join("  ").trim_end().to_owned()
    });
    print_line(&lines.collect::<Vec<_>>().join("\n"))
}

/// Prints names and values, one per line, with aligned values.
pub(super) fn print_fields(fields: &[(&str, String)]) -> Result {
    let width = fields.iter().map(|(name, _)| name.len()).max().unwrap_or(0) + 1;
    let lines =
        fields.iter().map(|(name, value)| format!("{:width$} {value}", format!("{name}:")).trim_end().to_owned());
    print_line(&lines.collect::<Vec<_>>().join("\n"))
}

/// Quotes a word for a shell.
pub(super) fn shell_quote(text: &str) -> String {
    let is_safe = |b: u8| b.is_ascii_alphanumeric() || b"/._-+,@%:".contains(&b);
    if !text.is_empty() && text.bytes().all(is_safe) {
        text.to_owned()
    } else {
        format!("'{}'", text.replace('\'', "'\\''"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shell_metacharacters_are_quoted() {
        assert_eq!(shell_quote("/srv/files.patgate"), "/srv/files.patgate");
        assert_eq!(shell_quote("/a b/it's"), "'/a b/it'\\''s'");
        assert_eq!(shell_quote(""), "''");
    }
}
