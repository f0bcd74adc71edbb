//! Bans of networks ([`Ban`]).

use std::net::IpAddr;
use std::time::Duration;

use rusqlite::{Connection, OptionalExtension, Row, Transaction, params};

use super::columns::sql_limit;
use super::{BallastShare, Result, Store, WriteDurability};
use crate::domain::{Ban, BanOrigin, BannedNetwork, EventKind, UnixMillis};

/// Maximum number of stored automatic bans; at the bound, those that end first give way.
const MAX_AUTOMATIC_BANS: usize = if cfg!(test) { 20 } else { 10_000 };
/// Time after its end for which an automatic ban is stored.
const ENDED_BAN_RETENTION: Duration = Duration::from_secs(7 * 86_400);

const BAN_COLUMNS: &str = "network, since, until, automatic, repeats, reason";

impl Store {
    /// Returns the number that every change of a ban advances.
    pub(crate) fn bans_version(&self) -> Result<i64> {
        self.read(|c| Ok(c.prepare_cached("SELECT bans_version FROM meta")?.query_row([], |row| row.get(0))?))
    }

    /// Returns all stored bans, those that have ended included, and the version that they have.
    pub(crate) fn all_bans(&self) -> Result<(i64, Vec<Ban>)> {
        self.read(|c| {
            // One transaction: a ban that is added between the two reads would otherwise never be read.
            let transaction = c.unchecked_transaction()?;
            let version =
                transaction.prepare_cached("SELECT bans_version FROM meta")?.query_row([], |row| row.get(0))?;
            Ok((version, select_bans(&transaction)?))
        })
    }

    /// Returns the bans in force, the latest first.
    pub fn active_bans(&self, now: UnixMillis) -> Result<Vec<Ban>> {
        let mut bans = self.read(select_bans)?;
        bans.retain(|ban| ban.is_active(now));
        bans.sort_by(|a, b| b.since.cmp(&a.since).then(a.network.cmp(&b.network)));
        Ok(bans)
    }

    /// Stores a ban by an administrator; it takes the place of one of the same network.
    pub fn add_ban(&self, ban: &Ban) -> Result<()> {
        self.write(WriteDurability::Synced, |t| {
            upsert_ban(t, ban)?;
            self.record_change(t, EventKind::BanAdded, |event| event.with_detail(ban.describe()))
        })
    }

    /// Stores automatic bans. They don't take the place of manual ones.
    pub(crate) fn add_automatic_bans(&self, bans: &[Ban], now: UnixMillis) -> Result<()> {
        self.write_with_ballast(WriteDurability::Lazy, BallastShare::Narrowing, |t| {
            let mut is_manual = t.prepare_cached("SELECT 1 FROM bans WHERE network = ?1 AND automatic = 0")?;
            for ban in bans {
                if !is_manual.exists([ban.network])? {
                    upsert_ban(t, ban)?;
                }
            }
            delete_ended_bans(t, now)
        })
    }

    /// Removes a ban; returns whether it was in force.
    pub fn remove_ban(&self, network: BannedNetwork, now: UnixMillis) -> Result<bool> {
        self.write_with_ballast(WriteDurability::Synced, BallastShare::Narrowing, |t| {
            let sql = format!("DELETE FROM bans WHERE network = ?1 RETURNING {BAN_COLUMNS}");
            let removed = t.prepare_cached(&sql)?.query_row([network], parse_ban).optional()?;
            let Some(ban) = removed.filter(|ban| ban.is_active(now)) else { return Ok(false) };
            self.record_change(t, EventKind::BanRemoved, |event| event.with_detail(ban.network.to_string()))?;
            Ok(true)
        })
    }

    /// Tells whether a token that is live was ever used from the network that an address is counted as.
    pub(crate) fn was_live_token_used_from(&self, address: IpAddr, now: UnixMillis) -> Result<bool> {
        // As `record_addresses` stores it: the address, or the first one of its /64.
        let network = BannedNetwork::of_address(address).first_address().to_string();
        let sql = "SELECT 1 FROM sightings s JOIN tokens t ON t.id = s.token \
             WHERE s.network = ?1 AND t.revoked_at IS NULL AND (t.expires_at IS NULL OR t.expires_at > ?2)";
        self.read(|c| Ok(c.prepare_cached(sql)?.exists(params![network, now])?))
    }
}

fn select_bans(c: &Connection) -> Result<Vec<Ban>> {
    let mut select = c.prepare_cached("SELECT network, since, until, automatic, repeats, reason FROM bans")?;
    let bans = select.query_map([], parse_ban)?.collect::<Result<_, rusqlite::Error>>()?;
    Ok(bans)
}

fn parse_ban(row: &Row<'_>) -> Result<Ban, rusqlite::Error> {
    Ok(Ban {
        network: row.get(0)?,
        since: row.get(1)?,
        until: row.get(2)?,
        origin: if row.get(3)? { BanOrigin::Automatic } else { BanOrigin::Manual },
        repeats: row.get(4)?,
        reason: row.get(5)?,
    })
}

