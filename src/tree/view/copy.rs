//! COPY: the copy is written to staging, however long that takes, and renamed into place in one step.

use std::cell::Cell;
use std::time::Duration;

use super::links::{link_may_move, parent_segments_lead};
use super::storage_changes::{QuotaCheck, file_bytes};
use super::tree_sync::is_synced_at_once;
use super::{OverwriteMode, View, WriteConditions};
use crate::domain::{EntryName, Permission, TreeOperation, TreePath};
use crate::tree::authorize::{EntrySlot, OpenEntry, link_stays_within};
use crate::tree::byte_change::ByteChange;
use crate::tree::fs::{DirectoryFd, Errno, FdLocation, FileFd, OpenMode, StagedEntry, Stat, none_if_vanished};
use crate::tree::handle_access::HandleAccess;
use crate::tree::index::IndexChange;
use crate::tree::{EntryKind, Error, Result};

/// Number of bytes copied between two checks of the session.
const COPY_BLOCK_BYTES: usize = 8 << 20;
/// Time for which the path of a directory is not looked up again while its files are copied. The session is asked for
/// each of them.
const SOURCE_RECHECK_INTERVAL: Duration = Duration::from_millis(1);

impl View {
    /// Copies a file, or a directory with everything below it (`depth_infinity`) or without, with dead properties. The
    /// copy appears in one step. Returns whether something was replaced.
    ///
    /// Sockets, devices and pipes are left out, and symbolic links that are absolute or lead out of the directory.
    ///
    /// # Errors
    /// [`Error::Absent`], [`Error::NoParent`], [`Error::AlreadyExists`], [`Error::Forbidden`], [`Error::Overlap`],
    /// [`Error::Locked`], [`Error::NoSpace`], [`Error::PathTooLong`]; [`Error::TooLarge`], [`Error::TypeNotAllowed`]
    /// and [`Error::TagNotAllowed`] for any entry below.
    pub fn copy(
        &self,
        from: &TreePath,
        to: &TreePath,
        depth_infinity: bool,
        overwrite: OverwriteMode,
        conditions: &WriteConditions<'_>,
    ) -> Result<bool> {
        // Held open: a directory is copied by its descriptor, whatever its path becomes.
        let source = self.open_authorized(TreeOperation::Copy, from, OpenMode::Path)?;
        if depth_infinity && source.stat.is_directory() {
            // A file system that is not mounted now would be missing in the copy without an error.
            self.fs().verify_mounts_below(&source.path)?;
        }
        let target = self.create_slot(to)?;
        let into_itself = depth_infinity && target.path.starts_with(&source.path);
        // A copy into itself would never end, and one over an ancestor would remove its own source.
        if into_itself || source.path.starts_with(&target.path) {
            return Err(Error::Overlap);
        }
        // First check, so that most refusals come before the copying. It is repeated under the commit lock.
        let replaced = self.check_replace(&target, overwrite, conditions)?;
        self.check_copied_bytes(&source, depth_infinity, &target.path, file_bytes(replaced.as_ref()))?;
        // Both can refuse the copy, and must do so before it is visible: afterwards it could not be taken back.
        self.check_copied_tags(&source.path, depth_infinity)?;
        let (index, login) = (&self.shared().index, self.session().login());
        let check_properties = || index.check_copy_properties(&source.path, &target.path, login, depth_infinity);
        check_properties()?;
        let job = CopyJob {
            view: self,
            access: HandleAccess::new(self, source.path.clone(), Permission::R)?,
            target: target.path.clone(),
            is_move: false,
            move_by_copy: None,
            skips_limits: false,
            syncs_at_once: self.is_synced() && self.staging(&target)?.is_in_memory()?,
        };
        let (staged, bytes) = self.stage_copy(&job, (source.file, &source.stat), &target, depth_infinity)?;
        // Lock order: names, locks, index, link moves (see `link_moves`).
        let path_guards = self.shared().path_locks.lock(&[&target.path]);
        let lock_freeze = self.shared().locks.freeze();
        // Again under the locks: target, locks and conditions may have changed during the copying.
        let replaced = self.check_replace(&target, overwrite, conditions)?;
        // The quotas as well: whatever else the user did meanwhile counts in them.
        check_properties()?;
        let involves_directory = source.stat.is_directory() || replaced.as_ref().is_some_and(Stat::is_directory);
        // A file that replaces a file keeps the target's node, as in a PUT. Where a directory is involved the old nodes
        // end.
        let index_change = match involves_directory && replaced.is_some() {
            true => Some(index.begin_remove(&target.path)?),
            false => None,
        };
        let put = || self.commit_staged(staged, source.stat.is_directory(), &target, replaced.as_ref(), overwrite);
        let changes = || {
            let replaced = ByteChange::file(&target.path, file_bytes(target.stat()?.as_ref()), 0);
            let copy = match source.stat.is_directory() {
                true => ByteChange::added_directory(&target.path, bytes),
                false => ByteChange::file(&target.path, 0, bytes),
            };
            Ok(vec![replaced, copy])
        };
        let old = self.with_byte_changes(QuotaCheck::Enforced, &[target.place()], changes, || {
            // Nobody may write in place into a file between the check and its replacement: the write would be lost.
            let old = self.shared().etags.while_replacing(replaced.as_ref(), 0, put)?;
            self.count_replaced_directory(&target, old.as_ref())?;
            Ok(old)
        })?;
        // Before the index: a power cut must not bring the old target back without its nodes.
        self.sync_directory(&target.directory)?;
        index_change.map_or(Ok(()), IndexChange::finish)?;
        old.into_iter().for_each(|old| self.shared().background_deletes.enqueue(old));
        self.shared().locks.remove_below(&target.path);
        drop((lock_freeze, path_guards));
        // After the locks, since it may assign many node ids. Quotas were checked before the copy was visible.
        index.copy_properties(&source.path, &target.path, login, depth_infinity)?;
        Ok(replaced.is_some())
    }

