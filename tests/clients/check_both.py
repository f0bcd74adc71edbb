"""One tree over both protocols."""

import re

from files import MIB, random_file, sha256
from session import check, need


@check("curl", "sftp")
def both_same_tree(s):
    """What is written over one protocol is there over the other, removed means removed on both."""
    random_file(s.local / "file", 3 * MIB + 9)
    name = "ünï + 100% #.bin"
    s.curl("-f", "-T", "file", s.url(name))
    s.batch(f'get "{name}" back', f'put file "from {name}"')
    need(sha256(s.local / "back") == sha256(s.local / "file"), "written over WebDAV, read differently over SFTP")
    s.curl("-f", "-o", "back2", s.url(f"from {name}"))
    need(sha256(s.local / "back2") == sha256(s.local / "file"), "written over SFTP, read differently over WebDAV")
    tag = re.search(r"^etag:\s*(\S+)", s.curl("-I", s.url(name)).stdout, re.I | re.M)
    (s.local / "file").write_text("other")
    s.batch(f'put file "{name}"', f'rm "from {name}"')
    need(s.curl("-f", s.url(name)).stdout == "other", "a change over SFTP is not seen over WebDAV")
    after = re.search(r"^etag:\s*(\S+)", s.curl("-I", s.url(name)).stdout, re.I | re.M)
    need(tag and after and tag[1] != after[1], "the ETag stayed the same over a change by SFTP")
    need(s.status(s.url(f"from {name}")) == 404, "a file removed over SFTP is still there over WebDAV")
