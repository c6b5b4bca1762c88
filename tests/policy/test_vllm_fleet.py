"""Several samplers: HTTP servers that hold adapters by name, as vLLM does, and answer with the log-probs of theirs."""

import threading
from pathlib import Path

import pytest
import torch

from laser.core.errors import ServerError
from laser.policy.policy import Policy
from laser.policy.vllm_generation import VllmGenerator
from laser.serving.endpoint import Endpoint
from servers import serving
from tiny import make_model, make_prompt, make_tokenizer

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore:.*the other servers take its requests")]
PROMPTS = [make_prompt(f"{number} + 1 = ?", id=str(number)) for number in range(6)]
SAMPLING = {"num_responses": 3, "temperature": 1.0, "top_p": 1.0, "max_new_tokens": 20}
SEEDS = range(6)


class Sampler:
    """Answers as vLLM's API does. Tokens follow from the seed; log-probs are those of the weights that it loaded."""

    computing = threading.Lock()

    def __init__(self):
        self.held = {}
        self.served = Policy(make_model(scale=0.15), make_tokenizer(), lora_rank=2)
        self.batches, self.is_dead, self.dies_after = 0, False, None
        self.ignores_loads = self.rejects_loads = False

    def __call__(self, path, payload, number):
        if self.is_dead:
            return "hang up"
        match path:
            case "/v1/models":
                return {"data": [{"id": name} for name in ["policy", *self.held]]}
            case "/v1/load_lora_adapter":
                if self.rejects_loads:
                    return 500
                self.held[payload["lora_name"]] = payload["lora_path"]
                if not self.ignores_loads:
                    with self.computing:
                        self.served.load_adapter(Path(payload["lora_path"]))
                return b"loaded"
            case "/v1/unload_lora_adapter":
                return 404 if self.held.pop(payload["lora_name"], None) is None else b"gone"
        if payload["model"] not in self.held:
            return 404
        self.batches += payload["n"] == SAMPLING["num_responses"]
        if self.batches == self.dies_after:
            self.is_dead = True
            return "hang up"
        with self.computing:
            return {"choices": [self.choice(payload, index) for index in range(payload["n"])]}

    def choice(self, payload, index):
        draw = torch.Generator().manual_seed(payload["seed"] * 100 + index)
        tokens = torch.randint(3, 99, (payload["max_tokens"],), generator=draw).tolist()
        (total,) = self.served.logps([payload["prompt"]], [[tuple(tokens)]], which="policy")
        logps = {"token_logprobs": [float(total), *[0.0] * (len(tokens) - 1)]}
        return {"index": index, "token_ids": tokens, "logprobs": logps, "finish_reason": "length"}


@pytest.fixture
def policy():
    return Policy(make_model(scale=0.15), make_tokenizer(), lora_rank=2)


def move(policy, by=0.1):
    with torch.no_grad():
        for number, parameter in enumerate(policy.trainable_parameters()):
            parameter.add_(by * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(number)))


def make_generator(policy, folder, *servers, **options):
    endpoint = Endpoint(*(server.url for server in servers), **{"retries": 0, "concurrency": 2, **options})
    return VllmGenerator(policy, endpoint, model="policy", adapter_folder=folder)


