"""File formats by name or by look: the same rows from each of them."""

import csv
import gzip
import json
import os
import re
import zipfile

import datasets
import pytest

from laser.core.errors import DataError
from laser.data.files import load_file
from laser.data.rows import SourceFile, read_rows

ROWS = [{"prompt": f"question {number}", "answer": str(number), "category": "x"} for number in range(3)]
LINES = "".join(json.dumps(row) + "\n" for row in ROWS)

FILES = {
    "p.jsonl": LINES,
    "p.ndjson": LINES,
    "lines.json": LINES,
    "list.json": json.dumps(ROWS),
    "pretty.json": json.dumps(ROWS, indent=1),
    "list.jsonl": json.dumps(ROWS, indent=4),
    "examples.json": json.dumps({"examples": ROWS}, indent=1),
    "data.json": json.dumps({"version": 1, "data": ROWS}),
    "mark.jsonl": "\ufeff" + LINES,
    "mark.json": "\ufeff" + json.dumps(ROWS, indent=1),
    "blank.jsonl": "\n\n" + LINES,
    "begun.json": '{"version": 1,\n"data":\n' + json.dumps(ROWS, indent=1) + "}",
}


@pytest.fixture
def expected(tmp_path):
    (tmp_path / "expected.jsonl").write_text(LINES)
    return list(load_file(tmp_path / "expected.jsonl"))


@pytest.mark.parametrize("name", FILES)
def test_json_of_every_look(tmp_path, expected, name):
    (tmp_path / name).write_text(FILES[name], encoding="utf-8")
    assert list(load_file(tmp_path / name)) == expected
    (tmp_path / f"{name}.gz").write_bytes(gzip.compress(FILES[name].encode()))
    assert list(load_file(tmp_path / f"{name}.gz")) == expected


@pytest.mark.parametrize(("name", "delimiter"), [("p.csv", ","), ("p.tsv", "\t")])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
def test_tables_with_a_header(tmp_path, expected, name, delimiter, encoding):
    with (tmp_path / name).open("w", newline="", encoding=encoding) as file:
        table = csv.DictWriter(file, ROWS[0], delimiter=delimiter)
        table.writeheader()
        table.writerows(ROWS)
    assert list(load_file(tmp_path / name)) == expected


def test_saved_data_sets(tmp_path, expected):
    data = datasets.Dataset.from_list(ROWS)
    data.save_to_disk(tmp_path / "saved")
    datasets.DatasetDict({"train": data}).save_to_disk(tmp_path / "one")
    datasets.DatasetDict({"train": data, "test": data}).save_to_disk(tmp_path / "two")
    for folder in ("saved", "one", "two/train"):
        assert list(load_file(tmp_path / folder)) == expected
    with pytest.raises(DataError, match=r"holds several splits; name one of them: .*two/train, test"):
        load_file(tmp_path / "two")
    with pytest.raises(DataError, match="is a folder; name a file in it"):
        load_file(tmp_path)


def test_a_damaged_line_is_named_with_the_cure_after_blank_lines_too(tmp_path):
    path = tmp_path / "p.jsonl"
    path.write_text('\n{"prompt": "a"}\n\n{"prompt": \n{"prompt": "b"}\n')
    with pytest.raises(DataError, match=r"p\.jsonl line 4 is not valid JSON \(.*\); fix or remove the line$"):
        load_file(path)


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-be", "utf-32"])
def test_other_encodings_are_named(tmp_path, encoding):
    mark = "\ufeff" if encoding.endswith("be") else ""
    (tmp_path / "p.jsonl").write_bytes((mark + LINES).encode(encoding))
    with pytest.raises(DataError, match="is UTF-16 or UTF-32 text; save it as UTF-8"):
        load_file(tmp_path / "p.jsonl")


def test_a_row_with_another_number_of_cells_is_refused(tmp_path):
    (tmp_path / "p.csv").write_text("prompt,answer\na,1\nb\n")
    with pytest.raises(DataError, match=re.escape("row 3 has 1 cells, not 2; fix or remove the row")):
        load_file(tmp_path / "p.csv")


@pytest.mark.parametrize("name", ["p.jsonl", "p.parquet", "p.jsonl.gz"])
def test_fifos_are_refused_at_once(tmp_path, name):
    os.mkfifo(tmp_path / name)
    with pytest.raises(DataError, match="it is not a regular file"):
        load_file(tmp_path / name)


def test_messages_stay_short_whatever_a_file_says(tmp_path):
    long = "x" * 100_000
    rows = [
        {long: 1},
        {"prompt": [{"role": long, "content": "a"}]},
        {"prompt": "a", "answer_type": long},
        {"prompt": "a", "answer": {long: 1}},
        {"prompt": "a", **{f"field {number}": 1 for number in range(1000)}, "options": long},
        {"pront" + long[:100]: "a"},
        {str(number): 1 for number in range(1000)},
    ]
    for row in rows:
        (tmp_path / "p.jsonl").write_text(json.dumps(row) + "\n")
        with pytest.raises(DataError) as refused:
            load_file(tmp_path / "p.jsonl")
        assert len(str(refused.value)) < 1000


def test_a_single_row_may_have_a_column_of_lists(tmp_path):
    (tmp_path / "p.jsonl").write_text(json.dumps({"prompt": "q", "data": [{"a": 1}]}))
    assert load_file(tmp_path / "p.jsonl")[0].metadata == {"data": [{"a": 1}]}


def test_a_zip_member_is_read_by_its_look(tmp_path):
    with zipfile.ZipFile(tmp_path / "p.zip", "w") as archive:
        archive.writestr("a/list.json", json.dumps(ROWS, indent=1))
    assert [row for _, row in read_rows(SourceFile(tmp_path / "p.zip", "a/list.json"))] == ROWS


def test_a_mark_in_the_middle_of_joined_files_is_dropped(tmp_path):
    row = b'\xef\xbb\xbf{"prompt": "q"}\n'
    (tmp_path / "p.jsonl").write_bytes(row + row)
    assert len(load_file(tmp_path / "p.jsonl")) == 2


def test_a_column_that_is_there_twice_is_refused(tmp_path):
    (tmp_path / "p.csv").write_text("prompt,answer,answer\nq,1,2\n")
    with pytest.raises(DataError, match="has the column 'answer' twice; rename or remove one"):
        load_file(tmp_path / "p.csv")


def test_blanks_around_the_names_of_columns_do_not_count(tmp_path):
    (tmp_path / "p.csv").write_text("prompt , answer\nq, 1\n")
    assert load_file(tmp_path / "p.csv")[0].answer == " 1"


def test_gold_answers_of_squad_are_found(tmp_path):
    (tmp_path / "p.jsonl").write_text('{"prompt": "q", "answers": {"text": ["a", "b"], "answer_start": [3, 9]}}')
    (read,) = load_file(tmp_path / "p.jsonl")
    assert (read.answer, read.metadata) == ("a", {"answers": ["a", "b"]})
