"""Checks of SFTP libraries and SSH clients other than OpenSSH's and paramiko: asyncssh, PuTTY, FileZilla, phpseclib and
curl, with keyboard-interactive logins as desktop programs do them."""

import json
import re
import subprocess
import sys
import time
from pathlib import Path

from check_rest import environment
from files import random_file, sha256
from session import Absent, Skip, check, need

HERE = Path(__file__).resolve().parent


def password_only(s):
    if s.sftp.identity:
        raise Skip("key login; no password to give")


@check()
def sftp_asyncssh(s):
    """An asyncssh session: parallel reads, edits, names that are no text, globs, links; also by keyboard-interactive."""
    password_only(s)
    for python in (sys.executable, "/usr/bin/python3"):
        if not subprocess.run([python, "-W", "ignore", "-c", "import asyncssh"], capture_output=True).returncode:
            break
    else:
        raise Absent("asyncssh is not installed")
    end = {k: getattr(s.sftp, k) for k in ("host", "port", "user", "password")}
    return s.run(python, "-W", "ignore", HERE / "asyncssh_session.py", s.remote, text=json.dumps(end)).stdout.strip()


@check("sftp")
def sftp_keyboard_interactive(s):
    """OpenSSH by keyboard-interactive alone, asked through SSH_ASKPASS: the right token comes in, a wrong one does not."""
    password_only(s)
    ask = s.local / "ask"
    ask.write_text('#!/bin/sh\nprintf "%s\\n" "$1" >> "$HOME/asked"\nprintf "%s\\n" "$SSHPASS"\n')
    ask.chmod(0o755)
    batch = s.local / "batch"
    batch.write_text(f"cd {s.remote}\npwd\n")
    command = ["sftp", "-F", s.sftp.config, "-oPreferredAuthentications=keyboard-interactive", "-oBatchMode=no", "-b", batch,
               "target"]
    env = {"SSH_ASKPASS": str(ask), "SSH_ASKPASS_REQUIRE": "force"}
    need(s.remote in s.run(*command, env=env).stdout, "the session shows another folder")
    done = s.run(*command, env={**env, "SSHPASS": "wrong"}, expect=None)
    need(done.returncode != 0, "a wrong token was let in")
    questions = (s.local / "asked").read_text().splitlines()
    need(all("password" in question.lower() for question in questions), f"the questions are {questions}")


@check("psftp")
def sftp_putty(s):
    """PuTTY's psftp, whose SSH is that of FileZilla and WinSCP, by password: put, get, resume, rename, listing."""
    password_only(s)
    random_file(s.local / "file", 4_000_001)
    data = (s.local / "file").read_bytes()
    script = s.local / "script"
    script.write_text(f"cd {s.remote}\nput file\nren file renamed\nmkdir sub\nput file sub/other\nls sub\nget renamed back\n"
                      "del renamed\n")
    key = hostkey(s)
    out = s.run("psftp", "-batch", "-hostkey", key, "-P", s.sftp.port, "-l", s.sftp.user, "-pw", s.sftp.password, "-b", script,
                s.sftp.host).stdout
    need((s.local / "back").read_bytes() == data, "the file came back different")
    need("other" in out, f"psftp lists {out[-200:]!r}")
    (s.local / "part").write_bytes(data[:1_500_000])
    script.write_text(f"cd {s.remote}\nput part whole\n")
    command = ["psftp", "-batch", "-hostkey", key, "-P", s.sftp.port, "-l", s.sftp.user, "-pw", s.sftp.password, "-b", script,
               s.sftp.host]
    s.run(*command)
    script.write_text(f"cd {s.remote}\nreput file whole\nget whole again\nls nothing\n")
    s.run(*command, expect=None)
    need(sha256(s.local / "again") == sha256(s.local / "file"), "after reput the file differs")


@check("fzsftp")
def sftp_filezilla(s):
    """FileZilla's SFTP engine, driven as FileZilla drives it: login by question, put, get, both resumed, times, renames."""
    password_only(s)
    return s.run(sys.executable, HERE / "filezilla_session.py", s.sftp.host, s.sftp.port, s.sftp.user, s.remote,
                 text=s.sftp.password + "\n").stdout.strip()


