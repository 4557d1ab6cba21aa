import json
import struct

import numpy as np
import pytest

from medkeras.training import checkpoint

ARRAYS = {
    "model/00000": np.arange(6, dtype=np.float32).reshape(2, 3),
    "model/00001": np.array([7, 8], np.uint32),
    "optimizer/00000": np.array(5, np.int64),
    "best/00000": np.zeros((0, 3), np.float32),
}
PROGRESS = {"epoch": 2, "best": 0.1 + 0.2, "best_epoch": None, "history": [{"loss": 1e-17}]}


def same(one, other):
    assert one.keys() == other.keys()
    for name in one:
        np.testing.assert_array_equal(one[name], other[name])
        assert one[name].dtype == other[name].dtype and one[name].shape == other[name].shape


def test_what_is_saved_is_loaded(tmp_path):
    checkpoint.save(tmp_path / "stage-1", ARRAYS, PROGRESS)
    arrays, progress = checkpoint.load(tmp_path / "stage-1")
    same(arrays, ARRAYS)
    assert progress == PROGRESS


def test_nothing_there_is_no_state(tmp_path):
    assert checkpoint.load(tmp_path / "stage-1") is None


@pytest.fixture
def two_generations(tmp_path):
    checkpoint.save(tmp_path, {"a": np.array([1.0])}, {"epoch": 1})
    checkpoint.save(tmp_path, {"a": np.array([2.0])}, {"epoch": 2})
    return tmp_path


def test_the_newest_is_loaded(two_generations):
    arrays, progress = checkpoint.load(two_generations)
    assert progress == {"epoch": 2} and arrays["a"] == [2.0]


def cut(content):
    return content[:-3]


def emptied(content):
    return b""


def header_lies(content):
    return struct.pack("<Q", 1 << 60) + content[8:]


def header_is_no_json(content):
    return content[:8] + b"?" * (len(content) - 8)


def without_progress(content):
    header = json.dumps({"a": {"dtype": "F64", "shape": [1], "data_offsets": [0, 8]}}).encode()
    return struct.pack("<Q", len(header)) + header + content[-8:]


def a_pickle(content):
    import pickle

    return pickle.dumps({"a": 1})


@pytest.mark.parametrize(
    "damage", [cut, emptied, header_lies, header_is_no_json, without_progress, a_pickle]
)
def test_a_damaged_state_falls_back_to_the_one_before(two_generations, damage):
    file = two_generations / checkpoint.FILE
    file.write_bytes(damage(file.read_bytes()))
    arrays, progress = checkpoint.load(two_generations)
    assert progress == {"epoch": 1} and arrays["a"] == [1.0]


def test_no_state_is_left_where_both_are_damaged(two_generations):
    for file in two_generations.iterdir():
        file.write_bytes(file.read_bytes()[:20])
    assert checkpoint.load(two_generations) is None


@pytest.mark.parametrize("name", [checkpoint.FILE, checkpoint.PREVIOUS])
def test_a_missing_generation_is_no_fault(two_generations, name):
    (two_generations / name).unlink()
    assert checkpoint.load(two_generations) is not None


def test_an_error_while_saving_leaves_the_states_there_were(two_generations, monkeypatch):
    before = {path.name: path.read_bytes() for path in two_generations.iterdir()}

    def failing(variables, path, metadata):
        path.write_bytes(b"half")
        raise OSError(28, "no space left on device")

    monkeypatch.setattr(checkpoint, "save_file", failing)
    with pytest.raises(OSError, match="no space"):
        checkpoint.save(two_generations, {"a": np.array([3.0])}, {"epoch": 3})
    assert {path.name: path.read_bytes() for path in two_generations.iterdir()} == before


@pytest.mark.parametrize("stop_at", range(6))
def test_a_kill_between_any_two_steps_leaves_a_state(two_generations, monkeypatch, stop_at):
    """Every rename and sync of a save is a place to be killed at."""
    import os
    from pathlib import Path

    calls = iter(range(1000))

    def dying(function):
        def die(*args):
            if next(calls) == stop_at:
                raise KeyboardInterrupt
            return function(*args)

        return die

    monkeypatch.setattr(os, "replace", dying(os.replace))
    monkeypatch.setattr(os, "fsync", dying(os.fsync))
    monkeypatch.setattr(Path, "replace", dying(Path.replace))
    try:
        checkpoint.save(two_generations, {"a": np.array([3.0])}, {"epoch": 3})
    except KeyboardInterrupt:
        pass
    arrays, progress = checkpoint.load(two_generations)
    assert progress["epoch"] in (2, 3) and arrays["a"] == [progress["epoch"]]


def test_variables_go_and_come_back(tiny_model, deterministic):
    one, other = tiny_model(0), tiny_model(1)
    arrays = checkpoint.gather({"model": one.variables, "best": [np.ones(2)]})
    checkpoint.restore(arrays, "model", other.variables)
    for variable, copy in zip(one.variables, other.variables, strict=True):
        np.testing.assert_array_equal(variable.numpy(), copy.numpy())
    np.testing.assert_array_equal(checkpoint.values(arrays, "best"), [[1, 1]])


def test_a_gathered_array_does_not_follow_its_variable(tiny_model):
    model = tiny_model()
    kept = checkpoint.gather({"model": model.trainable_variables})["model/00000"]
    before = kept.copy()
    model.trainable_variables[0].assign_add(np.ones(before.shape))
    np.testing.assert_array_equal(kept, before)


def test_many_variables_keep_their_order():
    gathered = checkpoint.gather({"a": [np.array(n) for n in range(1000)], "ab": [np.array(-1)]})
    assert [int(value) for value in checkpoint.values(gathered, "a")] == list(range(1000))


def test_another_model_is_refused(tiny_model):
    arrays = checkpoint.gather({"model": tiny_model().variables})
    with pytest.raises(ValueError, match="variables saved"):
        checkpoint.restore(arrays, "model", tiny_model(frozen=True).variables)
    with pytest.raises(ValueError):
        checkpoint.restore(arrays, "model", tiny_model(outputs=3).variables)


def test_no_pickle_is_in_the_file(tmp_path):
    checkpoint.save(tmp_path, ARRAYS, PROGRESS)
    content = (tmp_path / checkpoint.FILE).read_bytes()
    size = struct.unpack("<Q", content[:8])[0]
    header = json.loads(content[8 : 8 + size])
    assert json.loads(header.pop("__metadata__")["progress"]) == PROGRESS
    assert header.keys() == ARRAYS.keys()
    assert len(content) == 8 + size + sum(array.nbytes for array in ARRAYS.values())
