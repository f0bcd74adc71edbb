"""Checks that the steps which `patgate client` prints work as they are printed, with a token for one directory."""

import json
import os
import re
import shlex
import shutil
import subprocess
import tempfile
import time
from pathlib import Path

from check_rest import environment
from check_tokens import gateway, new_token
from files import random_file, sha256, tree_sums
from session import CHECKS, Skip, check, need, same

HERE = Path(__file__).resolve().parent
PREFIX = "token-setup-"
# Programs that ask for a password do so at a terminal, or in a window; host keys of a server that was just made are not known.
SHIMS = {
    "ssh": 'exec /usr/bin/ssh {options} "$@"',
    "sftp": 'exec sshpass -e /usr/bin/sftp {options} "$@"',
    "scp": 'exec sshpass -e /usr/bin/scp {options} "$@"',
    "sudo": 'exec "$@"',
    "kioclient": 'exec /usr/bin/kioclient --noninteractive "$@"',
}
TRUSTING = ('-F "$HOME/.ssh/config" -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null '
            '-o GlobalKnownHostsFile=/dev/null -o LogLevel=ERROR')


def setup(s, client):
    """What the program prints for a client, for this check's folder."""
    return json.loads(gateway(s, "client", client, "--url", s.url(), "--user", s.dav.user,
                              "--sftp", f"{s.sftp.host}:{s.sftp.port}", "--json"))


def commands(steps):
    return [step["command"] for step in steps if "command" in step]


def prepare(s):
    """A home with two documents, and the programs' stand-ins in front of the path."""
    documents = s.local / "Documents"
    documents.mkdir()
    (documents / "letter.odt").write_text("Dear gateway,\n")
    random_file(documents / "photo #1.bin", 300_001)
    ssh = s.local / ".ssh"
    ssh.mkdir(0o700)
    (ssh / "config").touch(0o600)
    shims = s.local / "shims"
    shims.mkdir()
    for name, line in SHIMS.items():
        (shims / name).write_text("#!/bin/sh\n" + line.format(options=TRUSTING) + "\n")
        (shims / name).chmod(0o755)
    return tree_sums(documents)


def play(s, client, change=lambda lines: lines, text="", wrapper=(), env=None):
    """Carries the printed steps out in one shell that is handed the token; `change` may add lines between them."""
    documents = prepare(s)
    steps = setup(s, client)["steps"]
    for step in steps:
        if "file" in step:
            path = s.local / step["file"].removeprefix("~/")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(step["content"])
            path.chmod(0o600)
    folder = s.dav.path.removeprefix("/dav") + s.remote
    with new_token(s, "-s", f"path:{folder}:rw") as token:
        script = "\n".join(["set -euo pipefail", *change(commands(steps))])
        path = f"{s.local / 'shims'}:{os.environ['PATH']}:/usr/sbin:/sbin"
        given = {"PATH": path, "SSHPASS": token, **(env or {})}
        return documents, s.run(*wrapper, "bash", "-c", script, text=f"{token}\n{text}", env=given).stdout


def arrived(s, documents, below="Documents"):
    """Looks whether the documents are on the server, whole."""
    got = s.local / "got"
    for name, digest in documents.items():
        s.curl("-f", "-o", got, s.url(f"{below}/{name}"))
        need(sha256(got) == digest, f"{name} came to the server different")


@check("bash")
def token_setup_all(s):
    """Every client that is called tried has a check here, and no other has; each prints steps."""
    listed = json.loads(gateway(s, "client", "--json"))
    tried = {client["name"] for client in listed if client["tried"]}
    here = {name.removeprefix(PREFIX) for name in CHECKS if name.startswith(PREFIX)} - {"all"}
    need(tried == here, f"called tried and not run here, or the other way round: {sorted(tried ^ here)}")
    for client in listed:
        need(setup(s, client["name"])["steps"], f"{client['name']} has no steps")
        for command in commands(setup(s, client["name"])["steps"]) if client["tried"] else ():
            s.run("bash", "-n", "-c", command)
    return f"{len(listed)} clients, {len(tried)} tried"


