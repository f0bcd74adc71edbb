//! XML as strangers send it: bounded in depth and number before anything is built from it, without
//! document types or entities of its own, with namespaces handled as Namespaces in XML 1.0 has them.

use std::borrow::Cow;
use std::sync::Arc;

use quick_xml::Reader;
use quick_xml::events::{BytesRef, BytesStart, Event};

use crate::domain::EntryName;
use crate::tree::PropertyName;

/// The namespace of WebDAV.
pub(super) const DAV: &str = "DAV:";
/// The longest body of XML that is read.
pub(super) const MAX_BODY: usize = 1 << 20;

const MAX_DEPTH: usize = 64;
const MAX_ELEMENTS: usize = 20_000;
const MAX_ATTRIBUTES: usize = 64;
const MAX_NAMESPACE: usize = 1024;
const XML_NAMESPACE: &str = "http://www.w3.org/XML/1998/namespace";

/// XML that is malformed, or more than is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Malformed;

/// A name as it was written, and the namespace that it stands in (empty for none).
#[derive(Clone, Debug, PartialEq, Eq)]
struct Qualified {
    prefix: String,
    local: String,
    namespace: Arc<str>,
}

/// An element with all in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Element {
    name: Qualified,
    declared: Vec<(String, Arc<str>)>,
    attributes: Vec<(Qualified, String)>,
    children: Vec<Node>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Node {
    Element(Element),
    Text(String),
}

impl Element {
    /// Reads a document.
    ///
    /// # Errors
    /// [`Malformed`] when it isn't well-formed XML with namespaces in UTF-8 or UTF-16, has a document type, names an entity
    /// other than the five, or is nested deeper than 64.
    pub(super) fn parse(bytes: &[u8]) -> Result<Self, Malformed> {
        let wide = wide(bytes);
        let text = match wide {
            Some(read) => Cow::Owned(widened(bytes, read)?),
            None => Cow::Borrowed(std::str::from_utf8(bytes).map_err(|_| Malformed)?),
        };
        let text = text.trim_start_matches('\u{feff}').trim();
        let mut reader = Reader::from_str(text);
        let mut builder = Builder::default();
        loop {
            match reader.read_event().map_err(|_| Malformed)? {
                Event::Start(start) => builder.open(&start)?,
                Event::Empty(start) => {
                    builder.open(&start)?;
                    builder.close()?;
                }
                Event::End(_) => builder.close()?,
                Event::Text(text) => builder.text(&text.xml10_content())?,
                Event::CData(text) => builder.text(&text.xml10_content())?,
                Event::GeneralRef(entity) => builder.text(&referred(&entity)?.to_string())?,
                Event::Comment(_) | Event::PI(_) => {}
                Event::Decl(decl) => match decl.encoding() {
                    None => {}
                    Some(Ok(name)) if wide.is_some() && name.eq_ignore_ascii_case("utf-16") => {}
                    Some(Ok(name)) if name.eq_ignore_ascii_case("utf-8") || name.eq_ignore_ascii_case("us-ascii") => {}
                    Some(_) => return Err(Malformed),
                },
                Event::DocType(_) => return Err(Malformed),
                Event::Eof => return builder.finish(),
            }
        }
    }

    /// Tells whether this is an element of WebDAV's namespace with this name.
    pub(super) fn is(&self, local: &str) -> bool {
        &*self.name.namespace == DAV && self.name.local == local
    }

    /// Returns its name.
    pub(super) fn name(&self) -> PropertyName {
        PropertyName { namespace: self.name.namespace.to_string(), name: self.name.local.clone() }
    }

    /// Returns the elements directly in it.
    pub(super) fn elements(&self) -> impl Iterator<Item = &Element> {
        self.children.iter().filter_map(|node| if let Node::Element(element) = node { Some(element) } else { None })
    }

    /// Returns the first element of WebDAV's namespace with this name directly in it.
    pub(super) fn child(&self, local: &str) -> Option<&Element> {
        self.elements().find(|element| element.is(local))
    }

