//! Conversion of URL paths to paths of the tree; [`super::client_root`] is the way back.
//!
//! `/dav/…` is the tree, `/node/UUID/…` one node as the root. A prefix ends at a slash: `/davx` has none.
//! The sync clients of ownCloud and Nextcloud find the same tree at the URLs that they construct themselves:
//! `/remote.php/webdav/…` and `/remote.php/dav/files/USER/…`.

use std::borrow::Cow;

use http::Uri;
use percent_encoding::{AsciiSet, CONTROLS};

use super::client_root::UrlPrefix;
use super::error::Error;
use crate::domain::{EntryName, Login, PathError, TreePath};
use crate::http::{PublicAddress, normalized_path};

/// Resource below `/remote.php/dav/` that is not in the tree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum OutsideTreeResource {
    /// `uploads/USER/UPLOAD` and `uploads/USER/UPLOAD/PART`
    ChunkedUpload(ChunkPath),
    /// `principals/users/USER`: the principal of the user
    Principal,
}

/// Path of a chunked upload, or of one of its chunks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ChunkPath {
    /// Name of the upload, chosen by the client.
    pub(super) upload: EntryName,
    /// Name of the chunk; `None` for the upload itself.
    pub(super) chunk: Option<EntryName>,
}

impl OutsideTreeResource {
    /// Tells whether a URL path has the prefix that all of these have, and some paths of the tree.
    pub(super) fn has_prefix(path: &[u8]) -> bool {
        path.starts_with(NEXTCLOUD_DAV_PREFIX)
    }

    /// Parses the URL path of a resource outside the tree; `None` for a path of the tree.
    ///
    /// # Errors
    /// [`Error::Malformed`] for malformed escapes, [`Error::NotFound`] for a resource of another user; as
    /// [`ResourceUrl::parse`] for an upload or chunk with a name that no file can have.
    pub(super) fn parse(path: &[u8], login: &Login) -> Result<Option<Self>, Error> {
        let Some(rest) = path.strip_prefix(NEXTCLOUD_DAV_PREFIX) else { return Ok(None) };
        // Empty segments are ignored, as in `normalized_path`.
        let segments = rest.split(|byte| *byte == b'/').filter(|part| !part.is_empty()).map(percent_decode);
        let segments: Vec<Vec<u8>> = segments.collect::<Result<_, _>>()?;
        let segments: Vec<&[u8]> = segments.iter().map(Vec::as_slice).collect();
        // 404, not 403: whether another user exists must not be visible.
        let check_owner = |user: &[u8]| if user == login.as_str().as_bytes() { Ok(()) } else { Err(Error::NotFound) };
        match segments.as_slice() {
            // Files are part of the tree: `ResourceUrl` parses their path.
            [b"files", ..] => Ok(None),
            [b"uploads", user, upload, part @ ..] if part.len() <= 1 => {
                check_owner(user)?;
                let name = |bytes: &[u8]| EntryName::new(bytes).map_err(|error| path_error(error, bytes));
                let part = part.first().map(|part| name(part)).transpose()?;
                Ok(Some(Self::ChunkedUpload(ChunkPath { upload: name(upload)?, chunk: part })))
            }
            [b"principals", b"users", user] => check_owner(user).map(|()| Some(Self::Principal)),
            _ => Err(Error::NotFound),
        }
    }
}

const NEXTCLOUD_DAV_PREFIX: &[u8] = b"/remote.php/dav/";

/// Parsed URL path; whether an entry exists at it is not checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ResourceUrl {
    /// Prefix of the path.
    pub(super) prefix: UrlPrefix,
    /// Path below the prefix.
    pub(super) path: TreePath,
    /// Whether it ends with a slash.
    pub(super) has_trailing_slash: bool,
    /// User whose files it names, where it names one.
    pub(super) user: Option<Vec<u8>>,
}

impl ResourceUrl {
    /// Parses the path of a URL, as it was sent.
    ///
    /// # Errors
    /// [`Error::NotFound`] for a path without a known prefix, [`Error::Malformed`] for one with malformed escapes,
    /// [`Error::InvalidName`] for one that no entry can have.
    pub(super) fn parse(path: &[u8]) -> Result<Self, Error> {
        let (url_prefix, user, rest) = split_prefix(path).ok_or(Error::NotFound)?;
        let user = user.map(percent_decode).transpose()?;
        let bytes = percent_decode(rest)?;
        let relative_path = TreePath::parse(&bytes).map_err(|error| path_error(error, &bytes))?;
        Ok(Self { prefix: url_prefix, path: relative_path, has_trailing_slash: rest.ends_with(b"/"), user })
    }
}

