"""Against a real vLLM server on this machine: sampling, adapter swaps, and reward models that it serves."""

import os
import signal
import socket
import subprocess
import threading
import time
import warnings
from contextlib import contextmanager
from pathlib import Path

import httpx2
import numpy as np
import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM, LlamaForSequenceClassification

import laser
from laser.cli.serve import server_arguments
from laser.config import parse_config
from laser.config.judge import JudgeConfig
from laser.core.errors import RewardModelError, ServerError
from laser.lm.sources import load_causal_lm, load_classifier, load_tokenizer
from laser.policy.policy import Policy
from laser.policy.vllm_generation import VllmGenerator
from laser.rewards.classifier import ClassifierRM
from laser.rewards.conversation import ConversationEncoder
from laser.rewards.families.standard import StandardClassifier
from laser.rewards.http import HttpRM
from laser.rewards.judge import JudgeRM
from laser.rewards.loglik import LogLikelihoodRM, ResponseEncoder
from laser.rewards.pairwise_judge import Question
from laser.rewards.served_loglik import ServedLogLikelihoodRM
from laser.serving.cache import CachedEndpoint
from laser.serving.endpoint import Endpoint
from laser.wiring.judge import build_pairwise_judge
from tiny import make_prompt, make_tokenizer

PYTHON = os.environ.get("LASER_VLLM_PYTHON")
pytestmark = [
    pytest.mark.vllm,
    pytest.mark.slow,
    pytest.mark.skipif(PYTHON is None, reason="no vLLM here; `make test-vllm` installs it and runs these tests"),
]
CPU = {"device": torch.device("cpu"), "dtype": torch.float32}
PROMPTS = [make_prompt(f"what is {index}?", id=str(index)) for index in range(4)]
RESPONSES = [["four", "5"], ["six"], [], ["seven", "eight nine"]]
SIZE = {
    "vocab_size": 99,
    "hidden_size": 128,
    "intermediate_size": 256,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 2,
}


def save(folder, kind, **options):
    torch.manual_seed(0)
    model = kind(LlamaConfig(**{**SIZE, **options}))
    for parameter in model.parameters():
        if parameter.ndim > 1:
            torch.nn.init.normal_(parameter, 0, 0.15)
    model.save_pretrained(folder)
    make_tokenizer().save_pretrained(folder)
    return folder


def free_port():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


class Running:
    def __init__(self, arguments, port, log):
        self.url = f"http://127.0.0.1:{port}"
        environment = {
            **os.environ,
            "VLLM_CPU_KVCACHE_SPACE": "1",
            "VLLM_CPU_OMP_THREADS_BIND": "0-1",
            "VLLM_ALLOW_RUNTIME_LORA_UPDATING": "True",
        }
        with log.open("w") as file:
            self.process = subprocess.Popen(
                [PYTHON, *arguments], env=environment, stdout=file, stderr=subprocess.STDOUT, start_new_session=True
            )
        deadline = time.monotonic() + 600
        while True:
            assert self.process.poll() is None, log.read_text()[-3000:]
            assert time.monotonic() < deadline, log.read_text()[-3000:]
            try:
                if httpx2.get(f"{self.url}/health", timeout=1, trust_env=False).is_success:
                    return
            except httpx2.HTTPError:
                time.sleep(0.5)

    def kill(self):
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


@contextmanager
def running(arguments, port, log):
    server = Running(arguments, port, log)
    try:
        yield server
    finally:
        if server.process.poll() is None:
            server.kill()


def config(base, port, **sections):
    table = {
        "policy": {"model": str(base), "lora": {"rank": 4}, "max_context": 450, "precision": "fp32"},
        "data": {"type": "embedded"},
        "generation": {
            "engine": "vllm",
            "num_responses": 4,
            "max_new_tokens": 8,
            "server": {"url": f"http://127.0.0.1:{port}", "retries": 1},
        },
        "split": {"train": 8, "dev": 4},
        "rewards": {"models": [{"type": "loglik", "name": "base", "model": str(base)}]},
        "training": {
            "iterations": 2,
            "batches_per_iteration": 2,
            "batch_size": 2,
            "pairs_per_prompt": 3,
            "learning_rate": 0.02,
            "sampling": "per_iteration",
            "convergence_threshold": 0,
        },
    }
    for name, section in sections.items():
        table[name] = {**table.get(name, {}), **section}
    return table


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return save(tmp_path_factory.mktemp("vllm") / "base", LlamaForCausalLM)