@check("rclone", "bash")
def token_setup_rclone(s):
    documents, shown = play(s, "rclone", lambda lines: [*lines, "rclone lsf -R --files-only patgate-sftp:"])
    arrived(s, documents)
    need("Documents/letter.odt" in shown.splitlines(), f"rclone over SFTP lists {shown!r}")


@check("mount.davfs", "bash")
def token_setup_davfs2(s):
    s.basic()
    mountable(s)
    try:
        documents, _ = play(s, "davfs2", lambda lines: [*lines[:-1], "cp -r ~/Documents ~/patgate/", lines[-1]])
    finally:
        unmounted(s)
    arrived(s, documents)


@check("sshfs", "bash")
def token_setup_sshfs(s):
    mountable(s)
    try:
        documents, _ = play(s, "sshfs", lambda lines: [*lines[:-1], "cp -r ~/Documents ~/patgate/", lines[-1]])
    finally:
        unmounted(s)
    arrived(s, documents)


def mountable(s):
    if not os.access("/dev/fuse", os.R_OK | os.W_OK):
        raise Skip("/dev/fuse cannot be used here")
    for folder in (s.local, *s.local.parents):          # davfs2 leaves root behind and must still reach its mount
        if folder.stat().st_uid == os.geteuid() and str(folder).startswith(tempfile.gettempdir() + "/"):
            folder.chmod(0o711)


def unmounted(s):
    """Sees to it that nothing stays mounted, whatever went wrong."""
    point = s.local / "patgate"
    if str(point) in Path("/proc/mounts").read_text():
        subprocess.run(["umount", "-l", point], capture_output=True, timeout=20)


@check("sftp", "scp", "sshpass", "bash")
def token_setup_openssh(s):
    # The first line is the token, which nobody reads here: the password is asked for at the terminal.
    documents, shown = play(s, "openssh", lambda lines: ["read -r _", *lines], text="pwd\nmkdir made\nbye\n")
    arrived(s, documents)
    need(s.remote in shown, f"the session did not start in the token's folder: {shown!r}")
    need(s.status(s.url("made/"), "-X", "PROPFIND", "-H", "Depth: 0") == 207, "a folder made by sftp is not there")


@check("lftp", "bash")
def token_setup_lftp(s):
    documents, shown = play(s, "lftp", text="cls Documents\n")
    arrived(s, documents)
    need("letter.odt" in shown, f"lftp lists {shown!r}")


@check("restic", "rclone", "bash")
def token_setup_restic(s):
    env = {"RESTIC_PASSWORD": "test-" + s.remote}
    documents, shown = play(s, "restic", lambda lines: [
        *lines, "restic -r rclone:patgate:backup restore latest --target ~/restored",
        "restic -r rclone:patgate:backup snapshots --json"], env=env)
    need(len(json.loads(shown.strip().splitlines()[-1])) == 2, "not two backups were made")
    same(documents, tree_sums(s.local / "restored" / str(s.local / "Documents").lstrip("/")), "restored")


def with_a_key(s):
    """Lines that make a key that clients find and offer, and the host key known."""
    return ["ssh-keygen -q -t ed25519 -N '' -f ~/.ssh/id_ed25519",
            f"ssh-keyscan -p {s.sftp.port} {shlex.quote(s.sftp.host)} > ~/.ssh/known_hosts 2> /dev/null"]


@check("duplicity", "bash", "ssh-keyscan")
def token_setup_duplicity(s):
    """Over both protocols, with a key that it could offer; what was backed up is restored."""
    # duplicity types the token itself; OpenSSH looks for keys in the home of the user, not that of the environment.
    shim = SHIMS["sftp"].replace("sshpass -e ", "").format(options=TRUSTING + ' -i "$HOME/.ssh/id_ed25519"')
    own = [f"printf '%s\\n' '#!/bin/sh' {shlex.quote(shim)} > ~/shims/sftp"]
    more = ["FTP_PASSWORD=\"$TOKEN\" duplicity restore --no-encryption "
            f"pexpect+sftp://{s.sftp.user}@{s.sftp.host}:{s.sftp.port}/backup ~/restored-sftp"]
    documents, _ = play(s, "duplicity", lambda lines: [*with_a_key(s), *own, *lines, *more])
    same(documents, tree_sums(s.local / "restored"), "restored")
    same(documents, tree_sums(s.local / "restored-sftp"), "restored over SFTP")


