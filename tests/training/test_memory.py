"""Running out of memory: the same result in smaller batches, or a sentence.

A limit on the tokens of a forward pass makes the device run out, with the errors of a GPU and of a CPU.
"""

import numpy as np
import pytest
import torch
from torch import nn

from laser.core.errors import LostProcessError, TrainingError
from laser.core.types import Pair, Response
from laser.parallel.memory import is_out_of_memory
from laser.parallel.passes import collective
from laser.policy.generation import TransformersGenerator
from laser.policy.policy import Policy
from laser.rewards.base import Counts
from laser.rewards.classifier import ClassifierRM
from laser.rewards.families.base import Row
from laser.rewards.loglik import LogLikelihoodRM
from laser.rewards.metrics.perplexity import PerplexityRM
from laser.rewards.pairwise import PairwiseRM
from laser.rewards.pool import Arm, QuarantinedError, RewardPool
from laser.rewards.quarantine import Quarantine
from laser.rewards.similarity import SimilarityRM
from laser.training.learner import Learner
from laser.training.losses import Objective
from tiny import make_model, make_prompt, make_tokenizer

CPU = (
    "[enforce fail at alloc_cpu.cpp:118] err == 0. DefaultCPUAllocator: can't allocate memory: you tried to allocate "
    "8 bytes. Error code 12 (Cannot allocate memory)"
)
ERRORS = [torch.OutOfMemoryError("CUDA out of memory"), RuntimeError(CPU)]
TEXTS = [make_prompt(f"question {'o' * number}", id=str(number)) for number in (1, 9, 4, 6)]
ANSWERS = [["yes", "no no"], ["maybe", "it may be so"], ["a", "bb", "ccc"], ["never", "ever"]]

PROMPTS = [[5, 6, 7], [8, 9, 10, 11], [12, 13], [14, 15, 16]]
RESPONSES = [
    [Response((40 + row, 2), "a", (), True), Response((50, 51 + row, 2), "b", (), True)] for row in range(len(PROMPTS))
]
PAIRS = [Pair(row, row % 2, 1 - row % 2, 1.0, 0.0) for row in range(len(PROMPTS))]


def make_learner(monkeypatch, limit, error=ERRORS[0]):
    policy = Policy(make_model(), make_tokenizer(), lora_rank=2)
    learner = Learner(policy, Objective("nll+dpo"), learning_rate=1e-2, max_batch_tokens=64)
    forward, sizes = policy.trainable_logps, []

    def limited(prompt_ids, response_ids, **moment):
        tokens = sum(map(len, prompt_ids)) + sum(len(ids) for row in response_ids for ids in row)
        if tokens > limit:
            raise error
        sizes.append(tokens)
        return forward(prompt_ids, response_ids, **moment)

    monkeypatch.setattr(policy, "trainable_logps", limited)
    return learner, sizes


def weights(learner):
    return torch.cat([parameter.detach().flatten() for parameter in learner.policy.trainable_parameters()])


@pytest.mark.slow
@pytest.mark.parametrize("error", ERRORS)
def test_the_step_is_the_same_in_smaller_micro_batches(monkeypatch, error):
    plenty, _ = make_learner(monkeypatch, 1000)
    scarce, sizes = make_learner(monkeypatch, 20, error)
    whole, halved = (learner.learn(PROMPTS, RESPONSES, PAIRS) for learner in (plenty, scarce))
    np.testing.assert_allclose(halved.losses_B, whole.losses_B, rtol=1e-5)
    torch.testing.assert_close(weights(scarce), weights(plenty), rtol=1e-4, atol=1e-6)
    assert max(sizes) <= 20
    sizes.clear()
    scarce.learn(PROMPTS, RESPONSES, PAIRS)
    assert sizes == [8, 16, 8], "the smaller budget is remembered: nothing is tried twice"


def test_out_of_memory_with_one_prompt_is_a_sentence(monkeypatch):
    learner, _ = make_learner(monkeypatch, 3)
    before = weights(learner)
    with pytest.raises(TrainingError, match=r"out of memory.*lower generation.num_responses"):
        learner.learn(PROMPTS, RESPONSES, PAIRS)
    assert torch.equal(weights(learner), before)


def limited(module, limit, error):
    """Make a module run out of memory when more than `limit` tokens go in at once.

    Returns:
        The tokens of each call, negative if it ran out.
    """
    sizes = []

    def hook(module, arguments, named):
        size = named["input_ids"].numel()
        sizes.append(size if size <= limit else -size)
        if size > limit:
            raise error

    module.register_forward_pre_hook(hook, with_kwargs=True)
    return sizes


def flat(nested):
    return [number for row in nested for number in flat(row)] if isinstance(nested, list | tuple) else [nested]


def sample(policy):
    generator = TransformersGenerator(policy)
    options = {"num_responses": 2, "temperature": 1.0, "top_p": 1.0, "max_new_tokens": 6, "seeds": range(len(TEXTS))}
    return lambda: [[response.token_ids for response in row] for row in generator.generate(TEXTS, **options)]


def embed(policy):
    return lambda: policy.embed(TEXTS).tolist()


def logps(policy):
    prompts = policy.encode(TEXTS)
    return lambda: torch.cat(policy.logps(prompts, [[(5, 6, 7), (8, 9)]] * len(prompts), which="reference")).tolist()


@pytest.mark.slow
@pytest.mark.parametrize("error", ERRORS)
@pytest.mark.parametrize("phase", [sample, embed, logps])
def test_the_policy_does_the_same_in_smaller_batches(phase, error):
    expected = phase(Policy(make_model(), make_tokenizer(), lora_rank=2))()
    policy = Policy(make_model(), make_tokenizer(), lora_rank=2)
    longest = max(map(len, policy.encode(TEXTS)))
    again = phase(policy)
    sizes = limited(policy.model.base_model, longest + 5, error)
    np.testing.assert_allclose(flat(again()), flat(expected), rtol=1e-4, atol=1e-5)
    assert min(sizes) < 0
    sizes.clear()
    again()
    assert min(sizes) > 0, "the smaller budget is remembered: nothing is tried twice"


