//! Authorization and file content: the served tree as one session may see it.
//!
//! A [`View`] is made from a [`Session`] and is the only way to file content. Each of its operations checks
//! the session's access once and then calls the file system; every refusal comes before the first effect.
//! All of them block: call them where blocking is allowed.
//!
//! Only `fs` names paths of the host.

mod authorize;
mod availability;
mod background_delete;
mod byte_change;
mod cancellation;
mod dead_property;
mod diagnosis;
mod directory_handle;
mod editor;
mod entry;
mod error;
mod etag;
mod fine_times;
mod fs;
mod handle_access;
mod host_access;
mod host_refusal_log;
mod in_place;
mod index;
mod interrupted_uploads;
mod link_moves;
mod listing;
mod lock;
mod lock_token;
mod media;
mod open_file;
mod open_limit;
mod outage;
mod path_locks;
mod pending_upload;
mod property;
mod reader;
mod reattach;
mod recount_state;
mod slot_id;
mod stat_batch;
mod storage_ledger;
mod storage_recount;
mod sync_fingerprints;
mod tags;
#[cfg(test)]
pub(crate) mod testing;
mod unicode_spelling;
mod upload;
mod upload_budget;
mod upload_registry;
mod view;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use availability::AvailabilityState;
use background_delete::BackgroundDeletes;
use etag::EtagTracker;
use fine_times::FineTimes;
pub(crate) use fs::StateDirectoryLock;
use fs::{Errno, KeptNamesFn, ServedFs};
use host_access::FsHostAccess;
use index::NodeIndex;
use interrupted_uploads::InterruptedUploads;
use link_moves::LinkMoves;
use lock::LockTable;
use open_limit::OpenFileLimit;
use path_locks::PathLocks;
use storage_ledger::StorageLedger;
use sync_fingerprints::SyncFingerprintCache;
use upload_registry::UploadRegistry;

use crate::auth::{Clock, Session};
use crate::domain::{Login, NodeId, TreePath};
use crate::store::{self, Store};

pub use authorize::CachedFile;
pub use cancellation::{CancelOnDrop, CancellationFlag};
pub use dead_property::{DeadProperty, PropertyChange, PropertyName};
pub use diagnosis::LostAccess;
pub use editor::FileEditor;
pub use entry::{AttributeChanges, Entry, EntryKind, Etag, FilesystemSpace, Timestamp};
pub use error::Error;
pub use host_refusal_log::log_host_refusal;
pub use index::NamedNode;
pub use interrupted_uploads::{InterruptedUploadPolicy, UnfinishedUploadBytes};
pub use listing::DirectoryListing;
pub use lock::{DavLock, LockRequest};
pub use lock_token::LockToken;
pub use media::{MediaTypeLookup, media_type};
pub use open_file::{OpenFile, OpenRequest, SessionFiles, SessionListing};
pub use outage::{OUTAGE_RETRY_AFTER, TreeOutage};
pub use pending_upload::{IncomingPart, PendingUpload, StagedPart, SyncedPart};
pub use reader::FileReader;
pub use reattach::{NodeMatch, NodeReattachment};
pub use storage_recount::StorageRecount;
pub use tags::{PATGATE_NAMESPACE, set_tags_change, tags_property};
pub use unicode_spelling::move_destination;
pub use upload::{CommittedUpload, StagedUpload};
pub use view::{
    AcquiredLock, ChangedMember, EditMode, OverwriteMode, ResolvedEntry, SyncChanges, SyncItem, SyncPoint, View,
    WriteConditions,
};

/// The result of an operation on the tree.
pub type Result<T> = std::result::Result<T, Error>;

/// The moment at which a write is answered with success.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CommitDurability {
    /// After the content and its directory entry were synced to disk.
    #[default]
    Full,
    /// Before anything is synced: a power cut may lose the last writes.
    Fast,
}

impl CommitDurability {
    /// Returns the durability of store rows that belong to content: the same as that of the content.
    fn of_rows(self) -> store::WriteDurability {
        match self {
            CommitDurability::Full => store::WriteDurability::Synced,
            CommitDurability::Fast => store::WriteDurability::Lazy,
        }
    }
}

/// Options of [`Tree::open`].
#[derive(Clone, Debug)]
pub struct TreeOptions {
    /// Path of the served directory on the host.
    pub root: PathBuf,
    /// Whether content is synced before success is answered.
    pub durability: CommitDurability,
}

/// The served tree, independent of any session; clones share it.
#[derive(Clone)]
pub struct Tree {
    shared: Arc<SharedTree>,
}

