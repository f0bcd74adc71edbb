"""Checks with tokens that reach one directory only, and with tokens that are revoked while a real client uses them."""

import http.client
import os
import re
import signal
import socket
import subprocess
import time
import urllib.parse
from contextlib import contextmanager
from dataclasses import replace

from check_mounts import davfs, sshfs
from check_sync import rclone_config
from endpoint import quote, request
from files import MIB, random_file, tree_sums
from session import Fail, Session, check, need, same

WITHIN = 1.0            # seconds in which open sessions and transfers end once the token is dead
BELOW = "a/b/c"         # the permitted folder, below the check's own
HIDDEN = ("a/sibling.txt", "a/beside", "a/beside/secret.txt", "a/b/next.txt", "a/beside/c")
NEVER = "a/b/never-there"


def gateway_command(s, *arguments):
    """A command line of the gateway's, on the state folder of the one that serves."""
    return [s.options.gateway, "--state", s.options.state, *arguments]


def gateway(s, *arguments):
    """One command of the gateway's; its output."""
    return s.run(*gateway_command(s, *arguments)).stdout.strip()


def token_id(token):
    return token.partition("_")[2].partition(".")[0]


def revoke(s, token):
    return gateway(s, "apitoken", "revoke", token_id(token))


@contextmanager
def new_token(s, *limits):
    """A token of the checks' own user for the length of a block."""
    token = gateway(s, "admin", "user", "token", "-u", s.dav.user, "-e", "1h", *limits, "-q")
    try:
        yield token
    finally:
        revoke(s, token)


def session_with(s, token, path="dav/"):
    """The check's session as somebody with this token has it: from the server's root or the path, in a folder of its own."""
    local = s.local / f"as-{token[4:12]}"
    local.mkdir(exist_ok=True)
    dav = replace(s.dav, url=f"http://{s.dav.host}:{s.dav.port}/{path}", password=token, bearer="")
    own = Session(s.options, dav, replace(s.sftp, password=token), local, "")
    own.deadline = s.deadline
    return own


# ---------------------------------------------------------------- a token for one folder

class Rclone:
    """The tree as rclone shows it."""

    def __init__(self, s, remote):
        self.s, self.remote = s, remote
        rclone_config(s)

    def at(self, path):
        return f"{self.remote}:{path}"

    def names(self, path):
        return {name.rstrip("/") for name in self.s.rclone("lsf", self.at(path)).stdout.splitlines()}

    def fetch(self, path, into):
        self.s.rclone("copy", "--create-empty-src-dirs", self.at(path), into)

    def missing(self, path):
        done = self.s.rclone("lsf", self.at(path), expect=None)
        return done.returncode == 3 and "not found" in done.stderr

    def succeeds(self, *arguments):
        return self.s.rclone(*arguments, expect=None).returncode == 0

    def put(self, source, path):
        return self.succeeds("copyto", "--ignore-times", source, self.at(path))

    def mkdir(self, path):
        return self.succeeds("mkdir", self.at(path))

    def remove(self, path):
        return self.succeeds("deletefile", self.at(path))

    def rmdir(self, path):
        return self.succeeds("rmdir", self.at(path))

    def rename(self, path, to):
        return self.succeeds("moveto", self.at(path), self.at(to))


class Batch:
    """The tree as OpenSSH's sftp shows it."""

    def __init__(self, s):
        self.s = s

    def batch(self, *lines, expect=0):
        script = self.s.local / "batch"
        script.write_text("\n".join(lines) + "\n")
        return self.s.run(*self.s.sftp.command("sftp", "-oBatchMode=no", "-b", script), "target", expect=expect)

    def start_folder(self):
        return re.search(r"Remote working directory: (.*)", self.batch("pwd").stdout)[1]

    def names(self, path):
        out = self.batch(f'cd "{path}"', "ls -1a").stdout
        return {line.rstrip() for line in out.splitlines() if not line.startswith("sftp>")} - {".", ".."}

    def fetch(self, path, into):
        self.batch(f'get -r "{path}" "{into}"')

    def missing(self, path):
        done = self.batch(f'ls -l "{path}"', expect=None)
        return done.returncode != 0 and re.search(r"not found|No such file", done.stderr)

    def succeeds(self, line):
        done = self.batch(line, expect=None)
        if done.returncode and "ermission denied" not in done.stderr:
            raise Fail(f"{line}: refused with other words than 'Permission denied': {done.stderr.strip()[-200:]}")
        return done.returncode == 0

    def put(self, source, path):
        return self.succeeds(f'put "{source}" "{path}"')

    def mkdir(self, path):
        return self.succeeds(f'mkdir "{path}"')

    def remove(self, path):
        return self.succeeds(f'rm "{path}"')

    def rmdir(self, path):
        return self.succeeds(f'rmdir "{path}"')

    def rename(self, path, to):
        return self.succeeds(f'rename "{path}" "{to}"')


