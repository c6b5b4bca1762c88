"""Every family on a tiny checkpoint in the layout of the real ones, against a literal computation row by row."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional
from transformers import (
    AutoModelForSequenceClassification,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaForCausalLM,
    LlamaForSequenceClassification,
)

from hub_layouts import (
    HIDDEN,
    deberta_backbone,
    llama3_tokenizer,
    llama_backbone,
    llama_config,
    pairrm_tokenizer,
    random_tensors,
    save_checkpoint,
)
from laser.config import rewards as section_of
from laser.core.errors import LaserError, ModelError, RewardModelError
from laser.rewards.families.base import Row
from laser.rewards.families.lm_head import next_logits
from laser.rewards.families.table import FAMILIES
from laser.wiring.rewards import check_reward_model
from laser.wiring.scorers import build_classifier, build_pairwise
from tiny import make_prompt, make_tokenizer

PROMPTS = [make_prompt("2+2=", id="a"), make_prompt("name a colour", id="b")]
RESPONSES = [["4", "four, I think.", ""], ["blue", "I would say blue."]]
CPU = {"device": "cpu", "precision": "fp32"}
ASKED = [(prompt, text) for prompt, row in zip(PROMPTS, RESPONSES, strict=True) for text in row]


def scorer(source, **options):
    section = section_of.ClassifierReward(name="rm", model=source, **CPU, **options)
    check_reward_model(section)
    return build_classifier(section)


def conversation(prompt, text):
    return [*map(dict, prompt.messages), {"role": "assistant", "content": text}]


def rendered(tokenizer, prompt, text):
    """As the model cards do it: the template writes BOS, so the tokenizer must not."""
    string = tokenizer.apply_chat_template(conversation(prompt, text), tokenize=False)
    return tokenizer(string, add_special_tokens=False)["input_ids"]


def compare(rm, literal, *, atol=1e-4):
    found = np.concatenate(rm.score(PROMPTS, RESPONSES))
    with torch.no_grad():
        expected = [float(literal(prompt, text)) if text else np.nan for prompt, text in ASKED]
    np.testing.assert_allclose(found, expected, atol=atol)
    assert len({round(value, 3) for value in expected if value == value}) > 2


HEADS = {
    "LlamaRewardModel": {"regression_head.weight": (1, HIDDEN)},
    "LlamaForScore": {"score_head.weight": (1, HIDDEN), "normalizer.mean": (1,)},
    "GRewardModel": {
        "v_head.summary.0.weight": (9, HIDDEN), "v_head.summary.0.bias": (9,),
        "v_head.summary.2.weight": (1, 9), "v_head.summary.2.bias": (1,),
    },
    "INFORMForSequenceClassification": {
        "score.0.weight": (HIDDEN, HIDDEN), "score.0.bias": (HIDDEN,),
        "score.2.weight": (1, HIDDEN), "score.2.bias": (1,),
    },
    "TRL": {"v_head.summary.weight": (1, HIDDEN), "v_head.summary.bias": (1,), "lm_head.weight": (110, HIDDEN)},
}  # fmt: skip


def plain_head(tensors, state):
    """Linear layers in the order of their names, ReLU between."""
    weights = sorted(name for name in tensors if name.endswith("weight") and not name.startswith("lm_head"))
    for number, name in enumerate(weights):
        state = torch.relu(state) if number else state
        state = functional.linear(state, tensors[name], tensors.get(name.replace("weight", "bias")))
    return state


@pytest.mark.parametrize("architecture", HEADS)
def test_value_heads_of_every_layout(tmp_path, architecture):
    backbone, head = llama_backbone(), random_tensors(HEADS[architecture])
    declared = "LlamaForCausalLM" if architecture == "TRL" else architecture
    source = save_checkpoint(tmp_path / "rm", backbone, head, declared)
    tokenizer = llama3_tokenizer()
    rm = scorer(source, family="value_head" if architecture == "TRL" else "auto")

    def literal(prompt, text):
        ids = torch.tensor([rendered(tokenizer, prompt, text)])
        return plain_head(head, backbone(ids).last_hidden_state[0, -1])

    compare(rm, literal)


def test_a_head_read_at_a_reward_token(tmp_path):
    """Athene-RM: the template does not write the CLS token, its pipeline appends it and reads the head there."""
    backbone, head = llama_backbone(), random_tensors({"v_head.weight": (1, HIDDEN)})
    source = save_checkpoint(tmp_path / "rm", backbone, head, "AtheneForSequenceClassification")
    tokenizer = llama3_tokenizer()

    def literal(prompt, text):
        ids = torch.tensor([[*rendered(tokenizer, prompt, text), tokenizer.cls_token_id]])
        values = backbone(ids).last_hidden_state @ head["v_head.weight"].T
        return values[0, (ids[0] == tokenizer.cls_token_id).nonzero()[-1].item(), 0]

    compare(scorer(source, reward_token="<|cls|>"), literal)
    with pytest.raises(RewardModelError, match=r"'<\|reward\|>' is not a token"):
        scorer(source, reward_token="<|reward|>")


def test_a_template_string_for_models_without_a_chat_template(tmp_path):
    """UltraRM's "Human: ... Assistant: ..." behind one BOS, which its tokenizer adds."""
    backbone, head = llama_backbone(), random_tensors({"regression_head.weight": (1, HIDDEN)})
    tokenizer = llama3_tokenizer(chat_template=None)
    source = save_checkpoint(tmp_path / "rm", backbone, head, "LlamaRewardModel", tokenizer=tokenizer)
    with pytest.raises(RewardModelError, match=r"no chat template; set template = 'pair' for it, or to the text"):
        scorer(source)

    def literal(prompt, text):
        ids = tokenizer(f"Human: {prompt.text}\nAssistant: {text}", return_tensors="pt")["input_ids"]
        assert ids[0].tolist().count(tokenizer.bos_token_id) == 1
        return head["regression_head.weight"] @ backbone(ids).last_hidden_state[0, -1]

    compare(scorer(source, template="Human: {prompt}\nAssistant: {response}"), literal)
    written = scorer(source, template="<|begin_of_text|>Human: {prompt}\nAssistant: {response}")
    compare(written, literal)  # BOS in the template and from the tokenizer is still one


