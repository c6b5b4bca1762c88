"""Kill, damage, starve, fuzz and soak laser, and write docs/reliability.md with the counts.

Runs the trust tests with ten times the inputs of the test suite, kills real runs 50 times and trains 5,000
consecutive batches. Results are kept per part, so that one part can run again alone; the page is written from all.

    python benchmarks/reliability.py [--only kills] [--only soak] [--only tests] [--kills 50] [--batches 5000]
"""

from __future__ import annotations

import argparse
import dataclasses
import datetime
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
KEPT = ROOT / "runs" / "reliability"
PAGE = ROOT / "docs" / "reliability.md"
EFFORT = 10
TESTS = (
    "tests/trust",
    "tests/training/test_run.py",
    "tests/training/test_faults.py",
    "tests/cli/test_cli.py::test_an_interrupted_run_says_how_to_continue",
    "tests/serving",
)
Result = dict[str, Any]


def run_kills(number: int) -> Result:
    """Send SIGKILL `number` times, ten times a run."""
    from kills import kill_chains

    with tempfile.TemporaryDirectory() as folder:
        report = kill_chains(Path(folder), kills=number, per_chain=10, seed=0)
    return {**dataclasses.asdict(report), "kills": dict(report.kills)}


def run_soak(batches: int) -> Result:
    """Train `batches` consecutive batches."""
    from soak import soak

    with tempfile.TemporaryDirectory() as folder:
        return dataclasses.asdict(soak(Path(folder), batches=batches))


def run_tests(effort: int) -> Result:
    """Outcomes of the trust tests by name, and how many inputs they tried, with `effort` times the usual number."""
    begun = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        outcomes, counts = Path(folder) / "outcomes.xml", Path(folder) / "counts.json"
        environment = {**os.environ, "LASER_EFFORT": str(effort), "LASER_COUNTS": str(counts)}
        command = [sys.executable, "-m", "pytest", *TESTS, "-q", f"--junitxml={outcomes}", "-p", "no:cacheprovider"]
        command += ["--deselect", "tests/trust/test_kills.py", "--deselect", "tests/trust/test_soak.py"]
        subprocess.run(command, cwd=ROOT, env=environment, check=False)
        cases = ElementTree.parse(outcomes).getroot().iter("testcase")
        tests = {f"{case.get('classname')}::{case.get('name')}": _outcome(case) for case in cases}
        return {"tests": tests, "counts": json.loads(counts.read_text()), "seconds": time.monotonic() - begun}


def _outcome(case: ElementTree.Element) -> str:
    kinds = [child.tag for child in case if child.tag in ("failure", "error", "skipped")]
    return kinds[0] if kinds else "passed"


PARTS: dict[str, Callable[[argparse.Namespace], Result]] = {
    "kills": lambda arguments: run_kills(arguments.kills),
    "tests": lambda arguments: run_tests(EFFORT),
    "soak": lambda arguments: run_soak(arguments.batches),
}


@dataclass(frozen=True)
class Row:
    """A row of the table, which reports on some tests.

    Attributes:
        what: What the tests do.
        tests: Beginnings of their names.
        outcome: What they assert.
        counted: Names of counted inputs; empty: the number of tests.
    """

    what: str
    tests: tuple[str, ...]
    outcome: str
    counted: tuple[str, ...] = ()