class Mount:
    """The tree as a mount shows it, looked at by child processes."""

    def __init__(self, s, point):
        self.s, self.point = s, point

    def at(self, path):
        return f"{self.point}/{path.lstrip('/')}"

    def names(self, path):
        return set(self.s.run("ls", "-A", self.at(path)).stdout.splitlines()) - {"lost+found"}

    def fetch(self, path, into):
        self.s.run("cp", "-r", self.at(path), into)
        if (into / "lost+found").is_dir():
            (into / "lost+found").rmdir()       # davfs2 shows a folder of its own in its root

    def missing(self, path):
        return "No such file" in self.s.run("stat", self.at(path), expect=None).stderr

    def succeeds(self, *command):
        return self.s.run(*command, expect=None).returncode == 0

    def put(self, source, path):
        return self.succeeds("sh", "-c", 'cat "$1" > "$2" && sync "$2"', "sh", source, self.at(path))

    def mkdir(self, path):
        return self.succeeds("mkdir", self.at(path))

    def remove(self, path):
        return self.succeeds("rm", self.at(path))

    def rmdir(self, path):
        return self.succeeds("rmdir", self.at(path))

    def rename(self, path, to):
        return self.succeeds("mv", "-T", self.at(path), self.at(to))


class CachingMount(Mount):
    """A mount that takes writes into its cache first: whether one was refused shows on the server alone."""

    def put(self, source, path):
        super().put(source, path)
        return False


