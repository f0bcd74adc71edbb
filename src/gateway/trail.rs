//! What the running server does beside serving: tells the log what the audit trail holds, whichever
//! process noted it, and cleans up.

use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::auth::Clock;
use crate::domain::Time;
use crate::store::{Cursor, EventFilter, Store, StoreError};
use crate::telemetry;
use crate::tokens::Tokens;
use crate::tree::Tree;

/// How often the trail is looked at.
const ROUND: Duration = Duration::from_secs(1);
/// How long clean-up rests once there is nothing left to do.
const REST: Duration = Duration::from_secs(10);
/// How many events are read at once.
const PAGE: usize = 500;

/// What the log was told already, and when to clean up next.
struct Keeper {
    store: Store,
    tokens: Tokens,
    tree: Tree,
    told: Option<u64>,
    tidy_at: Time,
}

/// Tells and cleans up until stopped; tells once more then.
pub(super) async fn keep(store: Store, clock: Clock, tree: Tree, stop: CancellationToken) {
    let tokens = Tokens::new(store.clone(), clock.clone());
    let mut keeper = Keeper { told: store.latest_event().ok(), store, tokens, tree, tidy_at: clock.now() };
    loop {
        let last = stop.is_cancelled();
        let round = tokio::task::spawn_blocking(move || {
            keeper.round();
            keeper
        });
        keeper = match round.await {
            Ok(keeper) => keeper,
            Err(error) => return tracing::error!(%error, "the audit trail is not told any more"),
        };
        if last {
            return;
        }
        tokio::select! {
            () = stop.cancelled() => {}
            () = tokio::time::sleep(ROUND) => {}
            () = clock.sleep_until(keeper.tidy_at) => {}
        }
    }
}

impl Keeper {
    fn round(&mut self) {
        let now = self.tokens.now();
        // A clock that was set back keeps nothing waiting.
        if self.tidy_at <= now || now.after(REST) < self.tidy_at {
            self.tree.sweep_cut_uploads();
            match self.tokens.tidy() {
                Ok(tidied) => self.tidy_at = now.after(if tidied.is_full() { ROUND } else { REST }),
                Err(error) => {
                    self.tidy_at = now.after(REST);
                    tracing::warn!(%error, "the store was not cleaned up");
                }
            }
        }
        if let Err(error) = self.tell() {
            tracing::warn!(%error, "the audit trail can't be read");
        }
    }

    fn tell(&mut self) -> Result<(), StoreError> {
        let mut told = match self.told {
            Some(told) => told,
            None => self.store.latest_event()?,
        };
        loop {
            let events = self.store.audit(&EventFilter::default(), Cursor::After(told), PAGE)?;
            events.iter().for_each(|noted| telemetry::tell(&noted.event));
            told = events.last().map_or(told, |noted| noted.id);
            self.told = Some(told);
            if events.len() < PAGE {
                return Ok(());
            }
        }
    }
}
