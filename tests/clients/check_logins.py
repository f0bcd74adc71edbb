"""Other SFTP libraries, and logins by keyboard-interactive, as programs with windows do them."""

import json
import subprocess
import sys
from pathlib import Path

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


def hostkey(s):
    """The fingerprint of a host key, as PuTTY takes it."""
    keys = s.run("ssh-keyscan", "-t", "ed25519", "-p", s.sftp.port, s.sftp.host).stdout
    (s.local / "key").write_text(keys)
    return s.run("ssh-keygen", "-l", "-f", s.local / "key").stdout.split()[1]