    /// Copies the source into staging. Returns the copy, and the bytes of its files where they count for a quota.
    fn stage_copy(
        &self,
        job: &CopyJob<'_>,
        (source, stat): (FileFd, &Stat),
        target: &EntrySlot,
        depth_infinity: bool,
    ) -> Result<(StagedEntry, u64)> {
        let staging = self.staging(target)?;
        if stat.is_directory() {
            let staged = staging.create_directory()?;
            let copy = job.copy_directory(&source.into(), stat, &staged, depth_infinity)?;
            // Synced before the locks are acquired, so that nobody else waits for it.
            if self.is_synced() && !(job.syncs_at_once && depth_infinity) {
                self.sync_tree(&copy)?;
            }
            return Ok((staged, self.counted_bytes(&target.path, &copy)?));
        }
        // The file that was authorized: another one may have the name by now.
        let file = source.reopen_to_read()?;
        let (copy, staged) = staging.create_file()?;
        job.copy_file(&file, &file.stat()?, &copy, &target.name)?;
        if self.is_synced() {
            copy.sync()?;
        }
        Ok((staged, copy.stat()?.size))
    }

    /// Checks before the copying that the files of the source fit the quotas at the target.
    fn check_copied_bytes(
        &self,
        source: &OpenEntry,
        depth_infinity: bool,
        target: &TreePath,
        replaced: u64,
    ) -> Result<()> {
        if !source.stat.is_directory() {
            return self.check_quota(target, replaced, source.stat.size);
        }
        if !depth_infinity {
            return Ok(());
        }
        let directory = self.fs().open_directory(&source.path)?;
        self.check_quota(target, replaced, self.counted_bytes(target, &directory)?)
    }

    /// Renames a staged entry to its target, under the commit lock of the name. Where a directory is replaced, or
    /// replaces, both are exchanged: returns the replaced entry, which is in staging then and to be removed.
    pub(super) fn commit_staged(
        &self,
        mut staged: StagedEntry,
        is_directory: bool,
        target: &EntrySlot,
        replaced: Option<&Stat>,
        overwrite: OverwriteMode,
    ) -> Result<Option<StagedEntry>> {
        // NOREPLACE: an entry that appeared behind the gateway's back since the check is not overwritten.
        let Some(old) = replaced else {
            return staged
                .rename_to_new(&target.directory, &target.name)
                .map_err(Error::from_target_errno)
                .map(|()| None);
        };
        // rename(2) replaces a file by a file, and checks the POSIX rules for directories itself.
        if overwrite == OverwriteMode::Posix || !(is_directory || old.is_directory()) {
            return staged.rename_to(&target.directory, &target.name).map_err(Error::from_target_errno).map(|()| None);
        }
        self.exchange_staged(staged, target)
    }

