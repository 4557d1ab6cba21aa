"""What runs left in their folders, read back for comparisons; an unfinished run is read too."""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from medkeras.errors import DataError, Problem, UsageError
from medkeras.evaluation.numbers import metrics

# Rules of a stage that follow from other settings, or from the data.
DERIVED = ("optimizer", "feeding", "class_weight")


@dataclass(frozen=True)
class Record:
    """One run; what it has not written yet is empty.

    Args:
        name: of the folder, with as much of its path as tells it from the other runs.
        folder: of the run.
        status: content of `status.json`.
        environment: content of `environment.json`.
        hyperparameters: content of `hyperparameters.json`.
        history: table of `history.csv`, a row an epoch.
        metrics: content of `metrics.json`.
        predictions: table of `predictions.csv`, or None.
    """

    name: str
    folder: Path
    status: dict
    environment: dict
    hyperparameters: dict
    history: pd.DataFrame
    metrics: dict
    predictions: pd.DataFrame | None

    @property
    def missing(self) -> str:
        """What keeps the run from being compared to the end; empty where nothing does."""
        said = self.status.get("status", "finished")
        if not self.metrics or self.predictions is None:
            lacks = "metrics.json" if not self.metrics else "predictions.csv"
            return f"unfinished: no {lacks}" + (f", {said}" if said != "finished" else "")
        return "" if said == "finished" else f"unfinished: {said}"

    @property
    def synthetic(self) -> bool:
        """Whether its pictures were phantoms."""
        return bool(self.environment.get("data", {}).get("synthetic"))

    @property
    def scored(self) -> list[str]:
        """Findings whose mean the run reports on its own; none where it scores no such mean."""
        return list(self.metrics.get("scored", {}).get("findings", ()))

    @property
    def untrained(self) -> list[str]:
        """Findings that its training part could not teach."""
        return list(self.metrics.get("untrained", ()))

    @property
    def validated(self) -> float | None:
        """AUC of the kept weights on the validation part: of the scored findings, else the mean."""
        if not self.metrics:
            return None
        found = self.metrics["validation"]
        return (found["scored"] if self.scored else found["mean"])["auc"]["value"]

    @property
    def settings(self) -> dict:
        """All that decides the run by name, what the page declares first."""
        found = dict(self.hyperparameters.get("values", {}))
        for name, value in self.hyperparameters.items():
            if name.startswith("stage_"):
                rules = {rule: own for rule, own in value.items() if rule not in DERIVED}
                found |= {f"{name} {rule}": own for rule, own in rules.items()}
            elif name not in ("values", "uncertain_labels"):  # the word for all says it shorter
                found[name] = value
        told = {key: self.environment.get(key) for key in ("seed", "weights_origin")}
        return found | {key: value for key, value in told.items() if value is not None}

    def curves(self) -> pd.DataFrame:
        """Returns loss, val_loss, auc and val_auc of each epoch, NaN where it was not measured.

        Where the history has an AUC for each label, it is their mean in that epoch over the
        labels in which it is defined.
        """
        history = self.history
        found = pd.DataFrame(index=history.index)
        for side in ("", "val_"):
            loss, auc = f"{side}loss", f"{side}auc"
            labels = [name for name in history.columns if name.startswith(f"{auc}_")]
            found[loss] = history.get(loss, np.nan)
            found[auc] = history[auc] if auc in history else history[labels].mean(axis=1)
        return found.astype(float)

    def best(self) -> int | None:
        """Returns the row of the history whose weights were kept; None without epochs.

        It is the best one of the last stage by that stage's monitor, as training chose it.
        """
        if self.history.empty:
            return None
        stages = self.history.get("stage", pd.Series(1, self.history.index))
        rules = self.hyperparameters.get(f"stage_{stages.iloc[-1]}", {})
        monitor = rules.get("monitor", "val_loss")
        if monitor not in self.history:
            return None
        sign = -1 if rules.get("mode", "min") == "min" else 1
        best, kept = -np.inf, None
        for row in self.history.index[stages == stages.iloc[-1]]:
            value = sign * self.history[monitor][row]
            if value - best > rules.get("min_delta", 0.0):
                best, kept = value, int(row)
        return kept


def is_run(folder) -> bool:
    """Says whether a folder is that of a run, finished or not."""
    return any((Path(folder) / name).is_file() for name in ("status.json", "environment.json"))


def expanded(folders) -> list[Path]:
    """Replaces a run of several, such as a grid or folds, by its runs, in the order they began.

    Raises:
        UsageError: a folder is no run.
    """
    found = []
    for folder in map(Path, folders):
        if not is_run(folder):
            what = "is no run: it holds no status.json" if folder.is_dir() else "is not a folder"
            raise UsageError(f"{folder} {what}; give run folders, or the folder of a grid")
        members = [path for path in folder.iterdir() if path.is_dir() and is_run(path)]
        found += sorted(members, key=_began) or [folder]
    return list(dict.fromkeys(path.resolve() for path in found))


def read(folders) -> list[Record]:
    """Reads runs.

    Args:
        folders: of runs, or of runs of several.

    Raises:
        UsageError: a folder is no run.
        DataError: a file in one cannot be read.
    """
    folders = expanded(folders)
    return [_read(folder, name) for folder, name in zip(folders, _names(folders))]


def _names(folders):
    for depth in range(1, max(len(folder.parts) for folder in folders)):
        names = ["/".join(folder.parts[-depth:]) for folder in folders]
        if len(set(names)) == len(names):
            break
    return names


def _read(folder, name):
    history = _file(folder / "history.csv", _table)
    status, environment, hyperparameters = (
        _file(folder / f"{file}.json", _json) or {}
        for file in ("status", "environment", "hyperparameters")
    )
    return Record(
        name=name,
        folder=folder,
        status=status,
        environment=environment,
        hyperparameters=hyperparameters,
        history=pd.DataFrame() if history is None else history,
        metrics=_file(folder / "metrics.json", _scores) or {},
        predictions=_file(folder / "predictions.csv", _predictions),
    )


def _file(path, reader):
    try:
        return reader(path)
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as fault:
        reason = f"cannot be read: {fault}"
        raise DataError([Problem(str(path), reason, "make it again, or leave out the run")]) from (
            fault
        )


def _json(path):
    content = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(content, dict):
        raise ValueError("no JSON object")
    return content


def _scores(path):
    content = _json(path)
    try:
        parts = (content, content["validation"])
        means = [part["mean"]["auc"] for part in parts]
        if "scored" in content:
            means += [part["scored"]["auc"] for part in parts]
            means += [None] * (not isinstance(content["scored"]["findings"], list))
    except (KeyError, TypeError):
        means = [None]
    needed = {"value", "low", "high", "n"}
    if not all(isinstance(auc, dict) and needed <= set(auc) for auc in means):
        raise ValueError("it lacks a mean AUC of the test or the validation part")
    return content


def _table(path):
    return pd.read_csv(path).apply(pd.to_numeric)


def _predictions(path):
    table = metrics.read(path)
    names = metrics.class_names(table)
    needed = {"path", "patient", "split"}
    needed |= {f"{kind}_{name}" for name in names for kind in ("logit", "probability")}
    if not names or not needed <= set(table.columns):
        lacks = sorted(needed - set(table.columns)) or ["label_..."]
        raise ValueError(f"it lacks the columns {', '.join(lacks)}")
    return table


def _began(folder):
    return (_file(folder / "status.json", _json) or {}).get("started", ""), folder.name
