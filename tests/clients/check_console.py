"""Checks of the web console in Chromium, driven by npm's playwright-core, with its accessibility judged by axe-core."""

import json
import os
from pathlib import Path

from check_node import HERE, packages
from check_tokens import gateway
from session import check

# Pictures of the main pages stay there.
PICTURES = Path(os.environ.get("GATEWAY_PICTURES") or HERE.parents[1] / "target" / "console")


def person(s, login, *options):
    """A user with a few folders in its home, and a token that signs in."""
    home = f"/{login}"
    gateway(s, "admin", "user", "create", login, *[word for role in options for word in ("--role", role)])
    roles = [word for role in options for word in ("--role", role)]
    token = gateway(s, "admin", "user", "token", "-u", login, "-e", "1h", "--name", "browser", *roles, "-q")
    for folder in ("Photos", "Photos/Summer", "Private"):
        s.run("curl", "-fsS", "-u", f"{login}:{token}", "-X", "MKCOL",
              f"http://{s.dav.host}:{s.dav.port}/dav{home}/{folder}/")
    return {"login": login, "token": token, "home": home}


@check("node", "chromium", "rclone", "sshfs", "fusermount3", "sftp", "ssh-keygen")
def token_console(s):
    """Sign in, tokens of both models and of SSH keys through their lives, files, people, audit; as administrator and as ordinary user."""
    folder = packages(s)
    s.deadline += 240
    users = {"admin": person(s, "carol", "admin"), "user": person(s, "dave")}
    try:
        end = {"base": f"http://{s.dav.host}:{s.dav.port}", "sftp": {"host": s.sftp.host, "port": s.sftp.port},
               "users": users, "local": str(s.local), "pictures": str(PICTURES)}
        return s.run("node", HERE / "node" / "console_session.cjs", folder, text=json.dumps(end)).stdout.strip()
    finally:
        for user in users.values():
            gateway(s, "admin", "user", "delete", user["login"])
