#!/usr/bin/env python3
"""Takes notifications of bmdemo: checks their signature, leaves out repetitions, prints one line for each event.

    receiver.py PORT FILE     FILE has the secret that `secret` of the [[notify]] names

Needs nothing but Python 3.8.
"""

import hashlib
import hmac
import json
import sys
import time
from http.server import BaseHTTPRequestHandler, HTTPServer

BODY_BYTES_MAX = 1 << 20
# Longest age of a message: one that was recorded is of no use later.
AGE_S_MAX = 300


def is_genuine(secret: bytes, header: str, body: bytes, now: float) -> bool:
    """Whether a body was signed by who knows the secret, and not long ago."""
    try:
        fields = dict(part.split("=", 1) for part in header.split(","))
        at, given = int(fields["t"]), fields["v1"]
    except (KeyError, ValueError):
        return False
    wanted = hmac.new(secret, str(at).encode() + b"." + body, hashlib.sha256).hexdigest()
    return hmac.compare_digest(wanted.encode(), given.encode()) and abs(now - at) < AGE_S_MAX


class Receiver(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    secret = b""
    # Keep it on a disk if repetitions matter to you after a restart of this program.
    seen: set = set()

    def do_POST(self):
        length = int(self.headers.get("Content-Length", 0))
        if length > BODY_BYTES_MAX:
            self.close_connection = True
            return self.answer(413)
        body = self.rfile.read(length)
        signature = self.headers.get("Bmdemo-Signature", "")
        if not is_genuine(self.secret, signature, body, time.time()):
            return self.answer(401)
        event = json.loads(body)
        key = (event["source"], event["id"])
        if key not in self.seen:
            # First do what is to be done, then say that it is done.
            data = event["data"]
            print(event["type"], event.get("subject", "-"), data.get("message", ""), flush=True)
            self.seen.add(key)
        return self.answer(204)

    def answer(self, status):
        self.send_response(status)
        if status != 204:
            self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_):
        pass


if __name__ == "__main__":
    with open(sys.argv[2], "rb") as file:
        # A line feed at the end of the file is no part of the secret.
        Receiver.secret = file.read().rstrip(b"\r\n")
    server = HTTPServer(("127.0.0.1", int(sys.argv[1])), Receiver)
    print(f"listening on {server.server_address[1]}", flush=True)
    server.serve_forever()
