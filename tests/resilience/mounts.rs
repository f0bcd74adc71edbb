//! Mounts for a test, removed when it ends.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::{Duration, Instant};

/// A mount; ends when it is dropped, whatever holds it.
pub(crate) struct MountGuard(PathBuf);

impl MountGuard {
    /// Mounts nothing but memory.
    pub(crate) fn tmpfs(at: &Path) -> Self {
        Self::with_arguments(&["-t", "tmpfs", "tmpfs"], at)
    }

    /// Mounts a directory once more.
    pub(crate) fn bind(from: &Path, at: &Path) -> Self {
        Self::with_arguments(&[OsStr::new("--bind"), from.as_os_str()], at)
    }

    /// Mounts the file system in a file.
    pub(crate) fn image_file(image: &Path, at: &Path) -> Self {
        Self::with_arguments(&[OsStr::new("-o"), OsStr::new("loop"), image.as_os_str()], at)
    }

    /// Mounts with these arguments to mount(8).
    pub(crate) fn with_arguments<S: AsRef<OsStr>>(arguments: &[S], at: &Path) -> Self {
        std::fs::create_dir_all(at).expect("a mount point");
        run_ok(Command::new("mount").args(arguments).arg(at));
        Self(at.to_owned())
    }

    /// Changes options of the mount.
    pub(crate) fn remount(&self, options: &str) {
        run_ok(Command::new("mount").args(["-o", &format!("remount,{options}")]).arg(&self.0));
    }

    /// Unmounts as `umount` does, whatever comes of it.
    pub(crate) fn try_unmount(&self) -> Output {
        Command::new("umount").arg(&self.0).output().expect("umount runs")
    }

    /// Unmounts as `umount -l` does: at once, whoever holds it.
    pub(crate) fn unmount(self) {
        run_ok(Command::new("umount").arg("-l").arg(&self.0));
        std::mem::forget(self);
    }
}

impl Drop for MountGuard {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).output();
    }
}

fn run_ok(command: &mut Command) {
    let output = command.output().expect("it runs");
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}

/// Tells whether this process may mount; prints the reason otherwise.
pub(crate) fn can_mount() -> bool {
    let mount_point = tempfile::tempdir().expect("a folder");
    let tried = Command::new("mount").args(["-t", "tmpfs", "tmpfs"]).arg(mount_point.path()).output();
    let fault = match tried {
        Ok(output) if output.status.success() => {
            drop(MountGuard(mount_point.path().to_owned()));
            return true;
        }
        Ok(output) => String::from_utf8_lossy(&output.stderr).trim().to_owned(),
        Err(error) => error.to_string(),
    };
    eprintln!("not tested: nothing can be mounted here: {fault}");
    false
}

/// Makes a file with a file system in it; says why not otherwise.
pub(crate) fn create_image(folder: &Path, mebibytes: u64, maker: &[&str]) -> Option<PathBuf> {
    let image = folder.join(format!("{}.image", maker[0]));
    let file = std::fs::File::create(&image).expect("a file");
    file.set_len(mebibytes << 20).expect("room");
    match Command::new(maker[0]).args(&maker[1..]).arg(&image).output() {
        Ok(output) if output.status.success() => Some(image),
        Ok(output) => {
            eprintln!("not tested: {}: {}", maker[0], String::from_utf8_lossy(&output.stderr).trim());
            None
        }
        Err(error) => {
            eprintln!("not tested: {}: {error}", maker[0]);
            None
        }
    }
}

/// Waits until something is so.
pub(crate) async fn wait_until(what: &str, mut is_so: impl AsyncFnMut() -> bool) {
    let end = Instant::now() + Duration::from_secs(60);
    while !is_so().await {
        assert!(Instant::now() < end, "not within a minute: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