@check("php")
def sftp_phpseclib(s):
    """PHP's phpseclib, by which Nextcloud and others reach SFTP: whole files, parts, resume, times, modes, links, folders."""
    password_only(s)
    if not Path("/usr/share/php/phpseclib3/autoload.php").exists():
        raise Absent("phpseclib is not installed")
    end = {k: getattr(s.sftp, k) for k in ("host", "port", "user", "password")}
    s.run("php", HERE / "phpseclib_session.php", s.remote, text=json.dumps(end))


@check("curl")
def sftp_curl(s):
    """curl over SFTP, whose SSH is libssh2, as in PHP: put with folders, get, ranges, both resumed, append, commands."""
    password_only(s)
    random_file(s.local / "file", 3_000_001)
    data = (s.local / "file").read_bytes()
    (s.local / "part").write_bytes(data[:1_000_000])
    server = f"sftp://{s.sftp.host}:{s.sftp.port}"
    folder = f"{start_folder(s)}/{s.remote}"
    there = f"{server}{folder}"

    def curl(*words, **more):
        return s.run("curl", "-sS", "-k", "-K", "-", *words, text=f'user = "{s.sftp.user}:{s.sftp.password}"\n', **more)
    curl("-T", "file", f"{there}/new/folder/file", "--ftp-create-dirs")
    curl("-o", "back", f"{there}/new/folder/file")
    need((s.local / "back").read_bytes() == data, "the file came back different")
    curl("-T", "part", f"{there}/cut")
    curl("-C", "-", "-T", "file", f"{there}/cut")
    (s.local / "back").write_bytes(data[:2_000_000])
    curl("-C", "-", "-o", "back", f"{there}/cut")
    need((s.local / "back").read_bytes() == data, "a transfer that was resumed brought something else")
    need(curl("-r", "70000-70008", f"{there}/cut").raw == data[70000:70009], "a part differs")
    curl("--append", "-T", "part", f"{there}/cut")
    curl("-Q", f"rename {folder}/cut {folder}/moved", "-Q", f"chmod 640 {folder}/moved", "-Q", f"ln moved {folder}/link",
         "-Q", f"mkdir {folder}/sub", "-Q", f"-rmdir {folder}/sub", f"{there}/", "-o", "listing")
    listing = (s.local / "listing").read_text()
    need(re.search(r"^-rw-r----- .* 4000001 .* moved$", listing, re.M), f"it is listed as {listing!r}")
    need(re.search(r"^l.* link", listing, re.M), "the link is not listed as a link")
    need("sub" not in s.batch("ls -1").stdout.splitlines(), "a folder that was removed is there")
    done = s.run("curl", "-sS", "-k", "-u", f"{s.sftp.user}:wrong", f"{there}/", expect=None)
    need(done.returncode == 67, f"a wrong token: curl ended with {done.returncode}")


@check("python3", "ssh-keygen")
def sftp_paramiko_key_first(s):
    """paramiko that offers a key, then the token: the login ends within two seconds, and paramiko's log says what to do."""
    password_only(s)
    start = time.monotonic()
    python = environment() / "python"
    s.deadline += time.monotonic() - start
    s.run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", s.local / "key")
    end = {"host": s.sftp.host, "port": s.sftp.port, "user": s.sftp.user, "password": s.sftp.password,
           "key": str(s.local / "key")}
    shown = s.run(python, "-W", "ignore", "-B", HERE / "paramiko_key_first.py", text=json.dumps(end)).stdout
    took = float(re.search(r"^took (.*)$", shown, re.M)[1])
    need(took < 3, f"the login ended after {took} s: {shown}")
    need("Disconnect (code 7)" in shown and "look_for_keys=False" in shown, f"it was not told what to do: {shown}")


def start_folder(s):
    """Where a session of the user starts, without a slash at its end."""
    script = s.local / "where"
    script.write_text("pwd\n")
    shown = s.run(*s.sftp.command("sftp", "-oBatchMode=no", "-b", script), "target").stdout
    return re.search(r"Remote working directory: (.*)", shown)[1].rstrip("/")


def hostkey(s):
    """The fingerprint of a host key, as PuTTY takes it."""
    keys = s.run("ssh-keyscan", "-t", "ed25519", "-p", s.sftp.port, s.sftp.host).stdout
    (s.local / "key").write_text(keys)
    return s.run("ssh-keygen", "-l", "-f", s.local / "key").stdout.split()[1]
