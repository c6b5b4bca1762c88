"""A key from an environment variable is in no file of the run and no line of output, whatever servers do with it."""

import sys

import pytest

from laser.cli import main as cli
from runs import make_table
from servers import rate, serving
from suites import write_toml

KEY = "sk-9f8e7d6c5b4a-very-secret"


@pytest.mark.slow
def test_the_key_is_nowhere(tmp_path, monkeypatch, capfd):
    """Servers that repeat the key in scores, complaints and refusals; one fails until it is in quarantine."""
    monkeypatch.setenv("A_KEY", KEY)
    monkeypatch.setenv("HF_TOKEN", "hf_" + KEY)

    def answer(path, payload, number):
        if path == "/v1/chat/completions":
            return rate(f"4, and your key is {KEY}")
        if number % 2:
            return (403, {"error": {"message": f"Bearer {KEY} has no credit"}}, {})
        return {"scores": [KEY for _ in payload["responses"]]}

    with serving(answer) as server:
        table = make_table(tmp_path, "vowels", training={"iterations": 1}, selector={"type": "ensemble"})
        table["split"]["dev"] = 0
        table["rewards"] = {
            "max_failures": 2,
            "models": [
                *table["rewards"]["models"],
                {"type": "http", "name": "server", "url": server.url, "api_key_env": "A_KEY", "retries": 0},
                {
                    "type": "judge",
                    "name": "judge",
                    "model": "m",
                    "url": server.url,
                    "api_key_env": "A_KEY",
                    "cache": str(tmp_path / "run-cache.sqlite"),
                },
            ],
        }
        write_toml(tmp_path / "run.toml", table)
        for arguments in (["run.toml", "--out", str(tmp_path / "run")], ["--resume", str(tmp_path / "run")]):
            monkeypatch.chdir(tmp_path)
            monkeypatch.setattr(sys, "argv", ["laser", "train", *arguments])
            with pytest.raises(SystemExit) as ended:
                cli.main()
            assert not ended.value.code
        assert any(headers.get("Authorization") == f"Bearer {KEY}" for headers in server.headers)
    out, err = capfd.readouterr()
    assert "server is in quarantine" in out
    assert "***" in out
    assert KEY not in out + err
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert {"steps.jsonl", "config.json", "report.html", "run-cache.sqlite"} <= {path.name for path in files}
    assert [path for path in files if KEY.encode() in path.read_bytes()] == []