    /// Returns the text directly in it.
    pub(super) fn text(&self) -> String {
        self.children
            .iter()
            .filter_map(|node| if let Node::Text(text) = node { Some(text.as_str()) } else { None })
            .collect()
    }

    /// Writes it as XML that stands by itself: every prefix that it uses is declared in it. The language of
    /// what it stood in (`xml:lang`) is not kept unless it is its own.
    pub(super) fn to_xml(&self) -> String {
        let mut out = String::new();
        self.write(&mut vec![(String::new(), "".into()), ("xml".to_owned(), XML_NAMESPACE.into())], &mut out);
        out
    }

    /// Gives it a language where it has none of its own (RFC 4918 section 4.3).
    pub(super) fn in_language(mut self, language: Option<&str>) -> Self {
        if let Some(language) = language.filter(|_| self.language().is_none()) {
            let name = Qualified { prefix: "xml".into(), local: "lang".into(), namespace: XML_NAMESPACE.into() };
            self.attributes.push((name, language.to_owned()));
        }
        self
    }

    /// Returns its own language.
    pub(super) fn language(&self) -> Option<&str> {
        let is = |name: &Qualified| &*name.namespace == XML_NAMESPACE && name.local == "lang";
        self.attributes.iter().find(|(name, _)| is(name)).map(|(_, value)| value.as_str())
    }

    fn write(&self, scope: &mut Vec<(String, Arc<str>)>, out: &mut String) {
        let outer = scope.len();
        let mut declared = self.declared.clone();
        let names = std::iter::once(&self.name).chain(self.attributes.iter().map(|(name, _)| name));
        for name in names.filter(|name| !name.is_bare_attribute_of(self)) {
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
            value(namespace, out);
        }
        for (name, text) in &self.attributes {
            out.push(' ');
            name.write(out);
            value(text, out);
        }
        scope.extend(declared);
        if self.children.is_empty() {
            out.push_str("/>");
        } else {
            out.push('>');
            for child in &self.children {
                match child {
                    Node::Element(element) => element.write(scope, out),
                    Node::Text(text) => escape(text, out),
                }
            }
            out.push_str("</");
            self.name.write(out);
            out.push('>');
        }
        scope.truncate(outer);
    }
}

impl Qualified {
    fn write(&self, out: &mut String) {
        if !self.prefix.is_empty() {
            out.push_str(&self.prefix);
            out.push(':');
        }
        out.push_str(&self.local);
    }

    /// Tells whether this is a name without prefix of an attribute: such are in no namespace, whatever the default is.
    fn is_bare_attribute_of(&self, element: &Element) -> bool {
        self.prefix.is_empty() && !std::ptr::eq(self, &element.name)
    }
}

fn value(text: &str, out: &mut String) {
    out.push_str("=\"");
    escape(text, out);
    out.push('"');
}

/// Appends text with all escaped that XML gives a meaning to, and what it can't hold written out.
pub(super) fn escape(text: &str, out: &mut String) {
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
            '\t' | '\n' | '\r' => out.push_str(&format!("&#{};", u32::from(c))),
            c if is_char(c) => out.push(c),
            c => out.push_str(&format!("\\u{{{:x}}}", u32::from(c))),
        }
        rest = &tail[c.len_utf8()..];
    }
    out.push_str(rest);
}

/// Appends a name as text: what isn't text or can't stand in XML is escaped.
pub(super) fn escape_name(name: &[u8], out: &mut String) {
    match std::str::from_utf8(name) {
        Ok(text) if !text.contains(char::is_control) => escape(text, out),
        _ => escape(&EntryName::new(name).map(|name| name.to_string()).unwrap_or_default(), out),
    }
}

/// Tells whether XML 1.0 can hold a character.
fn is_char(c: char) -> bool {
    matches!(c, '\t' | '\n' | '\r' | ' '..='\u{d7ff}' | '\u{e000}'..='\u{fffd}' | '\u{10000}'..)
}

