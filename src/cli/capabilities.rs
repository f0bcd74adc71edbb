//! Drops the capabilities (`capabilities(7)`) that a server that was started by root does not need.
//!
//! Root serves the files of all users, and so keeps the capabilities that override their modes and owners. The rest,
//! such as loading kernel modules, tracing other processes or opening raw sockets, is dropped before the first thread
//! starts: capabilities belong to a thread, and new threads inherit them.

use rustix::io;
use rustix::thread::{
    CapabilitySet, CapabilitySets, capabilities, clear_ambient_capability_set, remove_capability_from_bounding_set,
    set_capabilities, set_no_new_privs,
};

/// Capabilities that are kept: to override modes, to preserve owners, to keep the set-group-id bit (FSETID), and to
/// listen on a port below 1024.
const FILE_SERVING_CAPABILITIES: CapabilitySet = CapabilitySet::CHOWN
    .union(CapabilitySet::DAC_OVERRIDE)
    .union(CapabilitySet::DAC_READ_SEARCH)
    .union(CapabilitySet::FOWNER)
    .union(CapabilitySet::FSETID)
    .union(CapabilitySet::NET_BIND_SERVICE);

/// Drops all other capabilities, for this thread and those that it starts, and the ability to gain any by executing a
/// program. A failure is logged.
pub(super) fn drop_unneeded() {
    if let Err(error) = drop_all_but(FILE_SERVING_CAPABILITIES) {
        tracing::warn!(%error, "the server keeps capabilities of root that it does not need");
    }
}

fn drop_all_but(retained: CapabilitySet) -> io::Result<()> {
    set_no_new_privs(true)?;
    // The bounding set comes first, since it takes SETPCAP. Errors are ignored: a kernel may not know all capabilities,
    // and a process without SETPCAP is not root.
    for (_, capability) in CapabilitySet::all().difference(retained).iter_names() {
        let _ = remove_capability_from_bounding_set(capability);
    }
    let _ = clear_ambient_capability_set();
    let current = capabilities(None)?;
    set_capabilities(
        None,
        CapabilitySets {
            effective: current.effective & retained,
            permitted: current.permitted & retained,
            inheritable: CapabilitySet::empty(),
        },
    )
}
