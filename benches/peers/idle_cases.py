"""The server's memory while many clients are connected, have authenticated, and do nothing. They come first, on servers that
have done nothing else."""

import contextlib
import json
import resource
import socket
import subprocess
import sys
import time
from pathlib import Path

from cases import COMMAND_LIMIT, Failed, Missing, case
from load import exchange, proportional_memory, raw_request

SETTLE_SECONDS = 1


def memory(t):
    if not t.end.pid:
        raise Missing("its process is not known")
    return proportional_memory(t.end.pid)


def ask(s, message):
    if (status := exchange(s, message)) != 207:
        raise Failed(f"PROPFIND: status {status}")


@case("dav-idle", "MiB", per="1,000 connections")
def dav_idle(t):
    """Memory of the server with 1,000 kept connections, each of which has listed the folder once; all answer again after."""
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    count, credentials = t.options.idle, getattr(t.end, "authorizations", None) or [t.end.authorization]
    requests = [raw_request(t.end, "PROPFIND", t.path(), headers={"Depth": "0"}, authorization=a) for a in credentials]
    before = memory(t)
    with contextlib.ExitStack() as stack, t.meter():
        connections = []
        for i in range(count):
            connections.append(s := stack.enter_context(socket.create_connection((t.end.host, t.end.port), 30)))
            ask(s, requests[i % len(requests)])
        time.sleep(SETTLE_SECONDS)
        value = memory(t)
        for i, s in enumerate(connections):
            ask(s, requests[i % len(requests)])
    return value, {"kib_each": (value - before) * 1024 / count, "work": count / 1000}


def python_with_asyncssh():
    for python in (sys.executable, "/usr/bin/python3"):
        if not subprocess.run([python, "-W", "ignore", "-c", "import asyncssh"], capture_output=True).returncode:
            return python
    raise Missing("python3-asyncssh is not installed")


@case("sftp-idle", "MiB", per="1,000 sessions")
def sftp_idle(t):
    """Memory of the server with 200 SFTP sessions, each of which has asked for its start folder; all answer again after."""
    count, end = t.options.idle_sftp, {k: getattr(t.end, k) for k in ("host", "port", "user", "password", "identity")}
    command = [python_with_asyncssh(), "-W", "ignore", str(Path(__file__).parent / "idle_sessions.py"), str(count)]
    before = memory(t)
    with t.meter(), subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as clients:
        try:
            clients.stdin.write(json.dumps(end) + "\n")
            clients.stdin.flush()
            if clients.stdout.readline() != f"open {count}\n":
                raise Failed(f"{count} sessions could not be opened")
            time.sleep(SETTLE_SECONDS)
            value = memory(t)
            if clients.communicate("again\n", COMMAND_LIMIT)[0] != f"answered {count}\n":
                raise Failed(f"not all of {count} idle sessions answered")
        finally:
            clients.kill()
    return value, {"kib_each": (value - before) * 1024 / count, "work": count / 1000}
