//! PROPPATCH (RFC 4918 section 9.2): all changes or none.

use std::sync::Arc;

use http::{HeaderValue, Response, StatusCode};

use super::call::Call;
use super::error::{Error, Result, blocking};
use super::folder::done;
use super::propfind::Live;
use super::xml::Element;
use super::{date, fields, multistatus, small_body, xml};
use crate::http::{RequestBody, ResponseBody, full};
use crate::store::ClientStoreError;
use crate::tree::{self, AttributeChanges, DeadProperty, PropertyChange, PropertyName};

/// The longest value of a property.
const MAX_VALUE: usize = 64 * 1024;
/// More changes than any client asks for at once.
const MAX_CHANGES: usize = 512;

/// Answers PROPPATCH.
///
/// # Errors
/// [`Error::Malformed`] for a body that can't be read, and what the tree says.
pub(super) async fn answer(call: &Arc<Call>, body: &mut RequestBody) -> Result<Response<ResponseBody>> {
    let bytes = small_body(body, xml::MAX_BODY).await?;
    let call = Arc::clone(call);
    blocking(move || patch(&call, &bytes)).await
}

fn patch(call: &Call, bytes: &[u8]) -> Result<Response<ResponseBody>> {
    let mut steps = steps(bytes).ok_or_else(|| Error::unreadable(bytes, "the body is no propertyupdate"))?;
    let entry = call.view.stat(&call.path)?;
    let mut refused = steps.iter().any(Step::is_refused);
    let mut attributes = AttributeChanges::default();
    let changes: Vec<PropertyChange> = steps.iter().filter_map(|step| step.apply(&mut attributes)).collect();
    if refused {
        // Rights, locks and conditions are asked before a property that can't be set is told of.
        call.claiming(|claim| call.view.check_set_properties(&call.path, &changes, &attributes, claim))?;
        if steps.iter().any(|step| matches!(step.outcome, Err(Fault::Tags))) {
            return Err(Error::Malformed(fields::TAGS));
        }
    } else {
        match call.claiming(|claim| call.view.set_properties(&call.path, &changes, &attributes, claim)) {
            Err(Error::Tree(tree::Error::Unsupported)) if Step::refuse_times(&mut steps) => refused = true,
            Err(error) => match error.shortage() {
                Some(ClientStoreError::InsufficientStorage(why)) if Step::refuse_space(&mut steps, why) => {
                    refused = true
                }
                _ => return Err(error),
            },
            done => done?,
        }
    }
    if !refused && fields::wants_little(&call.headers) {
        return Ok(brief(done(StatusCode::OK)));
    }
    let mut out = String::from(multistatus::HEAD);
    out.push_str("<D:response><D:href>");
    out.push_str(&call.mount.href(&call.path, entry.is_directory()));
    out.push_str("</D:href>");
    steps.iter().for_each(|step| step.tell(refused, &mut out));
    out.push_str("</D:response>\n");
    out.push_str(multistatus::TAIL);
    Ok(multistatus::response(full(out)))
}

/// Notes in an answer that it is as short as the client wanted it (RFC 8144).
fn brief(mut response: Response<ResponseBody>) -> Response<ResponseBody> {
    response.headers_mut().insert("preference-applied", HeaderValue::from_static("return=minimal"));
    response
}

/// One instruction, and what would come of it.
pub(super) struct Step {
    name: PropertyName,
    outcome: std::result::Result<Change, Fault>,
}

enum Change {
    Dead(PropertyChange),
    Times(AttributeChanges),
}

#[derive(Clone, Copy)]
enum Fault {
    Kind,
    Protected,
    Tags,
    Unfit,
    TooLong,
    /// There is no space for it, and why.
    Space(&'static str),
}

impl Fault {
    fn status(self) -> &'static str {
        match self {
            Self::Kind | Self::Protected => "403 Forbidden",
            Self::Tags => "400 Bad Request",
            Self::Unfit => "409 Conflict",
            Self::TooLong | Self::Space(_) => "507 Insufficient Storage",
        }
    }

    fn reason(self) -> Option<&'static str> {
        match self {
            Self::Kind => Some("valid-resourcetype"),
            Self::Protected => Some("cannot-modify-protected-property"),
            Self::Space(_) => Some("quota-not-exceeded"),
            Self::Tags | Self::Unfit | Self::TooLong => None,
        }
    }
}

