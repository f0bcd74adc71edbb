//! The file of a backup: a tar archive that begins with a manifest, which has size and hash of each part after it.

use std::collections::BTreeSet;
use std::fs::{File, OpenOptions};
use std::io::{self, BufReader, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use tar::{Archive, Builder, EntryType, Header};

use super::{CommandError, Result};
use crate::store::StateSummary;

/// Version of the format. A file of a higher one is refused.
const FORMAT_VERSION: u32 = 1;
/// Name of the manifest in the archive.
const MANIFEST_NAME: &str = "manifest.json";
/// Maximum size of a manifest.
const MANIFEST_BYTES: u64 = 1024 * 1024;
/// Name of the database in the archive and in the state directory.
pub(super) const DATABASE_NAME: &str = "patgate.db";
/// Name of the pepper, likewise.
pub(super) const PEPPER_NAME: &str = "pepper";
/// Name of the configuration file in the archive. A restore puts it into the state directory, from where no server reads it.
pub(super) const CONFIG_NAME: &str = "patgate.toml";
/// Prefix of the names of SSH host keys, likewise.
const HOST_KEY_PREFIX: &str = "ssh_host_";

/// Description of a backup and its parts.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct BackupManifest {
    /// Version of the format.
    pub(super) format: u32,
    /// Version of the program that made the backup.
    pub(super) patgate: String,
    /// Time at which the database was copied.
    pub(super) created_at: String,
    /// The served directory.
    pub(super) root: Option<PathBuf>,
    /// What the database holds.
    pub(super) holds: StateSummary,
    /// The parts, in the order of the archive.
    pub(super) parts: Vec<BackupPart>,
}

/// A file in a backup.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct BackupPart {
    pub(super) name: String,
    pub(super) bytes: u64,
    /// BLAKE3 of the content, hexadecimal.
    pub(super) blake3: String,
}

/// A file to be put into a backup.
#[derive(Debug)]
pub(super) struct PartSource {
    pub(super) name: String,
    pub(super) path: PathBuf,
}

/// Tells whether a file of this name is a part of a backup.
pub(super) fn is_part_name(name: &str) -> bool {
    let is_host_key = name.starts_with(HOST_KEY_PREFIX)
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-' || b == b'.');
    matches!(name, DATABASE_NAME | PEPPER_NAME | CONFIG_NAME) || is_host_key
}

impl BackupManifest {
    /// Describes the parts of a backup.
    pub(super) fn describe(
        sources: &[PartSource],
        created_at: String,
        root: Option<PathBuf>,
        holds: StateSummary,
    ) -> io::Result<Self> {
        let part = |source: &PartSource| {
            let file = File::open(&source.path)?;
            let bytes = file.metadata()?.len();
            let mut hasher = blake3::Hasher::new();
            hasher.update_reader(file)?;
            Ok(BackupPart { name: source.name.clone(), bytes, blake3: hasher.finalize().to_hex().to_string() })
        };
        let parts = sources.iter().map(part).collect::<io::Result<Vec<_>>>()?;
        Ok(Self {
            format: FORMAT_VERSION,
            patgate: env!("CARGO_PKG_VERSION").to_owned(),
            created_at,
            root,
            holds,
            parts,
        })
    }
}

/// Writes the archive: the manifest, and then the parts in its order.
pub(super) fn write_archive(manifest: &BackupManifest, sources: &[PartSource], output: impl Write) -> io::Result<()> {
    let mut archive = Builder::new(output);
    let mut text = serde_json::to_vec_pretty(manifest)?;
    text.push(b'\n');
    append_part(&mut archive, MANIFEST_NAME, text.len() as u64, &text[..])?;
    for (part, source) in manifest.parts.iter().zip(sources) {
        // Bounded by the size in the manifest: a file that grew since would shift all that follows.
        append_part(&mut archive, &part.name, part.bytes, File::open(&source.path)?.take(part.bytes))?;
    }
    archive.into_inner()?.flush()
}

fn append_part(archive: &mut Builder<impl Write>, name: &str, bytes: u64, content: impl Read) -> io::Result<()> {
    let mut header = Header::new_gnu();
    header.set_entry_type(EntryType::Regular);
    header.set_mode(0o600);
    header.set_size(bytes);
    archive.append_data(&mut header, name, content)
}

/// Extracts an archive into an empty directory, and verifies size and hash of each part.
///
/// # Errors
/// [`CommandError`] for an archive that is damaged, incomplete, of a newer format, or holds anything else.
pub(super) fn extract_archive(input: impl Read, directory: &Path) -> Result<BackupManifest> {
    let mut archive = Archive::new(BufReader::new(input));
    let mut entries = archive.entries().map_err(|error| damaged(&error.to_string()))?;
    let manifest = match entries.next() {
        Some(Ok(entry)) if entry.path_bytes().as_ref() == MANIFEST_NAME.as_bytes() => read_manifest(entry)?,
        Some(Err(error)) => return Err(damaged(&error.to_string())),
        _ => return Err(damaged("it does not begin with a manifest")),
    };
    check_part_names(&manifest)?;
    for part in &manifest.parts {
        let entry = match entries.next() {
            Some(entry) => entry.map_err(|error| damaged(&error.to_string()))?,
            None => return Err(damaged(&format!("its part {} is missing", part.name))),
        };
        let is_expected = entry.path_bytes().as_ref() == part.name.as_bytes()
            && entry.header().entry_type() == EntryType::Regular
            && entry.size() == part.bytes;
        if !is_expected {
            return Err(damaged(&format!("something else stands in place of its part {}", part.name)));
        }
        extract_part(entry, part, directory)?;
    }
    match entries.next() {
        None => Ok(manifest),
        Some(_) => Err(damaged("it holds more than its manifest names")),
    }
}