@check("bash", "ssh-keyscan", "ssh-keygen", "python3")
def token_setup_paramiko(s):
    """With a key in ~/.ssh that it would offer first."""
    scripted(s, "paramiko")


@check("bash", "ssh-keyscan", "ssh-keygen", "python3")
def token_setup_fsspec(s):
    """With a key in ~/.ssh that it would offer first."""
    scripted(s, "fsspec")


def scripted(s, client):
    start = time.monotonic()
    python = environment()
    s.deadline += time.monotonic() - start
    first = [*with_a_key(s), f"PATH={shlex.quote(str(python))}:$PATH"]
    documents, shown = play(s, client, lambda lines: [*first, *lines])
    arrived(s, {"letter.odt": documents["letter.odt"]}, ".")
    need("letter.odt" in shown, f"{client} lists {shown!r}")


@check("ansible-playbook", "lftp", "bash", "ssh-keygen", "ssh-keyscan")
def token_setup_ansible(s):
    """Over both protocols, in one run."""
    documents, _ = play(s, "ansible", lambda lines: [*with_a_key(s), *lines])
    for name in ("letter.odt", "letter-sftp.odt"):
        arrived(s, {name: documents["letter.odt"]}, ".")


@check("gio", "dbus-run-session", "bash")
def token_setup_gnome(s):
    """gio: the printed steps; folders, moves, an overwrite and removals, over WebDAV and over SFTP."""
    s.basic()
    dav = s.dav.url.replace("http://", f"dav://{s.dav.user}@") + s.remote
    sftp = f"sftp://{s.sftp.user}@{s.sftp.host}:{s.sftp.port}{s.dav.path.removeprefix('/dav')}{s.remote}"

    def more(here, name):
        return f"""
        gio mkdir {here}/{name}
        gio copy "$HOME/Documents/photo #1.bin" {here}/{name}/
        gio move {here}/{name}/photo%20%231.bin {here}/{name}/moved.bin
        gio rename {here}/{name}/moved.bin renamed.bin
        gio cat {here}/{name}/renamed.bin | cmp - "$HOME/Documents/photo #1.bin"
        gio info {here}/letter.odt | grep -q 'standard::size: 14'
        printf 'changed\\n' | gio save {here}/{name}/letter.odt
        gio copy {here}/letter.odt {here}/copy.odt;  gio remove {here}/copy.odt
        gio list {here}/{name};  gio remove {here}/{name}/renamed.bin
        """

    def script(lines):
        mount, look, leave, over_sftp = lines
        return ["IFS= read -r TOKEN", f'{mount} <<< "$TOKEN"', look, more(dav, "dav"), leave,
                f'{over_sftp} <<< "$TOKEN"', more(sftp, "sftp"), f"gio remove {sftp}/dav/letter.odt {sftp}/dav"]
    # In it ssh makes a socket, whose path must be short.
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as run:
        _, shown = play(s, "gnome", script, wrapper=("dbus-run-session", "--"), env={"XDG_RUNTIME_DIR": run})
    need(shown.split().count("renamed.bin") == 2, f"gio lists {shown!r}")
    need(s.curl("-f", s.url("sftp/letter.odt")).stdout == "changed\n", "what gio saved is not on the server")
    need(s.status(s.url("dav/"), "-X", "PROPFIND", "-H", "Depth: 0") == 404, "a folder that gio removed is still there")


