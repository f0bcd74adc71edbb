//! Media types of files: by content first, then by name.
//!
//! Both types must be allowed. The type that is recognised in the content must be, whatever the name is;
//! and so must the type of the name, since that is the one the file is served with. If no type is
//! recognised in the content (text mostly, and formats without a signature), the name decides alone; but
//! without its signature a format that has one (`.png`, `.pdf`, `.zip`) is not accepted by name, and
//! such a file counts as `application/octet-stream`, as does one whose type is unknown by both. An empty
//! file is checked by its name alone.

use std::cell::Cell;

use crate::domain::{EntryName, UploadRule};

/// Number of bytes at the start of a file by which its type is recognised.
pub(super) const SNIFF_BYTES: usize = 8 << 10;

/// Number of bytes within which all signatures end; the last one, of tar archives, ends at 262.
const SIGNATURE_MAX_BYTES: usize = 512;

/// Maximum length of an extension that [`MediaTypeLookup`] remembers.
const REMEMBERED_EXTENSION_BYTES: usize = 8;

/// Media type of files of unknown type.
const OCTET_STREAM: &str = "application/octet-stream";

/// Returns the media type with which a file of this name is served.
pub fn media_type(name: &[u8]) -> &'static str {
    guess_by_extension(name).first_raw().unwrap_or(OCTET_STREAM)
}

/// Media types of the entries of a listing. The type of the last extension is remembered, since the files of a directory
/// mostly share it and a look-up compares it with some ten others.
#[derive(Default)]
pub struct MediaTypeLookup {
    /// Last extension that fits, and its type.
    last: Cell<Option<([u8; REMEMBERED_EXTENSION_BYTES], &'static str)>>,
}

impl MediaTypeLookup {
    /// Returns what [`media_type`] returns for a name.
    pub fn media_type(&self, name: &[u8]) -> &'static str {
        let extension = memchr::memrchr(b'.', name).map_or(&b""[..], |dot| &name[dot + 1..]);
        // Filled up with bytes that no name has.
        let mut key = [0; REMEMBERED_EXTENSION_BYTES];
        let Some(key_bytes) = key.get_mut(..extension.len()) else { return media_type(name) };
        key_bytes.copy_from_slice(extension);
        match self.last.get() {
            Some((last, media_type)) if last == key => media_type,
            _ => {
                let media_type = media_type(name);
                self.last.set(Some((key, media_type)));
                media_type
            }
        }
    }
}

/// Returns the media type that a rule refuses of a file with this name and start of content; `None` if it is allowed.
pub(super) fn refused_type(rule: &UploadRule, name: &EntryName, head: &[u8]) -> Option<&'static str> {
    let named = types_by_name(name.as_bytes());
    if !named.is_empty() && !rule.allows_mime_type(&named) {
        return named.first().copied();
    }
    // davfs2, Explorer and the Finder create an empty file first and send the content later.
    if head.is_empty() {
        return None;
    }
    let unknown = || (!rule.allows_mime_type(&[OCTET_STREAM])).then_some(OCTET_STREAM);
    match infer::get(head) {
        Some(kind) => refused_content_type(rule, &named, kind),
        None if named.is_empty() || promises_signature(name.as_bytes()) => unknown(),
        None => None,
    }
}

/// Checks as [`refused_type`] does an incomplete file: by the type that is recognised already, and once all signatures
/// would have ended also for a missing one.
pub(super) fn refused_type_early(rule: &UploadRule, name: &EntryName, head: &[u8]) -> Option<&'static str> {
    match infer::get(head) {
        Some(kind) => refused_content_type(rule, &types_by_name(name.as_bytes()), kind),
        // Before that, the signature may only not have arrived yet.
        None if head.len() >= SIGNATURE_MAX_BYTES => refused_type(rule, name, head),
        None => None,
    }
}

