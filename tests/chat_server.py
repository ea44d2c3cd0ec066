"""A chat server in this process that plays a script, and one deterministic bargainer to put behind it."""

from __future__ import annotations

import json
import re
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


def completion(text, **choice):
    """The body of a chat completion that says ``text``."""
    message = {"role": "assistant", "content": text}
    return json.dumps({"choices": [{"index": 0, "message": message, "finish_reason": "stop", **choice}]})


def answer(text, status=200, headers=(), **choice):
    """A scripted response: ``(status, body, headers)``."""
    return status, completion(text, **choice), dict(headers)


class ChatServer:
    """What was asked, and what is answered.

    Attributes:
        script: ``(request body, how many came before) -> (status, body, headers)``, or None to hang up.
        requests: bodies, in the order in which they came.
        headers: of each.
        most: how many were in work at the same time, at most.
    """

    def __init__(self, script):
        self.script, self.requests, self.headers, self.paths = script, [], [], []
        self.lock, self.now, self.most = threading.Lock(), 0, 0
        self.url = ""

    def handle(self, request, raw):
        body = json.loads(raw)
        with self.lock:
            n = len(self.requests)
            self.requests.append(body)
            self.headers.append(dict(request.headers))
            self.paths.append(request.path)
            self.now += 1
            self.most = max(self.most, self.now)
        try:
            return self.script(body, n)
        finally:
            with self.lock:
                self.now -= 1


@contextmanager
def serving(script):
    """A `ChatServer` on a free port, for the length of the block."""
    server = ChatServer(script)

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            raw = self.rfile.read(int(self.headers["Content-Length"]))
            response = server.handle(self, raw)
            if response is None:
                self.close_connection = True
                return
            status, body, headers = response
            data = body if isinstance(body, bytes) else body.encode()
            self.send_response(status)
            for name, value in {"Content-Length": str(len(data)), **headers}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_):
            pass

    httpd = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    httpd.daemon_threads = True
    thread = threading.Thread(target=httpd.serve_forever, kwargs={"poll_interval": 0.005}, daemon=True)
    thread.start()
    server.url = f"http://127.0.0.1:{httpd.server_address[1]}/v1"
    try:
        yield server
    finally:
        httpd.shutdown()
        httpd.server_close()
        thread.join()


def bargainer(body, _=0):
    """Reads the prompt as a model would: concedes evenly from its limit's far side, accepts what is no worse than that."""
    return answer(decide(body["messages"][0]["content"]))


def decide(prompt):
    """What `bargainer` says to ``prompt``."""
    turn, turns = map(int, re.search(r"turn (\d+) of (\d+), and your move", prompt).groups())
    limit = float(re.search(r"(?:at most|no less than) \$(\d+\.\d+)", prompt)[1])
    sign = 1.0 if "You are the buyer" in prompt else -1.0
    price = limit - sign * 200.0 * (1.0 - turn / turns)
    standing = re.search(r"The (?:buyer|seller) offers \$(\d+\.\d+)", prompt)
    if standing and sign * (price - float(standing[1])) >= 0:
        return "**ACCEPT**"
    return f"OFFER ${price:,.2f}"