class Gating(nn.Module):
    """ArmoRM's gate as its authors wrote it; with statistics, QRM's."""

    def __init__(self, objectives, statistics):
        super().__init__()
        self.logit_scale = nn.Parameter(torch.tensor([1.7]))
        layers, width = [], HIDDEN
        for _ in range(2):
            layers.append(nn.Linear(width, 11, bias=not statistics))
            layers += [nn.ReLU(), nn.BatchNorm1d(11)] if statistics else []
            width = 11
        self.layers = nn.ModuleList([*layers, nn.Linear(width, objectives)])
        self.statistics = statistics

    def forward(self, x):
        for index, layer in enumerate(self.layers):
            x = layer(x)
            if not self.statistics and index < len(self.layers) - 1:
                x = functional.relu(x)
        return functional.softmax(x / 3.0, dim=1) * self.logit_scale[0]


def make_gated(folder, statistics, quantiles):
    torch.manual_seed(3)
    backbone, gate = llama_backbone(), Gating(5, statistics).requires_grad_(False)
    for name, tensor in gate.state_dict().items():
        if "running" in name:
            tensor.uniform_(0.5, 1.5)
    tensors = random_tensors({"regression_layer.weight": (5 * quantiles, HIDDEN), "reward_transform_matrix": (5, 5)})
    head = {**tensors, **{f"gating.{name}": tensor.clone() for name, tensor in gate.state_dict().items()}}
    architecture = "LlamaForRewardModelWithGating31" if statistics else "LlamaForRewardModelWithGating"
    config = {"gating_temperature": 3.0, "num_objectives": 5}
    return save_checkpoint(folder, backbone, head, architecture, config=config), backbone, gate.eval(), tensors


def find_pattern(ids, pattern):
    return next(place for place in range(len(ids), -1, -1) if ids[place : place + len(pattern)] == pattern)


