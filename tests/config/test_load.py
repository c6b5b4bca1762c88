"""Reading configurations: defaults, overrides, presets, and errors that name the cure."""

import pytest

from laser.config import RunConfig, load_config, parse_config
from laser.config.compare import first_difference
from laser.core.errors import ConfigError

MINIMAL = """
[policy]
model = "org/policy"
[data]
type = "embedded"
[[rewards.models]]
type = "loglik"
name = "first"
model = "org/first"
[[rewards.models]]
type = "function"
name = "second"
function = "scores.py:score"
"""


@pytest.fixture
def minimal(tmp_path):
    path = tmp_path / "run.toml"
    path.write_text(MINIMAL)
    return path


def test_defaults_are_the_papers(minimal):
    config = load_config(minimal)
    assert config.generation.num_responses == 30
    assert config.generation.temperature == 0.8
    assert config.training.pairs_per_prompt == 10
    assert (config.policy.lora.rank, config.policy.lora.alpha) == (16, 32)
    assert config.training.learning_rate == 5e-6
    assert config.training.batch_size == 16
    assert config.training.iterations == 10
    assert config.training.reference == "previous_iteration"
    assert (config.selector.type, config.selector.alpha, config.selector.ridge) == ("linucb", 0.1, 1.0)
    assert (config.feedback.low, config.feedback.high, config.feedback.window) == (0.2, 0.8, None)
    assert config.context.normalization == "none"


@pytest.mark.parametrize(
    ("override", "section", "field", "value"),
    [
        ("training.learning_rate=1e-4", "training", "learning_rate", 1e-4),
        ("training.loss=kto", "training", "loss", "kto"),
        ("training.batches_per_iteration=none", "training", "batches_per_iteration", None),
        ("split.batching='by_category'", "split", "batching", "by_category"),
        ("selector.alpha=2", "selector", "alpha", 2.0),
        ("context.normalization=none", "context", "normalization", "none"),
        ("signal.type=none", "signal", "type", "none"),
    ],
)
def test_overrides(minimal, override, section, field, value):
    assert getattr(getattr(load_config(minimal, [override]), section), field) == value


def test_overrides_from_python_are_a_string_a_list_or_a_dict(minimal):
    several = {
        "training.iterations": 2,
        "training.loss": "dpo",
        "policy.max_context": None,
        "split.shrink": True,
    }
    config = load_config(minimal, several)
    assert (config.training.iterations, config.training.loss, config.split.shrink) == (2, "dpo", True)
    assert config == load_config(minimal, ["training.iterations=2", "training.loss=dpo", "split.shrink=true"])
    assert load_config(minimal, "training.iterations=2").training.iterations == 2


@pytest.mark.parametrize("key", ["first", "0"])
def test_a_reward_model_is_addressed_by_name_or_number(minimal, key):
    config = load_config(minimal, [f"rewards.models.{key}.normalization=per_token"])
    assert config.rewards.models[0].normalization == "per_token"


def test_relative_function_paths_start_at_the_file(minimal):
    assert load_config(minimal).rewards.models[1].function == f"{minimal.parent}/scores.py:score"


def test_a_local_model_folder_becomes_absolute_and_a_hub_id_stays(minimal):
    (minimal.parent / "org" / "policy").mkdir(parents=True)
    config = load_config(minimal)
    assert config.policy.model == str(minimal.parent / "org" / "policy")
    assert config.rewards.models[0].model == "org/first"


def test_the_users_values_override_the_recommended_preset(minimal):
    config = load_config(minimal, ["preset=recommended", "selector.alpha=0.3"])
    assert (config.selector.alpha, config.selector.ridge) == (0.3, 0.05)
    assert (config.feedback.window, config.signal.type, config.context.normalization) == (50, "probe", "unit")
    random = load_config(minimal, ["preset=recommended", "selector.type=random"])
    assert (random.selector.type, random.signal.type) == ("random", "none")  # it learns nothing, so nothing is probed


def test_a_probe_for_a_selector_that_learns_nothing_is_refused(minimal):
    with pytest.raises(ConfigError, match=r"'random' learns nothing.*drop \[signal"):
        load_config(minimal, ["selector.type=random", "signal.type=probe"])


def test_the_resolved_configuration_survives_json(minimal):
    config = load_config(minimal, ["preset=recommended"])
    again = parse_config(config.model_dump(mode="json"))
    assert again == config
    assert first_difference(config, again) is None


