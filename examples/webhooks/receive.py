#!/usr/bin/env python3
"""A receiver of patgate's webhooks: verifies them and prints what they say.

    WEBHOOK_SECRET=whsec_... python3 receive.py 8000

It needs nothing but Python's own library. Behind https:// it stands behind a proxy.
"""
import base64
import hashlib
import hmac
import http.server
import json
import os
import sys
import time

TOLERANCE_SECONDS = 300


def verify(secret, headers, body):
    """Tells whether a webhook comes from who knows the secret, and was signed a moment ago."""
    key = base64.b64decode(secret.removeprefix("whsec_"))
    message_id, timestamp = headers["webhook-id"], headers["webhook-timestamp"]
    if abs(time.time() - int(timestamp)) > TOLERANCE_SECONDS:
        return False
    signed = f"{message_id}.{timestamp}.".encode() + body
    wanted = "v1," + base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode()
    # More than one where the secret is being exchanged.
    return any(hmac.compare_digest(wanted, given) for given in headers["webhook-signature"].split())


class Receiver(http.server.BaseHTTPRequestHandler):
    seen = set()

    def do_POST(self):
        body = self.rfile.read(min(int(self.headers["content-length"]), 1 << 20))
        try:
            is_valid = verify(os.environ["WEBHOOK_SECRET"], self.headers, body)
        except (TypeError, ValueError, AttributeError):
            is_valid = False
        if is_valid and self.headers["webhook-id"] not in self.seen:
            # Delivered at least once: one that is known already needs an answer, and nothing else.
            self.seen.add(self.headers["webhook-id"])
            notice = json.loads(body)
            print(notice["timestamp"], notice["type"], json.dumps(notice["data"]), flush=True)
        self.send_response(204 if is_valid else 401)
        self.end_headers()

    def log_message(self, *_):
        pass


if __name__ == "__main__":
    server = http.server.HTTPServer(("127.0.0.1", int(sys.argv[1])), Receiver)
    print("listening on port", server.server_address[1], flush=True)
    server.serve_forever()
