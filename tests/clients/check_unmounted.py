"""rclone mirroring a folder whose file system goes away and comes back: a sync deletes nothing of its copy.

The folder is served by a gateway of the check's own, and is a bind mount: whoever runs this must be able to mount."""

import os
import shutil
import signal
import subprocess
import time
from urllib.error import HTTPError, URLError
from urllib.request import urlopen

from session import Skip, check, need

FILES = {"a.txt": b"one", "deep/b.txt": b"two", "deep/er/c.txt": b"three"}


class Served:
    """A folder that is served while it is mounted."""

    def __init__(self, s):
        self.s, self.disk, self.files, self.state = s, s.local / "disk", s.local / "files", s.local / "state"
        self.disk.mkdir()
        self.files.mkdir()
        self.process, self.mounted = None, False

    def mount(self):
        done = subprocess.run(["mount", "--bind", self.disk, self.files], capture_output=True, text=True, timeout=30)
        if done.returncode:
            raise Skip(f"nothing can be mounted here: {done.stderr.strip()}")
        self.mounted = True

    def unmount(self):
        subprocess.run(["umount", "-l", self.files], check=True, timeout=30)
        self.mounted = False

    def patgate(self, *arguments):
        return self.s.run(self.s.options.gateway, "--state", self.state, *arguments).stdout.strip()

    def __enter__(self):
        self.mount()
        self.process = self.s.start(self.s.options.gateway, "--state", self.state, "serve", "--root", self.files, "--http",
                                    "127.0.0.1:0", "--sftp", "127.0.0.1:0", stderr=subprocess.DEVNULL)
        ready = dict(word.split("=", 1) for word in self.process.stdout.readline().decode().split()[2:])
        self.url, (self.host, self.port) = ready["http"], ready["sftp"].rsplit(":", 1)
        self.patgate("admin", "user", "create", "alice", "--no-home", "--grant", "/:rw")
        self.token = self.patgate("admin", "user", "token", "-u", "alice", "-e", "1h", "-q")
        return self

    def __exit__(self, *_):
        if self.process:
            os.killpg(self.process.pid, signal.SIGTERM)
            self.process.communicate(timeout=30)
        if self.mounted:
            self.unmount()

    def wait(self, wanted):
        """Waits until /readyz says that status."""
        while True:
            try:
                status = urlopen(f"{self.url}/readyz", timeout=10).status
            except HTTPError as answer:
                status = answer.code
            except URLError as fault:
                status = str(fault)
            if status == wanted:
                return
            need(time.monotonic() < self.s.deadline, f"/readyz says {status}, not {wanted}")
            time.sleep(0.05)

    def configure(self):
        secret = self.s.run("rclone", "obscure", "-", text=self.token).stdout.strip()
        (self.s.local / "rclone.conf").write_text(
            f"[dav]\ntype = webdav\nurl = {self.url}/dav/\nvendor = other\nuser = alice\npass = {secret}\n"
            f"[sftp]\ntype = sftp\nhost = {self.host}\nport = {self.port}\nuser = alice\npass = {secret}\nshell_type = none\n")


def copied(folder):
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


@check("rclone", "mount", "umount")
def token_rclone_unmounted(s):
    """rclone sync from a folder that is unmounted fails and deletes nothing; once it is back, it goes on."""
    with Served(s) as served:
        for path, content in FILES.items():
            (served.disk / path).parent.mkdir(parents=True, exist_ok=True)
            (served.disk / path).write_bytes(content)
        served.configure()
        remotes = ["dav", "sftp"]
        sync = ["rclone", "sync", "--retries", "1", "--low-level-retries", "1"]
        for remote in remotes:
            s.run(*sync, f"{remote}:", s.local / remote)
            need(copied(s.local / remote) == FILES, f"{remote}: the first copy is not whole")
        served.unmount()
        for remote in remotes:
            # At once, and when the gateway has surely noticed.
            for _ in range(2):
                s.run(*sync, f"{remote}:", s.local / remote, expect=None)
                need(copied(s.local / remote) == FILES, f"{remote}: a copy lost files while the folder was unmounted")
                served.wait(503)
            done = s.run(*sync, f"{remote}:", s.local / remote, expect=None)
            need(done.returncode != 0, f"{remote}: a sync from what is not there succeeded")
        shutil.rmtree(served.disk / "deep" / "er")
        served.mount()
        served.wait(200)
        for remote in remotes:
            s.run(*sync, f"{remote}:", s.local / remote)
            need(sorted(copied(s.local / remote)) == ["a.txt", "deep/b.txt"], f"{remote}: what was removed is still copied")
    return "WebDAV and SFTP"
