"""Checks of the modification times that cp, install, tar and rsync leave in an sshfs and a davfs2 mount."""

import os
import time
from pathlib import Path

from check_mounts import davfs, sshfs
from files import MIB, random_file, tree_sums
from session import OLD, Skip, check, need, same

# Each copies the files of the folder $1 into the folder $2, the second time over those of the first.
COPIES = {
    "cp -p": 'cp -pR "$1/." "$2"',
    "install -p": 'cd "$1"; find . -type f | while read -r f; do install -p -m 644 "$f" "$2/$f"; done',
    "tar x": 'tar -C "$1" -cf - . | tar --no-same-owner -xf - -C "$2"',
    "tar x --overwrite": 'tar -C "$1" -cf - . | tar --no-same-owner --overwrite -xf - -C "$2"',
    "rsync -a": 'rsync -a "$1/" "$2"',
    "rsync -a --inplace": 'rsync -a --inplace "$1/" "$2"',
}
SIZES = {"small": 1000, "large.bin": 3 * MIB + 7, "empty": 0, "emptied": 5, "filled": 0, "sub/ünï": 70_000, "sub/empty": 0}
CHANGED_SIZES = {**SIZES, "small": 10, "large.bin": 2 * MIB, "emptied": 0, "filled": 900, "sub/ünï": 80_000}
STEPS = ("new files", SIZES, OLD), ("existing files", CHANGED_SIZES, OLD - 10_000_000)


def write_tree(root, sizes, start):
    """Writes the files and gives each of them, and each folder, a time of its own; returns {relative path: time}."""
    for name, size in sizes.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        random_file(root / name, size)
    paths = [root / name for name in sizes] + [root / "sub", root]
    for number, path in enumerate(paths):
        os.utime(path, (start, start + 86400 * number))
    return {str(path.relative_to(root)): start + 86400 * number for number, path in enumerate(paths)}


def times(s, folder):
    """{relative path: time in whole seconds}, as find prints it."""
    lines = s.run("find", folder, "-name", "lost+found", "-prune", "-o", "-printf", r"%P\t%T@\n").stdout.splitlines()
    return {path or ".": int(float(stamp)) for path, stamp in (line.split("\t") for line in lines)}


def folder_on_disk(s, home):
    root = os.environ.get("GATEWAY_ROOT", "")
    if not root:
        raise Skip("a look at the served folder takes GATEWAY_ROOT")
    return Path(root) / home / s.remote


def stored(folder, source):
    """{relative path: sha256} of the folder on disk, once it holds the same as the source. For that it has five seconds:
    sshfs sends the last CLOSE after the program has gone on."""
    wanted, end = tree_sums(source), time.monotonic() + 5
    while (found := tree_sums(folder)) != wanted and time.monotonic() < end:
        time.sleep(0.02)
    return found


def differing(expected, found):
    return [f"{path} {found.get(path, 'missing')}" for path in expected if found.get(path) != expected[path]]


def sshfs_keeps_times(s, what, folders=True):
    """Copies into a new folder and, with other contents and times, over it; looks at the server's disk, at the mount and at
    another mount."""
    on_disk, source, problems = folder_on_disk(s, s.sftp.user) / "there", s.local / "source", []
    for step, sizes, start in STEPS:
        expected = write_tree(source, sizes, start)
        if not folders:
            del expected["."], expected["sub"]
        with sshfs(s, s.remote) as point:
            s.run("mkdir", "-p", point / "there" / "sub")
            s.run("bash", "-euc", "set -o pipefail; " + COPIES[what], "bash", source, point / "there")
            seen = {"in the mount": times(s, point / "there")}
        same(tree_sums(source), stored(on_disk, source), f"{what}, {step}: contents")
        seen["on the server"] = times(s, on_disk)
        with sshfs(s, s.remote) as point:
            seen["in another mount"] = times(s, point / "there")
            if what.startswith("rsync"):
                again = s.run("rsync", "-ain", f"{source}/", point / "there").stdout
                if again:
                    problems.append(f"{step}, rsync would send again: {' '.join(again.split())[:120]}")
        for where, found in seen.items():
            if wrong := differing(expected, found):
                problems.append(f"{step}, {len(wrong)} of {len(expected)} times lost {where}: {', '.join(wrong[:2])}")
    need(not problems, "; ".join(problems))
    return f"{len(expected)} times"


