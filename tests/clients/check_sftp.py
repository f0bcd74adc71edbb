"""Checks of SFTP with OpenSSH's clients and paramiko: login, escape attempts, transfers, and a comparison of OpenSSH's own
server with the model of tests/handles. Other libraries are in check_logins.py."""

import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

from files import MIB, NAMES, odd_tree, random_file, sha256, tree_sums
from session import OLD, Skip, check, need, same

LINKS = ("link1", "link2", "link3", "soft", "l")        # the symbolic links these checks make
HERE = Path(__file__).resolve().parent


@check("ssh", "sftp")
def sftp_auth(s):
    """A wrong password is refused, the right credentials are let in."""
    s.batch("pwd")
    if s.sftp.identity:
        return "key login; no password to get wrong"
    done = s.run(*s.sftp.command("sftp", "-oBatchMode=no", "-b", "/dev/null"), "target", env={"SSHPASS": "wrong"}, expect=None)
    need(done.returncode != 0, "a wrong password was let in")


@check("ssh")
def sftp_no_shell(s):
    """The login gives no command line."""
    for options in ((), ("-tt",)):
        done = s.run(*s.sftp.command("ssh", *options), "target", "id; echo shell", expect=None, limit=20)
        need("uid=" not in done.stdout and "shell" not in done.stdout, "a command was carried out")


@check("ssh")
def sftp_exit_status(s):
    """The session ends with exit status 0 once the client is done: scp and restic take anything else as a failure."""
    done = s.run(*s.sftp.command("ssh"), "target", "-s", "sftp", expect=None, limit=20)
    need(done.returncode == 0, f"ssh ended with {done.returncode} {done.stderr.strip()[:200]}")


@check("cargo")
def sftp_handle_model(s):
    """OpenSSH's own sftp-server is what the model of open files says without patgate's rules (tests/handles)."""
    home = {"HOME": os.environ.get("HOME", "/root")}
    test = ["cargo", "test", "--locked", "--test", "handles"]
    built = subprocess.run([*test, "--no-run"], cwd=HERE, capture_output=True, text=True, timeout=1800)
    need(built.returncode == 0, f"the test can't be built: {built.stderr.strip()[-300:]}")
    s.deadline = time.monotonic() + s.options.timeout
    done = s.run(*test, "--", "--ignored", "openssh", env=home, cwd=HERE)
    passed = re.search(r"(\d+) passed", done.stdout)
    need(passed and int(passed[1]) > 0, f"no test ran: {done.stdout.strip()[-300:]}")


@check("sftp")
def sftp_batch_transfer(s):
    """put and get of a large, an empty and awkwardly named files."""
    random_file(s.local / "large", 20 * MIB + 3)
    (s.local / "empty").touch()
    names = ["with space.txt", "ünïcödé-漢字-🙂.txt", "percent%20 100%.txt", "plus+hash#.txt", "n" * 200]
    for name in names:
        (s.local / name).write_text(name)
    s.batch("put large", "put empty", *[f'put "{n}"' for n in names], "lmkdir back", "lcd back", "get large", "get empty",
            *[f'get "{n}"' for n in names])
    for name in ("large", "empty", *names):
        need(sha256(s.local / "back" / name) == sha256(s.local / name), f"{name} came back different")
    listed = s.batch("ls -1").stdout.splitlines()
    need(set(names) <= {line.rstrip() for line in listed}, f"listed as {listed}")


@check("sftp")
def sftp_batch_resume(s):
    """reput and reget go on where a transfer stopped."""
    random_file(s.local / "whole", 6 * MIB + 1)
    data = (s.local / "whole").read_bytes()
    (s.local / "part").write_bytes(data[:2 * MIB + 77])
    s.batch("put part whole", "reput whole", "get whole back")
    need((s.local / "back").read_bytes() == data, "after reput the file differs")
    (s.local / "back").write_bytes(data[:3 * MIB + 5])
    s.batch("reget whole back")
    need((s.local / "back").read_bytes() == data, "after reget the file differs")
    (s.local / "tail").write_bytes(b"short")
    s.batch("put tail whole", "get whole back")
    need((s.local / "back").read_bytes() == b"short", "a shorter file put over a longer one is not cut")


@check("sftp")
def sftp_batch_rename(s):
    """rename of files and folders, also onto a file that exists."""
    for name in "abc":
        (s.local / name).write_text(name)
    s.batch("put a", "put b", "rename a c", "get c got", "mkdir d", "put b d/b", "rename d e", "get e/b got2")
    need((s.local / "got").read_text() == "a" and (s.local / "got2").read_text() == "b", "content changed")
    need(s.batch("get a gone", expect=None).returncode != 0, "the old name is still there")
    s.batch("rename c b", "get b got3")
    need((s.local / "got3").read_text() == "a", "rename onto a file that exists did not replace it")


