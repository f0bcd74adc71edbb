//! Changes that were begun on the host: written down before it, so that the next start can complete or
//! undo what was cut off.
//!
//! A change of something named is here, and one that takes more than one step on the host. What the
//! host shows tells how far it came; that is the tree's to judge.

use rusqlite::types::Type;
use rusqlite::{Connection, Row, params};

use super::columns::stored_path;
use super::{Durability, Reserve, Result, Store};
use crate::domain::TreePath;

/// What an entry of the host is recognised by itself, wherever it stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Entity {
    /// Whether it is a folder.
    pub(crate) folder: bool,
    /// Its inode number.
    pub(crate) inode: u64,
    /// Its birth time in nanoseconds since 1970, where the file system has one.
    pub(crate) born: Option<i64>,
}

/// A change that was begun on the host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Intent {
    /// Its number.
    pub(crate) id: i64,
    /// Where the changing entry was.
    pub(crate) source: TreePath,
    /// The changing entry.
    pub(crate) entity: Entity,
    /// What becomes of it.
    pub(crate) plan: Plan,
}

/// What becomes of an entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Plan {
    /// It is removed.
    Remove,
    /// It goes to a path in one step.
    Move(TreePath),
    /// It changes places with the one that stands at a path; that one is removed then.
    Swap(TreePath, Entity),
    /// This copy of it is put at a path; it is removed itself then.
    Copy(TreePath, Entity),
}

impl Plan {
    /// Returns where the entry goes, if it does.
    pub(crate) fn target(&self) -> Option<&TreePath> {
        match self {
            Plan::Remove => None,
            Plan::Move(target) | Plan::Swap(target, _) | Plan::Copy(target, _) => Some(target),
        }
    }

    /// Returns the word for how it goes and the other entry that it is about, when one step can't do it.
    fn steps(&self) -> Option<(&'static str, Entity)> {
        match self {
            Plan::Remove | Plan::Move(_) => None,
            Plan::Swap(_, old) => Some(("swap", *old)),
            Plan::Copy(_, copy) => Some(("copy", *copy)),
        }
    }
}

impl Store {
    /// Returns the intents, oldest first.
    pub(crate) fn intents(&self) -> Result<Vec<Intent>> {
        self.read(intents)
    }

    /// Writes an intent down, on disk when this returns; its `id` is not looked at. Returns its number.
    pub(crate) fn begin_intent(&self, intent: &Intent) -> Result<i64> {
        let Intent { source, entity: Entity { folder, inode, born }, plan, .. } = intent;
        let target = plan.target().map(TreePath::as_bytes);
        let (how, other) = plan.steps().unzip();
        let other_inode = other.map(|other| other.inode.cast_signed());
        self.write(Durability::Synced, |connection| {
            connection.execute(
                "INSERT INTO intents (source, target, folder, inode, born, how, other_folder, other_inode, other_born) \
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)",
                params![
                    source.as_bytes(),
                    target,
                    folder,
                    inode.cast_signed(),
                    born,
                    how,
                    other.map(|other| other.folder),
                    other_inode,
                    other.and_then(|other| other.born),
                ],
            )?;
            Ok(connection.last_insert_rowid())
        })
    }

    /// Strikes an intent whose change was not done.
    pub(crate) fn drop_intent(&self, id: i64) -> Result<()> {
        self.write_reserved(Durability::Lazy, Reserve::Narrowing, |connection| take_intent(connection, id).map(drop))
    }
}

/// Strikes an intent; tells whether it was there.
pub(super) fn take_intent(connection: &Connection, id: i64) -> Result<bool> {
    Ok(connection.execute("DELETE FROM intents WHERE id = ?1", [id])? == 1)
}

pub(super) fn intents(connection: &Connection) -> Result<Vec<Intent>> {
    let mut statement = connection.prepare_cached(
        "SELECT id, source, target, folder, inode, born, how, other_folder, other_inode, other_born \
         FROM intents ORDER BY id",
    )?;
    let mut rows = statement.query([])?;
    let mut intents = Vec::new();
    while let Some(row) = rows.next()? {
        let source = stored_path(&row.get::<_, Vec<u8>>(1)?)?;
        let target = row.get::<_, Option<Vec<u8>>>(2)?.map(|bytes| stored_path(&bytes)).transpose()?;
        intents.push(Intent { id: row.get(0)?, source, entity: entity(row, 3)?, plan: plan(row, target)? });
    }
    Ok(intents)
}

fn plan(row: &Row<'_>, target: Option<TreePath>) -> rusqlite::Result<Plan> {
    let how: Option<String> = row.get(6)?;
    Ok(match (target, how.as_deref()) {
        (None, _) => Plan::Remove,
        (Some(target), None) => Plan::Move(target),
        (Some(target), Some("swap")) => Plan::Swap(target, entity(row, 7)?),
        (Some(target), Some("copy")) => Plan::Copy(target, entity(row, 7)?),
        (Some(_), Some(_)) => return Err(rusqlite::Error::InvalidColumnType(6, "how".to_owned(), Type::Text)),
    })
}

fn entity(row: &Row<'_>, first: usize) -> rusqlite::Result<Entity> {
    let inode = row.get::<_, i64>(first + 1)?.cast_unsigned();
    Ok(Entity { folder: row.get(first)?, inode, born: row.get(first + 2)? })
}
