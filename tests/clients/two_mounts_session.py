"""Edits one folder from two mounts of it, over two connections: python3 two_mounts_session.py CASE MOUNT OTHER_MOUNT.

What one mount has synced and closed, the other has to see, whole. A program's close() returns when its writes are
acknowledged; sshfs sends SFTP's CLOSE after that and passes its answer to nobody. OpenSSH has written in place by then.
The gateway stages a new or a truncated file until CLOSE and shows it a moment after close(), so the other mount waits for
it, up to VISIBLE_WITHIN_SECONDS."""

import contextlib
import os
import subprocess
import sys
import threading
import time

VISIBLE_WITHIN_SECONDS = 5
NEW = os.O_WRONLY | os.O_CREAT | os.O_TRUNC
BLOCK = 4096


class Lost(Exception):
    pass


def need(condition, reason):
    if not condition:
        raise Lost(reason)


def write(path, data, flags=NEW):
    """Writes, syncs and closes; all of them report what went wrong."""
    with os.fdopen(os.open(path, flags, 0o644), "wb", buffering=0) as f:
        write_to(f.fileno(), data)


def write_to(fd, data):
    while data:
        data = data[os.write(fd, data):]
    os.fsync(fd)


def read(path):
    """The content; None where there is no such file."""
    try:
        with open(path, "rb") as f:
            return f.read()
    except FileNotFoundError:
        return None


def shown(data):
    return "no file" if data is None else f"{len(data)} bytes {data[:12]!r}…{data[-12:]!r}" if len(data) > 40 else repr(data)


def sees(path, wanted, what):
    """Waits until the file has one of these contents, and returns which."""
    wanted, end = wanted if isinstance(wanted, list) else [wanted], time.monotonic() + VISIBLE_WITHIN_SECONDS
    while (found := read(path)) not in wanted and time.monotonic() < end:
        time.sleep(0.02)
    need(found in wanted, f"{what}: {shown(found)} in place of {' or '.join(map(shown, wanted))}")
    return found


def lists(mount, names):
    """Waits until the folder holds these names and no more. `.fuse_hidden` names don't count: under those libfuse keeps
    what is removed while it is open, and now and then it forgets one, over OpenSSH too."""
    def look():
        return sorted(name for name in os.listdir(mount) if not name.startswith(".fuse_hidden"))

    end = time.monotonic() + VISIBLE_WITHIN_SECONDS
    while (found := look()) != sorted(names) and time.monotonic() < end:
        time.sleep(0.02)
    need(found == sorted(names), f"listed at {mount.name}: {found} in place of {sorted(names)}")


def at_once(*functions):
    """Runs the functions in threads; the first failure of any fails the case."""
    failures = []

    def run(function):
        try:
            function()
        except Exception as error:
            failures.append(error)
    threads = [threading.Thread(target=run, args=(f,)) for f in functions]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]


def create(a, b):
    """New files, empty ones and folders; of two that create a file exclusively, one succeeds."""
    for size in (0, 5, 300_000):
        for one, other in ((a, b), (b, a)):
            name, data = f"new-{size}-{one.name}", bytes([65 + size % 26]) * size
            write(one / name, data)
            sees(other / name, data, f"{name} at the other mount")
    (a / "folder").mkdir()
    write(b / "folder" / "in it", b"in it")
    sees(a / "folder" / "in it", b"in it", "a file in a new folder of the other mount")
    lists(b, os.listdir(a))
    winners = []
    for number in range(40):
        def lock(mount):
            with contextlib.suppress(OSError):      # sshfs reports a lost race as EEXIST or as EPERM
                write(mount / f"lock-{number}", mount.name.encode(), os.O_WRONLY | os.O_CREAT | os.O_EXCL)
                winners.append((number, mount.name))
        at_once(lambda: lock(a), lambda: lock(b))
        need([n for n, _ in winners].count(number) == 1, f"lock-{number} was created by {winners[number:]}")
        sees(a / f"lock-{number}", winners[-1][1].encode(), f"lock-{number}")


