//! Conditions of a request: RFC 9110 section 13 in the order of section 13.2.2, and the `If` header of RFC 4918.

use http::{HeaderMap, HeaderName, header};

use super::client_root::{ClientRoot, UrlPrefix};
use super::date;
use super::error::Error;
use super::etag::{EntityTag, EntityTagList};
use super::if_header::{IfHeader, IfResourceState};
use super::resource_url;
use crate::domain::TreePath;
use crate::http::PublicAddress;
use crate::tree::{self, Entry, LockToken, View};

/// All conditions of a request.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct RequestConditions {
    if_match: Option<EntityTagList>,
    if_none_match: Option<EntityTagList>,
    unmodified_since: Option<i64>,
    modified_since: Option<i64>,
    if_range: Option<IfRange>,
    if_header: Option<IfHeader>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum IfRange {
    Tag(EntityTag),
    Date(i64),
    Unreadable,
}

/// Validators of a resource, with which conditions are compared.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Validators {
    /// Strong entity tag, where there is one.
    pub(super) etag: Option<String>,
    /// Time of the last change, in seconds since 1970.
    pub(super) modified: i64,
}

impl From<&Entry> for Validators {
    fn from(entry: &Entry) -> Self {
        Self { etag: entry.etag.map(|tag| tag.to_string()), modified: entry.modified.seconds }
    }
}

/// Outcome of evaluating conditions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ConditionOutcome {
    /// The conditions are true.
    Proceed,
    /// The client already has the current representation: 304.
    NotModified,
    /// A condition is false: 412.
    PreconditionFailed,
}

/// Context in which the resource tags of an `If` header are resolved.
#[derive(Clone, Copy)]
pub(super) struct IfContext<'a> {
    /// Tree as the session may see it.
    pub(super) view: &'a View,
    /// Root of the client.
    pub(super) client_root: &'a ClientRoot,
    /// URL prefix of the request.
    pub(super) url_prefix: UrlPrefix,
    /// Address of the server as the client knows it.
    pub(super) server: &'a PublicAddress,
}

impl RequestConditions {
    /// Parses the conditional headers.
    ///
    /// # Errors
    /// [`Error::Malformed`] for a malformed `If` or list of entity tags. A malformed date is ignored (RFC 9110 sections
    /// 13.1.3 and 13.1.4).
    pub(super) fn parse(headers: &HeaderMap) -> Result<Self, Error> {
        let tags = |name: HeaderName| match joined_values(headers, &name) {
            Some(text) => {
                EntityTagList::parse(&text).map(Some).ok_or(Error::Malformed("a list of entity tags is malformed"))
            }
            None => Ok(None),
        };
        let date = |name| headers.get(name)?.to_str().ok().and_then(date::parse_http_date);
        let if_header = match joined_values(headers, &HeaderName::from_static("if")) {
            Some(text) => Some(IfHeader::parse(&text).ok_or(Error::Malformed("the If header is malformed"))?),
            None => None,
        };
        Ok(Self {
            if_match: tags(header::IF_MATCH)?,
            if_none_match: tags(header::IF_NONE_MATCH)?,
            unmodified_since: date(header::IF_UNMODIFIED_SINCE),
            modified_since: date(header::IF_MODIFIED_SINCE),
            if_range: headers.get(header::IF_RANGE).map(|value| parse_if_range(value.as_bytes())),
            if_header,
        })
    }

    /// Returns the lock tokens that the request submits.
    pub(super) fn lock_tokens(&self) -> Vec<LockToken> {
        self.if_header.as_ref().map(IfHeader::lock_tokens).unwrap_or_default()
    }

    /// Tells whether there is any condition to evaluate before a change.
    pub(super) fn apply_to_writes(&self) -> bool {
        self.compare_current() || self.if_header.is_some()
    }

    /// Tells whether a change depends on the validators of the entry, apart from the `If` header.
    fn compare_current(&self) -> bool {
        self.if_match.is_some() || self.if_none_match.is_some() || self.unmodified_since.is_some()
    }

    /// Tells whether there is any condition to evaluate before a read, other than `If` and If-Range.
    pub(super) fn apply_to_reads(&self) -> bool {
        self.compare_current() || self.modified_since.is_some()
    }

    /// Tells whether there is an `If` header, which may concern other entries than the requested one.
    pub(super) fn has_if_header(&self) -> bool {
        self.if_header.is_some()
    }