fn referred(entity: &BytesRef<'_>) -> Result<char, Malformed> {
    let c = match &**entity {
        "lt" => '<',
        "gt" => '>',
        "amp" => '&',
        "apos" => '\'',
        "quot" => '"',
        _ => entity.resolve_char_ref().ok().flatten().ok_or(Malformed)?,
    };
    if is_char(c) { Ok(c) } else { Err(Malformed) }
}

/// Tells whether a text can be a name without prefix.
fn is_name(text: &str) -> bool {
    let starts = |c: char| c.is_alphabetic() || c == '_' || (!c.is_ascii() && is_char(c));
    let mut chars = text.chars();
    chars.next().is_some_and(starts) && chars.all(|c| starts(c) || c.is_ascii_digit() || c == '-' || c == '.')
}

#[derive(Default)]
struct Builder {
    open: Vec<Element>,
    root: Option<Element>,
    count: usize,
}

impl Builder {
    fn open(&mut self, start: &BytesStart<'_>) -> Result<(), Malformed> {
        self.count += 1;
        if self.root.is_some() || self.open.len() == MAX_DEPTH || self.count > MAX_ELEMENTS {
            return Err(Malformed);
        }
        let (mut declared, mut plain) = (Vec::new(), Vec::new());
        for attribute in start.attributes() {
            let attribute = attribute.map_err(|_| Malformed)?;
            if declared.len() + plain.len() == MAX_ATTRIBUTES || attribute.value.contains('<') {
                return Err(Malformed);
            }
            let value = attribute.normalized_value(quick_xml::XmlVersion::Implicit1_0).map_err(|_| Malformed)?;
            if !value.chars().all(is_char) {
                return Err(Malformed);
            }
            match attribute.key.0.strip_prefix("xmlns") {
                Some("") => declared.push(declaration("", &value)?),
                Some(rest) if rest.starts_with(':') => declared.push(declaration(&rest[1..], &value)?),
                _ => plain.push((attribute.key.0, value.into_owned())),
            }
        }
        let name = self.qualify(start.name().0, &declared, true)?;
        let attributes = plain.into_iter().map(|(name, value)| Ok((self.qualify(name, &declared, false)?, value)));
        let attributes: Vec<(Qualified, String)> = attributes.collect::<Result<_, Malformed>>()?;
        let key = |(name, _): &(Qualified, String)| (name.namespace.clone(), name.local.clone());
        let twice = attributes.iter().enumerate().any(|(i, a)| attributes[..i].iter().any(|b| key(a) == key(b)));
        if twice {
            return Err(Malformed);
        }
        self.open.push(Element { name, declared, attributes, children: Vec::new() });
        Ok(())
    }

    fn close(&mut self) -> Result<(), Malformed> {
        let element = self.open.pop().ok_or(Malformed)?;
        match self.open.last_mut() {
            Some(parent) => parent.children.push(Node::Element(element)),
            None => self.root = Some(element),
        }
        Ok(())
    }

    fn text(&mut self, text: &str) -> Result<(), Malformed> {
        if !text.chars().all(is_char) {
            return Err(Malformed);
        }
        match self.open.last_mut() {
            Some(element) => match element.children.last_mut() {
                Some(Node::Text(before)) => before.push_str(text),
                _ => element.children.push(Node::Text(text.to_owned())),
            },
            None if text.trim().is_empty() => {}
            None => return Err(Malformed),
        }
        Ok(())
    }

    fn qualify(&self, name: &str, declared: &[(String, Arc<str>)], element: bool) -> Result<Qualified, Malformed> {
        let (prefix, local) = name.split_once(':').unwrap_or(("", name));
        let fits = is_name(local) && (is_name(prefix) || (prefix.is_empty() && !name.starts_with(':')));
        if !fits {
            return Err(Malformed);
        }
        let namespace = match prefix {
            "" if !element => "".into(),
            "xml" => XML_NAMESPACE.into(),
            _ => self.lookup(prefix, declared).or_else(|| prefix.is_empty().then(|| "".into())).ok_or(Malformed)?,
        };
        Ok(Qualified { prefix: prefix.to_owned(), local: local.to_owned(), namespace })
    }

