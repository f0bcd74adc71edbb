//! Bounds on what callers can fill the store with, as far as it is no business of the policy.

use rusqlite::{Connection, OptionalExtension};

use super::{Result, Store, StoreError};
use crate::domain::{Login, PropertySpace};

/// Maximum number of rows of named nodes.
const NODE_ROWS: u64 = 2_000_000;

impl Store {
    /// Bounds the space that dead properties may take.
    pub fn bound_properties(&self, space: PropertySpace) {
        *self.shared.budget.lock() = space;
    }

    /// Refuses so many more bytes of dead properties by a user.
    ///
    /// # Errors
    /// [`StoreError::Budget`]; [`StoreError::Full`] while nothing may grow.
    pub(crate) fn may_hold_properties(&self, writer: &Login, more: u64) -> Result<()> {
        if more == 0 {
            return Ok(());
        }
        self.may_grow()?;
        // In the write-ahead log, and in the database once that is folded into it.
        if self.shared.ballast.lacks_room(more.saturating_mul(2)) {
            return Err(StoreError::Full);
        }
        self.read(|c| {
            let held = Held::of(c, writer)?;
            self.fits_budget(held, Held { own: held.own.saturating_add(more), all: held.all.saturating_add(more) })
        })
    }

    /// Refuses so many more rows of named nodes.
    ///
    /// # Errors
    /// [`StoreError::Budget`].
    pub(crate) fn may_name_nodes(&self, more: usize) -> Result<()> {
        self.read(|c| may_name(c, more))
    }

    /// Refuses dead properties beyond the bounds, but for a change by which they become less.
    pub(super) fn fits_budget(&self, before: Held, after: Held) -> Result<()> {
        let PropertySpace { per_user, all } = *self.shared.budget.lock();
        if after.own > per_user && after.own > before.own {
            return Err(StoreError::Budget("the properties that the user has set take as much space as they may"));
        }
        if after.all > all && after.all > before.all {
            return Err(StoreError::Budget("all properties together take as much space as they may"));
        }
        Ok(())
    }
}

/// Space that dead properties take, in bytes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Held {
    own: u64,
    all: u64,
}

impl Held {
    /// Reads how much those of a user take, and all.
    pub(super) fn of(c: &Connection, writer: &Login) -> Result<Self> {
        let own = "SELECT amount FROM usage WHERE what = 'properties' AND who = ?1";
        let own: Option<i64> = c.prepare_cached(own)?.query_row([writer], |row| row.get(0)).optional()?;
        let all = "SELECT coalesce(sum(amount), 0) FROM usage WHERE what = 'properties'";
        let all: i64 = c.prepare_cached(all)?.query_row([], |row| row.get(0))?;
        Ok(Self { own: own.unwrap_or(0).unsigned_abs(), all: all.unsigned_abs() })
    }
}

/// Refuses to name more nodes than there may be.
pub(super) fn may_name(c: &Connection, more: usize) -> Result<()> {
    let rows = "SELECT amount FROM usage WHERE what = 'nodes'";
    let rows: i64 = c.prepare_cached(rows)?.query_row([], |row| row.get(0))?;
    match rows.unsigned_abs().saturating_add(more as u64) > NODE_ROWS {
        true => Err(StoreError::Budget("as many files and directories are named as may be")),
        false => Ok(()),
    }
}
