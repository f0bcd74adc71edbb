//! Conditions of a request: RFC 9110 section 13 in the order of 13.2.2, and RFC 4918's `If`.

use http::{HeaderMap, HeaderName, header};

use super::address::{self, Anchor, Mount};
use super::date;
use super::error::Error;
use super::etag::{EntityTag, TagList};
use super::if_header::{IfHeader, Standing};
use crate::domain::TreePath;
use crate::http::PublicAddress;
use crate::tree::{self, Entry, LockToken, View};

/// All conditions that a request makes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Conditions {
    if_match: Option<TagList>,
    if_none_match: Option<TagList>,
    unmodified_since: Option<i64>,
    modified_since: Option<i64>,
    if_range: Option<IfRange>,
    listed: Option<IfHeader>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum IfRange {
    Tag(EntityTag),
    Date(i64),
    Unreadable,
}

/// What conditions compare with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Validators {
    /// The strong tag, where there is one.
    pub(super) etag: Option<String>,
    /// Seconds since 1970 of the last change.
    pub(super) modified: i64,
}

impl From<&Entry> for Validators {
    fn from(entry: &Entry) -> Self {
        Self { etag: entry.etag.map(|tag| tag.to_string()), modified: entry.modified.seconds }
    }
}

/// What conditions say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// They hold.
    Go,
    /// A reader has what there is: 304.
    Unchanged,
    /// They don't hold: 412.
    Failed,
}

/// Where the tags of an `If` header lead.
#[derive(Clone, Copy)]
pub(super) struct Surroundings<'a> {
    /// The tree.
    pub(super) view: &'a View,
    /// The client's root.
    pub(super) mount: &'a Mount,
    /// What stands in front of paths.
    pub(super) anchor: Anchor,
    /// The server as the client knows it.
    pub(super) server: &'a PublicAddress,
}

impl Conditions {
    /// Reads the conditional headers.
    ///
    /// # Errors
    /// [`Error::Malformed`] for an `If` or a list of tags that can't be read. A date that can't be read
    /// is passed over, as RFC 9110 has it.
    pub(super) fn parse(headers: &HeaderMap) -> Result<Self, Error> {
        let tags = |name: HeaderName| match joined(headers, &name) {
            Some(text) => TagList::parse(&text).map(Some).ok_or(Error::Malformed("a list of entity tags is malformed")),
            None => Ok(None),
        };
        let date = |name| headers.get(name)?.to_str().ok().and_then(date::parse_http_date);
        let listed = match joined(headers, &HeaderName::from_static("if")) {
            Some(text) => Some(IfHeader::parse(&text).ok_or(Error::Malformed("the If header is malformed"))?),
            None => None,
        };
        Ok(Self {
            if_match: tags(header::IF_MATCH)?,
            if_none_match: tags(header::IF_NONE_MATCH)?,
            unmodified_since: date(header::IF_UNMODIFIED_SINCE),
            modified_since: date(header::IF_MODIFIED_SINCE),
            if_range: headers.get(header::IF_RANGE).map(|value| if_range(value.as_bytes())),
            listed,
        })
    }

    /// Returns the lock tokens that the request submits.
    pub(super) fn tokens(&self) -> Vec<LockToken> {
        self.listed.as_ref().map(IfHeader::tokens).unwrap_or_default()
    }

    /// Tells whether there is anything to judge before a change.
    pub(super) fn bind_writes(&self) -> bool {
        self.if_match.is_some()
            || self.if_none_match.is_some()
            || self.unmodified_since.is_some()
            || self.listed.is_some()
    }

    /// Tells whether they ask about more than the entry itself.
    pub(super) fn look_around(&self) -> bool {
        self.listed.is_some()
    }