def test_first_difference_names_the_field(minimal):
    changed = load_config(minimal, ["rewards.models.first.normalization=per_token"])
    assert "rewards.models.0.normalization is 'per_token'" in first_difference(load_config(minimal), changed)


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("trainign.loss=dpo", ["unknown key 'trainign'", "did you mean 'training'"]),
        ("training.learning_rat=1", ["unknown key 'training.learning_rat'", "'learning_rate'"]),
        ("iterations=3", ["unknown key 'iterations'; did you mean 'training.iterations'?"]),
        ("training.temperature=1", ["'generation.temperature' or 'evaluation.temperature'"]),
        ("selector.alhpa=1", ["unknown key 'selector.alhpa'", "'alpha'"]),
        ("rewards.models.first.normalisation=sum", ["'rewards.models.0.normalisation'", "'normalization'"]),
        ("selector.type=linucbb", ["selector.type is 'linucbb'", "'linucb', 'forgetting'"]),
        ("data.type=jsonl", ["data.type is 'jsonl'", "'file'"]),
        ("training.batch_size=many", ["training.batch_size", "'many'"]),
        ("generation.num_responses=1", ["generation.num_responses", "greater than or equal to 2"]),
        ("generation.num_responses=4", ["pairs_per_prompt is 10", "only 6 pairs"]),
        ("generation.temperature=nan", ["generation.temperature", "finite"]),
        ("rewards.models.first.name=second", ["two reward models are named 'second'"]),
        ("rewards.models=[]", ["K = 0"]),
        ("selector={type='fixed', arm='third'}", ["names 'third'", "first, second"]),
        ("feedback.low=0.9", ["feedback.low must be below feedback.high"]),
        ("training.optimizer_steps=17", ["optimizer_steps is larger than training.batch_size"]),
        ("policy=3", ["policy"]),
        ("policy.chat_template=chatml.jinja", ["'chatml.jinja' shows no message", "not its path"]),
        ("policy.chat_template=Plain", ["'Plain' shows no message", "'own', 'plain' or"]),
        ("preset=papers", ["preset", "'paper' or 'recommended'"]),
        ("seed", ["has no '='"]),
        ("rewards.models.third.name=x", ["no entry 'third'", "first, second"]),
        ("rewards.models.first=x", ["ends at a list"]),
        ("seed.x=1", ["seed"]),
        ("seed=true", ["seed is true; write a number"]),
        ("training.learning_rate=true", ["training: learning_rate is true; write a number"]),
        ("split.train=false", ["split: train is false; write a number"]),
        ("evaluation.dev_samples=2", ["greedy decoding gives the same answer", "evaluation.temperature"]),
    ],
)
def test_errors_name_culprit_and_cure(minimal, override, words):
    with pytest.raises(ConfigError) as caught:
        load_config(minimal, [override])
    for word in words:
        assert word in str(caught.value)


@pytest.mark.parametrize(
    ("content", "word"),
    [(b"policy = [", "not valid TOML"), (b"\xff\xfe", "not UTF-8"), (None, "does not exist")],
)
def test_unreadable_files(tmp_path, content, word):
    path = tmp_path / "run.toml"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ConfigError, match=word):
        load_config(path)


def test_a_folder_is_not_a_configuration(tmp_path):
    with pytest.raises(ConfigError, match="is a folder"):
        load_config(tmp_path)


def test_configurations_are_immutable(minimal):
    with pytest.raises(ValueError, match="frozen"):
        load_config(minimal).training.loss = "kto"


def test_every_field_of_every_section_has_a_description():
    from laser.config.document import document

    page = document()
    rows = [line for line in page.splitlines() if line.startswith("| `")]
    assert len(rows) > 80
    undocumented = [row for row in rows if row.rstrip().endswith("|  |") and "section" not in row]
    assert undocumented == []
    assert set(RunConfig.model_fields) <= {row.split("`")[1] for row in rows}


@pytest.mark.parametrize("given", ["adapters", "./adapters", "../adapters"])
def test_a_relative_adapter_folder_starts_at_the_configurations_folder(tmp_path, minimal, given, monkeypatch):
    minimal.write_text(f'{MINIMAL}\n[generation.server]\nadapter_folder = "{given}"\n')
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert load_config(minimal).generation.server.adapter_folder == str(tmp_path / given)


OTHER_SELECTOR = """
[policy]
model = "some/model"
[data]
type = "hub"
name = "some/prompts"
[selector]
type = "linucb"
alpha = 0.3
ridge = 2.0
[[rewards.models]]
name = "a"
type = "loglik"
model = "some/a"
"""


@pytest.mark.parametrize("order", [1, -1])
def test_another_type_replaces_the_section_and_keeps_what_was_set_for_it(tmp_path, order):
    (tmp_path / "run.toml").write_text(OTHER_SELECTOR)
    assert load_config(tmp_path / "run.toml", ["selector.type=random"]).selector.type == "random"
    changed = load_config(tmp_path / "run.toml", ["selector.type=thompson", "selector.ridge=3"][::order]).selector
    assert (changed.type, changed.ridge) == ("thompson", 3.0)
    same = load_config(tmp_path / "run.toml", ["selector.type=linucb"]).selector
    assert (same.alpha, same.ridge) == (0.3, 2.0)


@pytest.mark.parametrize("preset", ["", 'preset = "recommended"\n'])
def test_of_a_section_without_a_type_the_fields_of_the_new_type_stay(tmp_path, preset):
    untyped = preset + OTHER_SELECTOR.replace('type = "linucb"\n', "scale = 0.7\n").replace("ridge = 2.0\n", "")
    (tmp_path / "run.toml").write_text(untyped)
    thompson = load_config(tmp_path / "run.toml", ["selector.type=thompson"]).selector
    assert (thompson.type, thompson.scale) == ("thompson", 0.7)
    assert load_config(tmp_path / "run.toml", ["selector.type=random"]).selector.type == "random"


def test_an_error_names_what_caused_it(tmp_path):
    (tmp_path / "run.toml").write_text(OTHER_SELECTOR)
    with pytest.raises(ConfigError, match=r"^--set: unknown key 'selector\.alfa'"):
        load_config(tmp_path / "run.toml", ["selector.alfa=1"])
    (tmp_path / "run.toml").write_text(OTHER_SELECTOR.replace("ridge", "rigde"))
    with pytest.raises(ConfigError, match=r"run\.toml: unknown key"):
        load_config(tmp_path / "run.toml", ["seed=1"])


def test_a_byte_order_mark_is_not_content(tmp_path):
    (tmp_path / "run.toml").write_text(OTHER_SELECTOR, encoding="utf-8-sig")
    assert load_config(tmp_path / "run.toml").selector.ridge == 2.0
