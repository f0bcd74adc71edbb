//! Types of the settings of the access log.

use std::path::{Path, PathBuf};

use super::values::{ConfigValueType, SettingValue, absolute_path};

/// Place that the access log is written to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum AccessLogSetting {
    /// Nowhere.
    #[default]
    Off,
    /// Standard error, among the lines of the log.
    Stderr,
    /// A file, by its absolute path.
    File(PathBuf),
}

impl AccessLogSetting {
    /// Returns the file; `None` where it is none.
    pub fn file(&self) -> Option<&Path> {
        match self {
            Self::File(path) => Some(path),
            Self::Off | Self::Stderr => None,
        }
    }
}

impl SettingValue for AccessLogSetting {
    const VALUE_TYPE: ConfigValueType = ConfigValueType::Text;
    const VALUE_NAME: &'static str = "FILE|stderr|off";

    fn parse_setting(text: &str) -> Result<Self, String> {
        match text {
            "off" => Ok(Self::Off),
            "stderr" => Ok(Self::Stderr),
            _ => absolute_path(text).map(Self::File),
        }
    }
}

/// Format of the lines of the access log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AccessLogFormatSetting {
    /// One JSON object a line.
    #[default]
    Json,
    /// The combined format of web servers.
    Combined,
}

impl SettingValue for AccessLogFormatSetting {
    const VALUE_TYPE: ConfigValueType = ConfigValueType::Text;
    const VALUE_NAME: &'static str = "json|combined";

    fn parse_setting(text: &str) -> Result<Self, String> {
        match text {
            "json" => Ok(Self::Json),
            "combined" => Ok(Self::Combined),
            _ => Err("give json or combined".to_owned()),
        }
    }
}

/// Operations that have a line in the access log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AccessLogOperationsSetting {
    /// All.
    #[default]
    All,
    /// Those that may change something, and refused logins.
    Writes,
}

impl SettingValue for AccessLogOperationsSetting {
    const VALUE_TYPE: ConfigValueType = ConfigValueType::Text;
    const VALUE_NAME: &'static str = "all|writes";

    fn parse_setting(text: &str) -> Result<Self, String> {
        match text {
            "all" => Ok(Self::All),
            "writes" => Ok(Self::Writes),
            _ => Err("give all or writes".to_owned()),
        }
    }
}
