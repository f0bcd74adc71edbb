"""Checks of desktop programs without a screen: Chromium on a directory listing, LibreOffice on a document that is stored on
the server."""

import html
import re
import sys
from pathlib import Path
from urllib.parse import quote, urljoin

from browser import dom
from endpoint import request
from files import NAMES
from session import Absent, check, need

HERE = Path(__file__).resolve().parent


@check("chromium")
def dav_browser(s):
    """Chromium shows a folder: every name, links that lead to the files, and a page that is stored there runs no script."""
    s.basic()
    login = f"//{quote(s.dav.user)}:{quote(s.dav.password)}@"
    names = [name for name in NAMES if not name.startswith(".")]
    for name in names:
        s.curl("-f", "-T", "-", s.url(name), text=f"content of {name}")
    s.curl("-f", "-X", "MKCOL", s.url("folder/"))
    page = dom(s, s.url().replace("//", login, 1))
    links = dict(re.findall(r'<a[^>]* href="([^"]+)"[^>]*>([^<]*)</a>', page))
    shown = {html.unescape(text).rstrip("/") for text in links.values()}
    lacking = sorted({*names, "folder"} - shown)
    need(not lacking, f"the listing lacks {lacking[:3]}; it shows {sorted(shown)[:5]}")
    for name in ("with space.txt", "ünïcödé-漢字-🙂.txt", "question?.txt", "percent%20.txt"):
        link = next(link for link, text in links.items() if html.unescape(text) == name)
        target = urljoin(s.url(), html.unescape(link))
        need(s.curl("-f", target).stdout == f"content of {name}", f"the link of {name} leads to something else")
    script = "<p id=p>stored</p><script>document.getElementById('p').textContent = 'ran'</script>"
    s.curl("-f", "-T", "-", s.url("page.html"), text=script)
    page = dom(s, s.url("page.html").replace("//", login, 1))
    need(">stored<" in page and ">ran<" not in page, f"a stored page ran its script, or is not shown: {page[:200]!r}")
    return f"{len(links)} links"


@check("soffice")
def dav_libreoffice(s):
    """LibreOffice opens a document on the server, locks it, saves a change and unlocks it; a locked one opens read-only."""
    s.basic()
    python = "/usr/bin/python3"
    if s.run(python, "-c", "import uno", expect=None).returncode:
        raise Absent("LibreOffice's python3-uno is not installed")
    return s.run(python, HERE / "office_session.py", s.url(), s.dav.user, s.dav.password, s.local).stdout.strip()