fn refused_content_type(rule: &UploadRule, named: &[&str], kind: infer::Type) -> Option<&'static str> {
    let content = kind.mime_type();
    if named.iter().any(|name| is_container_of(name, content)) {
        return None;
    }
    // One format has several media types (`application/gzip`, `application/x-gzip`): allowing one of them is enough.
    let mut names = vec![content];
    names.extend(mime_guess::from_ext(kind.extension()).iter_raw());
    (!rule.allows_mime_type(&names)).then_some(content)
}

/// Tells whether the content type is only the container format of the type by name, which then decides.
fn is_container_of(named: &str, content: &str) -> bool {
    let one_of = |prefixes: &[&str]| prefixes.iter().any(|prefix| named.starts_with(prefix));
    match content {
        "text/xml" => named.ends_with("+xml"),
        "text/html" => named == "application/xhtml+xml",
        "text/x-shellscript" => one_of(&["application/x-perl", "text/javascript"]),
        _ if content.starts_with("application/vnd.openxmlformats-") => one_of(&["application/vnd.openxmlformats-"]),
        "application/zip" => {
            let offices =
                ["application/vnd.openxmlformats-", "application/vnd.oasis.opendocument.", "application/vnd.ms-"];
            let packages = ["application/java-archive", "application/vnd.android.package-archive"];
            named.ends_with("+zip") || one_of(&offices) || one_of(&packages)
        }
        "application/gzip" => named == "image/svg+xml",
        "application/x-ole-storage"
        | "application/msword"
        | "application/vnd.ms-excel"
        | "application/vnd.ms-powerpoint" => {
            one_of(&["application/msword", "application/vnd.ms-", "application/vnd.visio", "application/x-msi"])
        }
        "image/heif" => one_of(&["image/heic", "image/heif"]),
        "audio/ogg" | "audio/opus" => one_of(&["video/ogg", "application/ogg"]),
        "video/mp4" | "audio/m4a" => one_of(&["video/mp4", "audio/mp4", "audio/m4a", "audio/m4b", "video/x-m4v"]),
        _ => false,
    }
}

/// Returns the media types of a file extension, the one with which the file is served first; none for an unknown one.
fn types_by_name(name: &[u8]) -> Vec<&'static str> {
    guess_by_extension(name).iter_raw().collect()
}

fn guess_by_extension(name: &[u8]) -> mime_guess::MimeGuess {
    mime_guess::from_ext(extension(name).unwrap_or_default())
}

fn extension(name: &[u8]) -> Option<&str> {
    memchr::memrchr(b'.', name).and_then(|dot| std::str::from_utf8(&name[dot + 1..]).ok())
}

/// Tells whether files of that name are recognised by their content. Text formats don't count, although some texts are.
fn promises_signature(name: &[u8]) -> bool {
    let Some(extension) = extension(name).map(str::to_ascii_lowercase) else { return false };
    let signed = |kind: &&str| !kind.starts_with("text/") && infer::is_mime_supported(kind);
    types_by_name(name).iter().any(signed)
        || (infer::is_supported(&extension) && !TEXT_EXTENSIONS.contains(&extension.as_str()))
}