impl Step {
    /// Tells whether it can't be carried out.
    pub(super) fn is_refused(&self) -> bool {
        self.outcome.is_err()
    }

    /// Refuses the times among the steps, which the file system can't keep. Returns whether there are any.
    pub(super) fn refuse_times(steps: &mut [Self]) -> bool {
        let sets_time = |step: &&mut Self| matches!(&step.outcome, Ok(Change::Times(times)) if *times != AttributeChanges::default());
        let times = steps.iter_mut().filter(sets_time).map(|step| step.outcome = Err(Fault::Unfit));
        times.count() > 0
    }

    /// Refuses the properties that would be set, for which there is no space. Returns whether there are any.
    fn refuse_space(steps: &mut [Self], why: &'static str) -> bool {
        let sets = |step: &&mut Self| matches!(step.outcome, Ok(Change::Dead(PropertyChange::Set(_))));
        steps.iter_mut().filter(sets).map(|step| step.outcome = Err(Fault::Space(why))).count() > 0
    }

    /// Appends what came of it; nothing came of any when one was refused.
    pub(super) fn tell(&self, refused: bool, out: &mut String) {
        let mut name = String::new();
        multistatus::bare(&self.name, &mut name);
        let (status, reason) = match &self.outcome {
            Err(fault) => (fault.status(), fault.reason()),
            Ok(_) if refused => ("424 Failed Dependency", None),
            Ok(_) => ("200 OK", None),
        };
        let why = match &self.outcome {
            Err(Fault::Space(why)) => Some(*why),
            _ => None,
        };
        multistatus::propstat_because(&name, status, reason, why, out);
    }

    /// Returns the change of a dead property that it asks for; one of times is noted in `attributes`.
    pub(super) fn apply(&self, attributes: &mut AttributeChanges) -> Option<PropertyChange> {
        match self.outcome.as_ref().ok()? {
            Change::Dead(change) => Some(change.clone()),
            Change::Times(times) => {
                attributes.modified = times.modified.or(attributes.modified);
                attributes.accessed = times.accessed.or(attributes.accessed);
                None
            }
        }
    }
}

fn steps(bytes: &[u8]) -> Option<Vec<Step>> {
    let root = Element::parse(bytes).ok().filter(|root| root.is("propertyupdate"))?;
    let mut steps = Vec::new();
    for instruction in root.elements() {
        let set = instruction.is("set");
        if set || instruction.is("remove") {
            let one = if set { set_to } else { |property: &Element, _: Option<&str>| remove(property) };
            instructed(instruction, root.language(), one, &mut steps);
        }
    }
    (!steps.is_empty() && steps.len() <= MAX_CHANGES).then_some(steps)
}

fn instructed(
    instruction: &Element,
    language: Option<&str>,
    one: impl Fn(&Element, Option<&str>) -> std::result::Result<Change, Fault>,
    steps: &mut Vec<Step>,
) {
    let language = instruction.language().or(language);
    for prop in instruction.elements().filter(|element| element.is("prop")) {
        let language = prop.language().or(language);
        steps.extend(prop.elements().map(|property| Step { name: property.name(), outcome: one(property, language) }));
    }
}

/// Reads the body of an extended MKCOL (RFC 5689 section 5.1): the properties of the new folder, of which
/// `resourcetype` must say that it is nothing but a folder.
pub(super) fn first_steps(bytes: &[u8]) -> Option<Vec<Step>> {
    let root = Element::parse(bytes).ok().filter(|root| root.is("mkcol"))?;
    let mut steps = Vec::new();
    for set in root.elements().filter(|element| element.is("set")) {
        instructed(set, root.language(), first, &mut steps);
    }
    (steps.len() <= MAX_CHANGES).then_some(steps)
}

fn first(property: &Element, language: Option<&str>) -> std::result::Result<Change, Fault> {
    if !property.is("resourcetype") {
        return set_to(property, language);
    }
    let plain = property.child("collection").is_some() && property.elements().count() == 1;
    if plain { Ok(Change::Times(AttributeChanges::default())) } else { Err(Fault::Kind) }
}

