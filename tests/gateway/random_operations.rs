//! Ten thousand random operations over both protocols at once: each succeeds exactly when a model says so, the files
//! end up as the model has them, and an ETag changes exactly when the content does.
//!
//! Ten lanes run concurrently, each in its own directory with one WebDAV client and one SFTP session; within a lane the
//! operations are sequential. Every write has distinct content. ETags and contents of all files are compared now and
//! then. A failure prints its seed.

use std::collections::{BTreeMap, HashMap, HashSet};

use patgate::auth::Clock;
use patgate::tree::CommitDurability;

use crate::support::{DavClient, Fixture, SftpClient, encode_string};

const PARALLEL_CLIENTS: u64 = 10;
const OPERATIONS_PER_CLIENT: u64 = 1000;
const SEED: u64 = 0x5eed_0001;
/// After as many operations of a lane everything in it is compared.
const OPERATIONS_BETWEEN_COMPARISONS: u64 = 5;

/// A file's content, or a folder.
type TreeContents = BTreeMap<String, Option<Vec<u8>>>;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum OverwriteMode {
    Replace,
    Refuse,
    PosixRename,
}

#[derive(Clone, Debug)]
enum ModelOperation {
    Put(String, Vec<u8>),
    PutNew(String, Vec<u8>),
    PutPart(String, usize, Vec<u8>),
    Append(String, Vec<u8>),
    MakeDirectory(String),
    RemoveAll(String),
    RemoveFile(String),
    RemoveDirectory(String),
    Move(String, String, OverwriteMode),
    Copy(String, String, OverwriteMode, bool),
    Truncate(String, usize),
    SetModificationTime(String, u32),
    SetDeadProperty(String),
}

/// A small generator of its own (SplitMix64), so that a seed stands for the same run everywhere.
struct SplitMix64(u64);

impl SplitMix64 {
    fn next(&mut self, below: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % below
    }

    fn pick<'a, T>(&mut self, of: &'a [T]) -> &'a T {
        &of[usize::try_from(self.next(of.len() as u64)).expect("small")]
    }

    /// A path where mostly something is, or could be made.
    fn path(&mut self, root: &str, tree: &TreeContents) -> String {
        let names = ["a", "b", "c d", "\u{e4}"];
        let known: Vec<&String> = tree.keys().filter(|path| *path != root).collect();
        let folders: Vec<&String> =
            tree.iter().filter(|(_, content)| content.is_none()).map(|(path, _)| path).collect();
        match self.next(8) {
            0..4 if !known.is_empty() => (*self.pick(&known)).clone(),
            4..7 => {
                let folder = *self.pick(&folders);
                if folder.matches('/').count() > 3 {
                    (*folder).clone()
                } else {
                    format!("{folder}/{}", self.pick(&names))
                }
            }
            _ => format!("{root}/{}/{}", self.pick(&names), self.pick(&names)),
        }
    }
}

fn parent(path: &str) -> &str {
    path.rsplit_once('/').expect("below a root").0
}

