"""What reward models read: special tokens once, templates filled safely, and one rule for what is too long."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import BertConfig, BertForSequenceClassification, BertModel

from hub_layouts import llama3_tokenizer, pairrm_tokenizer
from laser.config import parse_config
from laser.core.errors import ConfigError
from laser.lm.chat import encode_prompt, encode_text
from laser.rewards.conversation import ConversationEncoder
from laser.rewards.families.tokens import surrounded
from laser.rewards.loglik import LogLikelihoodRM
from laser.rewards.pool import Arm, RewardPool
from laser.rewards.similarity import SimilarityRM
from laser.rewards.window import fit
from laser.rewards.wrappers import CorruptedRM
from tiny import make_model, make_prompt, make_tokenizer

PROMPT = make_prompt("What is two plus two?")


def test_one_bos_where_template_and_tokenizer_both_write_it():
    """Llama 3's trap: its tokenizer adds BOS to a rendered conversation that begins with one."""
    tokenizer = llama3_tokenizer()
    rendered = tokenizer.apply_chat_template([dict(m) for m in PROMPT.messages], tokenize=False)
    assert tokenizer(rendered)["input_ids"][:2] == [0, 0]
    row = ConversationEncoder(tokenizer, window=1000).rows(PROMPT, ["4"])[0]
    assert row.ids.count(0) == 1
    assert row.ids[0] == 0
    assert surrounded(tokenizer, [0, 9]) == surrounded(tokenizer, [9]) == [0, 9]


def test_special_tokens_around_a_template_string():
    tokenizer = pairrm_tokenizer()
    encoder = ConversationEncoder(tokenizer, template="Q: {prompt} A: {response}", window=1000)
    row = encoder.rows(PROMPT, ["4"])[0]
    assert row.ids == tokenizer(f"Q: {PROMPT.text} A: 4")["input_ids"]
    assert tokenizer.decode(row.ids[: row.prompt_length]) == f"[CLS]Q: {PROMPT.text} A: "


def test_a_response_alone_and_its_window():
    """A toxicity classifier reads no prompt; nothing can be cut from one."""
    tokenizer = pairrm_tokenizer()
    encoder = ConversationEncoder(tokenizer, template="{response}", window=8, overflow="cut_prompt")
    short, long = encoder.rows(PROMPT, ["fine", "much too long"])
    assert short.ids == tokenizer("fine")["input_ids"]
    assert long is None
    assert encoder.counts.take().too_long == 1


@pytest.mark.parametrize("template", ["Q: {prompt} A: {response}", "chat"])
def test_control_tokens_in_a_response_stay_text(template):
    """A response that spells the end of its turn does not end it, and braces in it are not filled in."""
    tokenizer = llama3_tokenizer()
    encoder = ConversationEncoder(tokenizer, template=template, window=1000)
    text = "4<|eot_id|>{prompt}{response}"
    plain, spelled = (encoder.rows(PROMPT, [each])[0].ids for each in ("4", text))
    assert spelled.count(3) == plain.count(3)
    begin = len(spelled) - len(encode_text(tokenizer, text)) - (1 if template == "chat" else 0)
    assert spelled[begin:][: len(encode_text(tokenizer, text))] == encode_text(tokenizer, text)


def test_the_reward_token_is_put_once():
    tokenizer = llama3_tokenizer()
    encoder = ConversationEncoder(tokenizer, window=1000, reward_token="<|eot_id|>")
    plain = ConversationEncoder(tokenizer, window=1000)
    assert encoder.rows(PROMPT, ["4"])[0].ids == plain.rows(PROMPT, ["4"])[0].ids  # the template ends with it


LENGTHS = st.lists(st.integers(0, 30), max_size=8)


@settings(max_examples=300, deadline=None)
@given(st.integers(1, 40), LENGTHS, st.integers(1, 50))
def test_what_fits(prompt, responses, limit):
    """Nothing scored exceeds the window, a prompt keeps a token, and skipping does not affect what fits whole."""
    whole = [length > 0 and prompt + length <= limit for length in responses]
    skip = fit(prompt, responses, limit, "skip")
    assert (skip.cut, list(skip.scored)) == (0, whole)
    assert skip.num_too_long == sum(length > 0 for length in responses) - sum(whole)
    cut = fit(prompt, responses, limit, "cut_prompt")
    assert cut.num_too_long == skip.num_too_long
    assert cut.cut < prompt
    for length, fits_whole, scored in zip(responses, whole, cut.scored, strict=True):
        assert scored or not fits_whole
        assert not scored or 0 < length <= limit - (prompt - cut.cut)
        assert scored or length == 0 or length > limit - 1
    if cut.cut:
        longest = max(length for length, scored in zip(responses, cut.scored, strict=True) if scored)
        assert prompt - cut.cut + longest == limit  # no more than needed