    /// Judges all but `If` and If-Range, in the order of RFC 9110 section 13.2.2.
    pub(super) fn judge(&self, current: Option<&Validators>, reading: bool) -> Verdict {
        let etag = current.and_then(|c| c.etag.as_deref());
        match (&self.if_match, self.unmodified_since, current) {
            (Some(TagList::Any), _, current) if current.is_none() => return Verdict::Failed,
            (Some(TagList::Tags(tags)), ..) if !tags.iter().any(|tag| tag.is_strongly(etag)) => return Verdict::Failed,
            (None, Some(since), Some(current)) if current.modified > since => return Verdict::Failed,
            _ => {}
        }
        let matched = match &self.if_none_match {
            Some(TagList::Any) => current.is_some(),
            Some(TagList::Tags(tags)) => tags.iter().any(|tag| tag.is_weakly(etag)),
            None => reading && matches!((self.modified_since, current), (Some(since), Some(c)) if c.modified <= since),
        };
        match (matched, reading) {
            (false, _) => Verdict::Go,
            (true, true) => Verdict::Unchanged,
            (true, false) => Verdict::Failed,
        }
    }

    /// Tells whether a `Range` header is to be honoured (RFC 9110 section 13.1.5). A date counts as strong
    /// only when the content is at least a second older than `now`, seconds since 1970.
    pub(super) fn ranges_hold(&self, current: &Validators, now: i64) -> bool {
        match &self.if_range {
            None => true,
            Some(IfRange::Tag(tag)) => tag.is_strongly(current.etag.as_deref()),
            Some(IfRange::Date(date)) => *date == current.modified && current.modified < now,
            Some(IfRange::Unreadable) => false,
        }
    }

    /// Judges the `If` header.
    ///
    /// # Errors
    /// [`tree::Error::Precondition`] when none of its lists holds.
    pub(super) fn judge_listed(&self, around: Surroundings<'_>, path: &TreePath) -> tree::Result<()> {
        let Some(listed) = &self.listed else { return Ok(()) };
        let look = |resource: Option<&[u8]>| match resource {
            None => standing(around.view, path),
            Some(url) => match address::resolve(url, around.server, around.anchor) {
                Ok(address) => {
                    standing(around.view, &around.view.existing_spelling(around.mount.root(), &address.below))
                }
                Err(_) => Ok(Standing::default()),
            },
        };
        if listed.holds(look)? { Ok(()) } else { Err(tree::Error::PreconditionFailed) }
    }

    /// Judges all conditions of a request that changes something at `path`.
    ///
    /// # Errors
    /// [`tree::Error::Precondition`] when one does not hold.
    pub(super) fn judge_write(&self, around: Surroundings<'_>, path: &TreePath) -> tree::Result<()> {
        if !self.bind_writes() {
            return Ok(());
        }
        self.judge_listed(around, path)?;
        let current = present(around.view.stat(path))?;
        match self.judge(current.as_ref().map(Validators::from).as_ref(), false) {
            Verdict::Go => Ok(()),
            Verdict::Unchanged | Verdict::Failed => Err(tree::Error::PreconditionFailed),
        }
    }
}

fn standing(view: &View, path: &TreePath) -> tree::Result<Standing> {
    let etag = present(view.stat(path))?.and_then(|entry| entry.etag).map(|tag| tag.to_string());
    let locks = present(view.locks(path))?.unwrap_or_default();
    Ok(Standing { etag, tokens: locks.into_iter().map(|lock| lock.token).collect() })
}

