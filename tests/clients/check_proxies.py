"""Checks behind reverse proxies (nginx, Apache, Caddy), configured as the main README says, and of web applications of
another origin."""

import html
import http.server
import os
import re
import threading
from contextlib import contextmanager
from pathlib import Path

from browser import chromium
from check_rest import await_port, free_port, served
from endpoint import quote
from files import random_file, sha256
from session import check, need

README = Path(__file__).resolve().parents[2] / "README.md"
NAME = "files.example.org"
SBIN = ":/usr/sbin:/sbin"
LOCK = ('<D:lockinfo xmlns:D="DAV:"><D:lockscope><D:exclusive/></D:lockscope>'
        '<D:locktype><D:write/></D:locktype></D:lockinfo>')


def block(language):
    """The block of the main README in this language."""
    found = re.search(rf"```{language}\n(.*?)```", README.read_text(), re.S)
    need(found, f"README has no block for {language}")
    return found[1]


@contextmanager
def running(s, port, *command):
    """A proxy, for the length of a block."""
    os.chmod(s.local, 0o755)
    process = s.start(*command, env={"PATH": os.environ["PATH"] + SBIN}, stderr=(s.local / "proxy.log").open("w"))
    try:
        await_port(s, port, command[0])
        yield
    finally:
        process.terminate()
        process.wait(30)


class Through:
    """A user of a gateway behind a proxy, who knows it by its public address."""

    def __init__(self, s, gateway, port, prefix=""):
        gateway("admin", "user", "create", "alice")
        self.s, self.port = s, port
        self.token = gateway("admin", "user", "token", "-u", "alice", "-e", "1h", "-q")
        self.base = f"http://{NAME}:{port}{prefix}/dav/alice/"

    def curl(self, *arguments, text=""):
        return self.s.run("curl", "-sS", "-i", "--max-time", "100", "--resolve", f"{NAME}:{self.port}:127.0.0.1",
                          "-u", f"alice:{self.token}", *arguments, text=text).stdout

    def ask(self, method, path, *arguments, wanted, text=""):
        """One request; fails unless the last answer has the status."""
        answer = self.curl("-X", method, *arguments, self.base + quote(path), text=text)
        status = re.findall(r"^HTTP/\S+ (\d+)", answer, re.M)[-1:]
        need(status == [str(wanted)], f"{method} of {path} gave {status} in place of {wanted}: {answer[-300:]}")
        return answer

    def transfer(self):
        """What names the public address: copies, moves, locks and links."""
        odd = "ünï + 100% #.txt"
        self.ask("PUT", odd, "--data-binary", "@-", wanted=201, text="content")
        self.ask("COPY", odd, "-H", f"Destination: {self.base}{quote('copy ' + odd)}", wanted=201)
        self.ask("MKCOL", "folder/", wanted=201)
        self.ask("MOVE", "copy " + odd, "-H", f"Destination: {self.base}folder/{quote(odd)}", wanted=201)
        need(self.ask("GET", f"folder/{odd}", wanted=200).endswith("content"), "what was moved has another content")
        self.ask("MOVE", odd, "-H", f"Destination: http://evil.example/dav/alice/x", wanted=502)
        listing = self.ask("PROPFIND", "folder/", "-H", "Depth: 1", wanted=207)
        path = re.sub(r"^https?://[^/]*", "", self.base)
        need(f"<D:href>{path}folder/{quote(odd)}</D:href>" in listing, f"a link leads elsewhere: {listing[-600:]}")
        locked = self.ask("LOCK", odd, "-H", "Content-Type: application/xml", "--data", "@-", wanted=200, text=LOCK)
        token = re.search(r"^lock-token:\s*(<[^>]+>)", locked, re.I | re.M)
        need(token, f"no lock token came through: {locked[:300]}")
        self.ask("PUT", odd, "--data-binary", "@-", wanted=423, text="other")
        tagged = f"If: <{self.base}{quote(odd)}> ({token[1]})"
        self.ask("PUT", odd, "-H", tagged, "--data-binary", "@-", wanted=204, text="other")
        self.ask("UNLOCK", odd, "-H", f"Lock-Token: {token[1]}", wanted=204)

    def lie(self):
        """A client that claims another public address: it counts nowhere."""
        lies = ("-H", "X-Forwarded-Host: evil.example", "-H", "X-Forwarded-Port: 1", "-H", "X-Forwarded-Prefix: /evil")
        self.ask("PUT", "lie", *lies, "--data-binary", "@-", wanted=201, text="content")
        self.ask("COPY", "lie", *lies, "-H", f"Destination: {self.base}copied", wanted=201)
        self.ask("COPY", "lie", *lies, "-H", "Destination: http://evil.example/dav/alice/x", wanted=502)
        self.ask("COPY", "lie", *lies, "-H", "Destination: http://evil.example:1/evil/dav/alice/x", wanted=502)
        listing = self.ask("PROPFIND", "lie", *lies, "-H", "Depth: 0", wanted=207)
        need("evil" not in listing, f"a link leads elsewhere: {listing[-600:]}")

    def large(self, stored):
        """A file of 1 GiB, there and back by its digest."""
        random_file(self.s.local / "large", 1 << 30)
        self.curl("-f", "-T", "large", self.base + "large")
        need(sha256(stored / "alice" / "large") == sha256(self.s.local / "large"), "1 GiB came through different")


