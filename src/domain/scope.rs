//! Node ids and the scopes that name them.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::json_values::impl_text_json;
use super::{Permission, TreePath};

/// The stable id of a file or directory of the served tree.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct NodeId(Uuid);

impl NodeId {
    /// Returns a random id (UUID version 4) from 16 random bytes.
    pub fn from_random(bytes: [u8; 16]) -> Self {
        Self(uuid::Builder::from_random_bytes(bytes).into_uuid())
    }

    /// Returns an id from the stored form, 16 bytes.
    pub fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(Uuid::from_bytes(bytes))
    }

    /// Returns the stored form.
    pub fn as_bytes(&self) -> &[u8; 16] {
        self.0.as_bytes()
    }
}

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl FromStr for NodeId {
    type Err = String;

    /// Parses the hyphenated form only, so that a node has a single spelling.
    fn from_str(text: &str) -> Result<Self, String> {
        match (text.len(), Uuid::try_parse(text)) {
            (36, Ok(id)) => Ok(Self(id)),
            _ => Err(format!("{text:?} is not a node id: give a UUID such as 6f1c2c5e-8a55-4f0e-9d3c-0f4b6a2f7a11")),
        }
    }
}

/// A node and a permission: the content of a scope, and equally of a grant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Scope {
    /// The node.
    pub node: NodeId,
    /// The permission on the node and below.
    pub permission: Permission,
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "node:{}:{}", self.node, self.permission)
    }
}

/// A scope in its text form: `node:UUID:PERM`, or `path:/some/path:PERM`, whose node is looked up
/// when the token is created.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ScopeTarget {
    /// A node by its id.
    Node(Scope),
    /// A node by its current path.
    Path(TreePath, Permission),
}

impl fmt::Display for ScopeTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Node(scope) => scope.fmt(f),
            Self::Path(path, permission) => write!(f, "path:{path}:{permission}"),
        }
    }
}

impl FromStr for ScopeTarget {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let malformed = || {
            format!("the scope {text:?} is malformed: give node:UUID:PERM or path:/some/path:PERM with PERM r, w or rw")
        };
        let (kind, rest) = text.trim_matches([' ', '\t']).split_once(':').ok_or_else(malformed)?;
        let (target, permission) = rest.rsplit_once(':').ok_or_else(malformed)?;
        let permission = permission.parse::<Permission>().map_err(|e| format!("the scope {text:?}: {e}"))?;
        match kind {
            "node" => {
                let node = target.parse().map_err(|e| format!("the scope {text:?}: {e}"))?;
                Ok(Self::Node(Scope { node, permission }))
            }
            "path" => {
                let path = TreePath::parse_absolute(target).map_err(|e| format!("the scope {text:?}: {e}"))?;
                Ok(Self::Path(path, permission))
            }
            _ => Err(malformed()),
        }
    }
}

impl_text_json!(ScopeTarget);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn path_scope_may_contain_colons_and_node_scope_keeps_its_text() {
        let text = "node:6f1c2c5e-8a55-4f0e-9d3c-0f4b6a2f7a11:rw";
        let Ok(ScopeTarget::Node(scope)) = text.parse() else { panic!("{text}") };
        assert_eq!(scope.to_string(), text);
        assert!(
            matches!("path:/a:b/c:r".parse(), Ok(ScopeTarget::Path(p, Permission::R)) if p.to_string() == "/a:b/c")
        );
    }

    #[test]
    fn malformed_scopes_are_refused() {
        for text in [
            "",
            "node",
            "node:",
            "node::r",
            "node:6f1c2c5e-8a55-4f0e-9d3c-0f4b6a2f7a11",
            "node:6f1c2c5e-8a55-4f0e-9d3c-0f4b6a2f7a11:x",
            "node:6f1c2c5e-8a55-4f0e-9d3c-0f4b6a2f7a11:",
            "node:6f1c2c5e8a554f0e9d3c0f4b6a2f7a11:r",
            "path:/../x:r",
            // What is left of `path:$DIR:r` where the variable is unset must not be the whole tree.
            "path::r",
            "path:x:r",
            "\npath:/x:r",
            "host:/x:r",
        ] {
            assert!(text.parse::<ScopeTarget>().is_err(), "{text}");
        }
    }
}
