"""A login with paramiko that offers a key before the password; shows paramiko's log, and how long it took.

The endpoint comes as JSON on standard input.
"""

import json
import logging
import sys
import time

import paramiko

end = json.load(sys.stdin)
logging.basicConfig(stream=sys.stdout, level=logging.INFO, format="%(message)s")
client = paramiko.SSHClient()
client.set_missing_host_key_policy(paramiko.AutoAddPolicy())
start = time.monotonic()
try:
    client.connect(end["host"], end["port"], end["user"], end["password"], key_filename=end["key"],
                   look_for_keys=False, allow_agent=False, auth_timeout=20)
    print("logged in: russh answers a second request now, see docs/russh-login.md")
except paramiko.SSHException as error:
    print(error)
print("took", time.monotonic() - start)
