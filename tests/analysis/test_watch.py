"""Looking on: what is read of a growing, cut back or damaged run, what the terminal shows, whom the page is for."""

import base64
import hashlib
import http.client
import io
import json
import os
import re
import socket
import threading
import time
from contextlib import contextmanager

import pytest
from rich.console import Console

from laser.analysis.follow import State, Watch, latest, num_planned
from laser.analysis.frame import frame, sparkline
from laser.analysis.records import Lines, parse_evaluation, read_run
from laser.analysis.report import write_report
from laser.analysis.server import LiveServer
from laser.cli.progress import batch_cells
from laser.cli.watch import watch
from laser.core.errors import RunDirectoryError, ServerError
from laser.training.run_directory import RunDirectory
from written import evaluation, step, typical, write_run

HOSTILE = "\x1b[2J\x1b]0;owned\x07[red]evil[/red]"


def shown(view, width=100):
    console = Console(file=io.StringIO(), width=width, force_terminal=True, highlight=False, color_system=None)
    console.print(frame(view))
    return console.file.getvalue()


def append(path, *rows, end="\n"):
    with path.open("a") as file:
        file.write("\n".join(json.dumps(row) for row in rows) + end)


def test_lines_are_read_once_and_a_half_one_when_it_is_whole(tmp_path):
    path = tmp_path / "evaluations.jsonl"
    lines = Lines(path, parse_evaluation)
    assert lines.poll() is False
    append(path, evaluation(0, 1), evaluation(4, 2), end="\n{")
    assert lines.poll() is True
    assert [number for number, _ in lines.rows] == [1, 2]
    assert lines.poll() is False
    with path.open("a") as file:
        file.write(json.dumps(evaluation(8, 3))[1:] + "\n")
    assert lines.poll() is True
    assert [row["batches"] for _, row in lines.rows] == [0, 4, 8]
    assert lines.damage == []


def test_a_damaged_line_is_counted_and_the_next_one_read(tmp_path):
    path = tmp_path / "evaluations.jsonl"
    append(path, evaluation(0, 1), {"batches": "x"}, evaluation(8, 3))
    lines = Lines(path, parse_evaluation)
    lines.poll()
    assert [number for number, _ in lines.rows] == [1, 3]
    assert [(one.file, one.line) for one in lines.damage] == [("evaluations.jsonl", 2)]


@pytest.mark.parametrize("in_place", [True, False])
def test_a_file_that_is_cut_back_is_read_anew(tmp_path, in_place):
    """As a resume does it, by renaming; and as an editor may, in place and longer than before."""
    path = tmp_path / "evaluations.jsonl"
    append(path, *(evaluation(n, 1) for n in range(4)))
    lines = Lines(path, parse_evaluation)
    lines.poll()
    if in_place:
        path.write_text("")
    else:
        (tmp_path / "new").write_text("")
        (tmp_path / "new").replace(path)
    append(path, *(evaluation(10 + n, 2) for n in range(9)))
    assert lines.poll() is True
    assert [row["batches"] for _, row in lines.rows] == list(range(10, 19))
    path.unlink()
    assert lines.poll() is True
    assert lines.rows == []


def test_a_resume_shows_each_batch_once(tmp_path):
    run = RunDirectory.create(
        tmp_path / "run", config={"rewards": {"models": [{"name": "good"}, {"name": "bad"}]}}, provenance={}
    )
    watch = Watch(tmp_path / "run")
    for one in typical(7):
        run.append("steps", one)
    assert watch.look().num_done == 7
    run.truncate("steps", 4)
    for one in typical(6)[4:]:
        run.append("steps", one)
    view = watch.look()
    run.close()
    assert view.num_done == 6
    assert view.run.steps == read_run(tmp_path / "run").steps


def test_a_run_is_followed_from_before_it_starts_to_its_end(tmp_path):
    path = tmp_path / "run"
    watch = Watch(path)
    assert watch.look().state is State.waiting
    write_run(path, [], config={"training": {"iterations": 3, "batches_per_iteration": 4}})
    assert watch.look().state is State.starting
    append(path / "steps.jsonl", *typical(5))
    view = watch.look()
    assert (view.state, view.num_done, view.num_planned, view.pace) == (State.running, 5, 12, 3.0)
    assert view.remaining == 21.0
    assert view.age < 60
    (path / "summary.json").write_text("{}")
    view = watch.look()
    assert (view.state, view.remaining) == (State.finished, None)
    write_run(path, typical(2), names=("one", "two"))
    (path / "config.json").rename(path / "old")
    assert watch.look().state is State.waiting
    (path / "old").rename(path / "config.json")
    (path / "summary.json").unlink()
    assert watch.look().run.names == ("one", "two")


