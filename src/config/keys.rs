//! What is known of one setting beside its value: names, default, description.

use super::values::ConfigValueType;

/// One setting.
#[derive(Debug)]
pub struct ConfigKey {
    /// Its name in the file and in `--set`; upper-cased behind `PATGATE_` it is the environment variable.
    pub name: &'static str,
    /// How it is written in the file.
    pub value_type: ConfigValueType,
    /// Placeholder for its value in the help.
    pub value_name: &'static str,
    /// Its default, or what the example file shows where there is none.
    pub initial: InitialValue,
    /// Whether a running server takes a new value when it is sent SIGHUP.
    pub is_reloadable: bool,
    /// Its documentation, one sentence or more, with blanks around it.
    pub(super) documentation: &'static str,
    /// Checks a value as it is written in the environment and in flags.
    pub(super) check: fn(&str) -> Result<(), String>,
}

/// Value of a setting that is given nowhere, or one that shows what could be given; as it would be typed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InitialValue {
    /// This value holds.
    Default(&'static str),
    /// No value holds. The example file shows this one, behind a comment sign.
    Example(&'static str),
    /// No value holds, and the server does not start. The example file shows this one.
    Mandatory(&'static str),
}

impl ConfigKey {
    /// Returns its documentation.
    pub fn description(&self) -> &'static str {
        self.documentation.trim()
    }

    /// Returns the default, as it would be typed; none where no value holds.
    pub fn default(&self) -> Option<&'static str> {
        match self.initial {
            InitialValue::Default(text) => Some(text),
            InitialValue::Example(_) | InitialValue::Mandatory(_) => None,
        }
    }

    /// Returns its flag, without the hyphens in front.
    pub fn flag(&self) -> String {
        self.name.replace('_', "-")
    }

    /// Returns the name of its environment variable.
    pub fn environment_variable(&self) -> String {
        format!("PATGATE_{}", self.name.to_ascii_uppercase())
    }
}
