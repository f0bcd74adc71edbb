//! Conditions that last: a notice is made when one begins and when it ends, and not again after a restart.

use rusqlite::{Connection, OptionalExtension};

use super::super::{BallastShare, Result, Store, WriteDurability};
use super::{NoticeAudience, insert_notice};
use crate::domain::Notice;

impl Store {
    /// Records that a condition has a value, and queues the notice, if there is one, where it had none or another one.
    /// Returns whether that is so.
    pub(crate) fn begin_condition(&self, name: &str, value: &str, notice: Option<&Notice>) -> Result<bool> {
        // A read first: most calls change nothing.
        if self.read(|c| condition(c, name))?.as_deref() == Some(value) {
            return Ok(false);
        }
        self.write_with_ballast(WriteDurability::Lazy, BallastShare::Narrowing, |t| {
            // Asked again under the write lock.
            if condition(t, name)?.as_deref() == Some(value) {
                return Ok(false);
            }
            let upsert = "INSERT INTO notice_conditions (name, value) VALUES (?1, ?2)
                 ON CONFLICT (name) DO UPDATE SET value = excluded.value";
            t.prepare_cached(upsert)?.execute([name, value])?;
            notice.map_or(Ok(()), |notice| insert_notice(t, notice, NoticeAudience::All))?;
            Ok(true)
        })
    }

    /// Records that a condition has ended, and queues the notice, if there is one, where it had begun.
    pub(crate) fn end_condition(&self, name: &str, notice: Option<&Notice>) -> Result<()> {
        if self.read(|c| condition(c, name))?.is_none() {
            return Ok(());
        }
        self.write_with_ballast(WriteDurability::Lazy, BallastShare::Narrowing, |t| {
            if t.prepare_cached("DELETE FROM notice_conditions WHERE name = ?1")?.execute([name])? == 0 {
                return Ok(());
            }
            notice.map_or(Ok(()), |notice| insert_notice(t, notice, NoticeAudience::All))
        })
    }

    /// Returns the rests of the names of conditions that begin with a prefix and have not ended.
    pub(crate) fn conditions_beginning_with(&self, prefix: &str) -> Result<Vec<String>> {
        self.read(|c| {
            let mut select = c.prepare_cached("SELECT name FROM notice_conditions ORDER BY name")?;
            let names = select.query_map([], |row| row.get(0))?.collect::<Result<Vec<String>, rusqlite::Error>>()?;
            Ok(names.iter().filter_map(|name| name.strip_prefix(prefix)).map(str::to_owned).collect())
        })
    }
}

fn condition(c: &Connection, name: &str) -> Result<Option<String>> {
    let mut select = c.prepare_cached("SELECT value FROM notice_conditions WHERE name = ?1")?;
    Ok(select.query_row([name], |row| row.get(0)).optional()?)
}

#[cfg(test)]
mod tests {
    use crate::domain::{Notice, NoticeContent, NoticeKind};
    use crate::store::testing::{now, open_temp_store};

    #[test]
    fn condition_is_announced_when_it_begins_changes_and_ends() {
        let (_temp_dir, store) = open_temp_store();
        store.configure_notices(&["mail a@example.org".to_owned()], NoticeKind::ALL).expect("configured");
        let notice = Notice::new(now(), NoticeContent::RootBack { path: "/".to_owned() });
        let begin = |value| store.begin_condition("root /", value, Some(&notice)).expect("written");
        store.end_condition("root /", Some(&notice)).expect("it had not begun");
        assert_eq!([begin("a"), begin("a"), begin("b"), begin("b")], [true, false, true, false]);
        assert_eq!(store.conditions_beginning_with("root ").expect("read"), ["/"]);
        store.end_condition("root /", Some(&notice)).expect("ended");
        store.end_condition("root /", Some(&notice)).expect("it has ended already");
        assert_eq!(store.queued_notices(10).expect("read").len(), 3);
    }
}