    /// Exchanges a staged entry with the one at the target, under the commit lock of the name, and returns the replaced
    /// one.
    pub(super) fn exchange_staged(&self, mut staged: StagedEntry, target: &EntrySlot) -> Result<Option<StagedEntry>> {
        // No upload begins in the replaced directory meanwhile: it would be answered as a success, and be removed.
        let exchange = || Ok(staged.exchange(&target.directory, &target.name));
        match self.shared().upload_registry.remove_all(self.fs(), &target.path, exchange)? {
            Ok(()) => Ok(Some(staged)),
            // The old entry was removed behind the gateway's back.
            Err(Errno::NOENT) => {
                staged.rename_to_new(&target.directory, &target.name).map_err(Error::from_target_errno).map(|()| None)
            }
            // The file system has no RENAME_EXCHANGE: two renames, with a note for the next start.
            Err(Errno::INVAL | Errno::NOSYS) => {
                let staging = self.staging(target)?;
                let put = || staged.rename_to_new(&target.directory, &target.name);
                staging
                    .replace_with_backup(&target.directory, &target.name, &target.path, put)
                    .map(Some)
                    .map_err(Error::from_target_errno)
            }
            Err(error) => Err(Error::from_target_errno(error)),
        }
    }
}

/// Paths of a move that copies.
pub(super) struct MoveByCopy {
    pub(super) from: TreePath,
    pub(super) to: TreePath,
    /// Topmost ancestor of the target at which the session may write.
    pub(super) link_boundary: TreePath,
    /// See [`CopyJob::copied_fingerprint`].
    pub(super) copied_fingerprint: Cell<u64>,
}

/// Copy under way.
pub(super) struct CopyJob<'a> {
    pub(super) view: &'a View,
    pub(super) access: HandleAccess,
    /// Path that the copy will have.
    pub(super) target: TreePath,
    /// Whether it is a move: times are kept, and an entry that can't be copied is an error.
    pub(super) is_move: bool,
    /// Source and target of a move; `None` for a copy, whose links are new ones.
    pub(super) move_by_copy: Option<MoveByCopy>,
    /// Whether the token's limits are not checked: the session may not read the source, and a refusal would reveal its
    /// content.
    pub(super) skips_limits: bool,
    /// Whether files and directories are synced while they are still open: in memory, where a sync waits for nothing.
    /// On a disk each would be a commit of its own; there the copy is synced as a whole.
    pub(super) syncs_at_once: bool,
}

