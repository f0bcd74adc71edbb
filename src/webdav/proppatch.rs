//! PROPPATCH (RFC 4918 section 9.2): all changes are applied, or none.

use std::sync::Arc;

use http::{HeaderValue, Response, StatusCode};

use super::error::{Error, Result, run_blocking};
use super::propfind::LiveProperty;
use super::request_context::RequestContext;
use super::response::empty_response;
use super::xml::XmlElement;
use super::{date, headers, multistatus, read_small_body, xml};
use crate::http::{RequestBody, ResponseBody, full};
use crate::store::ClientStoreError;
use crate::tree::{self, AttributeChanges, DeadProperty, PropertyChange, PropertyName};

/// Maximum size of the value of a dead property, as XML.
const PROPERTY_VALUE_MAX_BYTES: usize = 64 * 1024;
/// Maximum number of changes in a request, more than any client sends.
const MAX_PROPERTY_CHANGES: usize = 512;

/// Handles PROPPATCH.
///
/// # Errors
/// [`Error::Malformed`] for a malformed body, and the errors of the tree.
pub(super) async fn handle(context: &Arc<RequestContext>, body: &mut RequestBody) -> Result<Response<ResponseBody>> {
    let bytes = read_small_body(body, xml::XML_BODY_MAX_BYTES).await?;
    let context = Arc::clone(context);
    run_blocking(move || apply_update(&context, &bytes)).await
}

fn apply_update(context: &RequestContext, bytes: &[u8]) -> Result<Response<ResponseBody>> {
    let mut instructions = parse_instructions(bytes)
        .ok_or_else(|| Error::from_unreadable_xml(bytes, "the body is not a DAV:propertyupdate element"))?;
    // Before the instructions are judged: an absent entry is 404 whatever the body contains.
    let target = context.view.resolve(&context.path)?;
    let mut any_refused = instructions.iter().any(ProppatchInstruction::is_refused);
    let mut attributes = AttributeChanges::default();
    let changes: Vec<PropertyChange> =
        instructions.iter().filter_map(|instruction| instruction.collect_change(&mut attributes)).collect();
    if any_refused {
        // Permissions, locks and conditions come before a property at fault: a client that may not write here must not
        // learn more.
        context.with_preconditions(|conditions| target.check_set_properties(&changes, &attributes, conditions))?;
        // Malformed tags are a malformed request (400), as in X-Patgate-Tags.
        if instructions.iter().any(|instruction| matches!(instruction.outcome, Err(ProppatchError::InvalidTags))) {
            return Err(Error::Malformed(headers::INVALID_TAGS_MESSAGE));
        }
    } else {
        // One call, so that the tree applies all changes or none (RFC 4918 section 9.2).
        match context.with_preconditions(|conditions| target.set_properties(&changes, &attributes, conditions)) {
            // Known only after the attempt: the kernel rounds a time that the file system can't store, without an
            // error.
            Err(Error::Tree(tree::Error::Unsupported)) if ProppatchInstruction::refuse_times(&mut instructions) => {
                any_refused = true
            }
            Err(error) => match error.shortage() {
                Some(ClientStoreError::InsufficientStorage(description))
                    if ProppatchInstruction::refuse_space(&mut instructions, description) =>
                {
                    any_refused = true
                }
                _ => return Err(error),
            },
            result => result?,
        }
    }
    // Only complete success may be answered without a body.
    if !any_refused && headers::prefers_minimal(&context.headers) {
        return Ok(set_preference_applied(empty_response(StatusCode::OK)));
    }
    let mut out = multistatus::start();
    out.push_str("<D:response><D:href>");
    out.push_str(&context.client_root.href(&context.path, target.entry().is_directory()));
    out.push_str("</D:href>");
    instructions.iter().for_each(|instruction| instruction.write_propstat(any_refused, &mut out));
    out.push_str("</D:response>\n");
    out.push_str(multistatus::MULTISTATUS_END);
    Ok(multistatus::response(full(out)))
}

