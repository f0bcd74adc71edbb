"""Checks of directories mounted with davfs2 and sshfs. Modification times in mounts are in check_times.py, two mounts of one
directory in check_two_mounts.py."""

import os
import shutil
import subprocess
import tempfile
from contextlib import contextmanager
from pathlib import Path

from files import MIB, odd_tree, random_file, sha256
from session import OLD, Skip, check, need


@contextmanager
def mounted(s, command, unmount, name="mnt"):
    """A mount for the length of a block; everything that touches it is a child process, so a stuck mount cannot stop us."""
    if not os.access("/dev/fuse", os.R_OK | os.W_OK):
        raise Skip("/dev/fuse cannot be used here")
    point = s.local / name
    point.mkdir(exist_ok=True)
    s.run(*command, point, limit=30)
    try:
        yield point
        s.run(*unmount, point, limit=60)
    finally:
        if str(point) in Path("/proc/mounts").read_text():
            subprocess.run(["umount", "-l", point], capture_output=True, timeout=20)


@contextmanager
def davfs(s, url, *settings):
    """The WebDAV collection mounted with davfs2, with its settings beside those that tests need."""
    s.basic()
    if os.geteuid():
        raise Skip("mounting davfs2 here takes root")
    cache = s.local / "davcache"
    cache.mkdir(exist_ok=True)
    cache.chmod(0o775)
    shutil.chown(cache, group="davfs2")
    for folder in (s.local, *s.local.parents):          # davfs2 leaves root behind and must still reach its cache
        if folder.stat().st_uid == os.geteuid() and str(folder).startswith(tempfile.gettempdir() + "/"):
            folder.chmod(0o711)
    secrets, config = s.local / "secrets", s.local / "davfs.conf"
    secrets.touch(0o600)
    secrets.write_text(f'{url} "{s.dav.user}" "{s.dav.password}"\n')
    lines = [f"secrets {secrets}", f"cache_dir {cache}", "ask_auth 0", "delay_upload 0",
             "buf_size 256",        # newer kernels read folders in larger pieces than its default
             *settings]
    config.write_text("\n".join(lines) + "\n")
    with mounted(s, ["mount", "-t", "davfs", "-o", f"conf={config}", url], ["umount"]) as point:
        yield point


@contextmanager
def sshfs(s, folder, *options, name="mnt"):
    """The SFTP server's folder mounted with sshfs."""
    ssh = " ".join(s.sftp.command("ssh"))
    command = ["sshfs", "-o", f"ssh_command={ssh}", "-o", "idmap=user", *options, f"target:{folder}"]
    with mounted(s, command, ["fusermount3", "-u"], name) as point:
        yield point


@check("mount.davfs")
def dav_davfs2(s):
    """A davfs2 mount: copy, read, write over, move, remove, fsync, folders; the result looked at over HTTP."""
    random_file(s.local / "one.bin", 4 * MIB + 11)
    script = """
        cd "$1"
        cp "$2/one.bin" one.bin;  cmp "$2/one.bin" one.bin
        mkdir sub 'sub/with space';  cp one.bin 'sub/with space/two.bin'
        mv 'sub/with space/two.bin' sub/three.bin;  test ! -e 'sub/with space/two.bin'
        printf 'first\\n' > note.txt;  printf 'second\\n' >> note.txt
        dd if=/dev/zero of=synced.bin bs=64k count=8 conv=fsync status=none
        cp one.bin gone.bin;  rm gone.bin;  rmdir 'sub/with space'
        mv sub moved;  test "$(ls | tr '\\n' ' ')" = 'moved note.txt one.bin synced.bin ' || { ls; test -d lost+found; }
    """
    with davfs(s, s.url()) as point:
        s.run("sh", "-euc", script, "sh", point, s.local)
    for name, digest in (("one.bin", sha256(s.local / "one.bin")), ("moved/three.bin", sha256(s.local / "one.bin"))):
        s.curl("-f", "-o", "back", s.url(name))
        need(sha256(s.local / "back") == digest, f"{name} came to the server different")
    note = s.curl("-f", s.url("note.txt")).stdout
    need(note == "first\nsecond\n", f"note.txt came to the server as {note!r}")
    need(s.curl("-f", s.url("synced.bin")).raw == bytes(8 * 65536), "synced.bin came to the server different")
    for name in ("gone.bin", "sub/"):
        need(s.status(s.url(name)) == 404, f"{name} is still on the server")


