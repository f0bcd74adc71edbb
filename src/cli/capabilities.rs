//! What a server that was started by root may do besides serving files.
//!
//! Root serves the files of all users, and so keeps what passes over their modes and owners. The rest, such as loading
//! modules, reading the memory of other processes, or opening raw sockets, is given up before the first thread starts:
//! capabilities are those of a thread, and new threads have their maker's.

use rustix::io;
use rustix::thread::{
    CapabilitySet, CapabilitySets, capabilities, clear_ambient_capability_set, remove_capability_from_bounding_set,
    set_capabilities, set_no_new_privs,
};

/// Capabilities that serving files of all users takes: their modes are passed over, their owners kept, the group that a
/// directory hands down stays (FSETID), and a listener may have a port below 1024.
const FILE_SERVING_CAPABILITIES: CapabilitySet = CapabilitySet::CHOWN
    .union(CapabilitySet::DAC_OVERRIDE)
    .union(CapabilitySet::DAC_READ_SEARCH)
    .union(CapabilitySet::FOWNER)
    .union(CapabilitySet::FSETID)
    .union(CapabilitySet::NET_BIND_SERVICE);

/// Gives up all other capabilities, for this thread and those that it starts, and the way to get any by a program that
/// is run. What a system does not let go is logged.
pub(super) fn drop_unneeded() {
    if let Err(error) = drop_all_but(FILE_SERVING_CAPABILITIES) {
        tracing::warn!(%error, "the server keeps rights of root that it does not need");
    }
}

fn drop_all_but(retained: CapabilitySet) -> io::Result<()> {
    set_no_new_privs(true)?;
    // While SETPCAP is there. A kernel may not know all, and who lacks SETPCAP is not root.
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
