"""The run folder: where it is, what stands in its JSON files, and whether it holds a run."""

import datetime
import json
import os
import secrets
import socket
from pathlib import Path

from medkeras.errors import UsageError
from medkeras.files import atomic

LEFT_BEHIND = (".lock", "log.txt")  # by a run that was killed before it began


def place(runs: Path, out, resume: bool) -> tuple[Path, bool]:
    """Chooses the run folder.

    Args:
        runs: folder of the experiment's runs.
        out: value of `--out`, or None for a new folder named by time.
        resume: whether to go on with a run, the newest one without `out`.

    Returns:
        (folder, whether there is a run in it to go on with).

    Raises:
        UsageError: `out` holds a run and `resume` is off, or it holds something else.
    """
    if out:
        folder = Path(out).resolve()
        refuse_files(folder)
        begun = holds_a_run(folder)
        if begun and not resume:
            raise UsageError(f"{folder} holds a run: add --resume, or choose another --out")
        found = {path.name for path in folder.iterdir()} if folder.is_dir() else set()
        if found - set(LEFT_BEHIND) and "status.json" not in found:
            raise UsageError(f"{folder} is not empty and holds no run: choose another --out")
        return folder, begun
    if resume:
        begun = sorted(path for path in runs.glob("*") if holds_a_run(path))
        if begun:
            return begun[-1], True
    return runs / f"{now('%Y%m%d-%H%M%S')}-{secrets.token_hex(2)}", False


def refuse_files(out: Path) -> None:
    """Raises UsageError where a folder cannot be made: `--out` is a file, or lies below one."""
    if any(path.exists() and not path.is_dir() for path in [out, *out.parents]):
        raise UsageError(f"--out {out}: is a file, or lies below one")


def holds_a_run(folder: Path) -> bool:
    """Says whether there is something to lose: not where a run failed before it trained."""
    status = read(folder / "status.json").get("status")
    trained = (folder / "checkpoint").exists() or (folder / "tuning").exists()
    # A run of several, folds or nulls, keeps what it trained in their folders.
    trained = trained or any(folder.glob("*/status.json"))
    return status is not None and (status != "failed" or trained)


def set_status(folder: Path, status: str, **more) -> None:
    """Writes `status.json`, keeping the start and the last epoch.

    Args:
        folder: of the run.
        status: "running", "finished", "failed" or "interrupted".
        more: reason, stage, epoch.
    """
    before = read(folder / "status.json")
    kept = {key: before[key] for key in ("started", "stage", "epoch") if key in before}
    content = {
        "status": status,
        "reason": None,
        "started": now(),
        "stage": None,
        "epoch": None,
        **kept,
        "changed": now(),
        "pid": os.getpid(),
        "host": socket.gethostname(),
        **more,
    }
    atomic.write_json(folder / "status.json", content)


def update(path: Path, facts: dict) -> None:
    """Adds facts to a JSON file."""
    atomic.write_json(path, read(path) | facts)


def read(path: Path) -> dict:
    """Reads a JSON file; an absent one is empty."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}


def now(form="%Y-%m-%dT%H:%M:%SZ") -> str:
    """Formats the present time, UTC."""
    return datetime.datetime.now(datetime.UTC).strftime(form)
