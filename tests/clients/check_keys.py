"""Checks of tokens that an SSH key proves: OpenSSH with a file and with an agent that holds many keys, PuTTY, paramiko, lftp
and restic. Each has a server of its own, whose user has one such token."""

import json
import re
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

from files import random_file, sha256
from session import Absent, check, need

HERE = Path(__file__).resolve().parent
# In an agent before the right one; sshd's own limit would be six attempts.
OTHER_KEYS = 19


class KeyServer:
    """A server, and a user with a token that a new key proves."""

    def __init__(self, s, ready):
        self.s = s
        self.host, self.port = re.search(r"sftp=(\S+):(\d+)", ready).groups()
        self.key = s.local / "key"
        s.run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", self.key)
        self.gateway("admin", "user", "create", "alice")
        self.token = self.gateway("admin", "user", "token", "-u", "alice", "-e", "1h", "-q", "--ssh-key", f"{self.key}.pub")
        known = s.local / "known_hosts"
        lines = [line for line in s.run("ssh-keyscan", "-p", self.port, self.host).stdout.splitlines() if line[:1] != "#"]
        known.write_text("\n".join(lines) + "\n")
        self.options = ["-F", "none", "-oBatchMode=yes", f"-oUserKnownHostsFile={known}", "-oStrictHostKeyChecking=yes"]
        self.ssh = ["ssh", *self.options, "-p", self.port, "-i", str(self.key), "-oIdentitiesOnly=yes"]

    def gateway(self, *words):
        return self.s.run(self.s.options.gateway, "--state", self.s.local / "state", *words).stdout.strip()

    def sftp(self, commands, *options, expect=0, env=None):
        batch = self.s.local / "batch"
        batch.write_text(commands)
        words = ["sftp", *self.options, "-P", self.port, *options, "-b", batch, f"alice@{self.host}"]
        return self.s.run(*words, expect=expect, env=env)

    def with_key(self, commands, expect=0):
        return self.sftp(commands, "-i", self.key, "-oIdentitiesOnly=yes", expect=expect)


@contextmanager
def key_server(s):
    """A server of the check's own with one token that a key proves, for the length of a block."""
    (s.local / "files").mkdir()
    words = ["--root", s.local / "files", "--state", s.local / "state", "--http", "off", "--sftp", "127.0.0.1:0"]
    process = s.start(s.options.gateway, "serve", *words, stderr=(s.local / "log").open("w"))
    try:
        yield KeyServer(s, process.stdout.readline().decode())
    finally:
        process.terminate()
        process.wait(30)


@check("sftp", "scp", "ssh-keygen", "ssh-keyscan", "ssh-agent", "ssh-add")
def token_key_openssh(s):
    """OpenSSH: sftp and scp with the key's file; an agent in which it is the last of 20; no more once the token is revoked."""
    with key_server(s) as server:
        random_file(s.local / "file", 3_000_001)
        server.with_key(f"put {s.local}/file a\nget a {s.local}/back\n")
        need(sha256(s.local / "file") == sha256(s.local / "back"), "another content came back")
        s.run("scp", *server.options, "-P", server.port, "-i", server.key, s.local / "file", f"alice@{server.host}:b")

        agent = dict(re.findall(r"(SSH_\w+)=([^;]+);", s.run("ssh-agent", "-s").stdout))
        try:
            for number in range(OTHER_KEYS):
                path = s.local / f"other-{number}"
                s.run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", path)
                s.run("ssh-add", "-q", path, env=agent)
            need(server.sftp("ls\n", expect=None, env=agent).returncode != 0, "a key of no token is let in")
            s.run("ssh-add", "-q", server.key, env=agent)
            need("a" in server.sftp("ls\n", env=agent).stdout, "the agent's last key does not get in")
        finally:
            s.run("ssh-agent", "-k", env=agent)
        server.gateway("apitoken", "revoke", server.token)
        need(server.with_key("ls\n", expect=None).returncode != 0, "the key of a revoked token is let in")


@check("psftp", "puttygen", "ssh-keygen", "ssh-keyscan")
def token_key_putty(s):
    """PuTTY's psftp with its own form of the key."""
    with key_server(s) as server:
        ppk = s.local / "key.ppk"
        s.run("puttygen", server.key, "-o", ppk)
        fingerprints = [line.split()[1] for line in s.run("ssh-keygen", "-l", "-f", s.local / "known_hosts").stdout.splitlines()]
        (s.local / "file").write_text("content")
        (s.local / "batch").write_text(f"put {s.local}/file file\nls\nquit\n")
        keys = [word for fingerprint in fingerprints for word in ("-hostkey", fingerprint)]
        words = ["psftp", "-batch", "-P", server.port, "-i", ppk, *keys, "-b", s.local / "batch", f"alice@{server.host}"]
        need("file" in s.run(*words).stdout, "the file is not listed")
        need((s.local / "files" / "alice" / "file").read_text() == "content", "another content came over")


