"""Checks of WebDAV uploads by libraries with unusual request sequences: ffmpeg, .NET's HttpWebRequest on Mono, and the
HttpClients of the JDK and of Apache."""

import time
from pathlib import Path

from files import MIB, random_file, sha256
from session import Absent, check, need, same

HERE = Path(__file__).resolve().parent
SIZES = (20_000, 300_000, 30 * MIB)


@check("ffmpeg", "curl")
def dav_ffmpeg_hls(s):
    """ffmpeg writes HLS over WebDAV: it closes behind each segment without a look at the answer, and none is lost."""
    source = ["ffmpeg", "-v", "error", "-f", "lavfi", "-i", "testsrc=duration=20:size=320x240:rate=10", "-fflags", "+bitexact",
              "-flags:v", "+bitexact", "-c:v", "mpeg2video", "-g", "10", "-f", "hls", "-hls_time", "1", "-hls_list_size", "0",
              "-hls_playlist_type", "vod"]      # one playlist: of several at once any may come last
    (s.local / "hls").mkdir()
    s.run(*source, s.local / "hls" / "live.m3u8")
    s.run(*source, "-method", "PUT", "-headers", f"Authorization: {s.dav.authorization}\r\n", s.url("live.m3u8"))
    written = sorted(path.name for path in (s.local / "hls").iterdir())
    need(len(written) > 15, f"ffmpeg wrote only {written}")
    (s.local / "back").mkdir()
    for name in written:
        patience = time.monotonic() + 10            # what ffmpeg did not wait for
        while (code := s.status(s.url(name))) != 200 and time.monotonic() < patience:
            time.sleep(0.1)
        need(code == 200, f"{name}: status {code}")
        s.curl("-f", "-o", s.local / "back" / name, s.url(name))
    here, there = ({path.name: sha256(path) for path in (s.local / side).iterdir()} for side in ("hls", "back"))
    same(here, there, "on the server")
    return f"{len(written)} files"


def uploads(s, name, command, more=()):
    """Uploads files of each size, new and over an old one, and compares what comes back."""
    s.basic()
    for size in SIZES:
        random_file(s.local / "file", size)
        for turn in ("new", "again"):
            target = s.url(f"{name}-{size}")
            done = s.run(*command, target, s.dav.user, s.local / "file", *more, env={"PASSWORD": s.dav.password}, limit=60)
            need(done.stdout.strip() in ("201", "204"), f"{size} bytes, {turn}: status {done.stdout.strip()}")
            s.curl("-f", "-o", "back", target)
            need(sha256(s.local / "back") == sha256(s.local / "file"), f"{size} bytes, {turn}: came back different")


@check("mono", "mcs", "curl")
def dav_mono_web_request(s):
    """HttpWebRequest, as KeePass uploads by it: Expect: 100-continue, a body after a while, and the password when asked."""
    s.run("mcs", f"-out:{s.local}/web_request.exe", HERE / "web_request.cs")
    uploads(s, "mono", ("mono", s.local / "web_request.exe"))


@check("java", "javac", "curl")
def dav_java_expect(s):
    """The JDK's HttpClient with expectContinue: over HTTP/1.1, and asking for an upgrade to HTTP/2."""
    s.run("javac", "-d", s.local, HERE / "ExpectUpload.java")
    for version in ("HTTP_1_1", "HTTP_2"):
        uploads(s, version.lower(), ("java", "-cp", s.local, "ExpectUpload"), (version,))


@check("java", "javac", "curl")
def dav_apache_httpclient(s):
    """Apache's HttpClient as sardine uses it: a stream that can be read once, Expect, and the password when asked."""
    jars = [Path("/usr/share/java") / f"{name}.jar" for name in ("httpclient", "httpcore", "commons-logging", "commons-codec")]
    if missing := [jar.name for jar in jars if not jar.exists()]:
        raise Absent(f"not installed: {', '.join(missing)}")
    path = ":".join(map(str, (s.local, *jars)))
    s.run("javac", "-cp", path, "-d", s.local, HERE / "StreamUpload.java")
    uploads(s, "apache", ("java", "-cp", path, "StreamUpload"))
