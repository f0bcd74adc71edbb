//! A POSIX file system in memory: inodes, names, links and times.

use std::collections::BTreeMap;

/// The number of an inode: its place in [`FileSystem::inodes`]. Numbers are never used again.
pub(crate) type InodeNumber = usize;

/// Maximum number of symbolic links that a path may lead through, as in Linux.
const MAX_LINKS_FOLLOWED: usize = 40;

/// An operation was refused; the reason makes no difference.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct OperationRefused;

pub(crate) type Result<T> = std::result::Result<T, OperationRefused>;

/// When a file was changed, as far as a test can predict it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ModificationTime {
    /// A client set it to these seconds, long ago.
    Set(u32),
    /// During the test.
    Recent,
    /// File systems differ.
    Unknown,
}

/// Content of an inode.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum InodeContent {
    File(Vec<u8>),
    Directory { entries: BTreeMap<String, InodeNumber>, parent: InodeNumber },
    Link(String),
}

/// A file, directory or symbolic link.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct InodeRecord {
    pub(crate) content: InodeContent,
    pub(crate) mode: u32,
    pub(crate) modified: ModificationTime,
    /// Number of names; a directory has one until it is removed.
    pub(crate) links: u32,
    /// Moves whenever an ETag has to.
    pub(crate) version: u64,
    /// Whether its content was changed in place since a CLOSE.
    pub(crate) dirty: bool,
}

/// The location of a path: the directory, the name in it, and the entry under that name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PathLocation {
    pub(crate) directory: InodeNumber,
    pub(crate) name: String,
    pub(crate) entry: Option<InodeNumber>,
}

impl PathLocation {
    /// Returns the entry, which has to be there.
    pub(crate) fn existing(&self) -> Result<InodeNumber> {
        self.entry.ok_or(OperationRefused)
    }
}

/// The file system of one sequence. Paths start in `base`, which is the only entry of the root at first.
#[derive(Clone, Debug)]
pub(crate) struct FileSystem {
    inodes: Vec<InodeRecord>,
}

/// The name of the directory in which paths start.
pub(crate) const BASE_NAME: &str = "base";
pub(crate) const ROOT: InodeNumber = 0;
pub(crate) const BASE: InodeNumber = 1;

impl FileSystem {
    pub(crate) fn new() -> Self {
        let mut files = Self { inodes: Vec::new() };
        for _ in [ROOT, BASE] {
            files.create(InodeContent::Directory { entries: BTreeMap::new(), parent: ROOT }, 0o755);
        }
        files.insert(ROOT, BASE_NAME, BASE);
        files
    }

    /// Makes an inode that has no name yet.
    pub(crate) fn create(&mut self, content: InodeContent, mode: u32) -> InodeNumber {
        let modified = ModificationTime::Recent;
        self.inodes.push(InodeRecord { content, mode, modified, links: 0, version: 0, dirty: false });
        self.inodes.len() - 1
    }

    /// Returns how many inodes there ever were.
    pub(crate) fn inode_count(&self) -> usize {
        self.inodes.len()
    }

    pub(crate) fn inode(&self, number: InodeNumber) -> &InodeRecord {
        &self.inodes[number]
    }

    pub(crate) fn inode_mut(&mut self, number: InodeNumber) -> &mut InodeRecord {
        &mut self.inodes[number]
    }

    pub(crate) fn is_directory(&self, number: InodeNumber) -> bool {
        matches!(self.inode(number).content, InodeContent::Directory { .. })
    }

    pub(crate) fn is_file(&self, number: InodeNumber) -> bool {
        matches!(self.inode(number).content, InodeContent::File(_))
    }

    /// Returns the entries of a directory; none for anything else.
    pub(crate) fn entries(&self, directory: InodeNumber) -> BTreeMap<String, InodeNumber> {
        match &self.inode(directory).content {
            InodeContent::Directory { entries, .. } => entries.clone(),
            InodeContent::File(_) | InodeContent::Link(_) => BTreeMap::new(),
        }
    }

    pub(crate) fn entry(&self, directory: InodeNumber, name: &str) -> Option<InodeNumber> {
        match &self.inode(directory).content {
            InodeContent::Directory { entries, .. } => entries.get(name).copied(),
            InodeContent::File(_) | InodeContent::Link(_) => None,
        }
    }

