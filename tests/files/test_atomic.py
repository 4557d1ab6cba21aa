import json
import math
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pandas as pd
import pytest

from medkeras.files import atomic


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "model.keras"
    atomic.write_text(path, "old")
    with pytest.raises(RuntimeError), atomic.writing(path) as temporary:
        temporary.write_text("half of the ne")
        raise RuntimeError("disk full")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("step", ["replace", "fsync"])
def test_a_failing_system_call_leaves_the_old_file(tmp_path, monkeypatch, step):
    path = tmp_path / "history.csv"
    atomic.write_text(path, "old")

    def fail(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, step, fail)
    with pytest.raises(OSError, match="No space"):
        atomic.write_text(path, "new")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_the_old_content_stands_until_the_block_ends(tmp_path):
    path = tmp_path / "split.csv"
    atomic.write_text(path, "old")
    with atomic.writing(path) as temporary:
        temporary.write_text("new")
        assert path.read_text() == "old"
        assert temporary.parent == path.parent
        assert temporary.suffix == path.suffix
    assert path.read_text() == "new"


def test_a_killed_writer_leaves_a_whole_file(tmp_path):
    path = tmp_path / "numbers.json"
    code = (
        "import sys, itertools\n"
        "from medkeras.files import atomic\n"
        "for n in itertools.count():\n"
        "    atomic.write_json(sys.argv[1], [n] * 20000)\n"
    )
    for wait in (0.02, 0.05, 0.09):
        path.unlink(missing_ok=True)
        writer = subprocess.Popen([sys.executable, "-c", code, str(path)], env=_environment())
        _wait_for(path)
        time.sleep(wait)
        writer.send_signal(signal.SIGKILL)
        writer.wait()
        numbers = json.loads(path.read_text())
        assert len(numbers) == 20000 and len(set(numbers)) == 1


def test_json_keeps_numbers_and_refuses_nan(tmp_path):
    path = tmp_path / "metrics.json"
    atomic.write_json(path, {"auc": np.float32(0.5), "n": np.int64(3), "low": None, "ä": [1e-17]})
    assert json.loads(path.read_text("utf-8")) == {"auc": 0.5, "n": 3, "low": None, "ä": [1e-17]}
    for undefined in (math.nan, math.inf, np.float64("nan"), np.float32("nan")):
        with pytest.raises(ValueError, match=r"metrics\.json"):
            atomic.write_json(path, {"auc": undefined})
    assert json.loads(path.read_text("utf-8"))["auc"] == 0.5


def test_csv_reads_back_equal(tmp_path):
    table = pd.DataFrame({"path": ["a,b.png", 'q"x.png'], "logit": [1 / 3, -1e-300]})
    atomic.write_csv(tmp_path / "t.csv", table)
    pd.testing.assert_frame_equal(pd.read_csv(tmp_path / "t.csv"), table, check_exact=True)


def _environment():
    return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}


def _wait_for(path):
    for _ in range(2000):
        if path.exists():
            return
        time.sleep(0.005)
    raise AssertionError("the writer never wrote")