@pytest.mark.parametrize("error", ERRORS)
@pytest.mark.parametrize(
    ("phase", "field"),
    [
        (sample, r"generation\.max_batch_tokens.*generation\.num_responses"),
        (embed, "max_context"),
        (logps, "max_context"),
    ],
)
def test_a_policy_that_does_not_fit_at_all_is_a_sentence(phase, field, error):
    policy = Policy(make_model(), make_tokenizer(), lora_rank=2)
    again = phase(policy)
    limited(policy.model.base_model, 3, error)
    with pytest.raises(TrainingError, match=f"out of memory.*{field}"):
        again()


class Called(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))

    def forward(self, input_ids):
        return input_ids


class Head:
    """A family and a comparer of pairs whose score is the mean of a row."""

    cuts, window = True, 1000

    def __init__(self):
        self.module = Called()
        self.modules = [self.module]
        self.counts = Counts()

    def encode(self, prompt, first, second):
        return Row([ord(letter) % 99 for letter in prompt + first + second])

    def rows(self, prompt, texts):
        return [self.encode(prompt.text, text, "") for text in texts]

    def fits(self, prompt, text):
        return True

    def scores(self, rows):
        self.module(input_ids=torch.zeros(len(rows), max(len(row.ids) for row in rows)))
        return torch.tensor([float(np.mean(row.ids)) for row in rows])

    log_odds = scores


def loglik():
    model = make_model()
    return LogLikelihoodRM(model, make_tokenizer()), model.base_model


def perplexity():
    model = make_model()
    return PerplexityRM(model, make_tokenizer()), model.base_model


def similarity():
    model = make_model().base_model
    return SimilarityRM(model, make_tokenizer()), model


def headed(kind):
    head = Head()
    return (ClassifierRM(head, head) if kind == "classifier" else PairwiseRM(head)), head.module


REWARD_MODELS = [loglik, perplexity, similarity, lambda: headed("classifier"), lambda: headed("pairwise")]


@pytest.mark.parametrize("error", ERRORS)
@pytest.mark.parametrize("make", REWARD_MODELS)
def test_reward_models_score_the_same_in_smaller_batches(make, error):
    (plenty, free), (scarce, module) = make(), make()
    all_sizes = limited(free, 10_000, error)
    expected = np.concatenate(plenty.score(TEXTS, ANSWERS))
    sizes = limited(module, max(all_sizes) * 2 // 3, error)
    np.testing.assert_allclose(np.concatenate(scarce.score(TEXTS, ANSWERS)), expected, rtol=1e-4, atol=1e-5)
    assert min(sizes) < 0
    sizes.clear()
    scarce.score(TEXTS, ANSWERS)
    assert min(sizes) > 0


@pytest.mark.parametrize("error", ERRORS)
@pytest.mark.parametrize("make", REWARD_MODELS)
def test_a_reward_model_that_does_not_fit_at_all_is_a_sentence(make, error):
    rm, module = make()
    limited(module, 1, error)
    pool = RewardPool([Arm("big", lambda: rm), Arm("small", lambda: rm)], quarantine=Quarantine(2, max_failures=1))
    with pytest.raises(QuarantinedError, match=r"'big': .*out of memory.*max_batch_tokens.*device = 'cpu'"):
        pool.score(0, TEXTS, ANSWERS)


class Own:
    def __init__(self, error):
        self.error = error

    def score(self, prompts, responses):
        raise self.error

    def release(self):
        pass


@pytest.mark.parametrize("error", [*ERRORS, MemoryError(), RuntimeError("mat1 and mat2 shapes cannot be multiplied")])
@pytest.mark.parametrize("where", ["load", "score"])
def test_what_torch_raises_puts_a_reward_model_in_quarantine(error, where):
    def load():
        raise error

    arm = Arm("own", load if where == "load" else lambda: Own(error))
    pool = RewardPool([arm, Arm("other", lambda: Own(error))], quarantine=Quarantine(2, max_failures=2))
    words = (
        "out of memory; lower its max_batch_tokens"
        if is_out_of_memory(error)
        else "failed: RuntimeError: mat1 and mat2 shapes"
    )
    with pytest.raises(QuarantinedError, match=f"reward model 'own'.*{words}"):
        pool.score(0, TEXTS, ANSWERS)
    assert pool.available_K.tolist() == [False, True]


def test_a_lost_process_is_not_a_failure_of_a_reward_model():
    lost = LostProcessError("another process of the run is gone; resume the run")
    pool = RewardPool([Arm("own", lambda: Own(lost))], quarantine=Quarantine(1, max_failures=2))
    with pytest.raises(LostProcessError):
        pool.score(0, TEXTS, ANSWERS)
    assert pool.available_K.all()


def test_memory_that_runs_out_between_processes_is_not_a_lost_process():
    with pytest.raises(RuntimeError) as raised:
        collective(lambda: torch.empty(2**60, dtype=torch.uint8, device="cpu"))
    assert is_out_of_memory(raised.value)
    assert not isinstance(raised.value, LostProcessError)


def test_a_cpu_that_is_out_of_memory_is_recognised():
    with pytest.raises(RuntimeError) as raised:
        torch.empty(2**60, dtype=torch.uint8, device="cpu")
    assert is_out_of_memory(raised.value)
    assert not is_out_of_memory(RuntimeError("CUDA error: device-side assert triggered"))
