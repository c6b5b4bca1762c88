"""Reward functions run where their author expects, are called as their signature says, and may have no opinion."""

import asyncio
import os
import signal
import subprocess
import sys
from decimal import Decimal

import numpy as np
import pandas
import pytest
import torch

import laser
from laser.config import parse_config
from laser.core.errors import RewardModelError
from laser.core.types import Prompt
from laser.rewards.base import TrainingStep
from laser.rewards.custom import CustomRM
from laser.rewards.function import FunctionRM
from laser.rewards.pool import Arm, QuarantinedError, RewardPool
from laser.rewards.quarantine import Quarantine
from laser.rewards.signatures import calling
from laser.rewards.user_code import UserCode
from laser.rewards.user_files import forget_files, function_fingerprint, load_function
from laser.wiring import build_pool
from runs import make_table, steps

CHAT = ({"role": "user", "content": "2+2?"},)
PROMPTS = [Prompt("0", CHAT, answer="4", metadata={"level": 1}), Prompt("1", CHAT, answer="5", metadata={"level": 2})]
RESPONSES = [["4", "four"], ["5"]]


def scores(function, prompts=PROMPTS, responses=RESPONSES, **options):
    return [row.tolist() for row in FunctionRM(function, "f", **options).score(prompts, responses)]


def write(folder, **files):
    folder.mkdir(exist_ok=True)
    for name, text in files.items():
        (folder / f"{name}.py").write_text(text)
    return folder


def test_alarms_and_event_loops_work_without_a_time_limit():
    def alarmed(prompts, responses):
        signal.signal(signal.SIGALRM, lambda *_: None)
        signal.alarm(2)
        return [len(text) for text in responses]

    def looped(prompts, responses):
        async def one(text):
            return len(text)

        return asyncio.get_event_loop().run_until_complete(asyncio.gather(*map(one, responses)))

    asyncio.set_event_loop(asyncio.new_event_loop())
    try:
        assert scores(alarmed) == scores(looped) == [[1, 4], [1]]
        assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)  # the alarm that was left is off
        with pytest.raises(RewardModelError, match="remove its timeout, with which it runs in a thread"):
            scores(alarmed, code=UserCode("it", timeout=5.0))
        assert scores(looped, code=UserCode("it", timeout=5.0)) == [[1, 4], [1]]
    finally:
        asyncio.get_event_loop().close()
        asyncio.set_event_loop(None)


def test_coroutines_are_awaited_in_every_call_and_inside_a_running_loop():
    async def judged(prompts, responses):
        await asyncio.sleep(0)
        return [len(text) for text in responses]

    rm = FunctionRM(judged, "f")
    assert [row.tolist() for _ in range(2) for row in rm.score(PROMPTS, RESPONSES)] == [[1, 4], [1]] * 2

    async def notebook():
        return scores(judged)

    assert asyncio.run(notebook()) == [[1, 4], [1]]


def test_what_a_function_changes_for_the_whole_process_is_put_back(tmp_path):
    def careless(prompts, responses):
        os.chdir(tmp_path)
        torch.set_grad_enabled(False)
        torch.set_default_dtype(torch.float64)
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        return [1.0] * len(responses)

    before = os.getcwd(), signal.getsignal(signal.SIGINT)
    scores(careless)
    assert (os.getcwd(), signal.getsignal(signal.SIGINT)) == before
    assert torch.is_grad_enabled()
    assert torch.get_default_dtype() == torch.float32


