"""Risk factors, beside the pictures or alone: filled in and scaled by the training part alone.

An unknown value becomes the mean of the training part, which after scaling is 0: no evidence
either way. The published study of joint space loss filled in means of the whole table, the test
part included, and did not scale.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from medkeras.errors import UsageError
from medkeras.preparation import pipeline


@dataclass(frozen=True)
class Scale:
    """How raw risk factors become inputs.

    Args:
        columns: names in the table, in the order of the input.
        fill: stands for an unknown value.
        mean: of the known values in the training part.
        deviation: standard deviation of the same; 1 where all are alike.
    """

    columns: tuple
    fill: tuple
    mean: tuple
    deviation: tuple

    def values(self, table) -> np.ndarray:
        """Returns what the model takes: float32 (rows, factors), about 0, never NaN.

        Args:
            table: rows with the columns, NaN where unknown.

        Raises:
            UsageError: a column is missing; names all that are needed.
        """
        missing = [name for name in self.columns if name not in table]
        if missing:
            raise UsageError(
                f"no risk factor {', '.join(missing)} in the table; "
                f"needed are {', '.join(self.columns)}"
            )
        raw = table[list(self.columns)].to_numpy(float)
        known = np.where(np.isfinite(raw), raw, self.fill)
        return ((known - self.mean) / self.deviation).astype(np.float32)

    def config(self) -> dict:
        """Returns the settings as JSON values, for `predictor.json`."""
        return {
            "columns": list(self.columns),
            "fill": list(self.fill),
            "mean": list(self.mean),
            "deviation": list(self.deviation),
        }


def learned(table, columns) -> Scale:
    """Learns the scale of risk factors.

    Args:
        table: with `split` and the columns; only the rows of the training part are looked at.
        columns: names of the factors.
    """
    known = table.loc[table["split"] == "train", list(columns)]
    mean, deviation = known.mean().fillna(0.0), known.std(ddof=0).fillna(0.0)
    deviation = deviation.where(deviation > 0, 1.0)
    mean, deviation = tuple(mean.tolist()), tuple(deviation.tolist())
    return Scale(tuple(columns), mean, mean, deviation)


@dataclass(frozen=True)
class Part(pipeline.Part):
    """One side of the split, with risk factors."""

    @cached_property
    def factors(self) -> np.ndarray:
        """float32 (n, factors), scaled."""
        return self.data.risks.values(self.table)

    def inputs(self, rows, view=None) -> list[np.ndarray]:
        """Gathers pictures, as `pipeline.Part` does, where they go in; then risk factors (m, k)."""
        pictures = super().inputs(rows, view) if self.data.seen else []
        return [*pictures, self.factors[rows]]

    def given(self, rows, source) -> np.ndarray:
        """Gathers what a model reads as it is: the risk factors."""
        return self.factors[rows]


@dataclass(frozen=True)
class Data(pipeline.Data):
    """Pictures with risk factors.

    Args:
        risks: from `learned`.
        seen: whether the pictures go into the model too; if not, reports still show them.
    """

    risks: Scale | None = None
    seen: bool = True

    def _part(self, name):
        plain = super()._part(name)
        return Part(plain.name, plain.rows, self)


def beside(data: pipeline.Data, columns, use=("image", "risk")) -> pipeline.Data:
    """Adds risk factors to a data set of pictures, or puts them in their place.

    Args:
        data: from `pipeline.images`.
        columns: of its table, such as `readers.knee.RISK_FACTORS`.
        use: what goes into the model, as in `fusion.image_and_risk`: ("image", "risk"), ("risk",),
            or ("image",), which leaves the data as they are.
    """
    if "risk" not in use:
        return data
    fields = {name: getattr(data, name) for name in pipeline.Data.__dataclass_fields__}
    seen = "image" in use
    if not seen:  # nothing is moved that nobody sees
        fields |= {"augment": None, "views": 1}
    return Data(**fields, risks=learned(data.table, columns), seen=seen)