    /// Gives an inode a name in a directory, in place of what is there.
    pub(crate) fn insert(&mut self, directory: InodeNumber, name: &str, number: InodeNumber) {
        self.remove(directory, name);
        if let InodeContent::Directory { entries, .. } = &mut self.inode_mut(directory).content {
            entries.insert(name.to_owned(), number);
        }
        let inode = self.inode_mut(number);
        inode.links += 1;
        if let InodeContent::Directory { parent, .. } = &mut inode.content {
            *parent = directory;
        }
    }

    /// Removes a name.
    pub(crate) fn remove(&mut self, directory: InodeNumber, name: &str) -> Option<InodeNumber> {
        let InodeContent::Directory { entries, .. } = &mut self.inode_mut(directory).content else { return None };
        let removed = entries.remove(name)?;
        self.inode_mut(removed).links -= 1;
        Some(removed)
    }

    pub(crate) fn parent(&self, directory: InodeNumber) -> InodeNumber {
        match self.inode(directory).content {
            InodeContent::Directory { parent, .. } => parent,
            InodeContent::File(_) | InodeContent::Link(_) => ROOT,
        }
    }

    /// Tells whether a directory is another or lies below it.
    pub(crate) fn is_within(&self, mut directory: InodeNumber, above: InodeNumber) -> bool {
        loop {
            if directory == above {
                return true;
            }
            if directory == ROOT {
                return false;
            }
            directory = self.parent(directory);
        }
    }

    /// Tells whether a directory still has a name, and all above it have.
    pub(crate) fn is_linked(&self, mut directory: InodeNumber) -> bool {
        while directory != ROOT {
            if self.inode(directory).links == 0 {
                return false;
            }
            directory = self.parent(directory);
        }
        true
    }

    /// Finds where a path leads; `look` tells what a name in a directory shows. The last name is followed where
    /// `follow`, to a name that may be missing.
    pub(crate) fn locate(
        &self,
        path: &str,
        follow: bool,
        look: impl Fn(InodeNumber, &str) -> Option<InodeNumber>,
    ) -> Result<PathLocation> {
        let mut directory = BASE;
        let mut rest: Vec<String> = path.rsplit('/').map(str::to_owned).collect();
        let mut followed = 0;
        loop {
            let name = rest.pop().ok_or(OperationRefused)?;
            if !self.is_directory(directory) {
                return Err(OperationRefused);
            }
            if name == ".." {
                directory = self.parent(directory);
                continue;
            }
            let entry = look(directory, &name);
            let link = entry.and_then(|number| match &self.inode(number).content {
                InodeContent::Link(target) if follow || !rest.is_empty() => Some(target.clone()),
                _ => None,
            });
            if let Some(target) = link {
                followed += 1;
                if followed > MAX_LINKS_FOLLOWED {
                    return Err(OperationRefused);
                }
                rest.extend(target.rsplit('/').map(str::to_owned));
            } else if rest.is_empty() {
                return Ok(PathLocation { directory, name, entry });
            } else {
                directory = entry.ok_or(OperationRefused)?;
            }
        }
    }

    /// Cuts or extends a file.
    pub(crate) fn truncate(&mut self, number: InodeNumber, size: u64) {
        let inode = self.inode_mut(number);
        let InodeContent::File(content) = &mut inode.content else { return };
        let size = usize::try_from(size).expect("small");
        if size != content.len() {
            content.resize(size, 0);
            inode.version += 1;
            inode.dirty = true;
        }
        inode.modified = ModificationTime::Recent;
    }

    /// Writes at an offset.
    pub(crate) fn write(&mut self, number: InodeNumber, offset: u64, data: &[u8]) {
        let inode = self.inode_mut(number);
        let InodeContent::File(content) = &mut inode.content else { return };
        let start = usize::try_from(offset).expect("small");
        let end = start + data.len();
        content.resize(content.len().max(end), 0);
        content[start..end].copy_from_slice(data);
        inode.modified = ModificationTime::Recent;
        inode.version += 1;
        inode.dirty = true;
    }

    /// Returns the content of a file; empty for anything else.
    pub(crate) fn content(&self, number: InodeNumber) -> &[u8] {
        match &self.inode(number).content {
            InodeContent::File(content) => content,
            InodeContent::Directory { .. } | InodeContent::Link(_) => &[],
        }
    }

    pub(crate) fn size(&self, number: InodeNumber) -> u64 {
        self.content(number).len() as u64
    }
}
