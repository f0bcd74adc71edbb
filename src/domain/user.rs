//! Logins and roles.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::EntryName;

/// The name that a user logs in with: 1 to 64 characters of `a-z A-Z 0-9 . _ - @ +`, not starting with
/// a full stop or hyphen. It is also the name of the user's home directory.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(transparent)]
pub struct Login(Box<str>);

impl Login {
    /// Returns the login as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Returns the name of the user's home directory at the root of the tree; `None` where it can't be the name of one.
    pub fn home_name(&self) -> Option<EntryName> {
        EntryName::new(self.0.as_bytes()).ok()
    }
}

impl fmt::Display for Login {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for Login {
    type Err = LoginError;

    fn from_str(text: &str) -> Result<Self, LoginError> {
        let is_allowed = |b: u8| b.is_ascii_alphanumeric() || b"._-@+".contains(&b);
        let has_valid_start = text.bytes().next().is_some_and(|b| b != b'.' && b != b'-');
        if has_valid_start && text.len() <= 64 && text.bytes().all(is_allowed) {
            Ok(Self(text.into()))
        } else {
            Err(LoginError(text.chars().take(80).collect()))
        }
    }
}

impl<'de> Deserialize<'de> for Login {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

/// A text that is not a login.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a login: give 1 to 64 letters, digits or . _ - @ + that don't start with . or -")]
pub struct LoginError(String);

/// A right of a token to act, through the REST API and the console, beyond its owner's own tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Role {
    /// All roles.
    Admin,
    /// Create, change and rotate tokens of other users.
    GenerateTokens,
    /// Look up tokens of other users.
    AuthenticationLookup,
    /// Revoke tokens of other users.
    RevokeTokens,
    /// Manage users and grants.
    ManageUsers,
    /// Change the policy.
    ManagePolicy,
    /// Read the audit trail.
    ReadAudit,
    /// Read the metrics of the server.
    ReadMetrics,
}

impl Role {
    /// All roles.
    pub const ALL: [Role; 8] = [
        Role::Admin,
        Role::GenerateTokens,
        Role::AuthenticationLookup,
        Role::RevokeTokens,
        Role::ManageUsers,
        Role::ManagePolicy,
        Role::ReadAudit,
        Role::ReadMetrics,
    ];

    /// Returns the role's name in commands, JSON and the store.
    pub fn as_str(self) -> &'static str {
        match self {
            Role::Admin => "admin",
            Role::GenerateTokens => "security.generate_tokens",
            Role::AuthenticationLookup => "security.authentication_lookup",
            Role::RevokeTokens => "security.revoke_tokens",
            Role::ManageUsers => "users.manage",
            Role::ManagePolicy => "policy.manage",
            Role::ReadAudit => "audit.read",
            Role::ReadMetrics => "metrics.read",
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Role {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Self::ALL.into_iter().find(|r| r.as_str() == text).ok_or_else(|| {
            let known: Vec<_> = Self::ALL.iter().map(|r| r.as_str()).collect();
            format!("the role {text:?} is unknown: give one of {}", known.join(", "))
        })
    }
}

/// A set of roles. A set with `admin` includes all roles.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Roles(BTreeSet<Role>);

impl Roles {
    /// Returns the empty set.
    pub const fn none() -> Self {
        Self(BTreeSet::new())
    }

    /// Tells whether the set is empty.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns the roles of the set as they were given, in a fixed order.
    pub fn iter(&self) -> impl Iterator<Item = Role> + '_ {
        self.0.iter().copied()
    }

    /// Tells whether the set includes a role: that role itself, or `admin`.
    pub fn includes(&self, role: Role) -> bool {
        self.0.contains(&role) || self.0.contains(&Role::Admin)
    }

    /// Returns the first role of `needed` that the set doesn't include.
    pub fn first_missing(&self, needed: &Roles) -> Option<Role> {
        needed.iter().find(|role| !self.includes(*role))
    }

    /// Returns the roles that both sets include.
    #[must_use]
    pub fn intersect(&self, other: &Roles) -> Roles {
        // Not the intersection of the two sets: `admin` on one side includes each role of the other.
        let from_self = self.iter().filter(|role| other.includes(*role));
        from_self.chain(other.iter().filter(|role| self.includes(*role))).collect()
    }
}

impl FromIterator<Role> for Roles {
    fn from_iter<I: IntoIterator<Item = Role>>(roles: I) -> Self {
        Self(roles.into_iter().collect())
    }
}

impl fmt::Display for Roles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, role) in self.iter().enumerate() {
            write!(f, "{}{role}", if n > 0 { ", " } else { "" })?;
        }
        Ok(())
    }
}

impl<'de> Deserialize<'de> for Role {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

impl Serialize for Role {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn admin_includes_every_role_and_role_sets_intersect() {
        let set = |roles: &[Role]| roles.iter().copied().collect::<Roles>();
        let (admin, audit) = (set(&[Role::Admin]), set(&[Role::ReadAudit]));
        assert!(Role::ALL.into_iter().all(|role| admin.includes(role)));
        assert!(!audit.includes(Role::Admin) && !Roles::none().includes(Role::ReadAudit));
        assert_eq!(admin.intersect(&audit), audit);
        assert_eq!(audit.intersect(&admin), audit);
        assert_eq!(audit.intersect(&set(&[Role::ManageUsers])), Roles::none());
        assert_eq!(audit.first_missing(&admin), Some(Role::Admin));
        assert_eq!(admin.first_missing(&set(&Role::ALL)), None);
    }

    #[test]
    fn logins_unsafe_in_paths_or_headers_are_refused() {
        for text in ["", ".", "..", ".hidden", "-x", "a/b", "a:b", "a b", "a\n", "ä", &"x".repeat(65)] {
            assert!(text.parse::<Login>().is_err(), "{text:?}");
        }
        for text in ["alice", "Bob.Smith", "svc-backup", "a@example.org", "x+y", "_", "0"] {
            assert!(text.parse::<Login>().is_ok(), "{text:?}");
        }
    }
}