@check("sftp")
def sftp_batch_link(s):
    """ln and ln -s."""
    (s.local / "a").write_text("content")
    s.batch("put a")
    problems = []
    for what, lines in (("hard link", ("ln a hard", "get hard got1")), ("symbolic link", ("ln -s a soft", "get soft got2"))):
        done = s.batch(*lines, expect=None)
        if done.returncode:
            problems.append(f"{what}: {done.stderr.strip().splitlines()[-1]}")
    need(not problems, "; ".join(problems))
    need((s.local / "got1").read_text() == (s.local / "got2").read_text() == "content", "content differs")
    need(re.search(r"^l\S+ .* soft", s.batch("ls -l").stdout, re.M), "the link is not listed as a link")


@check("sftp")
def sftp_batch_chmod(s):
    """chmod shows in the listing; put -p and get -p keep mode and time."""
    (s.local / "a").write_text("content")
    (s.local / "a").chmod(0o754)
    os.utime(s.local / "a", (OLD, OLD))
    s.batch("put -p a", "get -p a got")
    got = (s.local / "got").stat()
    need(got.st_mtime == OLD, f"the time came back as {got.st_mtime:.0f} in place of {OLD}")
    need(got.st_mode & 0o777 == 0o754, f"the mode came back as {got.st_mode & 0o777:o} in place of 754")
    listing = s.batch("chmod 640 a", "ls -l a").stdout
    need("-rw-r-----" in listing, f"after chmod 640: {listing.splitlines()[-1]}")


@check("sftp")
def sftp_batch_df(s):
    """df tells the room on the server."""
    out = s.batch("df", "df -h").stdout
    numbers = re.search(r"^\s*(\d+)\s+(\d+)\s+(\d+)\s+(\d+)\s+\d+%", out, re.M)
    need(numbers and int(numbers[1]) > 0, "no figures: " + " ".join(out.split()[-8:]))
    return f"size {int(numbers[1]) // 1024} MiB"


@check("sftp")
def sftp_batch_folders(s):
    """mkdir, nested folders, rm and rmdir; what must fail fails."""
    (s.local / "a").write_text("content")
    s.batch("mkdir one", "mkdir one/two", "put a one/two/a", "ls -l one/two")
    for lines, why in ((["rmdir one"], "rmdir of a folder that is not empty"), (["rm nothing"], "rm of nothing"),
                       (["mkdir one"], "mkdir of a folder that exists"), (["get nothing x"], "get of nothing"),
                       (["rmdir one/two/a"], "rmdir of a file"), (["rm one"], "rm of a folder"),
                       (["put a none/a"], "put into no folder")):
        need(s.batch(*lines, expect=None).returncode != 0, f"{why} did not fail")
    s.batch("rm one/two/a", "rmdir one/two", "rmdir one")
    need("one" not in s.batch("ls -1").stdout.splitlines(), "the removed folder is still listed")


@check("sftp")
def sftp_batch_rekey(s):
    """A transfer during which the keys are exchanged anew, many times."""
    random_file(s.local / "file", 48 * MIB)
    s.batch("put file", "get file back", options=("-oRekeyLimit=4M",))
    need(sha256(s.local / "back") == sha256(s.local / "file"), "the file came back different")


@check("sftp")
def sftp_escape(s):
    """Neither .. nor an absolute path nor a symbolic link leads out of the served folder."""
    secret, up = "outside-" + os.urandom(8).hex(), "/".join([".."] * 12)
    outside = s.local / "outside"
    outside.mkdir()
    (outside / "marker").write_text(secret)
    got, problems = s.local / "got", []
    for what, lines in (("..", [f"get {up}{outside}/marker got"]),
                        ("an absolute path", [f"get {outside}/marker got"]),
                        ("a link to a file", [f"ln -s {outside}/marker link1", "get link1 got"]),
                        ("a link with ..", [f"ln -s {up}{outside}/marker link2", "get link2 got"]),
                        ("a link to a folder", [f"ln -s {outside} link3", "get link3/marker got"])):
        s.batch(*lines, expect=None)
        if got.exists() and secret in got.read_text():
            problems.append(what)
        got.unlink(missing_ok=True)
    need(not problems, f"a file outside could be read by {', '.join(problems)}")


@check("scp")
def sftp_scp(s):
    """scp, over the SFTP protocol, both ways, with folders and times."""
    sums = odd_tree(s.local / "tree", [n for n in NAMES if not re.search(r"[*?\[\]\\]", n)])
    os.utime(s.local / "tree" / "plain.txt", (OLD, OLD))
    s.run(*s.sftp.command("scp", "-s", "-r", "-p"), "tree", f"target:{s.remote}/")
    s.run(*s.sftp.command("scp", "-s", "-r", "-p"), f"target:{s.remote}/tree", "back")
    same(sums, tree_sums(s.local / "back"), "read back")
    need((s.local / "back" / "plain.txt").stat().st_mtime == OLD, "the time was not kept")


@check()
def sftp_paramiko(s):
    """A python session: attributes, seeks, parallel reads, renames, links, times."""
    for python in (sys.executable, "/usr/bin/python3"):
        if not subprocess.run([python, "-c", "import paramiko"], capture_output=True).returncode:
            break
    else:
        raise Skip("paramiko is not installed")
    end = {k: getattr(s.sftp, k) for k in ("host", "port", "user", "password", "identity")}
    out = s.run(python, "-W", "ignore", HERE / "paramiko_session.py", s.remote, text=json.dumps(end)).stdout
    return out.strip()
