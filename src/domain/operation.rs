//! What is done with the tree, and what each operation needs.

use std::fmt;
use std::str::FromStr;

use serde::{Serialize, Serializer};

use super::{Access, Denial, Permission, Root, Standing, TreePath};

/// Something to be done at a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Operation {
    /// Ask what it is.
    Stat,
    /// List a folder.
    List,
    /// Read a file, its checksums or its properties.
    Read,
    /// Copy it to somewhere else.
    Copy,
    /// Replace or append to a file, set attributes or properties, lock it.
    Write,
    /// Make a file, folder or link of a new name.
    Create,
    /// Remove it.
    Delete,
    /// Rename it, or move it to somewhere else.
    Move,
    /// Give a file a second name.
    Link,
}

/// Where an operation needs a permission.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// Nowhere: that it can be seen is enough.
    Seen,
    /// At the path itself.
    Here(Permission),
    /// In the folder that holds it.
    Above(Permission),
}

impl Operation {
    /// Every operation there is.
    pub const ALL: [Operation; 9] = [
        Operation::Stat,
        Operation::List,
        Operation::Read,
        Operation::Copy,
        Operation::Write,
        Operation::Create,
        Operation::Delete,
        Operation::Move,
        Operation::Link,
    ];

    /// Returns what it needs, and where.
    pub const fn need(self) -> Need {
        match self {
            Operation::Stat => Need::Seen,
            Operation::List | Operation::Read | Operation::Copy => Need::Here(Permission::R),
            Operation::Write => Need::Here(Permission::W),
            Operation::Link => Need::Here(Permission::RW),
            Operation::Create | Operation::Delete | Operation::Move => Need::Above(Permission::W),
        }
    }

    /// Returns the permission that it needs, wherever that is.
    pub const fn permission(self) -> Permission {
        match self.need() {
            Need::Seen => Permission::NONE,
            Need::Here(permission) | Need::Above(permission) => permission,
        }
    }

    /// Returns the path at which it needs a permission; none above the root.
    pub fn place(self, path: &TreePath) -> Option<TreePath> {
        match self.need() {
            Need::Seen | Need::Here(_) => Some(path.clone()),
            Need::Above(_) => path.parent(),
        }
    }

    /// Tells whether it goes somewhere: copies, moves and links have a target.
    pub const fn has_target(self) -> bool {
        matches!(self, Operation::Copy | Operation::Move | Operation::Link)
    }

    /// Judges it: returns what allows it, which is nothing for what lies on the way to something.
    ///
    /// # Errors
    /// The first rule that does not allow it.
    pub fn judge(self, access: &Access, path: &TreePath) -> Result<Vec<Root>, Denial> {
        let Some(place) = self.place(path) else { return Err(Denial::TopOfTree) };
        let needed = match self.need() {
            Need::Seen if access.standing(path) == Standing::Visible => return Ok(Vec::new()),
            Need::Seen => access.permission(path).any().unwrap_or(Permission::R),
            Need::Here(needed) | Need::Above(needed) => needed,
        };
        let roots = access.explain(&place, needed)?;
        Ok(roots.into_iter().cloned().collect())
    }

    /// Returns its name in commands, JSON and the audit trail.
    pub const fn as_str(self) -> &'static str {
        match self {
            Operation::Stat => "stat",
            Operation::List => "list",
            Operation::Read => "read",
            Operation::Copy => "copy",
            Operation::Write => "write",
            Operation::Create => "create",
            Operation::Delete => "delete",
            Operation::Move => "move",
            Operation::Link => "link",
        }
    }
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Operation {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Self::ALL.into_iter().find(|operation| operation.as_str() == text).ok_or_else(|| {
            let known = Self::ALL.map(Operation::as_str).join(", ");
            format!("the operation {text:?} is unknown: give one of {known}")
        })
    }
}

impl Serialize for Operation {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{Identity, NodeId, Reach, Scope};

    fn at(path: &str) -> TreePath {
        TreePath::parse(path.as_bytes()).expect("path")
    }

    fn access(path: &str, permission: Permission) -> Access {
        let scope = Scope { node: NodeId::from_bytes([0; 16]), permission };
        let identity = Identity::Folder { inode: 1, born: None };
        Access::new(vec![Reach { path: at(path), scope, identity }], vec![])
    }

    #[test]
    fn each_operation_needs_what_the_design_says() {
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
            let may: Vec<_> =
                Operation::ALL.into_iter().filter(|operation| operation.judge(&access, &at(path)).is_ok()).collect();
            assert_eq!(may.iter().map(|o| o.as_str()).collect::<Vec<_>>().join(" "), allowed, "{permission} {path}");
        }
        assert_eq!(Operation::Delete.judge(&access("/", Permission::RW), &at("/")), Err(Denial::TopOfTree));
    }

    #[test]
    fn operations_are_read_as_they_are_written() {
        for operation in Operation::ALL {
            assert_eq!(operation.as_str().parse(), Ok(operation));
        }
        assert!("eat".parse::<Operation>().expect_err("unknown").contains("list, read"));
    }
}