fn upsert_ban(t: &Transaction<'_>, ban: &Ban) -> Result<()> {
    let sql = "INSERT INTO bans (network, since, until, automatic, repeats, reason) VALUES (?1, ?2, ?3, ?4, ?5, ?6) \
         ON CONFLICT (network) DO UPDATE SET since = excluded.since, until = excluded.until, \
         automatic = excluded.automatic, repeats = excluded.repeats, reason = excluded.reason";
    let is_automatic = ban.origin == BanOrigin::Automatic;
    let values = params![ban.network, ban.since, ban.until, is_automatic, ban.repeats, ban.reason];
    t.prepare_cached(sql)?.execute(values)?;
    Ok(())
}

/// Deletes bans that ended long ago, and automatic ones beyond their maximum number.
fn delete_ended_bans(t: &Transaction<'_>, now: UnixMillis) -> Result<()> {
    let ended_before = now.saturating_sub(ENDED_BAN_RETENTION);
    t.prepare_cached("DELETE FROM bans WHERE until <= ?1")?.execute([ended_before])?;
    let sql = "DELETE FROM bans WHERE network IN \
         (SELECT network FROM bans WHERE automatic = 1 ORDER BY until DESC LIMIT ?1 OFFSET ?2)";
    t.prepare_cached(sql)?.execute([sql_limit(usize::MAX), sql_limit(MAX_AUTOMATIC_BANS)])?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::testing::{now, open_temp_store};

    fn ban(network: &str, minutes: Option<u64>, origin: BanOrigin) -> Ban {
        Ban {
            network: network.parse().expect("a network"),
            since: now(),
            until: minutes.map(|minutes| now().saturating_add(Duration::from_secs(60 * minutes))),
            origin,
            repeats: u32::from(origin == BanOrigin::Automatic),
            reason: String::new(),
        }
    }

    fn in_minutes(minutes: u64) -> UnixMillis {
        now().saturating_add(Duration::from_secs(60 * minutes))
    }

    #[test]
    fn bans_end_and_are_removed() {
        let (_temp_dir, store) = open_temp_store();
        store.add_ban(&ban("192.0.2.0/24", None, BanOrigin::Manual)).expect("added");
        store.add_ban(&ban("198.51.100.7", Some(10), BanOrigin::Manual)).expect("added");
        assert_eq!(store.active_bans(now()).expect("read").len(), 2);
        assert_eq!(store.active_bans(in_minutes(10)).expect("read").len(), 1);
        let network = "192.0.2.0/24".parse().expect("a network");
        assert!(store.remove_ban(network, now()).expect("removed"));
        assert!(!store.remove_ban(network, now()).expect("nothing left"));
        assert!(!store.remove_ban("198.51.100.7".parse().expect("a network"), in_minutes(10)).expect("has ended"));
    }

    #[test]
    fn every_change_of_a_ban_advances_the_version_and_not_the_epoch() {
        let (_temp_dir, store) = open_temp_store();
        let mut versions = vec![store.bans_version().expect("read")];
        let epoch = store.epoch().expect("read");
        store.add_ban(&ban("192.0.2.7", None, BanOrigin::Manual)).expect("added");
        versions.push(store.bans_version().expect("read"));
        store.add_ban(&ban("192.0.2.7", Some(1), BanOrigin::Manual)).expect("replaced");
        versions.push(store.bans_version().expect("read"));
        store.remove_ban("192.0.2.7".parse().expect("a network"), now()).expect("removed");
        versions.push(store.bans_version().expect("read"));
        assert!(versions.is_sorted_by(|a, b| a < b), "{versions:?}");
        assert_eq!(store.epoch().expect("read"), epoch, "no token is read again for it");
    }

    #[test]
    fn automatic_bans_are_bounded_and_respect_manual_ones() {
        let (_temp_dir, store) = open_temp_store();
        store.add_ban(&ban("192.0.2.255", None, BanOrigin::Manual)).expect("added");
        for number in 0..30u8 {
            let automatic = ban(&format!("192.0.2.{number}"), Some(10 + u64::from(number)), BanOrigin::Automatic);
            store.add_automatic_bans(&[automatic], now()).expect("added");
        }
        store.add_automatic_bans(&[ban("192.0.2.255", Some(1), BanOrigin::Automatic)], now()).expect("ignored");
        let bans = store.active_bans(now()).expect("read");
        assert_eq!(bans.len(), MAX_AUTOMATIC_BANS + 1);
        let manual = bans.iter().find(|ban| ban.origin == BanOrigin::Manual).expect("kept");
        assert_eq!(manual.until, None);
        assert!(!bans.iter().any(|ban| ban.network.to_string() == "192.0.2.9"), "those that end first give way");
        let much_later = in_minutes(60 * 24 * 8);
        store.add_automatic_bans(&[], much_later).expect("cleaned");
        assert_eq!(store.all_bans().expect("read").1.len(), 1, "ended ones are kept for a week");
    }
}
