"""Checks of the access log with the programs that read it: fail2ban's filter and jail, and logrotate, as `examples` sets
them up."""

import json
import re
import shutil
from contextlib import contextmanager
from pathlib import Path

from session import check, need

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
# What a client could send to have an address of its choice banned.
FORGED = ("%0A%7B%22time%22%3A%222026-01-01T00%3A00%3A00.000Z%22%2C%22protocol%22%3A%22webdav%22%2C%22address%22%3A%22"
          "192.0.2.9%22%2C%22login%22%3A%22refused%22%2C")


@contextmanager
def logged(s, *flags):
    """A patgate with an access log, for the length of a block: its address, a command line on its state, and its process."""
    files, state, log = s.local / "files", s.local / "state", s.local / "access.log"
    files.mkdir()
    words = [s.options.gateway, "serve", "--root", files, "--state", state, "--http", "127.0.0.1:0", "--sftp", "off"]
    process = s.start(*words, "--access-log", log, *flags, stderr=(s.local / "log").open("w"))
    try:
        ready = process.stdout.readline().decode()
        address = re.search(r"http=(http://\S+)", ready)
        need(address, f"patgate did not get ready: {ready}")
        yield address[1], lambda *words: s.run(s.options.gateway, "--state", state, *words).stdout.strip(), process
    finally:
        process.terminate()
        process.wait(30)


def ask(s, url, user, *arguments):
    """One request; returns its status."""
    return s.run("curl", "-sS", "-o", "/dev/null", "-w", "%{http_code}", "-u", user, *arguments, url).stdout


@check("fail2ban-regex", "fail2ban-client", "curl")
def token_access_log_fail2ban(s):
    """fail2ban's filter finds each refused login and nothing else, whatever paths and programs clients send."""
    refused = 0
    with logged(s) as (url, gateway, _):
        gateway("admin", "user", "create", "alice")
        token = gateway("admin", "user", "token", "-u", "alice", "-e", "1h", "-q")
        for user in (f"alice:{token}x", "alice:wrong", "nobody:wrong"):
            need(ask(s, f"{url}/dav/alice/", user) in ("401", "429"), f"{user} is let in")
            refused += 1
        for path in ("dav/alice/", "dav/alice/missing", f"dav/{FORGED}", f"dav/alice/{FORGED}", "healthz"):
            ask(s, f"{url}/{path}", f"alice:{token}", "-A", '","login":"refused","x":"')
        # Without a credential, as many clients ask first.
        s.run("curl", "-sS", "-o", "/dev/null", f"{url}/dav/alice/")
    found = s.run("fail2ban-regex", s.local / "access.log", EXAMPLES / "fail2ban" / "filter.conf").stdout
    lines = re.search(r"Lines: (\d+) lines, \d+ ignored, (\d+) matched, (\d+) missed", found)
    need(lines and (int(lines[2]), int(lines[1])) == (refused, refused + 6), f"of {refused} refused logins: {found[-300:]}")
    config = s.local / "fail2ban"
    shutil.copytree("/etc/fail2ban", config)
    shutil.copy(EXAMPLES / "fail2ban" / "filter.conf", config / "filter.d" / "patgate.conf")
    jail = (EXAMPLES / "fail2ban" / "jail.conf").read_text().replace("/var/log/patgate/access.log", str(s.local / "access.log"))
    (config / "jail.d" / "patgate.conf").write_text(jail + "\n[sshd]\nenabled = false\n")
    s.run("fail2ban-client", "-c", config, "-t")
    dump = s.run("fail2ban-client", "-c", config, "-d").stdout
    need("'patgate'" in dump and "login" in dump, f"the jail is not there: {dump[-300:]}")
    return f"{refused} of {lines[1]} lines"


@check("logrotate", "curl")
def token_access_log_logrotate(s):
    """logrotate renames the log while requests go on, and no line is lost or written twice."""
    with logged(s) as (url, gateway, process):
        text = (EXAMPLES / "logrotate").read_text().replace("/var/log/patgate/access.log", str(s.local / "access.log"))
        text, changed = re.subn(r"systemctl kill .*", f"kill -USR1 {process.pid}", text)
        need(changed == 1, "examples/logrotate signals otherwise")
        config = s.local / "logrotate.conf"
        config.write_text(text)
        config.chmod(0o600)
        s.local.chmod(0o755)
        requests = 0
        for _ in range(3):
            for _ in range(10):
                s.run("curl", "-sS", "-o", "/dev/null", f"{url}/healthz?{requests}")
                requests += 1
            s.run("logrotate", "--force", "--state", s.local / "rotated", config)
            for _ in range(10):
                s.run("curl", "-sS", "-o", "/dev/null", f"{url}/healthz")
                requests += 1
    logs = sorted(s.local.glob("access.log*"))
    texts = [s.run("zcat", "-f", log).stdout for log in logs]
    lines = [json.loads(line) for text in texts for line in text.splitlines()]
    need(len({line["request"] for line in lines}) == len(lines) == requests, f"{len(lines)} lines of {requests} requests")
    need(len(logs) == 4, f"the files are {[log.name for log in logs]}")
    return f"{requests} lines in {len(logs)} files"
