"""``laser serve``: start vLLM with what a run of a configuration needs from it."""

from __future__ import annotations

import os
import shutil
import subprocess  # nosec B404
from typing import TYPE_CHECKING, Annotated

import typer

from laser.cli.options import ConfigFile, Overrides
from laser.cli.terminal import say
from laser.core.errors import ConfigError

if TYPE_CHECKING:
    from laser.config import RunConfig

_RANKS = (8, 16, 32, 64, 128, 256, 320, 512)  # what vLLM takes for --max-lora-rank

_TIMEOUT = 60.0  # seconds for an interpreter to say whether it has vLLM


def serve(
    config: ConfigFile = None,
    overrides: Overrides = None,
    python: Annotated[str, typer.Option(help="Interpreter of the environment that vLLM is installed in.")] = "python3",
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port to listen on.")] = 8000,
    show: Annotated[bool, typer.Option("--print", help="Print the command instead of running it.")] = False,
) -> None:
    """Start a vLLM server that samples for runs with generation.engine = "vllm".

    Example: laser serve run.toml --python ~/vllm/bin/python
    """
    from laser.config import load_config

    command = [python, *server_arguments(load_config(config, overrides or []), host=host, port=port)]
    if show:
        import shlex

        say(f"VLLM_ALLOW_RUNTIME_LORA_UPDATING=True {shlex.join(command)}")
        return
    if shutil.which(python) is None:
        raise ConfigError(f"there is no {python}; give the interpreter of vLLM's environment with --python")
    _check_has_vllm(python)
    os.environ["VLLM_ALLOW_RUNTIME_LORA_UPDATING"] = "True"
    os.execvp(python, command)  # noqa: S606  # the user's own interpreter


def _check_has_vllm(python: str) -> None:
    """Make sure that an interpreter finds vLLM, without importing it."""
    # a folder that happens to be called vllm is found too, without an origin
    question = (
        "from importlib.util import find_spec; raise SystemExit(getattr(find_spec('vllm'), 'origin', None) is None)"
    )
    try:
        found = subprocess.run([python, "-c", question], capture_output=True, timeout=_TIMEOUT).returncode == 0  # noqa: S603  # nosec B603
    except (OSError, subprocess.TimeoutExpired) as error:
        raise ConfigError(f"{python} cannot be run as an interpreter ({error}); give another with --python") from error
    if not found:
        raise ConfigError(
            f"{python} has no vLLM; make an environment for it (python3 -m venv ~/vllm, then ~/vllm/bin/pip install "
            "vllm) and give its interpreter with --python ~/vllm/bin/python"
        )


def server_arguments(config: RunConfig, *, host: str, port: int) -> list[str]:
    """Arguments of vLLM's server for a run.

    Adapters are swapped while it runs, two at a time for the moment of the swap. Sampling defaults of the model's own
    generation_config are left out: the run says how to sample.
    """
    from laser.lm.sources import resolve

    rank = next((size for size in _RANKS if size >= config.policy.lora.rank), None)
    if rank is None:
        raise ConfigError(f"vLLM serves adapters up to rank {_RANKS[-1]}; lower policy.lora.rank")
    dtype = {"auto": "auto", "fp32": "float32", "bf16": "bfloat16"}[config.policy.precision]
    context = config.policy.max_context
    return [
        *("-m", "vllm.entrypoints.openai.api_server"),
        *("--model", resolve(config.policy.model)),
        *(("--revision", config.policy.revision) if config.policy.revision else ()),
        *(("--trust-remote-code",) if config.policy.trust_remote_code else ()),
        *("--served-model-name", config.generation.server.model),
        *("--host", host, "--port", str(port)),
        *("--dtype", dtype, "--generation-config", "vllm"),
        *(("--max-model-len", str(context)) if context else ()),
        *("--enable-lora", "--max-lora-rank", str(rank), "--max-loras", "1", "--max-cpu-loras", "2"),
    ]
