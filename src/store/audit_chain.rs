//! The hash chain of the audit trail: what is hashed, and how a sequence of rows is verified, be it read from the store,
//! from a server or from an exported file. `docs/audit.md` has the rule for those who verify an export by other means.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use utoipa::ToSchema;

use crate::domain::UnixMillis;

/// Text that begins the input of every hash, so that no hash of another program or version is taken for one of these.
const HASH_CONTEXT: &[u8] = b"patgate audit 1\n";
/// Maximum number of faults that a report names; further ones are counted.
const MAX_REPORTED_FAULTS: usize = 1000;

/// Hash of a row of the audit trail, and by that of all rows before it. Its text is hexadecimal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChainHash([u8; 32]);

impl ChainHash {
    /// Hash that stands for the row before the first one.
    pub const START: ChainHash = ChainHash([0; 32]);

    /// Returns the hash with these bytes.
    pub(super) fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// Returns the bytes.
    pub(super) fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Display for ChainHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&blake3::Hash::from_bytes(self.0).to_hex())
    }
}

impl FromStr for ChainHash {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let hash = blake3::Hash::from_hex(text).map_err(|_| format!("{text:?} is not a hash of 64 hexadecimal digits"));
        hash.map(|hash| Self(*hash.as_bytes()))
    }
}

impl Serialize for ChainHash {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for ChainHash {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

/// A row of the chain by its number and its hash; its text is `NUMBER:HASH`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChainHead {
    /// Number of the row: the id of its event.
    pub number: u64,
    /// Hash of the row.
    pub hash: ChainHash,
}

impl ChainHead {
    /// The head of a trail without any row.
    pub const START: ChainHead = ChainHead { number: 0, hash: ChainHash::START };
}

impl fmt::Display for ChainHead {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.number, self.hash)
    }
}

impl FromStr for ChainHead {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let form = || format!("{text:?} is not a head: give NUMBER:HASH, as `patgate audit verify` prints it");
        let (number, hash) = text.split_once(':').ok_or_else(form)?;
        Ok(Self { number: number.parse().map_err(|_| form())?, hash: hash.parse()? })
    }
}

/// A row of the audit trail as it is hashed and exported. Its texts are those of the store, whether or not this version
/// knows what they mean: a row that somebody changed must not keep the others from being verified.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct AuditRow {
    /// Number of the row: the id of its event.
    pub id: u64,
    /// Time of the event for people. It is not hashed, but must be that of `unix_ms`.
    pub at: String,
    /// Time of the event in milliseconds since 1970.
    pub unix_ms: i64,
    /// Kind of the event.
    pub event: String,
    /// User that it concerns.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// Token that it concerns.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token: Option<String>,
    /// Actor.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<String>,
    /// Address of the caller.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
    /// Program of the caller.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client: Option<String>,
    /// Protocol of the caller.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub protocol: Option<String>,
    /// Path in the tree.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// Number of events that this one stands for.
    pub count: i64,
    /// Further detail.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
    /// Hash of this row and the one before it.
    #[schema(value_type = String, pattern = "^[0-9a-f]{64}$")]
    pub hash: ChainHash,
}

impl AuditRow {
    /// Returns the row as a JSON object on one line.
    pub fn to_json(&self) -> String {
        // Writing texts and numbers to memory does not fail.
        serde_json::to_string(self).unwrap_or_default()
    }

    /// Returns the hash that the row must have after the row with this hash.
    pub(super) fn expected_hash(&self, previous: &ChainHash) -> ChainHash {
        let Self {
            id,
            at: _,
            unix_ms,
            event,
            user,
            token,
            by,
            address,
            client,
            protocol,
            path,
            count,
            detail,
            hash: _,
        } = self;
        hash_row(
            previous,
            *id,
            *unix_ms,
            *count,
            [
                Some(event.as_str()),
                user.as_deref(),
                token.as_deref(),
                by.as_deref(),
                address.as_deref(),
                client.as_deref(),
                protocol.as_deref(),
                path.as_deref(),
                detail.as_deref(),
            ],
        )
    }
}

