"""The servers that the checks and the benchmark talk to, and a small HTTP client."""

import base64
import fnmatch
import http.client
import os
import shutil
import subprocess
import urllib.parse
from dataclasses import dataclass, field
from pathlib import Path


@dataclass
class Dav:
    """A WebDAV server to talk to: the base URL of a writable collection, and who we are."""
    name: str
    url: str
    user: str = ""
    password: str = ""
    bearer: str = ""
    pid: int | None = None
    version: str = ""
    default_ports = {"http": 80}        # of the schemes that are supported

    def __post_init__(self):
        self.url = self.url.rstrip("/") + "/"
        parts = urllib.parse.urlsplit(self.url)
        if parts.scheme not in self.default_ports:
            raise SystemExit(f"{self.url}: only {' and '.join(self.default_ports)} URLs are supported")
        self.host, self.port = parts.hostname, parts.port or self.default_ports[parts.scheme]
        self.path = parts.path

    @property
    def authorization(self):
        if self.bearer and not self.password:
            return "Bearer " + self.bearer
        return "Basic " + base64.b64encode(f"{self.user}:{self.password}".encode()).decode()

    def at(self, relative=""):
        return self.url + relative

    def connection(self, timeout):
        return http.client.HTTPConnection(self.host, self.port, timeout=timeout)


@dataclass
class Sftp:
    """An SFTP server to talk to, by password or by key file. Paths are relative to its start folder."""
    name: str
    host: str
    port: int
    user: str
    password: str = ""
    identity: str = ""
    pid: int | None = None
    version: str = ""
    config: str = field(default="", repr=False)

    def write_config(self, folder):
        """Writes an ssh client configuration, so that every OpenSSH-based tool just says `target`."""
        lines = [
            "Host target", f"HostName {self.host}", f"Port {self.port}", f"User {self.user}",
            "StrictHostKeyChecking no", "UserKnownHostsFile /dev/null", "GlobalKnownHostsFile /dev/null",
            "LogLevel ERROR", "ConnectTimeout 10", "NumberOfPasswordPrompts 1", "IdentityAgent none",
            "Compression no",
        ]
        if self.identity:
            lines += [f"IdentityFile {self.identity}", "IdentitiesOnly yes", "PreferredAuthentications publickey"]
        else:
            lines += ["PubkeyAuthentication no", "PreferredAuthentications password,keyboard-interactive"]
        path = Path(folder) / f"ssh-{self.name}.conf"
        path.write_text("\n".join(lines) + "\n")
        self.config = str(path)
        return self.config

    def command(self, tool, *options):
        """The command line of ssh, sftp or scp for this endpoint, up to but without the destination."""
        prefix = [] if self.identity else ["sshpass", "-e"]
        return [*prefix, tool, "-F", self.config, *options]

    def env(self):
        return {**os.environ, "SSHPASS": self.password}


def add_endpoint_arguments(parser):
    """The command-line arguments that describe the gateway; every one can come from the environment."""
    def option(name, text, **more):
        variable = "GATEWAY_" + name.upper().replace("-", "_")
        parser.add_argument("--" + name, default=os.environ.get(variable, ""), help=f"{text} [{variable}]", **more)
    option("dav-url", "WebDAV base URL, a writable collection")
    option("dav-user", "WebDAV user name")
    option("dav-password", "WebDAV password or token, sent as Basic")
    option("dav-bearer", "token sent as Bearer: for the Bearer check, and for all requests where no password is given")
    option("dav-pid", "process id of the WebDAV server, for CPU and memory")
    option("sftp-host", "SFTP host")
    option("sftp-port", "SFTP port")
    option("sftp-user", "SFTP user name")
    option("sftp-password", "SFTP password or token")
    option("sftp-identity", "SFTP private key file, instead of a password")
    option("sftp-pid", "process id of the SFTP server, for CPU and memory")


def endpoints(args, name="gateway"):
    """The two endpoints the arguments describe; None for one that was not given."""
    def pid(text):
        return int(text) if text else None
    dav = sftp = None
    if args.dav_url:
        dav = Dav(name, args.dav_url, args.dav_user, args.dav_password, args.dav_bearer, pid(args.dav_pid))
    if args.sftp_port:
        sftp = Sftp(name, args.sftp_host or "127.0.0.1", int(args.sftp_port), args.sftp_user,
                    args.sftp_password, args.sftp_identity, pid(args.sftp_pid))
    return dav, sftp


def named(patterns, name):
    """Whether one of the patterns, by comma, fits the name."""
    return any(fnmatch.fnmatch(name, pattern) for pattern in patterns.split(","))


def quote(path):
    return urllib.parse.quote(path, safe="/")


def request(dav, method, relative="", body=None, headers=None, timeout=60):
    """One request on a connection of its own: (status, headers, body)."""
    connection = dav.connection(timeout)
    try:
        connection.request(method, dav.path + relative, body, {"Authorization": dav.authorization, **(headers or {})})
        answer = connection.getresponse()
        return answer.status, answer.headers, answer.read()
    finally:
        connection.close()


def tool_version(*command):
    if not shutil.which(command[0]):
        return ""
    done = subprocess.run(command, capture_output=True, text=True, timeout=20)
    return ((done.stdout or done.stderr).strip().splitlines() or [""])[0]