fn read_manifest(entry: impl Read) -> Result<BackupManifest> {
    let mut text = Vec::new();
    entry.take(MANIFEST_BYTES).read_to_end(&mut text).map_err(|error| damaged(&error.to_string()))?;
    /// The one field that every format has.
    #[derive(Deserialize)]
    struct FormatNumber {
        format: u32,
    }
    let FormatNumber { format } = serde_json::from_slice(&text).map_err(|error| damaged(&error.to_string()))?;
    if format > FORMAT_VERSION {
        return Err(CommandError::new(format!(
            "the backup has format {format}, and this patgate knows {FORMAT_VERSION}"
        ))
        .with_hint("restore it with the patgate that made it, or a newer one"));
    }
    serde_json::from_slice(&text).map_err(|error| damaged(&error.to_string()))
}

/// Refuses parts that no backup has, or has twice: their names become files in the state directory.
fn check_part_names(manifest: &BackupManifest) -> Result<()> {
    let mut names = BTreeSet::new();
    match manifest.parts.iter().find(|part| !is_part_name(&part.name) || !names.insert(&part.name)) {
        Some(part) => Err(damaged(&format!("it names a part {:?}", part.name))),
        None if !names.contains(&DATABASE_NAME.to_owned()) => Err(damaged("it has no database")),
        None => Ok(()),
    }
}

fn extract_part(mut entry: impl Read, part: &BackupPart, directory: &Path) -> Result<()> {
    let path = directory.join(&part.name);
    let mut file = OpenOptions::new().create_new(true).write(true).mode(0o600).open(path)?;
    let mut hasher = blake3::Hasher::new();
    let mut buffer = vec![0; 256 * 1024];
    loop {
        let length = entry.read(&mut buffer).map_err(|error| damaged(&error.to_string()))?;
        if length == 0 {
            break;
        }
        hasher.update(&buffer[..length]);
        file.write_all(&buffer[..length])?;
    }
    file.sync_all()?;
    if file.metadata()?.len() == part.bytes && hasher.finalize().to_hex().as_str() == part.blake3 {
        return Ok(());
    }
    Err(damaged(&format!("its part {} has another content than its manifest says", part.name)))
}

fn damaged(why: &str) -> CommandError {
    CommandError::new(format!("the backup is damaged: {why}")).with_hint("nothing was changed; use another backup")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::ChainHead;

    fn sample_archive(directory: &Path) -> Vec<u8> {
        let source = |name: &str, content: &str| {
            std::fs::write(directory.join(name), content).expect("written");
            PartSource { name: name.to_owned(), path: directory.join(name) }
        };
        let sources = [source(DATABASE_NAME, &"rows ".repeat(200)), source(PEPPER_NAME, "pepper")];
        let holds = StateSummary {
            schema: 1,
            users: 0,
            grants: 0,
            live_tokens: 0,
            sliding_tokens: 0,
            audit_head: ChainHead::START,
        };
        let manifest = BackupManifest::describe(&sources, "now".to_owned(), None, holds).expect("described");
        let mut archive = Vec::new();
        write_archive(&manifest, &sources, &mut archive).expect("written");
        archive
    }

    #[test]
    fn archive_roundtrips() {
        let (from, to) = (tempfile::tempdir().expect("directory"), tempfile::tempdir().expect("directory"));
        let manifest = extract_archive(&sample_archive(from.path())[..], to.path()).expect("extracted");
        assert_eq!(manifest.parts.len(), 2);
        for name in [DATABASE_NAME, PEPPER_NAME] {
            let read = |directory: &Path| std::fs::read(directory.join(name)).expect("read");
            assert_eq!(read(from.path()), read(to.path()));
        }
    }

    #[test]
    fn damaged_archive_is_refused_wherever_the_damage_is() {
        let from = tempfile::tempdir().expect("directory");
        let archive = sample_archive(from.path());
        let refused = |archive: &[u8]| {
            let to = tempfile::tempdir().expect("directory");
            extract_archive(archive, to.path()).is_err()
        };
        for length in [0, 100, 512, 1500, 2048, 2600, archive.len() - 1600] {
            assert!(refused(&archive[..length]), "cut off at {length}");
        }
        let find = |text: &str| archive.windows(text.len()).position(|part| part == text.as_bytes()).expect("there");
        for text in ["rows rows", "\"blake3\": \"", "\"bytes\": ", "\"format\": ", "pepper\",", "pepper\0"] {
            let mut changed = archive.clone();
            let at = find(text) + text.len() - 1 + usize::from(text.ends_with(' ') || text.ends_with('"'));
            changed[at] = if changed[at] == b'9' { b'8' } else { b'9' };
            assert!(refused(&changed), "{text}");
        }
    }

    #[test]
    fn part_name_can_lead_nowhere_else() {
        for name in ["patgate.db", "pepper", "patgate.toml", "ssh_host_ed25519_key"] {
            assert!(is_part_name(name), "{name}");
        }
        for name in ["", ".", "../pepper", "ssh_host_/../x", "/etc/passwd", "serve.lock", "ssh_host_a/b", "pepper/x"] {
            assert!(!is_part_name(name), "{name}");
        }
    }
}