    /// Evaluates all conditions but `If` and If-Range, in the order of RFC 9110 section 13.2.2.
    pub(super) fn evaluate(&self, current: Option<&Validators>, is_read: bool) -> ConditionOutcome {
        let etag = current.and_then(|c| c.etag.as_deref());
        // Steps 1 and 2. If-Unmodified-Since is ignored beside If-Match (section 13.1.4), and where there is no entry.
        match (&self.if_match, self.unmodified_since, current) {
            (Some(EntityTagList::Any), _, current) if current.is_none() => return ConditionOutcome::PreconditionFailed,
            (Some(EntityTagList::Tags(tags)), ..) if !tags.iter().any(|tag| tag.matches_strongly(etag)) => {
                return ConditionOutcome::PreconditionFailed;
            }
            (None, Some(since), Some(current)) if current.modified > since => {
                return ConditionOutcome::PreconditionFailed;
            }
            _ => {}
        }
        // Steps 3 and 4. If-Modified-Since is ignored beside If-None-Match, and for writes (section 13.1.3). If-Match
        // compares strongly, If-None-Match weakly (sections 13.1.1 and 13.1.2).
        let matched = match &self.if_none_match {
            Some(EntityTagList::Any) => current.is_some(),
            Some(EntityTagList::Tags(tags)) => tags.iter().any(|tag| tag.matches_weakly(etag)),
            None => is_read && matches!((self.modified_since, current), (Some(since), Some(c)) if c.modified <= since),
        };
        match (matched, is_read) {
            (false, _) => ConditionOutcome::Proceed,
            (true, true) => ConditionOutcome::NotModified,
            (true, false) => ConditionOutcome::PreconditionFailed,
        }
    }

    /// Tells whether If-Range lets the `Range` header apply (RFC 9110 section 13.1.5). A date is a strong validator
    /// only when the content is at least one second older than `now`, in seconds since 1970.
    pub(super) fn if_range_holds(&self, current: &Validators, now: i64) -> bool {
        match &self.if_range {
            None => true,
            Some(IfRange::Tag(tag)) => tag.matches_strongly(current.etag.as_deref()),
            Some(IfRange::Date(date)) => *date == current.modified && current.modified < now,
            // The client may hold another version: without a readable validator it gets the whole file.
            Some(IfRange::Unreadable) => false,
        }
    }

    /// Evaluates the `If` header.
    ///
    /// # Errors
    /// [`tree::Error::PreconditionFailed`] when none of its lists is true.
    pub(super) fn evaluate_if_header(&self, if_context: IfContext<'_>, path: &TreePath) -> tree::Result<()> {
        let Some(if_header) = &self.if_header else { return Ok(()) };
        // Resource tags are resolved like paths, spellings of Unicode included, so that both name the same entry.
        let look_up = |resource: Option<&[u8]>, needs_etag: bool| match resource {
            // Clients that lock each file they write send its lock token and nothing else.
            None if !needs_etag => locked_state(if_context.view, path),
            None => resource_state(if_context.view, path),
            Some(url) => match resource_url::resolve_in_prefix(url, if_context.server, if_context.url_prefix) {
                Ok(resource) => resource_state(
                    if_context.view,
                    &if_context.view.existing_spelling(if_context.client_root.root(), &resource.path),
                ),
                // On another server or outside of the prefix: without a state, so that conditions are false and `Not`
                // is true.
                Err(_) => Ok(IfResourceState::default()),
            },
        };
        if if_header.holds(look_up)? { Ok(()) } else { Err(tree::Error::PreconditionFailed) }
    }

    /// Evaluates all conditions of a request that changes `path`.
    ///
    /// # Errors
    /// [`tree::Error::PreconditionFailed`] when one is false.
    pub(super) fn evaluate_write(&self, if_context: IfContext<'_>, path: &TreePath) -> tree::Result<()> {
        // Most requests have no conditions: they save the `stat` below, which would run under the lock of the name.
        if !self.apply_to_writes() {
            return Ok(());
        }
        self.evaluate_if_header(if_context, path)?;
        if !self.compare_current() {
            return Ok(());
        }
        let current = found_or_none(if_context.view.stat(path))?;
        match self.evaluate(current.as_ref().map(Validators::from).as_ref(), false) {
            ConditionOutcome::Proceed => Ok(()),
            // Only reads get NotModified; for a write it would be a failure too.
            ConditionOutcome::NotModified | ConditionOutcome::PreconditionFailed => {
                Err(tree::Error::PreconditionFailed)
            }
        }
    }
}

fn resource_state(view: &View, path: &TreePath) -> tree::Result<IfResourceState> {
    // A missing and a hidden entry both have no state, so conditions can't tell them apart.
    let etag = found_or_none(view.stat(path))?.and_then(|entry| entry.etag).map(|tag| tag.to_string());
    Ok(IfResourceState { etag, ..locked_state(view, path)? })
}

/// Returns the state of a resource without its entity tag.
fn locked_state(view: &View, path: &TreePath) -> tree::Result<IfResourceState> {
    let locks = found_or_none(view.locks(path))?.unwrap_or_default();
    Ok(IfResourceState { etag: None, lock_tokens: locks.into_iter().map(|lock| lock.token).collect() })
}