/// A URL prefix, the user that it names, and the rest of the path.
type SplitUrlPath<'a> = (UrlPrefix, Option<&'a [u8]>, &'a [u8]);

/// Splits a path after its prefix.
fn split_prefix(path: &[u8]) -> Option<SplitUrlPath<'_>> {
    let is_boundary = |rest: &[u8]| rest.is_empty() || rest.starts_with(b"/");
    if let Some(rest) = path.strip_prefix(b"/dav") {
        return is_boundary(rest).then_some((UrlPrefix::Tree, None, rest));
    }
    if let Some(rest) = path.strip_prefix(b"/remote.php/webdav") {
        return is_boundary(rest).then_some((UrlPrefix::Nextcloud, None, rest));
    }
    if let Some(rest) = path.strip_prefix(b"/remote.php/dav/files/") {
        let (user, rest) = rest.split_at(memchr::memchr(b'/', rest).unwrap_or(rest.len()));
        return Some((UrlPrefix::NextcloudFiles, Some(user), rest));
    }
    let rest = path.strip_prefix(b"/node/")?;
    // 36 characters: a UUID with hyphens.
    let (id, rest) = rest.split_at_checked(36)?;
    let node = std::str::from_utf8(id).ok()?.parse().ok()?;
    is_boundary(rest).then_some((UrlPrefix::Node(node), None, rest))
}

/// Decodes percent-escapes. An escaped slash is an error: it would be part of a name, and no name can contain one.
fn percent_decode(path: &[u8]) -> Result<Vec<u8>, Error> {
    // Not by `percent_encoding`: it lets malformed escapes pass, and takes three times as long on escaped paths.
    let mut bytes = Vec::with_capacity(path.len());
    let mut rest = path;
    while let Some((&first, after)) = rest.split_first() {
        rest = after;
        if first != b'%' {
            bytes.push(first);
            continue;
        }
        let escape = rest.split_at_checked(2).and_then(|(digits, after)| Some((parse_hex_byte(digits)?, after)));
        match escape {
            // `%2F` would turn one segment into two: a proxy that checked the path has seen another one.
            Some((b'/', _)) => return Err(Error::Malformed("the path has an escaped slash")),
            Some((byte, after)) => {
                bytes.push(byte);
                rest = after;
            }
            None => return Err(Error::Malformed("the path has a malformed escape")),
        }
    }
    Ok(bytes)
}

fn parse_hex_byte(digits: &[u8]) -> Option<u8> {
    let digit = |b: u8| char::from(b).to_digit(16);
    u8::try_from(digit(digits[0])? * 16 + digit(digits[1])?).ok()
}

fn path_error(error: PathError, bytes: &[u8]) -> Error {
    match error {
        PathError::DotComponent => Error::Malformed("the path has a part . or .."),
        PathError::Nul | PathError::Slash => Error::Malformed("the path has a byte that no name can contain"),
        PathError::EmptyComponent | PathError::Reserved | PathError::TooLong => {
            // The component at fault decides the status (403 or 409): it is searched for here, on the error path only.
            let trimmed = bytes.strip_suffix(b"/").unwrap_or(bytes);
            let (parent, name) = trimmed.split_at(memchr::memrchr(b'/', trimmed).map_or(0, |at| at + 1));
            Error::InvalidName { last: TreePath::parse(parent).is_ok() && EntryName::new(name).is_err(), error }
        }
    }
}

/// Parses an absolute URL or an absolute path, as in `Destination` and the resource tags of `If`.
///
/// # Errors
/// [`Error::ForeignDestination`] when it is on another server or has another prefix than the request,
/// [`Error::Malformed`], and [`Error::InvalidDestination`] for the errors of [`ResourceUrl::parse`].
pub(super) fn resolve_in_prefix(
    url: &[u8],
    server: &PublicAddress,
    url_prefix: UrlPrefix,
) -> Result<ResourceUrl, Error> {
    let resource = parse_header_path(&path_on_this_server(url, server)?)?;
    // Prefixes must be equal even where both stand for the same tree: each may have another root.
    if resource.prefix == url_prefix { Ok(resource) } else { Err(Error::ForeignDestination) }
}

/// Parses a path in a header; its errors are attributed to the destination, not to the path of the request.
fn parse_header_path(path: &[u8]) -> Result<ResourceUrl, Error> {
    ResourceUrl::parse(path).map_err(|error| match error {
        // A path on this server that WebDAV doesn't serve is out of reach for COPY and MOVE, like another server (502).
        Error::NotFound => Error::ForeignDestination,
        error => error.into_destination_error(),
    })
}