@pytest.mark.parametrize(("statistics", "quantiles"), [(False, 1), (True, 4)])
def test_a_gate_reads_the_end_of_the_users_turn(tmp_path, statistics, quantiles):
    source, backbone, gate, tensors = make_gated(tmp_path / "rm", statistics, quantiles)
    tokenizer = llama3_tokenizer()
    pattern = tokenizer("<|eot_id|><|start_header_id|>assistant", add_special_tokens=False)["input_ids"]

    def literal(prompt, text):
        ids = rendered(tokenizer, prompt, text)
        hidden = backbone(torch.tensor([ids])).last_hidden_state
        objectives = functional.linear(hidden[:, -1], tensors["regression_layer.weight"]).reshape(-1, 5, quantiles)
        adjusted = objectives.mean(dim=2) @ tensors["reward_transform_matrix"]
        return (gate(hidden[:, find_pattern(ids, pattern)]) * adjusted).sum()

    compare(scorer(source), literal)

    def third(prompt, text):
        hidden = backbone(torch.tensor([rendered(tokenizer, prompt, text)])).last_hidden_state
        objectives = functional.linear(hidden[:, -1], tensors["regression_layer.weight"]).reshape(-1, 5, quantiles)
        return (objectives.mean(dim=2) @ tensors["reward_transform_matrix"])[0, 3] * -2

    compare(scorer(source, label={"3": -2.0}), third)
    with pytest.raises(RewardModelError, match=r"no label 'helpfulness'; it has 0, 1, 2, 3, 4"):
        scorer(source, label="helpfulness")
    with pytest.raises(RewardModelError, match="set template = 'chat'"):
        scorer(source)._model.scores([Row([5, 6, 7])])


def save_lm(folder, **options):
    torch.manual_seed(5)
    model = LlamaForCausalLM(llama_config(**options)).eval().requires_grad_(False)
    for parameter in model.parameters():
        if parameter.ndim > 1:
            parameter.normal_(0, 0.3)
    model.save_pretrained(folder)
    llama3_tokenizer().save_pretrained(folder)
    return str(folder), model


def test_the_logit_of_one_token_and_the_log_odds_of_two(tmp_path):
    """Nemotron's reward is the next-token logit of one vocabulary entry; a verifier's log p(Yes) - log p(No)."""
    source, model = save_lm(tmp_path / "rm")
    tokenizer = llama3_tokenizer()
    vocabulary = tokenizer.get_vocab()

    def logits(prompt, text):
        return model(torch.tensor([rendered(tokenizer, prompt, text)])).logits[0, -1]

    one = scorer(source, family="token_logit", label="!")
    compare(one, lambda prompt, text: logits(prompt, text)[vocabulary["!"]])
    two = scorer(source, family="token_logit", label={"Y": 1, "N": -1})

    def log_odds(prompt, text):
        logps = logits(prompt, text).log_softmax(-1)
        return logps[vocabulary["Y"]] - logps[vocabulary["N"]]

    compare(two, log_odds)
    with pytest.raises(RewardModelError, match="set label to it"):
        scorer(source, family="token_logit")
    with pytest.raises(RewardModelError, match="'Yes' is not a token"):
        scorer(source, family="token_logit", label="Yes")


def save_classifier(folder, *, num_labels=1, labels=None, pad_token_id=4):
    config = llama_config(num_labels=num_labels)
    config.pad_token_id = pad_token_id
    if labels:
        config.id2label, config.label2id = dict(enumerate(labels)), {name: i for i, name in enumerate(labels)}
    torch.manual_seed(2)
    model = LlamaForSequenceClassification(config)
    for parameter in model.parameters():
        if parameter.ndim > 1:
            nn.init.normal_(parameter, 0, 0.3)
    model.save_pretrained(folder)
    llama3_tokenizer().save_pretrained(folder)
    return str(folder)


@pytest.mark.parametrize("pad_token_id", [4, 3, None])
def test_a_decoder_classifier_is_read_where_transformers_reads_it_alone(tmp_path, pad_token_id):
    """A separate pad token; pad = end of turn, where the token before the end is read; no pad token at all."""
    source = save_classifier(tmp_path / "rm", pad_token_id=pad_token_id)
    reference = AutoModelForSequenceClassification.from_pretrained(source).eval()
    assert reference.config.pad_token_id == pad_token_id
    tokenizer = llama3_tokenizer()

    def literal(prompt, text):
        return reference(torch.tensor([rendered(tokenizer, prompt, text)])).logits[0, 0]

    compare(scorer(source), literal)
    if pad_token_id == 3:

        def before_the_end(prompt, text):
            ids = torch.tensor([rendered(tokenizer, prompt, text)])
            return reference.score(reference.model(ids).last_hidden_state[0, -2])

        compare(scorer(source), before_the_end)


