//! Live properties, which the gateway computes (RFC 4918 section 15, RFC 4331, RFC 3744).

use std::fmt::Write;

use crate::domain::{Permission, TreePath};
use crate::tree::{Entry, PATGATE_NAMESPACE, PropertyName, Timestamp, media_type};
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

/// The entry whose properties are written.
pub(super) struct PropertySubject<'a> {
    /// Attributes of the entry.
    pub(super) entry: &'a Entry,
    /// Name for `displayname`.
    pub(super) display_name: &'a [u8],
    /// Returns the path of the entry.
    pub(super) path: &'a dyn Fn() -> TreePath,
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

    /// Returns the qualified name of the element; see `write_namespace_declaration` for prefixes that a multistatus
    /// doesn't declare.
    fn qualified_name(self) -> &'static str {
        match self {
            Self::CreationDate => "D:creationdate",
            Self::DisplayName => "D:displayname",
            Self::ContentLength => "D:getcontentlength",
            Self::ContentType => "D:getcontenttype",
            Self::Etag => "D:getetag",
            Self::LastModified => "D:getlastmodified",
            Self::LockDiscovery => "D:lockdiscovery",
            Self::ResourceType => "D:resourcetype",
            Self::SupportedLock => "D:supportedlock",
            Self::QuotaAvailableBytes => "D:quota-available-bytes",
            Self::QuotaUsedBytes => "D:quota-used-bytes",
            Self::CurrentUserPrivilegeSet => "D:current-user-privilege-set",
            Self::SupportedPrivilegeSet => "D:supported-privilege-set",
            Self::Owner => "D:owner",
            Self::CurrentUserPrincipal => "D:current-user-principal",
            Self::NonstandardLastModified => "D:lastmodified",
            Self::Win32LastModifiedTime => "Z:Win32LastModifiedTime",
            Self::Win32LastAccessTime => "Z:Win32LastAccessTime",
            Self::NodeId => "P:node-id",
            Self::Checksums => "oc:checksums",
            Self::SyncToken => "D:sync-token",
            Self::SupportedReportSet => "D:supported-report-set",
        }
    }

    /// Appends the property without a value.
    pub(super) fn write_empty(self, out: &mut String) {
        out.push('<');
        out.push_str(self.qualified_name());
        self.write_namespace_declaration(out);
        out.push_str("/>");
    }

    fn write_namespace_declaration(self, out: &mut String) {
        let (prefix, namespace) = match self {
            Self::Win32LastModifiedTime | Self::Win32LastAccessTime => ("Z", WIN32_NAMESPACE),
            Self::Checksums => ("oc", OWNCLOUD_NAMESPACE),
            _ => return,
        };
        let _ = write!(out, " xmlns:{prefix}=\"{namespace}\"");
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
        out.push('<');
        out.push_str(self.qualified_name());
        self.write_namespace_declaration(out);
        out.push('>');
        // Some values turn out to be missing only when they are computed: the opening tag is removed again.
        if !self.write_value(context, subject, out) {
            out.truncate(start);
            return false;
        }
        out.push_str("</");
        out.push_str(self.qualified_name());
        out.push('>');
        true
    }

    fn write_value(self, context: &RequestContext, subject: &PropertySubject<'_>, out: &mut String) -> bool {
        let entry = subject.entry;
        match self {
            Self::CreationDate => out.push_str(&date::format_rfc3339(entry.created.unwrap_or_default())),
            Self::DisplayName => xml::escape_name(subject.display_name, out),
            Self::ContentLength => write_number(entry.size, out),
            Self::ContentType => out.push_str(media_type(&entry.name)),
            Self::Etag => {
                let Some(etag) = entry.etag else { return false };
                let _ = write!(out, "\"{etag}\"");
            }
            Self::LastModified | Self::NonstandardLastModified | Self::Win32LastModifiedTime => {
                write_http_date(entry.modified, out)
            }
            Self::Win32LastAccessTime => write_http_date(entry.accessed, out),
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

fn write_http_date(time: Timestamp, out: &mut String) {
    out.push_str(&date::format_http_date(time));
}

fn write_number(number: u64, out: &mut String) {
    let _ = write!(out, "{number}");
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
