"""Checks of sync and backup programs over either protocol: rclone, restic, lftp."""

import json
import os
import shutil
import time
from email.utils import parsedate_to_datetime

from endpoint import quote, request
from files import MIB, change_tree, odd_tree, random_file, tree_sums
from session import OLD, check, need, same


def rclone_config(s):
    """Remotes dav, owncloud, nextcloud (the same WebDAV server under three vendor settings) and sftp."""
    def obscured(password):
        return s.run("rclone", "obscure", "-", text=password).stdout.strip()
    text = ""
    if s.dav:
        login = f"user = {s.dav.user}\npass = {obscured(s.dav.password)}"
        if not s.dav.password:
            login = f"bearer_token = {s.dav.bearer}"
        for name, vendor in (("dav", "other"), ("owncloud", "owncloud"), ("nextcloud", "nextcloud")):
            text += f"[{name}]\ntype = webdav\nurl = {s.dav.url}\nvendor = {vendor}\n{login}\n"
            if vendor == "nextcloud":
                text += "nextcloud_chunk_size = 0\n"
    if s.sftp:
        login = f"key_file = {s.sftp.identity}" if s.sftp.identity else f"pass = {obscured(s.sftp.password)}"
        text += (f"[sftp]\ntype = sftp\nhost = {s.sftp.host}\nport = {s.sftp.port}\nuser = {s.sftp.user}\n{login}\n"
                 "shell_type = none\n")
    (s.local / "rclone.conf").write_text(text)


def rclone_sync(s, remote):
    """Sync of an awkward tree there, check, back; change it, sync and check again."""
    rclone_config(s)
    there, back = f"{remote}:{s.remote}/tree", s.local / "back"
    sums = odd_tree(s.local / "tree")
    for step in ("first", "changed"):
        s.rclone("sync", "--create-empty-src-dirs", "tree", there)
        s.rclone("check", "--download", "tree", there)
        s.rclone("sync", "--create-empty-src-dirs", there, back)
        same(sums, tree_sums(back), f"{step} tree, read back")
        if step == "first":
            sums = change_tree(s.local / "tree")
    return f"{len(sums)} names"


@check("rclone")
def dav_rclone_sync(s):
    return rclone_sync(s, "dav")


@check("rclone")
def dav_rclone_bisync(s):
    """Changes on both sides meet on both sides. Needs modification times, so it goes by rclone's owncloud mode."""
    rclone_config(s)
    there, here, other = f"owncloud:{s.remote}/tree", s.local / "here", s.local / "other"
    odd_tree(here)
    (here / "empty folder").rmdir()
    s.rclone("mkdir", there)
    work = ["--workdir", s.local / "state", "-v"]
    s.rclone("bisync", here, there, "--resync", *work)
    s.rclone("copy", there, other)
    same(tree_sums(here), tree_sums(other), "after the first bisync")
    time.sleep(1.1)
    (here / "from here+.txt").write_text("from here\n")
    (here / "100%.txt").unlink()
    (s.local / "from there#.txt").write_text("from there\n")
    s.rclone("copyto", s.local / "from there#.txt", f"{there}/folder with space/from there#.txt")
    (s.local / "plain.txt").write_text("changed over there, and longer than it was before, by far\n")
    s.rclone("copyto", s.local / "plain.txt", f"{there}/plain.txt")
    s.rclone("deletefile", f"{there}/with space.txt")
    s.rclone("bisync", here, there, *work)
    shutil.rmtree(other)
    s.rclone("copy", there, other)
    sums = tree_sums(here)
    same(sums, tree_sums(other), "after the second bisync")
    need("from here+.txt" in sums and "folder with space/from there#.txt" in sums, "a new file did not get across")
    need("100%.txt" not in sums and "with space.txt" not in sums, "a removed file is still there")
    need((here / "plain.txt").read_text().startswith("changed over there"), "a change did not get across")


def rclone_mtime(s, vendor):
    rclone_config(s)
    (s.local / "tree").mkdir()
    for i, name in enumerate(("old.txt", "ünï + 100%.txt", "empty")):
        (s.local / "tree" / name).write_text(name * (name != "empty"))
        os.utime(s.local / "tree" / name, (OLD + i * 86400, OLD + i * 86400))
    there = f"{vendor}:{s.remote}/tree"
    s.rclone("copy", "tree", there)
    again = s.rclone("copy", "-v", "tree", there)
    need("Copied" not in again.stderr, "a second copy sent files again")
    return {e["Name"]: e["ModTime"] for e in json.loads(s.rclone("lsjson", there).stdout)}