@check("sshfs", "git", "tar")
def sftp_sshfs(s):
    """An sshfs mount: git init, commit and clone, tar, writes in the middle, appends, cuts, moves, removals."""
    source = s.local / "source"
    odd_tree(source)
    os.utime(source / "plain.txt", (OLD, OLD))
    script = """
        cd "$1"
        git init -q repo;  cd repo;  git config user.name t;  git config user.email t@localhost
        cp -r "$2/." .;  git add -A;  git commit -qm one
        cd ..;  git clone -q --no-hardlinks repo clone;  cd clone;  git config user.name t;  git config user.email t@localhost
        echo more >> plain.txt;  git commit -qam two;  git fsck --strict;  test "$(git log --oneline | wc -l)" = 2
        git gc -q;  git status --porcelain | wc -l | grep -qx 0
        cd ..;  mkdir untar;  tar -C "$2" -cf - . | tar --no-same-owner -xf - -C untar;  diff -r "$2" untar
        test "$(stat -c %Y untar/plain.txt)" = "$3"
        mv untar/plain.txt untar/moved.txt;  cmp "$2/plain.txt" untar/moved.txt
        cp "$2/large.bin" r;  cp "$2/large.bin" "$4";  for f in r "$4"; do
            printf abcdef | dd of="$f" bs=1 seek=70001 conv=notrunc status=none
            truncate -s 4000003 "$f";  printf tail >> "$f";  truncate -s 5000001 "$f"; done
        sync r;  cmp r "$4"
        rm -r untar clone;  test ! -e untar;  df . > /dev/null;  chmod 600 r;  test "$(stat -c %a r)" = 600
    """
    with sshfs(s, s.remote) as point:
        s.run("sh", "-euc", script, "sh", point, source, OLD, s.local / "model")
    need("plain.txt" in s.batch("ls -1 repo").stdout, "what was written in the mount is not on the server")


# Twice an editor saves, with and without a backup beside the file: one replaces the file, the other writes it over.
EDITS = """
    printf 'one\\n' > "$1/note.txt"
    for way in yes no; do
        vim.tiny -u NONE -N -es -c "set backupskip= backupcopy=$way backup" -c 'normal Gotwo' -c wq "$1/note.txt";  sleep "$2"
    done
    test "$(tr '\\n' ' ' < "$1/note.txt")" = 'one two two '
    sed -i 's/one/ONE/' "$1/note.txt"
    test "$(head -1 "$1/note.txt")" = ONE;  test "$(ls "$1")" = "$(printf 'note.txt\\nnote.txt~')"
"""


@check("mount.davfs", "vim.tiny")
def dav_editors(s):
    """vim and sed save a file on a davfs2 mount, in place and by another in its place."""
    with davfs(s, s.url()) as point:
        # For a second, the kernel takes a file for empty that was cut before it was written over: davfs2 told it so.
        s.run("sh", "-euc", EDITS.replace('$(ls "$1")', '$(ls -I lost+found "$1")'), "sh", point, "1.5")
    note = s.curl("-f", s.url("note.txt")).stdout
    need(note == "ONE\ntwo\ntwo\n", f"note.txt came to the server as {note!r}")


@check("sshfs", "vim.tiny")
def sftp_editors(s):
    """vim and sed save a file on an sshfs mount, in place and by another in its place."""
    with sshfs(s, s.remote) as point:
        s.run("sh", "-euc", EDITS, "sh", point, "0")
    s.batch("get note.txt")
    note = (s.local / "note.txt").read_text()
    need(note == "ONE\ntwo\ntwo\n", f"note.txt came to the server as {note!r}")


@check("sshfs", "borg")
def sftp_borg(s):
    """borg in an sshfs mount: two archives, a check of all data, a prune that compacts, and what is restored."""
    env = {"BORG_UNKNOWN_UNENCRYPTED_REPO_ACCESS_IS_OK": "yes", "BORG_RELOCATED_REPO_ACCESS_IS_OK": "yes",
           "BORG_BASE_DIR": str(s.local / "borg")}
    odd_tree(s.local / "source")
    script = """
        borg init -e none "$1/backup";  borg create "$1/backup::first" source
        cp source/large.bin source/more.bin;  printf tail >> source/more.bin
        borg create "$1/backup::second" source;  borg check --verify-data "$1/backup"
        borg delete "$1/backup::first";  borg compact "$1/backup"
        mkdir restored;  cd restored;  borg extract "$1/backup::second";  diff -r source ../source
    """
    with sshfs(s, s.remote) as point:
        s.run("sh", "-euc", script, "sh", point, env=env)


@check("sshfs", "unison")
def sftp_unison(s):
    """unison between a folder and an sshfs mount: changes of both sides reach the other, and then there are none."""
    for name in "abc":
        (s.local / "here" / name).parent.mkdir(exist_ok=True)
        (s.local / "here" / name).write_text(name)
        os.utime(s.local / "here" / name, (OLD, OLD))
    script = """
        run() { unison -batch -auto -times -ui text here "$1"; }
        run "$1";  diff -r here "$1";  test "$(stat -c %Y "$1/a")" = "$2"
        echo changed > here/a;  rm here/b;  mkdir "$1/folder";  echo new > "$1/folder/new";  echo other > "$1/c"
        run "$1";  diff -r here "$1";  test "$(cat "$1/a" here/c here/folder/new | tr '\\n' ' ')" = 'changed other new '
        test ! -e "$1/b";  run "$1" 2>&1 | grep -q 'Nothing to do'
    """
    with sshfs(s, s.remote) as point:
        s.run("bash", "-euc", script, "sh", point, OLD)