def test_the_prompt_loses_its_beginning_and_bos_stays():
    tokenizer = llama3_tokenizer()
    whole = ConversationEncoder(tokenizer, window=1000).rows(PROMPT, ["4", "five"])
    window = len(whole[1].ids) - 5
    encoder = ConversationEncoder(tokenizer, window=window, overflow="cut_prompt")
    rows = encoder.rows(PROMPT, ["4", "five", "x" * 500, ""])
    for row, uncut in zip(rows, whole, strict=False):
        assert row.ids == [0, *uncut.ids[6:]]
        assert row.prompt_length == uncut.prompt_length - 5
    assert len(rows[1].ids) == window
    assert rows[2:] == [None, None]
    assert (encoder.counts.take().too_long, encoder.counts.take().too_long) == (
        2 if len(whole[0].ids) <= window else 3,
        0,
    )
    skipping = ConversationEncoder(tokenizer, window=window)
    assert [row is None for row in skipping.rows(PROMPT, ["4", "five", ""])] == [len(whole[0].ids) > window, True, True]


def test_a_sentence_pair_loses_the_beginning_of_its_first():
    tokenizer = pairrm_tokenizer()
    whole = ConversationEncoder(tokenizer, template="pair", window=1000).rows(PROMPT, ["4"])[0]
    encoder = ConversationEncoder(tokenizer, template="pair", window=len(whole.ids) - 3, overflow="cut_prompt")
    row = encoder.rows(PROMPT, ["4"])[0]
    expected = tokenizer(PROMPT.text[3:], "4", return_token_type_ids=True)
    assert row.ids == expected["input_ids"]
    assert row.types == expected["token_type_ids"]


def test_log_likelihood_with_the_prompt_cut():
    tokenizer, model = make_tokenizer(), make_model(context=60)
    texts = ["4", "four of them", "y" * 80]
    skip = LogLikelihoodRM(model, tokenizer)
    prompt = make_prompt("p" * 50)
    assert np.isfinite(skip.score([prompt], [texts])[0]).tolist() == [False, False, False]
    assert skip.counts.take().too_long == 3
    rm = LogLikelihoodRM(model, tokenizer, overflow="cut_prompt")
    scores = rm.score([prompt], [texts])[0]
    assert rm.counts.take().too_long == 3
    ids = encode_prompt(tokenizer, prompt.messages)
    longest = [*encode_text(tokenizer, texts[1]), 2]
    kept = ids[len(ids) + len(longest) - 60 :]
    for text, score in zip(texts[:2], scores, strict=False):
        response = [*encode_text(tokenizer, text), 2]
        logps = model(torch.tensor([kept + response])).logits[0].log_softmax(-1)
        expected = sum(logps[len(kept) - 1 + place, token].item() for place, token in enumerate(response))
        assert score == pytest.approx(expected, abs=1e-3)
    assert np.isnan(scores[2])


def tiny_bert(kind):
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=110, hidden_size=32, intermediate_size=48, num_hidden_layers=1, num_attention_heads=2,
        max_position_embeddings=40, num_labels=1, pad_token_id=2,
    )  # fmt: skip
    return kind(config).eval()


def test_the_pool_counts_what_was_too_long():
    from laser.rewards.classifier import ClassifierRM
    from laser.rewards.families.standard import StandardClassifier

    tokenizer = pairrm_tokenizer()

    def classifier():
        scoring = StandardClassifier(tiny_bert(BertForSequenceClassification))
        return ClassifierRM(scoring, ConversationEncoder(tokenizer, template="pair", window=scoring.window))

    arms = {
        "classifier": classifier,
        "noisy": lambda: CorruptedRM(classifier(), noise=0.1),
        "similarity": lambda: SimilarityRM(tiny_bert(BertModel), tokenizer),
        "loglik": lambda: LogLikelihoodRM(make_model(context=80), make_tokenizer()),
    }
    pool = RewardPool([Arm(name, build) for name, build in arms.items()])
    prompts, responses = [make_prompt("short"), make_prompt("other")], [["fits", "x" * 90, ""], ["y" * 90]]
    for arm in range(len(arms)):
        for _ in range(2):
            pool.score(arm, prompts, responses)
    for name, usage in pool.usage().items():
        assert (usage["too_long"], usage["unscored"]) == (4, 6), name


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"template": "chatt"}, "template 'chatt' is neither 'chat' nor 'pair'"),
        ({"template": "{response} {prompt}"}, "neither"),
        ({"template": "{prompt} {prompt} {response}"}, "neither"),
        ({"template": "{prompt}"}, "neither"),
        ({"template": "{response}{response}"}, "neither"),
        ({"family": "python"}, "family = 'python' and factory go together"),
        ({"factory": "a.py:load"}, "family = 'python' and factory go together"),
        ({"family": "armorm"}, "family"),
        ({"overflow": "cut_response"}, "overflow"),
    ],
)
def test_impossible_classifier_sections(options, words):
    table = {
        "policy": {"model": "org/policy"},
        "data": {"type": "embedded"},
        "rewards": {"models": [{"type": "classifier", "name": "rm", "model": "org/rm", **options}]},
    }
    with pytest.raises(ConfigError, match=words):
        parse_config(table)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"question": "{prompt} {first}"}, r"question has no \{second\}"),
        ({"family": "pairrm", "answers": ["1", "2"]}, "belong to family = 'pair_lm'"),
    ],
)
def test_impossible_pairwise_sections(options, words):
    table = {
        "policy": {"model": "org/policy"},
        "data": {"type": "embedded"},
        "rewards": {"models": [{"type": "pairwise", "name": "rm", "model": "org/rm", **options}]},
    }
    with pytest.raises(ConfigError, match=words):
        parse_config(table)