fn found_or_none<T>(found: tree::Result<T>) -> tree::Result<Option<T>> {
    match found {
        Ok(found) => Ok(Some(found)),
        // Not `Forbidden`: an entry that is visible but may not be read is an error, not a missing one.
        Err(tree::Error::Absent | tree::Error::NoParent | tree::Error::NotADirectory | tree::Error::InvalidName) => {
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

fn joined_values(headers: &HeaderMap, name: &HeaderName) -> Option<Vec<u8>> {
    // Several lines of a list are one list (RFC 9110 section 5.3).
    let values: Vec<&[u8]> = headers.get_all(name).iter().map(http::HeaderValue::as_bytes).collect();
    (!values.is_empty()).then(|| values.join(&b", "[..]))
}

fn parse_if_range(text: &[u8]) -> IfRange {
    let text = text.trim_ascii();
    // The tag must be the whole value: If-Range takes no list.
    if let Some((tag, b"")) = EntityTag::parse_prefix(text) {
        return IfRange::Tag(tag);
    }
    let date = std::str::from_utf8(text).ok().and_then(date::parse_http_date);
    date.map_or(IfRange::Unreadable, IfRange::Date)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MODIFIED_DATE: &str = "Sat, 03 Feb 2001 04:05:06 GMT";
    const EARLIER_DATE: &str = "Sat, 03 Feb 2001 04:05:05 GMT";

    type HeaderFields = &'static [(&'static str, &'static str)];

    fn parse_conditions(fields: &[(&'static str, &str)]) -> RequestConditions {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(*name, value.parse().expect("value"));
        }
        RequestConditions::parse(&headers).expect("conditions")
    }

    fn current_validators() -> Validators {
        Validators { etag: Some("a".into()), modified: 981_173_106 }
    }

    #[test]
    fn conditions_are_evaluated_in_rfc_9110_order() {
        use ConditionOutcome::{NotModified, PreconditionFailed, Proceed};
        let cases: &[(HeaderFields, ConditionOutcome, ConditionOutcome)] = &[
            (&[], Proceed, Proceed),
            (&[("if-match", "*")], Proceed, Proceed),
            (&[("if-match", "\"a\"")], Proceed, Proceed),
            (&[("if-match", "W/\"a\"")], PreconditionFailed, PreconditionFailed),
            (&[("if-match", "\"b\", \"c\"")], PreconditionFailed, PreconditionFailed),
            (&[("if-match", "\"b\""), ("if-match", "\"a\"")], Proceed, Proceed),
            (&[("if-none-match", "*")], NotModified, PreconditionFailed),
            (&[("if-none-match", "W/\"a\"")], NotModified, PreconditionFailed),
            (&[("if-none-match", "\"b\"")], Proceed, Proceed),
            (&[("if-modified-since", MODIFIED_DATE)], NotModified, Proceed),
            (&[("if-modified-since", EARLIER_DATE)], Proceed, Proceed),
            (&[("if-modified-since", MODIFIED_DATE), ("if-none-match", "\"b\"")], Proceed, Proceed),
            (&[("if-unmodified-since", MODIFIED_DATE)], Proceed, Proceed),
            (&[("if-unmodified-since", EARLIER_DATE)], PreconditionFailed, PreconditionFailed),
            (&[("if-unmodified-since", EARLIER_DATE), ("if-match", "\"a\"")], Proceed, Proceed),
            (&[("if-unmodified-since", "nonsense")], Proceed, Proceed),
        ];
        for (fields, read, write) in cases {
            let conditions = parse_conditions(fields);
            assert_eq!(conditions.evaluate(Some(&current_validators()), true), *read, "reading {fields:?}");
            assert_eq!(conditions.evaluate(Some(&current_validators()), false), *write, "writing {fields:?}");
        }
    }

    #[test]
    fn absent_resource_matches_no_etag() {
        assert_eq!(parse_conditions(&[("if-match", "*")]).evaluate(None, false), ConditionOutcome::PreconditionFailed);
        assert_eq!(
            parse_conditions(&[("if-match", "\"a\"")]).evaluate(None, false),
            ConditionOutcome::PreconditionFailed
        );
        assert_eq!(parse_conditions(&[("if-none-match", "*")]).evaluate(None, false), ConditionOutcome::Proceed);
        assert_eq!(
            parse_conditions(&[("if-unmodified-since", EARLIER_DATE)]).evaluate(None, false),
            ConditionOutcome::Proceed
        );
    }

    #[test]
    fn if_range_compares_strongly() {
        let now = 981_173_106 + 5;
        let condition_holds =
            |value, now| parse_conditions(&[("if-range", value)]).if_range_holds(&current_validators(), now);
        assert!(
            condition_holds("\"a\"", now)
                && !condition_holds("W/\"a\"", now)
                && !condition_holds("\"b\"", now)
                && !condition_holds("a", now)
        );
        assert!(condition_holds(MODIFIED_DATE, now) && !condition_holds(EARLIER_DATE, now));
        assert!(!condition_holds(MODIFIED_DATE, 981_173_106), "a date is weak within its own second");
        assert!(parse_conditions(&[]).if_range_holds(&current_validators(), now));
    }

    #[test]
    fn malformed_conditions_are_refused_not_ignored() {
        for (name, value) in [("if", "(<a>"), ("if-match", "a b"), ("if-none-match", "")] {
            let mut headers = HeaderMap::new();
            headers.insert(name, value.parse().expect("value"));
            assert!(matches!(RequestConditions::parse(&headers), Err(Error::Malformed(_))), "{name}: {value}");
        }
    }
}
