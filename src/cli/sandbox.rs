//! The sandbox of a server (Landlock): files outside of the served folder, the state directory and what the
//! configuration names are out of its reach, whatever else may go wrong in it.
//!
//! A thread and those that it starts are confined, so this comes before the runtime. A rule belongs to a directory and not
//! to its path. What is mounted in a directory is beneath it; what is mounted over it is not. So that a served file system
//! that is mounted anew is found again, its rule is that of the directory in which it is mounted.

use std::path::{Path, PathBuf};

use landlock::{
    ABI, Access, AccessFs, BitFlags, CompatLevel, Compatible, PathBeneath, PathFd, Ruleset, RulesetAttr,
    RulesetCreated, RulesetCreatedAttr, RulesetError,
};
use rustix::fs::{AtFlags, CWD, StatxAttributes, StatxFlags, statx};

use crate::config::{SandboxSetting, TlsFiles};

/// What is read beside the configured files: the state of the process and of locks, the time zone, what names hosts, and
/// the authorities of TLS.
const SYSTEM_PATHS: [&str; 13] = [
    "/proc",
    "/dev/null",
    "/dev/urandom",
    "/etc/localtime",
    "/usr/share/zoneinfo",
    "/etc/passwd",
    "/etc/hosts",
    "/etc/resolv.conf",
    "/etc/nsswitch.conf",
    "/etc/ssl/certs",
    "/usr/share/ca-certificates",
    "/usr/local/share/ca-certificates",
    "/run/systemd/resolve",
];

/// Directories and files that a confined server reaches.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct SandboxPaths {
    /// Those in which it reads, writes and creates.
    writable: Vec<PathBuf>,
    /// Those that it only reads.
    readable: Vec<PathBuf>,
    /// Directory whose empty directories it may remove: that of a state directory that is created only now.
    removable_from: Option<PathBuf>,
}

/// Files that a configuration names.
#[derive(Clone, Debug)]
pub(super) struct SandboxFiles<'a> {
    /// The served directory.
    pub(super) root: &'a Path,
    /// The state directory.
    pub(super) state: &'a Path,
    /// The configuration file, which a reload reads again.
    pub(super) config_file: Option<&'a Path>,
    /// Certificate and key, which a reload reads again.
    pub(super) tls: Option<&'a TlsFiles>,
    /// Files of logs, which are opened anew after they were renamed.
    pub(super) logs: Vec<&'a Path>,
    /// Whether names of other hosts have to be resolved, for a certificate authority, or a receiver of audit events or
    /// notices.
    pub(super) resolves_names: bool,
    /// File with the certificate of that authority's server.
    pub(super) acme_ca: Option<&'a Path>,
    /// Files with secrets and certificates for notices.
    pub(super) notices: Vec<&'a Path>,
}

/// Reason why a server is not confined.
#[derive(Debug, thiserror::Error)]
pub(super) enum SandboxError {
    /// The kernel lacks Landlock, or what moving files needs of it.
    #[error("the kernel does not offer Landlock (Linux 5.19, and landlock among the security modules)")]
    NotSupported,
    /// The rule that a mount would need is one for all files.
    #[error(
        "{mount} is mounted in the root directory, and would not be found again after it is mounted anew; with \
         sandbox = \"strict\" it is not", mount = .0.display()
    )]
    MountInRootDirectory(PathBuf),
    /// A directory can't be opened, or the kernel refuses.
    #[error("{0}")]
    Refused(String),
}