/// Characters that a URI can't contain (RFC 3986). Without `%`: the path is escaped already, where its client escapes.
const INVALID_IN_URI: &AsciiSet =
    &CONTROLS.add(b' ').add(b'"').add(b'<').add(b'>').add(b'\\').add(b'^').add(b'`').add(b'{').add(b'|').add(b'}');

/// Returns the path of a URL on this server, as a request target.
///
/// # Errors
/// [`Error::ForeignDestination`] when it is on another server or outside the tree, [`Error::Malformed`],
/// [`Error::InvalidDestination`].
pub(super) fn destination_uri(url: &[u8], server: &PublicAddress) -> Result<Uri, Error> {
    let path = path_on_this_server(url, server)?;
    parse_header_path(&path)?;
    Uri::try_from(percent_encoding::percent_encode(&path, INVALID_IN_URI).to_string())
        .map_err(|_| Error::Malformed("the Destination is not the URL of a file or directory"))
}

/// Returns the normalized path of a URL on this server, without the prefix that a proxy strips.
fn path_on_this_server(url: &[u8], server: &PublicAddress) -> Result<Vec<u8>, Error> {
    // `//host/path` is a path as well: its empty segment is removed below, and what remains has no served prefix.
    let path = if url.starts_with(b"/") {
        url
    } else {
        let (scheme, rest) = ["http://", "https://"]
            .into_iter()
            .find_map(|s| url.split_at_checked(s.len()).filter(|(front, _)| front.eq_ignore_ascii_case(s.as_bytes())))
            .ok_or(Error::Malformed("the Destination is not a URL"))?;
        let (authority, path) = rest.split_at(memchr::memchr(b'/', rest).unwrap_or(rest.len()));
        if !server.matches_authority(scheme.strip_suffix(b"://").unwrap_or(scheme), authority) {
            return Err(Error::ForeignDestination);
        }
        path
    };
    // A query or fragment names no file. Spaces and bytes above ASCII pass: some clients don't escape them.
    if path.iter().any(|&b| b < b' ' || b == b'?' || b == b'#' || b == 0x7f) {
        return Err(Error::Malformed("the Destination is not the URL of a file or directory"));
    }
    let path = decode_latin1_fallback(path);
    let path = normalized_path(&path);
    // Where the public prefix is itself a served path, both readings are possible: the one that is served wins.
    let relative_path = server
        .strip_prefix(&path)
        .filter(|rest| split_prefix(rest).is_some() || rest.starts_with(NEXTCLOUD_DAV_PREFIX));
    Ok(relative_path.unwrap_or(&path).to_vec())
}

/// Decodes an unescaped path: UTF-8, or the ISO-8859-1 in which older HTTP libraries send header values.
fn decode_latin1_fallback(path: &[u8]) -> Cow<'_, [u8]> {
    match std::str::from_utf8(path) {
        Ok(_) => Cow::Borrowed(path),
        Err(_) => Cow::Owned(path.iter().map(|byte| char::from(*byte)).collect::<String>().into_bytes()),
    }
}

#[cfg(test)]
mod tests {
    use super::super::client_root::ClientRoot;
    use super::*;
    use crate::http::ServerName;
    use proptest::prelude::*;

    const NODE: &str = "/node/6f1c2c5e-8a55-4f0e-9d3c-0f4b6a2f7a11";

    fn login() -> Login {
        "alice".parse().expect("login")
    }

    fn server(names: &[&str]) -> PublicAddress {
        let names = names.iter().map(|name| ServerName::parse(name.as_bytes()).expect(name)).collect();
        PublicAddress::from_parts(names, String::new())
    }

