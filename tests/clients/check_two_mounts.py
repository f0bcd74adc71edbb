"""Checks of one directory in two sshfs mounts, each with a connection of its own, edited from both."""

import sys
from pathlib import Path

from check_mounts import sshfs
from session import check

SESSION = Path(__file__).resolve().parent / "two_mounts_session.py"
# Without these, sshfs and the kernel show for seconds what they have seen before, and as content what they wrote.
NO_CACHE = ("-o", "dir_cache=no", "-o", "direct_io", "-o", "attr_timeout=0,entry_timeout=0,negative_timeout=0,ac_attr_timeout=0")


def two_mounts(s, case):
    with sshfs(s, s.remote, *NO_CACHE, name="one") as one, sshfs(s, s.remote, *NO_CACHE, name="two") as two:
        s.run(sys.executable, SESSION, case, one, two)


@check("sshfs")
def sftp_two_mounts_create(s):
    """New files and folders of one mount are seen by the other; of two exclusive creations one succeeds."""
    two_mounts(s, "create")


@check("sshfs")
def sftp_two_mounts_append(s):
    """Appends of both, in turns and at the same time: each line once and whole."""
    two_mounts(s, "append")


@check("sshfs")
def sftp_two_mounts_overwrite(s):
    """Whole files written over by both, in turns and at the same time: always one of the two."""
    two_mounts(s, "overwrite")


@check("sshfs")
def sftp_two_mounts_rename_over(s):
    """Files renamed over one that is open or being renamed over at the other mount: readers get one of them whole."""
    two_mounts(s, "rename_over")


@check("sshfs")
def sftp_two_mounts_in_place(s):
    """One file open and edited in place at both: all writes are found, also before it is closed."""
    two_mounts(s, "in_place")


@check("sshfs")
def sftp_two_mounts_delete(s):
    """Files deleted at one mount while the other reads, edits or uploads them."""
    two_mounts(s, "delete")


@check("sshfs")
def sftp_two_mounts_rename_open(s):
    """Files and folders renamed at one mount while the other writes: what was synced is found under the new name."""
    two_mounts(s, "rename_open")


@check("sshfs", "vim.tiny")
def sftp_two_mounts_editors(s):
    """vim and saves by another file that is renamed, at both mounts."""
    two_mounts(s, "editors")