def append(a, b):
    """Appends in turns, and at the same time: every line is there once and whole."""
    lines = b""
    for number in range(12):
        one, other = (a, b) if number % 2 else (b, a)
        line = f"line {number} of {one.name}\n".encode()
        write(one / "turns", line, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        lines += line
        sees(other / "turns", lines, f"after append {number}")
    write(a / "both", b"")
    sees(b / "both", b"", "the empty file")

    def many(mount):
        with open(mount / "both", "ab", buffering=0) as f:
            for number in range(300):
                f.write(f"{mount.name} {number:04} {'x' * (number % 90)}\n".encode())
            os.fsync(f.fileno())
    at_once(lambda: many(a), lambda: many(b))
    expected = sorted(f"{m.name} {n:04} {'x' * (n % 90)}" for m in (a, b) for n in range(300))
    found = (read(a / "both") or b"").decode().splitlines()
    need(sorted(found) == expected, f"{len(found)} lines in place of 600, {len(set(expected) - set(found))} of them lost")
    for mount in (a, b):
        mine = [line for line in found if line.startswith(mount.name)]
        need(mine == sorted(mine), f"the lines of {mount.name} are out of order")
    sees(b / "both", read(a / "both"), "the other mount")


def overwrite(a, b):
    """Whole files written over in turns, longer, shorter and empty; then at the same time: the end is one that was
    reported as written."""
    for number, size in enumerate((10, 200_000, 30, 0, 500_000, 1)):
        one, other = (a, b) if number % 2 else (b, a)
        data = (f"{number} ".encode() * size)[:size]
        write(one / "turns", data)
        sees(other / "turns", data, f"version {number} at the other mount")
        sees(one / "turns", data, f"version {number} at the mount that wrote it")
    for number in range(40):
        # As long as one write and no longer: OpenSSH, which writes in place, may mix two longer ones. There both writes
        # succeed; the gateway may refuse the one that was opened before the other was in place.
        accepted = []

        def replace(mount):
            data = f"{mount.name} {number:04} ".encode() * 300
            with contextlib.suppress(PermissionError):      # what sshfs makes of SSH_FX_FAILURE
                write(mount / "both", data)
                accepted.append(data)
        at_once(lambda: replace(a), lambda: replace(b))
        need(accepted, f"round {number}: both were refused")
        end = sees(a / "both", accepted, f"round {number}")
        if sees(b / "both", accepted, f"round {number}") != end:        # the second CLOSE was still under way
            sees(a / "both", read(b / "both"), f"round {number}, the other mount")


def save(mount, name, data):
    """Saves as many editors do: another file, synced, renamed over the first."""
    write(mount / f".{name}.{mount.name}.tmp", data)
    os.rename(mount / f".{name}.{mount.name}.tmp", mount / name)


def rename_over(a, b):
    """Files renamed over one that is open at the other mount, and over one another at the same time: a reader gets one of
    them, whole."""
    old = b"old " * 50_000
    write(a / "file", old)
    sees(b / "file", old, "before")
    with open(b / "file", "rb", buffering=0) as reader:
        need(reader.read(40_000) == old[:40_000], "the first part differs")
        save(a, "file", b"new " * 60_000)
        sees(b / "file", b"new " * 60_000, "opened anew")
        rest = b"".join(iter(lambda: reader.read(65536), b""))
        need(old[:40_000] + rest == old, f"who had it open read on {shown(rest)}")
    versions = {m.name: [f"{m.name} {n:03} ".encode() * 15_000 for n in range(40)] for m in (a, b)}

    def saves(mount):
        for data in versions[mount.name]:
            save(mount, "file", data)

    # The reader looks from the other mount: libfuse reports ENOENT for a file that is renamed over in the same mount.
    for one, other in ((a, b), (b, a)):
        known, done = {read(other / "file"), *versions[one.name]}, threading.Event()

        def look():
            while not done.is_set():
                found = read(other / "file")
                need(found in known, f"read at {other.name} during renames at {one.name}: {shown(found)}")

        def renames():
            try:
                saves(one)
            finally:
                done.set()
        at_once(renames, look)
        sees(other / "file", versions[one.name][-1], f"after the renames at {one.name}")
    at_once(lambda: saves(a), lambda: saves(b))
    last = sees(a / "file", [vs[-1] for vs in versions.values()], "after renames at both")
    sees(b / "file", last, "after renames at both, at the other mount")
    lists(a, ["file"])


def in_place(a, b):
    """One file open at both, each writing every second block and growing it: all blocks are there."""
    blocks = 64
    write(a / "file", bytes(BLOCK * blocks))
    sees(b / "file", bytes(BLOCK * blocks), "before")
    block = {number: f"{number:07} ".encode() * (BLOCK // 8) for number in range(2 * blocks)}

    def edit(fd, parity):
        for number in range(parity, 2 * blocks, 2):
            need(os.pwrite(fd, block[number], number * BLOCK) == BLOCK, "a short write")
        os.fsync(fd)
    one, other = os.open(a / "file", os.O_RDWR), os.open(b / "file", os.O_RDWR)
    at_once(lambda: edit(one, 0), lambda: edit(other, 1))
    whole = b"".join(block.values())
    for mount in (a, b):        # before anyone closes: an edit of what exists is seen at once
        sees(mount / "file", whole, f"synced and still open, at {mount.name}")
    os.pwrite(one, b"last of one", 5)
    os.close(one)
    os.pwrite(other, b"last of other", BLOCK + 5)
    os.close(other)
    whole = whole[:5] + b"last of one" + whole[16:BLOCK + 5] + b"last of other" + whole[BLOCK + 18:]
    for mount in (a, b):
        sees(mount / "file", whole, f"closed, at {mount.name}")
    os.truncate(b / "file", 10_000)
    sees(a / "file", whole[:10_000], "cut at the other mount")


def delete(a, b):
    """Files deleted at one mount while they are open at the other."""
    write(a / "edited", b"before" * 1000)
    sees(b / "edited", b"before" * 1000, "before")
    with open(a / "edited", "r+b", buffering=0) as f:
        f.write(b"during")
        os.remove(b / "edited")
        with contextlib.suppress(OSError):      # refused or not, this goes with the file
            write_to(f.fileno(), b"after")
    sees(a / "edited", None, "a file edited in place and deleted")
    write(a / "read", b"content" * 30_000)
    sees(b / "read", b"content" * 30_000, "before")
    with open(b / "read", "rb", buffering=0) as f:
        first = f.read(1000)
        os.remove(a / "read")
        rest = b"".join(iter(lambda: f.read(65536), b""))
        need(first + rest == b"content" * 30_000, "who had the deleted file open did not get the rest of it")
    for name, before in (("new", None), ("replaced", b"before" * 1000)):
        if before:
            write(a / name, before)
            sees(b / name, before, "before")
        with open(a / name, "wb", buffering=0) as f:
            write_to(f.fileno(), b"first ")
            try:
                os.remove(b / name)
                removed = True
            except FileNotFoundError:
                removed = False
            write_to(f.fileno(), b"second")
        # OpenSSH writes in place: the upload is deleted with the file. The gateway stages it: the other mount deletes at
        # most the file that is to be replaced, and CLOSE puts the upload in its place.
        wanted = [b"first second", None] if removed else b"first second"
        found = sees(a / name, wanted, f"{name}, deleted during the upload")
        sees(b / name, found, f"{name}, at the other mount")


def rename_open(a, b):
    """Files renamed at one mount, or in a folder renamed there, while the other writes them: what was synced is found."""
    write(a / "edited", b"before" * 1000)
    sees(b / "edited", b"before" * 1000, "before")
    with open(a / "edited", "r+b", buffering=0) as f:
        write_to(f.fileno(), b"during")
        os.rename(b / "edited", b / "renamed")
        write_to(f.fileno(), b"after!")
    sees(b / "renamed", b"duringafter!" + b"before" * 998, "a file edited in place and renamed")
    (a / "folder").mkdir()
    with open(a / "folder" / "upload", "wb", buffering=0) as f:
        write_to(f.fileno(), b"first ")
        os.rename(b / "folder", b / "moved")
        write_to(f.fileno(), b"second")
    sees(b / "moved" / "upload", b"first second", "an upload into a folder that was renamed")


def vim(mount, name, way, text):
    done = subprocess.run(["vim.tiny", "-u", "NONE", "-N", "-es", "-c", f"set fsync backupskip= backupcopy={way}",
                           "-c", f"normal Go{text}", "-c", "wq", str(mount / name)], capture_output=True, timeout=30)
    need(done.returncode == 0, f"vim ended with {done.returncode} {(done.stdout + done.stderr)[-100:]!r}")


def editors(a, b):
    """vim and a save by another file, at both mounts in turns on one file and at the same time on two."""
    lines = ["one"]
    write(a / "note", b"one\n")
    sees(b / "note", b"one\n", "before")
    for number in range(12):
        mount, other = (a, b) if number % 2 else (b, a)
        lines.append(f"{number} of {mount.name}")
        whole = "\n".join([*lines, ""]).encode()
        if number % 3 == 2:
            save(mount, "note", whole)
        else:
            vim(mount, "note", ("yes", "no")[number % 3], lines[-1])
        sees(other / "note", whole, f"after save {number}")

    def edits(mount):
        write(mount / f"of {mount.name}", b"one\n")
        for number in range(4):
            vim(mount, f"of {mount.name}", ("yes", "no")[number % 2], str(number))
    at_once(lambda: edits(a), lambda: edits(b))
    for mount, other in ((a, b), (b, a)):
        sees(other / f"of {mount.name}", b"one\n0\n1\n2\n3\n", "edited at the same time")
    lists(a, ["note", f"of {a.name}", f"of {b.name}"])


if __name__ == "__main__":
    from pathlib import Path
    case, *mounts = sys.argv[1:]
    try:
        globals()[case](*map(Path, mounts))
    except (Lost, OSError) as problem:
        sys.exit(f"{case}: {problem if isinstance(problem, Lost) else type(problem).__name__ + ' ' + str(problem)}")
