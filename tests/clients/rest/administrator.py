"""Hooks of schemathesis: every call comes from a distinct address, so that wrong credentials throttle no other call, and
carries an administrator's token, created anew whenever earlier calls have deleted or revoked it."""

import os
import random
import subprocess
import urllib.error
import urllib.request

import schemathesis

GATEWAY, STATE, URL = (os.environ[name] for name in ("REST_GATEWAY", "REST_STATE", "REST_URL"))
ADDRESSES = random.Random(1)


def gateway(*arguments):
    done = subprocess.run([GATEWAY, "--state", STATE, *arguments], capture_output=True, text=True)
    return done.stdout.strip() if done.returncode == 0 else ""


def address():
    return "127." + ".".join(str(ADDRESSES.randint(1, 254)) for _ in range(3))


def accepted(token):
    headers = {"Authorization": f"Bearer {token}", "X-Forwarded-For": address()}
    try:
        with urllib.request.urlopen(urllib.request.Request(URL + "/api/v1/policy", headers=headers), timeout=10):
            return True
    except urllib.error.HTTPError:
        return False


@schemathesis.auth(refresh_interval=0.3)
class Administrator:
    token = ""

    def get(self, case, context):
        if not (self.token and accepted(self.token)):
            for key, value in (("max-lifetime", "1Y"), ("default-lifetime", "1d"), ("max-tokens-per-user", "1000000")):
                gateway("policy", "set", key, value)
            gateway("admin", "user", "delete", "root")
            gateway("admin", "user", "create", "root", "--role", "admin", "--grant", "/:rw")
            self.token = gateway("admin", "user", "token", "-u", "root", "--role", "admin", "-q")
        return self.token

    def set(self, case, data, context):
        case.headers = case.headers or {}
        case.headers["Authorization"] = f"Bearer {data}"


@schemathesis.hook
def before_call(context, case, kwargs):
    case.headers = case.headers or {}
    case.headers["X-Forwarded-For"] = address()
