"""FileZilla's SFTP engine, fzsftp, driven as FileZilla drives it. Arguments: host, port, user, a remote folder; the
token is the first line of the input.

FileZilla writes commands to it and answers the events that it prints: a character each, most with a line behind it. The
data of files passes through memory that both share."""

import mmap
import os
import subprocess
import sys
from pathlib import Path

host, port, user, folder = sys.argv[1:]
token = sys.stdin.readline().rstrip("\n")
PIECE = 256 * 1024


def must(condition, reason):
    if not condition:
        sys.exit(reason)


class Engine:
    """The engine and the memory it shares with us."""

    def __init__(self):
        self.shared = os.memfd_create("filezilla")
        os.ftruncate(self.shared, PIECE)
        self.memory = mmap.mmap(self.shared, PIECE)
        self.process = subprocess.Popen(["fzsftp", "-v"], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                        pass_fds=[self.shared])
        self.local, self.asked, self.listed, self.said = None, [], [], []
        must(self.process.stdout.readline().startswith(b"0fzSftp started"), "the engine did not start")

    def write(self, line):
        self.process.stdin.write(line.encode() + b"\n")
        self.process.stdin.flush()

    def line(self):
        return self.process.stdout.readline().decode(errors="replace").rstrip("\n")

    def do(self, command, local=None, mode="rb", expect=True):
        """Carries a command out, and tells what it says; whether it has to work, or (None) the listing tells."""
        self.local, self.listed, self.said = local and open(local, mode), [], []
        self.write(command)
        while (event := self.process.stdout.read(1)) not in (b"0", b"1", b""):      # a reply, or done
            if event in b"25":
                self.said.append(self.line())
            else:
                self.answer(event)
        must(event, f"the engine ended at {command.split()[0]}: {self.said[-3:]}")
        last = self.line()
        if self.local:
            self.local.close()
        failed = event == b"1" and last != "1"
        must(expect is None or failed != expect, f"{command}: {self.said[-1:]}" if failed else f"{command} did not fail")
        return last

    def answer(self, event):
        if event in b"A@":                              # may it send, may it receive: as much as it likes
            self.write("-1-" if event == b"A" else "-0-")
        elif event in b"9:;":                           # a host key: its host and port
            self.line(), self.line()
            self.write("y")
        elif event == b"<":                             # a question
            self.asked.append(self.line())
            self.write(token)
        elif event == b"8":                             # an entry: as ls prints it, its time, its name
            self.listed.append((self.line(), int(self.line()), self.line()))
        elif event == b"K":                             # a file is opened
            offset = int(self.line())
            if self.local.writable():
                offset = self.local.seek(0, os.SEEK_END)
            else:
                self.local.seek(offset)
            self.write(f"-{self.shared} {PIECE} {offset}")
        elif event == b"L":                             # the next piece of it
            self.exchange(int(self.line() or 0))
        elif event == b"M":                             # the last one of a download
            self.local.write(self.memory[:int(self.line() or 0)])
            self.write("-1")
        elif event == b"J":
            self.write(f"-{os.fstat(self.local.fileno()).st_size}")
        else:
            self.line()

    def exchange(self, used):
        if self.local.writable():
            self.local.write(self.memory[:used])
            self.write(f"-0 {PIECE}")
        else:
            data = self.local.read(PIECE)
            self.memory[:len(data)] = data
            self.write(f"-0 {len(data)}" if data else "-0")


engine = Engine()
engine.do(f'open "{user}@{host}" {port}')
must(engine.asked, "nothing was asked")
engine.do(f'cd "{folder}"')
must(engine.do("pwd").endswith(f'{folder}"'), "it is in another folder")

data = os.urandom(5_000_003)
Path("file").write_bytes(data)
engine.do('put "file" "file name"', "file")
engine.do('get "file name" "back"', "back", "wb")
must(Path("back").read_bytes() == data, "the file came back different")
Path("part").write_bytes(data[:1_234_567])
engine.do('put "part" "cut"', "part")
engine.do('reput "file" "cut"', "file")
Path("back").write_bytes(data[:2_345_678])
engine.do('reget "cut" "back"', "back", "ab")
must(Path("back").read_bytes() == data, "a transfer that was resumed brought something else")

engine.do('chmtime 981173106 "file name"')
must(engine.do('mtime "file name"') == "981173106", "the time was not kept")
engine.do('chmod 640 "file name"', expect=None)
engine.do('mkdir "new folder"')
engine.do('mv "file name" "new folder/ünï.bin"')
engine.do('ls "new folder"')
found = {name: (text, time) for text, time, name in engine.listed if not name.startswith(".")}
must(list(found) == ["ünï.bin"], f"the listing shows {engine.listed}")
text, time = found["ünï.bin"]
must(text.startswith("-rw-r-----") and str(len(data)) in text.split() and time == 981173106, f"it is listed as {text}")
for refused in ('rmdir "new folder"', 'rm "nothing"', 'get "nothing" "x"'):
    engine.do(refused, "back" if "get" in refused else None, "ab", expect=False)
engine.do('rm "new folder/ünï.bin"')
engine.do('rmdir "new folder"')
engine.do('rm "cut"')
engine.do("ls")
must(not [entry for entry in engine.listed if not entry[2].startswith(".")], f"what was removed is listed: {engine.listed}")
print(f"asked {engine.asked[0]!r}")
