"""A webhook's receiver: pip install standardwebhooks, then python receiver.py (secret in the variable SECRET)."""

import os
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from standardwebhooks.webhooks import Webhook, WebhookVerificationError


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
        if event["type"] == "face_event" and event["status"] == "PASS" and time.time() < event["expires_at"]:
            print("open for", event["name"], flush=True)


ThreadingHTTPServer(("127.0.0.1", int(os.environ.get("PORT", "8080"))), Receiver).serve_forever()