class Folder:
    """A folder three levels below the check's own, other things beside it on every level, and a read token for it."""

    def __init__(self, s):
        self.s, tree = s, s.local / "tree"
        for path in ("a/sibling.txt", "a/beside/secret.txt", "a/beside/c/secret.txt", "a/b/next.txt", f"{BELOW}/plain.txt",
                     f"{BELOW}/with space ü 100%.txt", f"{BELOW}/deep/deeper/inner.txt"):
            (tree / path).parent.mkdir(parents=True, exist_ok=True)
            (tree / path).write_text(f"content of {path}\n")
        random_file(tree / BELOW / "deep" / "large.bin", 3 * MIB + 17)
        (tree / BELOW / "empty folder").mkdir()
        rclone_config(s)
        s.rclone("copy", "--create-empty-src-dirs", "tree", f"dav:{s.remote}")
        self.all, self.permitted = tree_sums(tree), tree_sums(tree / BELOW)
        self.top = "/" + urllib.parse.unquote(s.dav.path).partition("/dav/")[2] + s.remote
        self.below = BELOW
        self.uuid = self.node(BELOW)

    def node(self, path):
        shown = gateway(self.s, "node", "id", f"{self.top}/{path}")
        found = re.search(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", shown)
        need(found, f"node id says {shown!r}")
        return found[0]

    @property
    def path(self):
        return f"{self.top}/{self.below}"

    def rename_over_webdav(self):
        """The permitted folder itself gets another name, with a full token over WebDAV."""
        status = request(self.s.dav, "MOVE", quote(f"{self.s.remote}/a/b/c/"), headers={
            "Destination": self.s.url("a/b/c moved ü/"), "Overwrite": "F"})[0]
        need(status == 201, f"MOVE of the folder with a full token: status {status}")
        self.below = "a/b/c moved ü"

    def rename_over_sftp(self):
        """A folder above the permitted one gets another name, with a full token over SFTP."""
        self.s.batch("rename a 'a renamed'")
        self.below = self.below.replace("a/", "a renamed/", 1)


def eventually(function, seconds=10):
    """The function's value once it neither fails nor is false: mounts remember names for a while."""
    end = time.monotonic() + seconds
    while True:
        try:
            if value := function():
                return value
            last = "not so"
        except Fail as reason:
            last = str(reason)
        if time.monotonic() > end:
            raise Fail(f"still {last} after {seconds} s")
        time.sleep(0.3)


def reads_all(client, folder, base, what):
    """All of the permitted folder arrives, with the content it has."""
    back = client.s.local / f"back-{os.urandom(3).hex()}"
    client.fetch(base, back)
    same(folder.permitted, tree_sums(back), what)


def changes_nothing(client, folder, base, above=None):
    """Every attempt to change something is refused, and leaves no trace."""
    source = client.s.local / "attempt"
    source.write_text("attempt\n")
    attempts = {"a new file": lambda: client.put(source, f"{base}/new.txt"),
                "writing over a file": lambda: client.put(source, f"{base}/plain.txt"),
                "a new folder": lambda: client.mkdir(f"{base}/new folder"),
                "removing a file": lambda: client.remove(f"{base}/plain.txt"),
                "removing a folder": lambda: client.rmdir(f"{base}/empty folder"),
                "renaming a file": lambda: client.rename(f"{base}/plain.txt", f"{base}/renamed.txt"),
                "renaming a folder": lambda: client.rename(f"{base}/deep", f"{base}/renamed")}
    if above:
        attempts.update({"a new file above": lambda: client.put(source, f"{above}/new.txt"),
                         "a new folder above": lambda: client.mkdir(f"{above}/new folder"),
                         "renaming the folder itself": lambda: client.rename(base, f"{above}/renamed"),
                         "moving a file up": lambda: client.rename(f"{base}/plain.txt", f"{above}/plain.txt")})
    succeeded = [what for what, attempt in attempts.items() if attempt()]
    need(not succeeded, f"{', '.join(succeeded)}: not refused")


def unchanged(folder):
    """What the server holds is still what was put there."""
    s, back = folder.s, folder.s.local / f"whole-{os.urandom(3).hex()}"
    s.rclone("copy", "--create-empty-src-dirs", f"dav:{s.remote}", back)
    same(folder.all, tree_sums(back), "what the server holds")


def shows_the_way_down(client, folder):
    """From the root every folder lists the next step alone, down to the permitted one."""
    path = ""
    for step in folder.path.strip("/").split("/"):
        names = client.names(path or "/")
        need(names == {step}, f"{path or '/'} lists {sorted(names)} in place of {step} alone")
        path += f"/{step}"
    names = client.names(path)
    need(names == {"plain.txt", "with space ü 100%.txt", "deep", "empty folder"}, f"{path} lists {sorted(names)}")


def hides_the_rest(client, folder):
    for path in (*HIDDEN, NEVER):
        need(client.missing(f"{folder.top}/{path}"), f"{path} does not answer as a missing file")


def from_the_root(client, folder):
    """All that a client that comes in at the root may and may not do, also after renames by somebody else."""
    shows_the_way_down(client, folder)
    hides_the_rest(client, folder)
    reads_all(client, folder, folder.path, "the permitted folder")
    changes_nothing(client, folder, folder.path, f"{folder.top}/a/b")
    unchanged(folder)
    for rename in (folder.rename_over_webdav, folder.rename_over_sftp):
        rename()
        eventually(lambda: client.names(folder.path))
        shows_the_way_down(client, folder)
        reads_all(client, folder, folder.path, f"after {rename.__name__.replace('_', ' ')}")


def at_the_node(client, folder):
    """All that a client with the permitted folder as its root may and may not do, also after renames by somebody else."""
    reads_all(client, folder, "", "the node's root")
    changes_nothing(client, folder, "")
    unchanged(folder)
    for rename in (folder.rename_over_webdav, folder.rename_over_sftp):
        rename()
        reads_all(client, folder, "", f"after {rename.__name__.replace('_', ' ')}")


@contextmanager
def read_token(s, path="dav/"):
    """A tree, and a session with a token that may read one folder of it; {uuid} in the path is that folder's."""
    folder = Folder(s)
    with new_token(s, "-s", f"node:{folder.uuid}:r") as token:
        yield folder, session_with(s, token, path.format(uuid=folder.uuid))


@check("curl")
def token_scoped_curl(s):
    """What a read token for one folder does not reach answers exactly as what is not there, with every method."""
    with read_token(s) as (folder, own):
        def answer(path, *arguments):
            done = own.curl("-i", "--path-as-is", *arguments, f"{own.dav.url}{path}")
            head = re.sub(r"^date:.*\n", "", done.stdout.replace("\r", ""), flags=re.I | re.M)
            return re.sub(re.escape(path), "PATH", head)
        base = quote(folder.top.lstrip("/"))
        for method, more in (("GET", ()), ("HEAD", ("-I",)), ("PROPFIND", ("-H", "Depth: 0")), ("DELETE", ()),
                             ("PUT", ("-d", "x")), ("MKCOL", ()), ("PROPPATCH", ("-d", "<x/>")), ("LOCK", ("-d", "<x/>")),
                             ("COPY", ("-H", f"Destination: {own.dav.url}{base}/a/b/c/copied")),
                             ("MOVE", ("-H", f"Destination: {own.dav.url}{base}/a/b/c/moved"))):
            words = ("-X", method, *more) if method != "HEAD" else more
            never = answer(f"{base}/{NEVER}", *words)
            for path in ("a/sibling.txt", "a/beside"):
                hidden = answer(f"{base}/{path}", *words)
                need(hidden == never, f"{method}: {path} answers {hidden[:200]!r}, a missing name {never[:200]!r}")
        for node in (folder.node("a/beside"), "00000000-0000-4000-8000-000000000000"):
            code = own.status(f"http://{own.dav.host}:{own.dav.port}/node/{node}/")
            need(code == 404, f"the address of a node out of reach: status {code} in place of 404")
        for up in ("..", "%2e%2e", "..%2f"):
            code = own.status("--path-as-is", f"http://{own.dav.host}:{own.dav.port}/node/{folder.uuid}/{up}/next.txt")
            need(code >= 400, f"{up} leads out of the node's root: status {code}")
        unchanged(folder)


@check("rclone")
def token_scoped_rclone_dav(s):
    """rclone over WebDAV with a read token for one folder: down to it, all in it, nothing else, no change."""
    with read_token(s) as (folder, own):
        from_the_root(Rclone(own, "dav"), folder)


@check("rclone")
def token_scoped_rclone_sftp(s):
    """rclone over SFTP with a read token for one folder."""
    with read_token(s) as (folder, own):
        from_the_root(Rclone(own, "sftp"), folder)


@check("rclone")
def token_scoped_rclone_node(s):
    """rclone with the permitted folder's own address as its root."""
    with read_token(s, "node/{uuid}/") as (folder, own):
        at_the_node(Rclone(own, "dav"), folder)


@check("mount.davfs")
def token_scoped_davfs2(s):
    """davfs2 mounted at the root with a read token for one folder."""
    with read_token(s) as (folder, own), davfs(own, own.dav.url, "dir_refresh 1", "file_refresh 0") as point:
        from_the_root(CachingMount(own, point), folder)


@check("mount.davfs")
def token_scoped_davfs2_node(s):
    """davfs2 mounted at the permitted folder's own address."""
    with read_token(s, "node/{uuid}/") as (folder, own), davfs(own, own.dav.url, "dir_refresh 1", "file_refresh 0") as point:
        at_the_node(CachingMount(own, point), folder)


@check("sftp")
def token_scoped_sftp(s):
    """OpenSSH's sftp with a read token for one folder; it starts in that folder."""
    with read_token(s) as (folder, own):
        client = Batch(own)
        start = client.start_folder()
        need(start == folder.path, f"the session starts in {start} in place of {folder.path}")
        from_the_root(client, folder)
        start = client.start_folder()
        need(start == folder.path, f"after the renames the session starts in {start} in place of {folder.path}")


@check("sshfs")
def token_scoped_sshfs(s):
    """sshfs mounted at the root with a read token for one folder; one session over all the renames."""
    with read_token(s) as (folder, own), sshfs(own, "/", "-o", "dir_cache=no") as point:
        from_the_root(Mount(own, point), folder)


# ---------------------------------------------------------------- a token taken back while it is in use

def ends_within(process, since, what):
    """The process ends by itself, not later than promised."""
    try:
        process.wait(max(0.01, since + WITHIN - time.monotonic()))
    except subprocess.TimeoutExpired:
        try:
            process.wait(10)
            late = f"ended after {time.monotonic() - since:.1f} s"
        except subprocess.TimeoutExpired:
            late = "had not ended after 10 s"
        raise Fail(f"{what} {late}, counted from the end of its token") from None
    return time.monotonic() - since


@contextmanager
def running(s, *command, **more):
    """A client for the length of a block."""
    process = s.start(*command, **more)
    try:
        yield process
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


def grows(path, to, seconds=15):
    """Waits until the file is as long."""
    end = time.monotonic() + seconds
    while not path.exists() or path.stat().st_size < to:
        need(time.monotonic() < end, f"{path.name} did not grow to {to} bytes")
        time.sleep(0.05)


@check()
def token_revoked_requests(s):
    """The next request is answered 401, also on a connection that is kept, also by Bearer and over SFTP's door."""
    with new_token(s) as token:
        own = session_with(s, token)
        connection = http.client.HTTPConnection(s.dav.host, s.dav.port, timeout=20)

        def ask(authorization):
            connection.request("PROPFIND", s.dav.path, headers={"Authorization": authorization, "Depth": "0"})
            answer = connection.getresponse()
            answer.read()
            return answer.status
        basic, bearer = own.dav.authorization, f"Bearer {token}"
        for authorization in (basic, bearer):
            need(ask(authorization) == 207, "the token is not let in")
        Batch(own).batch("pwd")
        revoke(s, token)
        for authorization in (basic, bearer, basic):
            code = ask(authorization)
            need(code == 401, f"status {code} in place of 401 right after the token was revoked")
        connection.close()
        need(Batch(own).batch("pwd", expect=None).returncode, "SFTP lets a revoked token in")
        need(s.status("-X", "PROPFIND", "-H", "Depth: 0", s.url()) == 207, "another token of the same user is refused too")


def paced(connection, step=64 * 1024, pause=0.03):
    """What arrives, taken at about 2 MiB a second; ends when the server ends it."""
    while True:
        try:
            piece = connection.recv(step)
        except ConnectionError:
            return
        if not piece:
            return
        yield piece
        time.sleep(pause)


@check()
def token_revoked_get(s):
    """A download under way is cut within a second, what the kernel still holds included.

    The client is our own: curl's limit on the rate lets it sleep for seconds at a time."""
    random_file(s.local / "file", 64 * MIB)
    s.curl("-f", "-T", "file", s.url("file"))
    with new_token(s) as token, socket.socket() as connection:
        own = session_with(s, token)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 128 * 1024)
        connection.connect((s.dav.host, s.dav.port))
        connection.settimeout(20)
        connection.sendall(f"GET {s.dav.path}{quote(s.remote)}/file HTTP/1.1\r\nHost: {s.dav.host}:{s.dav.port}\r\n"
                           f"Authorization: {own.dav.authorization}\r\n\r\n".encode())
        got, command, dead = 0, None, None
        for piece in paced(connection):
            got += len(piece)
            if not command and got > 2 * MIB:
                command = s.start(*gateway_command(s, "apitoken", "revoke", token_id(token)))
            if command and not dead and command.poll() is not None:
                dead = time.monotonic()
        need(dead and command.communicate() and not command.returncode, "the download ended before its token")
    seconds = time.monotonic() - dead
    need(got < 60 * MIB, f"{got} bytes arrived")
    need(seconds <= WITHIN, f"the download ended {seconds:.1f} s after its token, with {got} bytes")
    return f"after {seconds:.1f} s"


