"""Every benchmark runs, in a size that says nothing about its ratio, and prints it."""

import os
import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
TINY = {
    "audit": ["--size", "64", "--pictures", "100"],
    "augmentation": ["--size", "48", "--pictures", "8"],
    "augmented_input": ["--size", "64", "--pictures", "8"],
    "combined_features": ["--size", "32", "--pictures", "8"],
    "frozen_features": ["--size", "71", "--pictures", "8"],
    "head_sweep": ["--size", "71", "--pictures", "8", "--trials", "2", "--epochs", "2"],
    "histogram_share": ["--size", "32", "--pictures", "16", "--epochs", "2"],
    "histograms": ["--size", "71"],
    "mrnet_frozen": ["--size", "64", "--exams", "4"],
    "mrnet_training": ["--size", "64", "--exams", "4", "--repeats", "1"],
    "opening": ["--size", "32", "--pictures", "40"],
    "second_epoch_input": ["--size", "64", "--pictures", "8"],
    "volume_loading": ["--size", "64", "--exams", "4", "--repeats", "1"],
}


def test_every_benchmark_is_tried_and_listed():
    names = {path.stem for path in (ROOT / "benchmarks").glob("[!_]*.py")}
    assert set(TINY) == names
    listed = (ROOT / "benchmarks" / "README.md").read_text(encoding="utf-8")
    assert all(f"`{name}.py`" in listed for name in names)


@pytest.mark.slow
@pytest.mark.parametrize("name", TINY)
def test_prints_its_ratio(name):
    if name == "mrnet_training" and find_spec("torch") is None:
        pytest.skip("compares with PyTorch, which is no dependency: pip install torch")
    # A process of its own: threads and determinism are set for a whole process.
    path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    command = [sys.executable, str(ROOT / "benchmarks" / f"{name}.py"), *TINY[name]]
    ended = subprocess.run(
        command, env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert re.search(r"ratio \d+\.\d+ \(goal >= [\d.]+\)", ended.stdout)
