//! Names and descriptions of tokens.

use std::fmt;
use std::str::FromStr;

use crate::domain::impl_text_json;

const MAX_LABEL_CHARS: usize = 200;

/// A name or description: up to 200 characters without control characters, so that it stays on one line of a listing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TokenLabel(String);

impl TokenLabel {
    /// Returns the text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for TokenLabel {
    type Err = LabelError;

    fn from_str(text: &str) -> Result<Self, LabelError> {
        // Of the text as it came: a line break at its end is one, too.
        if text.chars().any(char::is_control) {
            return Err(LabelError::ControlCharacter);
        }
        let text = text.trim();
        if text.chars().count() > MAX_LABEL_CHARS {
            return Err(LabelError::TooLong);
        }
        Ok(Self(text.to_owned()))
    }
}

impl fmt::Display for TokenLabel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl_text_json!(TokenLabel);

/// The reason why a text is not a valid name or description.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LabelError {
    /// The text has a line break or another control character.
    #[error("a name or description has no line breaks or control characters")]
    ControlCharacter,
    /// The text has more than 200 characters.
    #[error("a name or description has at most {MAX_LABEL_CHARS} characters")]
    TooLong,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_with_control_characters_are_refused() {
        assert_eq!("a\nb".parse::<TokenLabel>(), Err(LabelError::ControlCharacter));
        assert_eq!("\u{1b}[2J".parse::<TokenLabel>(), Err(LabelError::ControlCharacter));
        assert_eq!("x".repeat(201).parse::<TokenLabel>(), Err(LabelError::TooLong));
        assert_eq!(
            " backup of the café ".parse::<TokenLabel>().map(|l| l.to_string()),
            Ok("backup of the café".into())
        );
    }
}