def test_the_number_of_batches_is_that_of_the_first_iteration_where_it_is_not_configured(tmp_path):
    write_run(tmp_path, typical(4), config={"training": {"iterations": 3, "batches_per_iteration": None}})
    assert num_planned(read_run(tmp_path)) is None
    append(tmp_path / "steps.jsonl", *typical(5)[4:])
    assert num_planned(read_run(tmp_path)) == 12
    assert num_planned(read_run(write_run(tmp_path / "bare", typical(5)))) is None


@pytest.mark.parametrize("config", ["{", '{"rewards": {"models": []}}'])
def test_a_damaged_configuration_is_said_and_waited_for(tmp_path, config):
    write_run(tmp_path, typical(2))
    good = (tmp_path / "config.json").read_text()
    (tmp_path / "config.json").write_text(config)
    watch = Watch(tmp_path)
    view = watch.look()
    assert "config.json" in shown(view)
    (tmp_path / "config.json").write_text(good)
    assert watch.look().num_done == 2


def test_a_folder_without_a_run_is_refused_in_a_sentence(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(RunDirectoryError, match="is a file"):
        Watch(tmp_path / "file")
    with pytest.raises(RunDirectoryError, match="holds no run"):
        Watch(tmp_path)
    write_run(tmp_path / "suite" / "task" / "method" / "seed-0", typical(1))
    with pytest.raises(RunDirectoryError, match="holds a suite"):
        Watch(tmp_path / "suite")
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / ".lock").write_text("")
    assert Watch(tmp_path / "empty").look().state is State.waiting


def test_the_terminal_shows_who_was_chosen_and_what_failed(tmp_path):
    steps = typical(20)
    steps[7]["quarantined"] = {"bad": "timed out"}
    write_run(tmp_path, steps, [evaluation(0, 10), evaluation(8, 20)], tail="junk\n")
    text = shown(Watch(tmp_path).look())
    for words in (
        "20 batches",
        "3.0 s per batch",
        "maths",
        "50%",
        "0.82",
        "25.0% → 50.0%",
        "bad was put in quarantine",
    ):
        assert words in text
    assert "1 line of the run's records could not be read" in " ".join(text.split())
    assert max(map(len, text.splitlines())) <= 100
    narrow = shown(Watch(tmp_path).look(), width=40)
    assert max(map(len, narrow.splitlines())) <= 40


def test_nothing_that_a_model_wrote_commands_the_terminal(tmp_path):
    steps = [step(n, (HOSTILE, "b"), category=HOSTILE, quarantined={HOSTILE: HOSTILE}) for n in range(3)]
    write_run(tmp_path, steps, [evaluation(0, 1, category=HOSTILE)], names=(HOSTILE, "b"), tail=f"{HOSTILE}\n")
    text = shown(Watch(tmp_path).look())
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f]", text)
    assert "\\x1b[2J" in text
    assert "[red]" in text
    cells = batch_cells({**steps[0], "selection": {**steps[0]["selection"], "reward_models": [HOSTILE]}})
    assert cells["chosen"] == cells["category"] == "\\x1b[2J\\x1b]0;owned\\x07[red]evil[/red]"


def test_a_run_that_stands_still_is_said_to(tmp_path):
    write_run(tmp_path, typical(3))
    assert "nothing new" not in shown(Watch(tmp_path).look())
    os.utime(tmp_path / "steps.jsonl", (0, time.time() - 400))
    os.utime(tmp_path / "evaluations.jsonl", (0, time.time() - 900))
    assert "nothing new for 6 min" in shown(Watch(tmp_path).look())


def test_once_prints_one_frame_and_a_finished_run_ends_the_watch(tmp_path, capsys):
    write_run(tmp_path, typical(4))
    watch(tmp_path, once=True, every=1.0)
    assert capsys.readouterr().out.count("Latest batches") == 1
    (tmp_path / "summary.json").write_text("{}")
    watch(tmp_path, once=False, every=1.0)
    assert "finished" in capsys.readouterr().out


def test_progress_of_batches_without_bandit_rewards_or_loss():
    """An ensemble that learns nothing is charged with nothing; a batch without pairs has no loss."""
    ensemble = step(0, bandit_rewards=[], loss=float("nan"))
    ensemble["selection"] = {**ensemble["selection"], "weights": [[0.5, 0.5]], "charged": []}
    cells = batch_cells(ensemble)
    assert (cells["chosen"], cells["reward"], cells["loss"]) == ("several", "none", "none")
    assert batch_cells(step(0, bandit_rewards=[None, 0.5], loss=None))["reward"] == "0.50"


def test_the_latest_batches_come_newest_first(tmp_path):
    rows = latest(read_run(write_run(tmp_path, typical(12))))
    assert [row[0] for row in rows] == [12, 11, 10, 9, 8, 7, 6, 5]
    assert [row[2] for row in rows[:2]] == ["bad", "good"]


def test_a_sparkline_spans_its_values():
    assert sparkline([0.0, 1.0, None, 0.5], 10) == "▁█ ▅"
    assert sparkline([1.0] * 100, 10) == "▁" * 10
    assert sparkline([None], 10) == ""
    assert len(sparkline(list(range(1000)), 48)) <= 48


