"""Kills real runs in the middle of each stage; what is resumed ends in the same bytes."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(900),
    pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="this system has no SIGKILL"),
]


def started(name, out, data, cache, *flags):
    arguments = ["--data", data, "--out", out, "--epochs", 6, "--weights", "none", *flags]
    # The path stands for the set-up, which installs the package in place.
    environment = {**os.environ, "MEDKERAS_CACHE": str(cache), "PYTHONPATH": str(ROOT)}
    return subprocess.Popen(
        [sys.executable, ROOT / "experiments" / f"{name}.py", *map(str, arguments)],
        env=environment,
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def finished(process):
    said, _ = process.communicate(timeout=300)
    assert process.returncode == 0, said
    return said


def killed_after(process, log, line):
    """Waits until the log holds a line, then kills: the next epoch has begun."""
    with process:
        while process.poll() is None:
            if log.exists() and line in log.read_text():
                process.kill()
                break
            time.sleep(0.002)
        said = process.stdout.read()
    assert process.returncode == -signal.SIGKILL, f"ended before it could be killed: {said}"


@pytest.mark.parametrize(
    ("name", "size", "stages"), [("bone_cnn_v1", 48, 1), ("bone_xception", 71, 2)]
)
def test_a_run_killed_in_each_stage_ends_in_the_same_bytes(
    name, size, stages, phantom_folder, tmp_path
):
    data = phantom_folder(2, size, patients=24, pictures=(3, 4))
    flags = ["--image-size", size, "--seed", 1]
    if name == "bone_xception":
        flags += ["--set", "units=256"]
    whole, out = tmp_path / "whole", tmp_path / "killed"
    finished(started(name, whole, data, tmp_path / "cache1", *flags))

    for stage in range(1, stages + 1):
        process = started(name, out, data, tmp_path / "cache2", *flags, "--resume")
        killed_after(process, out / "log.txt", f"stage {stage} epoch 2/")
        status = json.loads((out / "status.json").read_text())
        assert (status["status"], status["stage"]) == ("running", stage)
        assert status["epoch"] < 6 and not (out / "predictions.csv").exists()
    said = finished(started(name, out, data, tmp_path / "cache2", *flags, "--resume"))

    assert "stage 1 epoch 1/" not in said and said.splitlines()[-1] == str(out)
    assert json.loads((out / "status.json").read_text())["status"] == "finished"
    for file in ("predictions.csv", "history.csv", "metrics.json", "split.csv"):
        assert (out / file).read_bytes() == (whole / file).read_bytes(), file
    assert not [path for path in out.rglob("*.tmp*")], "nothing is left to be cleaned by hand"
