//! Properties of every parser that unauthenticated clients and users reach, each over any bytes. Only in builds for
//! tests, where they see their seeds, and for fuzzing (`fuzz/run`), where coverage leads to further inputs.

/// A property: takes any bytes, and panics where it does not hold.
pub type FuzzTarget = fn(&[u8]);

/// All targets by name; `fuzz/seeds` has a directory for each.
pub const TARGETS: [(&str, FuzzTarget); 17] = [
    ("token_text", crate::domain::fuzzing::token_text),
    ("tree_path", crate::domain::fuzzing::tree_path),
    ("times", crate::domain::fuzzing::times),
    ("credential", crate::http::fuzzing::credential),
    ("forwarded", crate::http::fuzzing::forwarded),
    ("request_target", crate::http::fuzzing::request_target),
    ("proxy_header", crate::net::fuzzing::proxy_header),
    ("conditions", crate::webdav::fuzzing::conditions),
    ("resource_url", crate::webdav::fuzzing::resource_url),
    ("ranges", crate::webdav::fuzzing::ranges),
    ("xml", crate::webdav::fuzzing::xml),
    ("checksums", crate::webdav::fuzzing::checksums),
    ("short_headers", crate::webdav::fuzzing::short_headers),
    ("dates", crate::webdav::fuzzing::dates),
    ("multipart", crate::console::fuzzing::multipart),
    ("sftp_packets", crate::sftp::fuzzing::packets),
    ("json_bodies", crate::api::fuzzing::json_bodies),
];

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use super::*;

    #[test]
    fn properties_hold_for_seeds_and_their_beginnings() {
        let seeds = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/seeds");
        for (name, target) in TARGETS {
            let directory = fs::read_dir(seeds.join(name)).expect(name);
            let files: Vec<_> = directory.map(|entry| entry.expect("an entry").path()).collect();
            assert!(!files.is_empty(), "{name} has no seeds");
            for file in files {
                let seed = fs::read(&file).expect("a seed");
                (0..=seed.len()).for_each(|end| target(&seed[..end]));
            }
        }
    }

    #[test]
    fn every_directory_of_seeds_has_a_target() {
        let seeds = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/seeds");
        for entry in fs::read_dir(seeds).expect("seeds") {
            let name = entry.expect("an entry").file_name();
            assert!(TARGETS.iter().any(|(target, _)| name == *target), "{name:?}");
        }
    }
}
