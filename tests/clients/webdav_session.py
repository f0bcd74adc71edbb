"""PyPI's webdav4 and webdavclient3 in one directory, run by check_python.py. The endpoint comes as JSON on standard
input."""

import io
import json
import os
import sys
from pathlib import Path

import webdav3.client
import webdav3.exceptions
import webdav4.client
import webdav4.fsspec

end = json.load(sys.stdin)


def must(condition, reason):
    if not condition:
        sys.exit(reason)


data = os.urandom(3_000_001)
Path("file").write_bytes(data)

four = webdav4.client.Client(end["url"], auth=(end["user"], end["password"]))
four.mkdir("four ünï")
four.upload_file("file", "four ünï/a+1 b.bin")
must(four.content_length("four ünï/a+1 b.bin") == len(data), "webdav4: another length")
four.download_file("four ünï/a+1 b.bin", "back")
must(Path("back").read_bytes() == data, "webdav4: the file came back different")
etag = four.etag("four ünï/a+1 b.bin")
four.copy("four ünï/a+1 b.bin", "four ünï/copy.bin")
four.move("four ünï/copy.bin", "four ünï/moved.bin")
must(sorted(four.ls("four ünï", detail=False)) == ["four ünï/a+1 b.bin", "four ünï/moved.bin"], "webdav4: the listing differs")
four.upload_fileobj(io.BytesIO(b"changed"), "four ünï/a+1 b.bin", overwrite=True)
must(four.etag("four ünï/a+1 b.bin") != etag, "webdav4: the same tag for another content")
must(four.isdir("four ünï") and not four.exists("four ünï/nothing"), "webdav4: what is there and what is not")
try:
    four.upload_file("file", "four ünï/moved.bin")
    sys.exit("webdav4: it wrote over a file unasked")
except webdav4.client.ResourceAlreadyExists:
    pass

tree = webdav4.fsspec.WebdavFileSystem(end["url"], auth=(end["user"], end["password"]))
with tree.open("four ünï/moved.bin", "rb") as part:
    part.seek(1_000_000)
    must(part.read(9) == data[1_000_000:1_000_009], "fsspec: a part differs")
with tree.open("four ünï/new.txt", "w") as new:
    new.write("line\n")
must(tree.cat("four ünï/new.txt") == b"line\n", "fsspec: what was written differs")
tree.rm("four ünï", recursive=True)
must(not tree.exists("four ünï"), "fsspec: what was removed is there")

three = webdav3.client.Client({"webdav_hostname": end["url"], "webdav_login": end["user"], "webdav_password": end["password"]})
three.mkdir("three")
three.upload_sync(remote_path="three/a b.bin", local_path="file")
three.download_sync(remote_path="three/a b.bin", local_path="back")
must(Path("back").read_bytes() == data, "webdavclient3: the file came back different")
must(three.info("three/a b.bin")["size"] == str(len(data)) and three.is_dir("three"), "webdavclient3: what it is differs")
three.copy("three/a b.bin", "three/copy.bin")
three.move("three/copy.bin", "three/moved.bin")
must({"a b.bin", "moved.bin"} <= set(three.list("three")), f"webdavclient3 lists {three.list('three')}")
three.set_property("three/moved.bin", {"namespace": "urn:test", "name": "colour", "value": "green"})
colour = three.get_property("three/moved.bin", {"namespace": "urn:test", "name": "colour"})
must(colour == "green", f"webdavclient3: the property is {colour!r}")
must(int(three.free()) > 0 and three.check("three/moved.bin") and not three.check("three/nothing"), "webdavclient3: room, or what is there")
three.clean("three")
must(not three.check("three"), "webdavclient3: what was removed is there")
