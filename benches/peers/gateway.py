"""patgate itself, started by the benchmark: as the measured server, or another build of it as a peer."""

import subprocess
import time

from peers import USERS, Peer
from shared import basic

# The peers serve without limits; what a limit of patgate's would refuse here is raised. Beyond that, all is as shipped.
# More connections than half of the limit on open files has room for would be lowered, each user's to half of them.
SETTINGS = ["--http-connections", "1536", "--http-connections-per-user", "1536",
            "--sftp-connections", "1536", "--sftp-connections-per-user", "1536", "--http-idle-seconds", "3600"]


class Patgate(Peer):
    """A build of patgate with durability `full`, its state beside the data like a peer's, a user, and tokens for him."""
    version_flags, path = ["--version"], "/dav/bench/"

    @classmethod
    def executable(cls):
        return cls.program      # its path: see build()

    def command(self):
        self.database = self.state / "state"
        address = f"127.0.0.1:{self.port}"
        http, sftp = (address, "off") if self.protocol == "dav" else ("off", address)
        tls = ["--tls-cert", str(self.tls[0]), "--tls-key", str(self.tls[1])] if self.tls else []
        return [self.executable(), "serve", "--root", str(self.data), "--state", str(self.database), "--http", http,
                "--sftp", sftp, "--durability", "full", *SETTINGS, *tls]

    def wait_ready(self):
        end = time.monotonic() + 30
        while "patgate ready " not in (self.state / "log").read_text(errors="replace"):
            if time.monotonic() > end or self.process.poll() is not None:
                return False
            time.sleep(0.05)
        self.command_line("policy", "set", "max-tokens-per-user", str(USERS + 10))
        self.command_line("admin", "user", "create", self.user)
        self.password = self.token()
        self.passwords = [self.token() for _ in range(USERS if self.protocol == "dav" else 0)]
        return True

    def command_line(self, *arguments):
        done = subprocess.run([self.executable(), "--state", str(self.database), *arguments], stdin=subprocess.DEVNULL,
                              capture_output=True, text=True)
        if done.returncode:
            raise RuntimeError(f"{self.name} {' '.join(arguments)}: {done.stderr.strip()}")
        return done.stdout.strip()

    def token(self):
        return self.command_line("admin", "user", "token", "-u", self.user, "-e", "1d", "-q")

    def authorizations(self):
        return [basic(self.user, token) for token in self.passwords]


def build(label, program, of_protocol):
    """The class of servers that run this program under a name of their own."""
    return type("Build", (Patgate,), {"name": label, "program": program, "protocol": of_protocol})
