//! The example file, `examples/patgate.toml`, from the settings' declarations.

use super::keys::{ConfigKey, InitialValue};
use super::settings::CONFIG_KEYS;
use super::values::ConfigValueType;

const EXAMPLE_FILE_HEADER: &str = "\
# Every setting of patgate with its default. Each can also be given in the environment (PATGATE_HTTP)
# and as a flag of `patgate serve` (--http, or --set http=ADDR:PORT); flags win over the environment,
# which wins over this file. Relative paths are taken from the working directory.
#
#     patgate serve --config patgate.toml
#
# SIGHUP makes a running server read this file again; settings without \"Reloaded on SIGHUP\" need a
# restart. A file that can't be used is refused as a whole, with the reason in the log.
";

/// Maximum number of characters in a line of the example file, without the comment sign.
const EXAMPLE_LINE_CHARS: usize = 98;

/// Writes the example file: every setting with its documentation and default.
pub fn example_file() -> String {
    let mut text = String::from(EXAMPLE_FILE_HEADER);
    for key in CONFIG_KEYS {
        text.push('\n');
        for line in wrap_text(key.description()) {
            text.push_str("# ");
            text.push_str(&line);
            text.push('\n');
        }
        if key.is_reloadable {
            text.push_str("# Reloaded on SIGHUP.\n");
        }
        text.push_str(&example_line(key));
        text.push('\n');
    }
    text
}

/// Returns the line that sets a key in the example file; a comment where the server starts without it.
pub(super) fn example_line(key: &ConfigKey) -> String {
    let (comment, text) = match key.initial {
        InitialValue::Default(text) | InitialValue::Mandatory(text) => ("", text),
        InitialValue::Example(text) => ("# ", text),
    };
    let value = match key.value_type {
        ConfigValueType::Text => format!("{text:?}"),
        ConfigValueType::Number | ConfigValueType::Boolean => text.to_owned(),
        ConfigValueType::List => {
            let items: Vec<_> = text.split(',').filter(|t| !t.is_empty()).map(list_item).collect();
            format!("[{}]", items.join(", "))
        }
    };
    format!("{comment}{} = {value}", key.name)
}

/// Returns an item of a list: a number as it is, anything else in quotation marks.
fn list_item(text: &str) -> String {
    if text.bytes().all(|b| b.is_ascii_digit()) { text.to_owned() } else { format!("{text:?}") }
}

/// Breaks a text into lines.
fn wrap_text(text: &str) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in text.split_whitespace() {
        match lines.last_mut() {
            Some(line) if line.len() + word.len() < EXAMPLE_LINE_CHARS => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.to_owned()),
        }
    }
    lines
}