def kept_mtime(s, vendor):
    times = rclone_mtime(s, vendor)
    shown = times.get("old.txt", "nothing")
    need(shown.startswith("2001-02-03T04:05:06"), f"old.txt of 2001-02-03T04:05:06 shows {shown}")
    _, head, _ = request(s.dav, "HEAD", quote(f"{s.remote}/tree/old.txt"))
    need(parsedate_to_datetime(head["Last-Modified"]).timestamp() == OLD, f"Last-Modified is {head['Last-Modified']}")
    s.rclone("copy", f"{vendor}:{s.remote}/tree", "back")
    for path in (s.local / "tree").iterdir():
        need((s.local / "back" / path.name).stat().st_mtime == path.stat().st_mtime, f"{path.name} came back with another time")


@check("rclone")
def dav_rclone_mtime_owncloud(s):
    """rclone's owncloud mode (X-OC-Mtime) keeps modification times."""
    kept_mtime(s, "owncloud")


@check("rclone")
def dav_rclone_mtime_nextcloud(s):
    """rclone's nextcloud mode (X-OC-Mtime) keeps modification times."""
    kept_mtime(s, "nextcloud")


@check("rclone")
def dav_rclone_mtime_other(s):
    """rclone's other mode cannot keep times: they must be those of the upload, and a second copy must send nothing."""
    times = rclone_mtime(s, "dav")
    stamp = time.strftime("%Y-%m-%d", time.gmtime())
    day_before = time.strftime("%Y-%m-%d", time.gmtime(time.time() - 3600))
    need(times.get("old.txt", "")[:10] in (stamp, day_before), f"old.txt shows {times.get('old.txt')}")
    return "times are those of the upload, as expected"


def restic(s, *options):
    """A repository on the server: init, two backups, check, restore, prune, check."""
    source, target = s.local / "source", s.local / "restored"
    odd_tree(source)
    command = ["restic", "--no-cache", *options]
    env = {"RESTIC_PASSWORD": "test-" + s.remote}
    s.run(*command, "init", env=env)
    s.run(*command, "backup", "source", env=env)
    sums = change_tree(source)
    random_file(source / "second.bin", 6 * MIB)
    sums = tree_sums(source)
    s.run(*command, "backup", "source", env=env)
    s.run(*command, "check", "--read-data", env=env)
    s.run(*command, "restore", "latest", "--target", target, env=env)
    restored = target / "source" if (target / "source").exists() else target / str(source).lstrip("/")
    same(sums, tree_sums(restored), "restored")
    s.run(*command, "forget", "--keep-last", "1", "--prune", env=env)
    s.run(*command, "check", env=env)
    need(len(json.loads(s.run(*command, "snapshots", "--json", env=env).stdout)) == 1, "not exactly one snapshot is left")
    return f"{len(sums)} names restored"


@check("restic", "rclone")
def dav_restic(s):
    rclone_config(s)
    return restic(s, "-r", f"rclone:dav:{s.remote}/repository")


@check("lftp")
def sftp_lftp(s):
    """lftp mirror there and back, with four transfers at a time, and again after changes."""
    sums = odd_tree(s.local / "tree")
    connect = " ".join(s.sftp.command("ssh", "-a", "-x"))
    head = (f'set sftp:connect-program "{connect}"; set net:max-retries 1; set net:timeout 20; set cmd:fail-exit true; '
            f'set sftp:auto-confirm true; open -u {s.sftp.user},{s.sftp.password or "none"} sftp://target; cd {s.remote}; ')
    for step in ("first", "changed"):
        s.run("lftp", "-c", head + "mirror -R --delete --parallel=4 tree there; mirror --delete --parallel=4 there back")
        same(sums, tree_sums(s.local / "back"), f"{step} tree, read back")
        if step == "first":
            sums = change_tree(s.local / "tree")
    return f"{len(sums)} names"


@check("rclone")
def sftp_rclone_sync(s):
    return rclone_sync(s, "sftp")


@check("rclone")
def sftp_rclone_mtime(s):
    """Modification times are kept to the second."""
    times = rclone_mtime(s, "sftp")
    shown = times.get("old.txt", "nothing")
    need(shown.startswith("2001-02-03T04:05:06"), f"old.txt of 2001-02-03T04:05:06 shows {shown}")


@check("restic", "ssh")
def sftp_restic(s):
    command = " ".join([*s.sftp.command("ssh"), "target", "-s", "sftp"])
    return restic(s, "-o", f"sftp.command={command}", "-r", f"sftp:target:{s.remote}/repository")
