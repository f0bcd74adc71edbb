"""Checks of WebDAV with litmus, cadaver and curl. Mounts are in check_mounts.py, sync programs in check_sync.py."""

import os
import re
import time
import urllib.parse
import xml.etree.ElementTree as ET

from endpoint import request
from files import MIB, NAMES, random_file, sha256
from session import Skip, check, need

ALLOWED_WARNINGS = {"delete_fragment"}      # an HTTP library strips the fragment before the server sees the address


def litmus_remarks(text, word):
    """{test: what litmus remarked on it}, for the word FAIL, WARNING or SKIPPED."""
    found, test = {}, ""
    for line in text.splitlines():
        if started := re.match(r"\s*\d+\. ([a-z_0-9]+)", line):
            test = started[1]
        if remark := re.search(rf"\b{word}:? ?\(?(.*?)\)?$", line):
            found[test] = remark[1]
    return found


def litmus(s, suite):
    s.basic()
    done = s.run("litmus", "-k", s.url(), s.dav.user, s.dav.password, expect=None, limit=90,
                 env={"TESTS": suite, "HTDOCS": "/usr/share/litmus/htdocs"})
    text = done.stdout.replace("\r", "\n")
    found = re.search(r"of (\d+) tests run: (\d+) passed, (\d+) failed", text)
    need(found, "no summary: " + " ".join(text.split()[-20:]))
    ran, passed, failed = map(int, found.groups())
    failures, warnings, skipped = (litmus_remarks(text, word) for word in ("FAIL", "WARNING", "SKIPPED"))
    problems = [f"{kind} {test}: {remark}" for kind, remarks in
                (("FAIL", failures), ("WARNING", {t: r for t, r in warnings.items() if t not in ALLOWED_WARNINGS}),
                 ("SKIPPED", skipped)) for test, remark in remarks.items()]
    need(not failed and not problems, f"{passed} of {ran} passed: " + "; ".join(problems))
    return f"{passed} of {ran} passed" + (f", warned of {', '.join(warnings)}" if warnings else "")


@check("litmus")
def dav_litmus_basic(s):
    return litmus(s, "basic")


@check("litmus")
def dav_litmus_copymove(s):
    return litmus(s, "copymove")


@check("litmus")
def dav_litmus_props(s):
    return litmus(s, "props")


@check("litmus")
def dav_litmus_locks(s):
    return litmus(s, "locks")


@check("litmus")
def dav_litmus_http(s):
    return litmus(s, "http")


@check("cadaver")
def dav_cadaver(s):
    """A session of folders, uploads, copies, moves, a lock and removals."""
    s.basic()
    (s.local / ".netrc").write_text(f"machine {s.dav.host}\nlogin {s.dav.user}\npassword {s.dav.password}\n")
    (s.local / ".netrc").chmod(0o600)
    random_file(s.local / "up.bin", 3 * MIB + 5)
    lines = ["mkcol docs", "cd docs", "put up.bin one.bin", "ls", "copy one.bin two.bin", "move two.bin three.bin",
             "get three.bin back.bin", "lock one.bin", "unlock one.bin", "mkcol sub", "move three.bin sub", "delete one.bin",
             "ls sub", "cd ..", "rmcol docs", "quit"]
    out = s.run("cadaver", s.url(), text="\n".join(lines) + "\n").stdout
    bad = [line.strip() for line in out.splitlines() if re.search(r"failed|could not|denied", line, re.I)]
    need(not bad, " | ".join(bad)[:300])
    need((s.local / "back.bin").exists(), "nothing was downloaded: " + " ".join(out.split()[-12:]))
    need(sha256(s.local / "back.bin") == sha256(s.local / "up.bin"), "the file came back different")
    need(s.status(s.url("docs/")) == 404, "the removed folder is still there")
    return f"{out.count('succeeded')} commands succeeded"