def test_several_attributes_and_their_weights(tmp_path):
    source = save_classifier(tmp_path / "rm", num_labels=3, labels=["helpfulness", "correctness", "verbosity"])
    reference = AutoModelForSequenceClassification.from_pretrained(source).eval()
    tokenizer = llama3_tokenizer()
    weights = {"helpfulness": 0.65, "verbosity": -0.4}

    def literal(prompt, text):
        logits = reference(torch.tensor([rendered(tokenizer, prompt, text)])).logits[0]
        return 0.65 * logits[0] - 0.4 * logits[2]

    compare(scorer(source, label=weights), literal)
    compare(scorer(source, label={"0": 0.65, "2": -0.4}), literal)
    with pytest.raises(RewardModelError, match="no label 'honesty'; it has helpfulness, correctness, verbosity"):
        scorer(source, label={"honesty": 1.0})


def test_pairrm_compares_in_both_orders(tmp_path):
    backbone = deberta_backbone()
    shapes = {
        "head_layer.1.weight": (HIDDEN, 2 * HIDDEN), "head_layer.1.bias": (HIDDEN,),
        "head_layer.4.weight": (2, HIDDEN), "head_layer.4.bias": (2,),
    }  # fmt: skip
    head, tokenizer = random_tensors(shapes), pairrm_tokenizer()
    source = save_checkpoint(
        tmp_path / "rm", backbone, head, "DebertaV2PairRM", prefix="pretrained_model.", tokenizer=tokenizer
    )
    section = section_of.PairwiseReward(name="rm", model=source, **CPU)
    check_reward_model(section)
    rm = build_pairwise(section)

    def candidate(hidden, ids, mark):
        vocabulary = tokenizer.get_vocab()
        both = torch.cat([hidden[ids.index(vocabulary["<|source|>"])], hidden[ids.index(vocabulary[mark])]])
        inner = torch.tanh(functional.linear(both, head["head_layer.1.weight"], head["head_layer.1.bias"]))
        return functional.linear(inner, head["head_layer.4.weight"], head["head_layer.4.bias"])

    def logit(prompt, first, second):
        parts = [f"<|source|>{prompt}", f"<|candidate1|>{first}", f"<|candidate2|>{second}"]
        ids = [token for part in parts for token in tokenizer(part)["input_ids"]]
        hidden = backbone(torch.tensor([ids])).last_hidden_state[0]
        return float((candidate(hidden, ids, "<|candidate1|>") - candidate(hidden, ids, "<|candidate2|>")).mean())

    texts = ["4", "four", "5 of them"]
    expected = [np.mean([(logit("2+2=", a, b) - logit("2+2=", b, a)) / 2 for b in texts if b != a]) for a in texts]
    found = rm.score(PROMPTS[:1], [["4", "", "four", "5 of them", "four"]])[0]
    np.testing.assert_allclose(found, [expected[0], np.nan, expected[1], expected[2], expected[1]], atol=1e-4)
    np.testing.assert_allclose(sum(expected), 0, atol=1e-6)
    assert np.ptp(expected) > 0.01
    assert np.isnan(rm.score(PROMPTS[:1], [["alone", "alone"]])[0]).all()  # nothing to compare it with
    rm.score(PROMPTS[:1], [["x" * 1500, "short"]])
    assert rm.counts.take().too_long == 1
    with pytest.raises(RewardModelError, match=r"compares pairs.*type = 'pairwise'"):
        scorer(source)


def test_a_language_model_compares_by_its_answers(tmp_path):
    source, model = save_lm(tmp_path / "rm", window=160)
    tokenizer = llama3_tokenizer()
    vocabulary = tokenizer.get_vocab()
    question = "{prompt}? A {first} B {second}"
    rm = build_pairwise(section_of.PairwiseReward(name="rm", model=source, question=question, **CPU))

    def log_odds(prompt, first, second):
        content = question.format(prompt=prompt, first=first, second=second)
        string = tokenizer.apply_chat_template(
            [{"role": "user", "content": content}], tokenize=False, add_generation_prompt=True
        )
        logits = model(torch.tensor([tokenizer(string, add_special_tokens=False)["input_ids"]])).logits[0, -1]
        return float(logits[vocabulary["A"]] - logits[vocabulary["B"]])

    texts = ["4", "{first}", "5"]
    expected = [
        np.mean([(log_odds("2+2=", a, b) - log_odds("2+2=", b, a)) / 2 for b in texts if b != a]) for a in texts
    ]
    scores = rm.score(PROMPTS[:1], [[*texts, "x" * 100]])[0]
    np.testing.assert_allclose(scores, [*expected, np.nan], atol=1e-4)  # the long one fits into no pair
    assert rm.counts.take().too_long == 1