    fn lookup(&self, prefix: &str, declared: &[(String, Arc<str>)]) -> Option<Arc<str>> {
        let outer = self.open.iter().rev().flat_map(|element| &element.declared);
        declared.iter().chain(outer).find(|(known, _)| known == prefix).map(|(_, namespace)| Arc::clone(namespace))
    }

    fn finish(self) -> Result<Element, Malformed> {
        if self.open.is_empty() { self.root.ok_or(Malformed) } else { Err(Malformed) }
    }
}

/// How two bytes of UTF-16 are read.
type ReadWide = fn([u8; 2]) -> u16;

/// Tells whether a document is in UTF-16, which RFC 4918 section 19 has every server read: by its first bytes, of a
/// byte order mark or of `<` (XML 1.0 appendix F).
fn wide(bytes: &[u8]) -> Option<ReadWide> {
    match bytes {
        [0xfe, 0xff, ..] | [0, b'<', ..] => Some(u16::from_be_bytes),
        [0xff, 0xfe, ..] | [b'<', 0, ..] => Some(u16::from_le_bytes),
        _ => None,
    }
}

fn widened(bytes: &[u8], read: ReadWide) -> Result<String, Malformed> {
    let (pairs, rest) = bytes.as_chunks::<2>();
    if !rest.is_empty() {
        return Err(Malformed);
    }
    char::decode_utf16(pairs.iter().map(|pair| read(*pair))).collect::<Result<_, _>>().map_err(|_| Malformed)
}

