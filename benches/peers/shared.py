"""What the benchmark has in common with the client checks, from where those keep it."""

import base64
import http.client
import ssl
import sys
from dataclasses import dataclass, field
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tests" / "clients"))

from endpoint import Dav, Sftp, add_endpoint_arguments, endpoints, named, request, tool_version
from files import MIB, random_file, sha256

__all__ = ["MIB", "BenchDav", "Dav", "Sftp", "add_endpoint_arguments", "basic", "endpoints", "named", "random_file",
           "request", "sha256", "tool_version"]


def basic(user, password):
    """The Authorization header of a user and a password."""
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()


@dataclass
class BenchDav(Dav):
    """A WebDAV server that the benchmark started: over TLS where the URL says so, and with many credentials."""
    certificate: str = ""       # PEM file that clients trust
    authorizations: list = field(default_factory=list, repr=False)      # further Authorization headers, all different
    default_ports = {"http": 80, "https": 443}

    def connection(self, timeout):
        if not self.certificate:
            return super().connection(timeout)
        context = ssl.create_default_context(cafile=self.certificate)
        return http.client.HTTPSConnection(self.host, self.port, timeout=timeout, context=context)