INTERRUPTED = (
    Row(
        "SIGKILL at the start of a named phase, with sampling per batch and per iteration",
        ("test_run::test_killed_at_any_phase",),
        "2 x 11 phases: equal losses, arms, dev checks and adapter",
    ),
    Row(
        "SIGKILL in a run whose bandit, signal, feedback and contexts all have state",
        ("test_run::test_everything_that_remembers",),
        "equal losses, arms and adapter",
    ),
    Row(
        "SIGINT, SIGTERM to `laser train`",
        ("test_cli::test_an_interrupted_run",),
        "the run finishes and saves the batch, prints a message and exits with 130 or 143",
    ),
    Row(
        "A real file system that fills up at a random size",
        ("test_disk::test_a_full_disk",),
        "an error message; no partial checkpoint, earlier ones intact; equal once there is space",
        ("full disks",),
    ),
    Row("A limit on the size of files", ("test_disk::test_files_that",), "an error message; equal once there is space"),
    Row(
        "The checkpoint folder becomes read-only",
        ("test_disk::test_a_folder",),
        "an error message; equal once it is fixed",
    ),
    Row("Two processes on one run directory", ("test_run::test_a_second_process",), "laser refuses the second"),
)
DAMAGED = (
    Row(
        "Files of a checkpoint: flipped bits, truncated, zeroed",
        ("test_run_directories::test_every_file_of_a_checkpoint",),
        "never loaded: the run uses the previous checkpoint and says so",
        ("damaged checkpoints",),
    ),
    Row(
        "Pending responses, damaged in the same ways",
        ("test_run_directories::test_pending",),
        "sampled again if that gives the same responses, otherwise refused",
        ("damaged pending responses",),
    ),
    Row(
        "Any other file of a run directory, damaged",
        ("test_run_directories::test_damage_anywhere", "test_run_directories::test_records_that_changed"),
        "refused with an error message, or an equal result",
        ("damaged run directories",),
    ),
    Row(
        "Missing checkpoints, only damaged ones, or another version",
        (
            "test_run_directories::test_missing",
            "test_run_directories::test_another_version",
            "test_run_directories::test_a_later",
        ),
        "an error message; damaged later checkpoints never displace new ones",
    ),
)
REWARD_MODELS = (
    Row(
        "Seeded schedules of faults: exceptions, wrong lengths, words, NaN, infinity, None, hangs",
        ("test_faults::test_with_one_healthy",),
        "every run finishes, with its failing reward models in quarantine",
    ),
    Row(
        "No reward model left",
        ("test_faults::test_with_none_left",),
        "the run stops with an error message and continues once they are fixed",
    ),
    Row(
        "A server that dies, hangs and comes back",
        ("test_reward_model_faults::test_a_server_that_dies",),
        "excluded, tried again, used again",
    ),
    Row(
        "Functions that hang, run out of memory, exit, or return something that is not a score",
        (
            "test_reward_model_faults::test_nonsense",
            "test_reward_model_faults::test_whatever",
            "test_reward_model_faults::test_a_function_that_hangs",
            "test_reward_model_faults::test_numbers_beyond",
        ),
        "counted as a failure, never a score; at most one thread stays occupied",
    ),
)
INPUTS = (
    Row(
        "Configurations: random tables, overrides, files, and odd values in every kind of field",
        ("test_config_fuzz::",),
        "a configuration or a one-sentence error",
        ("configuration tables", "configuration overrides", "configuration files", "configuration values"),
    ),
    Row(
        "Prompt files: random rows, broken UTF-8, truncated lines, 100,000 brackets, lone surrogates",
        ("test_prompts_fuzz::test_any_file", "test_prompts_fuzz::test_what_cannot"),
        "prompts, or an error that names the line",
        ("prompt files",),
    ),
    Row(
        "Conversations that spell control tokens, and every control token of SmolLM2",
        ("test_prompts_fuzz::",),
        "plain text for the policy and for reward models",
        ("conversations", "control tokens of SmolLM2"),
    ),
    Row(
        "Replies of reward servers, judges and vLLM: random JSON close to the contract",
        ("test_hostile_replies::test_no_reply",),
        "scores, responses or an error message",
        ("replies of reward servers", "replies of sampling servers"),
    ),
    Row(
        "Replies that drip, never end, decompress to too much, redirect, or are not JSON",
        (
            "test_hostile_replies::test_a_reply_that",
            "test_hostile_replies::test_an_endless",
            "test_hostile_replies::test_bodies",
            "test_hostile_replies::test_redirects",
            "test_endpoint::",
        ),
        "bounded time and memory, an error message",
    ),
)
SECURITY = (
    Row(
        "Run directories from a stranger: resumed, reported, replayed, used as a frozen bandit",
        (
            "test_run_directories::test_resuming_a_strangers",
            "test_run_directories::test_reading_a_strangers",
            "test_run_directories::test_the_user_can_vouch",
            "test_run_directories::test_an_edited",
            "test_run_directories.TestKey",
        ),
        "no code of theirs runs unless the user vouches for it",
    ),
    Row(
        "A key in the environment, and servers that echo it",
        (
            "test_leaked_secrets::",
            "test_hostile_replies::test_a_key",
            "test_hostile_replies::test_addresses",
            "test_config_fuzz::test_a_key",
            "test_config_fuzz::test_an_address",
        ),
        "absent from every file of the run, the report and the output",
    ),
    Row("Control sequences in text that is printed", ("test_terminal::",), "none reaches the terminal"),
    Row(
        "Forbidden calls, in the source and as the interpreter reports them in a run, its resumption and its report",
        ("test_code::",),
        "no pickle, no evaluated text, no started program; servers listen on 127.0.0.1",
    ),
)
GROUPS = (
    ("Interrupted", INTERRUPTED),
    ("Damaged", DAMAGED),
    ("Reward models that fail", REWARD_MODELS),
    ("Hostile input", INPUTS),
    ("Secrets and code", SECURITY),
)


