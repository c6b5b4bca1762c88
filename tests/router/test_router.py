"""The router: choices that do not depend on calls, learning from what a trainer has, state, failures, bad input."""

import asyncio
import json
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

import laser
from laser.core.errors import ConfigError, DataError, LaserError, RunDirectoryError, TrainingError
from laser.core.types import Prompt
from processes import FORKS
from routing import rollouts, router_table, same_state

PAIRS = [
    {"prompt": f"{n} + 1?", "chosen": f"I say {n + 1}", "rejected": f"I say {n}", "gold": f"{n + 1}"} for n in range(3)
]


def run(router, steps, *, start=0, groups=4, gold=True):
    """Arms of every step, learning after each."""
    arms = []
    for step in range(start, start + steps):
        prompts, responses, answers = rollouts(step, groups=groups)
        arms.append(router.score(prompts, responses, step, answers if gold else None).arms.tolist())
        router.learn(step)
    return arms


def answer(folder, step, prompts):
    router = laser.Router(router_table(folder, selector={"type": "random"}))
    return router.choose(prompts, step)


class TestChoices:
    def test_the_same_answer_in_any_order_or_one_by_one(self, tmp_path):
        table = router_table(tmp_path, selector={"type": "random"})
        prompts = [f"question {number}" for number in range(20)]
        router = laser.Router(table)
        together = router.choose(prompts, 3)
        assert len({choice.arm for choice in together}) == 3
        assert router.choose(prompts, 3) == together
        one_by_one = laser.Router(table)
        assert [one_by_one.choose([prompt], 3)[0] for prompt in reversed(prompts)] == together[::-1]
        assert laser.Router(table).choose(prompts, 4) != together

    @pytest.mark.slow
    def test_the_same_answer_in_another_process(self, tmp_path):
        table = router_table(tmp_path, selector={"type": "random"})
        prompts = [f"question {number}" for number in range(20)]
        with FORKS.Pool(1) as pool:
            assert pool.apply(answer, (tmp_path, 3, prompts)) == laser.Router(table).choose(prompts, 3)

    def test_draws_have_the_probabilities_that_are_reported(self, tmp_path):
        table = router_table(tmp_path, selector={"type": "epsilon_greedy", "epsilon": 0.3})
        router = laser.Router(table)
        run(router, 4, groups=6)
        choices = router.choose([f"q{number}" for number in range(3000)], 9)
        for arm in range(3):
            drawn = [choice.probability for choice in choices if choice.arm == arm]
            assert abs(len(drawn) / 3000 - drawn[0]) < 4 * np.sqrt(drawn[0] * (1 - drawn[0]) / 3000)

    def test_text_messages_and_prompts_are_one_prompt(self, tmp_path):
        router = laser.Router(router_table(tmp_path, selector={"type": "random"}))
        messages = [{"role": "user", "content": "hello"}]
        forms = ["hello", messages, Prompt(id="any", messages=tuple(messages))]
        assert len(set(router.choose(forms, 0))) == 1

    def test_choosing_changes_nothing(self, tmp_path):
        table = router_table(tmp_path, selector={"type": "thompson"}, context={"normalization": "unit"})
        one, two = laser.Router(table), laser.Router(table)
        run(one, 3)
        run(two, 3)
        two.choose(["never scored"], 2)
        assert one.choose(["next"], 3) == two.choose(["next"], 3)

    @pytest.mark.parametrize("source", [{"source": "category", "categories": ["a", "b"]}, {"source": "none"}])
    def test_categories_are_told_apart_where_they_are_the_context(self, tmp_path, source):
        router = laser.Router(router_table(tmp_path, "right", "wrong", context=source, selector={"alpha": 0.0}))
        for step in range(6):
            prompts, responses, answers = rollouts(step, groups=8)
            category = ["a" if index // 4 % 2 else "b" for index in range(len(prompts))]
            named = [
                Prompt(id="", messages=({"role": "user", "content": text},), category=of, answer=gold)
                for text, of, gold in zip(prompts, category, answers, strict=True)
            ]
            for prompt in named[::4]:
                value = 1.0 - abs((prompt.category == "a") - router.choose([prompt], step)[0].arm)
                router.score([prompt], [responses[0]], step)
                router.feedback(step, prompt, value)
            router.learn(step)
        asked = [
            Prompt(id="", messages=({"role": "user", "content": f"x {number}"},), category="ab"[number % 2])
            for number in range(40)
        ]
        by_category = [{choice.arm for choice in router.choose(asked[begin::2], 30)} for begin in (0, 1)]
        assert (by_category == [{1}, {0}]) == (source["source"] == "category")


class TestScoring:
    def test_rows_get_the_score_of_the_reward_model_of_their_prompt(self, tmp_path):
        router = laser.Router(router_table(tmp_path, selector={"type": "random"}))
        prompts, responses, gold = rollouts(0, groups=12)
        scored = router.score(prompts, responses, 0, gold)
        chosen = [choice.arm for choice in router.choose(prompts, 0)]
        assert scored.arms.tolist() == chosen
        for prompt, response, answer_, arm, score in zip(prompts, responses, gold, chosen, scored.scores, strict=True):
            del prompt
            is_right = float(response.split()[-1] == answer_)
            assert score == (is_right, -is_right, 20.0 * len(response))[arm]
        columns = [scored.of_arm(arm) for arm in range(3)]
        for row, arm in enumerate(chosen):
            assert [column[row] is not None for column in columns] == [arm == other for other in range(3)]

    def test_each_reward_model_runs_once_and_only_if_chosen(self, tmp_path):
        router = laser.Router(router_table(tmp_path, selector={"type": "fixed", "arm": "length"}))
        router.score(*rollouts(0)[:2], 0)
        usage = router.usage()
        assert {name: counts["calls"] for name, counts in usage.items()} == {"right": 0, "wrong": 0, "length": 1}
        assert usage["right"]["loads"] == 0

    def test_no_opinion_is_nan(self, tmp_path):
        router = laser.Router(router_table(tmp_path, "silent"))
        scored = router.score(["q"] * 2, ["a", "b"], 0, ["a", "a"])
        assert np.isnan(scored.scores).all()
        assert scored.of_arm(0) == [None, None]
        assert router.learn(0)["bandit/reward"] == 0.0

    def test_a_reward_model_that_fails_is_replaced_in_the_same_call(self, tmp_path):
        table = router_table(tmp_path, "right", "failing", selector={"type": "random"})
        router = laser.Router(table)
        prompts, responses, gold = rollouts(0, groups=12)
        assert {choice.name for choice in router.choose(prompts, 0)} == {"right", "failing"}
        scored = router.score(prompts, responses, 0, gold)
        assert set(scored.arms) == {0}
        assert np.isfinite(scored.scores).all()
        assert "server is down" in scored.quarantined["failing"]
        assert [choice.arm for choice in router.choose(prompts, 0)] == scored.arms.tolist()
        assert router.learn(0)["bandit/quarantined"] == 1

    def test_without_any_reward_model_left_it_stops(self, tmp_path):
        router = laser.Router(router_table(tmp_path, "failing"))
        with pytest.raises(TrainingError, match=r"no reward model is left to choose.*server is down.*fix them"):
            router.score(["q"], ["a"], 0)

    def test_scores_on_one_scale_do_not_depend_on_units(self, tmp_path):
        table = router_table(tmp_path, "right", "length", selector={"type": "random"})
        router = laser.Router(table)
        for step in range(3):
            prompts, responses, gold = rollouts(step, groups=20)
            responses = [text + "!" * (index % 5) for index, text in enumerate(responses)]
            prompts, gold = list(prompts), list(gold)
            scored = router.score(prompts, responses, step, gold, scaled=True)
        spreads = [np.nanstd(scored.scores[scored.arms == arm]) for arm in range(2)]
        raw = [np.nanstd(scored.raw[scored.arms == arm]) for arm in range(2)]
        assert max(raw) / min(raw) > 20
        assert max(spreads) / min(spreads) < 4

    def test_an_evaluation_changes_nothing(self, tmp_path):
        table = router_table(tmp_path, signal={"type": "probe"})
        router = laser.Router(table)
        run(router, 2)
        before = router.state_dict()
        prompts, responses, gold = rollouts(77)
        first = router.score(prompts, responses, 1, gold, learn=False)
        again = router.score(prompts, responses, 1, gold, learn=False)
        assert first.arms.tolist() == again.arms.tolist()
        same_state(router.state_dict(), before)


class TestLearning:
    def test_gold_answers_on_the_same_rollouts_teach_which_reward_model_is_right(self, tmp_path):
        router = laser.Router(router_table(tmp_path))
        run(router, 12)
        assert {choice.name for choice in router.choose(["another"], 20)} == {"right"}

    def test_the_bandit_reward_is_the_share_of_pairs_in_the_right_order(self, tmp_path):
        router = laser.Router(router_table(tmp_path, "length"))
        router.score(["q"] * 4, ["Answer: 7", "7", "8", "Answer: 88"], 0, ["7"] * 4)
        metrics = router.learn(0)
        assert metrics["bandit/reward"] == (1 + 0 + 0.5 + 0) / 4  # the long right one over the 8; "7" ties with "8"
        assert metrics["bandit/chosen/length"] == 1

    def test_a_group_that_is_all_right_teaches_nothing(self, tmp_path):
        router = laser.Router(router_table(tmp_path))
        router.score(["q"] * 2, ["a 7", "b 7"], 0, ["7"] * 2)
        assert router.learn(0)["bandit/learned"] == 0

    def test_gold_answers_are_found_in_columns(self, tmp_path):
        for name in ("answer", "solution", "ground_truth"):
            router = laser.Router(router_table(tmp_path))
            router.score(["q"] * 2, ["x 7", "x 8"], 0, columns={name: ["7", "7"]})
            assert router.learn(0)["bandit/learned"] == 1

    @pytest.mark.parametrize("labels", ["gold", "consensus"])
    def test_a_probe_teaches_all_reward_models_at_once(self, tmp_path, labels):
        signal = {"type": "probe", "labels": labels, "prompts_per_category": 4}
        table = router_table(tmp_path, "right", "wrong", signal=signal, selector={"alpha": 0.0})
        router = laser.Router(table)
        for step in range(3):
            prompts, responses, gold = rollouts(step)
            responses = [text if index % 4 != 2 else responses[index - 2] for index, text in enumerate(responses)]
            gold_columns = {"gold": gold}  # which the reward functions read, and the router does not
            router.score(prompts, responses, step, gold if labels == "gold" else None, gold_columns)
            router.learn(step)
        usage = router.usage()
        assert sum(counts["responses"] for counts in usage.values()) > 3 * 16
        assert {choice.name for choice in router.choose(["another"], 20)} == {"right"}

    def test_groups_of_a_probe_are_chosen_for_with_what_it_found(self, tmp_path):
        table = router_table(tmp_path, "right", "wrong", "length", signal={"type": "probe"}, selector={"alpha": 0.0})
        prompts, responses, gold = rollouts(0, groups=6)
        router = laser.Router(table)
        assert "right" not in {choice.name for choice in router.choose(prompts[:4], 0)}  # as nothing is known
        scored = router.score(prompts, responses, 0, gold)
        assert {router.names[arm] for arm in scored.arms[4:]} == {"right"}
        assert "right" not in {router.names[arm] for arm in scored.arms[:4]}  # a choice that was given stays
        assert router.learn(0)["bandit/learned"] == 6
        untaught = laser.Router({**table, "signal": {"type": "none"}})
        assert len(set(untaught.score(prompts, responses, 0, gold).arms[4:])) == 3

    def test_a_consensus_knows_that_a_response_without_an_answer_is_wrong(self, tmp_path):
        """ "length" prefers the long refusal, "right" has no opinion on two wrong answers."""
        signal = {"type": "probe", "labels": "consensus"}
        table = router_table(tmp_path, "right", "length", signal=signal, evaluation={"answer": "final_answer"})
        router = laser.Router(table)
        said = [
            "Final answer: 7",
            "7.\nFinal answer: 7",
            "Final answer: 8",
            "I would rather talk about the weather today",
        ]
        scored = router.score(["3 + 4?"] * 4, said, 0, columns={"gold": ["7"] * 4})
        assert {router.names[arm] for arm in scored.arms} == {"right"}
        router.learn(0)
        only = laser.Router(table)
        only.score(["3 + 4?"] * 2, ["no", "who knows"], 0, columns={"gold": ["7"] * 2})
        assert only.learn(0)["bandit/learned"] == 0
        assert sum(usage["responses"] for usage in only.usage().values()) == 2, "no probe: the chosen one alone scored"

    def test_the_metric_of_the_trainer_is_credited_to_the_groups_since_the_last_one(self, tmp_path):
        router = laser.Router(router_table(tmp_path, "length", signal={"type": "dev_gain", "span": 0.2}))
        router.score(["q"], ["a"], 0)
        assert router.learn(0)["bandit/learned"] == 0
        assert router.learn(0, metric=0.5)["bandit/learned"] == 0
        for step in (1, 2):
            router.score(["q"], ["a"], step)
            router.learn(step)
        metrics = router.learn(2, metric=0.6)
        assert metrics["bandit/learned"] == 2
        assert metrics["bandit/reward"] == pytest.approx(0.75)

    def test_feedback_from_outside_may_come_late(self, tmp_path):
        router = laser.Router(router_table(tmp_path, "length"))
        router.score(["q"], ["a"], 0)
        router.feedback(0, "q", 0.25)
        assert router.learn(0)["bandit/reward"] == 0.25
        router.score(["q", "r"], ["a", "b"], 1)
        router.feedback(1, "q", 0.5)
        assert router.learn(1)["bandit/learned"] == 1
        router.feedback(1, "r", 1.0)
        assert router.learn(2)["bandit/reward"] == 1.0
        with pytest.raises(DataError, match="learned already"):
            router.feedback(1, "r", 1.0)
        with pytest.raises(DataError, match="call choose or score first"):
            router.feedback(2, "r", 1.0)
        with pytest.raises(DataError, match=r"in \[0, 1\]"):
            router.feedback(1, "q", float("nan"))

    @pytest.mark.parametrize("signal", [{"type": "none"}, {"type": "probe", "labels": "gold"}])
    def test_without_anything_to_learn_from_it_says_so(self, tmp_path, signal):
        router = laser.Router(router_table(tmp_path, signal=signal))
        router.score(["q", "q"], ["a", "b"], 0)
        with pytest.raises(DataError, match=r"nothing can be learned.*loss of GRPO.*'consensus'"):
            router.learn(0)

    def test_a_selector_that_does_not_learn_needs_nothing(self, tmp_path):
        router = laser.Router(router_table(tmp_path, selector={"type": "random"}))
        router.score(["q", "q"], ["a", "b"], 0)
        assert router.learn(0)["bandit/learned"] == 0


class TestLabeledPairs:
    """`signal.pairs`: labeled responses that all reward models score before the first choice."""

    def table(self, folder, *names, rows=PAIRS, selector=None, **signal):
        (folder / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        signal = {"type": "probe", "labels": "pairs", "pairs": str(folder / "pairs.jsonl"), **signal}
        return router_table(folder, *names, signal=signal, selector=selector or {"type": "linucb", "alpha": 0.1})

    def test_the_first_choice_knows_them(self, tmp_path):
        router = laser.Router(self.table(tmp_path))
        assert {choice.name for choice in router.choose([f"q{n}" for n in range(9)], 0)} == {"right"}
        assert {name: usage["responses"] for name, usage in router.usage().items()} == dict.fromkeys(router.names, 6)
        other = laser.Router(self.table(tmp_path))
        other.score(["q"], ["a"], 0)
        assert other.choose(["q1"], 1)[0].name == "right"
        assert other.usage()["wrong"]["responses"] == 6

    def test_groups_earn_what_their_reward_model_is_worth_on_them(self, tmp_path):
        router = laser.Router(self.table(tmp_path, "right", "wrong", selector={"type": "ucb1"}, warm_start=False))
        for step in range(2):
            router.score(["q"] * 2, ["a", "b"], step)
            (name,) = {choice.name for choice in router.choose(["q"], step)}
            assert router.learn(step)[f"bandit/reward/{name}"] == float(name == "right")
        assert {name: counts["calls"] for name, counts in router.usage().items()} == {"right": 2, "wrong": 2}

    def test_a_state_has_them_and_belongs_to_them(self, tmp_path):
        router = laser.Router(self.table(tmp_path))
        run(router, 2, gold=False)
        router.save(tmp_path / "state")
        again = laser.Router(self.table(tmp_path), tmp_path / "state")
        assert run(again, 2, start=2, gold=False) == run(router, 2, start=2, gold=False)
        same_state(again.state_dict(), router.state_dict())
        with pytest.raises(RunDirectoryError, match="holds other pairs than when the state was saved"):
            laser.Router(self.table(tmp_path, rows=PAIRS[:2]), tmp_path / "state")

    def test_gold_answers_come_first_with_auto(self, tmp_path):
        """Pairs do not use up the groups that a probe looks at, and a category with pairs needs no consensus."""
        router = laser.Router(self.table(tmp_path, labels="auto", prompts_per_category=2))
        run(router, 1, gold=False)
        assert router.usage()["wrong"]["responses"] == 6
        run(router, 2, start=1)
        assert 6 < router.usage()["wrong"]["responses"] <= 6 + 2 * 4

    def test_a_reward_model_that_fails_is_left_out(self, tmp_path):
        with pytest.warns(UserWarning, match="the probe continues without failing"):
            assert laser.Router(self.table(tmp_path, "failing", "right", "wrong")).choose(["q"], 0)[0].name == "right"

    def test_a_category_without_pairs(self, tmp_path):
        router = laser.Router(self.table(tmp_path))
        with pytest.raises(DataError, match="has no pairs of category 'b', which training prompts have; add some"):
            router.score(["q"], ["a"], 0, columns={"category": ["b"]})
        router.score(["q"], ["a"], 0, columns={"category": ["b"]}, learn=False)

    def test_pairs_that_cannot_be_used(self, tmp_path):
        with pytest.raises(DataError, match="two responses of pair 1 are the same text"):
            laser.Router(self.table(tmp_path, rows=[{"prompt": "p", "chosen": "a", "rejected": "a"}]))
        with pytest.raises(DataError, match=r"none\.jsonl"):
            laser.Router(self.table(tmp_path, pairs=str(tmp_path / "none.jsonl")))


class TestState:
    @pytest.mark.parametrize(
        "sections",
        [
            {},
            {"selector": {"type": "thompson"}, "context": {"normalization": "unit"}},
            {"selector": {"type": "exp3"}, "signal": {"type": "probe", "labels": "consensus"}},
        ],
    )
    def test_a_restored_router_continues_bit_equal(self, tmp_path, sections):
        table = router_table(tmp_path, **sections)
        router = laser.Router(table)
        run(router, 4)
        prompts, responses, gold = rollouts(4)
        router.score(prompts[:6], responses[:6], 4, gold[:6])  # a step that is not over
        router.save(tmp_path / "state")
        other = laser.Router(table, tmp_path / "state")
        same_state(other.state_dict(), router.state_dict())
        for one in (router, other):
            one.score(prompts[6:], responses[6:], 4, gold[6:])
            one.learn(4)
        assert run(other, 4, start=5) == run(router, 4, start=5)
        same_state(other.state_dict(), router.state_dict())

    def test_order_of_scoring_does_not_matter(self, tmp_path):
        table = router_table(tmp_path)
        one, two = laser.Router(table), laser.Router(table)
        prompts, responses, gold = rollouts(0)
        one.score(prompts, responses, 0, gold)
        for row in reversed(range(len(prompts))):
            two.score([prompts[row]], [responses[row]], 0, [gold[row]])
        assert one.learn(0) == pytest.approx(two.learn(0))
        assert one.choose(["next"], 1) == two.choose(["next"], 1)

    def test_a_missing_state_is_a_fresh_start_and_a_damaged_one_is_refused(self, tmp_path):
        table = router_table(tmp_path)
        laser.Router(table, tmp_path / "none").save(tmp_path / "state")
        (tmp_path / "state" / "router.json").write_text("{")
        with pytest.raises(RunDirectoryError, match="damaged"):
            laser.Router(table, tmp_path / "state")

    def test_the_state_of_another_pool_is_refused(self, tmp_path):
        laser.Router(router_table(tmp_path)).save(tmp_path / "state")
        with pytest.raises(RunDirectoryError, match="right, wrong, length, and here they are right, wrong"):
            laser.Router(router_table(tmp_path, "right", "wrong"), tmp_path / "state")
        with pytest.raises(RunDirectoryError, match="saved with selector"):
            laser.Router(router_table(tmp_path, selector={"alpha": 0.7}), tmp_path / "state")
        changed = router_table(tmp_path)
        (tmp_path / "rewards.py").write_text((tmp_path / "rewards.py").read_text().replace("20.0", "21.0"))
        with pytest.raises(RunDirectoryError, match="other weights or code"):
            laser.Router(changed, tmp_path / "state")
        laser.Router(changed).load(tmp_path / "state", changed_rewards=True)

    def test_steps_long_past_are_forgotten_and_refused(self, tmp_path):
        router = laser.Router(router_table(tmp_path))
        run(router, 20)
        assert len(router._groups) == 16 * 4
        with pytest.raises(DataError, match="step 2 is more than 16 steps before step 19"):
            router.choose(["q"], 2)

    def test_another_training_starts_at_step_0_with_what_was_learned(self, tmp_path):
        router = laser.Router(router_table(tmp_path))
        run(router, 20)
        router.restart()
        assert {choice.name for choice in router.choose(["q", "r"], 0)} == {"right"}
        assert len(router._groups) == 2


class TestConcurrency:
    def test_threads_get_what_one_thread_gets(self, tmp_path):
        table = router_table(tmp_path)
        alone, shared = laser.Router(table), laser.Router(table)
        for step in range(3):
            prompts, responses, gold = rollouts(step, groups=8)
            expected = alone.score(prompts, responses, step, gold)
            barrier = threading.Barrier(8)

            def one(group, step=step, rows=(prompts, responses, gold), barrier=barrier):
                barrier.wait()
                part = slice(4 * group, 4 * group + 4)
                shared.choose(rows[0][part], step)
                return shared.score(rows[0][part], rows[1][part], step, rows[2][part])

            with ThreadPoolExecutor(8) as threads:
                parts = list(threads.map(one, range(8)))
            assert np.concatenate([part.scores for part in parts]).tolist() == expected.scores.tolist()
            assert alone.learn(step) == pytest.approx(shared.learn(step))

    def test_awaiting(self, tmp_path):
        router = laser.Router(router_table(tmp_path))
        prompts, responses, gold = rollouts(0)

        async def both():
            return await router.achoose(prompts, 0), await router.ascore(prompts, responses, 0, gold)

        choices, scored = asyncio.run(both())
        assert [choice.arm for choice in choices] == scored.arms.tolist()


class TestBadInput:
    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            ((["q"], ["a", "b"], 0), "2 responses came with 1 prompts; give one per response"),
            ((["q", None], ["a", "b"], 0), "row 1 is null; give a prompt for every response"),
            ((["q", ""], ["a", "b"], 0), "row 1 has an empty prompt"),
            ((["q"], [None], 0), "row 0: the response is null; give text"),
            ((["q"], ["a"], -1), "the step is -1"),
            ((["q"], ["a"], 0, ["7", "8"]), "1 responses came with 2 gold answers"),
            ((["q"], ["a"], 0, None, {"answer": []}), "0 values of the column 'answer'"),
            ((["q", "q"], ["a", "b"], 0, ["7", "8"]), "two rows of one step have the same prompt.*one gold answer"),
            (([[{"role": "assistant", "content": "a"}]], ["a"], 0), "end the prompt with a user or tool message"),
            ((["q"], ["a"], 0, [{"x": 1}]), "row 0: the gold answer is an object with 'x'"),
        ],
    )
    def test_rows(self, tmp_path, arguments, message):
        with pytest.raises(DataError, match=message):
            laser.Router(router_table(tmp_path)).score(*arguments)

    def test_a_group_split_over_two_calls_that_disagree(self, tmp_path):
        router = laser.Router(router_table(tmp_path))
        router.score(["q"], ["a"], 0, ["7"])
        router.score(["q"], ["a"], 1, ["8"])  # another step
        with pytest.raises(DataError, match="two rows of one step"):
            router.score(["q"], ["a"], 0, ["8"])
        source = {"source": "category", "categories": ["a"]}
        router = laser.Router(router_table(tmp_path, context=source))
        router.choose(["q"], 0)
        with pytest.raises(DataError, match="chosen for as of category 'default' and scored as of 'a'"):
            router.score(["q"], ["a"], 0, columns={"category": ["a"]})

    @pytest.mark.parametrize(
        ("sections", "message"),
        [
            ({"context": {"source": "policy"}}, "a router has none; set context.source"),
            ({"context": {"source": "encoder"}}, "needs context.encoder"),
            ({"context": {"source": "none", "categories": ["a"]}}, "is for context.source = 'category'"),
            ({"selector": {"type": "ensemble"}}, "a router chooses one"),
            ({"rewards": {"combine": "zscore"}}, "a router chooses one"),
            ({"selector": {"type": "sequential"}}, "batches of laser's own loop"),
            ({"signal": {"type": "agreement"}}, "works in laser train alone"),
            ({"signal": {"type": "probe", "refresh": 2}}, "signal.refresh has no effect in a router"),
            ({"signal": {"type": "probe", "num_responses": 4}}, "signal.num_responses has no effect in a router"),
            ({"signal": {"type": "probe", "labels": "pairs"}}, "needs a file of labeled pairs"),
            ({"signal": {"type": "probe", "weight": 0.5}}, "the loss of GRPO and RLOO says nothing"),
            ({"feedback": {"type": "quantile"}}, "unknown key 'feedback'"),
        ],
    )
    def test_configurations(self, tmp_path, sections, message):
        with pytest.raises(ConfigError, match=message):
            laser.Router(router_table(tmp_path, **sections))

    def test_other_things_than_configurations(self, tmp_path):
        with pytest.raises(ConfigError, match="is of type int"):
            laser.Router(7)
        with pytest.raises(LaserError, match="does not exist"):
            laser.Router(tmp_path / "none.toml")

    def test_a_run_configuration_serves(self, tmp_path):
        table = router_table(tmp_path, context={"normalization": "unit"})
        whole = {**table, "policy": {"model": "nowhere"}, "data": {"type": "embedded"}, "preset": "recommended"}
        whole["signal"] = {"type": "probe", "refresh": 2, "num_responses": 4}
        router = laser.Router(whole)
        assert router.names == ("right", "wrong", "length")
        assert router.config.signal.type == "probe"
        assert laser.Router(laser.parse_config(whole)).config == router.config
