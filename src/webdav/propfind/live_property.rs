//! Live properties, which the gateway computes (RFC 4918 section 15, RFC 4331, RFC 3744).

use std::fmt::Write;

use crate::domain::{Permission, TreePath};
use crate::tree::{Entry, MediaTypeLookup, PATGATE_NAMESPACE, PropertyName};
use crate::webdav::client_root::ClientRoot;
use crate::webdav::request_context::RequestContext;
use crate::webdav::xml::DAV_NAMESPACE;
use crate::webdav::{date, multistatus, sync_token, xml};

const WIN32_NAMESPACE: &str = "urn:schemas-microsoft-com:";
const OWNCLOUD_NAMESPACE: &str = "http://owncloud.org/ns";

/// Live property.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::webdav) enum LiveProperty {
    /// `creationdate`
    CreationDate,
    /// `displayname`, unless a client gave another
    DisplayName,
    /// `getcontentlength`
    ContentLength,
    /// `getcontenttype`
    ContentType,
    /// `getetag`
    Etag,
    /// `getlastmodified`
    LastModified,
    /// `lockdiscovery`
    LockDiscovery,
    /// `resourcetype`
    ResourceType,
    /// `supportedlock`
    SupportedLock,
    /// `quota-available-bytes` (RFC 4331)
    QuotaAvailableBytes,
    /// `quota-used-bytes` (RFC 4331)
    QuotaUsedBytes,
    /// `current-user-privilege-set` (RFC 3744 section 5.5)
    CurrentUserPrivilegeSet,
    /// `supported-privilege-set` (RFC 3744 section 5.3)
    SupportedPrivilegeSet,
    /// `owner` (RFC 3744 section 5.1): the user of the session, whoever owns the file on the host
    Owner,
    /// `current-user-principal` (RFC 5397)
    CurrentUserPrincipal,
    /// `lastmodified`, which is in no RFC; some clients set the time by it
    NonstandardLastModified,
    /// `Win32LastModifiedTime`
    Win32LastModifiedTime,
    /// `Win32LastAccessTime`
    Win32LastAccessTime,
    /// `{urn:patgate}node-id`
    NodeId,
    /// `{http://owncloud.org/ns}checksums`
    Checksums,
    /// `sync-token` (RFC 6578 section 4): that of a directory's direct members, only for the requested entry itself
    SyncToken,
    /// `supported-report-set` (RFC 3253 section 3.1.5)
    SupportedReportSet,
}

/// Text of the element of a property.
struct PropertyTags {
    opening: &'static str,
    closing: &'static str,
    /// The whole element without a value.
    empty: &'static str,
}

/// Returns the [`PropertyTags`] of a qualified name, with a declaration of its prefix where it needs one. They are put
/// together by the compiler, so that an element is three copies of text.
macro_rules! tags {
    ($name:literal $(, $declaration:literal)?) => {
        PropertyTags {
            opening: concat!("<", $name $(, $declaration)?, ">"),
            closing: concat!("</", $name, ">"),
            empty: concat!("<", $name $(, $declaration)?, "/>"),
        }
    };
}

/// The entry whose properties are written.
pub(super) struct PropertySubject<'a> {
    /// Attributes of the entry.
    pub(super) entry: &'a Entry,
    /// Name for `displayname`.
    pub(super) display_name: &'a [u8],
    /// Returns the path of the entry.
    pub(super) path: &'a dyn Fn() -> TreePath,
    /// Media types of the entries of the response.
    pub(super) media_types: &'a MediaTypeLookup,
    /// Whether the request has `Depth: 0`: the entry is then the only one of the response, and may be given a node id.
    pub(super) is_depth_zero: bool,
}

impl LiveProperty {
    /// Live properties in the response to `allprop` (RFC 4918 section 9.1).
    pub(super) const ALLPROP: [LiveProperty; 9] = [
        LiveProperty::CreationDate,
        LiveProperty::DisplayName,
        LiveProperty::ContentLength,
        LiveProperty::ContentType,
        LiveProperty::Etag,
        LiveProperty::LastModified,
        LiveProperty::LockDiscovery,
        LiveProperty::ResourceType,
        LiveProperty::SupportedLock,
    ];

