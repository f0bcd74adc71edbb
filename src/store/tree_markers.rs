//! Markers of the served directory and of the file systems mounted in it, by which the tree that nodes belong to is
//! recognised; and the parts of modification times that file systems with coarse times don't keep.

use rusqlite::{OptionalExtension, params};

use super::nodes::{NodeRow, node_path, set_identity};
use super::{Result, Store, WriteDurability};
use crate::domain::{NodeId, NodeIdentity, TreePath};

/// The random id that a tree holds in its reserved directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct TreeMarker(pub(crate) [u8; 16]);

/// A mounted file system that has named nodes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct MarkedMount {
    /// Path of its mount point by the index; follows when a directory above is renamed.
    pub(crate) path: TreePath,
    /// Node of its root directory.
    pub(crate) node: NodeRow,
    /// Marker of the file system.
    pub(crate) marker: TreeMarker,
}

impl Store {
    /// Returns the marker of the served directory; `None` before it has one.
    pub(crate) fn root_marker(&self) -> Result<Option<TreeMarker>> {
        let marker: Option<[u8; 16]> =
            self.read(|c| Ok(c.prepare_cached("SELECT root_marker FROM meta")?.query_row([], |row| row.get(0))?))?;
        Ok(marker.map(TreeMarker))
    }

    /// Records the marker of the served directory.
    pub(crate) fn set_root_marker(&self, marker: TreeMarker) -> Result<()> {
        let sql = "UPDATE meta SET root_marker = ?1";
        self.write(WriteDurability::Synced, |t| Ok(t.execute(sql, [marker.0]).map(drop)?))
    }

    /// Returns the file systems mounted below the served directory that have named nodes.
    pub(crate) fn marked_mounts(&self) -> Result<Vec<MarkedMount>> {
        self.snapshot(|connection| {
            let mut statement = connection.prepare_cached("SELECT node, marker FROM mounts")?;
            let rows = statement.query_map([], |row| Ok((row.get::<_, NodeId>(0)?, row.get::<_, [u8; 16]>(1)?)))?;
            let mut mounts = Vec::new();
            for row in rows {
                let (id, marker) = row?;
                let path = node_path(connection, id)?;
                if let Some(node) = super::nodes::resolve_path(connection, &path)? {
                    mounts.push(MarkedMount { path, node, marker: TreeMarker(marker) });
                }
            }
            Ok(mounts)
        })
    }

    /// Records the marker of the file system whose root is a node.
    pub(crate) fn set_mount_marker(&self, node: NodeId, marker: TreeMarker) -> Result<()> {
        let sql = "INSERT INTO mounts (node, marker) VALUES (?1, ?2) ON CONFLICT (node) DO UPDATE SET marker = ?2";
        self.write(WriteDurability::Synced, |t| Ok(t.execute(sql, params![node, marker.0]).map(drop)?))
    }

    /// Binds nodes to the entries that are at their paths now: the marker of the served directory, the mounts (these
    /// and no others), and the identities of directories.
    pub(crate) fn reattach_nodes(
        &self,
        root: TreeMarker,
        mounts: &[(NodeId, TreeMarker)],
        directories: &[(NodeId, NodeIdentity)],
    ) -> Result<()> {
        self.write(WriteDurability::Synced, |t| {
            t.execute("UPDATE meta SET root_marker = ?1", [root.0])?;
            t.execute("DELETE FROM mounts", [])?;
            // They identify entries by inodes of the other tree.
            t.execute("DELETE FROM intents", [])?;
            for (node, marker) in mounts {
                t.execute("INSERT INTO mounts (node, marker) VALUES (?1, ?2)", params![node, marker.0])?;
            }
            directories.iter().try_for_each(|(node, identity)| set_identity(t, *node, Some(*identity)))
        })
    }

    /// Returns seconds and nanoseconds of the modification time that was last set on a file whose file system keeps
    /// only coarse times: the seconds as the file system has them, and the nanoseconds as they were requested.
    pub(crate) fn fine_time(&self, marker: TreeMarker, inode: u64) -> Result<Option<(i64, u32)>> {
        self.read(|connection| {
            let sql = "SELECT seconds, nanos FROM fine_times WHERE marker = ?1 AND inode = ?2";
            let mut statement = connection.prepare_cached(sql)?;
            let row = statement.query_row(params![marker.0, inode.cast_signed()], |row| Ok((row.get(0)?, row.get(1)?)));
            Ok(row.optional()?)
        })
    }

    /// Tells whether any fine time of a file system is stored.
    pub(crate) fn has_fine_times(&self, marker: TreeMarker) -> Result<bool> {
        let sql = "SELECT EXISTS (SELECT 1 FROM fine_times WHERE marker = ?1)";
        self.read(|c| Ok(c.prepare_cached(sql)?.query_row([marker.0], |row| row.get(0))?))
    }

    /// Records the modification time that was set on a file.
    pub(crate) fn set_fine_time(&self, marker: TreeMarker, inode: u64, seconds: i64, nanos: u32) -> Result<()> {
        let sql = "INSERT INTO fine_times (marker, inode, seconds, nanos) VALUES (?1, ?2, ?3, ?4) \
             ON CONFLICT (marker, inode) DO UPDATE SET seconds = ?3, nanos = ?4";
        self.write(WriteDurability::Lazy, |t| {
            t.prepare_cached(sql)?.execute(params![marker.0, inode.cast_signed(), seconds, nanos])?;
            Ok(())
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::testing::{insert_directory, move_node, node, open_temp_store};

    const MARKER: TreeMarker = TreeMarker([7; 16]);

    #[test]
    fn mount_follows_its_node_and_is_deleted_with_it() {
        let (_temp_dir, store) = open_temp_store();
        for (number, parent, name) in [(0, 0, ""), (1, 0, "a"), (2, 1, "disk")] {
            insert_directory(&store, number, parent, name);
        }
        store.set_mount_marker(node(2), TreeMarker([1; 16])).expect("recorded");
        store.set_mount_marker(node(2), MARKER).expect("recorded");
        let paths = || store.marked_mounts().expect("read").into_iter().map(|m| (m.path.to_string(), m.marker));
        assert_eq!(paths().collect::<Vec<_>>(), [("/a/disk".to_owned(), MARKER)]);
        move_node(&store, 1, 0, "b");
        assert_eq!(paths().collect::<Vec<_>>(), [("/b/disk".to_owned(), MARKER)]);
        store.delete_nodes(&[node(1)]).expect("deleted");
        assert_eq!(paths().count(), 0);
    }

    #[test]
    fn fine_time_is_last_one_set_for_inode() {
        let (_temp_dir, store) = open_temp_store();
        assert_eq!(store.fine_time(MARKER, u64::MAX).expect("read"), None);
        store.set_fine_time(MARKER, u64::MAX, -5, 1).expect("recorded");
        store.set_fine_time(MARKER, u64::MAX, 9, 999_999_999).expect("recorded");
        assert_eq!(store.fine_time(MARKER, u64::MAX).expect("read"), Some((9, 999_999_999)));
        assert_eq!(store.fine_time(TreeMarker([8; 16]), u64::MAX).expect("read"), None);
        let has = |marker| store.has_fine_times(marker).expect("read");
        assert!(has(MARKER) && !has(TreeMarker([8; 16])));
    }
}