@pytest.fixture(scope="module")
def server(base):
    port = free_port()
    arguments = server_arguments(parse_config(config(base, port)), host="127.0.0.1", port=port)
    with running([*arguments, "--enforce-eager"], port, base.parent / "server.log") as server:
        yield server


@pytest.fixture(scope="module")
def plain_server(base):
    """Without adapters: vLLM 0.32 on a CPU crashes when it is asked for prompt log-probs while LoRA is on."""
    port = free_port()
    arguments = ["-m", "vllm.entrypoints.openai.api_server", "--model", str(base), "--served-model-name", "policy"]
    arguments += ["--dtype", "float32", "--max-model-len", "450", "--host", "127.0.0.1", "--port", str(port)]
    with running([*arguments, "--enforce-eager"], port, base.parent / "plain.log") as server:
        yield server


def make_policy(base):
    return Policy(load_causal_lm(str(base), **CPU), load_tokenizer(str(base)), lora_rank=4)


def generate(policy, server, folder, **options):
    options = {"model": "policy", "adapter_folder": folder, **options}
    generator = VllmGenerator(policy, Endpoint(server.url, retries=1), **options)
    return generator, lambda seeds=(1, 2, 3, 4), n=6: generator.generate(
        PROMPTS, num_responses=n, temperature=0.8, top_p=1.0, max_new_tokens=24, seeds=seeds
    )


def test_log_probs_are_the_policys_before_and_after_a_swap(base, server, tmp_path):
    policy = make_policy(base)
    _, sample = generate(policy, server, tmp_path)
    first = sample()
    with torch.no_grad():
        for parameter in policy.trainable_parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    second = sample()
    ids = policy.encode(PROMPTS)
    own = policy.logps(ids, [[response.token_ids for response in row] for row in second], which="policy")
    served = [[sum(response.sampling_logps) for response in row] for row in second]
    assert np.allclose(torch.cat(own).numpy(), np.concatenate(served), atol=0.01)  # float32 on both sides
    assert [r.token_ids for row in first for r in row] != [r.token_ids for row in second for r in row]
    ended = [response for row in first + second for response in row if response.finished]
    assert ended
    assert all(response.token_ids[-1] == 2 and "<|im_end|>" not in response.text for response in ended)
    held = [entry["id"] for entry in Endpoint(server.url).get("/v1/models")["data"]]
    assert len([name for name in held if name.startswith("laser-")]) == 1


def test_a_policy_that_is_an_adapter_is_served_merged(base, tmp_path, monkeypatch):
    """As `laser serve` starts the server; the log-probs are those of the base with the adapter on it, unmerged."""
    monkeypatch.setenv("LASER_CACHE", str(tmp_path / "cache"))
    trained, port = make_policy(base), free_port()
    with torch.no_grad():
        for parameter in trained.trainable_parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    trained.save_adapter(tmp_path / "adapter")
    arguments = server_arguments(parse_config(config(tmp_path / "adapter", port)), host="127.0.0.1", port=port)
    with running([*arguments, "--enforce-eager"], port, tmp_path / "merged.log") as server:
        _, sample = generate(make_policy(tmp_path / "adapter"), server, tmp_path / "fresh")
        responses = sample()
    served = np.concatenate([[sum(response.sampling_logps) for response in row] for row in responses])
    ids, tokens = trained.encode(PROMPTS), [[response.token_ids for response in row] for row in responses]
    assert np.allclose(torch.cat(trained.logps(ids, tokens, which="policy")).numpy(), served, atol=0.01)
    assert not np.allclose(torch.cat(trained.logps(ids, tokens, which="base")).numpy(), served, atol=1)


def test_the_same_seeds_give_the_same_responses(base, server, tmp_path):
    _, sample = generate(make_policy(base), server, tmp_path)
    assert sample() == sample()
    assert sample() != sample(seeds=(5, 6, 7, 8))
    assert len({response.token_ids for response in sample()[0]}) > 1


def test_a_stale_adapter_is_noticed(base, server, tmp_path):
    """The server is made to hold other weights under the name that the policy's adapter has."""
    stale, policy = make_policy(base), make_policy(base)
    with torch.no_grad():
        for parameter in stale.trainable_parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
        for parameter in policy.trainable_parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    name = f"laser-{policy.adapter_digest()}"
    stale.save_adapter(tmp_path / "stale")
    request = {"lora_name": name, "lora_path": str(tmp_path / "stale")}
    Endpoint(server.url).post_text("/v1/load_lora_adapter", request)
    _, sample = generate(policy, server, tmp_path)
    with pytest.raises(ServerError, match="samples from other weights"):
        sample()


