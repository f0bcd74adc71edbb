//! Operations on the tree, and the permissions that each of them needs.

use std::fmt;
use std::str::FromStr;

use serde::{Serialize, Serializer};

use super::{AccessDenial, EffectiveGrant, PathAccess, Permission, TreeAccess, TreePath};

/// An operation on a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TreeOperation {
    /// Read the attributes of an entry.
    Stat,
    /// List a directory.
    List,
    /// Read a file, its checksums or its properties.
    Read,
    /// Copy an entry to another path.
    Copy,
    /// Replace or append to a file, set attributes or properties, lock it.
    Write,
    /// Create a file, directory or link with a new name.
    Create,
    /// Remove an entry.
    Delete,
    /// Rename an entry, or move it to another directory.
    Move,
    /// Create a hard link to a file.
    Link,
}

/// The permission that an operation needs, and on which path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RequiredPermission {
    /// None: it is enough that the path is visible.
    VisibleOnly,
    /// On the path itself.
    OnTarget(Permission),
    /// On the parent directory.
    OnParent(Permission),
}

impl TreeOperation {
    /// All operations.
    pub const ALL: [TreeOperation; 9] = [
        TreeOperation::Stat,
        TreeOperation::List,
        TreeOperation::Read,
        TreeOperation::Copy,
        TreeOperation::Write,
        TreeOperation::Create,
        TreeOperation::Delete,
        TreeOperation::Move,
        TreeOperation::Link,
    ];

    /// Returns the permission that it needs, and on which path.
    pub const fn required_permission(self) -> RequiredPermission {
        match self {
            TreeOperation::Stat => RequiredPermission::VisibleOnly,
            TreeOperation::List | TreeOperation::Read | TreeOperation::Copy => {
                RequiredPermission::OnTarget(Permission::R)
            }
            TreeOperation::Write => RequiredPermission::OnTarget(Permission::W),
            TreeOperation::Link => RequiredPermission::OnTarget(Permission::RW),
            TreeOperation::Create | TreeOperation::Delete | TreeOperation::Move => {
                RequiredPermission::OnParent(Permission::W)
            }
        }
    }

    /// Returns the permission that it needs, on whichever path.
    pub const fn permission(self) -> Permission {
        match self.required_permission() {
            RequiredPermission::VisibleOnly => Permission::NONE,
            RequiredPermission::OnTarget(permission) | RequiredPermission::OnParent(permission) => permission,
        }
    }

    /// Returns the path on which it needs a permission; `None` for the parent of the root.
    pub fn permission_path(self, path: &TreePath) -> Option<TreePath> {
        match self.required_permission() {
            RequiredPermission::VisibleOnly | RequiredPermission::OnTarget(_) => Some(path.clone()),
            RequiredPermission::OnParent(_) => path.parent(),
        }
    }

    /// Tells whether it has a target: copies, moves and links have one.
    pub const fn has_target(self) -> bool {
        matches!(self, TreeOperation::Copy | TreeOperation::Move | TreeOperation::Link)
    }

    /// Authorizes the operation on a path, and returns the effective grants that allow it; none for a path that is only
    /// visible.
    ///
    /// # Errors
    /// The first rule that denies it.
    pub fn authorize(self, access: &TreeAccess, path: &TreePath) -> Result<Vec<EffectiveGrant>, AccessDenial> {
        let Some(permission_path) = self.permission_path(path) else { return Err(AccessDenial::TreeRoot) };
        let needed = match self.required_permission() {
            RequiredPermission::VisibleOnly if access.path_access(path) == PathAccess::Visible => return Ok(Vec::new()),
            // Any permission makes a path visible. Without one, the denial is explained as that of a read.
            RequiredPermission::VisibleOnly => access.permission_at(path).non_empty().unwrap_or(Permission::R),
            RequiredPermission::OnTarget(needed) | RequiredPermission::OnParent(needed) => needed,
        };
        let grants = access.explain(&permission_path, needed)?;
        Ok(grants.into_iter().cloned().collect())
    }

    /// Returns its name in commands, JSON and the audit trail.
    pub const fn as_str(self) -> &'static str {
        match self {
            TreeOperation::Stat => "stat",
            TreeOperation::List => "list",
            TreeOperation::Read => "read",
            TreeOperation::Copy => "copy",
            TreeOperation::Write => "write",
            TreeOperation::Create => "create",
            TreeOperation::Delete => "delete",
            TreeOperation::Move => "move",
            TreeOperation::Link => "link",
        }
    }
}

impl fmt::Display for TreeOperation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for TreeOperation {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Self::ALL.into_iter().find(|operation| operation.as_str() == text).ok_or_else(|| {
            let known = Self::ALL.map(TreeOperation::as_str).join(", ");
            format!("the operation {text:?} is unknown: give one of {known}")
        })
    }
}

impl Serialize for TreeOperation {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{NodeId, NodeIdentity, ResolvedScope, Scope};

    fn tree_path(path: &str) -> TreePath {
        TreePath::parse(path.as_bytes()).expect("path")
    }

    fn access(path: &str, permission: Permission) -> TreeAccess {
        let scope = Scope { node: NodeId::from_bytes([0; 16]), permission };
        let identity = NodeIdentity::Directory { inode: 1, birth_time: None };
        TreeAccess::new(vec![ResolvedScope { path: tree_path(path), scope, identity }], vec![])
    }

    #[test]
    fn operations_require_documented_permissions() {
        let cases = [
            (Permission::R, "/g/f", "stat list read copy"),
            (Permission::W, "/g/f", "stat write create delete move"),
            (Permission::RW, "/g/f", "stat list read copy write create delete move link"),
            (Permission::RW, "/g", "stat list read copy write link"),
            (Permission::RW, "/", "stat"),
            (Permission::RW, "/x", ""),
        ];
        for (permission, path, allowed) in cases {
            let access = access("/g", permission);
            let may: Vec<_> = TreeOperation::ALL
                .into_iter()
                .filter(|operation| operation.authorize(&access, &tree_path(path)).is_ok())
                .collect();
            assert_eq!(may.iter().map(|o| o.as_str()).collect::<Vec<_>>().join(" "), allowed, "{permission} {path}");
        }
        assert_eq!(
            TreeOperation::Delete.authorize(&access("/", Permission::RW), &tree_path("/")),
            Err(AccessDenial::TreeRoot)
        );
    }

    #[test]
    fn unknown_operation_error_lists_known_ones() {
        assert!("eat".parse::<TreeOperation>().expect_err("unknown").contains("list, read"));
    }
}
