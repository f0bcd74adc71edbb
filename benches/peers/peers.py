#!/usr/bin/env python3
"""Real servers to compare with, each on a free loopback port with a configuration of its own.

  peers.py list                        which peers can run here
  peers.py run NAME --data FOLDER      serve FOLDER; prints the endpoint as JSON (with --shell: as GATEWAY_… variables
                                       that the benchmark and the checks read), and stops on Ctrl-C or SIGTERM
"""

import sys
sys.dont_write_bytecode = True

import argparse
import base64
import ctypes
import getpass
import hashlib
import json
import os
import secrets
import shlex
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path

from shared import Dav, Sftp, tool_version

def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def wait_port(port, seconds):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            return True
        except OSError:
            time.sleep(0.05)
    return False


def _end_with_parent():
    """In a child process: have it end when this process ends, so that no peer is left behind."""
    ctypes.CDLL(None).prctl(1, signal.SIGTERM)


class Peer:
    """A running server. Use as a context manager, or call stop()."""

    protocol = "dav"
    program = ""
    version_flags = ["-v"]
    as_web_user = False     # started as root, it serves as www-data

    def __init__(self, data, user="bench", password=None):
        self.data = Path(data).resolve()
        self.user, self.password = user, password or secrets.token_hex(16)
        self.port = free_port()
        self.state = Path(tempfile.mkdtemp(prefix=f"peer-{self.name}-"))
        self.state.chmod(0o755)
        self.temporary = self.data.parent / f".{self.data.name}-uploads"    # same file system as the data
        self.temporary.mkdir(exist_ok=True)
        if self.as_web_user and os.geteuid() == 0:
            for path in (self.data, self.temporary):
                shutil.chown(path, "www-data", "www-data")
        self.process = None
        try:
            with open(self.state / "log", "wb") as log:
                self.process = subprocess.Popen(self.command(), stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                                                env={**os.environ, **self.environment()}, cwd=self.state,
                                                start_new_session=True, preexec_fn=_end_with_parent)
            if not wait_port(self.port, 15) or self.process.poll() is not None:
                raise RuntimeError(f"{self.name} did not start: {(self.state / 'log').read_text(errors='replace')[-2000:]}")
        except BaseException:
            self.stop()
            raise

    @classmethod
    def available(cls):
        return bool(cls.executable())

    @classmethod
    def executable(cls):
        return shutil.which(cls.program, path=os.environ.get("PATH", "") + ":/usr/sbin:/usr/local/sbin")

    def environment(self):
        return {}

    def file(self, name, text, mode=0o644):
        path = self.state / name
        path.write_text(text)
        path.chmod(mode)
        return path

    def endpoint(self, name=None):
        version = tool_version(self.executable(), *self.version_flags)
        if self.protocol == "dav":
            return Dav(name or self.name, f"http://127.0.0.1:{self.port}/", self.user, self.password,
                       pid=self.process.pid, version=version)
        return Sftp(name or self.name, "127.0.0.1", self.port, self.user, self.password,
                    pid=self.process.pid, version=version)

    def stop(self):
        if self.process and self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(10)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        shutil.rmtree(self.state, ignore_errors=True)
        shutil.rmtree(self.temporary, ignore_errors=True)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stop()

    def sha_line(self):
        """A password line with a plain SHA-1: the cheapest scheme the web servers know, so that none is slowed by it."""
        return f"{self.user}:{{SHA}}{base64.b64encode(hashlib.sha1(self.password.encode()).digest()).decode()}\n"