    /// Returns the live property of a name; `None` where the name is that of a dead one.
    pub(in crate::webdav) fn from_name(name: &PropertyName) -> Option<Self> {
        Some(match (name.namespace.as_str(), name.name.as_str()) {
            (DAV_NAMESPACE, "creationdate") => Self::CreationDate,
            (DAV_NAMESPACE, "displayname") => Self::DisplayName,
            (DAV_NAMESPACE, "getcontentlength") => Self::ContentLength,
            (DAV_NAMESPACE, "getcontenttype") => Self::ContentType,
            (DAV_NAMESPACE, "getetag") => Self::Etag,
            (DAV_NAMESPACE, "getlastmodified") => Self::LastModified,
            (DAV_NAMESPACE, "lockdiscovery") => Self::LockDiscovery,
            (DAV_NAMESPACE, "resourcetype") => Self::ResourceType,
            (DAV_NAMESPACE, "supportedlock") => Self::SupportedLock,
            (DAV_NAMESPACE, "quota-available-bytes") => Self::QuotaAvailableBytes,
            (DAV_NAMESPACE, "quota-used-bytes") => Self::QuotaUsedBytes,
            (DAV_NAMESPACE, "current-user-privilege-set") => Self::CurrentUserPrivilegeSet,
            (DAV_NAMESPACE, "supported-privilege-set") => Self::SupportedPrivilegeSet,
            (DAV_NAMESPACE, "owner") => Self::Owner,
            (DAV_NAMESPACE, "current-user-principal") => Self::CurrentUserPrincipal,
            (DAV_NAMESPACE, "lastmodified") => Self::NonstandardLastModified,
            (WIN32_NAMESPACE, "Win32LastModifiedTime") => Self::Win32LastModifiedTime,
            (WIN32_NAMESPACE, "Win32LastAccessTime") => Self::Win32LastAccessTime,
            (DAV_NAMESPACE, "sync-token") => Self::SyncToken,
            (DAV_NAMESPACE, "supported-report-set") => Self::SupportedReportSet,
            (PATGATE_NAMESPACE, "node-id") => Self::NodeId,
            (OWNCLOUD_NAMESPACE, "checksums") => Self::Checksums,
            _ => return None,
        })
    }

    /// Returns the tags of the element. Those of a prefix that a multistatus doesn't declare have the declaration.
    fn tags(self) -> PropertyTags {
        match self {
            Self::CreationDate => tags!("D:creationdate"),
            Self::DisplayName => tags!("D:displayname"),
            Self::ContentLength => tags!("D:getcontentlength"),
            Self::ContentType => tags!("D:getcontenttype"),
            Self::Etag => tags!("D:getetag"),
            Self::LastModified => tags!("D:getlastmodified"),
            Self::LockDiscovery => tags!("D:lockdiscovery"),
            Self::ResourceType => tags!("D:resourcetype"),
            Self::SupportedLock => tags!("D:supportedlock"),
            Self::QuotaAvailableBytes => tags!("D:quota-available-bytes"),
            Self::QuotaUsedBytes => tags!("D:quota-used-bytes"),
            Self::CurrentUserPrivilegeSet => tags!("D:current-user-privilege-set"),
            Self::SupportedPrivilegeSet => tags!("D:supported-privilege-set"),
            Self::Owner => tags!("D:owner"),
            Self::CurrentUserPrincipal => tags!("D:current-user-principal"),
            Self::NonstandardLastModified => tags!("D:lastmodified"),
            Self::Win32LastModifiedTime => tags!("Z:Win32LastModifiedTime", " xmlns:Z=\"urn:schemas-microsoft-com:\""),
            Self::Win32LastAccessTime => tags!("Z:Win32LastAccessTime", " xmlns:Z=\"urn:schemas-microsoft-com:\""),
            Self::NodeId => tags!("P:node-id"),
            Self::Checksums => tags!("oc:checksums", " xmlns:oc=\"http://owncloud.org/ns\""),
            Self::SyncToken => tags!("D:sync-token"),
            Self::SupportedReportSet => tags!("D:supported-report-set"),
        }
    }

    /// Appends the property without a value.
    pub(super) fn write_empty(self, out: &mut String) {
        out.push_str(self.tags().empty);
    }

