"""The cases of a mounted folder: a source tree is unpacked in a davfs2 or an sshfs mount, and read from a new mount."""

import os
import shutil
import statistics
import subprocess
import tarfile
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path

from cases import COMMAND_LIMIT, Failed, Missing, case, run

REPOSITORY = Path(__file__).resolve().parents[2]


def source_tree(t):
    """This repository's sources and tests as an archive and unpacked: (archive, folder, number of files)."""
    archive, unpacked = t.local / "tree.tar", t.local / "tree"
    files = sorted(path for part in ("src", "tests") for path in (REPOSITORY / part).rglob("*")
                   if path.is_file() and "__pycache__" not in path.parts)
    if not archive.exists():
        with tarfile.open(archive, "w") as tar:
            for path in files:
                tar.add(path, Path("tree") / path.relative_to(REPOSITORY))
        run(["tar", "-C", str(t.local), "-xf", str(archive)])
    return archive, unpacked, len(files)


@contextmanager
def mounted(command, unmount, env=None):
    """A mount for the length of a block. What touches it is a child process, so that a stuck mount cannot stop us."""
    if os.geteuid():
        raise Missing("mounting takes root here")
    if not os.access("/dev/fuse", os.R_OK | os.W_OK) or not shutil.which(command[0]):
        raise Missing(f"{command[0]} or /dev/fuse is not there")
    point = tempfile.mkdtemp(prefix="bench-mount-")
    try:
        run([*command, point], env, what=command[0])
        yield point
        unmount(point)
    finally:
        if point in Path("/proc/mounts").read_text():
            subprocess.run(["umount", "-l", point], capture_output=True, timeout=20)
        os.rmdir(point)


def unmount_davfs(point):
    """Unmounts and waits until all is uploaded, without davfs2's umount helper, which looks every three seconds only."""
    daemon = next(p for p in Path("/proc").glob("[0-9]*/cmdline") if point.encode() in cmdline(p) and b"davfs" in cmdline(p))
    run(["umount", "-i", point])
    end = time.monotonic() + COMMAND_LIMIT
    while cmdline(daemon):
        if time.monotonic() > end:
            raise Failed(f"davfs2 has not uploaded all within {COMMAND_LIMIT} s")
        time.sleep(.005)


def cmdline(path):
    try:
        return path.read_bytes()
    except OSError:
        return b""


@contextmanager
def davfs(t):
    """The measured folder mounted with davfs2 and an empty cache."""
    if not shutil.which("mount.davfs", path="/sbin:/usr/sbin"):
        raise Missing("davfs2 is not installed")
    with tempfile.TemporaryDirectory(prefix="davfs-", dir=t.local.parent) as folder:
        folder = Path(folder)
        folder.chmod(0o711)
        cache, secrets, config = folder / "cache", folder / "secrets", folder / "conf"
        cache.mkdir()
        cache.chmod(0o775)
        shutil.chown(cache, group="davfs2")
        secrets.touch(0o600)
        url = t.end.at(t.path())
        secrets.write_text(f'{url} "{t.end.user}" "{t.end.password}"\n')
        # Newer kernels read folders in larger pieces than buf_size is by default.
        config.write_text(f"secrets {secrets}\ncache_dir {cache}\nask_auth 0\ndelay_upload 0\nbuf_size 256\n")
        with mounted(["mount", "-t", "davfs", "-o", f"conf={config}", url], unmount_davfs) as point:
            yield point


@contextmanager
def sshfs(t):
    """The measured folder mounted with sshfs."""
    ssh = " ".join(t.end.command("ssh"))
    command = ["sshfs", "-o", f"ssh_command={ssh}", "-o", "idmap=user", f"target:{t.folder}"]
    with mounted(command, lambda point: run(["fusermount3", "-u", point]), t.end.env()) as point:
        yield point


def unpack(t, mount):
    """Seconds to unpack the archive in the mount and to unmount it, with which all is on the server."""
    archive, _, count = source_tree(t)
    with mount(t) as point:
        run(["rm", "-rf", f"{point}/tree"])
    with t.meter():
        with mount(t) as point:
            start = time.perf_counter()
            run(["tar", "-C", point, "--no-same-owner", "-xf", str(archive)])
        seconds = time.perf_counter() - start
    t.once("read back", lambda: compare(t, mount))
    return seconds, {"work": count / 1000}


def compare(t, mount):
    """Seconds to read the tree in a new mount and to find it equal to what was unpacked."""
    _, unpacked, count = source_tree(t)
    with mount(t) as point:
        start = time.perf_counter()
        run(["diff", "-r", str(unpacked), f"{point}/tree"])
        seconds = time.perf_counter() - start
    return seconds, {"work": count / 1000}


def read(t, mount):
    if "read back" not in t.ready:
        unpack(t, mount)
    with t.meter():
        seconds = [compare(t, mount)[0] for _ in range(3)]
    return statistics.median(seconds), {"work": 3 * source_tree(t)[2] / 1000}


@case("dav-mount-untar", "s", per="1,000 files")
def dav_mount_untar(t):
    """tar -x of this repository's sources and tests in a davfs2 mount, and its unmounting, with which all is uploaded."""
    return unpack(t, davfs)


@case("dav-mount-read", "s", per="1,000 files")
def dav_mount_read(t):
    """diff -r of those files in a new davfs2 mount with those that were unpacked; the median of three."""
    return read(t, davfs)


@case("sftp-mount-untar", "s", per="1,000 files")
def sftp_mount_untar(t):
    """tar -x of this repository's sources and tests in an sshfs mount, and its unmounting."""
    return unpack(t, sshfs)


@case("sftp-mount-read", "s", per="1,000 files")
def sftp_mount_read(t):
    """diff -r of those files in a new sshfs mount with those that were unpacked; the median of three."""
    return read(t, sshfs)