def test_a_sampler_that_dies_in_a_batch_changes_no_response_and_its_successor_gets_the_adapter(policy, tmp_path):
    victim, other, successor, single = Sampler(), Sampler(), Sampler(), Sampler()
    with serving(single) as server:
        expected, alone = [], make_generator(policy, tmp_path / "alone", server)
        for _ in range(3):
            move(policy)
            expected.append(alone.generate(PROMPTS, seeds=SEEDS, **SAMPLING))
    policy = Policy(make_model(scale=0.15), make_tokenizer(), lora_rank=2)
    with serving(other) as living:
        with serving(victim) as dying:
            port = int(dying.url.rpartition(":")[2])
            generator = make_generator(policy, tmp_path / "fleet", dying, living)
            victim.dies_after = 2
            move(policy)
            assert generator.generate(PROMPTS, seeds=SEEDS, **SAMPLING) == expected[0]
            assert victim.is_dead
            assert victim.held.keys() == other.held.keys()
            move(policy)
            assert generator.generate(PROMPTS, seeds=SEEDS, **SAMPLING) == expected[1]
            assert victim.batches == 2
        with serving(successor, port):
            deadline = threading.Event()
            while not generator._servers[0].endpoint.is_in:
                deadline.wait(0.1)
            move(policy)
            assert generator.generate(PROMPTS, seeds=SEEDS, **SAMPLING) == expected[2]
            assert generator._servers[0].endpoint.is_in
    assert successor.batches > 0
    assert list(successor.held) == list(other.held) == [f"laser-{policy.adapter_digest()}"]
    assert [folder.name for folder in (tmp_path / "fleet").iterdir()] == list(other.held)


def test_every_sampler_is_checked_before_the_batch(policy, tmp_path):
    """A server behind the second address says that it has loaded the adapter, and samples from other weights."""
    right, stale = Sampler(), Sampler()
    stale.ignores_loads = True
    with serving(right) as one, serving(stale) as other:
        generator = make_generator(policy, tmp_path, one, other)
        generator.generate(PROMPTS, seeds=SEEDS, **SAMPLING)  # the first adapter is zero, as if there were none
        before = right.batches, stale.batches
        assert min(before) > 0
        move(policy, by=0.5)
        with pytest.raises(ServerError, match=f"{other.url} samples from other weights than the policy's"):
            generator.generate(PROMPTS, seeds=SEEDS, **SAMPLING)
        assert (right.batches, stale.batches) == before
        assert len(right.held) == len(stale.held) == 1


def test_an_adapter_that_the_workers_reject_is_reported_with_the_cure(policy, tmp_path):
    sampler = Sampler()
    sampler.rejects_loads = True
    with serving(sampler) as one, serving(Sampler()) as other:
        for servers in ((one,), (one, other)):
            generator = make_generator(policy, tmp_path, *servers)
            with pytest.raises(ServerError, match=r"rejects the policy's adapter .*; start it with `laser serve`"):
                generator.generate(PROMPTS, seeds=SEEDS, **SAMPLING)


def test_a_sampler_with_another_model_is_named(policy, tmp_path):
    with serving(Sampler()) as one, serving(lambda *_: {"data": [{"id": "llama"}]}) as other:
        generator = make_generator(policy, tmp_path, one, other)
        with pytest.raises(ServerError, match=f"{other.url} has no model 'policy'; it has llama"):
            generator.generate(PROMPTS, seeds=SEEDS, **SAMPLING)


def test_a_sampler_that_hangs_is_left_out_before_the_batch(policy, tmp_path):
    release = threading.Event()
    sampler = Sampler()
    with serving(sampler) as one, serving(lambda *_: release.wait(20) and {}) as hung:
        generator = make_generator(policy, tmp_path, one, hung, timeout=1.0)
        responses = generator.generate(PROMPTS, seeds=SEEDS, **SAMPLING)
        assert [len(row) for row in responses] == [3] * 6
        assert [path for path, _ in hung.asked] == ["/v1/models"]
        generator.generate(PROMPTS, seeds=SEEDS, **SAMPLING)
        assert len(hung.asked) == 1
        release.set()


def test_without_any_sampler_there_is_a_sentence_that_names_them(policy, tmp_path):
    with serving(Sampler()) as one, serving(Sampler()) as other:
        generator = make_generator(policy, tmp_path, one, other)
        generator.generate(PROMPTS, seeds=SEEDS, **SAMPLING)
    with pytest.raises(ServerError, match="none of the 2 servers answers") as caught:
        generator.generate(PROMPTS, seeds=SEEDS, **SAMPLING)
    assert f"{one.url}/v1/models cannot be reached" in str(caught.value)
    assert f"{other.url}/v1/models cannot be reached" in str(caught.value)