/// Returns the hash of a row: of the context, the hash of the row before, and the columns one after the other. `texts` are
/// kind, user, token, actor, address, client, protocol, path and detail. Each column is written with its length in front,
/// so that no two rows have the same input.
pub(super) fn hash_row(previous: &ChainHash, id: u64, unix_ms: i64, count: i64, texts: [Option<&str>; 9]) -> ChainHash {
    let mut input = Vec::with_capacity(256);
    input.extend_from_slice(HASH_CONTEXT);
    input.extend_from_slice(previous.as_bytes());
    push_column(&mut input, Some(&id.to_string()));
    push_column(&mut input, Some(&unix_ms.to_string()));
    push_column(&mut input, Some(&count.to_string()));
    for text in texts {
        push_column(&mut input, text);
    }
    ChainHash(*blake3::hash(&input).as_bytes())
}

/// Writes a column as `LENGTH:TEXT,`, or `-,` where it has no value.
fn push_column(input: &mut Vec<u8>, text: Option<&str>) {
    match text {
        Some(text) => {
            input.extend_from_slice(text.len().to_string().as_bytes());
            input.push(b':');
            input.extend_from_slice(text.as_bytes());
        }
        None => input.push(b'-'),
    }
    input.push(b',');
}

/// A run of rows that retention removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct RemovedRows {
    /// Number of the first one.
    pub removed_from: u64,
    /// Number of the last one.
    pub removed_to: u64,
    /// Hash of the last one.
    #[schema(value_type = String, pattern = "^[0-9a-f]{64}$")]
    pub hash: ChainHash,
}

/// A line of the exported audit trail.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(untagged)]
pub enum ChainItem {
    /// Rows that retention removed.
    Removed(RemovedRows),
    /// A row.
    Row(Box<AuditRow>),
}

impl ChainItem {
    /// Returns the number of the row; of a run, that of its last one.
    pub fn number(&self) -> u64 {
        match self {
            ChainItem::Removed(removed) => removed.removed_to,
            ChainItem::Row(row) => row.id,
        }
    }
}

/// A fault of the chain.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ChainFault {
    /// Number of the row concerned.
    pub row: u64,
    /// Sentence that says what is wrong with it.
    pub text: String,
}

/// Result of a verification.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ChainReport {
    /// Number of rows that were read.
    pub rows: u64,
    /// Number of rows that retention removed.
    pub removed: u64,
    /// The last row, to be noted elsewhere.
    pub head: ChainHead,
    /// Faults, in the order of the rows.
    pub faults: Vec<ChainFault>,
    /// Number of further faults.
    pub further_faults: u64,
}

/// Verifier of a chain, which is given its rows and runs in order.
#[derive(Debug)]
pub struct ChainVerifier {
    report: ChainReport,
    /// Hash of the last row; `None` after rows that are missing.
    previous: Option<ChainHash>,
    /// Noted heads that were not come across yet.
    noted_heads: Vec<ChainHead>,
}

impl ChainVerifier {
    /// Returns the verifier of a trail that must have the rows of these heads, or have removed them by retention.
    pub fn new(noted_heads: Vec<ChainHead>) -> Self {
        let report = ChainReport { rows: 0, removed: 0, head: ChainHead::START, faults: Vec::new(), further_faults: 0 };
        Self { report, previous: Some(ChainHash::START), noted_heads }
    }

    /// Verifies the next row or run.
    pub fn add(&mut self, item: &ChainItem) {
        match item {
            ChainItem::Row(row) => self.add_row(row),
            ChainItem::Removed(removed) => self.add_removed(removed),
        }
    }

