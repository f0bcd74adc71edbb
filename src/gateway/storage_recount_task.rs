//! Counts the files of users and tokens with a storage quota, beside serving.

use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::store::Store;
use crate::tree::{StorageRecount, Tree};

/// Time between two looks at what is to be counted.
const LOOK_INTERVAL: Duration = Duration::from_millis(250);
/// Number of looks after which files are counted if that is due although nothing was written.
const IDLE_LOOKS: u32 = 240;
/// Time until the next look while all accounts that are due have to wait.
const WAITING_INTERVAL: Duration = Duration::from_secs(1);
/// Time until the next look after the store could not be read.
const RETRY_INTERVAL: Duration = Duration::from_secs(30);

/// Counts what is due until `stop` is cancelled.
pub(super) async fn run_storage_recounts(tree: Tree, store: Store, stop: CancellationToken) {
    let (mut seen_writes, mut idle_looks) = (None, 0);
    loop {
        let writes = store.data_version().ok();
        idle_looks += 1;
        // A quota is set, and an account outdated, by a write, of this process or of a command beside it.
        let pause = if writes != seen_writes || writes.is_none() || idle_looks >= IDLE_LOOKS {
            idle_looks = 0;
            match recount_once(&tree, &stop).await {
                Some(StorageRecount::Done | StorageRecount::Restarted | StorageRecount::Failed) => Duration::ZERO,
                Some(StorageRecount::Waiting) => WAITING_INTERVAL,
                Some(StorageRecount::Idle) => {
                    seen_writes = writes;
                    LOOK_INTERVAL
                }
                Some(StorageRecount::Stopped) => return,
                None => RETRY_INTERVAL,
            }
        } else {
            LOOK_INTERVAL
        };
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(pause) => {}
        }
    }
}

/// Counts the files of one account; `None` where the store can't be read.
async fn recount_once(tree: &Tree, stop: &CancellationToken) -> Option<StorageRecount> {
    let (tree, stop) = (tree.clone(), stop.clone());
    let counted = tokio::task::spawn_blocking(move || tree.recount_storage(&|| stop.is_cancelled())).await;
    match counted {
        Ok(Ok(outcome)) => Some(outcome),
        Ok(Err(error)) => {
            tracing::warn!(%error, "it can't be read whose files are to be counted for a storage quota");
            None
        }
        Err(error) => {
            tracing::error!(%error, "the count of files for a storage quota has ended");
            None
        }
    }
}
