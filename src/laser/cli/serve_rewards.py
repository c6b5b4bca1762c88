"""``laser serve-rewards``: the reward models of a configuration as one adaptive reward model behind HTTP."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from laser.cli.environment import prepare
from laser.cli.options import Overrides
from laser.cli.terminal import say


def serve_rewards(
    config: Annotated[Path, typer.Argument(metavar="CONFIG", help="TOML configuration.", show_default=False)],
    overrides: Overrides = None,
    host: Annotated[str, typer.Option(help="Address to listen on; any but 127.0.0.1 needs a token.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port to listen on; 0 takes a free one.")] = 8100,
    state: Annotated[Path, typer.Option(help="Folder of the state: a restart with the same folder continues.")] = Path(
        "rewards-state"
    ),
    changed_rewards: Annotated[
        bool, typer.Option("--changed-rewards", help="Continue although a reward model was changed.")
    ] = False,
    samples: Annotated[
        int | None, typer.Option(min=1, help="Responses per prompt of the trainer; a complete group is learned from.")
    ] = None,
    ttl: Annotated[
        float, typer.Option(min=0.1, help="Seconds without a sample after which a group is complete.")
    ] = 300.0,
    scaled: Annotated[
        bool,
        typer.Option("--scaled", help="Divide each reward model's scores by their spread, for trainers that do not."),
    ] = False,
    feedback: Annotated[
        bool, typer.Option("--feedback", help="Let each complete group wait for a value sent to /feedback.")
    ] = False,
    token_env: Annotated[
        str | None, typer.Option(metavar="NAME", help="Environment variable with the token that requests must carry.")
    ] = None,
    token_file: Annotated[Path | None, typer.Option(help="File with the token.")] = None,
    max_batch: Annotated[int, typer.Option(min=1, help="Most responses of one call of a reward model.")] = 256,
    wait: Annotated[
        float, typer.Option(min=0.0, max=10_000.0, help="Milliseconds that a response waits for others of its batch.")
    ] = 5.0,
    max_waiting: Annotated[int, typer.Option(min=1, help="Most responses that wait; more are refused.")] = 65_536,
    max_groups: Annotated[int, typer.Option(min=1, help="Most prompts that wait for responses.")] = 100_000,
    max_body: Annotated[int, typer.Option(min=1024, help="Most bytes of a request.")] = 2**24,
) -> None:
    """Serve the reward models as one that learns which of them to ask, for OpenRLHF, slime, verl and others.

    Example: laser serve-rewards run.toml --samples 8, then --reward.remote_url http://127.0.0.1:8100/get_reward
    """
    prepare()
    from laser.integrations.server.command import Limits, serve_rewards

    serve_rewards(
        config,
        overrides or [],
        host=host,
        port=port,
        state=state,
        token_env=token_env,
        token_file=token_file,
        changed_rewards=changed_rewards,
        limits=Limits(
            samples=samples,
            ttl=ttl,
            scaled=scaled,
            feedback=feedback,
            max_batch=max_batch,
            wait=wait / 1000,
            max_waiting=max_waiting,
            max_groups=max_groups,
            max_body=max_body,
        ),
        on_ready=lambda url: say(f"reward server at {url} (state in {state}; SIGTERM or Ctrl-C stops)"),
    )
