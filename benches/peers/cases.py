"""What a measured case is, and the server it is measured on."""

import ctypes
import os
import subprocess
from dataclasses import dataclass

from load import Meter

COMMAND_LIMIT = 90      # seconds any one measured command may take
CASES = {}


class Failed(Exception):
    """The server did something else than the case asks for."""


class Missing(Exception):
    """The server does not offer what the case measures."""


@dataclass
class Case:
    name: str
    group: str              # which servers it is measured on: dav, tls or sftp
    unit: str
    higher_is_better: bool
    work_unit: str          # what the server's CPU seconds are divided by
    function: object
    text: str


def case(name, unit, higher=False, per="GiB", group=""):
    """Registers a case. Its function returns the figure and a dict of further ones, in which `work` is the amount that
    the metered block transferred or did, in the unit `per`."""
    def register(function):
        CASES[name] = Case(name, group or name.split("-")[0], unit, higher, per, function,
                           " ".join(function.__doc__.split()))
        return function
    return register


class Target:
    """One server under measurement: its endpoint, its own remote folder and the last meter reading."""

    def __init__(self, end, local, options):
        self.end, self.local, self.options = end, local, options
        self.name, self.folder = end.name, f"bench-{os.getpid()}-{os.urandom(3).hex()}"
        self.ready, self.last = set(), None

    def meter(self):
        self.last = Meter(self.end.pid)
        return self.last

    def once(self, key, prepare):
        """Runs a preparation the first time it is asked for."""
        if key not in self.ready:
            prepare()
            self.ready.add(key)


def run(command, env=None, what=""):
    try:
        done = subprocess.run(command, env=env, stdin=subprocess.DEVNULL, capture_output=True, timeout=COMMAND_LIMIT)
    except subprocess.TimeoutExpired:
        raise Failed(f"{what or command[0]}: not done within {COMMAND_LIMIT} s") from None
    if done.returncode:
        last = (done.stderr or done.stdout).decode(errors="replace").strip().splitlines()[-1:]
        raise Failed(f"{what or command[0]}: exit {done.returncode} {' '.join(last)}")
    return done.stdout


def settle(folder):
    """Writes out what the folder's file system still holds back, so that one server does not pay for another."""
    handle = os.open(folder, os.O_RDONLY)
    ctypes.CDLL(None).syncfs(handle)
    os.close(handle)
