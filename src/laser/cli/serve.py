"""``laser serve``: start vLLM with what a run of a configuration needs from it."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess  # nosec B404
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from laser.cli.options import ConfigFile, Overrides
from laser.cli.terminal import say
from laser.core.errors import ConfigError, ServerError

if TYPE_CHECKING:
    from laser.config import RunConfig

_RANKS = (8, 16, 32, 64, 128, 256, 320, 512)  # what vLLM takes for --max-lora-rank

_TIMEOUT = 60.0  # seconds for an interpreter to say whether it has vLLM
_LAST_PORT = 65535
_LOOK = 0.5  # seconds between looks at the servers
_GRACE = 30.0  # seconds for a server to end by itself


def serve(
    config: ConfigFile = None,
    overrides: Overrides = None,
    python: Annotated[str, typer.Option(help="Interpreter of the environment that vLLM is installed in.")] = "python3",
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=_LAST_PORT, help="Port to listen on.")] = 8000,
    replicas: Annotated[
        int, typer.Option(min=1, help="Servers to start, on this port and those after it; they divide the GPUs.")
    ] = 1,
    tensor_parallel: Annotated[
        int, typer.Option(min=1, help="GPUs that hold the model of one server between them.")
    ] = 1,
    show: Annotated[bool, typer.Option("--print", help="Print the command instead of running it.")] = False,
) -> None:
    """Start a vLLM server that samples for runs with generation.engine = "vllm", or several.

    Example: laser serve run.toml --python ~/vllm/bin/python
    """
    from laser.config import load_config

    if port + replicas - 1 > _LAST_PORT:
        raise ConfigError(f"{replicas} servers need the ports {port} to {port + replicas - 1}; lower --port")
    loaded, ports = load_config(config, overrides or []), range(port, port + replicas)
    divided = _divided_gpus(replicas, tensor_parallel)
    split = ["--tensor-parallel-size", str(tensor_parallel)] if tensor_parallel > 1 else []
    commands = [[python, *server_arguments(loaded, host=host, port=one), *split] for one in ports]
    settings = [{"VLLM_ALLOW_RUNTIME_LORA_UPDATING": "True", **gpus} for gpus in divided]
    if show:
        import shlex

        for command, setting in zip(commands, settings, strict=True):
            say(f"{' '.join(f'{name}={value}' for name, value in setting.items())} {shlex.join(command)}")
        return
    if shutil.which(python) is None:
        raise ConfigError(f"there is no {python}; give the interpreter of vLLM's environment with --python")
    _check_has_vllm(python)
    if replicas == 1:
        os.environ.update(settings[0])
        os.execvp(python, commands[0])  # noqa: S606  # the user's own interpreter
    say(f"generation.server.urls = {json.dumps([f'http://{host}:{one}' for one in ports])}")
    _run_together(commands, settings)


def _divided_gpus(replicas: int, each: int) -> list[dict[str, str]]:
    """For each server the variable that shows it its part of the visible GPUs; none for a single one, or on a CPU."""
    from laser.parallel.gpus import visible_gpus

    gpus = visible_gpus() if replicas * each > 1 else []
    if not gpus:
        return [{}] * replicas
    if len(gpus) < replicas * each:
        raise ConfigError(
            f"--replicas {replicas} and --tensor-parallel {each} need {replicas * each} GPUs, and {len(gpus)} are "
            "visible; lower one of them"
        )
    size = len(gpus) // replicas
    return [{"CUDA_VISIBLE_DEVICES": ",".join(gpus[first * size :][:size])} for first in range(replicas)]


def _run_together(commands: Sequence[Sequence[str]], settings: Sequence[Mapping[str, str]]) -> None:
    """Start servers and wait for them; they end with this process. Raises ServerError once all have ended."""
    if signal.getsignal(signal.SIGTERM) is not signal.SIG_IGN:
        signal.signal(signal.SIGTERM, signal.default_int_handler)
    running: dict[str, subprocess.Popen[bytes]] = {}
    try:
        for command, setting in zip(commands, settings, strict=True):
            running[" ".join(command)] = subprocess.Popen(command, env={**os.environ, **setting})  # noqa: S603  # nosec B603
        while running:
            time.sleep(_LOOK)
            for name, process in list(running.items()):
                if process.poll() is not None:
                    del running[name]
                    say(f"a server ended with code {process.returncode}, {len(running)} continue: {name}", error=True)
    finally:
        for process in running.values():
            process.terminate()
        for process in running.values():
            try:
                process.wait(_GRACE)
            except subprocess.TimeoutExpired:
                process.kill()
    raise ServerError("all servers have ended; read their output above")


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

    Adapters are swapped while it runs, two at a time for the moment of the swap; one that the run starts from is merged
    into the base. Sampling defaults of the model's own generation_config are left out: the run says how to sample.
    """
    from laser.lm.merged import whole_model
    from laser.lm.sources import adapter_of

    rank = next((size for size in _RANKS if size >= config.policy.lora.rank), None)
    if rank is None:
        raise ConfigError(f"vLLM serves adapters up to rank {_RANKS[-1]}; lower policy.lora.rank")
    dtype = {"auto": "auto", "fp32": "float32", "bf16": "bfloat16"}[config.policy.precision]
    policy, context = config.policy, config.policy.max_context
    revision = None if adapter_of(policy.model) else policy.revision  # that of an adapter's base
    model = whole_model(
        policy.model, policy.precision, revision=policy.revision, trust_remote_code=policy.trust_remote_code
    )
    return [
        *("-m", "vllm.entrypoints.openai.api_server"),
        *("--model", model),
        *(("--revision", revision) if revision else ()),
        *(("--trust-remote-code",) if policy.trust_remote_code else ()),
        *("--served-model-name", config.generation.server.model),
        *("--host", host, "--port", str(port)),
        *("--dtype", dtype, "--generation-config", "vllm"),
        *(("--max-model-len", str(context)) if context else ()),
        *("--enable-lora", "--max-lora-rank", str(rank), "--max-loras", "1", "--max-cpu-loras", "2"),
    ]
