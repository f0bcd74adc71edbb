"""Opens many SFTP sessions with asyncssh and leaves them idle, for idle_cases.py. The endpoint comes as a line of JSON on
standard input; after the next line every session is asked something again."""

import asyncio
import json
import sys

import asyncssh

AT_ONCE = 16


async def main(count):
    end = json.loads(sys.stdin.readline())
    login = {"host": end["host"], "port": int(end["port"]), "username": end["user"], "known_hosts": None,
             "agent_path": None, "config": None, "client_keys": [end["identity"]] if end["identity"] else None}
    if end["password"] and not end["identity"]:
        login["password"] = end["password"]
    turn, sessions = asyncio.Semaphore(AT_ONCE), []

    async def open_one():
        async with turn:
            connection = await asyncssh.connect(**login)
            sftp = await connection.start_sftp_client()
            await sftp.realpath(".")
            sessions.append((connection, sftp))

    await asyncio.gather(*(open_one() for _ in range(count)))
    print(f"open {len(sessions)}", flush=True)
    await asyncio.to_thread(sys.stdin.readline)
    await asyncio.gather(*(sftp.realpath(".") for _, sftp in sessions))
    print(f"answered {len(sessions)}", flush=True)
    for connection, _ in sessions:
        connection.abort()


asyncio.run(main(int(sys.argv[1])))