def test_the_default_question_is_the_model_cards():
    """RLHFlow's card renders the context with a special template and puts it into the question."""
    from laser.rewards.families.pair_lm import QUESTION

    tokenizer = make_tokenizer(
        "\n{% for message in messages %}{% if loop.index0 % 2 == 0 %}\n\n<turn> user\n {{ message['content'] }}"
        "{% else %}\n\n<turn> assistant\n {{ message['content'] }}{% endif %}{% endfor %}\n\n\n"
    )
    context = tokenizer.apply_chat_template([{"role": "user", "content": "2+2="}], tokenize=False)
    card = "[CONTEXT] {context} [RESPONSE A] {response_A} [RESPONSE B] {response_B} \n"
    expected = card.format(context=context, response_A="4", response_B="5")
    assert QUESTION.replace("{prompt}", "2+2=").replace("{first}", "4").replace("{second}", "5") == expected


@pytest.mark.parametrize("budget", [1, 10_000])
@pytest.mark.parametrize("family", ["value_head", "gated", "token_logit"])
def test_padding_and_batching_change_no_score(tmp_path, family, budget):
    if family == "value_head":
        head = random_tensors({"v_head.weight": (1, HIDDEN)})
        source = save_checkpoint(tmp_path / "rm", llama_backbone(), head, "AtheneForSequenceClassification")
    elif family == "gated":
        source = make_gated(tmp_path / "rm", False, 1)[0]
    else:
        source = save_lm(tmp_path / "rm")[0]
    label = "!" if family == "token_logit" else None
    rm = scorer(source, family=family, label=label, max_batch_tokens=budget)
    alone = [rm.score([prompt], [[text]])[0][0] for prompt, text in ASKED]
    np.testing.assert_allclose(np.concatenate(rm.score(PROMPTS, RESPONSES)), alone, atol=1e-4)


def test_absolute_positions_are_counted_without_padding():
    """GPT-2's embeddings of positions tell where a row begins; it is padded on the left."""
    torch.manual_seed(0)
    config = GPT2Config(vocab_size=110, n_embd=HIDDEN, n_layer=1, n_head=2, n_positions=64, pad_token_id=4)
    model = GPT2LMHeadModel(config).eval().requires_grad_(False)
    rows = [Row([9, 8, 7, 6, 5]), Row([5])]
    alone = torch.stack([model(torch.tensor([row.ids])).logits[0, -1] for row in rows])
    torch.testing.assert_close(next_logits(model, rows, 4), alone)


@pytest.mark.parametrize(
    ("family", "words"),
    [
        ("gated", r"lacks regression_layer.weight, which family = 'gated' needs"),
        ("standard", r"lacks the weights score.weight.*set family"),
    ],
)
def test_the_wrong_family_is_named(tmp_path, family, words):
    head = random_tensors({"v_head.weight": (1, HIDDEN)})
    source = save_checkpoint(tmp_path / "rm", llama_backbone(), head, "AtheneForSequenceClassification")
    with pytest.raises(ModelError, match=words):
        scorer(source, family=family)


def test_missing_weights_are_named(tmp_path):
    source = save_checkpoint(tmp_path / "bare", llama_backbone(), {}, "LlamaRewardModel")
    with pytest.raises(ModelError, match=r"no weights of a head \(v_head.summary, v_head, regression_head"):
        scorer(source)
    backbone = deberta_backbone()
    source = save_checkpoint(
        tmp_path / "pair", backbone, {}, "DebertaV2PairRM", prefix="pretrained_model.", tokenizer=pairrm_tokenizer()
    )
    with pytest.raises(ModelError, match=r"lacks head_layer.1.weight, which family = 'pairrm' needs"):
        build_pairwise(section_of.PairwiseReward(name="rm", model=source, **CPU))
    stray = save_checkpoint(
        tmp_path / "stray", llama_backbone(), random_tensors({"v_head.weight": (1, HIDDEN)}), "LlamaRewardModel",
        prefix="wrapped.",
    )  # fmt: skip
    with pytest.raises(ModelError, match=r"lacks the weights .*which would be random"):
        scorer(stray)


