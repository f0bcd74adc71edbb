"""Many requests over kept connections, and what a server's processes spend meanwhile."""

import os
import re
import selectors
import socket
import threading
import time
from collections import Counter, deque
from dataclasses import dataclass
from pathlib import Path


def raw_request(dav, method, relative, body=b"", headers=None, authorization=""):
    """The bytes of a keep-alive request, for pump()."""
    fields = {"Host": f"{dav.host}:{dav.port}", "Authorization": authorization or dav.authorization,
              "Content-Length": len(body), **(headers or {})}
    lines = [f"{method} {dav.path}{relative} HTTP/1.1", *[f"{name}: {value}" for name, value in fields.items()]]
    return "\r\n".join([*lines, "", ""]).encode() + body


_LENGTH = re.compile(rb"\r\ncontent-length:[ \t]*(\d+)", re.I)


def _complete(buffer):
    """The status of a whole answer at the start of the buffer and its body's length, or None where more is to come."""
    end = buffer.find(b"\r\n\r\n")
    if end < 0:
        return None
    head, body = buffer[:end], buffer[end + 4:]
    status = int(head[9:12])
    if status < 200:
        return _complete(body)
    if status in (204, 304):
        return status, 0
    if found := _LENGTH.search(head):
        return (status, int(found[1])) if len(body) >= int(found[1]) else None
    if b"chunked" in head.lower():
        return (status, len(body)) if body.endswith(b"0\r\n\r\n") else None
    return status, 0


@dataclass
class Answers:
    statuses: Counter       # how many answers had each status
    bytes: Counter          # of their bodies, by status
    times: list             # seconds per request


def pump(dav, requests, connections=8, timeout=120):
    """Sends prepared requests over keep-alive connections, one at a time on each, whichever is free."""
    return pump_each(dav, [deque(requests)] * min(connections, len(requests)), timeout)


def pump_each(dav, queues, timeout=120):
    """Sends each of the queues (deques) of prepared requests over a keep-alive connection of its own, one at a time."""
    answers, total = Answers(Counter(), Counter(), []), sum(map(len, {id(queue): queue for queue in queues}.values()))
    selector, deadline, reconnected = selectors.DefaultSelector(), time.monotonic() + timeout, 0

    def connect():
        s = socket.create_connection((dav.host, dav.port), 10)
        s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return s

    def send(s, queue):
        message = queue.popleft()
        state = [message, time.perf_counter(), b"", queue]
        selector.register(s, selectors.EVENT_READ, state)
        s.sendall(message)

    for queue in queues:
        send(connect(), queue)
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
            answer, queue = _complete(state[2]), state[3]
            if data and answer is None:
                continue
            selector.unregister(s)
            closing = not data or re.search(rb"\r\nconnection:[ \t]*close", state[2][:4096], re.I)
            if closing:
                s.close()
                reconnected += 1
                if reconnected > total // 2 + 16:
                    raise ConnectionError("the server closes nearly every connection")
                s = None
            if answer is None:
                queue.appendleft(state[0])
            else:
                answers.statuses[answer[0]] += 1
                answers.bytes[answer[0]] += answer[1]
                answers.times.append(time.perf_counter() - state[1])
            if queue:
                send(s or connect(), queue)
            elif s:
                s.close()
    return answers


def exchange(s, message):
    """Sends a prepared request over a connection that stays open: the status of its answer."""
    s.sendall(message)
    buffer = b""
    while not (answer := _complete(buffer)):
        data = s.recv(65536)
        if not data:
            raise ConnectionError("the server closed a kept connection")
        buffer += data
    return answer[0]


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


def proportional_memory(pid):
    """MiB of the process and its descendants, where memory that some of them share counts once."""
    total = 0.0
    for process in process_tree(pid):
        try:
            rollup = Path(f"/proc/{process}/smaps_rollup").read_text()
        except OSError:         # ended meanwhile, or not ours to look at
            continue
        total += sum(int(line.split()[1]) for line in rollup.splitlines() if line.startswith("Pss:")) / 1024
    return total


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
