//! Changes that were begun on the host: written down before it, so that the next start can complete or
//! undo what was cut off.
//!
//! A change of something named is here, and one that takes more than one step on the host. What the
//! host shows tells how far it came; that is the tree's to judge.

use rusqlite::types::Type;
use rusqlite::{Connection, Row, params};

use super::columns::parse_stored_path;
use super::{BallastShare, Result, Store, WriteDurability};
use crate::domain::TreePath;

/// What an entry of the host is recognised by itself, wherever it stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct EntryIdentity {
    /// Whether it is a folder.
    pub(crate) is_directory: bool,
    /// Its inode number.
    pub(crate) inode: u64,
    /// Its birth time in nanoseconds since 1970, where the file system has one.
    pub(crate) birth_time: Option<i64>,
}

/// A change that was begun on the host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ChangeIntent {
    /// Its number.
    pub(crate) id: i64,
    /// Where the changing entry was.
    pub(crate) source: TreePath,
    /// The changing entry.
    pub(crate) entry: EntryIdentity,
    /// What becomes of it.
    pub(crate) action: IntentAction,
}

/// What becomes of an entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum IntentAction {
    /// It is removed.
    Remove,
    /// It goes to a path in one step.
    Move(TreePath),
    /// It changes places with the one that stands at a path; that one is removed then.
    Exchange(TreePath, EntryIdentity),
    /// This copy of it is put at a path; it is removed itself then.
    Copy(TreePath, EntryIdentity),
}

impl IntentAction {
    /// Returns where the entry goes, if it does.
    pub(crate) fn target(&self) -> Option<&TreePath> {
        match self {
            IntentAction::Remove => None,
            IntentAction::Move(target) | IntentAction::Exchange(target, _) | IntentAction::Copy(target, _) => {
                Some(target)
            }
        }
    }

    /// Returns the word for how it goes and the other entry that it is about, when one step can't do it.
    fn multi_step(&self) -> Option<(&'static str, EntryIdentity)> {
        match self {
            IntentAction::Remove | IntentAction::Move(_) => None,
            IntentAction::Exchange(_, replaced) => Some(("swap", *replaced)),
            IntentAction::Copy(_, copy) => Some(("copy", *copy)),
        }
    }
}

impl Store {
    /// Returns the intents, oldest first.
    pub(crate) fn intents(&self) -> Result<Vec<ChangeIntent>> {
        self.read(select_intents)
    }

    /// Writes an intent down, on disk when this returns; its `id` is not looked at. Returns its number.
    pub(crate) fn record_intent(&self, intent: &ChangeIntent) -> Result<i64> {
        let ChangeIntent { source, entry: EntryIdentity { is_directory, inode, birth_time }, action, .. } = intent;
        let target = action.target().map(TreePath::as_bytes);
        let (kind, other) = action.multi_step().unzip();
        let other_inode = other.map(|other| other.inode.cast_signed());
        self.write(WriteDurability::Synced, |connection| {
            connection.execute(
                "INSERT INTO intents (source, target, folder, inode, born, how, other_folder, other_inode, other_born) \
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)",
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
            )?;
            Ok(connection.last_insert_rowid())
        })
    }

    /// Strikes an intent whose change was not done.
    pub(crate) fn delete_intent(&self, id: i64) -> Result<()> {
        self.write_with_ballast(WriteDurability::Lazy, BallastShare::Narrowing, |connection| {
            delete_intent_row(connection, id).map(drop)
        })
    }
}

/// Strikes an intent; tells whether it was there.
pub(super) fn delete_intent_row(connection: &Connection, id: i64) -> Result<bool> {
    Ok(connection.execute("DELETE FROM intents WHERE id = ?1", [id])? == 1)
}

pub(super) fn select_intents(connection: &Connection) -> Result<Vec<ChangeIntent>> {
    let mut statement = connection.prepare_cached(
        "SELECT id, source, target, folder, inode, born, how, other_folder, other_inode, other_born \
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
        (Some(_), Some(_)) => return Err(rusqlite::Error::InvalidColumnType(6, "how".to_owned(), Type::Text)),
    })
}

fn identity_from_row(row: &Row<'_>, first: usize) -> rusqlite::Result<EntryIdentity> {
    let inode = row.get::<_, i64>(first + 1)?.cast_unsigned();
    Ok(EntryIdentity { is_directory: row.get(first)?, inode, birth_time: row.get(first + 2)? })
}