@check("sshfs")
def sftp_times_cp(s):
    """cp -p into an sshfs mount keeps the times of files and folders."""
    return sshfs_keeps_times(s, "cp -p")


@check("sshfs")
def sftp_times_install(s):
    """install -p into an sshfs mount keeps the times of files."""
    return sshfs_keeps_times(s, "install -p", folders=False)


@check("sshfs", "tar")
def sftp_times_tar(s):
    """tar x into an sshfs mount keeps the times of files and folders."""
    return sshfs_keeps_times(s, "tar x")


@check("sshfs", "tar")
def sftp_times_tar_overwrite(s):
    """tar x --overwrite, which writes into the files that exist, keeps the times of files and folders."""
    return sshfs_keeps_times(s, "tar x --overwrite")


@check("sshfs", "rsync")
def sftp_times_rsync(s):
    """rsync -a into an sshfs mount keeps the times of files and folders, and has nothing to send a second time."""
    return sshfs_keeps_times(s, "rsync -a")


@check("sshfs", "rsync")
def sftp_times_rsync_inplace(s):
    """rsync -a --inplace keeps the times of files and folders, and has nothing to send a second time."""
    return sshfs_keeps_times(s, "rsync -a --inplace")


def davfs_shows_times(s, what):
    """davfs2 keeps the times of a copy to itself and sends none of them: while mounted it shows those of the source, and
    mounted again those of the upload, which are the server's."""
    on_disk, source, problems = folder_on_disk(s, s.dav.path.removeprefix("/dav/")) / "there", s.local / "source", []
    for step, sizes, start in STEPS:
        expected = {path: stamp for path, stamp in write_tree(source, sizes, start).items() if path not in (".", "sub")}
        begin = int(time.time())
        with davfs(s, s.url()) as point:
            s.run("mkdir", "-p", point / "there" / "sub")
            s.run("bash", "-euc", "set -o pipefail; " + COPIES[what], "bash", source, point / "there")
            if wrong := differing(expected, times(s, point / "there")):
                problems.append(f"{step}, in the mount: {', '.join(wrong[:2])}")
        end = time.time()
        same(tree_sums(source), stored(on_disk, source), f"{what}, {step}: contents")
        uploaded = {path: stamp for path, stamp in times(s, on_disk).items() if path in expected}
        with davfs(s, s.url()) as point:
            if wrong := differing(uploaded, times(s, point / "there")):
                problems.append(f"{step}, not the server's time in another mount: {', '.join(wrong[:2])}")
        if wrong := [f"{path} {stamp}" for path, stamp in uploaded.items() if not begin <= stamp <= end]:
            problems.append(f"{step}, not the time of the upload on the server: {', '.join(wrong[:2])}")
    need(not problems, "; ".join(problems))
    return f"{len(expected)} times"


@check("mount.davfs")
def dav_times_cp(s):
    """cp -p into a davfs2 mount: the source's times while mounted, then the server's, which are those of the upload."""
    return davfs_shows_times(s, "cp -p")


@check("mount.davfs")
def dav_times_install(s):
    """install -p into a davfs2 mount, likewise."""
    return davfs_shows_times(s, "install -p")


@check("mount.davfs", "tar")
def dav_times_tar(s):
    """tar x into a davfs2 mount, likewise."""
    return davfs_shows_times(s, "tar x")


@check("mount.davfs", "rsync")
def dav_times_rsync(s):
    """rsync -a into a davfs2 mount, likewise."""
    return davfs_shows_times(s, "rsync -a")