    #[test]
    fn nextcloud_client_paths_map_to_tree() {
        for (path, prefix) in [
            ("/remote.php/webdav/a", "/remote.php/webdav"),
            ("/remote.php/dav/files/alice/a", "/remote.php/dav/files/alice"),
        ] {
            let resource = ResourceUrl::parse(path.as_bytes()).expect(path);
            assert_eq!(resource.path.to_string(), "/a");
            assert_eq!(
                ClientRoot::new(&server(&[]), resource.prefix, TreePath::root(), &login()).href(&resource.path, false),
                path
            );
            assert_eq!(
                ClientRoot::new(&server(&[]), resource.prefix, TreePath::root(), &login())
                    .href(&TreePath::root(), false),
                prefix
            );
        }
        let other = |path: &str| OutsideTreeResource::parse(path.as_bytes(), &login());
        let name = |text: &str| EntryName::new(text.as_bytes()).expect(text);
        let chunk_path = |chunk: Option<&str>| ChunkPath { upload: name("x 1"), chunk: chunk.map(name) };
        for odd in ["..", "x/%2E%2E", "x/1%00", &"x".repeat(256), &format!("x/{}", "1".repeat(256))] {
            let refused = other(&format!("/remote.php/dav/uploads/alice/{odd}"));
            assert!(matches!(refused, Err(Error::Malformed(_) | Error::InvalidName { .. })), "{odd}");
        }
        assert_eq!(
            other("/remote.php/dav/uploads/alice/x%201").ok(),
            Some(Some(OutsideTreeResource::ChunkedUpload(chunk_path(None))))
        );
        assert_eq!(
            other("/remote.php/dav/uploads/alice/x%201/1").ok(),
            Some(Some(OutsideTreeResource::ChunkedUpload(chunk_path(Some("1")))))
        );
        assert_eq!(other("/remote.php/dav/principals/users/alice/").ok(), Some(Some(OutsideTreeResource::Principal)));
        assert_eq!(other("/remote.php/dav/files/alice/x").ok(), Some(None));
        assert_eq!(other("/dav/uploads/alice/x").ok(), Some(None));
        for path in [
            "/remote.php/dav/uploads/bob/x",
            "/remote.php/dav/uploads/alice",
            "/remote.php/dav/uploads/alice/x/1/2",
            "/remote.php/dav/",
        ] {
            assert!(matches!(other(path), Err(Error::NotFound)), "{path}");
        }
    }

    fn parsed_path(path: &str) -> String {
        ResourceUrl::parse(path.as_bytes()).expect(path).path.to_string()
    }

    #[test]
    fn prefix_ends_at_segment_boundary() {
        assert_eq!(parsed_path("/dav"), "/");
        assert_eq!(parsed_path("/dav/"), "/");
        assert_eq!(parsed_path("/dav/a%20b/c/"), "/a b/c");
        assert_eq!(parsed_path(&format!("{NODE}/x")), "/x");
        assert_eq!(parsed_path(NODE), "/");
        for path in ["/davx", "/davx/y", "/da", "/", "", "/node/", "/node/x/y", &format!("{NODE}x/y"), "/%64av/"] {
            assert!(matches!(ResourceUrl::parse(path.as_bytes()), Err(Error::NotFound)), "{path}");
        }
    }

    #[test]
    fn encoded_dot_segments_never_escape_root() {
        for path in ["/dav/..", "/dav/a/../b", "/dav/%2e%2E/x", "/dav/.%2e", "/dav/a%2f..%2Fb", "/dav/%00", "/dav/./x"]
        {
            assert!(matches!(ResourceUrl::parse(path.as_bytes()), Err(Error::Malformed(_))), "{path}");
        }
        for path in ["/dav/%", "/dav/%2", "/dav/%zz", "/dav/%+1"] {
            assert!(matches!(ResourceUrl::parse(path.as_bytes()), Err(Error::Malformed(_))), "{path}");
        }
    }

    #[test]
    fn reserved_and_overlong_names_are_not_found() {
        let last = |path: &str| match ResourceUrl::parse(path.as_bytes()) {
            Err(Error::InvalidName { last, .. }) => last,
            other => panic!("{path}: {other:?}"),
        };
        assert!(last("/dav/.patgate") && last("/dav/a/.patgate/") && last("/dav/%2epatgate"));
        assert!(!last("/dav/.patgate/x") && !last("/dav/a//b"));
        assert!(last(&format!("/dav/{}", "n".repeat(256))));
    }

    #[test]
    fn hrefs_round_trip() {
        let root = TreePath::parse(b"team").expect("path");
        let mount = ClientRoot::new(&server(&[]), UrlPrefix::Tree, root.clone(), &login());
        let odd = TreePath::parse("team/a b/<&\u{e4}>\u{1}".as_bytes()).expect("path");
        assert_eq!(mount.href(&odd, true), "/dav/a%20b/%3C%26%C3%A4%3E%01/");
        assert_eq!(mount.href(&TreePath::root(), true), "/dav/", "above the root");
        let parsed = ResourceUrl::parse(mount.href(&odd, false).as_bytes()).expect("href");
        assert_eq!(root.join(&parsed.path), odd);
    }

