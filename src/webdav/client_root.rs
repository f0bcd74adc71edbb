//! URL paths of the tree as the client of a request sees them.

use crate::domain::{ALL_BUT_UNRESERVED, EntryName, Login, NodeId, TreePath};
use crate::http::PublicAddress;

/// Prefix of a URL path, which determines the root of the client in the tree.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum UrlPrefix {
    /// `/dav`
    Tree,
    /// `/node/UUID`
    Node(NodeId),
    /// `/remote.php/webdav`
    Nextcloud,
    /// `/remote.php/dav/files/USER`, where `USER` is the login of the session
    NextcloudFiles,
}

/// Root of the paths of one request; converts paths of the tree to URL paths.
#[derive(Clone, Debug)]
pub(super) struct ClientRoot {
    prefix: String,
    root: TreePath,
}

impl ClientRoot {
    /// Creates the root of a URL prefix that stands for the path `root` in the tree.
    pub(super) fn new(server: &PublicAddress, url_prefix: UrlPrefix, root: TreePath, login: &Login) -> Self {
        let mut prefix = server.prefix().to_owned();
        match url_prefix {
            UrlPrefix::Tree => prefix.push_str("/dav"),
            UrlPrefix::Nextcloud => prefix.push_str("/remote.php/webdav"),
            UrlPrefix::NextcloudFiles => {
                prefix.push_str("/remote.php/dav/files/");
                // A login may contain characters that are not allowed in a path.
                percent_encode(login.as_str().as_bytes(), &mut prefix);
            }
            UrlPrefix::Node(id) => prefix.push_str(&format!("/node/{id}")),
        }
        Self { prefix, root }
    }

    /// Returns the path of the root in the tree.
    pub(super) fn root(&self) -> &TreePath {
        &self.root
    }

    /// Returns the URL path of the principal of a user (RFC 3744 section 2).
    pub(super) fn principal_href(server: &PublicAddress, login: &Login) -> String {
        let mut href = format!("{}/remote.php/dav/principals/users/", server.prefix());
        percent_encode(login.as_str().as_bytes(), &mut href);
        href.push('/');
        href
    }

    /// Returns the URL path of a chunked upload, with a trailing slash.
    pub(super) fn chunked_upload_href(server: &PublicAddress, login: &Login, upload: &EntryName) -> String {
        let mut href = format!("{}/remote.php/dav/uploads/", server.prefix());
        for segment in [login.as_str().as_bytes(), upload.as_bytes()] {
            percent_encode(segment, &mut href);
            href.push('/');
        }
        href
    }

    /// Returns the last segment of the prefix: the display name of a root without a name.
    pub(super) fn display_name(&self) -> &str {
        self.prefix.rsplit('/').next().unwrap_or_default()
    }

    /// Returns the absolute URL path of an entry, with a trailing slash for a directory. A path that is not below the
    /// root is shown as the root.
    pub(super) fn href(&self, path: &TreePath, is_directory: bool) -> String {
        let mut href = String::new();
        self.write_href(path, is_directory, &mut href);
        href
    }

    /// Appends the URL path that [`ClientRoot::href`] returns.
    pub(super) fn write_href(&self, path: &TreePath, is_directory: bool, out: &mut String) {
        // A path outside the root, such as that of a lock above it, becomes the root: the client must not learn it.
        let relative_path = path.bytes_below(&self.root).unwrap_or_default();
        out.push_str(&self.prefix);
        for part in relative_path.split(|&b| b == b'/').filter(|part| !part.is_empty()) {
            out.push('/');
            percent_encode(part, out);
        }
        if is_directory {
            out.push('/');
        }
    }
}

/// Appends a name with all but unreserved characters percent-encoded (RFC 3986 section 2.3).
pub(super) fn percent_encode(name: &[u8], out: &mut String) {
    // The digits are upper case, and no unreserved character is escaped: some clients compare hrefs as strings.
    let is_unreserved = |b: &u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_' | b'~');
    match std::str::from_utf8(name) {
        // Most names of most directories.
        Ok(text) if name.iter().all(is_unreserved) => out.push_str(text),
        _ => out.extend(percent_encoding::percent_encode(name, &ALL_BUT_UNRESERVED)),
    }
}
