"""The WebDAV cases over TLS 1.3 and HTTP/2, every client with the same cipher."""

import os
import re
import statistics

from cases import Failed, case, run
from dav_cases import DavTarget, count_entries, wrk
from shared import MIB

CIPHER = "TLS_AES_128_GCM_SHA256"
STREAMS = 16

OPENSSL_CONFIG = f"""
openssl_conf = clients
[clients]
ssl_conf = modules
[modules]
system_default = defaults
[defaults]
MinProtocol = TLSv1.3
Ciphersuites = {CIPHER}
"""


def make_certificate(folder):
    """A self-signed certificate for 127.0.0.1 and its key: their paths."""
    certificate, key = folder / "certificate.pem", folder / "key.pem"
    run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2",
         "-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", str(key), "-out", str(certificate)])
    return certificate, key


class TlsTarget(DavTarget):
    """A WebDAV server over TLS. wrk has no option for the cipher: it takes that from OpenSSL's configuration."""

    def __init__(self, end, local, options):
        super().__init__(end, local, options)
        self.curl_options = ["--cacert", end.certificate, "--http1.1", "--tlsv1.3", "--tls13-ciphers", CIPHER]
        config = local / "openssl.cnf"
        config.write_text(OPENSSL_CONFIG)
        self.env = {**os.environ, "OPENSSL_CONF": str(config)}

    def begin(self):
        shown = run(["openssl", "s_client", "-connect", f"{self.end.host}:{self.end.port}", "-CAfile",
                     self.end.certificate, "-verify_return_error"], self.env).decode()
        if f"New, TLSv1.3, Cipher is {CIPHER}" not in shown:
            raise Failed(f"the server does not agree to TLS 1.3 with {CIPHER}")
        super().begin()

    def h2load(self, count, *arguments):
        """Requests over HTTP/2, 16 streams at once on one connection: (requests/s, bytes of the bodies received)."""
        text = run(["h2load", "-c1", "-t1", f"-m{STREAMS}", f"-n{count}", "--npn-list=h2", f"--tls13-ciphers={CIPHER}",
                    "-H", f"Authorization: {self.end.authorization}", *arguments]).decode()
        for wanted in ("Application protocol: h2", "TLS Protocol: TLSv1.3", f"Cipher: {CIPHER}"):
            if wanted not in text:
                raise Failed(f"h2load did not get {wanted}")
        done = re.search(r"(\d+) succeeded, (\d+) failed, (\d+) errored, (\d+) timeout", text)
        answers = re.search(r"status codes: (\d+) 2xx", text)
        if [*map(int, done.groups())] != [count, 0, 0, 0] or int(answers[1]) != count:
            raise Failed(f"h2load: {done[0]}, {answers[0]}")
        return float(re.search(r"finished in .*?, ([\d.]+) req/s", text)[1]), int(re.search(r"\((\d+)\) data", text)[1])


@case("dav-tls-get-big", "MiB/s", higher=True, group="tls")
def tls_get_big(t):
    """GET of the big file with curl over TLS 1.3."""
    t.once("big", t.big)
    with t.meter():
        seconds = t.curl(t.end.at(t.path("big.bin")))
    return t.options.size_mib / seconds, {"work": t.options.size_mib / 1024}


@case("dav-tls-put-big", "MiB/s", higher=True, group="tls")
def tls_put_big(t):
    """PUT of the big file with curl over TLS 1.3, to a name that does not exist."""
    t.fresh("up.bin")
    with t.meter():
        seconds = t.curl("-T", str(t.local / "big"), t.end.at(t.path("up.bin")))
    t.once("verified put", lambda: t.verify("up.bin"))
    head, _ = t.ask("HEAD", "up.bin")
    if int(head["Content-Length"] or -1) != t.options.size_mib * MIB:
        raise Failed("the file written has another length")
    t.fresh("up.bin")
    return t.options.size_mib / seconds, {"work": t.options.size_mib / 1024}


@case("dav-tls-get-4k", "req/s", higher=True, per="1,000 requests", group="tls")
def tls_get_4k(t):
    """GET of a 4 KiB file with wrk over 16 kept connections with TLS 1.3, with credentials in every request."""
    t.once("small", lambda: t.ask("PUT", "small.dat", os.urandom(4096)))
    return wrk(t, t.path("small.dat"), "-t1", "-c16", "-H", f"Authorization: {t.end.authorization}", env=t.env)


@case("dav-h2-get-4k", "req/s", higher=True, per="1,000 requests", group="tls")
def h2_get_4k(t):
    """GET of a 4 KiB file with h2load: HTTP/2 over TLS 1.3, 16 streams on one connection."""
    t.once("small", lambda: t.ask("PUT", "small.dat", os.urandom(4096)))
    count = 10000 * t.options.wrk_seconds
    with t.meter():
        rate, received = t.h2load(count, t.end.at(t.path("small.dat")))
    if received != count * 4096:
        raise Failed(f"h2load received {received} bytes of {count} times 4,096")
    return rate, {"work": count / 1000}


@case("dav-h2-put-4k", "req/s", higher=True, per="1,000 requests", group="tls")
def h2_put_4k(t):
    """PUT of 1,000 new 4 KiB files with h2load: HTTP/2 over TLS 1.3, 16 streams on one connection; the median of three."""
    count, body, names = t.options.small_files, t.local / "small" / "file-00000.dat", t.local / f"names-{t.name}"
    names.write_text("".join(t.end.at(t.path(f"many/file-{i:05}.dat")) + "\n" for i in range(count)))
    rates = []
    for _ in range(3):
        t.fresh("many/")
        t.ask("MKCOL", "many/")
        with t.meter():
            rates.append(t.h2load(count, "-i", str(names), "-d", str(body), "-H", ":method: PUT")[0])
    if (found := count_entries(t, "many/")) not in (count, count + 1):
        raise Failed(f"{found} of {count} files arrived")
    if t.ask("GET", f"many/file-{count - 1:05}.dat")[1] != body.read_bytes():
        raise Failed("the last file differs from what was written")
    t.fresh("many/")
    return statistics.median(rates), {"work": count / 1000}