    /// Tells whether the property is defined for an entry, from its attributes alone.
    pub(super) fn is_defined_for(self, entry: &Entry) -> bool {
        // A directory that is only visible on the way to a permitted one shows constant metadata: nothing of the disk
        // or the store.
        let has_permission = entry.permission != Permission::NONE;
        match self {
            Self::ContentLength | Self::ContentType => !entry.is_directory(),
            Self::Etag => entry.etag.is_some(),
            Self::CreationDate => entry.created.is_some(),
            Self::SupportedLock => entry.permission.allows(Permission::W),
            Self::QuotaAvailableBytes | Self::QuotaUsedBytes => entry.is_directory() && has_permission,
            Self::NodeId => has_permission,
            // Without read permission there is no entity tag, and nothing derived from the content may be shown.
            Self::Checksums => entry.etag.is_some(),
            Self::SyncToken => entry.is_directory(),
            _ => true,
        }
    }

    /// Appends the property with its value; returns false, and appends nothing, when the entry has none.
    pub(super) fn write(self, context: &RequestContext, subject: &PropertySubject<'_>, out: &mut String) -> bool {
        let entry = subject.entry;
        if !self.is_defined_for(entry) {
            return false;
        }
        let start = out.len();
        // Written with its own element, which the response to LOCK needs as well.
        if self == Self::LockDiscovery {
            let path = (subject.path)();
            let locks = context.view.locks(&path).unwrap_or_default();
            multistatus::write_lock_discovery(context, &path, entry.is_directory(), &locks, out);
            return true;
        }
        let tags = self.tags();
        out.push_str(tags.opening);
        // Some values turn out to be missing only when they are computed: the opening tag is removed again.
        if !self.write_value(context, subject, out) {
            out.truncate(start);
            return false;
        }
        out.push_str(tags.closing);
        true
    }

    fn write_value(self, context: &RequestContext, subject: &PropertySubject<'_>, out: &mut String) -> bool {
        let entry = subject.entry;
        match self {
            Self::CreationDate => date::write_rfc3339(entry.created.unwrap_or_default(), out),
            Self::DisplayName => xml::escape_name(subject.display_name, out),
            Self::ContentLength => write_number(entry.size, out),
            Self::ContentType => out.push_str(subject.media_types.media_type(&entry.name)),
            Self::Etag => {
                let Some(etag) = entry.etag else { return false };
                out.push('"');
                etag.append_to(out);
                out.push('"');
            }
            Self::LastModified | Self::NonstandardLastModified | Self::Win32LastModifiedTime => {
                date::write_http_date(entry.modified, out)
            }
            Self::Win32LastAccessTime => date::write_http_date(entry.accessed, out),
            Self::ResourceType if entry.is_directory() => out.push_str("<D:collection/>"),
            Self::ResourceType | Self::LockDiscovery => {}
            Self::SupportedLock => out.push_str(LOCK_ENTRIES),
            Self::QuotaAvailableBytes | Self::QuotaUsedBytes => {
                // An unknown quota is a missing property, not an error of the whole listing.
                let Ok(space) = context.view.space(&(subject.path)()) else { return false };
                let used = space.total.saturating_sub(space.free);
                write_number(if self == Self::QuotaAvailableBytes { space.available } else { used }, out);
            }
            Self::CurrentUserPrivilegeSet => write_privileges(entry.permission, out),
            Self::SupportedPrivilegeSet => out.push_str(SUPPORTED_PRIVILEGES),
            Self::Owner | Self::CurrentUserPrincipal => {
                let _ = write!(
                    out,
                    "<D:href>{}</D:href>",
                    ClientRoot::principal_href(&context.server, context.view.session().login())
                );
            }
            Self::NodeId => {
                let path = (subject.path)();
                let id = match subject.is_depth_zero {
                    true => context.view.node_id(&path).ok(),
                    // A listing creates no node ids: each is a row in the store that is kept until the entry is
                    // removed.
                    false => context.view.known_node_id(&path).ok().flatten(),
                };
                let Some(id) = id else { return false };
                let _ = write!(out, "{id}");
            }
            Self::SyncToken => {
                let path = (subject.path)();
                // A token needs a journal in the store: one for the requested directory, none for its members.
                if path != context.path {
                    return false;
                }
                let Ok(point) = context.view.sync_point(&path, context.view.monotonic_now()) else { return false };
                out.push_str(&sync_token::format_sync_token(point));
            }
            Self::SupportedReportSet if entry.is_directory() => out.push_str(SUPPORTED_REPORTS),
            Self::SupportedReportSet => {}
            Self::Checksums => {
                let Ok(Some(checksum)) = context.view.checksum(entry) else { return false };
                // Not escaped: `ContentChecksums::verify` has built it from hexadecimal digits.
                let _ = write!(out, "<oc:checksum>{checksum}</oc:checksum>");
            }
        }
        true
    }
}