def proxied(s, command):
    """Tries a proxy; `command` writes its configuration for an address of the gateway and a port."""
    port = free_port()
    with served(s, "--trusted-proxies", "127.0.0.1/32") as (url, gateway), running(s, port, *command(url, port)):
        through = Through(s, gateway, port)
        through.transfer()
        through.lie()
        through.large(s.local / "files")


NGINX = """
daemon off; worker_processes 1; pid {folder}/nginx.pid; error_log {folder}/error.log;
events {{ worker_connections 64; }}
http {{
    access_log off;
    client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy; fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi; scgi_temp_path {folder}/scgi;
    server {{ listen 127.0.0.1:{port}; server_name files.example.org; {block} }}
}}
"""


def nginx(s, port, text):
    config = s.local / "nginx.conf"
    config.write_text(NGINX.format(folder=s.local, port=port, block=text))
    return "nginx", "-p", s.local, "-c", config, "-g", f"user {os.environ.get('USER', 'root')};"


@check("nginx", "curl")
def token_proxy_nginx(s):
    """nginx as README sets it up; then one that keeps its own Host and cuts off a path, with public_url."""
    proxied(s, lambda url, port: nginx(s, port, block("nginx").replace("http://127.0.0.1:8080", url)))
    port = free_port()
    public = ("--public-url", f"http://{NAME}:{port}/cloud")
    with served(s, "--trusted-proxies", "127.0.0.1/32", *public, folder="cut") as (url, gateway):
        text = f"client_max_body_size 0; location /cloud/ {{ proxy_pass {url}/; }}"
        with running(s, port, *nginx(s, port, text)):
            Through(s, gateway, port, "/cloud").transfer()


APACHE = """
ServerRoot {folder}
ServerName files.example.org
PidFile {folder}/apache.pid
ErrorLog {folder}/error.log
Mutex file:{folder}
Listen 127.0.0.1:{port}
LoadModule mpm_event_module /usr/lib/apache2/modules/mod_mpm_event.so
LoadModule authz_core_module /usr/lib/apache2/modules/mod_authz_core.so
LoadModule proxy_module /usr/lib/apache2/modules/mod_proxy.so
LoadModule proxy_http_module /usr/lib/apache2/modules/mod_proxy_http.so
LoadModule headers_module /usr/lib/apache2/modules/mod_headers.so
User www-data
Group www-data
<VirtualHost *:{port}>
{block}
</VirtualHost>
"""


@check("apache2", "curl")
def token_proxy_apache(s):
    """Apache as README sets it up, and as it is without ProxyPreserveHost."""
    def apache(url, port, text):
        config = s.local / "apache.conf"
        config.write_text(APACHE.format(folder=s.local, port=port, block=text.replace("http://127.0.0.1:8080", url)))
        return "apache2", "-f", config, "-D", "FOREGROUND"

    proxied(s, lambda url, port: apache(url, port, block("apache")))
    port, own = free_port(), block("apache").replace("ProxyPreserveHost On\n", "")
    with served(s, "--trusted-proxies", "127.0.0.1/32", folder="own") as (url, gateway):
        with running(s, port, *apache(url, port, own)):
            Through(s, gateway, port).transfer()


