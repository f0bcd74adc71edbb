"""Checks of clients from npm: webdav, ssh2, and Joplin's command line. `install-node` installs them."""

import json
import os
import subprocess
import time
from pathlib import Path

from check_setups import play
from session import Absent, Skip, check, need

HERE = Path(__file__).resolve().parent


def packages(s):
    """The folder of the npm packages; may wait for their installation, which `run` has begun."""
    begun, start = os.environ.get("GATEWAY_NODE_PID", ""), time.monotonic()
    while begun and os.path.exists(f"/proc/{begun}") and time.monotonic() - start < 600:
        time.sleep(0.2)
    done = subprocess.run([HERE / "install-node"], capture_output=True, text=True, timeout=600)
    s.deadline += time.monotonic() - start
    if done.returncode:
        raise Absent(f"the packages from npm cannot be installed: {done.stderr.strip()[-300:]}")
    return done.stdout.strip()


@check("node")
def dav_npm_webdav(s):
    """npm's webdav: whole files, streams, ranges, deep listings, copies, moves, locks."""
    s.basic()
    end = {"url": s.url(), "user": s.dav.user, "password": s.dav.password}
    return s.run("node", HERE / "node" / "webdav_session.mjs", packages(s), text=json.dumps(end)).stdout.strip()


@check("node")
def sftp_npm_ssh2(s):
    """npm's ssh2: parallel transfers, streams, appends, renames, times, links; also by keyboard-interactive."""
    if s.sftp.identity:
        raise Skip("key login; no password to give")
    end = {"host": s.sftp.host, "port": s.sftp.port, "user": s.sftp.user, "password": s.sftp.password}
    script = HERE / "node" / "ssh2_session.cjs"
    return s.run("node", script, packages(s), s.remote, text=json.dumps(end)).stdout.strip()


@check("node", "bash")
def token_setup_joplin(s):
    """Joplin's command line, set up as printed, twice: what one profile writes the other gets, changed and deleted, too."""
    folder = packages(s)
    path = f"{folder}/node_modules/.bin:{os.environ['PATH']}"
    (s.local / "two").mkdir()
    note = "'ünï + #1'"
    first = f"mkbook letters; use letters; mknote {note}; set {note} body 'first words'; attach {note} {s.local}/Documents/letter.odt"
    other = f"use letters; cat {note}; set {note} body 'second words'; sync"
    back = f"sync; cat {note}; rmnote -f {note}; sync"

    def batch(commands):
        """Commands for one run of Joplin, which takes its time to start; the shell fills in the token."""
        return "cat > ~/batch <<END\n" + "\n".join(commands) + "\nEND\njoplin batch ~/batch"

    def change(lines):
        token, make, configure = lines
        again = [line.removeprefix("joplin ") for line in configure.splitlines()]
        return [f"export PATH={path!r}", token, make, batch(first.split("; ")), configure,
                "export ONE=$HOME HOME=$HOME/two", batch([*again, *other.split("; ")]),
                "HOME=$ONE", batch(back.split("; ")), "HOME=$ONE/two", batch(["sync", "ls"])]

    _, shown = play(s, "joplin", change)
    need("first words" in shown and "letter.odt" in shown, f"the other profile did not get the note: {shown[-300:]!r}")
    need("second words" in shown, "the first profile did not get the change")
    need("ünï" not in shown.rstrip().splitlines()[-1], "a deleted note is still there")
    need(s.status(s.url("joplin/info.json")) == 200, "Joplin left no info.json")
