//! May they, and the bytes: the served tree as one session may see it.
//!
//! A [`View`] is made from a [`Session`] and is the only way to a byte. Each of its operations is one
//! check against the session's access, then the host; every refusal comes before the first effect.
//! All of them block: call them where blocking is allowed.
//!
//! `host` alone names host paths.

mod authorize;
mod availability;
mod background_delete;
mod cancellation;
mod editor;
mod entry;
mod error;
mod etag;
mod fine_times;
mod fs;
mod handle_access;
mod host_access;
mod in_place;
mod index;
mod interrupted_uploads;
mod link_moves;
mod listing;
mod lock;
mod media;
mod open_file;
mod open_limit;
mod outage;
mod path_locks;
mod pending_upload;
mod property;
mod reader;
mod reattach;
mod tags;
#[cfg(test)]
pub(crate) mod testing;
mod unicode_spelling;
mod upload;
mod upload_registry;
mod view;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use availability::AvailabilityState;
use background_delete::BackgroundDeletes;
use etag::EtagTracker;
use fine_times::FineTimes;
use fs::{Errno, KeptNamesFn, ServedFs, StateDirectoryLock};
use host_access::FsHostAccess;
use index::NodeIndex;
use interrupted_uploads::InterruptedUploads;
use link_moves::LinkMoves;
use lock::LockTable;
use open_limit::OpenFileLimit;
use path_locks::PathLocks;
use upload_registry::UploadRegistry;

use crate::auth::{Clock, Session};
use crate::domain::{Login, NodeId, TreePath};
use crate::store::{self, Store};

pub use cancellation::{CancelOnDrop, CancellationFlag};
pub use editor::FileEditor;
pub use entry::{AttributeChanges, Entry, EntryKind, Etag, FilesystemSpace, Timestamp};
pub use error::Error;
pub use index::NamedNode;
pub use interrupted_uploads::{InterruptedUploadPolicy, UnfinishedUploadBytes};
pub use listing::DirectoryListing;
pub use lock::{DavLock, LockRequest, LockToken};
pub use media::media_type;
pub use open_file::{OpenFile, OpenRequest, SessionFiles, SessionListing};
pub use outage::{OUTAGE_RETRY_AFTER, TreeOutage};
pub use pending_upload::{IncomingPart, PendingUpload, StagedPart, SyncedPart};
pub use property::{DeadProperty, PropertyChange, PropertyName};
pub use reader::FileReader;
pub use reattach::{NodeMatch, NodeReattachment};
pub use tags::{set_tags_change, tags_property};
pub use unicode_spelling::move_destination;
pub use upload::{CommittedUpload, StagedUpload};
pub use view::{ChangedMember, EditMode, OverwriteMode, SyncChanges, SyncItem, SyncPoint, View, WriteConditions};

/// The result of an operation on the tree.
pub type Result<T> = std::result::Result<T, Error>;

/// When success after a write is answered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CommitDurability {
    /// Once the bytes and their name are on disk.
    #[default]
    Full,
    /// At once; a power cut may lose what was just written.
    Fast,
}

impl CommitDurability {
    /// Returns how soon what the store keeps for a request is on disk: as soon as content is.
    fn of_rows(self) -> store::WriteDurability {
        match self {
            CommitDurability::Full => store::WriteDurability::Synced,
            CommitDurability::Fast => store::WriteDurability::Lazy,
        }
    }
}

/// How a tree is served.
#[derive(Clone, Debug)]
pub struct TreeOptions {
    /// The served folder.
    pub root: PathBuf,
    /// When success is answered.
    pub durability: CommitDurability,
}

/// The served tree, without regard to who asks; clones share it.
#[derive(Clone)]
pub struct Tree {
    shared: Arc<SharedTree>,
}

/// What all views of a tree share.
struct SharedTree {
    fs: Arc<ServedFs>,
    index: NodeIndex,
    locks: LockTable,
    etags: Arc<EtagTracker>,
    path_locks: PathLocks,
    /// Moves of symbolic links and directories.
    link_moves: LinkMoves,
    /// One comparison with a journal at a time, by its token and directory.
    journal_locks: PathLocks,
    background_deletes: BackgroundDeletes,
    /// Uploads under way, by the directories that they are for.
    upload_registry: Arc<UploadRegistry>,
    /// What lost connections have left of uploads.
    interrupted_uploads: InterruptedUploads,
    clock: Clock,
    /// Places of what is open.
    open_limit: OpenFileLimit,
    durability: CommitDurability,
    availability: AvailabilityState,
    /// Where this is the process that serves the tree.
    serve_lock: Option<StateDirectoryLock>,
}

impl SharedTree {
    /// Tells whether this process serves the tree, and does not look at it beside the one that does.
    fn is_serving(&self) -> bool {
        self.serve_lock.is_some()
    }
}

