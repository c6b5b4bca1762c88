"""A reward server in the standard library: `python reward_server.py 8100`, then type = "http" in the configuration."""

import json
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


def score(messages: list[dict[str, str]], response: str) -> float | None:
    """Your reward model goes here. None: no opinion."""
    return -abs(len(response.split()) - 20) if response.strip() else None


class Handler(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        scores = [score(prompt, text) for prompt, text in zip(asked["prompts"], asked["responses"], strict=True)]
        body = json.dumps({"scores": scores}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


if __name__ == "__main__":
    server = ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler)
    print(f"listening on http://127.0.0.1:{server.server_port}", flush=True)
    server.serve_forever()
