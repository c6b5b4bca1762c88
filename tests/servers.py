"""A real HTTP server on 127.0.0.1 for tests: it answers with what a function returns and keeps what it was asked."""

import json
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Server:
    def __init__(self, answer, port=0):
        """`answer(path, payload, number)` returns a JSON value, bytes, an int status, (status, value, headers), or
        "hang up" to close the connection without a word."""
        self.asked = []
        self.headers = []
        self.busy = self.most_busy = 0
        lock = threading.Lock()

        class Handler(BaseHTTPRequestHandler):
            def do_POST(handler):
                body = handler.rfile.read(int(handler.headers.get("Content-Length", 0)))
                payload = json.loads(body) if body else None
                with lock:
                    number = len(self.asked)
                    self.asked.append((handler.path, payload))
                    self.headers.append(dict(handler.headers))
                    self.busy += 1
                    self.most_busy = max(self.most_busy, self.busy)
                try:
                    given = answer(handler.path, payload, number)
                finally:  # before the reply is sent: its reader may send the next request at once
                    with lock:
                        self.busy -= 1
                handler.send(given)

            do_GET = do_POST

            def send(handler, given):
                if given == "hang up":
                    handler.connection.close()
                    return
                status, value, headers = given if isinstance(given, tuple) else (200, given, {})
                if isinstance(given, int):
                    status, value = given, {"error": {"message": f"status {given}"}}
                content = value if isinstance(value, bytes) else json.dumps(value).encode()
                handler.send_response(status)
                for name, text in headers.items():
                    handler.send_header(name, text)
                handler.send_header("Content-Length", str(len(content)))
                handler.end_headers()
                handler.wfile.write(content)

            def log_message(handler, *_):
                pass

        self._http = ThreadingHTTPServer(("127.0.0.1", port), Handler)
        self._http.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._http.server_port}"
        threading.Thread(target=self._http.serve_forever, daemon=True).start()

    def stop(self):
        self._http.shutdown()
        self._http.server_close()


@contextmanager
def serving(answer, port=0):
    server = Server(answer, port)
    try:
        yield server
    finally:
        server.stop()


def rate(text):
    """A chat completion that says `text`."""
    return {"choices": [{"message": {"content": text}}], "usage": {"total_tokens": 10}}