@check("curl")
def dav_curl_auth(s):
    """No or wrong credentials are answered 401 with a challenge; the right ones are let in."""
    def status(*arguments):
        done = s.run("curl", "-sS", "-D", "head", "-o", "/dev/null", "-w", "%{http_code}", "--max-time", "30",
                     *arguments, s.url())
        return int(done.stdout), (s.local / "head").read_text()
    code, head = status("-X", "PROPFIND", "-H", "Depth: 0")
    need(code == 401, f"without credentials: status {code} in place of 401")
    need(re.search(r"^www-authenticate:.*basic", head, re.I | re.M), "the 401 lacks a WWW-Authenticate header with Basic")
    code, _ = status("-X", "PROPFIND", "-H", "Depth: 0", "-u", f"{s.dav.user or 'x'}:wrong-{os.urandom(4).hex()}")
    need(code == 401, f"wrong password: status {code} in place of 401")
    need(s.status("-X", "PROPFIND", "-H", "Depth: 0", s.url()) == 207, "the right credentials are not let in")


@check("curl")
def dav_curl_bearer(s):
    """The token works as a Bearer token, another does not."""
    if not s.dav.bearer:
        raise Skip("no Bearer token was given (--dav-bearer)")
    for token, wanted in ((s.dav.bearer, 207), ("wrong" + s.dav.bearer, 401)):
        code = int(s.run("curl", "-sS", "-o", "/dev/null", "-w", "%{http_code}", "-X", "PROPFIND", "-H", "Depth: 0",
                         "-H", f"Authorization: Bearer {token}", s.url()).stdout)
        need(code == wanted, f"status {code} in place of {wanted}")


@check("curl")
def dav_curl_range(s):
    """Range requests give exactly the bytes asked for."""
    random_file(s.local / "file", 100_000)
    data = (s.local / "file").read_bytes()
    s.curl("-f", "-T", "file", s.url("file"))
    for span, wanted in (("0-99", data[:100]), ("100-199", data[100:200]), ("99990-", data[99990:]), ("-100", data[-100:]),
                         ("99990-200000", data[99990:])):
        done = s.curl("-r", span, "-D", "head", s.url("file"))
        code = int((s.local / "head").read_text().split()[1])
        need(code == 206, f"range {span}: status {code} in place of 206")
        need(done.raw == wanted, f"range {span}: {len(done.raw)} bytes, not those asked for")
    code = s.status("-r", "200000-300000", s.url("file"))
    need(code == 416, f"a range past the end: status {code} in place of 416")
    done = s.curl("-r", "0-9", "-H", 'If-Range: "no-such-tag"', s.url("file"))
    need(done.raw == data, "If-Range with a tag that does not fit must give the whole file")
    code = s.status("-r", "0-9,50-59", s.url("file"))
    need(code in (200, 206), f"two ranges: status {code}")


@check("curl")
def dav_curl_head(s):
    """HEAD gives the length, type, time and tag that GET gives, and no body."""
    random_file(s.local / "file", 54_321)
    s.curl("-f", "-T", "file", s.url("file.txt"))

    def fields(*arguments):
        lines = s.curl("-f", "-D", "-", "-o", "/dev/null", *arguments, s.url("file.txt")).stdout.splitlines()
        pairs = dict(line.lower().split(":", 1) for line in lines if ":" in line)
        return {key: pairs.get(key, "").strip() for key in ("content-length", "content-type", "last-modified", "etag")}
    head, get = fields("-I"), fields()
    need(head == get, f"HEAD {head} but GET {get}")
    need(head["content-length"] == "54321", f"Content-Length is {head['content-length'] or 'lacking'}")
    need(head["etag"] and head["last-modified"], "ETag or Last-Modified lacks")


@check("curl")
def dav_curl_etag(s):
    """If-None-Match, If-Match and If-Modified-Since are kept to, on reads and on writes."""
    def tag():
        found = re.search(r"^etag:\s*(\S+)", s.curl("-I", s.url("file")).stdout, re.I | re.M)
        need(found, "no ETag is given")
        return found[1]
    s.curl("-f", "-X", "PUT", "-d", "first", s.url("file"))
    old = tag()
    problems = []

    def expect(code, wanted, what):
        if code != wanted:
            problems.append(f"{what}: status {code} in place of {wanted}")
    expect(s.status("-H", f"If-None-Match: {old}", s.url("file")), 304, "If-None-Match with the tag")
    expect(s.status("-H", 'If-None-Match: "other"', s.url("file")), 200, "If-None-Match with another tag")
    modified = re.search(r"^last-modified:\s*(.+?)\s*$", s.curl("-I", s.url("file")).stdout, re.I | re.M)
    expect(s.status("-H", f"If-Modified-Since: {modified and modified[1]}", s.url("file")), 304, "If-Modified-Since")
    s.curl("-f", "-X", "PUT", "-d", "other", s.url("file"))
    if tag() == old:
        problems.append("the tag stayed the same over a change of content")
    expect(s.status("-X", "PUT", "-d", "third", "-H", f"If-Match: {old}", s.url("file")), 412, "PUT with an old If-Match")
    expect(s.status("-X", "PUT", "-d", "third", "-H", "If-None-Match: *", s.url("file")), 412, "PUT with If-None-Match: *")
    if s.curl(s.url("file")).stdout != "other":
        problems.append("a refused PUT changed the file")
    need(not problems, "; ".join(problems))