CLOSES = """
import os, sys
from laser.rewards.function import FunctionRM
from laser.core.types import Prompt

def close(prompts, responses):
    print("heard", flush=True)
    {how}
    return [1.0] * len(responses)

FunctionRM(close, "close").score([Prompt("p", ())], [["a"]])
file = open("records", "w")
print("said", flush=True)
print("told", file=sys.stderr, flush=True)
file.close()
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    "how",
    [
        "sys.stdout.close(); sys.stderr.close()",
        "os.close(1); os.close(2)",
        "os.dup2(os.open(os.devnull, os.O_WRONLY), 1)",
        "sys.stdout = sys.stderr = open(os.devnull, 'w')",
    ],
)
def test_standard_output_is_put_back(tmp_path, how):
    """Otherwise the next line would be lost, or be in the next file that is opened."""
    code = [sys.executable, "-c", CLOSES.format(how=how)]
    done = subprocess.run(code, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stdout) == (0, "heard\nsaid\n")
    assert done.stderr.endswith("told\n")
    assert (tmp_path / "records").read_text() == ""


def test_the_users_interrupt_passes():
    def interrupted(prompts, responses):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        scores(interrupted)
    with pytest.raises(RewardModelError, match="raised KeyboardInterrupt"):  # in a thread it cannot be the user's
        scores(interrupted, code=UserCode("it", timeout=5.0))


def test_an_exit_while_a_file_is_imported_is_an_error(tmp_path):
    write(tmp_path, leaves="import sys\nsys.exit(0)\n")
    with pytest.raises(RewardModelError, match="cannot be imported: SystemExit: 0"):
        load_function(f"{tmp_path}/leaves.py:f")


def test_files_may_import_neighbors_of_the_same_name_in_two_folders(tmp_path):
    code = (
        "from helpers import size\ndef f(prompts, responses):\n"
        "    import late\n    return [size + late.more] * len(responses)\n"
    )
    for name, size in (("a", 1), ("b", 2)):
        write(tmp_path / name, rewards=code, helpers=f"size = {size}\n", late=f"more = {10 * size}\n")
    forget_files()
    specs = [f"{tmp_path}/{name}/rewards.py:f" for name in ("a", "b")]
    functions = [load_function(spec) for spec in specs]
    for _ in range(2):
        for name, function, expected in zip(("a", "b"), functions, (11, 22), strict=True):
            code = UserCode("f", folder=tmp_path / name)
            assert scores(function, code=code) == [[expected] * 2, [expected]]
    assert not any(str(tmp_path) in entry for entry in sys.path)
    before = function_fingerprint(specs[0])
    (tmp_path / "a" / "late.py").write_text("more = 11\n")
    assert function_fingerprint(specs[0]) != before  # the fingerprint covers what the file imports


def test_functions_of_one_file_share_its_module_within_a_run_and_no_longer(tmp_path):
    write(
        tmp_path,
        counting="calls = []\ndef f(p, r):\n    calls.append(1)\n    return calls\ndef g(p, r): return calls\n",
    )
    f, g = (load_function(f"{tmp_path}/counting.py:{name}") for name in "fg")
    f([], [])
    assert g([], []) == [1]
    forget_files()
    assert load_function(f"{tmp_path}/counting.py:g")([], []) == []


def test_trl_gets_columns_by_keyword_and_messages_where_the_data_has_them():
    seen = {}

    def reward(completions, prompts, ground_truth, level, trainer_state, **kwargs):
        seen.update(kwargs, prompts=prompts, completions=completions, level=level, step=trainer_state.global_step)
        return [float(truth in str(text)) for truth, text in zip(ground_truth, completions, strict=True)]

    at = TrainingStep(iteration=1, step=2, num_batches=7, last=9)
    assert scores(reward, at=at) == [[1, 0], [1]]
    assert seen == {
        "prompts": ["2+2?"] * 3,
        "completions": ["4", "four", "5"],
        "level": [1, 1, 2],
        "step": 7,
        "category": ["default"] * 3,
        "answer": ["4", "4", "5"],
    }
    chat = [Prompt("0", CHAT, answer="4", metadata={"level": 1}, conversational=True)]
    scores(reward, chat, [["4"]], at=at)
    assert seen["prompts"] == [[dict(CHAT[0])]]
    assert seen["completions"] == [[{"role": "assistant", "content": "4"}]]


def test_a_class_as_in_ms_swift_gets_text():
    class Accuracy:
        def __call__(self, completions, solution, **kwargs):
            return [float(text == gold) for text, gold in zip(completions, solution, strict=True)]

    chat = [Prompt("0", CHAT, answer="4", conversational=True)]
    assert scores(Accuracy, chat, [["4", "5"]]) == scores(Accuracy(), chat, [["4", "5"]]) == [[1, 0]]


def test_openrlhf_gets_queries_and_its_dict_of_tensors_is_read():
    def reward_func(queries, prompts, labels):
        ends = [query[len(prompt) :] == gold for query, prompt, gold in zip(queries, prompts, labels, strict=True)]
        return {"rewards": torch.tensor(ends, dtype=torch.bfloat16), "extra_logs": {"x": torch.zeros(3)}}

    assert scores(reward_func) == [[1, 0], [1]]


def test_other_signatures():
    at = TrainingStep(iteration=1, step=2)
    assert scores(lambda responses, prompts: [len(text) for text in responses]) == [[1, 4], [1]]  # by name
    assert scores(lambda a, b, *, step, iteration=9: [step + iteration] * len(b), at=at) == [[3, 3], [3]]
    assert scores(lambda *both: [len(text) for text in both[1]]) == [[1, 4], [1]]
    assert scores(lambda prompts, responses, level: level) == [[1, 1], [2]]
    with pytest.raises(RewardModelError, match=r"write \(prompts, responses\)"):
        calling(lambda responses: responses, "it")
    with pytest.raises(RewardModelError, match="needs completion_ids"):
        calling(lambda completions, completion_ids: completions, "it")
    with pytest.raises(RewardModelError, match="needs 'colour', which is not a column of the data"):
        scores(lambda completions, colour: completions)


@pytest.mark.parametrize(
    "given",
    [
        torch.tensor([1.0, 2.0, 3.0], requires_grad=True),
        [torch.tensor(1), np.float32(2), np.array(3.0)],
        (True, Decimal(2), 3),
        np.array([1, 2, 3], dtype=np.int8),
        iter([1, 2, 3]),
        pandas.Series([1, 2, 3], index=[7, 5, 6]),
    ],
)
def test_numbers_of_any_kind(given):
    assert scores(lambda p, r: given) == [[1, 2], [3]]


@pytest.mark.parametrize(
    "given",
    [
        pandas.DataFrame([[1, 2, 3]] * 2),
        torch.ones(3, 1),
        [[1], [2], [3]],
        {1: 0, 2: 0, 3: 0},
        {1.0, 2.0, 3.0},
        "123",
        [1, 2],
        ["1", "2", "3"],
        7,
    ],
)
def test_anything_else_is_refused(given):
    with pytest.raises(RewardModelError, match="reward function 'f' returned"):
        scores(lambda p, r: given)


def test_a_custom_reward_model_may_return_a_tensor():
    class Learned:
        def score(self, prompts, responses):
            return torch.tensor([[1, 2], [3, 4]], dtype=torch.bfloat16, requires_grad=True)

    assert [row.tolist() for row in CustomRM(Learned(), "learned").score(PROMPTS, [["a", "b"]] * 2)] == [[1, 2], [3, 4]]


def test_code_of_users_is_never_called_with_empty_rows():
    class Strict:
        def score(self, prompts, responses):
            assert prompts
            assert all(responses)
            return [[float(len(text)) for text in row] for row in responses]

        def release(self):
            pass

    rm = CustomRM(Strict(), "strict")
    assert [row.tolist() for row in rm.score(PROMPTS, [[], ["abc"]])] == [[], [3]]
    assert [row.tolist() for row in rm.score(PROMPTS, [[], []])] == [[], []]
    assert rm.score([], []) == []
    pool = RewardPool([Arm("never", lambda: 1 / 0)])  # not even loaded
    assert [row.tolist() for row in pool.score(0, PROMPTS, [[], []])] == [[], []]


def pool_of(function):
    return RewardPool([Arm("f", lambda: FunctionRM(function, "f"))], quarantine=Quarantine(1, max_failures=2))


def test_no_opinion_is_counted_and_is_not_a_failure():
    pool = pool_of(lambda p, r: [None] * len(r))
    for _ in range(5):
        assert np.isnan(np.concatenate(pool.score(0, PROMPTS, RESPONSES))).all()
    assert pool.available_K.all()
    usage = pool.usage()["f"]
    assert (usage["abstained"], usage["unscored"], usage["failures"]) == (15, 15, 0)
    (warning,) = pool.take_warnings()
    assert "had no opinion on any of the 3 responses" in warning


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_nan_and_infinity_stay_failures_also_next_to_no_opinion(bad):
    pool = pool_of(lambda p, r: [None] * (len(r) - 1) + [bad])
    pool.score(0, PROMPTS, RESPONSES)
    pool.score(0, PROMPTS, RESPONSES)
    with pytest.raises(QuarantinedError):
        pool.score(0, PROMPTS, RESPONSES)


@pytest.mark.parametrize("error", [IndexError, KeyError, ValueError, ZeroDivisionError, AssertionError, StopIteration])
@pytest.mark.parametrize("place", ["build", "score", "release"])
def test_any_exception_of_a_reward_model_is_its_failure(error, place):
    class Faulty:
        def __init__(self):
            if place == "build":
                raise error("lost")

        def score(self, prompts, responses):
            if place == "score":
                raise error("lost")
            return [np.arange(len(row), dtype=float) for row in responses]

        def release(self):
            raise error("lost")

    fine = FunctionRM(lambda p, r: [1.0] * len(r), "fine")
    pool = RewardPool([Arm("bad", Faulty), Arm("fine", lambda: fine)], quarantine=Quarantine(2, max_failures=1))
    if place == "release":
        pool.score(0, PROMPTS, RESPONSES)
        assert pool.score(1, PROMPTS, RESPONSES)[0].tolist() == [1, 1]
        assert "reward model 'bad' failed" in pool.take_warnings()[0]
        assert pool.usage()["bad"]["failures"] == 1
        return
    with pytest.raises(QuarantinedError, match=r"reward model 'bad'.*lost"):
        pool.score(0, PROMPTS, RESPONSES)


def test_the_training_step_reaches_a_function_and_a_run_with_no_opinions_continues(tmp_path):
    write(
        tmp_path,
        f="def f(prompts, responses, step, iteration):\n"
        "    open(__file__ + '.log', 'a').write(f'{iteration} {step}\\n')\n"
        "    return [None] * len(responses)\n",
    )
    table = make_table(tmp_path, training={"iterations": 2, "batches_per_iteration": 2}, split={"train": 8, "dev": 0})
    table["rewards"]["models"] = [{"type": "function", "name": "f", "function": f"{tmp_path}/f.py:f"}]
    laser.train(table, tmp_path / "run")
    assert (tmp_path / "f.py.log").read_text().split("\n")[:-1] == ["0 0", "0 1", "1 0", "1 1"]
    for record in steps(tmp_path / "run"):
        assert record["quarantined"] == {}
        assert record["bandit_rewards"] == [0.0]


def test_a_signature_that_is_not_understood_is_refused_at_the_start(tmp_path):
    write(tmp_path, f="def f(text): return 1.0\n")
    table = make_table(tmp_path)
    table["rewards"]["models"] = [{"type": "function", "name": "f", "function": f"{tmp_path}/f.py:f"}]
    with pytest.raises(RewardModelError, match=r"reward model 'f'.*\(text\); write \(prompts, responses\)"):
        build_pool(parse_config(table))
