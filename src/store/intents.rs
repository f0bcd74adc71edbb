//! Intents: changes of the file system that are recorded before they begin, so that the next start can complete or
//! undo those that were interrupted.
//!
//! Changes of named nodes are recorded here, and those that take more than one step on the file system. The state of
//! the file system tells how far a change came; `tree` compares it.

use rusqlite::types::Type;
use rusqlite::{Connection, Row, params};

use super::columns::parse_stored_path;
use super::{BallastShare, Result, Store, WriteDurability};
use crate::domain::TreePath;

/// Identity of an entry of the file system, wherever it is moved to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct EntryIdentity {
    /// Whether the entry is a directory.
    pub(crate) is_directory: bool,
    /// Inode number of the entry.
    pub(crate) inode: u64,
    /// Birth time in nanoseconds since 1970, where the file system has one.
    pub(crate) birth_time: Option<i64>,
}

/// A change of the file system that may have begun.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ChangeIntent {
    /// Id of the intent's row.
    pub(crate) id: i64,
    /// Path of the entry before the change.
    pub(crate) source: TreePath,
    /// Identity of the entry that changes.
    pub(crate) entry: EntryIdentity,
    /// The change.
    pub(crate) action: IntentAction,
}

/// A change of an entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum IntentAction {
    /// The entry is removed.
    Remove,
    /// The entry is renamed to a path in one step.
    Move(TreePath),
    /// The entry is exchanged with the one at a path, which is then removed.
    Exchange(TreePath, EntryIdentity),
    /// A copy of the entry (with this identity) is put at a path; the entry itself is then removed.
    Copy(TreePath, EntryIdentity),
}

impl IntentAction {
    /// Returns the path that the entry is moved to, unless it is removed.
    pub(crate) fn target(&self) -> Option<&TreePath> {
        match self {
            IntentAction::Remove => None,
            IntentAction::Move(target) | IntentAction::Exchange(target, _) | IntentAction::Copy(target, _) => {
                Some(target)
            }
        }
    }

    /// Returns the value of the column `kind` and the identity of the other entry, where one step is not enough.
    fn multi_step(&self) -> Option<(&'static str, EntryIdentity)> {
        match self {
            IntentAction::Remove | IntentAction::Move(_) => None,
            IntentAction::Exchange(_, replaced) => Some(("swap", *replaced)),
            IntentAction::Copy(_, copy) => Some(("copy", *copy)),
        }
    }
}

impl Store {
    /// Returns all intents, the oldest first.
    pub(crate) fn intents(&self) -> Result<Vec<ChangeIntent>> {
        self.read(select_intents)
    }

    /// Records an intent, which is on disk when this returns, and returns its id; the `id` of the argument is ignored.
    pub(crate) fn record_intent(&self, intent: &ChangeIntent) -> Result<i64> {
        let ChangeIntent { source, entry: EntryIdentity { is_directory, inode, birth_time }, action, .. } = intent;
        let target = action.target().map(TreePath::as_bytes);
        let (kind, other) = action.multi_step().unzip();
        let other_inode = other.map(|other| other.inode.cast_signed());
        // On disk before the first step on the file system: a crash after that step would otherwise leave a change that
        // no start completes.
        self.write(WriteDurability::Synced, |connection| {
            let sql = "INSERT INTO intents (source, target, is_directory, inode, birth_time, kind, \
                     other_is_directory, other_inode, other_birth_time) \
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9) RETURNING id";
            let id = connection.prepare_cached(sql)?.query_row(
                params![
                    source.as_bytes(),
                    target,
                    is_directory,
                    inode.cast_signed(),
                    birth_time,
                    kind,
                    other.map(|other| other.is_directory),
                    other_inode,
                    other.and_then(|other| other.birth_time),
                ],
                |row| row.get(0),
            )?;
            Ok(id)
        })
    }

    /// Deletes an intent whose change did not happen.
    pub(crate) fn delete_intent(&self, id: i64) -> Result<()> {
        // Lazy: an intent that a power cut brings back is compared with the file system again.
        self.write_with_ballast(WriteDurability::Lazy, BallastShare::Narrowing, |connection| {
            delete_intent_row(connection, id).map(drop)
        })
    }
}

/// Deletes an intent; tells whether it existed.
pub(super) fn delete_intent_row(connection: &Connection, id: i64) -> Result<bool> {
    Ok(connection.execute("DELETE FROM intents WHERE id = ?1", [id])? == 1)
}

pub(super) fn select_intents(connection: &Connection) -> Result<Vec<ChangeIntent>> {
    let mut statement = connection.prepare_cached(
        "SELECT id, source, target, is_directory, inode, birth_time, kind, \
             other_is_directory, other_inode, other_birth_time \
         FROM intents ORDER BY id",
    )?;
    let mut rows = statement.query([])?;
    let mut intents = Vec::new();
    while let Some(row) = rows.next()? {
        let source = parse_stored_path(&row.get::<_, Vec<u8>>(1)?)?;
        let target = row.get::<_, Option<Vec<u8>>>(2)?.map(|bytes| parse_stored_path(&bytes)).transpose()?;
        intents.push(ChangeIntent {
            id: row.get(0)?,
            source,
            entry: identity_from_row(row, 3)?,
            action: action_from_row(row, target)?,
        });
    }
    Ok(intents)
}

fn action_from_row(row: &Row<'_>, target: Option<TreePath>) -> rusqlite::Result<IntentAction> {
    let kind: Option<String> = row.get(6)?;
    Ok(match (target, kind.as_deref()) {
        (None, _) => IntentAction::Remove,
        (Some(target), None) => IntentAction::Move(target),
        (Some(target), Some("swap")) => IntentAction::Exchange(target, identity_from_row(row, 7)?),
        (Some(target), Some("copy")) => IntentAction::Copy(target, identity_from_row(row, 7)?),
        (Some(_), Some(_)) => return Err(rusqlite::Error::InvalidColumnType(6, "kind".to_owned(), Type::Text)),
    })
}

fn identity_from_row(row: &Row<'_>, first: usize) -> rusqlite::Result<EntryIdentity> {
    let inode = row.get::<_, i64>(first + 1)?.cast_unsigned();
    Ok(EntryIdentity { is_directory: row.get(first)?, inode, birth_time: row.get(first + 2)? })
}