    /// Adds a fault that was found otherwise, such as a line that can't be parsed.
    pub fn add_fault(&mut self, row: u64, text: impl Into<String>) {
        match self.report.faults.len() < MAX_REPORTED_FAULTS {
            true => self.report.faults.push(ChainFault { row, text: text.into() }),
            false => self.report.further_faults += 1,
        }
    }

    /// Returns the result. `last_number` is the highest number that a row was ever given, where that is known.
    pub fn finish(mut self, last_number: Option<u64>) -> ChainReport {
        let head = self.report.head.number;
        if let Some(last) = last_number.filter(|last| *last > head) {
            self.add_missing(head + 1, last, "at the end");
        }
        for noted in std::mem::take(&mut self.noted_heads) {
            if noted.number > head {
                self.add_fault(
                    noted.number,
                    format!("row {} was noted as the head, but the trail ends at row {head}", noted.number),
                );
            }
        }
        self.report
    }

    fn add_row(&mut self, row: &AuditRow) {
        let head = self.report.head.number;
        if row.id <= head {
            return self.add_fault(row.id, format!("row {} stands after row {head}: it is out of order", row.id));
        }
        self.report.rows += 1;
        self.expect_number(row.id);
        // After missing rows, the hash before this one is unknown. The missing ones are reported already.
        if self.previous.is_some_and(|previous| row.expected_hash(&previous) != row.hash) {
            let text =
                format!("row {}: content and hash do not fit each other and the row before: it was changed", row.id);
            self.add_fault(row.id, text);
        } else if row.at != UnixMillis::from_millis(row.unix_ms).to_string() {
            self.add_fault(row.id, format!("row {}: at is not the time of unix_ms: it was changed", row.id));
        }
        self.advance(row.id, row.id, row.hash);
    }

    fn add_removed(&mut self, removed: &RemovedRows) {
        let RemovedRows { removed_from, removed_to, hash } = *removed;
        let head = self.report.head.number;
        if removed_to <= head || removed_from > removed_to {
            let text = format!("the removal of rows {removed_from} to {removed_to} stands after row {head}");
            return self.add_fault(removed_from, text);
        }
        // Retention may go on while a trail is read in several pages: what it removes may begin before the last row.
        let first = removed_from.max(head + 1);
        self.expect_number(first);
        self.report.removed += removed_to - first + 1;
        self.advance(first, removed_to, hash);
    }

    /// Reports the rows that are missing before this number.
    fn expect_number(&mut self, number: u64) {
        let head = self.report.head.number;
        if number > head + 1 {
            self.add_missing(head + 1, number - 1, "and retention did not remove");
        }
    }

    fn add_missing(&mut self, first: u64, last: u64, how: &str) {
        let (rows, are, them) = if first == last { ("row", "is", "it") } else { ("rows", "are", "them") };
        let range = if first == last { first.to_string() } else { format!("{first} to {last}") };
        let text = match how {
            "at the end" => format!("{rows} {range} {are} missing at the end"),
            how => format!("{rows} {range} {are} missing {how} {them}"),
        };
        self.add_fault(first, text);
        self.previous = None;
    }

    /// Compares the noted heads with the rows from `first` to `last`, of which the hash of the last is known.
    fn advance(&mut self, first: u64, last: u64, hash: ChainHash) {
        let known = |noted: &ChainHead| (first..=last).contains(&noted.number);
        let (found, remaining): (Vec<_>, Vec<_>) = std::mem::take(&mut self.noted_heads).into_iter().partition(known);
        self.noted_heads = remaining;
        for noted in found.iter().filter(|noted| noted.number == last && noted.hash != hash) {
            self.add_fault(last, format!("row {last} has the hash {hash}, but {} was noted", noted.hash));
        }
        self.report.head = ChainHead { number: last, hash };
        self.previous = Some(hash);
    }
}

impl ChainReport {
    /// Tells whether the chain is whole.
    pub fn is_intact(&self) -> bool {
        self.faults.is_empty() && self.further_faults == 0
    }
}