/// State that all views of a tree share.
struct SharedTree {
    fs: Arc<ServedFs>,
    index: NodeIndex,
    locks: LockTable,
    etags: Arc<EtagTracker>,
    path_locks: PathLocks,
    /// Moves of symbolic links and directories.
    link_moves: LinkMoves,
    /// Serializes the comparisons of a directory with its sync journal, by token and directory.
    journal_locks: PathLocks,
    /// Fingerprints of the members that sync journals have.
    sync_fingerprints: SyncFingerprintCache,
    background_deletes: BackgroundDeletes,
    storage_ledger: StorageLedger,
    /// Uploads under way, by target directory.
    upload_registry: Arc<UploadRegistry>,
    /// Uploads that lost their connection and may be resumed.
    interrupted_uploads: InterruptedUploads,
    clock: Clock,
    /// Limit on open files and directories.
    open_limit: OpenFileLimit,
    durability: CommitDurability,
    availability: AvailabilityState,
    /// Held by the process that serves the tree; `None` for administration beside it.
    serve_lock: Option<StateDirectoryLock>,
}

impl SharedTree {
    /// Tells whether this process serves the tree, rather than administers it beside the server.
    fn is_serving(&self) -> bool {
        self.serve_lock.is_some()
    }
}

impl Tree {
    /// Opens the served directory: completes or undoes intents, loads locks, and starts to sweep everything but
    /// unfinished uploads from staging.
    ///
    /// # Errors
    /// [`Error::TreeMismatch`] when it is not the directory in which node ids were assigned, [`Error::Filesystem`] when
    /// it can't be opened or another server uses it or the state directory, [`Error::Store`].
    pub fn open(options: TreeOptions, store: Store, clock: Clock) -> Result<Self> {
        // First of all: a second server on this state directory must not touch tree or staging.
        let serve_lock = StateDirectoryLock::acquire(store.state_dir()).map_err(Error::Filesystem)?;
        let tree = Self::open_with(&options, store, clock, Some(serve_lock))?;
        // After the check of availability: a bare mount point must not decide intents.
        tree.shared.index.recover()?;
        // Files may have changed on the host, and a kill may have left a charge without its effect.
        tree.request_storage_recounts()?;
        Ok(tree)
    }

    /// Opens the served directory for administration beside a running server: it sweeps and undoes nothing.
    ///
    /// # Errors
    /// As [`Tree::open`].
    pub fn attach(options: TreeOptions, store: Store, clock: Clock) -> Result<Self> {
        Self::open_with(&options, store, clock, None)
    }

    fn open_with(
        options: &TreeOptions,
        store: Store,
        clock: Clock,
        serve_lock: Option<StateDirectoryLock>,
    ) -> Result<Self> {
        // Only the serving process sweeps: beside it, staging belongs to uploads under way.
        let kept_names = serve_lock.is_some().then(|| kept_names_fn(store.clone()));
        let fs = Arc::new(ServedFs::open(&options.root, kept_names).map_err(Error::Filesystem)?);
        let background_deletes = BackgroundDeletes::default();
        let host_access = FsHostAccess::new(Arc::clone(&fs), background_deletes.clone());
        let row_durability = options.durability.of_rows();
        let index = NodeIndex::new(store.clone(), Arc::new(host_access), row_durability);
        // Verified before the marker is recorded, or a wrong directory would become the known one.
        availability::verify_root(&fs, &index)?;
        if serve_lock.is_some() {
            fs.lock_for_serving().map_err(Error::Filesystem)?;
            availability::record_root_marker(&fs, &store)?;
        }
        let tree = Self {
            shared: Arc::new(SharedTree {
                etags: EtagTracker::new(store.etag_key()?, Some(FineTimes::new(Arc::clone(&fs), store.clone()))),
                fs,
                interrupted_uploads: InterruptedUploads::new(store.clone(), clock.clone()),
                locks: LockTable::open(store.clone(), clock.clone(), row_durability)?,
                index,
                path_locks: PathLocks::new(),
                link_moves: LinkMoves::default(),
                journal_locks: PathLocks::new(),
                sync_fingerprints: SyncFingerprintCache::default(),
                background_deletes,
                storage_ledger: StorageLedger::new(store.clone()),
                upload_registry: Arc::default(),
                clock,
                open_limit: OpenFileLimit::default(),
                durability: options.durability,
                availability: AvailabilityState::default(),
                serve_lock,
            }),
        };
        // Before the first request: a mount point without its file system must not be taken for the tree.
        tree.check_availability();
        Ok(tree)
    }

    /// Returns the view that a session has of the tree.
    pub fn view(&self, session: Session) -> View {
        View::new(Arc::clone(&self.shared), session)
    }

    /// Assigns a node id to the entry at a path and to its ancestors; returns the id that it has already, if any.
    ///
    /// # Errors
    /// [`Error::Absent`] when the entry does not exist.
    pub fn assign_node_id(&self, path: &TreePath) -> Result<NodeId> {
        self.shared.index.assign_id(path)
    }