@check("ssh-keygen", "ssh-keyscan")
def token_key_paramiko(s):
    """paramiko with the key's file."""
    for python in (sys.executable, "/usr/bin/python3"):
        if not subprocess.run([python, "-W", "ignore", "-c", "import paramiko"], capture_output=True).returncode:
            break
    else:
        raise Absent("paramiko is not installed")
    with key_server(s) as server:
        program = ("import json, sys, paramiko\n"
                   "end = json.load(sys.stdin)\n"
                   "client = paramiko.SSHClient()\n"
                   "client.load_host_keys(end['known'])\n"
                   "client.connect(end['host'], int(end['port']), 'alice', key_filename=end['key'], allow_agent=False, "
                   "look_for_keys=False)\n"
                   "with client.open_sftp().open('file', 'w') as file: file.write('content')\n")
        end = {"host": server.host, "port": server.port, "key": str(server.key), "known": str(s.local / "known_hosts")}
        s.run(python, "-W", "ignore", "-c", program, text=json.dumps(end))
        need((s.local / "files" / "alice" / "file").read_text() == "content", "another content came over")


@check("lftp", "ssh", "ssh-keygen", "ssh-keyscan")
def token_key_lftp(s):
    """lftp through ssh with the key: mirror there and back."""
    with key_server(s) as server:
        (s.local / "tree" / "below").mkdir(parents=True)
        for name in ("a", "below/b"):
            random_file(s.local / "tree" / name, 100_001)
        program = f'set sftp:connect-program "{" ".join(server.ssh)} -a -x"; open -u alice, sftp://{server.host}; '
        s.run("lftp", "-c", program + f"mirror -R {s.local}/tree tree; mirror tree {s.local}/back; bye")
        for name in ("a", "below/b"):
            need(sha256(s.local / "tree" / name) == sha256(s.local / "back" / name), f"{name} came back with another content")


@check("restic", "ssh", "ssh-keygen", "ssh-keyscan")
def token_key_restic(s):
    """restic over SFTP with the key: init, backup, check, restore."""
    with key_server(s) as server:
        (s.local / "tree").mkdir()
        random_file(s.local / "tree" / "file", 2_000_001)
        command = " ".join([*server.ssh, f"alice@{server.host}", "-s", "sftp"])
        restic = ["restic", "-q", "-o", f"sftp.command={command}", "-r", "sftp:alice@host:repository"]
        env = {"RESTIC_PASSWORD": "secret", "RESTIC_CACHE_DIR": str(s.local / "cache")}
        s.run(*restic, "init", env=env)
        s.run(*restic, "backup", s.local / "tree", env=env)
        s.run(*restic, "check", "--read-data", env=env)
        s.run(*restic, "restore", "latest", "--target", s.local / "back", env=env)
        back = s.local / "back" / (s.local / "tree" / "file").relative_to("/")
        need(sha256(s.local / "tree" / "file") == sha256(back), "another content came back")


@check("sftp", "ssh-keygen", "ssh-keyscan")
def token_key_certificates(s):
    """OpenSSH with a user's certificate for a token, and with a certificate of the host key in place of a known one."""
    authority, user = s.local / "authority", s.local / "user"
    for path in (authority, user):
        s.run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", path)
    # The host keys come with the first start.
    with key_server(s):
        pass
    host_key = s.local / "host.pub"
    host_key.write_text(s.run("ssh-keygen", "-y", "-f", s.local / "state" / "ssh_host_ed25519_key").stdout)
    s.run("ssh-keygen", "-q", "-s", authority, "-h", "-I", "patgate", "-n", "127.0.0.1", "-V", "+1h", host_key)
    known = s.local / "authorities"
    known.write_text(f"@cert-authority * {Path(f'{authority}.pub').read_text()}")
    flags = ("--ssh-user-ca", f"{authority}.pub", "--ssh-host-certificates", s.local / "host-cert.pub")
    words = ["--root", s.local / "files", "--state", s.local / "state", "--http", "off", "--sftp", "127.0.0.1:0"]
    process = s.start(s.options.gateway, "serve", *words, *flags, stderr=(s.local / "log").open("w"))
    try:
        host, port = re.search(r"sftp=(\S+):(\d+)", process.stdout.readline().decode()).groups()
        create = ("admin", "user", "token", "-u", "alice", "-e", "1h", "-q")
        token = s.run(s.options.gateway, "--state", s.local / "state", *create).stdout[4:12]
        (s.local / "batch").write_text("mkdir made\n")
        options = ["-F", "none", "-oBatchMode=yes", f"-oUserKnownHostsFile={known}", "-oStrictHostKeyChecking=yes",
                   "-oHostKeyAlgorithms=ssh-ed25519-cert-v01@openssh.com", "-oIdentitiesOnly=yes", "-i", user]
        words = ["sftp", *options, "-P", port, "-b", s.local / "batch", f"alice@{host}"]
        certify = ["ssh-keygen", "-q", "-s", authority, "-I", "laptop", "-V", "+10m"]
        need(s.run(*words, expect=None).returncode != 0, "a key without a certificate is let in")
        s.run(*certify, "-n", "other", f"{user}.pub")
        need(s.run(*words, expect=None).returncode != 0, "a certificate for another principal is let in")
        s.run(*certify, "-n", f"other,{token}", f"{user}.pub")
        s.run(*words)
        need((s.local / "files" / "alice" / "made").is_dir(), "the certificate was not for alice's home")
        s.run(*certify, "-n", token, "-O", "force-command=/bin/sh", f"{user}.pub")
        need(s.run(*words, expect=None).returncode != 0, "a certificate for another command is let in")
    finally:
        process.terminate()
        process.wait(30)
