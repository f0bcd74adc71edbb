//! Permissions: read, write, or both.

use std::fmt;
use std::ops::{BitAnd, BitOr};
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A permission on a node: `r` (list, read), `w` (create, change, delete), both, or, as the result of an intersection,
/// none.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Permission(u8);

impl Permission {
    /// No permission; only the result of an intersection.
    pub const NONE: Permission = Permission(0);
    /// List and read.
    pub const R: Permission = Permission(1);
    /// Create, change and delete.
    pub const W: Permission = Permission(2);
    /// Both.
    pub const RW: Permission = Permission(3);

    /// Tells whether this includes all of `needed`.
    pub fn allows(self, needed: Permission) -> bool {
        self & needed == needed
    }

    /// Returns the permission; `None` where it allows nothing.
    pub fn non_empty(self) -> Option<Permission> {
        (self != Self::NONE).then_some(self)
    }

    /// Returns the stored form, 1 to 3 (and 0 for none).
    pub fn bits(self) -> u8 {
        self.0
    }

    /// Parses the stored form.
    pub fn from_bits(bits: u8) -> Option<Self> {
        (bits <= 3).then_some(Self(bits))
    }
}

impl BitAnd for Permission {
    type Output = Permission;
    fn bitand(self, other: Permission) -> Permission {
        Permission(self.0 & other.0)
    }
}

impl BitOr for Permission {
    type Output = Permission;
    fn bitor(self, other: Permission) -> Permission {
        Permission(self.0 | other.0)
    }
}

impl fmt::Display for Permission {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(["none", "r", "w", "rw"][usize::from(self.0 & 3)])
    }
}

impl fmt::Debug for Permission {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Permission {
    type Err = String;

    /// Parses the letters in any order.
    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "r" => Ok(Self::R),
            "w" => Ok(Self::W),
            "rw" | "wr" => Ok(Self::RW),
            _ => Err(format!("the permission {text:?} is unknown: give r, w or rw")),
        }
    }
}

impl Serialize for Permission {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Permission {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn permission_letters_parse_in_any_order() {
        for (text, permission) in [("r", "r"), ("w", "w"), ("rw", "rw"), ("wr", "rw")] {
            assert_eq!(text.parse::<Permission>().map(|read| read.to_string()), Ok(permission.to_owned()), "{text:?}");
        }
        for text in ["", " ", "rr", "r w", "rwx", "R", "none", " r", "r\n"] {
            assert!(text.parse::<Permission>().is_err(), "{text:?}");
        }
    }
}