/// Sets `Preference-Applied` (RFC 7240) for `return=minimal` (RFC 8144).
fn set_preference_applied(mut response: Response<ResponseBody>) -> Response<ResponseBody> {
    response.headers_mut().insert("preference-applied", HeaderValue::from_static("return=minimal"));
    response
}

/// Instruction of a property update, and its outcome.
pub(super) struct ProppatchInstruction {
    name: PropertyName,
    outcome: std::result::Result<ProppatchChange, ProppatchError>,
}

enum ProppatchChange {
    /// A property that is stored: a dead one, or `displayname`, which is live, but whose stored value takes precedence.
    StoredProperty(PropertyChange),
    Times(AttributeChanges),
    /// Valid, but already the case: the `resourcetype` of a plain collection.
    NoChange,
}

#[derive(Clone, Copy)]
enum ProppatchError {
    InvalidResourceType,
    ProtectedProperty,
    InvalidTags,
    UnsupportedValue,
    ValueTooLarge,
    /// The store has no space for the value; holds the description for the client.
    NoSpace(&'static str),
}

impl ProppatchError {
    fn status(self) -> &'static str {
        match self {
            Self::InvalidResourceType | Self::ProtectedProperty => "403 Forbidden",
            Self::InvalidTags => "400 Bad Request",
            Self::UnsupportedValue => "409 Conflict",
            Self::ValueTooLarge | Self::NoSpace(_) => "507 Insufficient Storage",
        }
    }

    fn condition(self) -> Option<&'static str> {
        match self {
            Self::InvalidResourceType => Some("valid-resourcetype"),
            Self::ProtectedProperty => Some("cannot-modify-protected-property"),
            Self::NoSpace(_) => Some("quota-not-exceeded"),
            Self::InvalidTags | Self::UnsupportedValue | Self::ValueTooLarge => None,
        }
    }
}

impl ProppatchInstruction {
    /// Tells whether the instruction can't be carried out.
    pub(super) fn is_refused(&self) -> bool {
        self.outcome.is_err()
    }

    /// Refuses the instructions that set times, which the file system can't store. Returns whether there are any.
    pub(super) fn refuse_times(instructions: &mut [Self]) -> bool {
        let sets_time = |instruction: &&mut Self| matches!(instruction.outcome, Ok(ProppatchChange::Times(_)));
        let times = instructions
            .iter_mut()
            .filter(sets_time)
            .map(|instruction| instruction.outcome = Err(ProppatchError::UnsupportedValue));
        times.count() > 0
    }

    /// Refuses the instructions that set dead properties, for which there is no space. Returns whether there are any.
    fn refuse_space(instructions: &mut [Self], description: &'static str) -> bool {
        let sets = |instruction: &&mut Self| {
            matches!(instruction.outcome, Ok(ProppatchChange::StoredProperty(PropertyChange::Set(_))))
        };
        instructions
            .iter_mut()
            .filter(sets)
            .map(|instruction| instruction.outcome = Err(ProppatchError::NoSpace(description)))
            .count()
            > 0
    }

    /// Appends the propstat of the instruction; when any was refused, the others failed with it.
    pub(super) fn write_propstat(&self, any_refused: bool, out: &mut String) {
        let mut name = String::new();
        multistatus::write_empty_property(&self.name, &mut name);
        let (status, condition) = match &self.outcome {
            Err(error) => (error.status(), error.condition()),
            Ok(_) if any_refused => ("424 Failed Dependency", None),
            Ok(_) => ("200 OK", None),
        };
        let description = match &self.outcome {
            Err(ProppatchError::NoSpace(description)) => Some(*description),
            _ => None,
        };
        multistatus::write_described_propstat(&name, status, condition, description, out);
    }

    /// Returns the change of a dead property that it requests; a change of times is added to `attributes`.
    pub(super) fn collect_change(&self, attributes: &mut AttributeChanges) -> Option<PropertyChange> {
        match self.outcome.as_ref().ok()? {
            ProppatchChange::StoredProperty(change) => Some(change.clone()),
            ProppatchChange::Times(times) => {
                // Of several instructions the last one wins (document order, RFC 4918 section 9.2).
                attributes.modified = times.modified.or(attributes.modified);
                attributes.accessed = times.accessed.or(attributes.accessed);
                None
            }
            ProppatchChange::NoChange => None,
        }
    }
}

