//! Live properties: what the gateway knows of an entry by itself (RFC 4918 section 15, RFC 4331, RFC 3744).

use std::fmt::Write;

use crate::domain::{Permission, TreePath};
use crate::tree::{Entry, PropertyName, Timestamp, media_type};
use crate::webdav::address::Mount;
use crate::webdav::call::Call;
use crate::webdav::xml::DAV;
use crate::webdav::{date, multistatus, report, xml};

const WINDOWS: &str = "urn:schemas-microsoft-com:";
const CLOUD: &str = "http://owncloud.org/ns";
const OURS: &str = "urn:patgate";

/// A live property.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::webdav) enum Live {
    /// `creationdate`
    Created,
    /// `displayname`, unless a client gave another
    DisplayName,
    /// `getcontentlength`
    Length,
    /// `getcontenttype`
    Type,
    /// `getetag`
    Etag,
    /// `getlastmodified`
    Modified,
    /// `lockdiscovery`
    Locks,
    /// `resourcetype`
    Kind,
    /// `supportedlock`
    Lockable,
    /// `quota-available-bytes` (RFC 4331)
    Available,
    /// `quota-used-bytes` (RFC 4331)
    Used,
    /// `current-user-privilege-set` (RFC 3744 section 5.5)
    Privileges,
    /// `supported-privilege-set` (RFC 3744 section 5.3)
    AllPrivileges,
    /// `owner` (RFC 3744 section 5.1): the session's own user, whoever owns it on the host
    Owner,
    /// `current-user-principal` (RFC 5397)
    Principal,
    /// `lastmodified`, by which some clients set the time
    ModifiedToo,
    /// `Win32LastModifiedTime`
    WindowsModified,
    /// `Win32LastAccessTime`
    WindowsAccessed,
    /// `{urn:patgate}node-id`
    NodeId,
    /// `{http://owncloud.org/ns}checksums`
    Checksums,
    /// `sync-token` (RFC 6578 section 4): that of a folder's own members, told of the entry that is asked for alone
    SyncToken,
    /// `supported-report-set` (RFC 3253 section 3.1.5)
    Reports,
}

/// The entry whose properties are written.
pub(super) struct Subject<'a> {
    /// What it shows of itself.
    pub(super) entry: &'a Entry,
    /// What it is called.
    pub(super) title: &'a [u8],
    /// Where it is.
    pub(super) path: &'a dyn Fn() -> TreePath,
    /// Whether it is the only one, and so worth a name of its own.
    pub(super) alone: bool,
}

impl Live {
    /// Those that answer a client that wants all.
    pub(super) const ALL: [Live; 9] = [
        Live::Created,
        Live::DisplayName,
        Live::Length,
        Live::Type,
        Live::Etag,
        Live::Modified,
        Live::Locks,
        Live::Kind,
        Live::Lockable,
    ];

    /// Returns the live property of a name.
    pub(in crate::webdav) fn of(name: &PropertyName) -> Option<Self> {
        Some(match (name.namespace.as_str(), name.name.as_str()) {
            (DAV, "creationdate") => Self::Created,
            (DAV, "displayname") => Self::DisplayName,
            (DAV, "getcontentlength") => Self::Length,
            (DAV, "getcontenttype") => Self::Type,
            (DAV, "getetag") => Self::Etag,
            (DAV, "getlastmodified") => Self::Modified,
            (DAV, "lockdiscovery") => Self::Locks,
            (DAV, "resourcetype") => Self::Kind,
            (DAV, "supportedlock") => Self::Lockable,
            (DAV, "quota-available-bytes") => Self::Available,
            (DAV, "quota-used-bytes") => Self::Used,
            (DAV, "current-user-privilege-set") => Self::Privileges,
            (DAV, "supported-privilege-set") => Self::AllPrivileges,
            (DAV, "owner") => Self::Owner,
            (DAV, "current-user-principal") => Self::Principal,
            (DAV, "lastmodified") => Self::ModifiedToo,
            (WINDOWS, "Win32LastModifiedTime") => Self::WindowsModified,
            (WINDOWS, "Win32LastAccessTime") => Self::WindowsAccessed,
            (DAV, "sync-token") => Self::SyncToken,
            (DAV, "supported-report-set") => Self::Reports,
            (OURS, "node-id") => Self::NodeId,
            (CLOUD, "checksums") => Self::Checksums,
            _ => return None,
        })
    }