const LOCK_ENTRIES: &str = "<D:lockentry><D:lockscope><D:exclusive/></D:lockscope><D:locktype><D:write/></D:locktype></D:lockentry>\
     <D:lockentry><D:lockscope><D:shared/></D:lockscope><D:locktype><D:write/></D:locktype></D:lockentry>";

/// Tree of all privileges. Those that one permission grants together are `abstract` below a common one.
const SUPPORTED_PRIVILEGES: &str = "<D:supported-privilege><D:privilege><D:all/></D:privilege><D:abstract/>\
     <D:description xml:lang=\"en\">Everything</D:description>\
     <D:supported-privilege><D:privilege><D:read/></D:privilege>\
     <D:description xml:lang=\"en\">List and read</D:description>\
     <D:supported-privilege><D:privilege><D:read-current-user-privilege-set/></D:privilege><D:abstract/>\
     <D:description xml:lang=\"en\">Read one's own privileges</D:description></D:supported-privilege>\
     </D:supported-privilege>\
     <D:supported-privilege><D:privilege><D:write/></D:privilege>\
     <D:description xml:lang=\"en\">Create, change and remove</D:description>\
     <D:supported-privilege><D:privilege><D:write-properties/></D:privilege><D:abstract/>\
     <D:description xml:lang=\"en\">Change properties</D:description></D:supported-privilege>\
     <D:supported-privilege><D:privilege><D:write-content/></D:privilege><D:abstract/>\
     <D:description xml:lang=\"en\">Change content</D:description></D:supported-privilege>\
     <D:supported-privilege><D:privilege><D:bind/></D:privilege><D:abstract/>\
     <D:description xml:lang=\"en\">Add members</D:description></D:supported-privilege>\
     <D:supported-privilege><D:privilege><D:unbind/></D:privilege><D:abstract/>\
     <D:description xml:lang=\"en\">Remove members</D:description></D:supported-privilege>\
     <D:supported-privilege><D:privilege><D:unlock/></D:privilege><D:abstract/>\
     <D:description xml:lang=\"en\">End locks</D:description></D:supported-privilege>\
     </D:supported-privilege></D:supported-privilege>";

const SUPPORTED_REPORTS: &str = "<D:supported-report><D:report><D:sync-collection/></D:report></D:supported-report>";

fn write_number(mut number: u64, out: &mut String) {
    // 20 digits are enough for any 64 bits.
    let mut digits = [b'0'; 20];
    let mut start = digits.len() - 1;
    digits[start] += (number % 10) as u8;
    while number > 9 {
        number /= 10;
        start -= 1;
        digits[start] += (number % 10) as u8;
    }
    out.push_str(std::str::from_utf8(&digits[start..]).unwrap_or_default());
}

fn write_privileges(permission: Permission, out: &mut String) {
    let mut list = |names: &[&str]| {
        for name in names {
            let _ = write!(out, "<D:privilege><D:{name}/></D:privilege>");
        }
    };
    if permission.allows(Permission::R) {
        list(&["read", "read-current-user-privilege-set"]);
    }
    if permission.allows(Permission::W) {
        list(&["write", "write-properties", "write-content", "bind", "unbind", "unlock"]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::webdav::xml::XmlElement;

    #[test]
    fn tags_have_the_name_that_the_property_is_requested_by() {
        let mut body = format!("<all xmlns:D=\"DAV:\" xmlns:P=\"{PATGATE_NAMESPACE}\">");
        for live in LiveProperty::ALLPROP {
            live.write_empty(&mut body);
        }
        for live in [LiveProperty::Win32LastAccessTime, LiveProperty::NodeId, LiveProperty::Checksums] {
            live.write_empty(&mut body);
        }
        body.push_str("</all>");
        let all = XmlElement::parse(body.as_bytes()).expect("well-formed");
        let parsed: Vec<_> = all.elements().map(|element| LiveProperty::from_name(&element.name())).collect();
        assert_eq!(parsed[..9], LiveProperty::ALLPROP.map(Some));
        assert_eq!(
            parsed[9..],
            [LiveProperty::Win32LastAccessTime, LiveProperty::NodeId, LiveProperty::Checksums].map(Some)
        );
    }

    #[test]
    fn numbers_are_written_in_decimal() {
        for number in [0, 9, 10, 99, 1_234_567_890, u64::MAX] {
            let mut out = String::new();
            write_number(number, &mut out);
            assert_eq!(out, number.to_string());
        }
    }
}
