//! Parser of untrusted XML: limited in depth and number of elements while the tree is built, without document types or
//! custom entities, with namespaces as in Namespaces in XML 1.0.

use std::borrow::Cow;
use std::sync::Arc;

use quick_xml::Reader;
use quick_xml::events::{BytesRef, BytesStart, Event};

use crate::domain::EntryName;
use crate::tree::PropertyName;

/// Namespace of WebDAV.
pub(super) const DAV_NAMESPACE: &str = "DAV:";
/// Maximum size of an XML body.
pub(super) const XML_BODY_MAX_BYTES: usize = 1 << 20;

const MAX_ELEMENT_DEPTH: usize = 64;
const MAX_ELEMENTS: usize = 20_000;
const MAX_ATTRIBUTES: usize = 64;
const NAMESPACE_MAX_BYTES: usize = 1024;
const XML_NAMESPACE: &str = "http://www.w3.org/XML/1998/namespace";

/// XML that is malformed or exceeds a limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct MalformedXml;

/// Name as it was written, and its namespace (empty for none).
#[derive(Clone, Debug, PartialEq, Eq)]
struct QualifiedName {
    prefix: String,
    local: String,
    namespace: Arc<str>,
}

/// Element with its attributes and children.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct XmlElement {
    name: QualifiedName,
    namespace_declarations: Vec<(String, Arc<str>)>,
    attributes: Vec<(QualifiedName, String)>,
    children: Vec<XmlNode>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum XmlNode {
    Element(XmlElement),
    Text(String),
}

impl XmlElement {
    /// Parses a document.
    ///
    /// # Errors
    /// [`MalformedXml`] when it isn't well-formed XML with namespaces in UTF-8 or UTF-16, has a document type, refers
    /// to an entity that is not predefined, or exceeds a limit of depth or number.
    pub(super) fn parse(bytes: &[u8]) -> Result<Self, MalformedXml> {
        let utf16_decoder = detect_utf16(bytes);
        let text = match utf16_decoder {
            Some(read) => Cow::Owned(decode_utf16(bytes, read)?),
            None => Cow::Borrowed(std::str::from_utf8(bytes).map_err(|_| MalformedXml)?),
        };
        // A byte order mark is not content.
        let text = text.trim_start_matches('\u{feff}').trim();
        let mut reader = Reader::from_str(text);
        let mut builder = XmlTreeBuilder::default();
        loop {
            match reader.read_event().map_err(|_| MalformedXml)? {
                Event::Start(start) => builder.start_element(&start)?,
                Event::Empty(start) => {
                    builder.start_element(&start)?;
                    builder.end_element()?;
                }
                Event::End(_) => builder.end_element()?,
                Event::Text(text) => builder.append_text(&text.xml10_content())?,
                Event::CData(text) => builder.append_text(&text.xml10_content())?,
                Event::GeneralRef(entity) => builder.append_text(&resolve_entity(&entity)?.to_string())?,
                Event::Comment(_) | Event::PI(_) => {}
                Event::Decl(decl) => match decl.encoding() {
                    None => {}
                    // A declaration must agree with the bytes: a parser that trusts it would read another document.
                    Some(Ok(name)) if utf16_decoder.is_some() && name.eq_ignore_ascii_case("utf-16") => {}
                    Some(Ok(name)) if name.eq_ignore_ascii_case("utf-8") || name.eq_ignore_ascii_case("us-ascii") => {}
                    Some(_) => return Err(MalformedXml),
                },
                // No entities of the client's own: neither exponential expansion nor external files.
                Event::DocType(_) => return Err(MalformedXml),
                Event::Eof => return builder.finish(),
            }
        }
    }

    /// Tells whether this is the element of this name in the namespace of WebDAV.
    pub(super) fn is_dav(&self, local: &str) -> bool {
        &*self.name.namespace == DAV_NAMESPACE && self.name.local == local
    }

    /// Returns the name of the element.
    pub(super) fn name(&self) -> PropertyName {
        PropertyName { namespace: self.name.namespace.to_string(), name: self.name.local.clone() }
    }

    /// Returns the child elements.
    pub(super) fn elements(&self) -> impl Iterator<Item = &XmlElement> {
        self.children.iter().filter_map(|node| if let XmlNode::Element(element) = node { Some(element) } else { None })
    }

