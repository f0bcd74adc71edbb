"""The SFTP cases with 16 sessions at once."""

import shutil
import subprocess
import threading

from cases import COMMAND_LIMIT, Failed, case

SESSIONS = 16


class Session:
    """An sftp client that takes its commands one by one."""

    def __init__(self, t):
        self.log = open(t.local / f"errors-{t.name}", "ab")
        self.process = subprocess.Popen([*t.end.command("sftp", "-oBatchMode=no", "-b", "-"), "target"], env=t.end.env(),
                                        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.log)
        self.limit = threading.Timer(COMMAND_LIMIT, self.process.kill)
        self.limit.start()

    def say(self, line=""):
        self.process.stdin.write(f"{line}\npwd\n".encode())
        self.process.stdin.flush()

    def wait(self):
        """Waits until what was said last is done; the client ends where it fails."""
        for line in self.process.stdout:
            if line.startswith(b"Remote working directory"):
                return
        raise Failed("a session of 16 ended early")

    def close(self):
        self.process.stdin.close()
        self.process.stdout.read()
        code = self.process.wait()
        self.limit.cancel()
        self.log.close()
        return code


def all_at_once(t, command):
    """Gives each of 16 sessions, when all are logged in, its command by number: the meter over the time until all are done."""
    sessions = [Session(t) for _ in range(SESSIONS)]
    try:
        for s in sessions:
            s.say()
        for s in sessions:
            s.wait()
        with t.meter() as m:
            for i, s in enumerate(sessions):
                s.say(command(i))
            for s in sessions:
                s.wait()
    finally:
        codes = [s.close() for s in sessions]
    if any(codes):
        raise Failed(f"{sum(map(bool, codes))} of 16 sessions failed")
    return m.seconds


@case("sftp-put-small-16", "files/s", higher=True, per="1,000 files")
def put_small_16(t):
    """put -r of a folder of 100 files of 4 KiB by each of 16 sftp clients at once, logged in before."""
    each = t.options.small_files // 10
    seconds = all_at_once(t, lambda i: f"put -r {t.local}/part {t.folder}/up-{i}")
    listing = t.batch(*[f"ls -ln {t.folder}/up-{i}" for i in range(SESSIONS)])
    t.batch(*[line for i in range(SESSIONS) for line in (f"rm {t.folder}/up-{i}/*", f"rmdir {t.folder}/up-{i}")])
    if (found := sum(b" 4096 " in line for line in listing.splitlines())) != SESSIONS * each:
        raise Failed(f"{found} of {SESSIONS * each} files arrived whole")
    return SESSIONS * each / seconds, {"work": SESSIONS * each / 1000}


@case("sftp-get-small-16", "files/s", higher=True, per="1,000 files")
def get_small_16(t):
    """get -r of a folder of 100 files of 4 KiB by each of 16 sftp clients at once, logged in before."""
    each, target = t.options.small_files // 10, t.local / f"got-{t.name}"
    t.once("part", lambda: t.put_folder("part", "part"))
    target.mkdir()
    try:
        seconds = all_at_once(t, lambda i: f"get -r {t.folder}/part {target}/{i}")
        found = sum(path.stat().st_size == 4096 for path in target.glob("*/*"))
    finally:
        shutil.rmtree(target)
    if found != SESSIONS * each:
        raise Failed(f"{found} of {SESSIONS * each} files arrived whole")
    return SESSIONS * each / seconds, {"work": SESSIONS * each / 1000}