impl CopyJob<'_> {
    fn check_limits(&self, check: impl FnOnce() -> Result<()>) -> Result<()> {
        if self.skips_limits { Ok(()) } else { check() }
    }

    /// Copies a file to one that will have the name `name`, with mode and times.
    pub(super) fn copy_file(&self, from: &FileFd, stat: &Stat, to: &FileFd, name: &EntryName) -> Result<()> {
        // At each block, so that a revoked token ends a copy of any size.
        self.copy_content(from, stat, to, name, || self.access.authorize_use(from))?;
        // Only the server could read the staged copy until here. Set-ID bits are not copied.
        to.set_mode(stat.mode & 0o777)?;
        self.set_copied_attributes(stat, to)
    }

    /// Copies the content of a file, each block of which `authorize` authorizes, to one that will have the name `name`.
    fn copy_content(
        &self,
        from: &FileFd,
        stat: &Stat,
        to: &FileFd,
        name: &EntryName,
        authorize: impl Fn() -> Result<()>,
    ) -> Result<()> {
        // By size and name before the first byte, by content once it is complete.
        self.check_limits(|| self.view.check_size(stat.size).and_then(|()| self.view.check_name_type(name)))?;
        let mut offset = 0;
        loop {
            self.view.cancellation().check()?;
            authorize()?;
            match from.copy_to(to, offset, COPY_BLOCK_BYTES)? {
                0 => break,
                copied => offset += copied as u64,
            }
            // The source may grow while it is copied: its last block may end behind its size.
            self.check_limits(|| self.view.check_size(offset))?;
            if offset >= stat.size {
                break;
            }
        }
        self.check_limits(|| self.view.check_file(name, to))
    }

    /// Sets owner and times of the copy of a file with the metadata `stat`.
    fn set_copied_attributes(&self, stat: &Stat, to: &FileFd) -> Result<()> {
        if self.is_move {
            to.set_owner(Some(stat.uid), Some(stat.gid));
            let modified = self.view.shared().etags.modified_time(stat)?;
            return self.view.shared().etags.set_times(to, Some(modified), Some(stat.accessed));
        }
        // New content: its own entity tag and modification time.
        self.view.shared().etags.set_times(to, Some(self.view.shared().etags.fresh_time(None)), None)
    }

    /// Copies a directory into a staged one, one directory at a time, so that no depth needs more than a few open
    /// descriptors. Returns the copy. Entries that another client removes meanwhile are left out.
    ///
    /// # Errors
    /// [`Error::Absent`] where the directory itself was removed meanwhile; [`Error::PreconditionFailed`] for an entry
    /// that vanishes from the source of a move.
    pub(super) fn copy_directory(
        &self,
        from: &DirectoryFd,
        stat: &Stat,
        staged: &StagedEntry,
        depth_infinity: bool,
    ) -> Result<DirectoryFd> {
        let (staging, name) = staged.directory_and_name();
        let to = staging.open_directory(&TreePath::root().child(name))?;
        let mut pending = if depth_infinity { vec![TreePath::root()] } else { Vec::new() };
        while let Some(relative_path) = pending.pop() {
            self.copy_entries(from, &to, &relative_path, &mut pending)?;
        }
        if depth_infinity {
            self.check_source_in_tree(from)?;
        }
        self.copy_mode(&to, stat)?;
        Ok(to)
    }

    /// Checks after the copying that the source, and every file system below it, is still where it was: entries that
    /// vanished with the whole may be left out of no copy.
    fn check_source_in_tree(&self, from: &DirectoryFd) -> Result<()> {
        let FdLocation::Linked(path) = self.view.fs().locate_fd(from) else { return Err(Error::Absent) };
        Ok(self.view.fs().verify_mounts_below(&path)?)
    }

    /// Decides on an entry that vanished since it was listed: a copy leaves it out.
    ///
    /// # Errors
    /// [`Error::PreconditionFailed`] in a move: the entry may be back when the source is removed, and would be lost.
    fn check_may_leave_out(&self) -> Result<()> {
        if self.is_move { Err(Error::PreconditionFailed) } else { Ok(()) }
    }

    /// Returns the sum of the fingerprints of the entries that a move has copied, without the topmost one.
    pub(super) fn copied_fingerprint(&self) -> u64 {
        self.move_by_copy.as_ref().map_or(0, |moved| moved.copied_fingerprint.get())
    }

    /// Counts an entry of the source as copied, by the metadata that its copy was made of.
    fn record_copied(&self, path: &TreePath, stat: &Stat) {
        if let Some(MoveByCopy { copied_fingerprint, .. }) = &self.move_by_copy {
            let fingerprint = self.view.entry_fingerprint(path, stat);
            copied_fingerprint.set(copied_fingerprint.get().wrapping_add(fingerprint));
        }
    }

    fn copy_entries(
        &self,
        from: &DirectoryFd,
        to: &DirectoryFd,
        relative_path: &TreePath,
        pending: &mut Vec<TreePath>,
    ) -> Result<()> {
        let opened = from.open_directory(relative_path).and_then(|from| {
            // A move removes the source afterwards: an entry that listings leave out has to be an error.
            let names = if self.is_move { from.read_names_strict()? } else { from.read_names()? };
            Ok((from, names))
        });
        let Some((from, mut names)) = none_if_vanished(opened)? else {
            self.check_may_leave_out()?;
            // The copy of the directory itself was made when it was listed.
            return match relative_path.split_last() {
                Some((parent, name)) => Ok(to.open_directory(&parent)?.remove_directory(&name)?),
                None => Err(Error::Absent),
            };
        };
        let to = to.open_directory(relative_path)?;
        loop {
            let batch = names.next_batch_with_files()?;
            if batch.is_empty() {
                return if self.syncs_at_once { Ok(to.sync()?) } else { Ok(()) };
            }
            self.access.authorize_use(&names)?;
            for (name, is_file) in batch {
                self.view.cancellation().check()?;
                // Asked for its kind only where that is not known from the listing.
                if !(is_file && self.copy_listed_file(&from, &to, &name, relative_path)?) {
                    self.copy_entry(&from, &to, &name, relative_path, pending)?;
                }
            }
        }
    }

    /// Copies an entry that was listed as a regular file; returns whether it still is one.
    fn copy_listed_file(
        &self,
        from: &DirectoryFd,
        to: &DirectoryFd,
        name: &EntryName,
        parent_path: &TreePath,
    ) -> Result<bool> {
        // Whatever is in the way is found again, and decided on, by its kind.
        let Ok(file) = from.open(name, OpenMode::Read) else { return Ok(false) };
        let stat = file.stat()?;
        if stat.kind != Some(EntryKind::File) {
            return Ok(false);
        }
        self.copy_opened_file(from, to, name, &parent_path.child(name), (&file, &stat))?;
        Ok(true)
    }

    /// Copies a file of a directory, which is open, and has the metadata `stat`.
    fn copy_opened_file(
        &self,
        from: &DirectoryFd,
        to: &DirectoryFd,
        name: &EntryName,
        path: &TreePath,
        (file, stat): (&FileFd, &Stat),
    ) -> Result<()> {
        // No client could name an entry past the limit, to read or to remove it.
        if !self.target.can_hold(path) {
            return Err(Error::PathTooLong);
        }
        // The copy is below a directory that only the server may enter, whatever the mode of its files.
        let mode = stat.mode & 0o777;
        let copy = to.create_file(name, mode)?;
        self.record_copied(path, stat);
        // By the directory: whoever may read it may read its files.
        let authorize = || self.access.authorize_use_within(SOURCE_RECHECK_INTERVAL, from);
        self.copy_content(file, stat, &copy, name, authorize)?;
        if self.view.fs().apply_umask(mode) != mode {
            copy.set_mode(mode)?;
        }
        self.set_copied_attributes(stat, &copy)?;
        // The descriptor is the last one: `sync_tree` could not open it again.
        if self.syncs_at_once || self.view.is_synced() && is_synced_at_once(stat.mode) {
            copy.sync()?;
        }
        Ok(())
    }

    fn copy_entry(
        &self,
        from: &DirectoryFd,
        to: &DirectoryFd,
        name: &EntryName,
        parent_path: &TreePath,
        pending: &mut Vec<TreePath>,
    ) -> Result<()> {
        let stat = match from.stat_entry(name) {
            Err(Errno::NOENT) => return self.check_may_leave_out(),
            stat => stat?,
        };
        let path = parent_path.child(name);
        // No client could name an entry past the limit, to read or to remove it.
        if !self.target.can_hold(&path) {
            return Err(Error::PathTooLong);
        }
        match stat.kind {
            Some(EntryKind::File) => {
                let file = match from.open(name, OpenMode::Read) {
                    Err(Errno::NOENT) => return self.check_may_leave_out(),
                    file => file?,
                };
                // Of the open file: the name may belong to another by now.
                let stat = file.stat()?;
                self.copy_opened_file(from, to, name, &path, (&file, &stat))
            }
            Some(EntryKind::Directory) => {
                self.record_copied(&path, &stat);
                to.create_directory(name, 0o700)?;
                self.copy_mode(&to.open_directory(&TreePath::root().child(name))?, &stat)?;
                pending.push(path);
                Ok(())
            }
            Some(EntryKind::Symlink) => {
                self.check_limits(|| self.view.check_name_type(name))?;
                let target = match from.read_link(name) {
                    Err(Errno::NOENT) => return self.check_may_leave_out(),
                    target => target?,
                };
                self.record_copied(&path, &stat);
                if self.copies_link(&path, &target)? {
                    to.symlink(&target, name)?;
                }
                Ok(())
            }
            // A socket or device can't be copied, and a move must lose nothing.
            None if self.is_move => Err(Error::Unsupported),
            None => Ok(()),
        }
    }

    /// Tells whether a link, at a path below the source, is copied. A link that may not be moved is an error.
    fn copies_link(&self, path: &TreePath, target: &[u8]) -> Result<bool> {
        match &self.move_by_copy {
            Some(moved)
                if link_may_move(target, &moved.from.join(path), &moved.to.join(path), &moved.link_boundary) =>
            {
                Ok(true)
            }
            Some(moved) => Err(self.view.deny_link_escape(&moved.from.join(path))),
            // A link out of the copied directory would lead elsewhere from the copy: left out.
            None => Ok(parent_segments_lead(target) && link_stays_within(path, target, &TreePath::root())),
        }
    }

    /// Sets the mode of a copied directory. The server's user keeps all permissions on it.
    fn copy_mode(&self, directory: &DirectoryFd, stat: &Stat) -> Result<()> {
        Ok(directory.set_mode(stat.mode & 0o777 | 0o700)?)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::tree::fs::fault_injection::{SyscallCounts, take_syscall_counts};
    use crate::tree::testing::{TreeFixture, tree_path};

    /// Copies `/a` entry by entry, with a change once its own entries are copied and its directories still to be read.
    /// Returns the names at the top of the copy.
    fn copy_with_change(is_move: bool, change: impl Fn(&TreeFixture)) -> Result<Vec<String>> {
        let fixture = TreeFixture::new(&["/a/b/c", "/a/d"]);
        fixture.create_user("alice", &[("/", Permission::RW)]);
        let view = fixture.view("alice");
        let source = view.open_authorized(TreeOperation::Copy, &tree_path("/a"), OpenMode::Path).expect("there");
        let target = view.create_slot(&tree_path("/t")).expect("free");
        let move_by_copy = is_move.then(|| MoveByCopy {
            from: source.path.clone(),
            to: target.path.clone(),
            link_boundary: TreePath::root(),
            copied_fingerprint: Cell::default(),
        });
        let job = CopyJob {
            view: &view,
            access: HandleAccess::new(&view, source.path.clone(), Permission::R).expect("permitted"),
            target: target.path.clone(),
            is_move,
            move_by_copy,
            skips_limits: false,
            syncs_at_once: false,
        };
        let staged = view.staging(&target).expect("staging").create_directory().expect("created");
        let (staging, name) = staged.directory_and_name();
        let from = DirectoryFd::from(source.file);
        let to = staging.open_directory(&TreePath::root().child(name)).expect("there");
        let mut pending = Vec::new();
        job.copy_entries(&from, &to, &TreePath::root(), &mut pending).expect("copied");
        change(&fixture);
        while let Some(relative_path) = pending.pop() {
            job.copy_entries(&from, &to, &relative_path, &mut pending)?;
        }
        job.check_source_in_tree(&from)?;
        let mut names = to.read_names().expect("opened").next_batch().expect("read");
        names.sort();
        Ok(names.iter().map(ToString::to_string).collect())
    }

    fn remove(fixture: &TreeFixture, path: &str) {
        let alice = fixture.view("alice");
        alice.remove_all(&tree_path(path), &WriteConditions::none()).expect("removed");
    }

    /// Returns the system calls of a copy of `/a` with this many files.
    fn counts_of_copy(files: u32) -> SyscallCounts {
        let fixture = TreeFixture::new(&["/a"]);
        fixture.create_user("alice", &[("/", Permission::RW)]);
        (0..files).for_each(|n| fs::write(fixture.root_path.join(format!("a/{n}")), "content").expect("written"));
        let view = fixture.view("alice");
        take_syscall_counts();
        let copied =
            view.copy(&tree_path("/a"), &tree_path("/t"), true, OverwriteMode::Refuse, &WriteConditions::none());
        assert!(!copied.expect("copied"));
        take_syscall_counts()
    }

    #[test]
    fn copy_asks_twice_for_the_metadata_of_a_file_and_changes_its_attributes_once() {
        let (few, many) = (counts_of_copy(10), counts_of_copy(30));
        // Of the source, and of the copy once its times are set.
        assert_eq!(many.stats - few.stats, 2 * 20);
        // The times, and not the mode: the copy is created with it.
        assert_eq!(many.attribute_changes - few.attribute_changes, 20);
    }

    #[test]
    fn directory_removed_during_copy_is_left_out() {
        assert_eq!(copy_with_change(false, |fixture| remove(fixture, "/a/b")).expect("copied"), ["d"]);
        let replaced = copy_with_change(false, |fixture| {
            remove(fixture, "/a/b");
            fs::write(fixture.root_path.join("a/b"), "content").expect("written");
        });
        assert_eq!(replaced.expect("copied"), ["d"]);
    }

    #[test]
    fn copy_of_removed_source_is_refused() {
        assert!(matches!(copy_with_change(false, |fixture| remove(fixture, "/a")), Err(Error::Absent)));
    }

    #[test]
    fn directory_removed_during_move_by_copy_is_an_error() {
        let moved = copy_with_change(true, |fixture| remove(fixture, "/a/b"));
        assert!(matches!(moved, Err(Error::PreconditionFailed)), "it may be back before the source is removed");
    }
}
