"""The cases of the sync-collection report (RFC 6578), as multiples of a PROPFIND of the same folder: few servers have it."""

import itertools
import os
import re
import statistics
import time

from cases import Failed, Missing, case
from dav_cases import PROPFIND, propfind

COUNT = 100000
COPY_NUMBERS = itertools.count()
SUPPORTED = b'<propfind xmlns="DAV:"><prop><supported-report-set/></prop></propfind>'
PROPERTIES = re.search(rb"<D:prop>.*</D:prop>", PROPFIND, re.S)[0]


def folder(t):
    """The folder of 100,000 files, where the server says that it can report on it."""
    t.once("list-100k/", lambda: t.folder_of("list-100k/", COUNT, 16))
    _, answer = t.ask("PROPFIND", "list-100k/", SUPPORTED, {"Depth": "0", "Content-Type": "application/xml"}, expect=(207,))
    if b"sync-collection" not in answer:
        raise Missing("no sync-collection")
    return "list-100k/"


def report(t, name, token):
    """What changed since the token, page after page: (its seconds, hrefs, next token, bytes of the answers)."""
    hrefs, size, seconds, more = [], 0, 0.0, True
    while more:
        body = (b'<D:sync-collection xmlns:D="DAV:"><D:sync-token>' + token + b"</D:sync-token>"
                b"<D:sync-level>1</D:sync-level>" + PROPERTIES + b"</D:sync-collection>")
        start = time.perf_counter()
        _, answer = t.ask("REPORT", name, body, {"Depth": "0", "Content-Type": "application/xml"}, expect=(207,))
        seconds += time.perf_counter() - start
        size += len(answer)
        found = re.search(rb"<(?:\w+:)?sync-token>([^<]+)</", answer)
        more = b"number-of-matches-within-limits" in answer
        if not found or more and found[1] == token:
            raise Failed("the report has no new sync token")
        token = found[1]
        own = f"/{name}</".encode()
        hrefs += [h for h in re.findall(rb"<(?:\w+:)?href>([^<]+</)", answer) if not h.endswith(own)]
    return seconds, hrefs, token, size


def full_report(t, name):
    """A report without a token: its milliseconds over those of a PROPFIND, and the figures besides."""
    listing = propfind(t, name, COUNT)[0]
    with t.meter():
        seconds, hrefs, _, size = report(t, name, b"")
    if len(hrefs) != COUNT or len(set(hrefs)) != COUNT:
        raise Failed(f"the report lists {len(hrefs)} of {COUNT} files")
    return seconds / listing, {"ms": seconds * 1000, "bytes": size, "work": COUNT / 1000}


@case("dav-sync-first-100k", "x PROPFIND", per="1,000 entries")
def sync_first(t):
    """A sync-collection report of 100,000 files, all its pages, of a folder that was never reported on, over the time of a
    PROPFIND of the folder with the same properties."""
    folder(t)
    # Another name each time: the server remembers what it reported of a folder that was at this path before.
    name = f"copy-100k-{next(COPY_NUMBERS)}/"
    t.copy("list-100k/", name)
    result = full_report(t, name)
    t.fresh(name)
    return result


@case("dav-sync-full-100k", "x PROPFIND", per="1,000 entries")
def sync_full(t):
    """A sync-collection report without a token of 100,000 files in a folder that was reported on before, as a second
    device asks for, over the time of a PROPFIND of the folder with the same properties."""
    name = folder(t)
    t.once("reported", lambda: report(t, name, b""))
    return full_report(t, name)


@case("dav-sync-delta-100k", "x PROPFIND", per="1,000 reports")
def sync_delta(t):
    """A sync-collection report after one of 100,000 files was written, over the time of a PROPFIND of the folder with the
    same properties; the median of three."""
    name, reports, listings = folder(t), [], []
    token = report(t, name, b"")[2]
    for number in range(3):
        listings.append(propfind(t, name, COUNT)[0])
        changed = f"file-{number * 33333:05}.dat"
        t.ask("PUT", name + changed, os.urandom(17 + number))
        with t.meter():
            seconds, hrefs, token, _ = report(t, name, token)
        if len(hrefs) != 1 or not hrefs[0].endswith(f"/{changed}</".encode()):
            raise Failed(f"the report lists {len(hrefs)} changed files, not the one")
        reports.append(seconds)
    return statistics.median(reports) / statistics.median(listings), \
        {"ms": statistics.median(reports) * 1000, "work": .001}
