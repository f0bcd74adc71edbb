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
import resource
import secrets
import shlex
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path

from shared import BenchDav, Sftp, basic, tool_version

USERS = 64      # further users of each WebDAV server, each with a password of its own


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


def _prepare_server():
    """In a child process: lets it end when this process ends, so that no peer is left behind, and open many connections."""
    ctypes.CDLL(None).prctl(1, signal.SIGTERM)
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


class Peer:
    """A running server. Use as a context manager, or call stop()."""

    protocol = "dav"
    program = ""
    path = "/"              # of the folder that is served, in the URL
    version_flags = ["-v"]
    as_web_user = False     # started as root, it serves as www-data
    tls_module = ""         # file that must be there for it to serve TLS
    users = 0               # further users that it is given

    def __init__(self, data, user="bench", password=None, tls=None):
        self.data, self.tls = Path(data).resolve(), tls      # tls: paths of certificate and key, or None for plain text
        self.user, self.password = user, password or secrets.token_hex(16)
        self.passwords = {f"{user}-{i:02}": secrets.token_hex(16) for i in range(self.users)}
        self.port = free_port()
        # Both on the file system of the data: locks and properties as well as uploads cost what it costs.
        self.state = Path(tempfile.mkdtemp(prefix=f".{self.data.name}-state-", dir=self.data.parent))
        self.state.chmod(0o755)
        self.temporary = self.data.parent / f".{self.data.name}-uploads"
        self.temporary.mkdir(exist_ok=True)
        if self.as_web_user and os.geteuid() == 0:
            for path in (self.data, self.temporary):
                shutil.chown(path, "www-data", "www-data")
        self.process = None
        try:
            with open(self.state / "log", "wb") as log:
                self.process = subprocess.Popen(self.command(), stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                                                env={**os.environ, **self.environment()}, cwd=self.state,
                                                start_new_session=True, preexec_fn=_prepare_server)
            if not self.wait_ready() or self.process.poll() is not None:
                raise RuntimeError(f"{self.name} did not start: {(self.state / 'log').read_text(errors='replace')[-2000:]}")
        except BaseException:
            self.stop()
            raise

    def wait_ready(self):
        return wait_port(self.port, 15)

    @classmethod
    def available(cls, tls=False):
        return bool(cls.executable()) and (not tls or not cls.tls_module or Path(cls.tls_module).exists())

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
            return BenchDav(name or self.name, f"{'https' if self.tls else 'http'}://127.0.0.1:{self.port}{self.path}",
                            self.user, self.password, pid=self.process.pid, version=version,
                            certificate=str(self.tls[0]) if self.tls else "", authorizations=self.authorizations())
        return Sftp(name or self.name, "127.0.0.1", self.port, self.user, self.password,
                    pid=self.process.pid, version=version)

    def stop(self):
        if self.process and self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(30)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        shutil.rmtree(self.state, ignore_errors=True)
        shutil.rmtree(self.temporary, ignore_errors=True)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stop()

    def authorizations(self):
        return [basic(user, password) for user, password in self.passwords.items()]

    def sha_lines(self):
        """Password lines with a plain SHA-1: the cheapest scheme the web servers know, so that none is slowed by it."""
        return "".join(f"{user}:{{SHA}}{base64.b64encode(hashlib.sha1(password.encode()).digest()).decode()}\n"
                       for user, password in {self.user: self.password, **self.passwords}.items())