impl Tree {
    /// Opens the served folder: completes or undoes intents, loads locks, and begins to sweep staging of all but unfinished
    /// uploads.
    ///
    /// # Errors
    /// [`Error::TreeMismatch`] when it is not the folder that nodes were named in, [`Error::Filesystem`] when the folder can't be
    /// used or another server uses it or the state, [`Error::Store`] when the store can't.
    pub fn open(options: TreeOptions, store: Store, clock: Clock) -> Result<Self> {
        let serve_lock = StateDirectoryLock::acquire(store.state_dir()).map_err(Error::Filesystem)?;
        let tree = Self::open_with(&options, store, clock, Some(serve_lock))?;
        tree.shared.index.recover()?;
        Ok(tree)
    }

    /// Opens the served folder beside a running server, for administration: sweeps and undoes nothing.
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
        let kept_names = serve_lock.is_some().then(|| kept_names_fn(store.clone()));
        let fs = Arc::new(ServedFs::open(&options.root, kept_names).map_err(Error::Filesystem)?);
        let background_deletes = BackgroundDeletes::default();
        let host_access = FsHostAccess::new(Arc::clone(&fs), background_deletes.clone());
        let row_durability = options.durability.of_rows();
        let index = NodeIndex::new(store.clone(), Arc::new(host_access), row_durability);
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
                background_deletes,
                upload_registry: Arc::default(),
                clock,
                open_limit: OpenFileLimit::default(),
                durability: options.durability,
                availability: AvailabilityState::default(),
                serve_lock,
            }),
        };
        // Before anything is judged by what stands in the place of a file system that is not mounted.
        tree.check_availability();
        Ok(tree)
    }

    /// Returns the tree as a session may see it.
    pub fn view(&self, session: Session) -> View {
        View::new(Arc::clone(&self.shared), session)
    }

    /// Names the node at a path, with its ancestors; returns the name it has when it has one.
    ///
    /// # Errors
    /// [`Error::Absent`] when nothing is there.
    pub fn assign_node_id(&self, path: &TreePath) -> Result<NodeId> {
        self.shared.index.assign_id(path)
    }

    /// Likewise, counted for the user who asks for it, where one does.
    ///
    /// # Errors
    /// As [`Tree::assign_node_id`]; [`Error::Store`] of a shortage where the user, or all together, have as many nodes named as may
    /// be.
    pub fn mint_for(&self, path: &TreePath, charged_to: Option<&Login>) -> Result<NodeId> {
        self.shared.index.mint_for(path, charged_to)
    }

    /// Ends the locks of users who were removed; to be called now and then.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub fn end_locks_of_removed_users(&self) -> Result<()> {
        self.shared.locks.release_for_removed_users()
    }

    /// Makes sure that [`Tree::assign_node_id`] can name the node at a path; names nothing.
    ///
    /// # Errors
    /// As [`Tree::assign_node_id`].
    pub fn can_assign_node_id(&self, path: &TreePath) -> Result<()> {
        self.shared.index.can_assign_id(path)
    }

    /// Returns where a node is; `None` when it has ended or another folder stands in its place.
    pub fn locate(&self, node: NodeId) -> Result<Option<TreePath>> {
        self.shared.index.locate(node)
    }

    /// Returns the named nodes at and below a path, in the order of their paths.
    pub fn nodes(&self, under: &TreePath) -> Result<Vec<NamedNode>> {
        self.shared.index.list(under)
    }

    /// Drops the rows of ended nodes that no grant, scope or property names; all of them where the
    /// served folder is another than the nodes were named in. Returns what dangles, dropped or not.
    pub fn repair(&self) -> Result<Vec<NamedNode>> {
        self.shared.index.repair()
    }

    /// Makes a folder (and those above it) for administration, where none is, such as a user's home. Returns
    /// whether it is this that made it.
    ///
    /// # Errors
    /// [`Error::AlreadyExists`] when something else stands there or on the way.
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
            if created && self.shared.durability == CommitDurability::Full {
                directory.sync()?;
            }
            let next = TreePath::root().child(&name);
            directory = directory.open_directory(&next).map_err(|error| match Error::from(error) {
                Error::Absent => Error::AlreadyExists,
                other => other,
            })?;
            current = current.child(&name);
            fs.open_directory(&current)?;
        }
        Ok(created)
    }

    /// Tells whether locks work on the file system of a folder that was served; `None` where it was not yet.
    pub fn supports_flock(root: &Path) -> Option<bool> {
        fs::supports_flock(root)
    }

    /// Tells why the reserved directory of a folder is not ours alone, as the rest of a sentence.
    pub fn reserved_directory_fault(root: &Path) -> Option<String> {
        fs::reserved_directory_fault(root)
    }

    /// Tells that a folder is the one that the nodes of a store were named in.
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

    /// Waits for removals under way; staging holds nothing then but unfinished uploads.
    pub fn wait_for_background_deletes(&self) {
        self.shared.background_deletes.wait_until_idle();
    }
}

/// Asks for what of staging belongs to unfinished uploads.
fn kept_names_fn(store: Store) -> KeptNamesFn {
    Box::new(move || {
        let names = store.staged_names();
        names.inspect_err(|error| tracing::error!(%error, "staging is not swept")).ok()
    })
}
