//! The state directory: who may read it, what is in it, and what is wrong with it.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use crate::{Answer, Site};
#[test]
fn no_secret_is_left_in_the_state_directory() {
    let site = Site::with_alice();
    let token = site.done("admin user token -u alice -e 24h -q");
    let secret = &token.trim()[13..45];
    let mut files = 0;
    for entry in fs::read_dir(site.state()).expect("state") {
        let path = entry.expect("entry").path();
        let bytes = fs::read(&path).expect("file");
        assert!(!bytes.windows(secret.len()).any(|part| part == secret.as_bytes()), "{}", path.display());
        files += 1;
    }
    assert!(files >= 2, "database and pepper");
    let told = site.done("apitoken list --json") + &site.done("apitoken list");
    assert!(!told.contains(secret));
}

#[test]
fn the_state_directory_is_for_its_owner_alone() {
    let site = Site::with_alice();
    site.done("admin user token -u alice -q");
    let mode = |path: PathBuf| fs::metadata(path).expect("there").permissions().mode() & 0o777;
    assert_eq!(mode(site.state()), 0o700);
    for entry in fs::read_dir(site.state()).expect("state") {
        let path = entry.expect("entry").path();
        assert_eq!(mode(path.clone()), 0o600, "{}", path.display());
    }
}

#[test]
fn a_state_that_is_not_there_is_not_made_by_looking() {
    let site = Site::new();
    for line in ["apitoken list", "admin user list", "policy show", "node list", "apitoken revoke 00000000"] {
        assert!(site.refused(line, 1).contains("no patgate state in"), "{line}");
    }
    assert!(!site.state().exists());
    let doctor = site.done("doctor");
    assert!(doctor.contains("there is none yet") && !site.state().exists(), "{doctor}");
}

#[test]
fn the_doctor_finds_a_state_directory_open_to_others_and_a_lost_pepper() {
    let site = Site::with_alice();
    site.done("admin user token -u alice -q");
    assert!(!site.done("doctor").contains("BAD"));
    fs::remove_file(site.state().join("pepper")).expect("removed");
    let Answer { code, out, err } = site.run("doctor");
    assert!(code == 1 && out.contains("pepper") && out.contains("BAD") && err.contains("hint: "), "{out}{err}");
    let refused = site.run("admin user token -u alice");
    assert!(refused.code == 1 && refused.err.contains("the pepper"), "{}", refused.err);
}