class Nginx(Peer):
    """nginx with its dav module and the dav-ext module (PROPFIND, LOCK)."""
    name, program = "nginx", "nginx"

    def command(self):
        passwords = self.file("htpasswd", self.sha_line())
        modules = "/usr/lib/nginx/modules"
        config = self.file("nginx.conf", f"""
load_module {modules}/ngx_http_dav_ext_module.so;
{"user root;" if os.geteuid() == 0 else ""}
worker_processes auto;
pid {self.state}/pid;
error_log stderr warn;
daemon off;
events {{ worker_connections 1024; }}
http {{
  access_log off;
  sendfile on;
  tcp_nopush on;
  open_file_cache off;
  keepalive_requests 1000000;
  client_max_body_size 0;
  client_body_temp_path {self.temporary};
  proxy_temp_path {self.state}/t1; fastcgi_temp_path {self.state}/t2;
  uwsgi_temp_path {self.state}/t3; scgi_temp_path {self.state}/t4;
  dav_ext_lock_zone zone=locks:10m;
  server {{
    listen 127.0.0.1:{self.port};
    root {self.data};
    auth_basic "peer"; auth_basic_user_file {passwords};
    location / {{
      autoindex on;
      dav_methods PUT DELETE MKCOL COPY MOVE;
      dav_ext_methods PROPFIND OPTIONS LOCK UNLOCK;
      dav_ext_lock zone=locks;
      create_full_put_path on;
    }}
  }}
}}
""")
        return [self.executable(), "-c", str(config), "-p", str(self.state), "-e", "stderr"]


class Apache(Peer):
    """Apache with mod_dav on the event worker model, with a lock database."""
    name, program, as_web_user = "apache", "apache2", True

    def command(self):
        passwords = self.file("htpasswd", self.sha_line())
        locks = self.state / "locks"
        locks.mkdir()
        if os.geteuid() == 0:
            shutil.chown(locks, "www-data", "www-data")
        modules = "mpm_event authn_core authn_file authz_core authz_user auth_basic mime dir dav dav_fs dav_lock"
        load = "\n".join(f"LoadModule {m}_module /usr/lib/apache2/modules/mod_{m}.so" for m in modules.split())
        config = self.file("apache.conf", f"""
ServerRoot {self.state}
ServerName 127.0.0.1
{load}
{"User www-data" if os.geteuid() == 0 else ""}
{"Group www-data" if os.geteuid() == 0 else ""}
Listen 127.0.0.1:{self.port}
PidFile {self.state}/pid
DefaultRuntimeDir {self.state}
ErrorLog {self.state}/error.log
TypesConfig /etc/mime.types
KeepAlive On
MaxKeepAliveRequests 0
EnableSendfile On
LimitRequestBody 0
DavLockDB {locks}/db
DavMinTimeout 60
DocumentRoot {self.data}
<Directory {self.data}>
  Dav On
  DirectorySlash Off
  AuthType Basic
  AuthName peer
  AuthBasicProvider file
  AuthUserFile {passwords}
  Require valid-user
</Directory>
""")
        return [self.executable(), "-d", str(self.state), "-f", str(config), "-D", "FOREGROUND"]


class Lighttpd(Peer):
    """lighttpd with mod_webdav; properties and locks in SQLite."""
    name, program = "lighttpd", "lighttpd"

    def command(self):
        passwords = self.file("passwords", f"{self.user}:{self.password}\n", 0o600)
        config = self.file("lighttpd.conf", f"""
server.modules = ("mod_auth", "mod_authn_file", "mod_webdav")
server.document-root = "{self.data}"
server.bind = "127.0.0.1"
server.port = {self.port}
server.upload-dirs = ("{self.temporary}")
server.max-keep-alive-requests = 60000
server.stream-request-body = 0
server.feature-flags = ("server.graceful-shutdown-timeout" => 2)
webdav.activate = "enable"
webdav.is-readonly = "disable"
webdav.sqlite-db-name = "{self.state}/webdav.db"
auth.backend = "plain"
auth.backend.plain.userfile = "{passwords}"
auth.require = ("" => ("method" => "basic", "realm" => "peer", "require" => "valid-user"))
""")
        return [self.executable(), "-D", "-f", str(config)]