    /// Returns the element's name with the prefix that every multistatus declares for it.
    fn tag(self) -> &'static str {
        match self {
            Self::Created => "D:creationdate",
            Self::DisplayName => "D:displayname",
            Self::Length => "D:getcontentlength",
            Self::Type => "D:getcontenttype",
            Self::Etag => "D:getetag",
            Self::Modified => "D:getlastmodified",
            Self::Locks => "D:lockdiscovery",
            Self::Kind => "D:resourcetype",
            Self::Lockable => "D:supportedlock",
            Self::Available => "D:quota-available-bytes",
            Self::Used => "D:quota-used-bytes",
            Self::Privileges => "D:current-user-privilege-set",
            Self::AllPrivileges => "D:supported-privilege-set",
            Self::Owner => "D:owner",
            Self::Principal => "D:current-user-principal",
            Self::ModifiedToo => "D:lastmodified",
            Self::WindowsModified => "Z:Win32LastModifiedTime",
            Self::WindowsAccessed => "Z:Win32LastAccessTime",
            Self::NodeId => "P:node-id",
            Self::Checksums => "oc:checksums",
            Self::SyncToken => "D:sync-token",
            Self::Reports => "D:supported-report-set",
        }
    }

    /// Appends the property without a value.
    pub(super) fn write_bare(self, out: &mut String) {
        out.push('<');
        out.push_str(self.tag());
        self.declare(out);
        out.push_str("/>");
    }

    fn declare(self, out: &mut String) {
        let (prefix, namespace) = match self {
            Self::WindowsModified | Self::WindowsAccessed => ("Z", WINDOWS),
            Self::Checksums => ("oc", CLOUD),
            _ => return,
        };
        let _ = write!(out, " xmlns:{prefix}=\"{namespace}\"");
    }

    /// Tells whether an entry has it, without asking for what it costs to know.
    pub(super) fn exists(self, entry: &Entry) -> bool {
        let known = entry.permission != Permission::NONE;
        match self {
            Self::Length | Self::Type => !entry.is_directory(),
            Self::Etag => entry.etag.is_some(),
            Self::Created => entry.created.is_some(),
            Self::Lockable => entry.permission.allows(Permission::W),
            Self::Available | Self::Used => entry.is_directory() && known,
            Self::NodeId => known,
            Self::Checksums => entry.etag.is_some(),
            Self::SyncToken => entry.is_directory(),
            _ => true,
        }
    }

    /// Appends the property with its value; returns false, and appends nothing, when the entry has none.
    pub(super) fn write(self, call: &Call, subject: &Subject<'_>, out: &mut String) -> bool {
        let entry = subject.entry;
        if !self.exists(entry) {
            return false;
        }
        let start = out.len();
        if self == Self::Locks {
            let path = (subject.path)();
            let locks = call.view.locks(&path).unwrap_or_default();
            multistatus::lock_discovery(call, &path, entry.is_directory(), &locks, out);
            return true;
        }
        out.push('<');
        out.push_str(self.tag());
        self.declare(out);
        out.push('>');
        if !self.write_value(call, subject, out) {
            out.truncate(start);
            return false;
        }
        out.push_str("</");
        out.push_str(self.tag());
        out.push('>');
        true
    }

    fn write_value(self, call: &Call, subject: &Subject<'_>, out: &mut String) -> bool {
        let entry = subject.entry;
        match self {
            Self::Created => out.push_str(&date::internet_date(entry.created.unwrap_or_default())),
            Self::DisplayName => xml::escape_name(subject.title, out),
            Self::Length => number(entry.size, out),
            Self::Type => out.push_str(media_type(&entry.name)),
            Self::Etag => {
                let Some(etag) = entry.etag else { return false };
                let _ = write!(out, "\"{etag}\"");
            }
            Self::Modified | Self::ModifiedToo | Self::WindowsModified => time(entry.modified, out),
            Self::WindowsAccessed => time(entry.accessed, out),
            Self::Kind if entry.is_directory() => out.push_str("<D:collection/>"),
            Self::Kind | Self::Locks => {}
            Self::Lockable => out.push_str(LOCK_ENTRIES),
            Self::Available | Self::Used => {
                let Ok(space) = call.view.space(&(subject.path)()) else { return false };
                let used = space.total.saturating_sub(space.free);
                number(if self == Self::Available { space.available } else { used }, out);
            }
            Self::Privileges => privileges(entry.permission, out),
            Self::AllPrivileges => out.push_str(ALL_PRIVILEGES),
            Self::Owner | Self::Principal => {
                let _ = write!(out, "<D:href>{}</D:href>", Mount::principal(&call.server, call.view.session().login()));
            }
            Self::NodeId => {
                let path = (subject.path)();
                let id = match subject.alone {
                    true => call.view.node_id(&path).ok(),
                    // A listing names nothing: each name is a row that is kept for ever.
                    false => call.view.known_node_id(&path).ok().flatten(),
                };
                let Some(id) = id else { return false };
                let _ = write!(out, "{id}");
            }
            Self::SyncToken => {
                let path = (subject.path)();
                if path != call.path {
                    return false;
                }
                let Ok(point) = call.view.sync_point(&path, call.view.monotonic_now()) else { return false };
                out.push_str(&report::sync_token(point));
            }
            Self::Reports if entry.is_directory() => out.push_str(REPORTS),
            Self::Reports => {}
            Self::Checksums => {
                let Ok(Some(sum)) = call.view.checksum(entry) else { return false };
                let _ = write!(out, "<oc:checksum>{sum}</oc:checksum>");
            }
        }
        true
    }
}

const LOCK_ENTRIES: &str = "<D:lockentry><D:lockscope><D:exclusive/></D:lockscope><D:locktype><D:write/></D:locktype></D:lockentry>\
     <D:lockentry><D:lockscope><D:shared/></D:lockscope><D:locktype><D:write/></D:locktype></D:lockentry>";

/// Every privilege there is: all that a permission gives is given together.
const ALL_PRIVILEGES: &str = "<D:supported-privilege><D:privilege><D:all/></D:privilege><D:abstract/>\
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

const REPORTS: &str = "<D:supported-report><D:report><D:sync-collection/></D:report></D:supported-report>";

fn time(time: Timestamp, out: &mut String) {
    out.push_str(&date::http_date(time));
}

fn number(number: u64, out: &mut String) {
    let _ = write!(out, "{number}");
}

fn privileges(permission: Permission, out: &mut String) {
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