@check("curl")
def token_revoked_put(s):
    """An upload under way is cut within a second, and the old content stays."""
    random_file(s.local / "file", 64 * MIB)
    s.curl("-f", "-T", "-", s.url("file"), text="old content")
    with new_token(s) as token:
        own = session_with(s, token)
        with running(own, "curl", "-sS", "-o", "answer", "-w", "%{http_code}", "--limit-rate", "2M", "-u",
                     f"{s.dav.user}:{token}", "-T", s.local / "file", s.url("file")) as curl:
            time.sleep(1)
            need(curl.poll() is None, "the upload was over too early")
            revoke(s, token)
            seconds = ends_within(curl, time.monotonic(), "the upload")
            code = curl.communicate()[0].decode()
        need(curl.returncode or code in ("401", "403"), f"the cut upload was answered {code}")
    need(s.curl("-f", s.url("file")).stdout == "old content", "the cut upload replaced the old content")
    return f"after {seconds:.1f} s"


@check("ssh")
def token_revoked_sftp_session(s):
    """An SFTP session that does nothing is closed within a second; one with another token of the same user is not."""
    hello = bytes([0, 0, 0, 5, 1, 0, 0, 0, 3])
    with new_token(s) as token:
        own = session_with(s, token)
        with running(own, *own.sftp.command("ssh"), "target", "-s", "sftp") as dead, \
             running(s, *s.sftp.command("ssh"), "target", "-s", "sftp") as alive:
            for ssh in (dead, alive):
                ssh.stdin.write(hello)
                ssh.stdin.flush()
                need(len(ssh.stdout.read(9)) == 9, "the session did not open")
            revoke(s, token)
            seconds = ends_within(dead, time.monotonic(), "the session")
            time.sleep(0.5)
            need(alive.poll() is None, "the session of another token was closed too")
    return f"after {seconds:.1f} s"