    /// Returns the first child element of this name in the namespace of WebDAV.
    pub(super) fn child(&self, local: &str) -> Option<&XmlElement> {
        self.elements().find(|element| element.is_dav(local))
    }

    /// Returns the text of the element, without that of its children.
    pub(super) fn text(&self) -> String {
        self.children
            .iter()
            .filter_map(|node| if let XmlNode::Text(text) = node { Some(text.as_str()) } else { None })
            .collect()
    }

    /// Serializes the element as XML that is valid by itself: every prefix that it uses is declared in it. An inherited
    /// `xml:lang` is not included: see [`XmlElement::with_language`].
    pub(super) fn to_xml(&self) -> String {
        let mut out = String::new();
        // Bound without a declaration: no default namespace, and the prefix `xml`.
        self.write(&mut vec![(String::new(), "".into()), ("xml".to_owned(), XML_NAMESPACE.into())], &mut out);
        out
    }

    /// Sets `xml:lang` where the element has none (RFC 4918 section 4.3).
    pub(super) fn with_language(mut self, language: Option<&str>) -> Self {
        if let Some(language) = language.filter(|_| self.language().is_none()) {
            let name = QualifiedName { prefix: "xml".into(), local: "lang".into(), namespace: XML_NAMESPACE.into() };
            self.attributes.push((name, language.to_owned()));
        }
        self
    }

    /// Returns the `xml:lang` of the element itself.
    pub(super) fn language(&self) -> Option<&str> {
        let is_lang = |name: &QualifiedName| &*name.namespace == XML_NAMESPACE && name.local == "lang";
        self.attributes.iter().find(|(name, _)| is_lang(name)).map(|(_, value)| value.as_str())
    }

    fn write(&self, scope: &mut Vec<(String, Arc<str>)>, out: &mut String) {
        let outer_length = scope.len();
        let mut declared = self.namespace_declarations.clone();
        let names = std::iter::once(&self.name).chain(self.attributes.iter().map(|(name, _)| name));
        for name in names.filter(|name| !name.is_unprefixed_attribute_of(self)) {
            // The innermost declaration counts; one that the parents made is repeated here, so that the element is
            // complete.
            let bound = declared.iter().chain(scope.iter().rev()).find(|(prefix, _)| *prefix == name.prefix);
            if bound.is_none_or(|(_, namespace)| *namespace != name.namespace) {
                declared.push((name.prefix.clone(), Arc::clone(&name.namespace)));
            }
        }
        out.push('<');
        self.name.write(out);
        for (prefix, namespace) in &declared {
            out.push_str(if prefix.is_empty() { " xmlns" } else { " xmlns:" });
            out.push_str(prefix);
            write_attribute_value(namespace, out);
        }
        for (name, text) in &self.attributes {
            out.push(' ');
            name.write(out);
            write_attribute_value(text, out);
        }
        scope.extend(declared);
        if self.children.is_empty() {
            out.push_str("/>");
        } else {
            out.push('>');
            for child in &self.children {
                match child {
                    XmlNode::Element(element) => element.write(scope, out),
                    XmlNode::Text(text) => escape(text, out),
                }
            }
            out.push_str("</");
            self.name.write(out);
            out.push('>');
        }
        // Declarations end with their element.
        scope.truncate(outer_length);
    }
}

impl QualifiedName {
    fn write(&self, out: &mut String) {
        if !self.prefix.is_empty() {
            out.push_str(&self.prefix);
            out.push(':');
        }
        out.push_str(&self.local);
    }

    /// Tells whether this is the unprefixed name of an attribute: it is in no namespace, whatever the default is.
    fn is_unprefixed_attribute_of(&self, element: &XmlElement) -> bool {
        self.prefix.is_empty() && !std::ptr::eq(self, &element.name)
    }
}

fn write_attribute_value(text: &str, out: &mut String) {
    out.push_str("=\"");
    escape(text, out);
    out.push('"');
}

