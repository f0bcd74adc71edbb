"""An SFTP session with asyncssh, run by check_logins.py. The endpoint comes as JSON on standard input, the remote directory
as argument."""

import asyncio
import json
import os
import sys
from pathlib import Path

import asyncssh

end, folder = json.load(sys.stdin), sys.argv[1]
login = {"host": end["host"], "port": end["port"], "username": end["user"], "known_hosts": None, "client_keys": None,
         "agent_path": None, "config": None}


def must(condition, reason):
    if not condition:
        sys.exit(reason)


async def refused(reason, error, call):
    try:
        await call
    except error:
        return
    sys.exit(reason)


class Answering(asyncssh.SSHClient):
    """Answers the one question with the token."""

    def kbdint_auth_requested(self):
        return ""

    def kbdint_challenge_received(self, name, instructions, lang, prompts):
        must(len(prompts) == 1 and not prompts[0][1], f"the questions are {prompts}")
        return [end["password"]]


async def work(sftp):
    data = os.urandom(7_000_001)
    Path("local.bin").write_bytes(data)
    await sftp.symlink("text.txt", f"{folder}/link")     # before chdir, which would make the target absolute
    await sftp.chdir(folder)
    await sftp.put("local.bin", "put.bin", preserve=True)
    await sftp.get("put.bin", "got.bin")
    must(Path("got.bin").read_bytes() == data, "the content came back different")
    must(abs((await sftp.stat("put.bin")).mtime - Path("local.bin").stat().st_mtime) <= 1, "the time was not kept")
    async with sftp.open("put.bin", "rb") as file:
        parts = await asyncio.gather(*(file.read(50_000, at) for at in range(0, 5_000_000, 500_000)))
        must(all(part == data[at:at + 50_000] for part, at in zip(parts, range(0, 5_000_000, 500_000))),
             "parallel reads differ")
    async with sftp.open("text.txt", "w") as file:
        await file.write("one\n")
    async with sftp.open("text.txt", "a") as file:
        await file.write("two\n")
    async with sftp.open("text.txt", "r+") as file:
        await file.seek(4)
        await file.write("TWO")
        await file.truncate(7)
        must((await file.stat()).size == 7, "FSTAT gives another size")
        await file.fsync()
    async with sftp.open("text.txt") as file:
        must(await file.read() == "one\nTWO", "an edit went wrong")
    odd = b"odd \xff\xfe.bin"
    async with sftp.open(odd, "wb") as file:
        await file.write(b"odd")
    must(odd in await sftp.listdir(b"."), "a name that is no text is not listed as it is")
    await sftp.remove(odd)
    await sftp.makedirs("deep/er/est")
    await asyncio.gather(*(sftp.put("local.bin", f"deep/er/{n}.bin") for n in range(4)))
    must(sorted(await sftp.glob("deep/er/*.bin")) == [f"deep/er/{n}.bin" for n in range(4)], "glob finds something else")
    await sftp.get("deep", "deep", recurse=True)
    must(Path("deep/er/3.bin").read_bytes() == data, "a folder came back different")
    must(await sftp.readlink("link") == "text.txt" and await sftp.islink("link"), "the symbolic link is not right")
    await sftp.link("text.txt", "hard")
    must((await sftp.stat("hard")).size == 7, "the hard link is not right")
    await refused("a plain rename replaced a file", asyncssh.SFTPError, sftp.rename("hard", "put.bin"))
    await sftp.posix_rename("hard", "put.bin")
    await sftp.chmod("put.bin", 0o600)
    must((await sftp.stat("put.bin")).permissions & 0o777 == 0o600, "the mode was not kept")
    must((await sftp.statvfs(".")).blocks > 0, "statvfs shows no room")
    await refused("stat of nothing did not fail as such", asyncssh.SFTPNoSuchFile, sftp.stat("nothing"))
    await sftp.rmtree("deep")
    must(not await sftp.exists("deep"), "a removed folder is still there")


async def main():
    async with asyncssh.connect(**login, password=end["password"]) as connection:
        async with connection.start_sftp_client() as sftp:
            await work(sftp)
        await refused("a command was carried out", asyncssh.Error, connection.run("id", check=True))
    async with asyncssh.connect(**login, client_factory=Answering, preferred_auth="keyboard-interactive") as connection:
        async with connection.start_sftp_client() as sftp:
            must("text.txt" in await sftp.listdir(folder), "the login by question shows something else")
    await refused("a wrong password was let in", asyncssh.PermissionDenied,
                  asyncssh.connect(**login, password="wrong"))


asyncio.run(main())
print("one session by password, one by question")