def line(row: Row, tests: Result) -> str:
    """The row as Markdown; its outcome is what the tests assert only if all of them passed."""
    found = {name: outcome for name, outcome in tests["tests"].items() if any(part in name for part in row.tests)}
    bad = [name for name, outcome in found.items() if outcome in ("failure", "error")]
    passed = sum(outcome == "passed" for outcome in found.values())
    number = sum(tests["counts"].get(name, 0) for name in row.counted) if row.counted else passed
    skipped = len(found) - passed - len(bad)
    outcome = row.outcome + (f" ({skipped} skipped here)" if skipped else "")
    if bad or not found:
        outcome = f"**FAILED**: {', '.join(bad) or 'no test found'}"
    return f"| {row.what} | {number:,} | {outcome} |"


def kills_line(kills: Result) -> str:
    """The row of the random kills."""
    total, phases = (
        sum(kills["kills"].values()),
        ", ".join(f"{n} {phase}" for phase, n in sorted(kills["kills"].items())),
    )
    outcome = "equal losses, arms, dev checks and adapter bytes in all of them"
    if kills["different"]:
        outcome = f"**FAILED**: {', '.join(kills['different'])}"
    what = f"SIGKILL from outside at random instants of {kills['chains']} runs, resumed each time (hit: {phases})"
    return f"| {what} | {total} | {outcome} |"


def soak_section(soak: Result) -> list[str]:
    """The long run in numbers."""
    memory = ", ".join(f"{value / 2**20:.0f}" for value in soak["memory"])
    per_batch = 1000 * soak["seconds"] / soak["batches"]
    return [
        "## A long run",
        "",
        f"{soak['batches']:,} consecutive batches of a tiny language model took {soak['seconds'] / 60:.0f} minutes, "
        f"with the preset `recommended`: {per_batch:.0f} ms a batch, including dev checks and checkpoints.",
        "",
        "| measure | value |",
        "|---|---|",
        f"| resident memory after each tenth, MiB | {memory} |",
        f"| growth over the second half, per 1,000 batches | {soak['slope'] / 2**20:.2f} MiB |",
        f"| open files, minimum and maximum | {soak['handles'][0]}, {soak['handles'][1]} |",
        f"| threads, minimum in the second and in the last tenth | {soak['threads'][0]}, {soak['threads'][1]} |",
        f"| median time of a batch, last fifth over second fifth | {soak['ratio']:.2f} |",
        f"| `steps.jsonl` | {'every record intact and in order' if soak['intact'] else '**damaged**'} |",
        "",
        "By design, three things grow with the number of batches.",
        "They are `steps.jsonl`, the losses for full-history quantiles (8 bytes each), and the contexts of an arm "
        "until it has seen as many as a context has features.",
    ]


def page(results: dict[str, Result]) -> str:
    """The text of docs/reliability.md."""
    lines = [
        "# Reliability",
        "",
        "These tests interrupt, damage and attack laser.",
        "`make reliability` runs them and writes this page; the test suite runs the same tests with fewer inputs.",
        "SECURITY.md, next to the README, has the threat model.",
        "",
        *(_made(name, results[name]) for name in PARTS if name in results),
    ]
    for title, rows in GROUPS:
        lines += ["", f"## {title}", "", "| test | number | outcome |", "|---|---|---|"]
        if title == "Interrupted" and "kills" in results:
            lines.append(kills_line(results["kills"]))
        if "tests" in results:
            lines += [line(row, results["tests"]) for row in rows]
    if "soak" in results:
        lines += ["", *soak_section(results["soak"])]
    return "\n".join(lines) + "\n"


def _made(name: str, result: Result) -> str:
    return f"- {name}: {result['made']}, {result['seconds'] / 60:.0f} minutes"


def main() -> None:
    """Run the parts asked for, keep their results, and write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", action="append", choices=list(PARTS))
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--batches", type=int, default=5000)
    arguments = parser.parse_args()
    for name, value in (("OMP_NUM_THREADS", "1"), ("TRANSFORMERS_VERBOSITY", "error"), ("HF_HUB_OFFLINE", "1")):
        os.environ.setdefault(name, value)
    keys = tempfile.TemporaryDirectory(prefix="laser-state-")  # removed when this function returns
    os.environ["XDG_STATE_HOME"] = keys.name
    sys.path.insert(0, str(ROOT / "tests"))
    KEPT.mkdir(parents=True, exist_ok=True)
    for name in arguments.only or PARTS:
        result = PARTS[name](arguments)
        today = datetime.datetime.now(datetime.UTC).date().isoformat()
        result["made"] = f"{today}, Python {platform.python_version()}, {platform.system()}, {os.cpu_count()} cores"
        (KEPT / f"{name}.json").write_text(json.dumps(result, indent=1))
    kept = {name: KEPT / f"{name}.json" for name in PARTS}
    results = {name: json.loads(path.read_text()) for name, path in kept.items() if path.is_file()}
    text = page(results)
    PAGE.write_text(text, encoding="utf-8")
    print(text)
    sys.exit("**" in text)


if __name__ == "__main__":
    main()