@pytest.mark.parametrize(
    ("architecture", "words"),
    [
        ("URMForSequenceClassification", r"family is unknown; set family to 'standard', .* or 'python'"),
        ("LlamaForCausalLM", "is a language model .*type = 'loglik'"),
    ],
)
def test_unknown_architectures_are_reported_before_loading(tmp_path, architecture, words):
    source = save_checkpoint(tmp_path / "rm", llama_backbone(), {}, architecture)
    with pytest.raises(RewardModelError, match=f"reward model 'rm': .*{words}"):
        check_reward_model(section_of.ClassifierReward(name="rm", model=source))
    if architecture.startswith("URM"):
        with pytest.raises(RewardModelError, match="does not compare responses; set type = 'classifier'"):
            check_reward_model(section_of.PairwiseReward(name="rm", model=source))


def test_what_can_be_known_without_weights_is_reported_before_a_run(tmp_path):
    """The weights are gone; the sentences come all the same."""
    lm, _ = save_lm(tmp_path / "lm")
    several = save_classifier(tmp_path / "several", num_labels=2, labels=["good", "bad"])
    checks = [
        (section_of.ClassifierReward(name="rm", model=several), "2 outputs; set label to one of good, bad"),
        (section_of.ClassifierReward(name="rm", model=several, label="meh"), "no label 'meh'"),
        (section_of.ClassifierReward(name="rm", model=lm, family="token_logit"), "set label to it"),
        (section_of.ClassifierReward(name="rm", model=several, label="good", reward_token="??"), "is not a token"),
        (section_of.PairwiseReward(name="rm", model=lm, answers=("A", "??")), "is not a token"),
    ]
    for folder in ("lm", "several"):
        (tmp_path / folder / "model.safetensors").write_bytes(b"")
    for section, words in checks:
        with pytest.raises(RewardModelError, match=words):
            check_reward_model(section)


def test_a_judge_of_pairs_needs_a_chat_template(tmp_path):
    source, _ = save_lm(tmp_path / "lm")
    llama3_tokenizer(chat_template=None).save_pretrained(source)
    (tmp_path / "lm" / "chat_template.jinja").unlink(missing_ok=True)
    with pytest.raises(RewardModelError, match="no chat template; choose a chat model"):
        check_reward_model(section_of.PairwiseReward(name="rm", model=source))


def test_the_configuration_names_every_family():
    named = set(section_of.ClassifierReward.model_fields["family"].annotation.__args__)
    assert named == {"auto", "python", *FAMILIES}


def test_no_code_of_a_checkpoint_runs(tmp_path):
    """config.json may point to code in its folder; that code is not imported."""
    head = random_tensors({"v_head.weight": (1, HIDDEN)})
    config = {"auto_map": {"AutoModel": "modeling.Evil", "AutoModelForSequenceClassification": "modeling.Evil"}}
    source = save_checkpoint(tmp_path / "rm", llama_backbone(), head, "GRewardModel", config=config)
    (tmp_path / "rm" / "modeling.py").write_text("raise SystemExit('ran')")
    assert np.isfinite(scorer(source).score(PROMPTS[:1], [["4"]])[0]).all()


def test_parking_takes_the_head_along(tmp_path):
    head = random_tensors({"v_head.weight": (1, HIDDEN)})
    source = save_checkpoint(tmp_path / "rm", llama_backbone(), head, "AtheneForSequenceClassification")
    rm = scorer(source)
    before = rm.score(PROMPTS, RESPONSES)
    sizes = sum(tensor.numel() for tensor in rm._tensors())
    assert sizes == sum(p.numel() for p in llama_backbone().parameters()) + HIDDEN + 8  # rotary frequencies
    rm.park()
    rm.unpark()
    np.testing.assert_array_equal(np.concatenate(rm.score(PROMPTS, RESPONSES)), np.concatenate(before))
    rm.release()
    assert list(rm._tensors()) == []


def test_errors_are_of_the_hierarchy():
    with pytest.raises(LaserError):
        check_reward_model(section_of.ClassifierReward(name="rm", model="/nowhere"))
