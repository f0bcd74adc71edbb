//! The audit trail, as it is read.

use super::{Result, Tokens};
use crate::domain::Time;
use crate::store::{Cursor, EventFilter, Noted};

impl Tokens {
    /// Returns up to `limit` events of the audit trail from a cursor on.
    ///
    /// # Errors
    /// [`super::Error::Store`].
    pub fn events(&self, filter: &EventFilter, cursor: Cursor, limit: usize) -> Result<Vec<Noted>> {
        Ok(self.store.audit(filter, cursor, limit)?)
    }

    /// Returns the number of the latest event; 0 where there is none.
    ///
    /// # Errors
    /// [`super::Error::Store`].
    pub fn latest_event(&self) -> Result<u64> {
        Ok(self.store.latest_event()?)
    }

    /// Returns the present instant, as expiry is judged by.
    pub fn now(&self) -> Time {
        self.clock.now()
    }
}
