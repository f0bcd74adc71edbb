//! Roles of another service, which are stored with a token for that service and grant nothing here.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Maximum number of foreign roles on one token.
const MAX_FOREIGN_ROLES_PER_TOKEN: usize = 64;

/// Maximum number of characters in the name of a foreign role.
const MAX_FOREIGN_ROLE_BYTES: usize = 64;

/// The name of another service's role: words of `a-z 0-9 _ -`, joined by full stops (`upload.images`).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(transparent)]
pub struct ForeignRole(Box<str>);

impl ForeignRole {
    /// Returns the name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for ForeignRole {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let is_word = |word: &str| {
            !word.is_empty() && word.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"_-".contains(&b))
        };
        // A name without a full stop is a mistyped role of ours sooner than another service's.
        let is_valid = text.len() <= MAX_FOREIGN_ROLE_BYTES && text.contains('.') && text.split('.').all(is_word);
        match is_valid {
            true => Ok(Self(text.into())),
            false => Err(format!("the role {text:?} is unknown, and not named as another service's: upload.images")),
        }
    }
}

impl fmt::Display for ForeignRole {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for ForeignRole {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

/// The foreign roles of one token.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ForeignRoles(BTreeSet<ForeignRole>);

impl ForeignRoles {
    /// Collects the foreign roles of a token.
    ///
    /// # Errors
    /// A message with the maximum number where there are more.
    pub fn new(roles: impl IntoIterator<Item = ForeignRole>) -> Result<Self, String> {
        let roles: BTreeSet<_> = roles.into_iter().take(MAX_FOREIGN_ROLES_PER_TOKEN + 1).collect();
        match roles.len() <= MAX_FOREIGN_ROLES_PER_TOKEN {
            true => Ok(Self(roles)),
            false => Err(format!("a token has {MAX_FOREIGN_ROLES_PER_TOKEN} roles of another service at most")),
        }
    }

    /// Tells whether there are no roles.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns the roles in the order of their names.
    pub fn iter(&self) -> impl Iterator<Item = &ForeignRole> {
        self.0.iter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn foreign_role_name_requires_full_stop() {
        for text in ["upload.images", "collections.create_new", "view.can_use_listing_endpoint_at_all", "a.b-c.1"] {
            assert!(text.parse::<ForeignRole>().is_ok(), "{text}");
        }
        for text in
            ["", "admin", "audit", ".a", "a.", "a..b", "A.b", "a b.c", "a.b\n", &format!("a.{}", "b".repeat(64))]
        {
            assert!(text.parse::<ForeignRole>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn number_of_foreign_roles_is_bounded() {
        let role = |n: usize| format!("upload.kind_{n}").parse::<ForeignRole>().expect("a role");
        assert!(ForeignRoles::new((0..MAX_FOREIGN_ROLES_PER_TOKEN).map(role)).is_ok());
        assert!(ForeignRoles::new((0..=MAX_FOREIGN_ROLES_PER_TOKEN).map(role)).is_err());
    }
}