    #[test]
    fn destination_outside_server_or_prefix_is_refused() {
        let host = server(&["files.example"]);
        let to = |url: &str| resolve_in_prefix(url.as_bytes(), &host, UrlPrefix::Tree);
        for url in [
            "/dav/x",
            "http://files.example/dav/x",
            "HTTPS://FILES.example:443/dav/x",
            "http://files.example:80/dav/x/",
        ] {
            assert_eq!(to(url).expect(url).path.to_string(), "/x", "{url}");
        }
        for url in [
            "http://other.example/dav/x",
            "http://files.example:8080/dav/x",
            "https://files.example:80/dav/x",
            "/davx/y",
            "/",
            "http://files.example",
            "http://files.example.evil/dav/x",
            "//files.example/dav/x",
            &format!("{NODE}/x"),
        ] {
            assert!(matches!(to(url), Err(Error::ForeignDestination)), "{url}");
        }
        for url in ["", "dav/x", "ftp://files.example/dav/x", "/dav/x?y", "/dav/x#y", "/dav/../x"] {
            assert!(matches!(to(url), Err(Error::Malformed(_) | Error::InvalidDestination(_))), "{url}");
        }
        let named = server(&["127.0.0.1:8080"]);
        assert!(resolve_in_prefix(b"http://127.0.0.1:8080/dav/x", &named, UrlPrefix::Tree).is_ok());
        assert!(matches!(
            resolve_in_prefix(b"http://127.0.0.1/dav/x", &named, UrlPrefix::Tree),
            Err(Error::ForeignDestination)
        ));
        assert!(matches!(
            resolve_in_prefix(b"http://h/dav/x", &server(&[]), UrlPrefix::Tree),
            Err(Error::ForeignDestination)
        ));
    }

    #[test]
    fn destination_spellings_of_clients_are_accepted() {
        let host = server(&["files.example"]);
        let to =
            |url: &[u8]| resolve_in_prefix(url, &host, UrlPrefix::Tree).map(|resource| resource.path.to_string()).ok();
        for (url, expected) in [
            (&b"http://files.example/dav//a///b"[..], "/a/b"),
            (b"//dav/a", "/a"),
            (b"/%64av/%7ea", "/~a"),
            (b"/dav/a b[c].txt", "/a b[c].txt"),
            ("/dav/\u{e4} \u{f6}".as_bytes(), "/\u{e4} \u{f6}"),
            (b"/dav/\xe4", "/\u{e4}"),
            (b"/dav/%E4", "/\\xe4"),
        ] {
            assert_eq!(to(url).as_deref(), Some(expected), "{}", url.escape_ascii());
            let target = destination_uri(url, &host).expect("a target");
            assert_eq!(
                ResourceUrl::parse(target.path().as_bytes()).expect("path").path.to_string(),
                expected,
                "{target}"
            );
        }
        assert_eq!(to(b"/dav/a\tb"), None);
    }

    #[test]
    fn stripped_proxy_prefix_is_added_to_hrefs() {
        let outside = PublicAddress::from_parts(Vec::new(), "/dav".into());
        let mount = ClientRoot::new(&outside, UrlPrefix::Tree, TreePath::root(), &login());
        assert_eq!(mount.href(&TreePath::parse(b"x").expect("path"), true), "/dav/dav/x/");
        assert_eq!(ClientRoot::principal_href(&outside, &login()), "/dav/remote.php/dav/principals/users/alice/");
        for url in ["/dav/dav/x", "/dav/x", "/dav//dav/x"] {
            let resource = resolve_in_prefix(url.as_bytes(), &outside, UrlPrefix::Tree).expect(url);
            assert_eq!(resource.path.to_string(), "/x", "{url}");
        }
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic_or_escape_root(bytes: Vec<u8>) {
            let _ = resolve_in_prefix(&bytes, &server(&[]), UrlPrefix::Tree);
            let path = [b"/dav/", &bytes[..]].concat();
            if let Ok(resource) = ResourceUrl::parse(&path) {
                prop_assert!(resource.path.components().all(|part| part != b".." && !part.contains(&0)));
            }
        }

        #[test]
        fn every_name_round_trips(bytes in proptest::collection::vec(any::<u8>(), 1..40)) {
            if let Ok(path) = TreePath::parse(&bytes) {
                let href = ClientRoot::new(&server(&[]), UrlPrefix::Tree, TreePath::root(), &login()).href(&path, false);
                prop_assert_eq!(ResourceUrl::parse(href.as_bytes()).expect("href").path, path);
            }
        }
    }
}
