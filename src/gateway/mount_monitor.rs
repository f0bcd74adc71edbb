//! Monitor of the served directory's file systems: checks that they are available at each change of the mount table,
//! and once a second for failures without such a change.

use std::fs::File;
use std::time::Duration;

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio_util::sync::CancellationToken;

use crate::tree::Tree;

/// Time between two checks while the mount table does not change.
const CHECK_INTERVAL: Duration = Duration::from_secs(1);
/// Time in which a file system has to answer a check; after it nothing is served until it does.
const FILE_SYSTEM_TIMEOUT: Duration = Duration::from_secs(10);

/// Monitors the mounts until `stop` is cancelled.
pub(super) async fn monitor_mounts(tree: Tree, stop: CancellationToken) {
    let table = MountTable::open();
    while !stop.is_cancelled() {
        let mut check = tokio::task::spawn_blocking({
            let tree = tree.clone();
            move || drop(tree.check_availability())
        });
        if tokio::time::timeout(FILE_SYSTEM_TIMEOUT, &mut check).await.is_err() {
            tree.suspend();
            // The check under way ends when the file system answers, and resumes service. No second one is started
            // beside it: each would block another thread.
            tokio::select! {
                () = stop.cancelled() => return,
                _ = check => {}
            }
        }
        tokio::select! {
            () = stop.cancelled() => {}
            () = table.changed() => {}
            () = tokio::time::sleep(CHECK_INTERVAL) => {}
        }
    }
}

/// Mount table of this process (proc(5): a change of it is a priority event).
struct MountTable(Option<AsyncFd<File>>);

impl MountTable {
    fn open() -> Self {
        #[expect(
            deprecated,
            reason = "the replacement needs unsafe code; the file keeps its descriptor open as long as this value exists"
        )]
        let open = || AsyncFd::with_interest(File::open("/proc/self/mountinfo")?, Interest::PRIORITY | Interest::ERROR);
        Self(open().inspect_err(|error| tracing::debug!(%error, "changes of mounts are noticed once a second")).ok())
    }

    /// Waits for a change; for ever where changes can't be watched.
    async fn changed(&self) {
        let Some(table) = &self.0 else { return std::future::pending().await };
        match table.ready(Interest::PRIORITY | Interest::ERROR).await {
            Ok(mut ready) => ready.clear_ready(),
            Err(_) => std::future::pending().await,
        }
    }
}
