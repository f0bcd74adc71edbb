"""The declaration of a check, and the session that it works with: endpoints, directories and commands."""

import os
import signal
import subprocess
import time

from endpoint import quote

CHECKS = {}
OLD = 981173106         # 2001-02-03 04:05:06 UTC, for modification times


class Fail(Exception):
    pass


class Skip(Exception):
    pass


class Absent(Skip):
    """The client cannot be installed here."""


def check(*tools):
    """Registers a check that needs these programs.

    Its name is the function's. The part before the first dash says what it runs on: `dav` the WebDAV endpoint, `sftp`
    the SFTP endpoint, `both` the two of them over one tree, `token` these and the gateway's command line."""
    def register(function):
        CHECKS[function.__name__.replace("_", "-")] = (function, tools)
        return function
    return register


def need(condition, reason):
    if not condition:
        raise Fail(reason)


def same(expected, found, what):
    """Both are {path: digest}; says what differs."""
    if expected != found:
        lacking, extra = sorted(expected.keys() - found.keys()), sorted(found.keys() - expected.keys())
        other = sorted(k for k in expected.keys() & found.keys() if expected[k] != found[k])
        parts = [f"{label} {names[:3]}{' and more' if len(names) > 3 else ''}"
                 for label, names in (("lacks", lacking), ("has besides", extra), ("differs in", other)) if names]
        raise Fail(f"{what}: {'; '.join(parts)}")


class Session:
    """The endpoints, a local folder, a remote folder of the check's own and a time limit."""

    def __init__(self, options, dav, sftp, local, remote):
        self.options, self.dav, self.sftp, self.local, self.remote = options, dav, sftp, local, remote
        self.deadline = time.monotonic() + options.timeout
        self.env = {**os.environ, "HOME": str(local), "LC_ALL": "C.UTF-8", "TZ": "UTC", "XDG_CACHE_HOME": str(local / "cache"),
                    "XDG_CONFIG_HOME": str(local / "config"), "GIT_CONFIG_COUNT": "1", "GIT_CONFIG_KEY_0": "safe.directory",
                    "GIT_CONFIG_VALUE_0": "*", "RCLONE_CONFIG": str(local / "rclone.conf")}
        if sftp:
            self.env["SSHPASS"] = sftp.password

    def start(self, *command, env=None, cwd=None, **more):
        """Starts a client in a process group of its own; whoever starts it also ends it."""
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **more}
        return subprocess.Popen([str(c) for c in command], env={**self.env, **(env or {})}, cwd=cwd or self.local,
                                start_new_session=True, **pipes)

    def run(self, *command, text="", expect=0, env=None, cwd=None, limit=None):
        """Runs a client; fails with its last words unless its exit code is as expected (None: any)."""
        limit = min(limit or 1e9, max(1, self.deadline - time.monotonic()))
        words = [str(c) for c in command]
        tool = next((w for w in words if w not in ("sshpass", "-e")), "?")
        process = self.start(*words, env=env, cwd=cwd)
        try:
            out, err = process.communicate(text.encode() if isinstance(text, str) else text, timeout=limit)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
            raise Fail(f"{tool}: not done within {limit:.0f} s") from None
        done = subprocess.CompletedProcess(words, process.returncode, *(x.decode(errors="replace") for x in (out, err)))
        done.raw = out
        if expect is not None and done.returncode != expect:
            last = [line for line in (done.stderr + "\n" + done.stdout).splitlines() if line.strip()][-3:]
            raise Fail(f"{tool}: exit {done.returncode}: {' | '.join(last)[:400]}")
        return done

    def url(self, path=""):
        return self.dav.at(quote(f"{self.remote}/{path}"))

    def curl(self, *arguments, text="", **more):
        return self.run("curl", "-sS", "--max-time", "60", "-H", f"Authorization: {self.dav.authorization}", *arguments,
                        text=text, **more)

    def status(self, *arguments, text=""):
        return int(self.curl("-o", "/dev/null", "-w", "%{http_code}", *arguments, text=text).stdout)

    def batch(self, *lines, options=(), expect=0):
        """The OpenSSH sftp client over the lines, started in this check's remote folder."""
        script = self.local / "batch"
        script.write_text("\n".join([f"cd {self.remote}", *lines]) + "\n")
        return self.run(*self.sftp.command("sftp", *options, "-oBatchMode=no", "-b", script), "target", expect=expect)

    def rclone(self, *arguments, **more):
        return self.run("rclone", "--retries", "1", "--low-level-retries", "3", "--timeout", "30s", "--contimeout", "10s",
                        "--ask-password=false", *arguments, **more)

    def basic(self):
        if not self.dav.password:
            raise Skip("this client only logs in with Basic, and no WebDAV password was given")