/// Extensions of text formats of which only some files have a signature.
const TEXT_EXTENSIONS: [&str; 3] = ["html", "xml", "sh"];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::TokenLimits;

    const PNG_HEADER: &[u8] = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0\0\x01\0\0\0\x01";
    const ZIP_HEADER: &[u8] = b"PK\x03\x04\x14\0\0\0\x08\0";

    /// Types that are allowed, a name, how the content begins, and the type that is refused.
    type MediaTypeCase = (&'static [&'static str], &'static str, &'static [u8], Option<&'static str>);

    fn refused_type_for(types: &[&str], name: &str, head: &[u8]) -> Option<&'static str> {
        let mimes = types.iter().map(|text| text.parse().expect("type")).collect();
        let rule = UploadRule::intersect([&TokenLimits { mimes, ..TokenLimits::default() }]);
        refused_type(&rule, &EntryName::new(name.as_bytes()).expect("name"), head)
    }

    #[test]
    fn content_and_name_types_must_both_be_allowed() {
        let html: &[u8] = b"<!DOCTYPE html><p>x</p>";
        let cases: [MediaTypeCase; 26] = [
            (&["image/*"], "a.png", PNG_HEADER, None),
            (&["image/*"], "a", PNG_HEADER, None),
            (&["image/*"], "a.gif", PNG_HEADER, None),
            (&["image/gif"], "a.gif", PNG_HEADER, Some("image/png")),
            (&["image/*"], "a.html", PNG_HEADER, Some("text/html")),
            (&["image/*"], "a.txt", PNG_HEADER, Some("text/plain")),
            (&["text/*"], "a.txt", PNG_HEADER, Some("image/png")),
            (&["image/*"], "a.png", html, Some("text/html")),
            (&["image/*"], "a.png", b"just words", Some(OCTET_STREAM)),
            (&["image/*", "application/octet-stream"], "a.png", b"just words", None),
            (&["image/*"], "a", b"just words", Some(OCTET_STREAM)),
            (&["*/*"], "a", b"just words", None),
            (&["text/plain"], "a.txt", b"just words", None),
            (&["text/plain"], "a.txt", html, Some("text/html")),
            (&["text/plain"], "a.txt", b"#!/bin/sh\nexit", Some("text/x-shellscript")),
            (&["text/csv"], "a.csv", b"a;b", None),
            (&["text/html"], "a.html", b"no tag at first", None),
            (&["image/*"], "a.png", b"", None),
            (&["image/*"], "a", b"", None),
            (&["image/*"], "a.html", b"", Some("text/html")),
            (&["image/*"], "a.svg", b"<?xml version=\"1.0\"?><svg/>", None),
            (&["application/vnd.oasis.opendocument.text"], "a.odt", ZIP_HEADER, None),
            (&["application/vnd.oasis.opendocument.text"], "a", ZIP_HEADER, Some("application/zip")),
            (&["application/pdf"], "a.pdf", ZIP_HEADER, Some("application/zip")),
            (&["audio/wav"], "a.wav", b"RIFF\x24\0\0\0WAVEfmt ", None),
            (&["application/x-sh"], "a.sh", b"echo", None),
        ];
        for (types, name, head, expected) in cases {
            assert_eq!(refused_type_for(types, name, head), expected, "{types:?} {name} {head:?}");
        }
    }

    #[test]
    fn media_type_of_incomplete_file_is_checked_once_signature_is_recognised() {
        let rule = UploadRule::intersect([&TokenLimits {
            mimes: vec!["image/*".parse().expect("type")],
            ..TokenLimits::default()
        }]);
        let name = EntryName::new(b"a.png").expect("name");
        assert_eq!(refused_type_early(&rule, &name, b"just words"), None);
        assert_eq!(refused_type_early(&rule, &name, &[b'x'; SIGNATURE_MAX_BYTES]), Some(OCTET_STREAM));
        assert_eq!(refused_type_early(&rule, &name, PNG_HEADER), None);
        assert_eq!(refused_type_early(&rule, &name, ZIP_HEADER), Some("application/zip"));
    }

    #[test]
    fn media_type_follows_last_extension() {
        for (name, kind) in [
            ("a.PNG", "image/png"),
            ("a.tar.gz", "application/gzip"),
            ("a", OCTET_STREAM),
            ("png", OCTET_STREAM),
            ("a.", OCTET_STREAM),
        ] {
            assert_eq!(media_type(name.as_bytes()), kind, "{name}");
        }
        let lookup = MediaTypeLookup::default();
        for name in
            ["a.png", "b.png", "a", "b.", "c.PNG", "d.a-long-extension", "e.txt", "png", ".png", "a.\u{e9}", "e.txt"]
        {
            assert_eq!(lookup.media_type(name.as_bytes()), media_type(name.as_bytes()), "{name}");
        }
        assert_eq!(media_type(b"a.\xff"), OCTET_STREAM);
    }
}
