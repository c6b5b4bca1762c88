"""Real reward servers for tests: the application behind uvicorn, a real router over functions, a folder of state."""

import http.client
import json
import threading
from contextlib import contextmanager
from urllib.parse import urlsplit

from laser.config import parse_router_config
from laser.integrations.server.app import make_app
from laser.integrations.server.command import Limits, make_worker
from laser.integrations.server.run import start_http

FUNCTIONS = """
def length(prompts, responses):
    return [float(len(text)) for text in responses]

def digits(prompts, responses):
    return [float(sum(character.isdigit() for character in text)) for text in responses]

def right(prompts, responses, answer):
    return [None if gold is None else float(text.strip() == gold) for text, gold in zip(responses, answer)]

def broken(prompts, responses):
    raise RuntimeError("the model is gone")

def silent(prompts, responses):
    return [None] * len(responses)
"""


def length(text):
    return float(len(text))


def digits(text):
    return float(sum(character.isdigit() for character in text))


DIRECT = {"length": length, "digits": digits}
"""What the reward functions give when they are called directly."""


def make_config(folder, *names, **sections):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "scores.py").write_text(FUNCTIONS)
    models = [{"type": "function", "name": name, "function": f"{folder}/scores.py:{name}"} for name in names]
    table = {"seed": 5, "rewards": {"models": models, "max_failures": 1}, "context": {"source": "none"}}
    return parse_router_config({**table, **sections})


class Running:
    """A server in threads of this process."""

    def __init__(self, config, state, *, token=None, changed_rewards=False, port=0, **limits):
        limits = Limits(**{"max_body": 2**20, **limits})
        self.worker = make_worker(config, state, limits, changed_rewards=changed_rewards)
        self.ledger = self.worker.ledger
        self._http = start_http(
            self.worker, make_app(self.worker, token=token, max_body=limits.max_body), "127.0.0.1", port
        )
        self.url = self._http.url
        self._thread = threading.Thread(target=self.worker.run)
        self._thread.start()

    def post(self, body, path="/", *, method="POST", **headers):
        """Status and answer of a request."""
        content = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
        connection = http.client.HTTPConnection(urlsplit(self.url).netloc, timeout=30)
        names = {name.replace("_", "-"): value for name, value in headers.items()}
        connection.request(method, path, content, {"Content-Type": "application/json", **names})
        reply = connection.getresponse()
        answer = reply.read()
        connection.close()
        return reply.status, json.loads(answer) if reply.headers["Content-Type"] == "application/json" else answer

    def score(self, prompt, response, **fields):
        """The answer for one sample in laser's format."""
        lists = {name: [value] for name, value in fields.items() if name not in ("step", "learn")}
        rest = {name: value for name, value in fields.items() if name in ("step", "learn")}
        status, reply = self.post({"prompts": [prompt], "responses": [response], **lists, **rest})
        assert status == 200, reply
        return {name: values[0] for name, values in reply.items()}

    @property
    def num_learned(self):
        """Groups learned from, once all that is complete is learned."""
        assert self.post(None, "/state", method="GET")[0] == 200  # the worker answers it after learning
        return self.ledger.book.num_learned

    def state(self):
        """The whole state, once all that is complete is learned and on the disk."""
        assert self.num_learned >= 0
        return self.ledger.state_dict()

    def stop(self):
        """Stop without a snapshot, as a kill does, but release the folder."""
        self._http.server.should_exit = True
        self._http.thread.join()
        self._thread.join()
        self.ledger.release()


@contextmanager
def running(config, state, **options):
    server = Running(config, state, **options)
    try:
        yield server
    finally:
        server.stop()