impl SandboxPaths {
    /// Returns what a server with these files reaches.
    ///
    /// # Errors
    /// [`SandboxError::MountInRootDirectory`] where `setting` is not strict.
    pub(super) fn new(files: SandboxFiles<'_>, setting: SandboxSetting) -> Result<Self, SandboxError> {
        let root = files.root.canonicalize().unwrap_or_else(|_| files.root.to_owned());
        let reserved_above: Vec<_> = root.ancestors().skip(1).map(|above| above.join(".patgate")).collect();
        let root = match setting {
            SandboxSetting::Strict | SandboxSetting::Off => root,
            SandboxSetting::Auto => directory_that_outlasts_mounts(root)?,
        };
        let mut readable: Vec<PathBuf> = SYSTEM_PATHS.iter().map(PathBuf::from).collect();
        let tls = files.tls.into_iter().flat_map(|tls| [tls.certificate.as_path(), tls.key.as_path()]);
        for file in tls.chain(files.config_file).chain(files.acme_ca).chain(files.notices) {
            // Of the name and of what it leads to: programs replace links as well as files when they renew.
            let file = std::path::absolute(file).unwrap_or_else(|_| file.to_owned());
            readable.extend(file.parent().map(Path::to_owned));
            readable.extend(file.canonicalize().ok().and_then(|real| real.parent().map(Path::to_owned)));
        }
        let mut writable = vec![root, files.state.to_owned()];
        for log in files.logs {
            let log = std::path::absolute(log).unwrap_or_else(|_| log.to_owned());
            writable.extend(log.parent().map(Path::to_owned));
        }
        // Of a server of a directory above, whose lock refuses the start.
        readable.extend(reserved_above);
        if files.resolves_names {
            // Its files that name hosts are replaced by new ones while the server runs.
            readable.push(PathBuf::from("/etc"));
        }
        Ok(Self { writable, readable, removable_from: None })
    }

    /// Lets the server remove a state directory that it creates, and its new parents, should it fail to start.
    pub(super) fn with_new_state(self, topmost_created: Option<&Path>) -> Self {
        Self { removable_from: topmost_created.and_then(Path::parent).map(Path::to_owned), ..self }
    }

    /// Tells whether a confined server can read a file.
    pub(super) fn covers(&self, file: &Path) -> bool {
        let real = file.canonicalize().unwrap_or_else(|_| file.to_owned());
        let covers = |allowed: &PathBuf| [file, &real].iter().all(|path| path.starts_with(allowed));
        self.writable.iter().chain(&self.readable).any(covers)
    }

    /// Confines this thread, and those that it starts from now on, for good.
    ///
    /// # Errors
    /// [`SandboxError`] where it can't be confined; nothing has changed then.
    pub(super) fn enforce(&self) -> Result<(), SandboxError> {
        let mut ruleset = new_ruleset()?;
        // Programs and devices are neither started nor created.
        let write = AccessFs::from_all(ABI::V3) & !(AccessFs::Execute | AccessFs::MakeChar | AccessFs::MakeBlock);
        for path in &self.writable {
            ruleset = allow(ruleset, path, write)?;
        }
        // Not every system has each of them.
        for path in self.readable.iter().filter(|path| path.exists()) {
            ruleset = allow(ruleset, path, AccessFs::ReadFile | AccessFs::ReadDir)?;
        }
        ruleset = allow(ruleset, Path::new("/dev/null"), AccessFs::ReadFile | AccessFs::WriteFile)?;
        if let Some(path) = &self.removable_from {
            ruleset = allow(ruleset, path, AccessFs::RemoveDir)?;
        }
        ruleset.restrict_self().map(drop).map_err(|error| SandboxError::Refused(error.to_string()))
    }
}

/// Tells whether the kernel can confine a server.
///
/// # Errors
/// [`SandboxError::NotSupported`] where it can't.
pub(super) fn check_support() -> Result<(), SandboxError> {
    new_ruleset().map(drop)
}

fn new_ruleset() -> Result<RulesetCreated, SandboxError> {
    let create = || -> Result<RulesetCreated, RulesetError> {
        // The second version lets files move between directories, without which nothing works; the third bounds
        // truncation.
        let ruleset = Ruleset::default()
            .set_compatibility(CompatLevel::HardRequirement)
            .handle_access(AccessFs::from_all(ABI::V2))?
            .set_compatibility(CompatLevel::BestEffort)
            .handle_access(AccessFs::Truncate)?;
        ruleset.create()
    };
    create().map_err(|_| SandboxError::NotSupported)
}

