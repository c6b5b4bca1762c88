"""What the code may do: no pickles, no evaluation of text, Python files only where the configuration names them."""

import ast
import functools
import json
import os
import subprocess
import sys
import typing
from pathlib import Path

import pytest
from pydantic import BaseModel

from laser.cli.main import app
from laser.config.load import union_members
from laser.config.schema import RunConfig
from laser.training.signature import powers
from runs import make_table

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "src" / "laser"
FILES = sorted(SOURCE.rglob("*.py"))
PICKLES = {"pickle", "cPickle", "_pickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}
EXECUTES = {"eval", "exec", "compile", "__import__", "os.system", "os.popen"}


@functools.cache
def everything():
    trees = {str(path.relative_to(SOURCE)): ast.parse(path.read_text()) for path in FILES}
    return [(path, node) for path, tree in trees.items() for node in ast.walk(tree)]


def nodes(kind):
    return ((path, node) for path, node in everything() if isinstance(node, kind))


def test_there_is_code_to_check():
    assert len(FILES) > 100


def test_nothing_that_unpickles_is_imported():
    for path, node in nodes(ast.Import | ast.ImportFrom):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else [node.module]
        assert not PICKLES & {name.split(".")[0] for name in names}, path


def test_nothing_that_unpickles_is_called():
    for path, call in nodes(ast.Call):
        name = ast.unparse(call.func)
        assert not name.startswith("pickle."), f"{path}:{call.lineno}"
        keywords = {keyword.arg: ast.unparse(keyword.value) for keyword in call.keywords}
        if name in ("torch.load", "np.load", "numpy.load", "pandas.read_pickle", "yaml.load", "pd.read_pickle"):
            assert (name, keywords.get("weights_only")) == ("torch.load", "True"), f"{path}:{call.lineno}"
        assert keywords.get("allow_pickle", "False") == "False", f"{path}:{call.lineno}"
        assert keywords.get("shell", "False") == "False", f"{path}:{call.lineno}"


def test_text_is_never_evaluated():
    found = [f"{path}:{call.lineno}" for path, call in nodes(ast.Call) if ast.unparse(call.func) in EXECUTES]
    assert found == []


def test_python_files_are_imported_in_one_place_and_programs_started_in_few():
    importers = {path for path, call in nodes(ast.Call) if ast.unparse(call.func).endswith("exec_module")}
    assert importers == {"rewards/user_files.py"}
    starters = ("subprocess.", "os.exec", "os.spawn", "os.posix_spawn", "multiprocessing.Process")
    started = {path for path, call in nodes(ast.Call) if ast.unparse(call.func).startswith(starters)}
    assert started == {"cli/serve.py", "compare/schedule.py"}


def test_weights_are_loaded_as_safetensors_only():
    for path, call in nodes(ast.Call):
        if ast.unparse(call.func).endswith("from_pretrained") and "lab/" not in path:
            keywords = {keyword.arg: ast.unparse(keyword.value) for keyword in call.keywords}
            kind = ast.unparse(call.func).rpartition(".")[0]
            light = kind in ("AutoTokenizer", "AutoConfig", "GenerationConfig")
            light |= (path, kind) == ("lm/adapters.py", "PeftModel")  # its safetensors were opened before
            assert light or keywords.get("use_safetensors") == "True" or "gguf_file" in keywords, (
                f"{path}:{call.lineno}"
            )


def sections(model, seen):
    if model in seen:
        return
    seen.add(model)
    for field in model.model_fields.values():
        annotations = [field.annotation, *typing.get_args(field.annotation)]
        annotations += [argument for one in annotations for argument in typing.get_args(one)]
        for annotation in annotations:
            for member in union_members(annotation):
                sections(member, seen)
            if isinstance(annotation, type) and issubclass(annotation, BaseModel):
                sections(annotation, seen)


def test_remote_code_is_off_unless_a_model_says_otherwise():
    seen = set()
    sections(RunConfig, seen)
    defaults = [
        model.model_fields["trust_remote_code"].default for model in seen if "trust_remote_code" in model.model_fields
    ]
    assert len(defaults) >= 5
    assert not any(defaults)
    for path, call in nodes(ast.Call):
        for keyword in call.keywords:
            if keyword.arg == "trust_remote_code":
                assert not isinstance(keyword.value, ast.Constant) or keyword.value.value is False, path


def test_every_field_that_gives_power_is_named_before_a_strangers_run_is_trusted():
    """Code to run, servers to talk to and keys to send go by the names that `powers` knows."""
    seen = set()
    sections(RunConfig, seen)
    fields = [(name, field) for model in seen for name, field in model.model_fields.items()]
    code = {name for name, field in fields if "path.py:function" in str(field.description)}
    servers = {name for name, field in fields if "check_address" in f"{field.annotation} {field.metadata}"}
    keys = {name for name, field in fields if name.endswith(("_env", "_key", "token", "password"))}
    assert code == {"function", "factory"}
    assert servers == {"url", "urls"}
    assert keys <= {"api_key_env", "reward_token", "reference_key"}  # the latter are names of a token and of a field
    for name in code:
        assert powers({"x": [{name: "a.py:f"}]}) == ["run a.py:f"]
    assert powers({"url": "http://a", "api_key_env": "K"}) == ["send the key in K to http://a"]
    several = {"url": None, "urls": ["http://a", "http://b"]}
    assert powers(several) == ["talk to http://a", "talk to http://b"]
    sent = [f"send the key in K to {url}" for url in several["urls"]]
    assert powers({"server": {**several, "api_key_env": "K"}, "engine": "vllm"}) == sent
    assert powers({"trust_remote_code": True, "model": "m"}) == ["run code that m brings"]


def test_what_listens_does_so_on_this_machine_only():
    for command in app.registered_commands:
        parameters = typing.get_type_hints(command.callback)
        if "host" in parameters:
            assert command.callback.__defaults__ is not None
            assert "127.0.0.1" in command.callback.__defaults__
    for path, node in nodes(ast.Constant):
        assert node.value not in ("0.0.0.0", "::"), path


AUDIT = """
import sys, json
seen = []
def hook(event, arguments):
    if event == "pickle.find_class" or event.startswith(("os.system", "subprocess.Popen")):
        seen.append((event, str(arguments)[:100]))
import laser
from laser.commands import train as api
from laser.analysis.report import write_report
sys.addaudithook(hook)
table, out = json.loads(sys.argv[1])
laser.train(table, out)
laser.resume(out)
write_report(api.Path(out))
before = list(seen)
import pickle
pickle.loads(pickle.dumps(api.Path()))
print(json.dumps([before, bool(seen)]))
"""


@pytest.mark.slow
def test_a_run_its_resumption_and_its_report_unpickle_nothing_and_start_nothing(tmp_path):
    """The interpreter itself reports every class that a pickle asks for and every program that is started."""
    table = make_table(tmp_path, "vowels", training={"iterations": 1})
    command = [sys.executable, "-c", AUDIT, json.dumps([table, str(tmp_path / "run")])]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, env={**os.environ})
    assert done.returncode == 0, done.stderr[-800:]
    assert json.loads(done.stdout.splitlines()[-1]) == [[], True]  # nothing, though the hook would see it


def test_a_checkpoint_holds_safetensors_and_json_alone(tmp_path):
    import laser

    laser.train(make_table(tmp_path, "vowels", training={"iterations": 1}, split={"dev": 0}), tmp_path / "run")
    kinds = {path.suffix for path in (tmp_path / "run").rglob("*") if path.is_file() and path.name != ".lock"}
    assert kinds <= {".safetensors", ".json", ".jsonl", ".jinja", ".md"}
