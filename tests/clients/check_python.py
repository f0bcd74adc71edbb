"""Checks of WebDAV clients from PyPI: webdav4, with fsspec over it, and webdavclient3. `install-python` installs them."""

import json
import time
from pathlib import Path

from check_rest import environment
from session import check

HERE = Path(__file__).resolve().parent


@check("python3")
def dav_python(s):
    """webdav4 and webdavclient3: whole files, parts, copies, moves, properties, tags, the room."""
    s.basic()
    start = time.monotonic()
    python = environment() / "python"
    s.deadline += time.monotonic() - start
    end = {"url": s.url(), "user": s.dav.user, "password": s.dav.password}
    s.run(python, "-B", HERE / "webdav_session.py", text=json.dumps(end))