    /// Assigns a node id as [`Tree::assign_node_id`] does, and counts it in the quota of a user.
    ///
    /// # Errors
    /// As [`Tree::assign_node_id`]; [`Error::Store`] with a quota error when the user, or all users together, have
    /// reached the limit of named nodes.
    pub fn assign_node_id_for_user(&self, path: &TreePath, charged_to: Option<&Login>) -> Result<NodeId> {
        self.shared.index.assign_id_for_user(path, charged_to)
    }

    /// Removes the locks of users who were removed. Call it periodically.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub fn end_locks_of_removed_users(&self) -> Result<()> {
        self.shared.locks.release_for_removed_users()
    }

    /// Checks that [`Tree::assign_node_id`] would succeed for a path, without assigning an id.
    ///
    /// # Errors
    /// As [`Tree::assign_node_id`].
    pub fn can_assign_node_id(&self, path: &TreePath) -> Result<()> {
        self.shared.index.can_assign_id(path)
    }

    /// Returns the path of a node; `None` when it was removed or another entry is at its path.
    pub fn locate(&self, node: NodeId) -> Result<Option<TreePath>> {
        self.shared.index.locate(node)
    }

    /// Returns the nodes at and below a path, in the order of their paths.
    pub fn nodes(&self, under: &TreePath) -> Result<Vec<NamedNode>> {
        self.shared.index.list(under)
    }

    /// Deletes the rows of removed nodes that no grant, scope or property refers to; all rows when the
    /// served directory is not the one in which their ids were assigned. Returns the dangling nodes, deleted or not.
    pub fn repair(&self) -> Result<Vec<NamedNode>> {
        self.shared.index.repair()
    }

    /// Creates a directory with its ancestors for administration, such as a user's home, unless it exists. Returns
    /// whether this call created it.
    ///
    /// # Errors
    /// [`Error::AlreadyExists`] when the path or one of its ancestors is not a directory.
    pub fn ensure_directory(&self, path: &TreePath) -> Result<bool> {
        let fs = &self.shared.fs;
        fs.check_available()?;
        let (mut directory, mut current, mut created) = (fs.root()?, TreePath::root(), false);
        for name in path.names() {
            created = match directory.create_directory(&name, fs.apply_umask(0o777)) {
                Ok(()) => true,
                Err(Errno::EXIST) => false,
                Err(error) => return Err(error.into()),
            };
            // Each level is on disk before the next one is created in it.
            if created && self.shared.durability == CommitDurability::Full {
                directory.sync()?;
            }
            let next = TreePath::root().child(&name);
            // Through the open parent, so that no link or rename on the way leads elsewhere.
            directory = directory.open_directory(&next).map_err(|error| match Error::from(error) {
                Error::Absent => Error::AlreadyExists,
                other => other,
            })?;
            current = current.child(&name);
            // Refuses the bare mount point of a file system that has nodes and is not mounted.
            fs.open_directory(&current)?;
        }
        Ok(created)
    }

    /// Checks that no server of this machine serves a directory above or below. [`Tree::open`] does so as well, but a process
    /// that is confined by then may not see the other one.
    ///
    /// # Errors
    /// [`Error::Filesystem`], with the other directory.
    pub fn refuse_overlapping_root(root: &Path) -> Result<()> {
        fs::refuse_overlapping_root(root).map_err(Error::Filesystem)
    }

    /// Tells whether flock(2) works on the file system of a directory that was served; `None` when it was not served
    /// yet.
    pub fn supports_flock(root: &Path) -> Option<bool> {
        fs::supports_flock(root)
    }

    /// Returns why the reserved directory `.patgate` below `root` is not private to the server, as the rest of a
    /// sentence.
    pub fn reserved_directory_fault(root: &Path) -> Option<String> {
        fs::reserved_directory_fault(root)
    }

    /// Checks that a directory is the one in which the node ids of a store were assigned.
    ///
    /// # Errors
    /// [`Error::TreeMismatch`]; [`Error::Filesystem`], [`Error::Store`].
    pub fn verify_root(root: &Path, store: &Store) -> Result<()> {
        let fs = Arc::new(ServedFs::open(root, None).map_err(Error::Filesystem)?);
        let host_access = FsHostAccess::new(Arc::clone(&fs), BackgroundDeletes::default());
        availability::verify_root(
            &fs,
            &NodeIndex::new(store.clone(), Arc::new(host_access), store::WriteDurability::Lazy),
        )
    }

    /// Waits for background removals to end; staging then holds nothing but unfinished uploads.
    pub fn wait_for_background_deletes(&self) {
        self.shared.background_deletes.wait_until_idle();
    }
}

/// Returns a function that lists the names in staging that belong to unfinished uploads.
fn kept_names_fn(store: Store) -> KeptNamesFn {
    Box::new(move || {
        // On an error nothing is swept: debris can wait, but an unfinished upload would be lost.
        let names = store.staged_names();
        names.inspect_err(|error| tracing::error!(%error, "staging is not swept")).ok()
    })
}
