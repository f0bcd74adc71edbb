"""The SFTP cases."""

import shutil
import subprocess
import threading
import time

from cases import COMMAND_LIMIT, Failed, Target, case, run, settle
from shared import MIB, sha256


class SftpTarget(Target):

    def batch(self, *lines, cipher=""):
        """One run of the sftp client over the lines; its output."""
        script = self.local / f"batch-{self.name}"
        script.write_text("\n".join(lines) + "\n")
        options = ["-oBatchMode=no", "-b", str(script)] + ([f"-oCiphers={cipher}"] if cipher else [])
        return run([*self.end.command("sftp", *options), "target"], self.end.env(), what="sftp")

    def timed(self, *lines, cipher=""):
        """A batch whose first line is the measured one: (its seconds, its output), login and leaving not included.

        The client shows each line as it starts it, so the time runs from the first line shown to the next."""
        script = self.local / f"batch-{self.name}"
        script.write_text("\n".join([*lines, "pwd"]) + "\n")
        options = ["-oBatchMode=no", "-b", str(script)] + ([f"-oCiphers={cipher}"] if cipher else [])
        shown, output, errors = [], [], self.local / f"errors-{self.name}"
        with open(errors, "wb") as log:
            process = subprocess.Popen([*self.end.command("sftp", *options), "target"], env=self.end.env(),
                                       stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=log)
            limit = threading.Timer(COMMAND_LIMIT, process.kill)
            limit.start()
            for line in process.stdout:
                if line.startswith(b"sftp>"):
                    shown.append(time.perf_counter())
                else:
                    output.append(line)
            code = process.wait()
            limit.cancel()
        if code or len(shown) != len(lines) + 1:
            last = errors.read_text(errors="replace").strip().splitlines()[-1:]
            raise Failed(f"sftp: exit {code} {' '.join(last)}")
        return shown[-1] - shown[0], b"".join(output)

    def begin(self):
        self.end.write_config(self.local)
        self.batch(f"mkdir {self.folder}")

    def end_all(self):
        lines = [f"-rm {self.folder}/*"]
        for name in self.ready & {"small", "list", "part"}:
            lines += [f"-rm {self.folder}/{name}/*", f"-rmdir {self.folder}/{name}"]
        self.batch(*lines, f"-rmdir {self.folder}")

    def big(self):
        self.batch(f"put {self.local}/big {self.folder}/big.bin")
        copy = self.local / f"check-{self.name}"
        self.batch(f"get {self.folder}/big.bin {copy}")
        same = sha256(copy) == self.options.big_sum
        copy.unlink()
        if not same:
            raise Failed("the content read back differs from what was written")

    def put_folder(self, local, name):
        self.batch(f"put -r {self.local}/{local} {self.folder}/{name}")


@case("sftp-connect", "ms", per="1,000 logins")
def sftp_connect(t):
    """Log in, ask for the start folder, leave. The other SFTP figures leave this part out."""
    with t.meter() as m:
        t.batch("pwd")
    return m.seconds * 1000, {"work": .001}


CIPHERS = {"aes": "aes128-gcm@openssh.com", "chacha": "chacha20-poly1305@openssh.com"}


def sftp_get_big(t, cipher):
    t.once("big", t.big)
    with t.meter():
        seconds, _ = t.timed(f"get {t.folder}/big.bin /dev/null", cipher=CIPHERS[cipher])
    return t.options.size_mib / seconds, {"work": t.options.size_mib / 1024}


def sftp_put_big(t, cipher):
    settle(t.local)
    with t.meter():
        seconds, _ = t.timed(f"put {t.local}/big {t.folder}/up.bin", cipher=CIPHERS[cipher])
    listing = t.batch(f"ls -ln {t.folder}/up.bin").split()
    t.batch(f"rm {t.folder}/up.bin")
    if str(t.options.size_mib * MIB).encode() not in listing:
        raise Failed("the file written has another length")
    return t.options.size_mib / seconds, {"work": t.options.size_mib / 1024}


@case("sftp-get-big-aes", "MiB/s", higher=True)
def sftp_get_aes(t):
    """get of the big file with the sftp client, cipher aes128-gcm."""
    return sftp_get_big(t, "aes")


@case("sftp-put-big-aes", "MiB/s", higher=True)
def sftp_put_aes(t):
    """put of the big file with the sftp client, cipher aes128-gcm."""
    return sftp_put_big(t, "aes")


@case("sftp-get-big-chacha", "MiB/s", higher=True)
def sftp_get_chacha(t):
    """get of the big file with the sftp client, cipher chacha20-poly1305."""
    return sftp_get_big(t, "chacha")


@case("sftp-put-big-chacha", "MiB/s", higher=True)
def sftp_put_chacha(t):
    """put of the big file with the sftp client, cipher chacha20-poly1305."""
    return sftp_put_big(t, "chacha")


@case("sftp-put-small", "files/s", higher=True, per="1,000 files")
def sftp_put_small(t):
    """put -r of a folder of 1,000 files of 4 KiB with the sftp client."""
    with t.meter():
        seconds, _ = t.timed(f"put -r {t.local}/small {t.folder}/up")
    found = t.batch(f"ls -1 {t.folder}/up").count(b".dat")
    t.batch(f"rm {t.folder}/up/*", f"rmdir {t.folder}/up")
    if found != t.options.small_files:
        raise Failed(f"{found} of {t.options.small_files} files arrived")
    return t.options.small_files / seconds, {"work": t.options.small_files / 1000}


@case("sftp-get-small", "files/s", higher=True, per="1,000 files")
def sftp_get_small(t):
    """get -r of a folder of 1,000 files of 4 KiB with the sftp client."""
    t.once("small", lambda: t.put_folder("small", "small"))
    target = t.local / f"got-{t.name}"
    with t.meter():
        seconds, _ = t.timed(f"get -r {t.folder}/small {target}")
    found = sum(path.stat().st_size == 4096 for path in target.iterdir())
    shutil.rmtree(target)
    if found != t.options.small_files:
        raise Failed(f"{found} of {t.options.small_files} files arrived whole")
    return t.options.small_files / seconds, {"work": t.options.small_files / 1000}


@case("sftp-ls-10k", "ms", per="1,000 names")
def sftp_ls_10k(t):
    """A listing of a folder of 10,000 files; five in one session, divided by five."""
    t.once("list", lambda: t.put_folder("list", "list"))
    with t.meter():
        seconds, out = t.timed(*[f"ls -1f {t.folder}/list"] * 5)
    if out.count(b"file-") != 50000:
        raise Failed(f"the listings hold {out.count(b'file-') // 5} of 10,000 names")
    return seconds * 1000 / 5, {"work": 50}
