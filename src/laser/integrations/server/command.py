"""``laser serve-rewards``: a router behind HTTP."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from laser.config import RouterConfig, load_router_config
from laser.core.errors import ConfigError
from laser.integrations.server.access import read_token
from laser.integrations.server.journal import Journal
from laser.integrations.server.ledger import Grouping, Ledger
from laser.integrations.server.worker import Worker
from laser.router.identity import VERSION, check_state, identity_of
from laser.router.router import Router


@dataclass(frozen=True, slots=True)
class Limits:
    """How the server groups, batches and bounds what it gets; fields as the options of the command, in seconds."""

    samples: int | None = None
    ttl: float = 300.0
    scaled: bool = False
    feedback: bool = False
    max_batch: int = 256
    wait: float = 0.005
    max_waiting: int = 65_536
    max_groups: int = 100_000
    max_body: int = 2**24


def serve_rewards(
    config: Path,
    overrides: Sequence[str] = (),
    *,
    host: str = "127.0.0.1",
    port: int = 8100,
    state: Path = Path("rewards-state"),
    token_env: str | None = None,
    token_file: Path | None = None,
    changed_rewards: bool = False,
    limits: Limits | None = None,
    on_ready: Callable[[str], None] = lambda url: None,
) -> None:
    """Serve until SIGTERM, with the options of the command; `on_ready` gets the address once the server listens.

    Raises:
        LaserError: The configuration, the state, the token or the address cannot be used.
    """
    limits = limits or Limits()
    token = read_token(host, token_env, token_file)
    try:
        from laser.integrations.server.app import make_app
        from laser.integrations.server.run import serve
    except ModuleNotFoundError as error:
        raise ConfigError(f"{error.name} is not installed; install it with: pip install 'laser-rm[serve]'") from error
    worker = make_worker(load_router_config(config, overrides), state, limits, changed_rewards=changed_rewards)
    serve(worker, make_app(worker, token=token, max_body=limits.max_body), host=host, port=port, on_ready=on_ready)


def make_worker(config: RouterConfig, state: Path, limits: Limits, *, changed_rewards: bool = False) -> Worker:
    """The router of a configuration with the state of a folder, ready to answer requests.

    Raises:
        LaserError: The configuration or the state cannot be used.
    """
    if config.rewards.max_failures == 0:
        raise ConfigError("rewards.max_failures = 0 stops at the first failure, and a server must not; set it to 3")
    router, identity = Router(config), identity_of(config)
    record = {"version": VERSION, "identity": identity}
    journal = Journal(state, record)
    check_state(journal.identity, identity, changed_rewards=changed_rewards)
    grouping = Grouping(limits.samples, limits.ttl, limits.max_groups, scaled=limits.scaled, feedback=limits.feedback)
    ledger = Ledger(router, journal, grouping, time.monotonic(), changed_rewards=changed_rewards)
    journal.identify(record)
    return Worker(ledger, max_batch=limits.max_batch, wait=limits.wait, max_waiting=limits.max_waiting)