/// A prefix can't be bound to nothing, nor what is reserved be bound anew (Namespaces in XML section 3).
fn declaration(prefix: &str, namespace: &str) -> Result<(String, Arc<str>), Malformed> {
    let bad = (!prefix.is_empty() && (namespace.is_empty() || !is_name(prefix)))
        || prefix == "xmlns"
        || (prefix == "xml") != (namespace == XML_NAMESPACE)
        || namespace == "http://www.w3.org/2000/xmlns/"
        || namespace.len() > MAX_NAMESPACE;
    if bad { Err(Malformed) } else { Ok((prefix.to_owned(), namespace.into())) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn parse(text: &str) -> Result<Element, Malformed> {
        Element::parse(text.as_bytes())
    }

    fn nested(depth: usize) -> String {
        format!("{}{}", "<a>".repeat(depth), "</a>".repeat(depth))
    }

    #[test]
    fn nesting_is_bounded_before_anything_is_built() {
        assert!(parse(&nested(64)).is_ok());
        assert_eq!(parse(&nested(65)), Err(Malformed));
        assert_eq!(parse(&nested(2000)), Err(Malformed));
        assert_eq!(parse(&"<a>".repeat(300_000)), Err(Malformed));
        assert_eq!(parse(&format!("<a>{}</a>", "<b/>".repeat(MAX_ELEMENTS))), Err(Malformed));
        let attributes: String = (0..=MAX_ATTRIBUTES).map(|i| format!(" a{i}=\"\"")).collect();
        assert_eq!(parse(&format!("<a{attributes}/>")), Err(Malformed));
    }

    #[test]
    fn xml_is_read_in_utf_8_and_utf_16() {
        let plain = "<a x=\"\u{e4}\">\u{1f600}</a>";
        let wanted = parse(plain).expect("parsed");
        let encoded = |text: &str, write: fn(u16) -> [u8; 2]| text.encode_utf16().flat_map(write).collect::<Vec<u8>>();
        for write in [u16::to_be_bytes, u16::to_le_bytes] {
            for front in ["", "\u{feff}", "\u{feff}<?xml version=\"1.0\" encoding=\"UTF-16\"?>"] {
                let text = format!("{front}{plain}");
                assert_eq!(Element::parse(&encoded(&text, write)).as_ref(), Ok(&wanted), "{text}");
            }
            let mut odd = encoded(plain, write);
            odd.push(0);
            assert_eq!(Element::parse(&odd), Err(Malformed));
            let half = [encoded("<a>", write), write(0xd800).to_vec(), encoded("</a>", write)].concat();
            assert_eq!(Element::parse(&half), Err(Malformed), "half of a pair");
            let other = encoded("<?xml version=\"1.0\" encoding=\"latin1\"?><a/>", write);
            assert_eq!(Element::parse(&other), Err(Malformed));
        }
        assert_eq!(parse("<?xml version=\"1.0\" encoding=\"UTF-16\"?><a/>"), Err(Malformed), "it says what it isn't");
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
            assert_eq!(parse(text), Err(Malformed), "{text}");
        }
        assert_eq!(parse("<a>&lt;&#65;&amp;<![CDATA[<&]]></a>").expect("text").text(), "<A&<&");
    }

    #[test]
    fn namespaces_are_those_in_scope() {
        let root = parse("<D:a xmlns:D=\"DAV:\" xmlns=\"u:x\"><b/><c xmlns=\"\" D:y=\"1\" z=\"2\"/><D:d/></D:a>")
            .expect("xml");
        let names: Vec<_> = root.elements().map(|e| (e.name().namespace, e.name().name)).collect();
        let wanted = [("u:x", "b"), ("", "c"), ("DAV:", "d")];
        assert_eq!(names, wanted.map(|(namespace, name)| (namespace.to_owned(), name.to_owned())));
        assert!(root.is("a") && root.child("d").is_some() && root.child("b").is_none());
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
            assert_eq!(parse(text), Err(Malformed), "{text}");
        }
    }

    #[test]
    fn an_element_taken_out_declares_what_it_uses() {
        let root =
            parse("<D:a xmlns:D=\"DAV:\" xmlns:x=\"u:x\" xmlns=\"u:d\"><x:b D:k=\"&quot;\"><c/>t&lt;</x:b></D:a>")
                .expect("xml");
        let taken = root.elements().next().expect("b").to_xml();
        assert_eq!(taken, "<x:b xmlns:x=\"u:x\" xmlns:D=\"DAV:\" D:k=\"&quot;\"><c xmlns=\"u:d\"/>t&lt;</x:b>");
        let again = parse(&taken).expect("xml");
        assert_eq!(again.to_xml(), taken);
        let plain = parse("<a xmlns=\"u:d\"><b xmlns=\"\" k=\"\"/></a>").expect("xml");
        assert_eq!(plain.elements().next().expect("b").to_xml(), "<b xmlns=\"\" k=\"\"/>");
        let spoken = parse("<a/>").expect("xml").in_language(Some("de"));
        assert_eq!(spoken.to_xml(), "<a xml:lang=\"de\"/>");
    }

    #[test]
    fn what_xml_cannot_hold_is_written_out() {
        let mut out = String::new();
        escape("a<b>&\"\u{1}\u{fffe}\u{ff01}\n", &mut out);
        assert_eq!(out, "a&lt;b&gt;&amp;&quot;\\u{1}\\u{fffe}\u{ff01}&#10;");
        out.clear();
        escape_name(b"a\xff\x01<", &mut out);
        assert_eq!(out, "a\\xff\\x01&lt;");
    }

    proptest! {
        #[test]
        fn what_is_written_reads_as_what_it_was(text in "[ -~\u{80}-\u{ff}\n\t]{0,40}", value in "[ -~]{0,20}") {
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
        fn no_bytes_panic(bytes: Vec<u8>, likely in "[<>/&;:=\"! a-cxmlns?\\[\\]-]{0,60}") {
            let _ = Element::parse(&bytes);
            let _ = parse(&likely);
        }
    }
}
