"""Knees with two labels: a KL grade, and joint space loss (JSL). Either may be unknown.

A model with a head for each learns from every knee whose one or other label is known; an unknown
label is NaN, which no loss counts. What one head is judged by is a data set of its own, of the
knees whose label is known there.
"""

import hashlib
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from medkeras.errors import DataError, Problem, UsageError
from medkeras.preparation import pipeline, splits
from medkeras.readers import knee

# Head and column of the table -> names of its values, from 0; heads in the order of the logits.
HEADS = {"kl": knee.GRADES, "jsl": ("no jsl", "jsl")}


@dataclass(frozen=True)
class Part(pipeline.Part):
    """One side of the split, with a label for each head."""

    @cached_property
    def labels(self) -> np.ndarray:
        """Grade and joint space loss, float32 (n, 2); NaN where unknown."""
        return self.table[list(HEADS)].to_numpy(np.float32)


@dataclass(frozen=True)
class Data(pipeline.Data):
    """Pictures with a label for each head, from `both`."""

    task = "multitask"
    classes = (*knee.GRADES, "jsl")  # a logit each

    def head(self, name: str) -> pipeline.Data:
        """Returns what one head is judged by.

        Args:
            name: "kl" for the grades, all five in any case, or "jsl" for two classes.

        Returns:
            Data of one class a picture, without those whose label is unknown.
        """
        kept = np.flatnonzero(self.table[name].notna())
        table = self.table.iloc[kept].reset_index(drop=True)
        label = table[name].astype("int64")
        named = label.map(dict(enumerate(HEADS[name])))
        table = table.assign(label=label, **{"class": named})
        attrs = {key: value for key, value in self.table.attrs.items() if key != "labels"}
        table.attrs = attrs | {"classes": list(HEADS[name])}
        key = hashlib.sha256(f"{self.key} {kept.tolist()}".encode()).hexdigest()[:40]
        own = {"table": table, "stored": Rows(self.stored, kept), "key": key}
        return pipeline.Data(**_fields(self) | own)

    def without_test(self) -> "Data":
        """Returns the same data with the test part out of reach, for selection."""
        table = self.table.copy()
        # The grade stands among the risk factors too, as kl_0 to kl_4.
        known = table.filter(regex=f"^({'|'.join(HEADS)})(_|$)").columns
        table.loc[table["split"] == "test", known] = np.nan
        return replace(self, table=table, hidden=("test",))

    def _part(self, name):
        plain = super()._part(name)
        return Part(plain.name, plain.rows, self)


class Rows:
    """Some of the stored pictures, gathered when they are asked for.

    Args:
        stored: uint8 (rows, height, width, channels).
        kept: positions in it, (n,).
    """

    def __init__(self, stored, kept):
        self.stored, self.kept = stored, kept
        self.shape = (len(kept), *stored.shape[1:])

    def __getitem__(self, rows):
        return self.stored[self.kept[rows]]


def both(data: pipeline.Data) -> Data:
    """Makes a data set for a model with two heads.

    Args:
        data: from `pipeline.images`, of a table with the columns `kl` (0..4) and `jsl` (0, 1),
            float, NaN where unknown.

    Returns:
        The same pictures; targets are float32 (n, 2), the grade first.

    Raises:
        UsageError: the table lacks a column.
        DataError: a head cannot be trained, chosen by or judged, for want of known labels.
    """
    table, problems = data.table.copy(), []
    missing = [name for name in HEADS if name not in table]
    if missing:
        raise UsageError(
            f"no column {' and no '.join(missing)} in the table: two heads need a folder with "
            "JSL.csv (see readers.knee); class folders hold grades alone"
        )
    for name in HEADS:
        found = table.groupby("split")[name].nunique()
        for side, needed in zip(splits.SIDES, (2, 2, 1), strict=True):
            if found.get(side, 0) < needed:
                reason = f"has {found.get(side, 0)} different known values in the part {side}, "
                reason += f"expected {needed} or more"
                problems.append(Problem(name, reason, "add knees, or try another --seed"))
    if problems:
        raise DataError(problems)
    table.attrs["labels"] = list(HEADS)
    return Data(**_fields(data) | {"table": table})


def _fields(data):
    return {name: getattr(data, name) for name in pipeline.Data.__dataclass_fields__}
