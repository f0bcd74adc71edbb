"""Checks of SFTP uploads whose connection breaks: the client resumes where it was interrupted, as it would with OpenSSH."""

import socket
import threading
import time
from pathlib import Path

from check_logins import password_only, start_folder
from files import random_file
from session import check, need

SIZE, CUT = 12_000_000, 8_000_000
# What the client sent before the break and the server had not written yet, and all that is not content.
SLACK = 3_000_000


class Relay:
    """Passes connections on to a server; the first is broken off when the client has sent so many bytes.

    `sent` counts what each of them brought from the client."""

    def __init__(self, host, port, cut=None):
        self.server, self.cut, self.sent = (host, port), cut, []
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        threading.Thread(target=self.accept, daemon=True).start()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.listener.close()

    def accept(self):
        while True:
            try:
                client, _ = self.listener.accept()
            except OSError:
                return
            number, server = len(self.sent), socket.create_connection(self.server)
            self.sent.append(0)
            threading.Thread(target=self.upward, args=(number, client, server), daemon=True).start()
            threading.Thread(target=downward, args=(client, server), daemon=True).start()

    def upward(self, number, client, server):
        with client, server:
            while data := received(client):
                server.sendall(data)
                self.sent[number] += len(data)
                if number == 0 and self.cut is not None and self.sent[0] > self.cut:
                    break
            for end in (client, server):
                shut(end)


def downward(client, server):
    while data := received(server):
        try:
            client.sendall(data)
        except OSError:
            return
    shut(client)


def received(stream):
    try:
        return stream.recv(32_768)
    except OSError:
        return b""


def shut(stream):
    try:
        stream.shutdown(socket.SHUT_RDWR)
    except OSError:
        pass


def listed_size(s, name):
    """The size that the session's own token is shown, once the server has noticed that the connection is lost."""
    for _ in range(50):
        for line in s.batch("ls -ln").stdout.splitlines():
            words = line.split()
            if words[-1:] == [name]:
                return int(words[4])
        time.sleep(0.2)
    return 0


def went_on(sent):
    need(sent < SIZE - CUT + SLACK, f"the client sent {sent} bytes more: it began anew")


@check("lftp")
def sftp_resume_lftp(s):
    """lftp put -c, which connects again by itself when its connection breaks, and goes on where it was."""
    random_file(s.local / "file", SIZE)
    config = Path(s.sftp.config).read_text()
    with Relay(s.sftp.host, s.sftp.port, CUT) as relay:
        (s.local / "relay.conf").write_text(config.replace(f"Port {s.sftp.port}", f"Port {relay.port}"))
        connect = "sshpass -e ssh -a -x -F relay.conf" if s.sftp.password else "ssh -a -x -F relay.conf"
        s.run("lftp", "-c", f'set sftp:connect-program "{connect}"; set net:max-retries 5; set net:timeout 20; '
              f'set net:reconnect-interval-base 1; set cmd:fail-exit true; set sftp:auto-confirm true; '
              f'open -u {s.sftp.user},{s.sftp.password or "none"} sftp://target; cd {s.remote}; put -c file')
        need(len(relay.sent) > 1, "the connection was not broken")
        went_on(sum(relay.sent[1:]))
    s.batch("get file back")
    need((s.local / "back").read_bytes() == (s.local / "file").read_bytes(), "the file came back different")
    return f"{sum(relay.sent[1:])} of {SIZE} bytes after the break"


@check("curl")
def sftp_resume_curl(s):
    """curl -C -, run again after its connection broke."""
    password_only(s)
    random_file(s.local / "file", SIZE)
    words = ["curl", "-sS", "-k", "-K", "-", "-T", "file"]
    login, folder = f'user = "{s.sftp.user}:{s.sftp.password}"\n', f"{start_folder(s)}/{s.remote}"
    with Relay(s.sftp.host, s.sftp.port, CUT) as relay:
        done = s.run(*words, f"sftp://127.0.0.1:{relay.port}{folder}/file", text=login, expect=None)
        need(done.returncode != 0, "curl did not notice that its connection broke")
    size = listed_size(s, "file")
    need(0 < size < SIZE, f"{size} bytes are kept of what was cut at {CUT}")
    with Relay(s.sftp.host, s.sftp.port) as relay:
        s.run(*words, "-C", "-", f"sftp://127.0.0.1:{relay.port}{folder}/file", text=login)
        went_on(sum(relay.sent))
    s.batch("get file back")
    need((s.local / "back").read_bytes() == (s.local / "file").read_bytes(), "the file came back different")
    return f"{size} bytes kept, {sum(relay.sent)} sent after the break"