class RcloneDav(Peer):
    """rclone serve webdav over a local folder."""
    name, program, version_flags = "rclone", "rclone", ["version"]
    serve = "webdav"

    def environment(self):
        return {"RCLONE_CONFIG": str(self.state / "rclone.conf"), "XDG_CACHE_HOME": str(self.state / "cache")}

    def command(self):
        self.file("rclone.conf", "")
        return [self.executable(), "serve", self.serve, str(self.data), "--addr", f"127.0.0.1:{self.port}",
                "--user", self.user, "--pass", self.password, "--cache-dir", str(self.state / "cache")]


class RcloneSftp(RcloneDav):
    """rclone serve sftp over a local folder."""
    protocol, serve = "sftp", "sftp"


class Dufs(Peer):
    """dufs, where it is installed."""
    name, program, version_flags = "dufs", "dufs", ["--version"]

    def command(self):
        return [self.executable(), str(self.data), "--bind", "127.0.0.1", "--port", str(self.port), "--allow-all",
                "--auth", f"{self.user}:{self.password}@/:rw", "--log-format", ""]


class OpenSsh(Peer):
    """OpenSSH's sshd with internal-sftp. It logs in this machine's current user with a throwaway key."""
    name, program, protocol, version_flags = "openssh", "sshd", "sftp", ["-V"]

    def command(self):
        self.user = getpass.getuser()
        if os.geteuid() == 0:
            Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
        for key in ("host", "login"):
            subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(self.state / key)], check=True)
        config = self.file("sshd_config", f"""
ListenAddress 127.0.0.1
Port {self.port}
HostKey {self.state}/host
PidFile {self.state}/pid
AuthorizedKeysFile {self.state}/login.pub
StrictModes no
UsePAM no
PasswordAuthentication no
KbdInteractiveAuthentication no
PermitRootLogin prohibit-password
MaxStartups 100
MaxSessions 100
LogLevel ERROR
Subsystem sftp internal-sftp -d {self.data}
ForceCommand internal-sftp -d {self.data}
""")
        return [self.executable(), "-D", "-e", "-f", str(config)]

    def endpoint(self, name=None):
        return Sftp(name or self.name, "127.0.0.1", self.port, self.user, identity=str(self.state / "login"),
                    pid=self.process.pid, version=tool_version("ssh", "-V"))


PEERS = {"dav": {p.name: p for p in (Nginx, Apache, Lighttpd, RcloneDav, Dufs)},
         "sftp": {p.name: p for p in (OpenSsh, RcloneSftp)}}


def find(name):
    """A peer class from its command-line name; rclone and openssh serve SFTP as `rclone-sftp` and `openssh`."""
    if name == "rclone-sftp":
        return RcloneSftp
    return PEERS["dav"].get(name) or PEERS["sftp"][name]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    actions = parser.add_subparsers(dest="action", required=True)
    actions.add_parser("list")
    run = actions.add_parser("run")
    run.add_argument("name", choices=[*PEERS["dav"], "openssh", "rclone-sftp"])
    run.add_argument("--data", required=True)
    run.add_argument("--user", default="bench")
    run.add_argument("--password")
    run.add_argument("--shell", action="store_true")
    args = parser.parse_args()
    if args.action == "list":
        for protocol, peers in PEERS.items():
            for name, peer in peers.items():
                print(f"{protocol:5} {name:9} {'available' if peer.available() else 'not installed':14} {peer.__doc__}")
    else:
        def stop(*_):
            raise KeyboardInterrupt
        signal.signal(signal.SIGTERM, stop)
        with find(args.name)(args.data, args.user, args.password) as peer:
            keys = "url user password pid" if peer.protocol == "dav" else "host port user password identity pid"
            fields = {key: getattr(peer.endpoint(), key) for key in keys.split()}
            if args.shell:
                for key, value in fields.items():
                    print(f"export GATEWAY_{peer.protocol.upper()}_{key.upper()}={shlex.quote(str(value))}")
                sys.stdout.flush()
            else:
                print(json.dumps({"protocol": peer.protocol, **fields}), flush=True)
            try:
                peer.process.wait()
            except KeyboardInterrupt:
                pass


if __name__ == "__main__":
    main()