/// Appends text with XML markup escaped; characters that XML can't represent are written as `\u{…}`.
pub(super) fn escape(text: &str, out: &mut String) {
    // 0xef starts U+FFFE and U+FFFF in UTF-8, which XML can't represent.
    let special = |b: u8| matches!(b, b'&' | b'<' | b'>' | b'"' | 0xef) || b < b' ';
    let mut rest = text;
    while let Some(at) = rest.bytes().position(special) {
        let (plain, tail) = rest.split_at(at);
        out.push_str(plain);
        let Some(c) = tail.chars().next() else { return };
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            // As references: a parser would normalize them in attributes.
            '\t' | '\n' | '\r' => out.push_str(&format!("&#{};", u32::from(c))),
            c if is_xml_char(c) => out.push(c),
            c => out.push_str(&format!("\\u{{{:x}}}", u32::from(c))),
        }
        rest = &tail[c.len_utf8()..];
    }
    out.push_str(rest);
}

/// Appends a name as text: bytes that aren't UTF-8 and control characters are escaped.
pub(super) fn escape_name(name: &[u8], out: &mut String) {
    // Nearly all names: printable ASCII without markup, which is copied as it is.
    let is_plain = |b: &u8| matches!(b, b' '..=b'~') && !matches!(b, b'&' | b'<' | b'>' | b'"');
    match std::str::from_utf8(name) {
        Ok(text) if name.iter().all(is_plain) => out.push_str(text),
        Ok(text) if !text.contains(char::is_control) => escape(text, out),
        _ => escape(&EntryName::new(name).map(|name| name.to_string()).unwrap_or_default(), out),
    }
}

/// Tells whether XML 1.0 can represent a character.
fn is_xml_char(c: char) -> bool {
    matches!(c, '\t' | '\n' | '\r' | ' '..='\u{d7ff}' | '\u{e000}'..='\u{fffd}' | '\u{10000}'..)
}

fn resolve_entity(entity: &BytesRef<'_>) -> Result<char, MalformedXml> {
    let c = match &**entity {
        "lt" => '<',
        "gt" => '>',
        "amp" => '&',
        "apos" => '\'',
        "quot" => '"',
        _ => entity.resolve_char_ref().ok().flatten().ok_or(MalformedXml)?,
    };
    // `&#0;` is not well-formed either.
    if is_xml_char(c) { Ok(c) } else { Err(MalformedXml) }
}

/// Tells whether a text is an `NCName`: a name without a prefix.
fn is_ncname(text: &str) -> bool {
    let starts = |c: char| c.is_alphabetic() || c == '_' || (!c.is_ascii() && is_xml_char(c));
    let mut chars = text.chars();
    chars.next().is_some_and(starts) && chars.all(|c| starts(c) || c.is_ascii_digit() || c == '-' || c == '.')
}

#[derive(Default)]
struct XmlTreeBuilder {
    open_elements: Vec<XmlElement>,
    root: Option<XmlElement>,
    element_count: usize,
}

impl XmlTreeBuilder {
    fn start_element(&mut self, start: &BytesStart<'_>) -> Result<(), MalformedXml> {
        self.element_count += 1;
        // Before anything is allocated for the element. With a root, this would be a second one.
        if self.root.is_some() || self.open_elements.len() == MAX_ELEMENT_DEPTH || self.element_count > MAX_ELEMENTS {
            return Err(MalformedXml);
        }
        let (mut declared, mut plain) = (Vec::new(), Vec::new());
        for attribute in start.attributes() {
            let attribute = attribute.map_err(|_| MalformedXml)?;
            // quick-xml lets `<` pass in attribute values.
            if declared.len() + plain.len() == MAX_ATTRIBUTES || attribute.value.contains('<') {
                return Err(MalformedXml);
            }
            let value = attribute.normalized_value(quick_xml::XmlVersion::Implicit1_0).map_err(|_| MalformedXml)?;
            if !value.chars().all(is_xml_char) {
                return Err(MalformedXml);
            }
            match attribute.key.0.strip_prefix("xmlns") {
                Some("") => declared.push(check_namespace_declaration("", &value)?),
                Some(rest) if rest.starts_with(':') => declared.push(check_namespace_declaration(&rest[1..], &value)?),
                _ => plain.push((attribute.key.0, value.into_owned())),
            }
        }
        let name = self.qualify(start.name().0, &declared, true)?;
        let attributes = plain.into_iter().map(|(name, value)| Ok((self.qualify(name, &declared, false)?, value)));
        let attributes: Vec<(QualifiedName, String)> = attributes.collect::<Result<_, MalformedXml>>()?;
        // After prefixes are resolved: `a:x` and `b:x` may be one name (Namespaces in XML section 6.3).
        let key = |(name, _): &(QualifiedName, String)| (name.namespace.clone(), name.local.clone());
        let has_duplicate =
            attributes.iter().enumerate().any(|(i, a)| attributes[..i].iter().any(|b| key(a) == key(b)));
        if has_duplicate {
            return Err(MalformedXml);
        }
        self.open_elements.push(XmlElement {
            name,
            namespace_declarations: declared,
            attributes,
            children: Vec::new(),
        });
        Ok(())
    }