fn allow(
    ruleset: RulesetCreated,
    path: &Path,
    access: impl Into<BitFlags<AccessFs>>,
) -> Result<RulesetCreated, SandboxError> {
    let refused = |reason: String| SandboxError::Refused(format!("{}: {reason}", path.display()));
    let access = access.into();
    let access = if path.is_dir() { access } else { access & AccessFs::from_file(ABI::V3) };
    let directory = PathFd::new(path).map_err(|error| refused(error.to_string()))?;
    ruleset.add_rule(PathBeneath::new(directory, access)).map_err(|error| refused(error.to_string()))
}

/// Returns the directory whose rule counts for a served directory also after its file system was mounted anew.
fn directory_that_outlasts_mounts(root: PathBuf) -> Result<PathBuf, SandboxError> {
    let Some(mount) = root.ancestors().find(|path| is_mount_root(path)) else { return Ok(root) };
    match mount.parent() {
        None => Ok(root),
        Some(parent) if parent.parent().is_none() => Err(SandboxError::MountInRootDirectory(mount.to_owned())),
        Some(parent) => Ok(parent.to_owned()),
    }
}

fn is_mount_root(path: &Path) -> bool {
    let status = statx(CWD, path, AtFlags::empty(), StatxFlags::empty());
    status.is_ok_and(|status| status.stx_attributes.contains(StatxAttributes::MOUNT_ROOT))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io::ErrorKind;

    use super::*;

    #[test]
    fn confined_thread_reaches_only_what_it_was_allowed() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = |name: &str| folder.path().join(name);
        for name in ["root/a", "root/b", "state", "tls", "log", "outside"] {
            fs::create_dir_all(path(name)).expect("made");
        }
        fs::write(path("tls/cert.pem"), "x").expect("written");
        fs::write(path("outside/file"), "x").expect("written");
        let tls = TlsFiles { certificate: path("tls/cert.pem"), key: path("tls/key.pem") };
        let (root, state, log) = (path("root"), path("state"), path("log/access.log"));
        let files = SandboxFiles {
            root: &root,
            state: &state,
            config_file: None,
            tls: Some(&tls),
            logs: vec![&log],
            resolves_names: false,
            acme_ca: None,
            notices: Vec::new(),
        };
        let paths = SandboxPaths::new(files, SandboxSetting::Strict).expect("no mount is looked for");
        assert!(paths.covers(&tls.key) && paths.covers(&path("state/new")) && !paths.covers(&path("outside/file")));
        if let Err(error) = check_support() {
            return println!("not tried further: {error}");
        }
        let denied = |result: std::io::Result<()>| {
            assert_eq!(result.expect_err("out of reach").kind(), ErrorKind::PermissionDenied);
        };
        let confined = || {
            paths.enforce().expect("confined");
            fs::write(path("root/a/file"), "x").expect("in the served folder");
            fs::rename(path("root/a/file"), path("root/b/file")).expect("from one directory to another");
            fs::write(path("state/file"), "x").expect("in the state directory");
            assert_eq!(fs::read(&tls.certificate).expect("beside the configured files"), b"x");
            fs::write(&log, "x").expect("the log");
            fs::read_to_string("/proc/self/mountinfo").expect("what the system says of the process");
            denied(fs::write(path("tls/key.pem"), "x"));
            denied(fs::read(path("outside/file")).map(drop));
            denied(fs::write(path("outside/new"), "x"));
            denied(fs::rename(path("root/b/file"), path("outside/new")));
            denied(fs::read("/etc/hostname").map(drop));
            denied(std::process::Command::new("/bin/true").status().map(drop));
        };
        std::thread::scope(|scope| scope.spawn(confined).join().expect("all as said"));
        fs::read(path("outside/file")).expect("this thread is free");
    }

    #[test]
    fn mount_in_a_directory_of_its_own_is_allowed_by_that_directory() {
        let mounted = |path: &str| directory_that_outlasts_mounts(PathBuf::from(path));
        assert_eq!(
            mounted("/proc/self").err().map(|error| error.to_string()).as_deref().map(|text| &text[..5]),
            Some("/proc")
        );
        let ordinary = tempfile::tempdir().expect("a folder");
        let allowed = mounted(ordinary.path().to_str().expect("text"));
        assert!(allowed.is_err() || allowed.is_ok_and(|path| ordinary.path().starts_with(path)));
    }
}