@check("curl")
def dav_curl_expect(s):
    """An upload that waits for 100 Continue gets it; with a wrong password it gets 401 in place of it."""
    random_file(s.local / "file", 2 * MIB)
    start = time.monotonic()
    done = s.curl("-v", "-f", "-H", "Expect: 100-continue", "--expect100-timeout", "20", "-T", "file", s.url("file"))
    need(re.search(r"^< HTTP/1.1 100", done.stderr, re.M), "no '100 Continue' came")
    need(time.monotonic() - start < 10, "the 100 Continue came too late")
    need(s.curl(s.url("file")).raw == (s.local / "file").read_bytes(), "the file came back different")
    done = s.run("curl", "-sS", "-v", "-o", "/dev/null", "-w", "%{http_code}", "-u", "x:wrong", "-H", "Expect: 100-continue",
                 "--expect100-timeout", "20", "-T", "file", s.url("file2"))
    need(done.stdout == "401", f"a wrong password with Expect: status {done.stdout} in place of 401")
    need(not re.search(r"^< HTTP/1.1 100", done.stderr, re.M), "the body was asked for before the password was checked")


@check("curl")
def dav_curl_chunked(s):
    """An upload of unknown length arrives whole."""
    random_file(s.local / "file", 20 * MIB + 7)
    s.curl("-f", "-H", "Transfer-Encoding: chunked", "-T", "-", s.url("file"), text=(s.local / "file").read_bytes())
    s.curl("-f", "-o", "back", s.url("file"))
    need(sha256(s.local / "back") == sha256(s.local / "file"), "the file came back different")
    s.curl("-f", "-H", "Transfer-Encoding: chunked", "-T", "-", s.url("none"), text="")
    need(s.curl("-f", s.url("none")).raw == b"", "an empty chunked upload is not empty")


@check("curl")
def dav_curl_names(s):
    """Awkward names, percent-encoded: written, read, and listed by PROPFIND under the same names."""
    for name in NAMES:
        code = s.status("-T", "-", s.url(name), text=f"<{name}>")
        need(code in (201, 204), f"PUT of {name!r}: status {code}")
        need(s.curl("-f", s.url(name)).stdout == f"<{name}>", f"{name!r} came back different")
    status, _, body = request(s.dav, "PROPFIND", f"{s.remote}/", headers={"Depth": "1"})
    need(status == 207, f"PROPFIND: status {status}")
    paths = [urllib.parse.unquote(urllib.parse.urlsplit(e.text.strip()).path) for e in ET.fromstring(body).iter("{DAV:}href")]
    listed = {p.rstrip("/").rsplit("/", 1)[1] for p in paths if not p.endswith(f"{s.remote}/")}
    need(listed == set(NAMES), f"listed differently: {sorted(listed ^ set(NAMES))[:4]}")
    return f"{len(NAMES)} names"


@check("curl")
def dav_curl_escape(s):
    """Paths with .. in any spelling do not lead out of the served folder."""
    up = "/".join([".."] * 12)
    dots = up.replace(".", "%2e")
    for spelling in (up, dots, up.replace("/", "%2f"), dots.replace("/", "%2f"), up.replace("/", "//")):
        for base in (s.url(), s.dav.url):
            done = s.run("curl", "-sS", "--path-as-is", "--max-time", "5", "-H", f"Authorization: {s.dav.authorization}",
                         f"{base}{spelling}/etc/passwd", expect=None)
            need("root:" not in done.stdout, f"{spelling} gives away a file outside")