fn is_within(path: &str, above: &str) -> bool {
    path.strip_prefix(above).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// The model: what should be there, and which files have another content than at the last comparison.
struct TreeModel {
    tree: TreeContents,
    tags: HashMap<String, String>,
    changed: HashSet<String>,
    seen: HashSet<String>,
}

impl TreeModel {
    fn new(root: &str) -> Self {
        let tree = TreeContents::from([(root.to_owned(), None)]);
        Self { tree, tags: HashMap::new(), changed: HashSet::new(), seen: HashSet::new() }
    }

    fn is_directory(&self, path: &str) -> bool {
        matches!(self.tree.get(path), Some(None))
    }

    fn can_contain(&self, path: &str) -> bool {
        self.is_directory(parent(path))
    }

    fn remove(&mut self, path: &str) {
        self.tree.retain(|other, _| !is_within(other, path));
        self.tags.retain(|other, _| !is_within(other, path));
        self.changed.retain(|other| !is_within(other, path));
    }

    fn write(&mut self, path: &str, content: Vec<u8>) -> bool {
        if !self.can_contain(path) || self.is_directory(path) {
            return false;
        }
        self.tree.insert(path.to_owned(), Some(content));
        self.changed.insert(path.to_owned());
        true
    }

    fn content(&self, path: &str) -> Option<Vec<u8>> {
        self.tree.get(path).cloned().flatten()
    }

    fn is_empty_directory(&self, path: &str) -> bool {
        self.tree.keys().filter(|other| is_within(other, path)).count() == 1
    }

    /// Whether a move or copy may replace an existing target.
    fn may_replace(&self, from: &str, to: &str, over: OverwriteMode) -> bool {
        match (self.tree.get(to), over) {
            (None, _) | (Some(_), OverwriteMode::Replace) => true,
            (Some(_), OverwriteMode::Refuse) => false,
            (Some(old), OverwriteMode::PosixRename) => {
                self.is_directory(from) == old.is_none() && (old.is_some() || self.is_empty_directory(to))
            }
        }
    }

    /// Carries an operation out; tells whether it succeeds.
    fn apply(&mut self, operation: &ModelOperation) -> bool {
        match operation.clone() {
            ModelOperation::Put(path, content) => self.write(&path, content),
            ModelOperation::PutNew(path, content) => !self.tree.contains_key(&path) && self.write(&path, content),
            ModelOperation::PutPart(path, start, part) => match self.content(&path) {
                Some(mut content) if start <= content.len() => {
                    let end = content.len().max(start + part.len());
                    content.resize(end, 0);
                    content[start..start + part.len()].copy_from_slice(&part);
                    self.write(&path, content)
                }
                _ => false,
            },
            ModelOperation::Append(path, part) => {
                self.content(&path).is_some_and(|content| self.write(&path, [content, part].concat()))
            }
            ModelOperation::MakeDirectory(path) => {
                let may = self.can_contain(&path) && !self.tree.contains_key(&path);
                may && self.tree.insert(path, None).is_none()
            }
            ModelOperation::RemoveAll(path) => self.tree.contains_key(&path).then(|| self.remove(&path)).is_some(),
            ModelOperation::RemoveFile(path) => self.content(&path).map(|_| self.remove(&path)).is_some(),
            ModelOperation::RemoveDirectory(path) => {
                (self.is_directory(&path) && self.is_empty_directory(&path)).then(|| self.remove(&path)).is_some()
            }
            ModelOperation::Move(from, to, over) => self.relocate(&from, &to, over),
            ModelOperation::Copy(from, to, over, deep) => self.duplicate(&from, &to, over, deep),
            ModelOperation::Truncate(path, size) => match self.content(&path) {
                Some(mut content) if content.len() != size => {
                    content.resize(size, 0);
                    self.write(&path, content)
                }
                Some(_) => true,
                None => false,
            },
            ModelOperation::SetModificationTime(path, _) | ModelOperation::SetDeadProperty(path) => {
                self.tree.contains_key(&path)
            }
        }
    }

    fn relocate(&mut self, from: &str, to: &str, over: OverwriteMode) -> bool {
        if over == OverwriteMode::PosixRename && from == to {
            return self.tree.contains_key(from);
        }
        let may = self.tree.contains_key(from) && self.can_contain(to) && !is_within(to, from) && !is_within(from, to);
        if !may || !self.may_replace(from, to, over) {
            return false;
        }
        self.remove(to);
        let moved: Vec<String> = self.tree.keys().filter(|path| is_within(path, from)).cloned().collect();
        for old in moved {
            let new = format!("{to}{}", &old[from.len()..]);
            let content = self.tree.remove(&old).expect("there");
            self.tree.insert(new.clone(), content);
            if let Some(tag) = self.tags.remove(&old) {
                self.tags.insert(new.clone(), tag);
            }
            if self.changed.remove(&old) {
                self.changed.insert(new);
            }
        }
        true
    }

    fn duplicate(&mut self, from: &str, to: &str, over: OverwriteMode, deep: bool) -> bool {
        let nested = (deep && is_within(to, from)) || is_within(from, to);
        if !self.tree.contains_key(from) || !self.can_contain(to) || nested || !self.may_replace(from, to, over) {
            return false;
        }
        let copied = self.tree.iter().filter(|(path, _)| if deep { is_within(path, from) } else { *path == from });
        let copied: Vec<_> = copied.map(|(old, what)| (format!("{to}{}", &old[from.len()..]), what.clone())).collect();
        self.remove(to);
        for (path, content) in copied {
            if content.is_some() {
                self.changed.insert(path.clone());
            }
            self.tree.insert(path, content);
        }
        true
    }

    /// Compares with what the server tells: the same entries, and a new tag for whatever changed and for nothing else.
    fn compare(&mut self, listed_etags: &BTreeMap<String, Option<String>>, why: &str) {
        let shape: Vec<(&String, bool)> = self.tree.iter().map(|(path, content)| (path, content.is_some())).collect();
        let listed: Vec<(&String, bool)> = listed_etags.iter().map(|(path, tag)| (path, tag.is_some())).collect();
        assert_eq!(shape, listed, "{why}");
        for (path, tag) in listed_etags.iter().filter_map(|(path, tag)| Some((path, tag.as_ref()?))) {
            if self.changed.contains(path) || !self.tags.contains_key(path) {
                assert!(self.seen.insert(tag.clone()), "{path} changed and has a tag that was seen before: {why}");
                self.tags.insert(path.clone(), tag.clone());
            } else {
                assert_eq!(self.tags.get(path), Some(tag), "{path} did not change: {why}");
            }
        }
        self.changed.clear();
    }
}

/// One lane: a folder, two clients and the model of what they do.
struct ModelClient {
    root: String,
    random: SplitMix64,
    dav: DavClient,
    sftp: SftpClient,
    model: TreeModel,
}

impl ModelClient {
    async fn run(mut self, operations: u64) -> TreeContents {
        let (mut last, mut done_well) = (Vec::new(), 0);
        for number in 0..operations {
            let operation = self.random_operation(number);
            let by_sftp = self.random.next(2) == 0;
            let expected = self.model.apply(&operation);
            last.push(format!("{} {operation:?}: {expected}", if by_sftp { "SFTP" } else { "WebDAV" }));
            let done = match by_sftp {
                true => self.apply_over_sftp(&operation).await,
                false => None,
            };
            let done = match done {
                Some(done) => done,
                None => self.apply_over_dav(&operation).await,
            };
            let why = || format!("seed {SEED:#x}, {}: {:#?}", self.root, &last[last.len().saturating_sub(8)..]);
            assert_eq!(done, expected, "{}", why());
            done_well += u64::from(expected);
            if number % OPERATIONS_BETWEEN_COMPARISONS == OPERATIONS_BETWEEN_COMPARISONS - 1 {
                let listed_etags = self.list_with_etags().await;
                let why = why();
                self.model.compare(&listed_etags, &why);
            }
        }
        assert!((operations / 4..operations).contains(&done_well), "{done_well} operations of {operations} succeed");
        for (path, content) in self.model.tree.iter().filter_map(|(path, content)| Some((path, content.as_ref()?))) {
            assert_eq!(&self.dav.get(&url(path)).await.body, content, "{path}");
            assert_eq!(self.sftp.get(path).await.expect("read").as_slice(), content, "{path}");
        }
        self.model.tree
    }

    fn random_operation(&mut self, number: u64) -> ModelOperation {
        let kind = self.random.next(30);
        let content =
            format!("{number} {}", "x".repeat(usize::try_from(self.random.next(40)).expect("small"))).into_bytes();
        let one = self.random.path(&self.root, &self.model.tree);
        let other = self.random.path(&self.root, &self.model.tree);
        // A lane's own folder stays.
        let one = if one == self.root { format!("{one}/a") } else { one };
        let other = if other == self.root { format!("{other}/a") } else { other };
        let size = usize::try_from(self.random.next(50)).expect("small");
        let over = [OverwriteMode::Replace, OverwriteMode::Refuse, OverwriteMode::PosixRename]
            [usize::try_from(self.random.next(3)).expect("small")];
        match kind {
            0..6 => ModelOperation::Put(one, content),
            6 => ModelOperation::PutNew(one, content),
            7..9 => ModelOperation::PutPart(one, size, content),
            9..11 => ModelOperation::Append(one, content),
            11..16 => ModelOperation::MakeDirectory(one),
            16 => ModelOperation::RemoveAll(one),
            17 => ModelOperation::RemoveFile(one),
            18 => ModelOperation::RemoveDirectory(one),
            19..23 => ModelOperation::Move(one, other, over),
            23..26 => ModelOperation::Copy(
                one,
                other,
                if over == OverwriteMode::PosixRename { OverwriteMode::Replace } else { over },
                size % 4 != 0,
            ),
            26 => ModelOperation::Truncate(one, size),
            27..29 => ModelOperation::SetModificationTime(one, 981_173_106 + u32::try_from(size).expect("small")),
            _ => ModelOperation::SetDeadProperty(one),
        }
    }

    /// Carries an operation out over SFTP; none for what it has no packet for.
    async fn apply_over_sftp(&mut self, operation: &ModelOperation) -> Option<bool> {
        const WRITE: u32 = 2;
        const APPEND: u32 = 4;
        let sftp = &mut self.sftp;
        Some(match operation {
            ModelOperation::Put(path, content) => sftp.put(path, content).await.is_ok(),
            ModelOperation::PutNew(path, content) => match sftp.open_file(path.as_bytes(), WRITE | 8 | 32).await {
                Ok(handle) => {
                    sftp.write_at(&handle, 0, content).await.expect("written");
                    sftp.close(&handle).await.is_ok()
                }
                Err(_) => false,
            },
            ModelOperation::PutPart(path, start, part) => {
                // SFTP writes behind the end as well, and leaves a hole.
                if self.model.content(path).is_none()
                    || sftp.stat(path).await.is_ok_and(|a| a.size < Some(*start as u64))
                {
                    return Some(false);
                }
                let handle = sftp.open_file(path.as_bytes(), WRITE).await.expect("opened");
                sftp.write_at(&handle, *start as u64, part).await.expect("written");
                sftp.close(&handle).await.is_ok()
            }
            ModelOperation::Append(path, part) => match sftp.open_file(path.as_bytes(), WRITE | APPEND).await {
                Ok(handle) => {
                    sftp.write_at(&handle, 0, part).await.expect("written");
                    sftp.close(&handle).await.is_ok()
                }
                Err(_) => false,
            },
            ModelOperation::MakeDirectory(path) => sftp.mkdir(path).await.is_ok(),
            ModelOperation::RemoveFile(path) => sftp.remove(path).await.is_ok(),
            ModelOperation::RemoveDirectory(path) => sftp.rmdir(path).await.is_ok(),
            ModelOperation::Move(from, to, OverwriteMode::Refuse) => sftp.rename(from, to).await.is_ok(),
            ModelOperation::Move(from, to, OverwriteMode::PosixRename) => self.posix_rename(from, to).await,
            ModelOperation::Truncate(path, size) => self.truncate(path, *size).await,
            ModelOperation::SetModificationTime(path, time) => {
                let times = [time.to_be_bytes(), time.to_be_bytes()].concat();
                sftp.request(9, &[&encode_string(path.as_bytes()), &8u32.to_be_bytes(), &times]).await.is_ok()
            }
            ModelOperation::RemoveAll(_)
            | ModelOperation::Move(_, _, OverwriteMode::Replace)
            | ModelOperation::Copy(..)
            | ModelOperation::SetDeadProperty(_) => return None,
        })
    }

    async fn posix_rename(&mut self, from: &str, to: &str) -> bool {
        let name = encode_string(b"posix-rename@openssh.com");
        self.sftp.request(200, &[&name, &encode_string(from.as_bytes()), &encode_string(to.as_bytes())]).await.is_ok()
    }

    async fn truncate(&mut self, path: &str, size: usize) -> bool {
        let size = (size as u64).to_be_bytes();
        // A folder can't be cut; the model knows it as no file.
        self.sftp.request(9, &[&encode_string(path.as_bytes()), &1u32.to_be_bytes(), &size]).await.is_ok()
    }

    /// Carries an operation out over WebDAV, or over SFTP what WebDAV has no method for.
    async fn apply_over_dav(&mut self, operation: &ModelOperation) -> bool {
        let dav = self.dav.clone();
        let status = match operation {
            ModelOperation::Put(path, content) => dav.put(&url(path), content.clone()).await.status,
            ModelOperation::PutNew(path, content) => {
                dav.send("PUT", &url(path), &[("if-none-match", "*")], content.clone()).await.status
            }
            ModelOperation::PutPart(path, start, part) => {
                let range = format!("bytes={start}-{}", start + part.len() - 1);
                partial_update(&dav, path, &range, part).await
            }
            ModelOperation::Append(path, part) => partial_update(&dav, path, "append", part).await,
            ModelOperation::MakeDirectory(path) => dav.status("MKCOL", &url(path)).await,
            ModelOperation::RemoveAll(path) => dav.status("DELETE", &url(path)).await,
            ModelOperation::Move(from, to, over) if *over != OverwriteMode::PosixRename => {
                relocate(&dav, "MOVE", from, to, *over, "infinity").await
            }
            ModelOperation::Copy(from, to, over, deep) => {
                relocate(&dav, "COPY", from, to, *over, if *deep { "infinity" } else { "0" }).await
            }
            ModelOperation::SetModificationTime(path, time) => {
                patch(&dav, path, &format!("<lastmodified>{time}</lastmodified>")).await
            }
            ModelOperation::SetDeadProperty(path) => patch(&dav, path, "<x xmlns=\"u:x\">1</x>").await,
            ModelOperation::RemoveFile(path) => return self.sftp.remove(path).await.is_ok(),
            ModelOperation::RemoveDirectory(path) => return self.sftp.rmdir(path).await.is_ok(),
            ModelOperation::Move(from, to, _) => return self.posix_rename(from, to).await,
            ModelOperation::Truncate(path, size) => return self.truncate(path, *size).await,
        };
        assert!(status < 500, "{operation:?}: {status}");
        (200..300).contains(&status)
    }

    /// Returns all that is in the lane, each file with its tag.
    async fn list_with_etags(&self) -> BTreeMap<String, Option<String>> {
        let body = "<propfind xmlns=\"DAV:\"><prop><getetag/></prop></propfind>";
        let text = self.dav.send("PROPFIND", &url(&self.root), &[("depth", "infinity")], body).await.text();
        let responses = text.split("<D:response>").skip(1).map(|response| {
            let href = response.split("<D:href>").nth(1).and_then(|rest| rest.split('<').next()).expect("an href");
            let tag = response.split("<D:getetag>").nth(1).and_then(|rest| rest.split('<').next());
            (path_of(href), tag.map(str::to_owned))
        });
        responses.collect()
    }
}

async fn partial_update(dav: &DavClient, path: &str, range: &str, part: &[u8]) -> u16 {
    let kind = ("content-type", "application/x-sabredav-partialupdate");
    dav.send("PATCH", &url(path), &[kind, ("x-update-range", range)], part.to_vec()).await.status
}

async fn relocate(dav: &DavClient, method: &str, from: &str, to: &str, over: OverwriteMode, depth: &str) -> u16 {
    let to = url(to);
    let overwrite = if over == OverwriteMode::Refuse { "F" } else { "T" };
    dav.send(method, &url(from), &[("destination", &to), ("overwrite", overwrite), ("depth", depth)], "").await.status
}

async fn patch(dav: &DavClient, path: &str, property: &str) -> u16 {
    let body = format!("<propertyupdate xmlns=\"DAV:\"><set><prop>{property}</prop></set></propertyupdate>");
    dav.send("PROPPATCH", &url(path), &[], body).await.status
}

fn url(path: &str) -> String {
    format!("/dav{}", path.replace(' ', "%20").replace('\u{e4}', "%C3%A4"))
}

fn path_of(href: &str) -> String {
    let path = href.strip_prefix("/dav").expect("in the tree").trim_end_matches('/');
    path.replace("%20", " ").replace("%C3%A4", "\u{e4}")
}

/// Adds the files below a directory, as the host has them.
fn read_host_tree(gateway: &Fixture, root: &str, found: &mut TreeContents) {
    found.insert(root.to_owned(), None);
    for entry in std::fs::read_dir(gateway.host_path(root)).expect("a folder").flatten() {
        let path = format!("{root}/{}", entry.file_name().to_str().expect("text"));
        if entry.file_type().expect("a type").is_dir() {
            read_host_tree(gateway, &path, found);
        } else {
            found.insert(path, Some(std::fs::read(entry.path()).expect("read")));
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn random_operations_over_both_protocols_match_the_model() {
    let gateway = Fixture::start_with(Clock::system(), |settings| settings.durability = CommitDurability::Fast).await;
    let token = gateway.create_user_and_token("alice", "/:rw");
    let mut lanes = Vec::new();
    for number in 0..PARALLEL_CLIENTS {
        let root = format!("/lane {number}");
        gateway.create_host_directory(&root);
        let (dav, sftp) = (gateway.dav("alice", &token), gateway.sftp("alice", &token).await);
        let (random, model) = (SplitMix64(SEED ^ number << 32), TreeModel::new(&root));
        let lane = ModelClient { root: root.clone(), random, dav, sftp, model };
        lanes.push((root, tokio::spawn(lane.run(OPERATIONS_PER_CLIENT))));
    }
    for (root, lane) in lanes {
        let model_contents = lane.await.expect("the lane ends");
        let mut found = TreeContents::new();
        read_host_tree(&gateway, &root, &mut found);
        assert_eq!(found, model_contents, "{root} on the disk");
    }
}