/// Parses the body of PROPPATCH.
pub(super) fn parse_instructions(bytes: &[u8]) -> Option<Vec<ProppatchInstruction>> {
    let root = XmlElement::parse(bytes).ok().filter(|root| root.is_dav("propertyupdate"))?;
    let mut instructions = Vec::new();
    for element in root.elements() {
        let set = element.is_dav("set");
        if set || element.is_dav("remove") {
            let parse_property =
                if set { set_property } else { |property: &XmlElement, _: Option<&str>| remove_property(property) };
            collect_instructions(element, root.language(), parse_property, &mut instructions);
        }
    }
    (!instructions.is_empty() && instructions.len() <= MAX_PROPERTY_CHANGES).then_some(instructions)
}

fn collect_instructions(
    element: &XmlElement,
    language: Option<&str>,
    parse_property: impl Fn(&XmlElement, Option<&str>) -> std::result::Result<ProppatchChange, ProppatchError>,
    instructions: &mut Vec<ProppatchInstruction>,
) {
    // `xml:lang` is inherited (RFC 4918 section 4.3); it is stored with each property.
    let language = element.language().or(language);
    for prop in element.elements().filter(|element| element.is_dav("prop")) {
        let language = prop.language().or(language);
        instructions.extend(prop.elements().map(|property| ProppatchInstruction {
            name: property.name(),
            outcome: parse_property(property, language),
        }));
    }
}

/// Parses the body of an extended MKCOL (RFC 5689 section 5.1): the properties of the new directory. Its `resourcetype`
/// must be a plain collection.
pub(super) fn parse_mkcol_instructions(bytes: &[u8]) -> Option<Vec<ProppatchInstruction>> {
    let root = XmlElement::parse(bytes).ok().filter(|root| root.is_dav("mkcol"))?;
    let mut instructions = Vec::new();
    for set in root.elements().filter(|element| element.is_dav("set")) {
        collect_instructions(set, root.language(), mkcol_property, &mut instructions);
    }
    (instructions.len() <= MAX_PROPERTY_CHANGES).then_some(instructions)
}

fn mkcol_property(
    property: &XmlElement,
    language: Option<&str>,
) -> std::result::Result<ProppatchChange, ProppatchError> {
    if !property.is_dav("resourcetype") {
        return set_property(property, language);
    }
    let is_plain_collection = property.child("collection").is_some() && property.elements().count() == 1;
    if is_plain_collection {
        // Nothing to change: the directory is created as a collection anyway.
        Ok(ProppatchChange::NoChange)
    } else {
        Err(ProppatchError::InvalidResourceType)
    }
}

fn set_property(property: &XmlElement, language: Option<&str>) -> std::result::Result<ProppatchChange, ProppatchError> {
    let name = property.name();
    let time = || date::parse_property_time(&property.text()).ok_or(ProppatchError::UnsupportedValue);
    match LiveProperty::from_name(&name) {
        Some(
            LiveProperty::LastModified | LiveProperty::NonstandardLastModified | LiveProperty::Win32LastModifiedTime,
        ) => Ok(ProppatchChange::Times(AttributeChanges { modified: Some(time()?), ..AttributeChanges::default() })),
        Some(LiveProperty::Win32LastAccessTime) => {
            Ok(ProppatchChange::Times(AttributeChanges { accessed: Some(time()?), ..AttributeChanges::default() }))
        }
        None if name == tree::tags_property() => {
            let tags = headers::parse_tags(&property.text()).map_err(|_| ProppatchError::InvalidTags)?;
            Ok(ProppatchChange::StoredProperty(tree::set_tags_change(&tags)))
        }
        // Also Win32CreationTime and Win32FileAttributes of Explorer, which are stored without a meaning.
        Some(LiveProperty::DisplayName) | None => {
            // The whole element is stored, so that attributes and namespaces survive (RFC 4918 section 4.3).
            let value = property.clone().with_language(language).to_xml();
            if value.len() > PROPERTY_VALUE_MAX_BYTES {
                return Err(ProppatchError::ValueTooLarge);
            }
            Ok(ProppatchChange::StoredProperty(PropertyChange::Set(DeadProperty { name, value })))
        }
        Some(_) => Err(ProppatchError::ProtectedProperty),
    }
}