class Nginx(Peer):
    """nginx with its dav module and the dav-ext module (PROPFIND, LOCK)."""
    name, program, users = "nginx", "nginx", USERS

    def command(self):
        tls = (f"ssl_protocols TLSv1.3; ssl_certificate {self.tls[0]}; "
               f"ssl_certificate_key {self.tls[1]};") if self.tls else ""
        passwords = self.file("htpasswd", self.sha_lines())
        modules = "/usr/lib/nginx/modules"
        config = self.file("nginx.conf", f"""
load_module {modules}/ngx_http_dav_ext_module.so;
{"user root;" if os.geteuid() == 0 else ""}
worker_processes auto;
pid {self.state}/pid;
error_log stderr warn;
daemon off;
worker_rlimit_nofile 16384;
events {{ worker_connections 8192; }}
http {{
  access_log off;
  sendfile on;
  tcp_nopush on;
  open_file_cache off;
  keepalive_requests 1000000;
  keepalive_timeout 1h;
  client_max_body_size 0;
  client_body_temp_path {self.temporary};
  proxy_temp_path {self.state}/t1; fastcgi_temp_path {self.state}/t2;
  uwsgi_temp_path {self.state}/t3; scgi_temp_path {self.state}/t4;
  dav_ext_lock_zone zone=locks:10m;
  map $request_method $dav_class {{ OPTIONS 1; }}      # the module says 2 alone, which davfs2 does not take for WebDAV
  add_header DAV $dav_class;
  server {{
    listen 127.0.0.1:{self.port}{" ssl http2" if self.tls else ""};
    {tls}
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
    name, program, as_web_user, users = "apache", "apache2", True, USERS
    tls_module = "/usr/lib/apache2/modules/mod_ssl.so"

    def command(self):
        passwords = self.file("htpasswd", self.sha_lines())
        locks = self.state / "locks"
        locks.mkdir()
        if os.geteuid() == 0:
            shutil.chown(locks, "www-data", "www-data")
        modules = "mpm_event authn_core authn_file authz_core authz_user auth_basic mime dir dav dav_fs dav_lock"
        tls = ""
        if self.tls:
            modules += " socache_shmcb ssl http2"
            tls = (f"SSLEngine on\nSSLCertificateFile {self.tls[0]}\nSSLCertificateKeyFile {self.tls[1]}\n"
                   "Protocols h2 http/1.1")
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
KeepAliveTimeout 3600
StartServers 2
ServerLimit 16
ThreadLimit 128
ThreadsPerChild 128
MaxRequestWorkers 2048
MinSpareThreads 64
MaxSpareThreads 2048
{tls}
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
    name, program, users = "lighttpd", "lighttpd", USERS
    tls_module = "/usr/lib/lighttpd/mod_openssl.so"

    def command(self):
        users = {self.user: self.password, **self.passwords}
        passwords = self.file("passwords", "".join(f"{name}:{word}\n" for name, word in users.items()), 0o600)
        tls = (f'server.modules += ("mod_openssl")\nssl.engine = "enable"\nssl.pemfile = "{self.tls[0]}"\n'
               f'ssl.privkey = "{self.tls[1]}"') if self.tls else ""
        config = self.file("lighttpd.conf", f"""
server.modules = ("mod_auth", "mod_authn_file", "mod_webdav")
server.document-root = "{self.data}"
server.bind = "127.0.0.1"
server.port = {self.port}
server.upload-dirs = ("{self.temporary}")
server.max-keep-alive-requests = 60000
server.max-keep-alive-idle = 3600
server.max-fds = 16384
{tls}
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
    name, program, version_flags, users = "rclone", "rclone", ["version"], USERS
    serve = "webdav"

    def environment(self):
        return {"RCLONE_CONFIG": str(self.state / "rclone.conf"), "XDG_CACHE_HOME": str(self.state / "cache")}

    def command(self):
        self.file("rclone.conf", "")
        tls = ["--cert", str(self.tls[0]), "--key", str(self.tls[1])] if self.tls else []
        return [self.executable(), "serve", self.serve, str(self.data), "--addr", f"127.0.0.1:{self.port}",
                "--cache-dir", str(self.state / "cache"), *self.credentials(), *tls]

    def credentials(self):
        return ["--htpasswd", str(self.file("htpasswd", self.sha_lines()))]


class RcloneSftp(RcloneDav):
    """rclone serve sftp over a local folder."""
    protocol, serve, users = "sftp", "sftp", 0

    def credentials(self):
        return ["--user", self.user, "--pass", self.password]


class Dufs(Peer):
    """dufs, where it is installed."""
    name, program, version_flags = "dufs", "dufs", ["--version"]

    def command(self):
        tls = ["--tls-cert", str(self.tls[0]), "--tls-key", str(self.tls[1])] if self.tls else []
        return [self.executable(), str(self.data), "--bind", "127.0.0.1", "--port", str(self.port), "--allow-all",
                "--auth", f"{self.user}:{self.password}@/:rw", "--log-format", "", *tls]


class SftpGoDav(Peer):
    """SFTPGo in portable mode: WebDAV."""
    name, program, version_flags = "sftpgo", "sftpgo", ["--version"]

    def ports(self):
        tls = ["--webdav-cert", str(self.tls[0]), "--webdav-key", str(self.tls[1])] if self.tls else []
        return ["--sftpd-port", "-1", "--webdav-port", str(self.port), *tls]

    def command(self):
        return [self.executable(), "portable", "--directory", str(self.data), "--username", self.user, "--password",
                self.password, "--permissions", "*", "--log-level", "error", *self.ports()]


class SftpGoSftp(SftpGoDav):
    """SFTPGo in portable mode: SFTP."""
    protocol = "sftp"

    def ports(self):
        return ["--sftpd-port", str(self.port)]


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
MaxStartups 1000
MaxSessions 100
LogLevel ERROR
Subsystem sftp internal-sftp -d {self.data}
ForceCommand internal-sftp -d {self.data}
""")
        return [self.executable(), "-D", "-e", "-f", str(config)]

    def endpoint(self, name=None):
        return Sftp(name or self.name, "127.0.0.1", self.port, self.user, identity=str(self.state / "login"),
                    pid=self.process.pid, version=tool_version("ssh", "-V"))


PEERS = {"dav": {p.name: p for p in (Nginx, Apache, Lighttpd, RcloneDav, Dufs, SftpGoDav)},
         "sftp": {p.name: p for p in (OpenSsh, RcloneSftp, SftpGoSftp)}}
# By their names on the command line: a server of both protocols has another one for SFTP.
PROGRAMS = {**PEERS["dav"], "openssh": OpenSsh, "rclone-sftp": RcloneSftp, "sftpgo-sftp": SftpGoSftp}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    actions = parser.add_subparsers(dest="action", required=True)
    actions.add_parser("list")
    run = actions.add_parser("run")
    run.add_argument("name", choices=PROGRAMS)
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
        with PROGRAMS[args.name](args.data, args.user, args.password) as peer:
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