@check("caddy", "curl")
def token_proxy_caddy(s):
    """Caddy as README sets it up; then one that cuts off a path and says so."""
    def caddy(url, port, text):
        config = s.local / "Caddyfile"
        text = text.replace(NAME, f"http://:{port}").replace("127.0.0.1:8080", url.removeprefix("http://"))
        config.write_text("{\n    admin off\n    auto_https off\n}\n" + text)
        return "caddy", "run", "--adapter", "caddyfile", "--config", config

    proxied(s, lambda url, port: caddy(url, port, block("caddy")))
    port = free_port()
    cut = (f"{NAME} {{\n    handle_path /cloud/* {{\n        reverse_proxy 127.0.0.1:8080 {{\n"
           "            header_up X-Forwarded-Prefix /cloud\n        }\n    }\n}\n")
    with served(s, "--trusted-proxies", "127.0.0.1/32", folder="cut") as (url, gateway):
        with running(s, port, *caddy(url, port, cut)):
            Through(s, gateway, port, "/cloud").transfer()


PAGE = """<!doctype html><title>app</title><pre id=said>waiting</pre><script>
const base = "URL", headers = {Authorization: "Bearer TOKEN"}, said = [];
const ask = async (method, path, more = {}, body) => {
    try {
        const answer = await fetch(base + path, {method, body, headers: {...headers, ...more}});
        said.push(`${method} ${answer.status}`);
        return answer;
    } catch (error) { said.push(`${method} ${error.name}`); }
};
(async () => {
    const put = await ask("PUT", "a.txt", {"X-OC-Mtime": "981173106"}, "content");
    said.push(put?.headers.get("etag") ? "etag" : "no etag");
    await ask("PROPFIND", "", {Depth: "1"});
    await ask("MOVE", "a.txt", {Destination: base + "b.txt", Overwrite: "F"});
    const lock = await ask("LOCK", "b.txt", {"Content-Type": "application/xml", Timeout: "Second-60"}, `LOCKINFO`);
    await ask("UNLOCK", "b.txt", {"Lock-Token": lock?.headers.get("lock-token") ?? "none:"});
    await ask("GET", "missing");
    headers.Authorization = "Bearer wrong";
    await ask("GET", "b.txt");
    document.getElementById("said").textContent = said.join(", ");
})();
</script>"""


@contextmanager
def web_application(page):
    """A page of another origin, for the length of a block: its origin."""
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.send_header("Content-Type", "text/html; charset=utf-8")
            self.end_headers()
            self.wfile.write(page().encode())

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()


@check("chromium")
def token_cors(s):
    """A page of another origin in Chromium writes, lists, moves and locks once it is named; else it reads nothing."""
    filled = {}
    wanted = "PUT 201, etag, PROPFIND 207, MOVE 201, LOCK 200, UNLOCK 204, GET 404, GET 401"
    with web_application(lambda: filled["page"]) as origin:
        for folder, flags in (("named", ("--cors-origins", origin)), ("other", ("--cors-origins", "https://app.example"))):
            with served(s, *flags, folder=folder) as (url, gateway):
                gateway("admin", "user", "create", "alice")
                token = gateway("admin", "user", "token", "-u", "alice", "-e", "1h", "-q")
                page = PAGE.replace("URL", f"{url}/dav/alice/").replace("TOKEN", token).replace("LOCKINFO", LOCK)
                filled["page"] = page
                dump = s.run(*chromium(s, "--virtual-time-budget=20000", "--dump-dom", origin, name=folder)).stdout
                said = html.unescape(re.search(r"<pre id=\"?said\"?>(.*?)</pre>", dump, re.S)[1])
                if folder == "named":
                    need(said == wanted, f"the page was told {said!r}")
                else:
                    need("TypeError" in said and not re.search(r" \d\d\d", said), f"another origin was told {said!r}")