fn set_to(property: &Element, language: Option<&str>) -> std::result::Result<Change, Fault> {
    let name = property.name();
    let time = || date::parse_set_time(&property.text()).ok_or(Fault::Unfit);
    match Live::of(&name) {
        Some(Live::Modified | Live::ModifiedToo | Live::WindowsModified) => {
            Ok(Change::Times(AttributeChanges { modified: Some(time()?), ..AttributeChanges::default() }))
        }
        Some(Live::WindowsAccessed) => {
            Ok(Change::Times(AttributeChanges { accessed: Some(time()?), ..AttributeChanges::default() }))
        }
        None if name == tree::tags_property() => {
            let tags = fields::parse_tags(&property.text()).map_err(|_| Fault::Tags)?;
            Ok(Change::Dead(tree::set_tags_change(&tags)))
        }
        Some(Live::DisplayName) | None => {
            let value = property.clone().in_language(language).to_xml();
            if value.len() > MAX_VALUE {
                return Err(Fault::TooLong);
            }
            Ok(Change::Dead(PropertyChange::Set(DeadProperty { name, value })))
        }
        Some(_) => Err(Fault::Protected),
    }
}

fn remove(property: &Element) -> std::result::Result<Change, Fault> {
    let name = property.name();
    match Live::of(&name) {
        Some(Live::DisplayName) | None => Ok(Change::Dead(PropertyChange::Remove(name))),
        Some(_) => Err(Fault::Protected),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome(property: &str) -> &'static str {
        let body = format!(
            "<D:propertyupdate xmlns:D=\"DAV:\" xmlns:Z=\"urn:schemas-microsoft-com:\"><D:set><D:prop>{property}</D:prop></D:set></D:propertyupdate>"
        );
        let steps = steps(body.as_bytes()).expect(property);
        match &steps[0].outcome {
            Ok(Change::Dead(_)) => "kept",
            Ok(Change::Times(_)) => "set",
            Err(fault) => fault.status(),
        }
    }

    #[test]
    fn times_are_set_and_what_the_gateway_knows_itself_is_protected() {
        for (property, wanted) in [
            ("<D:getlastmodified>Sat, 03 Feb 2001 04:05:06 GMT</D:getlastmodified>", "set"),
            ("<D:lastmodified>981173106</D:lastmodified>", "set"),
            ("<Z:Win32LastModifiedTime>Sat, 03 Feb 2001 04:05:06 GMT</Z:Win32LastModifiedTime>", "set"),
            ("<Z:Win32LastAccessTime>nonsense</Z:Win32LastAccessTime>", "409 Conflict"),
            ("<Z:Win32FileAttributes>00000020</Z:Win32FileAttributes>", "kept"),
            ("<D:displayname>x</D:displayname>", "kept"),
            ("<D:getetag>x</D:getetag>", "403 Forbidden"),
            ("<D:lockdiscovery/>", "403 Forbidden"),
            (&format!("<x>{}</x>", "v".repeat(MAX_VALUE)), "507 Insufficient Storage"),
        ] {
            assert_eq!(outcome(property), wanted, "{property}");
        }
    }

    #[test]
    fn instructions_are_taken_in_their_order() {
        let body = "<propertyupdate xmlns=\"DAV:\" xml:lang=\"en\"><remove><prop><a xmlns=\"u:\"/></prop></remove><set><prop><a xmlns=\"u:\">1</a><b xmlns=\"u:\" xml:lang=\"de\"/></prop></set></propertyupdate>";
        let steps = steps(body.as_bytes()).expect("steps");
        let mut attributes = AttributeChanges::default();
        let changes: Vec<_> = steps.iter().filter_map(|step| step.apply(&mut attributes)).collect();
        let name = |name: &str| PropertyName { namespace: "u:".into(), name: name.into() };
        let set = |n, value: &str| PropertyChange::Set(DeadProperty { name: name(n), value: value.into() });
        let wanted = [
            PropertyChange::Remove(name("a")),
            set("a", "<a xmlns=\"u:\" xml:lang=\"en\">1</a>"),
            set("b", "<b xmlns=\"u:\" xml:lang=\"de\"/>"),
        ];
        assert_eq!(changes, wanted);
        for body in
            ["<propertyupdate xmlns=\"DAV:\"/>", "<x/>", "", "<propertyupdate xmlns=\"DAV:\"><set/></propertyupdate>"]
        {
            assert!(super::steps(body.as_bytes()).is_none(), "{body}");
        }
    }
}
