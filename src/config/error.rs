//! What is wrong with a configuration, and where that stands.

use std::fmt;
use std::path::PathBuf;

/// All that is wrong with a configuration, a line each.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct ConfigError(pub(super) Vec<Fault>);

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    pub(super) place: Place,
    pub(super) text: String,
}

/// Where a setting stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Place {
    Default,
    File(PathBuf),
    Line(PathBuf, usize),
    Named(String),
}

impl ConfigError {
    /// Tells whether the command line alone is at fault.
    pub fn is_misuse(&self) -> bool {
        self.0.iter().all(|fault| match &fault.place {
            Place::Default => true,
            Place::Named(name) => name.starts_with("--"),
            Place::File(_) | Place::Line(..) => false,
        })
    }

    /// Returns the faults, a line each.
    pub fn faults(&self) -> impl Iterator<Item = String> {
        self.0.iter().map(ToString::to_string)
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lines: Vec<_> = self.faults().collect();
        f.write_str(&lines.join("\n"))
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.place {
            Place::Default => f.write_str(&self.text),
            Place::File(file) => write!(f, "{}: {}", file.display(), self.text),
            Place::Line(file, line) => write!(f, "{}:{line}: {}", file.display(), self.text),
            Place::Named(name) => write!(f, "{name}: {}", self.text),
        }
    }
}
