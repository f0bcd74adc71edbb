//! Transparent huge pages, which a server does without.

/// Keeps the kernel from backing the memory of this process with transparent huge pages.
///
/// The allocator asks for them, and the first small allocation of a thread takes 2 MiB then. Each SFTP connection has a
/// thread: 50 idle sessions took 170 MiB with huge pages and 34 without. Hashing a secret takes a quarter longer, which
/// happens once for a token and process; requests take the same time.
pub(super) fn disable() {
    if let Err(error) = rustix::thread::disable_transparent_huge_pages(true) {
        tracing::debug!(%error, "transparent huge pages can't be disabled: idle connections take more memory");
    }
}