    fn end_element(&mut self) -> Result<(), MalformedXml> {
        let element = self.open_elements.pop().ok_or(MalformedXml)?;
        match self.open_elements.last_mut() {
            Some(parent) => parent.children.push(XmlNode::Element(element)),
            None => self.root = Some(element),
        }
        Ok(())
    }

    fn append_text(&mut self, text: &str) -> Result<(), MalformedXml> {
        if !text.chars().all(is_xml_char) {
            return Err(MalformedXml);
        }
        match self.open_elements.last_mut() {
            Some(element) => match element.children.last_mut() {
                // References and CDATA split text into several events.
                Some(XmlNode::Text(before)) => before.push_str(text),
                _ => element.children.push(XmlNode::Text(text.to_owned())),
            },
            // Outside of the root only white space is allowed.
            None if text.trim().is_empty() => {}
            None => return Err(MalformedXml),
        }
        Ok(())
    }

    fn qualify(
        &self,
        name: &str,
        declared: &[(String, Arc<str>)],
        element: bool,
    ) -> Result<QualifiedName, MalformedXml> {
        let (prefix, local) = name.split_once(':').unwrap_or(("", name));
        let is_valid = is_ncname(local) && (is_ncname(prefix) || (prefix.is_empty() && !name.starts_with(':')));
        if !is_valid {
            return Err(MalformedXml);
        }
        let namespace = match prefix {
            // The default namespace doesn't apply to attributes (Namespaces in XML section 6.2).
            "" if !element => "".into(),
            "xml" => XML_NAMESPACE.into(),
            _ => self
                .resolve_prefix(prefix, declared)
                .or_else(|| prefix.is_empty().then(|| "".into()))
                .ok_or(MalformedXml)?,
        };
        Ok(QualifiedName { prefix: prefix.to_owned(), local: local.to_owned(), namespace })
    }

    fn resolve_prefix(&self, prefix: &str, declared: &[(String, Arc<str>)]) -> Option<Arc<str>> {
        // Inner declarations hide outer ones.
        let outer = self.open_elements.iter().rev().flat_map(|element| &element.namespace_declarations);
        declared.iter().chain(outer).find(|(known, _)| known == prefix).map(|(_, namespace)| Arc::clone(namespace))
    }

    fn finish(self) -> Result<XmlElement, MalformedXml> {
        if self.open_elements.is_empty() { self.root.ok_or(MalformedXml) } else { Err(MalformedXml) }
    }
}

/// Decoder of a code unit of UTF-16, which depends on the byte order.
type Utf16Decoder = fn([u8; 2]) -> u16;

/// Detects UTF-16, which RFC 4918 section 19 requires every server to read: by a byte order mark or a leading `<` (XML
/// 1.0 appendix F).
fn detect_utf16(bytes: &[u8]) -> Option<Utf16Decoder> {
    match bytes {
        [0xfe, 0xff, ..] | [0, b'<', ..] => Some(u16::from_be_bytes),
        [0xff, 0xfe, ..] | [b'<', 0, ..] => Some(u16::from_le_bytes),
        _ => None,
    }
}

/// Tells whether a body has a document type declaration, in UTF-8 or UTF-16.
pub(super) fn has_doctype(body: &[u8]) -> bool {
    const DOCTYPE: &str = "<!DOCTYPE";
    // A plain search is enough: it chooses between two refusals, and the body is not parsed any further.
    match detect_utf16(body) {
        Some(read) => {
            let units = body.as_chunks::<2>().0.iter().map(|pair| read(*pair));
            // Lossily: a body that is malformed further on has a declaration all the same.
            let text = char::decode_utf16(units).map(|c| c.unwrap_or(char::REPLACEMENT_CHARACTER)).collect::<String>();
            text.contains(DOCTYPE)
        }
        None => memchr::memmem::find(body, DOCTYPE.as_bytes()).is_some(),
    }
}

