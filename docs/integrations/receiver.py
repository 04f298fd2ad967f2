"""A webhook's receiver: pip install standardwebhooks, then python receiver.py (secret in the variable SECRET)."""

import os
import time
from collections import deque
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Lock

from standardwebhooks.webhooks import Webhook, WebhookVerificationError

lock, opened = Lock(), deque(maxlen=1000)


class Receiver(BaseHTTPRequestHandler):
    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"])).decode()
        try:
            event = Webhook(os.environ["SECRET"]).verify(body, dict(self.headers))
        except WebhookVerificationError:
            self.send_error(401)  # not ours, or more than five minutes old: it is not tried again
            return
        self.send_response(204)
        self.end_headers()
        if event["type"] != "face_event" or event["status"] != "PASS":
            return
        if event.get("demo") or event.get("clock") == "unsynced":
            return
        with lock:  # the same event may come twice at a time, when an answer was slow
            if time.time() < event["expires_at"] and event["id"] not in opened:
                opened.append(event["id"])
                print("open for", event["name"], flush=True)


ThreadingHTTPServer(("127.0.0.1", int(os.environ.get("PORT", "8080"))), Receiver).serve_forever()
