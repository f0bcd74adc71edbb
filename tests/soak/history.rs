//! Record of what clients did and saw, as registers: a file, a block of a file, a token, a grant or a lock has one value
//! at each time, which operations change and others observe.

/// Time since the start of the run, in microseconds.
pub(crate) type Micros = u64;

/// Value of a register: the number of a content, or [`ALLOWED`]; none where the file is absent or access is denied,
/// which every register is at first.
pub(crate) type Value = Option<u64>;

/// Value of a token, grant or lock under which access is allowed.
pub(crate) const ALLOWED: Value = Some(1);
/// Value of a token, grant or lock under which access is denied.
pub(crate) const DENIED: Value = None;

/// Times before an operation was sent, and after it was answered or its connection was lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Span {
    pub(crate) start: Micros,
    pub(crate) end: Micros,
}

/// What a client knows of a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    Acknowledged,
    /// It was answered with a refusal, or never sent: it must not have any effect.
    Refused,
    /// The connection was lost: it has taken effect, or never will.
    Unknown,
}

/// A change of a register. Each register is changed by one client, one change after the other.
#[derive(Clone, Debug)]
pub(crate) struct Change {
    pub(crate) register: String,
    /// Number of the operation; that of a MOVE is the same for both names.
    pub(crate) operation: u64,
    pub(crate) value: Value,
    pub(crate) span: Span,
    pub(crate) outcome: Outcome,
    pub(crate) etag: Option<String>,
}

/// What was seen of a register.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Seen {
    Value(Value),
    /// Content that nobody has written: torn, mixed or cut.
    Damaged(String),
}

/// An observation of a register.
#[derive(Clone, Debug)]
pub(crate) struct Observation {
    pub(crate) register: String,
    pub(crate) seen: Seen,
    pub(crate) span: Span,
    pub(crate) etag: Option<String>,
}

/// Everything that was recorded.
#[derive(Clone, Debug, Default)]
pub(crate) struct History {
    pub(crate) changes: Vec<Change>,
    pub(crate) observations: Vec<Observation>,
}