fn decode_utf16(bytes: &[u8], read: Utf16Decoder) -> Result<String, MalformedXml> {
    let (pairs, rest) = bytes.as_chunks::<2>();
    if !rest.is_empty() {
        return Err(MalformedXml);
    }
    char::decode_utf16(pairs.iter().map(|pair| read(*pair))).collect::<Result<_, _>>().map_err(|_| MalformedXml)
}

/// Checks a declaration: a prefix can't be bound to an empty namespace, nor a reserved one be redeclared (Namespaces in
/// XML section 3).
fn check_namespace_declaration(prefix: &str, namespace: &str) -> Result<(String, Arc<str>), MalformedXml> {
    let is_invalid = (!prefix.is_empty() && (namespace.is_empty() || !is_ncname(prefix)))
        || prefix == "xmlns"
        || (prefix == "xml") != (namespace == XML_NAMESPACE)
        || namespace == "http://www.w3.org/2000/xmlns/"
        || namespace.len() > NAMESPACE_MAX_BYTES;
    if is_invalid { Err(MalformedXml) } else { Ok((prefix.to_owned(), namespace.into())) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn parse(text: &str) -> Result<XmlElement, MalformedXml> {
        XmlElement::parse(text.as_bytes())
    }

    fn nested(depth: usize) -> String {
        format!("{}{}", "<a>".repeat(depth), "</a>".repeat(depth))
    }

    #[test]
    fn nesting_depth_is_limited_before_building() {
        assert!(parse(&nested(64)).is_ok());
        assert_eq!(parse(&nested(65)), Err(MalformedXml));
        assert_eq!(parse(&nested(2000)), Err(MalformedXml));
        assert_eq!(parse(&"<a>".repeat(300_000)), Err(MalformedXml));
        assert_eq!(parse(&format!("<a>{}</a>", "<b/>".repeat(MAX_ELEMENTS))), Err(MalformedXml));
        let attributes: String = (0..=MAX_ATTRIBUTES).map(|i| format!(" a{i}=\"\"")).collect();
        assert_eq!(parse(&format!("<a{attributes}/>")), Err(MalformedXml));
    }

    #[test]
    fn xml_is_parsed_in_utf_8_and_utf_16() {
        let plain = "<a x=\"\u{e4}\">\u{1f600}</a>";
        let expected = parse(plain).expect("parsed");
        let encoded = |text: &str, write: fn(u16) -> [u8; 2]| text.encode_utf16().flat_map(write).collect::<Vec<u8>>();
        for write in [u16::to_be_bytes, u16::to_le_bytes] {
            for front in ["", "\u{feff}", "\u{feff}<?xml version=\"1.0\" encoding=\"UTF-16\"?>"] {
                let text = format!("{front}{plain}");
                assert_eq!(XmlElement::parse(&encoded(&text, write)).as_ref(), Ok(&expected), "{text}");
            }
            let mut odd = encoded(plain, write);
            odd.push(0);
            assert_eq!(XmlElement::parse(&odd), Err(MalformedXml));
            let half = [encoded("<a>", write), write(0xd800).to_vec(), encoded("</a>", write)].concat();
            assert_eq!(XmlElement::parse(&half), Err(MalformedXml), "half of a pair");
            let other = encoded("<?xml version=\"1.0\" encoding=\"latin1\"?><a/>", write);
            assert_eq!(XmlElement::parse(&other), Err(MalformedXml));
        }
        assert_eq!(
            parse("<?xml version=\"1.0\" encoding=\"UTF-16\"?><a/>"),
            Err(MalformedXml),
            "it says what it isn't"
        );
    }

    #[test]
    fn document_types_and_unknown_entities_are_refused() {
        for text in [
            "<!DOCTYPE a [<!ENTITY x \"y\">]><a>&x;</a>",
            "<!DOCTYPE a><a/>",
            "<a>&nbsp;</a>",
            "<a>&#0;</a>",
            "<a>&#xffff;</a>",
            "<a x=\"&y;\"/>",
            "<a>\u{1}</a>",
            "<a",
            "<a></b>",
            "",
            "text",
            "<a/>text",
            "<a/><b/>",
            "<a>",
            "</a>",
            "<a x=\"1\" x=\"2\"/>",
            "<a x=\"<\"/>",
            "<a &/>",
            "<1a/>",
            "<a\"b/>",
        ] {
            assert_eq!(parse(text), Err(MalformedXml), "{text}");
        }
        assert_eq!(parse("<a>&lt;&#65;&amp;<![CDATA[<&]]></a>").expect("text").text(), "<A&<&");
    }

    #[test]
    fn prefixes_resolve_to_namespace_in_scope() {
        let root = parse("<D:a xmlns:D=\"DAV:\" xmlns=\"u:x\"><b/><c xmlns=\"\" D:y=\"1\" z=\"2\"/><D:d/></D:a>")
            .expect("xml");
        let names: Vec<_> = root.elements().map(|e| (e.name().namespace, e.name().name)).collect();
        let expected = [("u:x", "b"), ("", "c"), ("DAV:", "d")];
        assert_eq!(names, expected.map(|(namespace, name)| (namespace.to_owned(), name.to_owned())));
        assert!(root.is_dav("a") && root.child("d").is_some() && root.child("b").is_none());
        for text in [
            "<x:a/>",
            "<a xmlns:x=\"\"/>",
            "<a x:y=\"\"/>",
            "<a xmlns:xml=\"u:x\"/>",
            "<a xmlns:x=\"u:y\" xmlns:z=\"u:y\" x:b=\"\" z:b=\"\"/>",
            "<:a/>",
            "<a:/>",
            "<a:b:c xmlns:a=\"u:x\"/>",
        ] {
            assert_eq!(parse(text), Err(MalformedXml), "{text}");
        }
    }

    #[test]
    fn serialized_element_declares_its_namespaces() {
        let root =
            parse("<D:a xmlns:D=\"DAV:\" xmlns:x=\"u:x\" xmlns=\"u:d\"><x:b D:k=\"&quot;\"><c/>t&lt;</x:b></D:a>")
                .expect("xml");
        let text = root.elements().next().expect("b").to_xml();
        assert_eq!(text, "<x:b xmlns:x=\"u:x\" xmlns:D=\"DAV:\" D:k=\"&quot;\"><c xmlns=\"u:d\"/>t&lt;</x:b>");
        let reparsed = parse(&text).expect("xml");
        assert_eq!(reparsed.to_xml(), text);
        let plain = parse("<a xmlns=\"u:d\"><b xmlns=\"\" k=\"\"/></a>").expect("xml");
        assert_eq!(plain.elements().next().expect("b").to_xml(), "<b xmlns=\"\" k=\"\"/>");
        let without_language = parse("<a/>").expect("xml").with_language(Some("de"));
        assert_eq!(without_language.to_xml(), "<a xml:lang=\"de\"/>");
    }

    #[test]
    fn invalid_xml_characters_are_escaped() {
        let mut out = String::new();
        escape("a<b>&\"\u{1}\u{fffe}\u{ff01}\n", &mut out);
        assert_eq!(out, "a&lt;b&gt;&amp;&quot;\\u{1}\\u{fffe}\u{ff01}&#10;");
        out.clear();
        escape_name(b"a\xff\x01<", &mut out);
        assert_eq!(out, "a\\xff\\x01&lt;");
    }

    proptest! {
        #[test]
        fn serialized_xml_round_trips(text in "[ -~\u{80}-\u{ff}\n\t]{0,40}", value in "[ -~]{0,20}") {
            let mut source = "<p:a xmlns:p=\"u:p\" p:k=\"".to_owned();
            escape(&value, &mut source);
            source += "\">";
            escape(&text, &mut source);
            source += "</p:a>";
            let read = parse(&source).expect("well-formed");
            prop_assert_eq!(read.text(), text);
            prop_assert_eq!(parse(&read.to_xml()).expect("well-formed"), read);
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes: Vec<u8>, likely in "[<>/&;:=\"! a-cxmlns?\\[\\]-]{0,60}") {
            let _ = XmlElement::parse(&bytes);
            let _ = parse(&likely);
        }
    }
}