fn remove_property(property: &XmlElement) -> std::result::Result<ProppatchChange, ProppatchError> {
    let name = property.name();
    match LiveProperty::from_name(&name) {
        Some(LiveProperty::DisplayName) | None => Ok(ProppatchChange::StoredProperty(PropertyChange::Remove(name))),
        Some(_) => Err(ProppatchError::ProtectedProperty),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed_outcome(property: &str) -> &'static str {
        let body = format!(
            "<D:propertyupdate xmlns:D=\"DAV:\" xmlns:Z=\"urn:schemas-microsoft-com:\"><D:set><D:prop>{property}</D:prop></D:set></D:propertyupdate>"
        );
        let instructions = parse_instructions(body.as_bytes()).expect(property);
        match &instructions[0].outcome {
            Ok(ProppatchChange::StoredProperty(_)) => "kept",
            Ok(ProppatchChange::Times(_)) => "set",
            Ok(ProppatchChange::NoChange) => "unchanged",
            Err(error) => error.status(),
        }
    }

    #[test]
    fn times_are_settable_and_other_live_properties_are_protected() {
        for (property, expected) in [
            ("<D:getlastmodified>Sat, 03 Feb 2001 04:05:06 GMT</D:getlastmodified>", "set"),
            ("<D:lastmodified>981173106</D:lastmodified>", "set"),
            ("<Z:Win32LastModifiedTime>Sat, 03 Feb 2001 04:05:06 GMT</Z:Win32LastModifiedTime>", "set"),
            ("<Z:Win32LastAccessTime>nonsense</Z:Win32LastAccessTime>", "409 Conflict"),
            ("<Z:Win32FileAttributes>00000020</Z:Win32FileAttributes>", "kept"),
            ("<D:displayname>x</D:displayname>", "kept"),
            ("<D:getetag>x</D:getetag>", "403 Forbidden"),
            ("<D:lockdiscovery/>", "403 Forbidden"),
            (&format!("<x>{}</x>", "v".repeat(PROPERTY_VALUE_MAX_BYTES)), "507 Insufficient Storage"),
        ] {
            assert_eq!(parsed_outcome(property), expected, "{property}");
        }
    }

    #[test]
    fn instructions_are_applied_in_document_order() {
        let body = "<propertyupdate xmlns=\"DAV:\" xml:lang=\"en\"><remove><prop><a xmlns=\"u:\"/></prop></remove><set><prop><a xmlns=\"u:\">1</a><b xmlns=\"u:\" xml:lang=\"de\"/></prop></set></propertyupdate>";
        let instructions = parse_instructions(body.as_bytes()).expect("steps");
        let mut attributes = AttributeChanges::default();
        let changes: Vec<_> =
            instructions.iter().filter_map(|instruction| instruction.collect_change(&mut attributes)).collect();
        let name = |name: &str| PropertyName { namespace: "u:".into(), name: name.into() };
        let set = |n, value: &str| PropertyChange::Set(DeadProperty { name: name(n), value: value.into() });
        let expected = [
            PropertyChange::Remove(name("a")),
            set("a", "<a xmlns=\"u:\" xml:lang=\"en\">1</a>"),
            set("b", "<b xmlns=\"u:\" xml:lang=\"de\"/>"),
        ];
        assert_eq!(changes, expected);
        for body in
            ["<propertyupdate xmlns=\"DAV:\"/>", "<x/>", "", "<propertyupdate xmlns=\"DAV:\"><set/></propertyupdate>"]
        {
            assert!(super::parse_instructions(body.as_bytes()).is_none(), "{body}");
        }
    }
}
