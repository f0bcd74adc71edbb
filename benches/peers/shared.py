"""What the benchmark has in common with the client checks, from where those keep it."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tests" / "clients"))

from endpoint import Dav, Sftp, add_endpoint_arguments, endpoints, named, request, tool_version
from files import MIB, random_file, sha256

__all__ = ["MIB", "Dav", "Sftp", "add_endpoint_arguments", "endpoints", "named", "random_file", "request", "sha256",
           "tool_version"]
