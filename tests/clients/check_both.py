"""Checks that use one tree over both protocols: what is written over one is read over the other, also on a second file
system mounted in it."""

import os
import re
from pathlib import Path

from files import MIB, odd_tree, random_file, sha256, tree_sums
from session import Skip, check, need, same


@check("curl", "sftp")
def both_same_tree(s):
    """What is written over one protocol is there over the other, removed means removed on both."""
    random_file(s.local / "file", 3 * MIB + 9)
    name = "ünï + 100% #.bin"
    s.curl("-f", "-T", "file", s.url(name))
    s.batch(f'get "{name}" back', f'put file "from {name}"')
    need(sha256(s.local / "back") == sha256(s.local / "file"), "written over WebDAV, read differently over SFTP")
    s.curl("-f", "-o", "back2", s.url(f"from {name}"))
    need(sha256(s.local / "back2") == sha256(s.local / "file"), "written over SFTP, read differently over WebDAV")
    tag = re.search(r"^etag:\s*(\S+)", s.curl("-I", s.url(name)).stdout, re.I | re.M)
    (s.local / "file").write_text("other")
    s.batch(f'put file "{name}"', f'rm "from {name}"')
    need(s.curl("-f", s.url(name)).stdout == "other", "a change over SFTP is not seen over WebDAV")
    after = re.search(r"^etag:\s*(\S+)", s.curl("-I", s.url(name)).stdout, re.I | re.M)
    need(tag and after and tag[1] != after[1], "the ETag stayed the same over a change by SFTP")
    need(s.status(s.url(f"from {name}")) == 404, "a file removed over SFTP is still there over WebDAV")


@check("curl", "sftp", "mount")
def both_file_systems(s):
    """Another file system mounted within the served folder: uploads into it, moves and copies across it, both ways."""
    root = os.environ.get("GATEWAY_ROOT", "")
    if not root or os.geteuid():
        raise Skip("mounting within the served folder takes root, and GATEWAY_ROOT")
    point = Path(root) / s.dav.path.removeprefix("/dav/") / s.remote / "mounted"
    s.curl("-f", "-X", "MKCOL", s.url("mounted/"))
    s.run("mount", "-t", "tmpfs", "-o", "size=64m", "patgate-check", point)
    try:
        across(s, point)
    finally:
        s.run("umount", "-l", point, expect=None)


def across(s, point):
    sums = odd_tree(s.local / "tree", ["plain.txt", "ünï + 100% #.txt"])
    large = s.local / "tree" / "large.bin"

    def move(method, source, target, wanted=201):
        status = s.status("-X", method, "-H", f"Destination: {s.url(target)}", s.url(source))
        need(status == wanted, f"{method} of {source} to {target} gave {status} in place of {wanted}")

    s.curl("-f", "-T", large, s.url("mounted/up.bin"))
    need(sha256(point / "up.bin") == sha256(large), "an upload into the other file system came different")
    move("MOVE", "mounted/up.bin", "down.bin")
    need(not (point / "up.bin").exists(), "what was moved away is still there")
    move("MOVE", "down.bin", "mounted/up.bin")
    move("COPY", "mounted/up.bin", "copy.bin")
    move("MOVE", "copy.bin", "mounted/up.bin", wanted=204)
    s.batch("lcd tree", "put -R ../tree there", "rename mounted/up.bin renamed.bin", "rename renamed.bin mounted/back.bin",
            "get mounted/back.bin ../back")
    need(sha256(s.local / "back") == sha256(large), "moved there and back by SFTP, the file differs")
    move("MOVE", "there", "mounted/there")
    need(s.status(s.url("there/"), "-X", "PROPFIND", "-H", "Depth: 0") == 404, "the folder is still where it was")
    same(sums, tree_sums(point / "there"), "a folder moved across by WebDAV")
    s.batch("rename mounted/there again")
    move("COPY", "again", "mounted/copied")
    same(sums, tree_sums(point / "copied"), "a folder moved by SFTP and copied by WebDAV")
    status = s.status("-X", "DELETE", s.url("mounted/"))
    need(status >= 400, f"DELETE of a folder that is a file system gave {status}")
    same(sums, tree_sums(point / "copied"), "after a refused DELETE of the folder above")
