"""Prompts on disk: the same as in memory, in memory that does not grow with their text."""

import datetime
import gc
import json
import tempfile
import tracemalloc

import pytest

from laser.core.errors import DataError
from laser.core.types import Prompt
from laser.data.batches import batches
from laser.data.files import load_file
from laser.data.split import split
from laser.data.store import StoredPrompts, categories_of, first_of_each, pick, slice_of


def prompt(number, **fields):
    messages = ({"role": "system", "content": "é\x00"}, {"role": "user", "content": f"question {number} \U0001f600"})
    return Prompt(str(number), messages, "abc"[number % 3], **fields)


PROMPTS = [
    prompt(0, answer="zero", metadata={"options": ["a", "b"], "weight": 0.1, "nothing": None}),
    prompt(1, metadata={"when": datetime.date(2024, 1, 2), "bytes": b"\x00"}),  # what JSON cannot hold
    prompt(2, metadata={"pair": (1, 2), 3: "a key that is not text"}),
    prompt(3, answer=""),
]


def test_prompts_come_back_as_they_were():
    stored = StoredPrompts.write(iter(PROMPTS))
    assert list(stored) == PROMPTS
    assert [stored[index] for index in range(-4, 4)] == [*PROMPTS, *PROMPTS]
    with pytest.raises(IndexError):
        stored[4]
    assert list(stored[1:3]) == PROMPTS[1:3]
    assert list(stored[1:][::2]) == PROMPTS[1:][::2]
    assert list(pick(stored, [3, 0, 3])) == pick(PROMPTS, [3, 0, 3]) == [PROMPTS[3], PROMPTS[0], PROMPTS[3]]
    assert len(StoredPrompts.write([])) == 0


@pytest.mark.slow
def test_a_part_outlives_the_whole():
    part = StoredPrompts.write(PROMPTS)[2:]
    gc.collect()
    assert list(part) == PROMPTS[2:]


@pytest.mark.parametrize("seed", range(3))
def test_lists_and_files_are_split_and_drawn_alike(seed):
    many = [prompt(number) for number in (*range(40), *range(7))]  # 7 come twice
    stored = StoredPrompts.write(many)
    assert categories_of(stored) == categories_of(many)
    assert first_of_each(stored).tolist() == first_of_each(many).tolist() == list(range(40))
    ours = split(stored, train=None, dev=5, test=6, seed=seed)
    theirs = split(many, train=None, dev=5, test=6, seed=seed)
    for name, size in (("train", 29), ("dev", 5), ("test", 6)):
        assert list(getattr(ours, name)) == getattr(theirs, name)
        assert len(getattr(ours, name)) == size
    settings = {"batch_size": 4, "num_batches": None, "batching": "by_category", "seed": seed, "iteration": 1}
    assert batches(ours.train, **settings) == batches(theirs.train, **settings)


@pytest.mark.slow
def test_memory_does_not_hold_the_text(tmp_path):
    path = tmp_path / "p.jsonl"
    with path.open("w") as file:
        for number in range(3_000):
            file.write(json.dumps({"prompt": f"{number} " + "word " * 1_000, "category": "ab"[number % 2]}) + "\n")
    tracemalloc.start()
    splits = split(load_file(path), train=None, dev=8, test=8, seed=0)
    held, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(splits.train) == 2_984
    assert held < 3_000 * 100  # of 15 MB
    assert peak < 3_000 * 500


def test_no_room_for_temporary_files_is_a_sentence(monkeypatch):
    def refuse(**_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(tempfile, "TemporaryFile", refuse)
    with pytest.raises(DataError, match=r"cannot write prompts to .* \(No space left on device\); .*TMPDIR"):
        StoredPrompts.write(PROMPTS)


def test_slices_hold_every_prompt_once_and_do_not_depend_on_the_others():
    prompts = [prompt(number) for number in range(400)]
    slices = [[one.id for one in slice_of(prompts, index, 4)] for index in (1, 2, 3, 4)]
    assert sorted(name for of_slice in slices for name in of_slice) == sorted(one.id for one in prompts)
    assert all(70 < len(of_slice) < 130 for of_slice in slices)
    assert [one.id for one in slice_of(StoredPrompts.write(prompts), 2, 4)] == slices[1]
    assert [one.id for one in slice_of(prompts[:50], 2, 4)] == [name for name in slices[1] if int(name) < 50]