@contextmanager
def served(path):
    with LiveServer(Watch(path)) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


def ask(server, path="/", method="GET", **headers):
    connection = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=30)
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    connection.request(method, path, headers=named)
    reply = connection.getresponse()
    return reply.status, dict(reply.getheaders()), reply.read().decode()


def test_the_page_is_for_browsers_of_this_machine_alone(tmp_path):
    with served(tmp_path / "later") as server:
        port = server.server_port
        assert server.server_address == ("127.0.0.1", port)
        assert ask(server)[0] == 200
        assert ask(server, Host=f"localhost:{port}", Origin=f"http://localhost:{port}")[0] == 200
        for headers in (
            {"Host": "evil.example"},
            {"Host": f"evil.example:{port}"},
            {"Host": "127.0.0.1"},
            {"Host": f"127.0.0.1:{port + 1}"},
            {"Host": ""},
            {"Origin": "http://evil.example"},
            {"Origin": "null"},
            {"Origin": f"https://127.0.0.1:{port}"},
            {"Sec_Fetch_Site": "cross-site"},
            {"Sec_Fetch_Site": "same-site"},
        ):
            status, _, text = ask(server, **headers)
            assert status == 403, headers
            assert "no run" not in text
        with socket.create_connection(("127.0.0.1", port)) as connection:
            connection.sendall(f"GET / HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nHost: evil.example\r\n\r\n".encode())
            assert b" 403 " in connection.recv(4096).splitlines()[0]


def test_it_only_answers_get_with_headers_that_forbid_everything_else(tmp_path):
    with served(tmp_path / "later") as server:
        for method in ("HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE"):
            status, headers, _ = ask(server, method=method)
            assert (status, headers.get("Allow")) == (405, "GET"), method
        for path in ("/report.html", "/../config.json", "/fragment/../x", "/?x=1", "http://evil.example/"):
            assert ask(server, path)[0] in (403, 404)
        status, headers, page = ask(server)
        assert status == 200
        policy = headers["Content-Security-Policy"]
        for words in ("default-src 'none'", "connect-src 'self'", "frame-ancestors 'none'", "form-action 'none'"):
            assert words in policy
        assert "'unsafe-inline'" not in policy.split("script-src")[1].split(";")[0]
        assert (headers["X-Content-Type-Options"], headers["Cache-Control"]) == ("nosniff", "no-store")
        assert headers["Cross-Origin-Resource-Policy"] == "same-origin"
        assert "Python" not in headers["Server"]
        scripts = re.findall(r"<script>(.*?)</script>", page, re.DOTALL)
        hashes = [base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for text in scripts]
        assert len(hashes) == 1
        assert f"script-src 'sha256-{hashes[0]}'" in policy
        assert not re.search(r'(?:src|href)="(?!#|data:,)', page)


@pytest.mark.slow
def test_updates_are_sent_when_something_has_changed(tmp_path):
    write_run(tmp_path / "run", typical(5, text="<script>alert(1)</script>"))
    with served(tmp_path / "run") as server:
        status, headers, first = ask(server)
        assert status == 200
        assert "Latest batches" in first
        assert "<script>alert" not in first
        assert ask(server, If_None_Match=headers["ETag"])[0] == 304
        append(tmp_path / "run" / "steps.jsonl", step(5))
        status, _, second = ask(server, If_None_Match=headers["ETag"])
        assert status == 200
        assert "6 batches" in second


@pytest.mark.slow
def test_the_report_rests_between_updates_while_progress_continues(tmp_path):
    write_run(tmp_path / "run", typical(3))
    with LiveServer(Watch(tmp_path / "run")) as server:

        def parts():
            return server.page().split('<div id="report">')

        first = parts()
        append(tmp_path / "run" / "steps.jsonl", step(3))
        second = parts()
        assert "<p>3 batches" in first[0]
        assert "<p>4 batches" in second[0]
        assert second[1] == first[1]
        server._rest_until = 0.0
        third = parts()
        assert third[1] != first[1]
        assert "4 batches" in third[1]
        assert parts() == third


@pytest.mark.slow
def test_the_live_page_shows_the_report_itself(tmp_path):
    """One renderer: what is between the progress and the footer is the report's own navigation and content."""
    path = write_run(tmp_path / "run", typical(5), [evaluation(0, 10), evaluation(4, 20)])
    with served(path) as server:
        live = ask(server)[2]
    report = write_report(path).page.read_text()
    shown, written = (page.split('<div id="report">')[1].split("<footer>")[0] for page in (live, report))
    assert shown == written
    assert "Configuration" in shown


def test_a_port_that_is_taken_is_a_sentence(tmp_path):
    with LiveServer(Watch(tmp_path / "run")) as server, pytest.raises(ServerError, match="choose another --port"):
        LiveServer(Watch(tmp_path / "run"), server.server_port)
