//! Names and descriptions for people.

use std::fmt;
use std::str::FromStr;

const MAX: usize = 200;

/// A name or description: up to 200 characters on one line, so that no listing is torn by it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Label(String);

impl Label {
    /// Returns the text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Label {
    type Err = LabelError;

    fn from_str(text: &str) -> Result<Self, LabelError> {
        let text = text.trim();
        if text.chars().any(char::is_control) {
            return Err(LabelError::Control);
        }
        if text.chars().count() > MAX {
            return Err(LabelError::Long);
        }
        Ok(Self(text.to_owned()))
    }
}

impl fmt::Display for Label {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Why a text is no name or description.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LabelError {
    /// A line break or another control character.
    #[error("a name or description has no line breaks or control characters")]
    Control,
    /// More than 200 characters.
    #[error("a name or description has at most {MAX} characters")]
    Long,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_would_tear_a_listing_is_refused() {
        assert_eq!("a\nb".parse::<Label>(), Err(LabelError::Control));
        assert_eq!("\u{1b}[2J".parse::<Label>(), Err(LabelError::Control));
        assert_eq!("x".repeat(201).parse::<Label>(), Err(LabelError::Long));
        assert_eq!(" backup of the café ".parse::<Label>().map(|l| l.to_string()), Ok("backup of the café".into()));
    }
}