def test_a_wrong_name_and_an_adapter_the_server_cannot_take(base, server, tmp_path):
    _, sample = generate(make_policy(base), server, tmp_path, model="llama")
    with pytest.raises(ServerError, match="has no model 'llama'; it has policy"):
        sample()
    big = Policy(load_causal_lm(str(base), **CPU), load_tokenizer(str(base)), lora_rank=64)
    _, sample = generate(big, server, tmp_path)
    with pytest.raises(ServerError, match="rejects the policy's adapter"):
        sample()


def test_a_whole_run_samples_through_the_server(base, server, tmp_path):
    port = int(server.url.rpartition(":")[2])
    result = laser.train(config(base, port), tmp_path / "run")
    assert result.summary.num_batches == 4
    assert result.summary.num_pairs > 0


def test_a_server_that_dies_stops_the_run_and_a_new_one_ends_it(base, tmp_path):
    port = free_port()
    table = config(base, port, checkpoint={"every": 1}, split={"train": 8, "dev": 0})
    table["training"] = {**table["training"], "sampling": "per_batch", "iterations": 3}
    table["rewards"] = {"models": [{"type": "function", "name": "f", "function": f"{tmp_path}/f.py:f"}]}
    arguments = [*server_arguments(parse_config(table), host="127.0.0.1", port=port), "--enforce-eager"]
    with running(arguments, port, tmp_path / "first.log") as server:
        (tmp_path / "f.py").write_text(
            "import os, signal\n"
            "calls = []\n"
            "def f(prompts, responses):\n"
            "    calls.append(1)\n"
            f"    if len(calls) == 3: os.killpg({server.process.pid}, signal.SIGKILL)\n"
            "    return [len(text) for text in responses]\n"
        )
        with pytest.raises(ServerError, match="cannot be reached"):
            laser.train(table, tmp_path / "run")
    with running(arguments, port, tmp_path / "second.log"):
        result = laser.resume(tmp_path / "run")
    assert result.summary.num_batches == 6


def test_one_of_two_servers_is_killed_in_the_middle_of_a_batch(base, server, tmp_path):
    """Same responses as with one server, and the successor at the same address gets the adapter that is due."""
    prompts = [make_prompt(f"what is {index}?", id=str(index)) for index in range(24)]
    port = free_port()
    arguments = server_arguments(parse_config(config(base, port)), host="127.0.0.1", port=port)
    arguments = [*arguments, "--enforce-eager"]

    def make(folder, *urls):
        policy = make_policy(base)
        endpoint = Endpoint(*urls, retries=1, concurrency=2)
        return policy, VllmGenerator(policy, endpoint, model="policy", adapter_folder=tmp_path / folder)

    def step(policy, generator):
        with torch.no_grad():
            for number, parameter in enumerate(policy.trainable_parameters()):
                drawn = torch.randn(parameter.shape, generator=torch.Generator().manual_seed(number))
                parameter.add_(0.05 * drawn)
        return generator.generate(
            prompts, num_responses=2, temperature=0.8, top_p=1.0, max_new_tokens=24, seeds=range(len(prompts))
        )

    policy, generator = make("one", server.url)
    expected = [step(policy, generator) for _ in range(3)]
    policy, generator = make("two", f"http://127.0.0.1:{port}", server.url)
    victim = generator._servers[0]
    with running(arguments, port, tmp_path / "victim.log") as dying:
        both = step(policy, generator)
        answered = threading.Event()
        exchange = victim.endpoint._fleet.replicas[0].transport.exchange

        def kill_after_the_first_answer(method, url, *rest):
            answer = exchange(method, url, *rest)
            if url.endswith("/v1/completions") and victim.is_trusted and not answered.is_set():
                answered.set()
                dying.kill()
            return answer

        victim.endpoint._fleet.replicas[0].transport.exchange = kill_after_the_first_answer
        with pytest.warns(RuntimeWarning, match="the other servers take its requests"):
            after = step(policy, generator)
        assert answered.is_set()
    with running(arguments, port, tmp_path / "successor.log") as successor:
        while not victim.endpoint.is_in:
            time.sleep(0.1)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            later = step(policy, generator)
        held = [entry["id"] for entry in Endpoint(successor.url).get("/v1/models")["data"]]
        assert f"laser-{policy.adapter_digest()}" in held
    for responses, single in zip((both, after, later), expected, strict=True):
        given, wanted = ([r.token_ids for row in rows for r in row] for rows in (responses, single))
        assert np.mean([one == other for one, other in zip(given, wanted, strict=True)]) > 0.9  # kernels round