fn present<T>(found: tree::Result<T>) -> tree::Result<Option<T>> {
    match found {
        Ok(found) => Ok(Some(found)),
        Err(tree::Error::Absent | tree::Error::NoParent | tree::Error::NotADirectory | tree::Error::InvalidName) => {
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

fn joined(headers: &HeaderMap, name: &HeaderName) -> Option<Vec<u8>> {
    let values: Vec<&[u8]> = headers.get_all(name).iter().map(http::HeaderValue::as_bytes).collect();
    (!values.is_empty()).then(|| values.join(&b", "[..]))
}

fn if_range(text: &[u8]) -> IfRange {
    let text = text.trim_ascii();
    if let Some((tag, b"")) = EntityTag::take(text) {
        return IfRange::Tag(tag);
    }
    let date = std::str::from_utf8(text).ok().and_then(date::parse_http_date);
    date.map_or(IfRange::Unreadable, IfRange::Date)
}

#[cfg(test)]
mod tests {
    use super::*;

    const OLD: &str = "Sat, 03 Feb 2001 04:05:06 GMT";
    const OLDER: &str = "Sat, 03 Feb 2001 04:05:05 GMT";

    type Fields = &'static [(&'static str, &'static str)];

    fn conditions(fields: &[(&'static str, &str)]) -> Conditions {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(*name, value.parse().expect("value"));
        }
        Conditions::parse(&headers).expect("conditions")
    }

    fn current() -> Validators {
        Validators { etag: Some("a".into()), modified: 981_173_106 }
    }

    #[test]
    fn conditions_are_judged_in_the_order_of_rfc_9110() {
        use Verdict::{Failed, Go, Unchanged};
        let cases: &[(Fields, Verdict, Verdict)] = &[
            (&[], Go, Go),
            (&[("if-match", "*")], Go, Go),
            (&[("if-match", "\"a\"")], Go, Go),
            (&[("if-match", "W/\"a\"")], Failed, Failed),
            (&[("if-match", "\"b\", \"c\"")], Failed, Failed),
            (&[("if-match", "\"b\""), ("if-match", "\"a\"")], Go, Go),
            (&[("if-none-match", "*")], Unchanged, Failed),
            (&[("if-none-match", "W/\"a\"")], Unchanged, Failed),
            (&[("if-none-match", "\"b\"")], Go, Go),
            (&[("if-modified-since", OLD)], Unchanged, Go),
            (&[("if-modified-since", OLDER)], Go, Go),
            (&[("if-modified-since", OLD), ("if-none-match", "\"b\"")], Go, Go),
            (&[("if-unmodified-since", OLD)], Go, Go),
            (&[("if-unmodified-since", OLDER)], Failed, Failed),
            (&[("if-unmodified-since", OLDER), ("if-match", "\"a\"")], Go, Go),
            (&[("if-unmodified-since", "nonsense")], Go, Go),
        ];
        for (fields, read, write) in cases {
            let conditions = conditions(fields);
            assert_eq!(conditions.judge(Some(&current()), true), *read, "reading {fields:?}");
            assert_eq!(conditions.judge(Some(&current()), false), *write, "writing {fields:?}");
        }
    }

    #[test]
    fn what_is_not_there_matches_nothing() {
        assert_eq!(conditions(&[("if-match", "*")]).judge(None, false), Verdict::Failed);
        assert_eq!(conditions(&[("if-match", "\"a\"")]).judge(None, false), Verdict::Failed);
        assert_eq!(conditions(&[("if-none-match", "*")]).judge(None, false), Verdict::Go);
        assert_eq!(conditions(&[("if-unmodified-since", OLDER)]).judge(None, false), Verdict::Go);
    }

    #[test]
    fn if_range_compares_strongly() {
        let now = 981_173_106 + 5;
        let holds = |value, now| conditions(&[("if-range", value)]).ranges_hold(&current(), now);
        assert!(holds("\"a\"", now) && !holds("W/\"a\"", now) && !holds("\"b\"", now) && !holds("a", now));
        assert!(holds(OLD, now) && !holds(OLDER, now));
        assert!(!holds(OLD, 981_173_106), "a date is weak within its own second");
        assert!(conditions(&[]).ranges_hold(&current(), now));
    }

    #[test]
    fn malformed_conditions_are_refused_not_passed_over() {
        for (name, value) in [("if", "(<a>"), ("if-match", "a b"), ("if-none-match", "")] {
            let mut headers = HeaderMap::new();
            headers.insert(name, value.parse().expect("value"));
            assert!(matches!(Conditions::parse(&headers), Err(Error::Malformed(_))), "{name}: {value}");
        }
    }
}
