//! What is wrong with a configuration, and where that stands.

use std::fmt;
use std::path::PathBuf;

/// All that is wrong with a configuration, a line each.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct ConfigError(pub(super) Vec<InvalidSetting>);

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InvalidSetting {
    pub(super) location: SettingLocation,
    pub(super) message: String,
}

/// Where a setting stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum SettingLocation {
    BuiltIn,
    File(PathBuf),
    FileLine(PathBuf, usize),
    FlagOrVariable(String),
}

impl ConfigError {
    /// Returns the fault of a configuration that names no directory to serve.
    pub(super) fn missing_root() -> Self {
        Self(vec![InvalidSetting {
            location: SettingLocation::BuiltIn,
            message: "root is missing: name the directory to serve".to_owned(),
        }])
    }

    /// Tells whether the command line alone is at fault.
    pub fn is_command_line_only(&self) -> bool {
        self.0.iter().all(|fault| match &fault.location {
            SettingLocation::BuiltIn => true,
            SettingLocation::FlagOrVariable(name) => name.starts_with("--"),
            SettingLocation::File(_) | SettingLocation::FileLine(..) => false,
        })
    }

    /// Returns the faults, a line each.
    pub fn messages(&self) -> impl Iterator<Item = String> {
        self.0.iter().map(ToString::to_string)
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lines: Vec<_> = self.messages().collect();
        f.write_str(&lines.join("\n"))
    }
}

impl fmt::Display for InvalidSetting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.location {
            SettingLocation::BuiltIn => f.write_str(&self.message),
            SettingLocation::File(file) => write!(f, "{}: {}", file.display(), self.message),
            SettingLocation::FileLine(file, line) => write!(f, "{}:{line}: {}", file.display(), self.message),
            SettingLocation::FlagOrVariable(name) => write!(f, "{name}: {}", self.message),
        }
    }
}
