"""The WebDAV cases."""

import os
import re
import statistics
import time

from cases import COMMAND_LIMIT, Failed, Target, case, run, settle
from load import percentile, pump, raw_request
from shared import MIB, request, sha256

PROPFIND = b"""<?xml version="1.0" encoding="utf-8"?><D:propfind xmlns:D="DAV:"><D:prop><D:displayname/><D:resourcetype/>
<D:getcontentlength/><D:getlastmodified/><D:getetag/><D:getcontenttype/></D:prop></D:propfind>"""


class DavTarget(Target):

    def path(self, name=""):
        return f"{self.folder}/{name}"

    def ask(self, method, name="", body=None, headers=None, expect=(200, 201, 204, 207), timeout=COMMAND_LIMIT):
        status, head, content = request(self.end, method, self.path(name), body, headers, timeout)
        if expect and status not in expect:
            raise Failed(f"{method} {name or 'folder'}: status {status}")
        return head, content

    curl_options = []       # those that the protocol below takes

    def curl(self, *arguments):
        """One curl transfer: its seconds, by curl's own clock."""
        out = run(["curl", "-sS", "-o", "/dev/null", "-w", "%{http_code} %{time_total}", "--max-time", str(COMMAND_LIMIT),
                   *self.curl_options, "-H", f"Authorization: {self.end.authorization}", *arguments], what="curl")
        status, seconds = out.split()
        if status not in (b"200", b"201", b"204"):
            raise Failed(f"curl: status {status.decode()}")
        return float(seconds)

    def put_many(self, folder, count, size, connections=8, first=0):
        body = os.urandom(size)
        requests = [raw_request(self.end, "PUT", self.path(f"{folder}file-{i:05}.dat"), body)
                    for i in range(first, first + count)]
        answers = pump(self.end, requests, connections)
        if set(answers.statuses) - {200, 201, 204} or len(answers.times) != count:
            raise Failed(f"PUT: statuses {dict(answers.statuses)}")
        return answers.times

    def begin(self):
        self.ask("MKCOL", expect=(201,))

    def end_all(self):
        self.ask("DELETE", expect=None)

    def big(self):
        """The big file, on the server, checked whole by its digest."""
        source = self.local / "big"
        self.curl("-T", str(source), self.end.at(self.path("big.bin")))
        self.verify("big.bin")

    def verify(self, name):
        copy = self.local / f"check-{self.name}"
        run(["curl", "-sS", "-f", "-o", str(copy), *self.curl_options, "-H", f"Authorization: {self.end.authorization}",
             self.end.at(self.path(name))], what="curl")
        same = sha256(copy) == self.options.big_sum
        copy.unlink()
        if not same:
            raise Failed(f"{name}: the content read back differs from what was written")

    def fresh(self, name):
        """Removes what a former round left at the name, and lets the disk come to rest."""
        self.ask("DELETE", name, expect=None)
        settle(self.local)

    def folder_of(self, name, count, size):
        self.ask("MKCOL", name)
        self.put_many(name, count, size)

    def tree(self):
        self.ask("MKCOL", "tree/")
        for part in range(10):
            self.ask("MKCOL", f"tree/part-{part}/")
            self.put_many(f"tree/part-{part}/", self.options.small_files // 10, 4096)

    def copy(self, source, destination):
        self.ask("COPY", source, headers={"Destination": self.end.at(self.path(destination)), "Overwrite": "T"},
                 expect=(200, 201, 204))


@case("dav-get-big", "MiB/s", higher=True)
def dav_get_big(t):
    """GET of the big file with curl."""
    t.once("big", t.big)
    with t.meter():
        seconds = t.curl(t.end.at(t.path("big.bin")))
    return t.options.size_mib / seconds, {"work": t.options.size_mib / 1024}


@case("dav-put-big", "MiB/s", higher=True)
def dav_put_big(t):
    """PUT of the big file with curl, to a name that does not exist."""
    t.fresh("up.bin")
    with t.meter():
        seconds = t.curl("-T", str(t.local / "big"), t.end.at(t.path("up.bin")))
    t.once("verified put", lambda: t.verify("up.bin"))
    t.fresh("up.bin")
    return t.options.size_mib / seconds, {"work": t.options.size_mib / 1024}


def wrk(t, path, *options, env=None):
    """Requests of wrk, all for one file of 4 KiB: the rate, and the latencies."""
    with t.meter():
        text = run(["wrk", f"-d{t.options.wrk_seconds}s", "--latency", "--timeout", "5s", *options, t.end.at(path)],
                   env).decode()
    if found := re.search(r"Non-2xx.*|Socket errors.*", text):
        raise Failed(f"wrk: {found[0].strip()}")
    requests, seconds = re.search(r"(\d+) requests in ([\d.]+)s", text).groups()
    received, scale = re.search(r"Transfer/sec:\s+([\d.]+)([KMG])B", text).groups()
    if float(received) * _WRK_SIZES[scale] * float(seconds) < .98 * int(requests) * 4096:
        raise Failed("wrk: the answers are shorter than the file")
    more = {"work": int(requests) / 1000}
    for share in ("50", "99"):
        value, unit = re.search(rf"^\s+{share}%\s+([\d.]+)(us|ms|s|m)\b", text, re.M).groups()
        more[f"p{share}_ms"] = float(value) * _WRK_UNITS[unit]
    return float(re.search(r"Requests/sec:\s+([\d.]+)", text)[1]), more


_WRK_SIZES = {"K": 1024, "M": MIB, "G": 1024 * MIB}
_WRK_UNITS = {"us": 0.001, "ms": 1.0, "s": 1000.0, "m": 60000.0}


@case("dav-get-4k", "req/s", higher=True, per="1,000 requests")
def dav_get_4k(t):
    """GET of a 4 KiB file with wrk over 16 kept connections, with credentials in every request."""
    t.once("small", lambda: t.ask("PUT", "small.dat", os.urandom(4096)))
    return wrk(t, t.path("small.dat"), "-t1", "-c16", "-H", f"Authorization: {t.end.authorization}")


@case("dav-put-4k", "req/s", higher=True, per="1,000 requests")
def dav_put_4k(t):
    """PUT of 1,000 new 4 KiB files over 8 kept connections; the median of three such loads."""
    seconds, times = [], []
    for _ in range(3):
        t.fresh("many/")
        t.ask("MKCOL", "many/")
        with t.meter():
            start = time.perf_counter()
            times += t.put_many("many/", t.options.small_files, 4096)
            seconds.append(time.perf_counter() - start)
        _, content = t.ask("GET", f"many/file-{t.options.small_files - 1:05}.dat")
        if len(content) != 4096:
            raise Failed("the last file is not as long as it was written")
    t.fresh("many/")
    return t.options.small_files / statistics.median(seconds), \
        {"work": t.options.small_files / 1000, **latencies(times)}


def latencies(times):
    """p50 and p99 of the seconds that requests took."""
    times = sorted(times)
    return {"p50_ms": percentile(times, .5) * 1000, "p99_ms": percentile(times, .99) * 1000}


def propfind(t, name, count):
    """One listing of a folder whose files are numbered: its seconds and the bytes of the answer."""
    start = time.perf_counter()
    _, answer = t.ask("PROPFIND", name, PROPFIND, {"Depth": "1", "Content-Type": "application/xml"}, expect=(207,))
    seconds = time.perf_counter() - start
    entries = len(re.findall(rb"</(?:\w+:)?response>", answer))
    if entries not in (count, count + 1):
        raise Failed(f"PROPFIND lists {entries} of {count} entries")
    return seconds, len(answer)


def propfinds(t, name, count):
    t.once(name, lambda: t.folder_of(name, count, 16))
    with t.meter():
        answers = [propfind(t, name, count) for _ in range(3)]
    return statistics.median(seconds for seconds, _ in answers) * 1000, \
        {"bytes": answers[0][1], "work": 3 * count / 1000}


@case("dav-propfind-1k", "ms", per="1,000 entries")
def dav_propfind_1k(t):
    """PROPFIND depth 1 of 1,000 files, six properties; the median of three requests."""
    return propfinds(t, "list-1k/", 1000)


@case("dav-propfind-10k", "ms", per="1,000 entries")
def dav_propfind_10k(t):
    """PROPFIND depth 1 of 10,000 files, six properties; the median of three requests."""
    return propfinds(t, "list-10k/", 10000)


@case("dav-propfind-100k", "ms", per="1,000 entries")
def dav_propfind_100k(t):
    """PROPFIND depth 1 of 100,000 files, six properties; the median of three requests."""
    return propfinds(t, "list-100k/", 100000)


def count_entries(t, name):
    """How many entries a PROPFIND of the folder lists; some servers count the folder itself."""
    _, body = t.ask("PROPFIND", name, PROPFIND, {"Depth": "1", "Content-Type": "application/xml"}, expect=(207,))
    return len(re.findall(rb"</(?:\w+:)?response>", body))


def copy_and_delete(t):
    """Copies and deletes the tree three times: the median milliseconds of each."""
    t.once("tree", t.tree)
    t.fresh("tree-copy/")
    copies, deletes = [], []
    with t.meter():
        for _ in range(3):
            copies.append(-time.perf_counter())
            t.copy("tree/", "tree-copy/")
            copies[-1] += time.perf_counter()
            if count_entries(t, "tree-copy/part-9/") < t.options.small_files // 10:
                raise Failed("the copied tree lacks files")
            deletes.append(-time.perf_counter())
            t.ask("DELETE", "tree-copy/", expect=(200, 204))
            deletes[-1] += time.perf_counter()
    return statistics.median(copies) * 1000, statistics.median(deletes) * 1000


@case("dav-copy-tree", "ms", per="1,000 files")
def dav_copy_tree(t):
    """COPY of a folder of 10 folders with 1,000 files of 4 KiB in all; the median of three.
    The CPU seconds hold three COPYs and three DELETEs."""
    return copy_and_delete(t)[0], {"work": 3 * t.options.small_files / 1000}


@case("dav-delete-tree", "ms", per="1,000 files")
def dav_delete_tree(t):
    """DELETE of such a tree; the median of three. The CPU seconds hold three COPYs and three DELETEs."""
    return copy_and_delete(t)[1], {"work": 3 * t.options.small_files / 1000}


@case("dav-copy-big", "MiB/s", higher=True)
def dav_copy_big(t):
    """COPY of the big file on the server."""
    t.once("big", t.big)
    t.fresh("big-copy.bin")
    with t.meter() as m:
        t.copy("big.bin", "big-copy.bin")
    head, _ = t.ask("HEAD", "big-copy.bin")
    if int(head["Content-Length"] or -1) != t.options.size_mib * MIB:
        raise Failed("the copy has another length")
    t.fresh("big-copy.bin")
    return t.options.size_mib / m.seconds, {"work": t.options.size_mib / 1024}