@check("sftp")
def token_revoked_sftp_transfer(s):
    """A get and a put under way are cut within a second, and what the put would have replaced stays."""
    random_file(s.local / "file", 64 * MIB)
    (s.local / "old").write_text("old content")
    s.batch("put file large", "put old target")
    times = []
    for line in (f"get {s.remote}/large got", f"put {s.local}/file {s.remote}/target"):
        with new_token(s) as token:
            own = session_with(s, token)
            (own.local / "batch").write_text(line + "\n")
            with running(own, *own.sftp.command("sftp", "-l", "16000", "-oBatchMode=no", "-b", "batch"), "target") as sftp:
                if line.startswith("get"):
                    grows(own.local / "got", MIB)
                else:
                    time.sleep(1.5)
                need(sftp.poll() is None, "the transfer was over too early")
                revoke(s, token)
                times.append(ends_within(sftp, time.monotonic(), line.partition(" ")[0]))
                need(sftp.returncode != 0, "the client took the transfer for done")
    s.batch("get target back")
    need((s.local / "back").read_text() == "old content", "the cut put replaced the old content")
    return "after {:.1f} s and {:.1f} s".format(*times)


@check("ssh", "curl")
def token_expires(s):
    """A token's hard limit ends its open SFTP session and its requests, not before and not later than a second after."""
    lifetime = 4
    before = time.monotonic()
    token = gateway(s, "admin", "user", "token", "-u", s.dav.user, "-e", f"{lifetime}s", "-q")
    made = time.monotonic()
    own = session_with(s, token)
    with running(own, *own.sftp.command("ssh"), "target", "-s", "sftp") as ssh:
        ssh.stdin.write(bytes([0, 0, 0, 5, 1, 0, 0, 0, 3]))
        ssh.stdin.flush()
        need(len(ssh.stdout.read(9)) == 9, "the session did not open")
        need(own.status("-X", "PROPFIND", "-H", "Depth: 0", s.url()) == 207, "the token is not let in")
        ends_within(ssh, made + lifetime, "the session")
        lived = time.monotonic() - before
    need(lived > lifetime - 0.5, f"the session was closed {lifetime - lived:.1f} s early")
    code = own.status("-X", "PROPFIND", "-H", "Depth: 0", s.url())
    need(code == 401, f"status {code} in place of 401 after the token expired")