@check("kioclient", "dbus-run-session", "gdbus", "ssh-keyscan", "unshare", "bash")
def token_setup_kde(s):
    """KDE's KIO: the printed steps; folders, moves, an overwrite and removals, over WebDAV and over SFTP."""
    s.basic()
    if os.geteuid():
        raise Skip("to give libssh another home takes root")
    for name in ("run", "config"):
        (s.local / name).mkdir(0o700)
    (s.local / "config" / "kwalletrc").write_text("[Wallet]\nEnabled=false\n")
    dav = s.dav.url.replace("http://", f"webdav://{s.dav.user}@") + s.remote
    sftp = f"sftp://{s.sftp.user}@{s.sftp.host}:{s.sftp.port}{s.dav.path.removeprefix('/dav')}{s.remote}"
    know = f"""
        IFS= read -r TOKEN
        ssh-keyscan -p {s.sftp.port} {shlex.quote(s.sftp.host)} > ~/.ssh/known_hosts 2> /dev/null
        python3 {HERE}/kde_password.py webdav://{s.dav.user}@{s.dav.host}:{s.dav.port}/ {s.dav.user} "$TOKEN" patgate
        python3 {HERE}/kde_password.py sftp://{s.sftp.user}@{s.sftp.host}:{s.sftp.port}/ {s.sftp.user} "$TOKEN" ""
    """
    # Into files: KIO's workers outlive the command, and would keep a pipe open.
    more = "".join(f"""
        kioclient copy ~/Documents {there}/{kind}
        kioclient ls {there}/{kind} > ~/listed;  grep -qx 'photo #1.bin' ~/listed
        kioclient move '{there}/{kind}/photo%20%231.bin' {there}/{kind}/moved.bin
        kioclient --overwrite copy ~/Documents/letter.odt {there}/{kind}/moved.bin
        kioclient cat {there}/{kind}/moved.bin > ~/read;  cmp ~/read ~/Documents/letter.odt
        kioclient copy {there}/{kind} file://$HOME/from-{kind}
        kioclient remove {there}/{kind}/letter.odt
        if kioclient stat {there}/{kind}/letter.odt > /dev/null 2>&1; then exit 1; fi
    """ for kind, there in (("dav", dav), ("sftp", sftp)))
    # libssh takes the home of the user, not that of the environment; and KDE's servants outlive the session.
    home = 'mount --bind "$HOME" "$(getent passwd "$(id -u)" | cut -d: -f6)" && exec "$@"'
    documents, shown = play(s, "kde", lambda lines: [know, *lines, more], env={
        "XDG_RUNTIME_DIR": str(s.local / "run"), "QT_QPA_PLATFORM": "offscreen"},
        wrapper=("unshare", "--mount", "--pid", "--fork", "--mount-proc", "sh", "-c", home, "sh", "dbus-run-session", "--"))
    need("letter.odt" in shown.split(), f"kioclient lists {shown!r}")
    arrived(s, {"letter.odt": documents["letter.odt"]}, ".")
    for kind in ("dav", "sftp"):
        expected = {"letter.odt": documents["letter.odt"], "moved.bin": documents["letter.odt"]}
        same(expected, tree_sums(s.local / f"from-{kind}"), f"read back over {kind}")
        need(s.status(s.url(f"{kind}/letter.odt")) == 404, "a file that kioclient removed is still there")


@check("keepassxc-cli", "sshfs", "mount.davfs", "bash")
def token_setup_keepassxc(s):
    """KeePassXC on mounted folders: a database is made as printed and saved; its tag changes, its node stays."""
    s.basic()
    mountable(s)
    database = s.dav.path.removeprefix("/dav") + s.remote + "/Passwords.kdbx"
    step = commands(setup(s, "keepassxc")["steps"])[0]
    seen = set()
    for kind in ("sshfs", "davfs2"):
        make = f"({step}) <<< $'own\\nown'" if kind == "sshfs" else "true"
        inside = f"""
            {make}
            keepassxc-cli add -q -u alice ~/patgate/Passwords.kdbx {kind} <<< own
            test "$(keepassxc-cli show -q -a UserName ~/patgate/Passwords.kdbx {kind} <<< own)" = alice
            test "$(ls ~/patgate | grep -c kdbx)" = 1
        """
        try:
            again(s)
            play(s, kind, lambda lines: [*lines[:-1], inside, lines[-1]])
        finally:
            unmounted(s)
        seen.add((etag(s, "Passwords.kdbx"), gateway(s, "node", "id", database)))
    need(len({tag for tag, _ in seen}) == 2, "a database that was saved has the same tag")
    need(len({node for _, node in seen}) == 1, "a database that was saved is another node")


def again(s):
    """Clears away what prepare() made, for another play of the same check."""
    for name in ("Documents", ".ssh", "shims"):
        shutil.rmtree(s.local / name, ignore_errors=True)


def etag(s, path):
    answer = s.curl("-f", "-I", s.url(path)).stdout
    return re.search(r"^etag: (.*)$", answer, re.I | re.M)[1].strip()
