"""Many requests over kept connections, and what a server's processes spend meanwhile."""

import os
import re
import selectors
import socket
import threading
import time
from collections import Counter, deque
from pathlib import Path


def raw_request(dav, method, relative, body=b""):
    """The bytes of a keep-alive request, for pump()."""
    head = (f"{method} {dav.path}{relative} HTTP/1.1\r\nHost: {dav.host}:{dav.port}\r\n"
            f"Authorization: {dav.authorization}\r\nContent-Length: {len(body)}\r\n\r\n")
    return head.encode() + body


_LENGTH = re.compile(rb"\r\ncontent-length:[ \t]*(\d+)", re.I)


def _complete(buffer):
    """The status of a whole answer at the start of the buffer, or None where more is to come."""
    end = buffer.find(b"\r\n\r\n")
    if end < 0:
        return None
    head, body = buffer[:end], buffer[end + 4:]
    status = int(head[9:12])
    if status < 200:
        return _complete(body)
    if status in (204, 304):
        return status
    if found := _LENGTH.search(head):
        return status if len(body) >= int(found[1]) else None
    if b"chunked" in head.lower():
        return status if body.endswith(b"0\r\n\r\n") else None
    return status


def pump(dav, requests, connections=8, timeout=120):
    """Sends prepared requests over keep-alive connections, one at a time on each.

    Returns (Counter of statuses, sorted seconds per request, number of reconnections)."""
    waiting, statuses, times = deque(requests), Counter(), []
    selector, deadline, reconnected = selectors.DefaultSelector(), time.monotonic() + timeout, 0

    def connect():
        s = socket.create_connection((dav.host, dav.port), 10)
        s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return s

    def send(s, message):
        state = [message, time.perf_counter(), b""]
        selector.register(s, selectors.EVENT_READ, state)
        s.sendall(message)

    for _ in range(min(connections, len(waiting))):
        send(connect(), waiting.popleft())
    while selector.get_map():
        if time.monotonic() > deadline:
            for key in list(selector.get_map().values()):
                key.fileobj.close()
            raise TimeoutError(f"requests did not finish within {timeout} s")
        for key, _ in selector.select(1):
            s, state = key.fileobj, key.data
            try:
                data = s.recv(65536)
            except ConnectionResetError:
                data = b""
            state[2] += data
            status = _complete(state[2])
            if data and status is None:
                continue
            selector.unregister(s)
            closing = not data or re.search(rb"\r\nconnection:[ \t]*close", state[2][:4096], re.I)
            if closing:
                s.close()
                reconnected += 1
                if reconnected > len(requests) // 2 + 16:
                    raise ConnectionError("the server closes nearly every connection")
                s = None
            if status is None:
                waiting.appendleft(state[0])
            else:
                statuses[status] += 1
                times.append(time.perf_counter() - state[1])
            if waiting:
                send(s or connect(), waiting.popleft())
            elif s:
                s.close()
    return statuses, sorted(times), reconnected


def percentile(ordered, share):
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))] if ordered else 0.0


_TICK = os.sysconf("SC_CLK_TCK")


def _stat(pid):
    """(parent, CPU seconds with those of ended children) of a process, or None."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return int(fields[1]), sum(map(int, fields[11:15])) / _TICK


def process_tree(pid):
    """The process and its live descendants: {pid: CPU seconds}."""
    stats = {int(p): s for p in os.listdir("/proc") if p.isdigit() and (s := _stat(p))}
    found, again = ({pid} if pid in stats else set()), True
    while again:
        more = {p for p, (parent, _) in stats.items() if parent in found} - found
        found, again = found | more, bool(more)
    return {p: stats[p][1] for p in found}


def _rss(pid, key):
    try:
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith(key):
                return int(line.split()[1]) / 1024
    except OSError:
        pass
    return 0.0


class Meter:
    """Times a block, and the server's CPU seconds and peak resident memory (MiB) over it where its pid is known."""

    def __init__(self, pid):
        self.pid, self.seconds, self.cpu, self.rss = pid, None, None, None

    def __enter__(self):
        if self.pid:
            self._before = process_tree(self.pid)
            for pid in self._before:
                try:
                    Path(f"/proc/{pid}/clear_refs").write_text("5")
                except OSError:
                    pass
            self.rss, self._done = 0.0, threading.Event()
            self._thread = threading.Thread(target=self._watch, daemon=True)
            self._thread.start()
        self._start = time.perf_counter()
        return self

    def _watch(self):
        while not self._done.wait(0.2):
            self.rss = max(self.rss, sum(_rss(p, "VmRSS:") for p in process_tree(self.pid)))

    def __exit__(self, kind, *_):
        self.seconds = time.perf_counter() - self._start
        if self.pid:
            self._done.set()
            self._thread.join()
            after = process_tree(self.pid)
            self.cpu = sum(after.values()) - sum(self._before.values())
            now = sum(_rss(p, "VmHWM:") for p in after) if len(after) == 1 else sum(_rss(p, "VmRSS:") for p in after)
            self.rss = max(self.rss, now)
        return False
