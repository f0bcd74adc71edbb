"""The WebDAV cases with many clients at once: 64 credentials, ten downloads, and sync clients at their day's work."""

import os
import statistics
import subprocess
from collections import Counter, deque
from pathlib import Path

from cases import COMMAND_LIMIT, Failed, Missing, case
from dav_cases import count_entries, latencies, wrk
from load import pump_each, raw_request
from shared import MIB

CLIENTS = 64
DOWNLOADS = 10
DEVICES = 4

# wrk calls setup() for each of its threads, and init() in it before it forms the request. A thread has one connection here.
WRK_SCRIPT = """
local number, authorizations = 0, {%s}
function setup(thread)
  number = number + 1
  thread:set("authorization", authorizations[number])
end
function init(args)
  wrk.headers["Authorization"] = authorization
end
"""


def authorizations(t):
    """64 credentials of the server."""
    if len(getattr(t.end, "authorizations", [])) < CLIENTS:
        raise Missing(f"it was not given {CLIENTS} credentials")
    t.once("credentials", lambda: [t.ask("HEAD", headers={"Authorization": a}, expect=None) for a in t.end.authorizations])
    return t.end.authorizations[:CLIENTS]


@case("dav-get-4k-64", "req/s", higher=True, per="1,000 requests")
def get_4k_64(t):
    """GET of a 4 KiB file with wrk over 64 kept connections, each with credentials of its own in every request."""
    script = t.local / "credentials.lua"
    script.write_text(WRK_SCRIPT % ", ".join(f'"{a}"' for a in authorizations(t)))
    t.once("small", lambda: t.ask("PUT", "small.dat", os.urandom(4096)))
    return wrk(t, t.path("small.dat"), f"-t{CLIENTS}", f"-c{CLIENTS}", "-s", str(script))


@case("dav-put-4k-64", "req/s", higher=True, per="1,000 requests")
def put_4k_64(t):
    """PUT of 64 times 40 new 4 KiB files over 64 kept connections, each with credentials of its own; the median of three."""
    each, body, rates, times = 40, os.urandom(4096), [], []
    for _ in range(3):
        t.fresh("many/")
        t.ask("MKCOL", "many/")
        queues = [deque(raw_request(t.end, "PUT", t.path(f"many/file-{i:02}-{j:03}.dat"), body, authorization=authorization)
                        for j in range(each)) for i, authorization in enumerate(authorizations(t))]
        with t.meter() as m:
            answers = pump_each(t.end, queues)
        if set(answers.statuses) - {200, 201, 204} or len(answers.times) != CLIENTS * each:
            raise Failed(f"PUT: statuses {dict(answers.statuses)}")
        rates.append(CLIENTS * each / m.seconds)
        times += answers.times
    if (found := count_entries(t, "many/")) not in (CLIENTS * each, CLIENTS * each + 1):
        raise Failed(f"{found} of {CLIENTS * each} files arrived")
    if t.ask("GET", f"many/file-{CLIENTS - 1:02}-{each - 1:03}.dat")[1] != body:
        raise Failed("the last file differs from what was written")
    t.fresh("many/")
    return statistics.median(rates), {"work": CLIENTS * each / 1000, **latencies(times)}


@case("dav-get-big-10", "MiB/s", higher=True)
def get_big_10(t):
    """Ten GETs of the big file at once, with ten curls: the bytes of all over the time until the last is done."""
    t.once("big", t.big)
    command = ["curl", "-sS", "-f", "-o", "/dev/null", "-w", "%{size_download}", "--max-time", str(COMMAND_LIMIT), "-H",
               f"Authorization: {t.end.authorization}", t.end.at(t.path("big.bin"))]
    with t.meter() as m:
        running = [subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE) for _ in range(DOWNLOADS)]
        sizes = [int(process.communicate()[0] or 0) for process in running]
    if any(process.returncode for process in running) or sizes != [t.options.size_mib * MIB] * DOWNLOADS:
        raise Failed(f"of ten downloads, {sizes.count(t.options.size_mib * MIB)} came whole")
    return DOWNLOADS * t.options.size_mib / m.seconds, {"work": DOWNLOADS * t.options.size_mib / 1024}


def recorded_day():
    """The requests in mixed_day.txt: those that make the folder, and those of the day."""
    lines = (Path(__file__).parent / "mixed_day.txt").read_text().splitlines()
    made, day = "\n".join(line for line in lines if not line.startswith("#")).split("\n---\n")
    return [line.split() for line in made.splitlines()], [line.split() for line in day.splitlines()]


class Due:
    """What is due of requests: how many answers of each kind, the bytes that are read, and the sizes that files then have."""

    def __init__(self, lines, sizes=None):
        self.kinds, self.read, self.sizes = Counter(), 0, dict(sizes or {})
        for method, path, *more in lines:
            kind = "written"
            if method == "PUT":
                self.sizes[path] = int(more[0])
            elif method == "MOVE":
                self.sizes[more[0]] = self.sizes.pop(path)
            elif method == "DELETE":
                del self.sizes[path]
            elif method == "GET":
                kind, self.read = 200, self.read + self.sizes[path]
            elif more != ["201"]:
                kind = int(more[0])
            self.kinds[kind] += 1


def as_requests(t, folder, lines, authorization):
    """The lines as the bytes that the device of this folder sends."""
    for method, path, *more in lines:
        headers = {"Depth": "1"} if method == "PROPFIND" else {}
        if method == "MOVE":
            headers = {"Destination": t.end.at(t.path(f"{folder}/{more[0]}")), "Overwrite": "T"}
        body = os.urandom(int(more[0])) if method == "PUT" else b""
        yield raw_request(t.end, method, t.path(f"{folder}/{'' if path == '.' else path}"), body, headers, authorization)


def play(t, lines, due):
    """Every device sends its requests in turn, over a connection of its own; fails where the answers are not those due."""
    credentials = getattr(t.end, "authorizations", None) or [t.end.authorization] * DEVICES
    queues = [deque(as_requests(t, f"day/device-{i}", lines, credentials[i])) for i in range(DEVICES)]
    with t.meter() as m:
        answers = pump_each(t.end, queues)
    got, read = Counter(answers.statuses), answers.bytes[200]
    got["written"] = got.pop(201, 0) + got.pop(204, 0)
    if not got[405]:                # rclone's server answers 201 for a folder that there is
        got[405] = due.kinds[405] * DEVICES
        got["written"] -= got[405]
    if +got != Counter({kind: count * DEVICES for kind, count in (+due.kinds).items()}) or read != due.read * DEVICES:
        raise Failed(f"answers {dict(got)} with {read} bytes read; due {dict(due.kinds)} with {due.read}, {DEVICES} times")
    return m.seconds, answers.times


@case("dav-mixed-day", "req/s", higher=True, per="1,000 requests")
def mixed_day(t):
    """A recorded day of a sync client (half PROPFINDs; PUT, GET, MOVE, DELETE), played by four devices at once, each over a
    kept connection of its own and in a folder of its own."""
    made, day = recorded_day()
    t.fresh("day/")
    t.ask("MKCOL", "day/")
    for i in range(DEVICES):
        t.ask("MKCOL", f"day/device-{i}/")
    play(t, made, before := Due(made))
    seconds, times = play(t, day, after := Due(day, before.sizes))
    for path in list(after.sizes)[::10]:
        if len(t.ask("GET", f"day/device-{DEVICES - 1}/{path}")[1]) != after.sizes[path]:
            raise Failed(f"{path} has another length in the end")
    t.fresh("day/")
    return DEVICES * len(day) / seconds, {"work": DEVICES * len(day) / 1000, **latencies(times)}