def test_served_log_likelihood_equals_ours(base, plain_server):
    server = plain_server
    encoder = ResponseEncoder(make_tokenizer(), context_length=450)
    for normalization in ("sum", "per_token"):
        own = LogLikelihoodRM(load_causal_lm(str(base), **CPU), make_tokenizer(), normalization=normalization)
        served = ServedLogLikelihoodRM(Endpoint(server.url), encoder, model="policy", normalization=normalization)
        for ours, theirs in zip(own.score(PROMPTS, RESPONSES), served.score(PROMPTS, RESPONSES), strict=True):
            assert np.allclose(ours, theirs, atol=0.02)
    other = ServedLogLikelihoodRM(Endpoint(server.url), encoder, model="llama")
    with pytest.raises(ServerError, match="refused with status 404"):
        other.score(PROMPTS, RESPONSES)


def test_a_judge_on_a_real_server(plain_server, tmp_path):
    """A random LM is not a judge, but its probabilities are read like any other's."""
    server = plain_server
    rm = JudgeRM(CachedEndpoint(Endpoint(server.url), tmp_path / "replies.sqlite"), model="policy", scale=(0, 9))
    scores = rm.score(PROMPTS, RESPONSES)
    assert [len(row) for row in scores] == [2, 1, 0, 2]
    finite = np.concatenate(scores)[np.isfinite(np.concatenate(scores))]
    assert ((finite >= 0) & (finite <= 9)).all()
    assert rm.counts.take().tokens > 5
    again = JudgeRM(CachedEndpoint(Endpoint(server.url), tmp_path / "replies.sqlite"), model="policy", scale=(0, 9))
    assert all(
        np.array_equal(a, b, equal_nan=True) for a, b in zip(scores, again.score(PROMPTS, RESPONSES), strict=True)
    )


def test_a_pairwise_judge_on_a_real_server(plain_server, tmp_path):
    """A random LM hardly ever names a letter, but it is asked, billed and read as any other."""
    template = "{prompt} {first} {second}?"
    settings = {"template": template, "max_tokens": 4, "retries": 1}
    section = JudgeConfig(url=plain_server.url, model="policy", **settings)
    questions = [Question(prompt, f"{n} a", f"{n} b") for prompt in PROMPTS for n in range(10)]
    verdicts = []
    for requests_paid in (len(questions), 0):
        judge = build_pairwise_judge(section, tmp_path / "replies.sqlite")
        verdicts.append(judge.compare(questions))
        assert judge.bill.requests - judge.bill.cached == requests_paid
        assert (judge.bill.prompt_tokens > 10 * requests_paid) == (requests_paid > 0)
        assert judge.bill.completion_tokens <= 4 * requests_paid
        assert judge.bill.unbilled == 0
        judge.close()
    assert [one.said for one in verdicts[0]] == [one.said for one in verdicts[1]]
    for one in verdicts[0]:
        assert (one.problem is None and 0 <= one.first <= 1) or one.problem == "nonsense"
    other = build_pairwise_judge(section.model_copy(update={"model": "llama"}), None)
    assert {one.problem for one in other.compare(questions[:2])} == {"failed"}


def test_a_served_classifier_equals_ours(tmp_path):
    """With a separate padding token: transformers reads the last token that is not padding, vLLM the last one."""
    folder = save(tmp_path / "classifier", LlamaForSequenceClassification, num_labels=1, pad_token_id=0)
    port = free_port()
    arguments = ["-m", "vllm.entrypoints.openai.api_server", "--model", str(folder), "--served-model-name", "rm"]
    arguments += ["--runner", "pooling", "--convert", "classify", "--dtype", "float32", "--max-model-len", "450"]
    arguments += ["--host", "127.0.0.1", "--port", str(port), "--enforce-eager"]
    scoring = StandardClassifier(load_classifier(str(folder), **CPU), None)
    encoder = ConversationEncoder(make_tokenizer(), template="chat", window=scoring.window)
    own = ClassifierRM(scoring, encoder).score(PROMPTS, RESPONSES)
    with running(arguments, port, Path(tmp_path / "log")) as server:
        for format in ("vllm_classify", "vllm_pooling"):
            served = HttpRM(Endpoint(server.url), format=format, model="rm").score(PROMPTS, RESPONSES)
            assert all(np.allclose(a, b, atol=0.02) for a, b in zip(own, served, strict=True)), format
        with pytest.raises((RewardModelError, ServerError)):
            HttpRM(Endpoint(server.url), format="vllm_classify", model="other").score(PROMPTS, RESPONSES)
