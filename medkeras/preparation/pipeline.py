"""Table to batches: every training batch is a pure function of its step number.

The pictures lie in a uint8 memory map (`cache`); a batch gathers rows, augments them and
leaves as float32 in 0..255 (models normalise inside). Because step -> batch is a function,
training can start at any step and see what an uninterrupted run sees.
"""

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from medkeras.errors import DataError, Problem
from medkeras.preparation import cache, conform
from medkeras.preparation.augment import Affine
from medkeras.preparation.uncertainty import Policy, flags
from medkeras.readers import tables


@dataclass(frozen=True)
class Part:
    """One side of the split.

    Args:
        name: "train", "val" or "test".
        rows: positions in the whole table, (n,).
        data: the data set it belongs to.
    """

    name: str
    rows: np.ndarray
    data: "Data"

    def __len__(self):
        return len(self.rows)

    @property
    def table(self):
        """The rows of the table, in order."""
        return self.data.table.iloc[self.rows]

    @cached_property
    def labels(self) -> np.ndarray:
        """Class numbers, int64 (n,); of findings 1, 0 or NaN, float32 (n, findings)."""
        if self.data.findings:
            return self.table[list(self.data.findings)].to_numpy(np.float32)
        return self.table["label"].to_numpy(np.int64)

    def targets(self, rows=slice(None), epoch: int = 0) -> np.ndarray:
        """Returns what the loss compares logits with: the labels, of which a policy makes more.

        Args:
            rows: positions in this part, (m,).
            epoch: number of the epoch, for what a policy draws anew.

        Returns:
            As `labels`; under a policy with a third class (m, 2 findings).
        """
        policy, labels = self.data.policy, self.labels[rows]
        if policy is None:
            return labels
        if self.name == "train":
            return policy.targets(labels, self.uncertain[rows], self.rows[rows], epoch)
        # Validation selects by known labels alone: a third class has no part in it.
        return np.hstack([labels, np.full_like(labels, np.nan)]) if policy.multiclass else labels

    @cached_property
    def uncertain(self) -> np.ndarray:
        """Which labels are marked as uncertain, bool (n, findings)."""
        columns = [flags(self.table, tables.UNCERTAIN + name) for name in self.data.findings]
        return np.column_stack(columns).astype(bool)

    def pictures(self, rows=slice(None)) -> np.ndarray:
        """Gathers pictures as stored: uint8 (n, height, width, channels), no augmentation."""
        return self.data.stored[self.rows[rows]]

    def inputs(self, rows, view: int | None = None) -> list[np.ndarray]:
        """Gathers what the model takes.

        Args:
            rows: positions in this part, (m,).
            view: number of the augmented view; None for the pictures as stored.

        Returns:
            One array, uint8 (m, height, width, channels).
        """
        gathered = self.pictures(rows)
        augment, seed = self.data.augment, self.data.seed
        if augment is None or view is None:
            return [gathered]
        moved = [
            augment.apply(picture, seed, view, int(index))
            for picture, index in zip(gathered, self.rows[rows], strict=True)
        ]
        return [np.stack(moved)]

    def lengths(self, source: str) -> np.ndarray:
        """Counts how many entries of a model's input each row has: one picture, int64 (n,)."""
        return np.ones(len(self), np.int64)

    def batches(self):
        """Yields the inputs of all rows in order, at most `data.batch_size` rows at a time."""
        for start in range(0, len(self), self.data.batch_size):
            yield self.inputs(np.arange(start, min(start + self.data.batch_size, len(self))))


@dataclass(frozen=True)
class Data:
    """A split data set, its pictures stored.

    Args:
        table: one row a picture, with `split`, `patient` and labels (see `readers.tables`).
        stored: uint8 memory map, (rows, height, width, channels).
        key: names the stored pictures: content, order, shape, preprocessing.
        batch_size: pictures a training step.
        augment: augmentation of the training part, or None.
        views: number of augmented views a picture has, or None for a new one each epoch.
        seed: of the augmentation.
        workers: training batches made at the same time.
        hidden: names of parts that raise when they are asked for.
        findings: label columns of 1, 0 or NaN, for many labels a row; () for one class a row.
        policy: what uncertain training labels count as; None leaves them out.
    """

    table: object
    stored: np.ndarray
    key: str
    batch_size: int
    augment: Affine | None = None
    views: int | None = None
    seed: int = 0
    workers: int = 2
    hidden: tuple = ()
    findings: tuple = ()
    policy: Policy | None = None

    unit = "picture"  # what a row is, in words

    def __post_init__(self):
        # A code such as -1 for "uncertain" would be learned as a number.
        for name in self.findings:
            strange = self.table[name].notna() & ~self.table[name].isin([0.0, 1.0])
            if strange.any():
                first = self.table.loc[strange, name].iloc[0]
                reason = f"is {first:g} in {strange.sum()} rows, expected 1, 0 or nothing (unknown)"
                raise DataError([Problem(name, reason, "see medkeras.preparation.uncertainty")])

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(height, width, channels)."""
        return tuple(self.stored.shape[1:])

    @cached_property
    def classes(self) -> list[str]:
        """Names of the findings; else class names by number, those that no picture has included.

        A table without a list of its own has the classes of its training part.
        """
        return list(self.findings) or tables.classes(self.train.table)

    @property
    def outputs(self) -> int:
        """Number of logits: one for two classes, else one a class or finding.

        Under a policy with a third class there is a second one for each finding, after the others:
        evaluation does not read it.
        """
        if self.policy and self.policy.multiclass:
            return 2 * len(self.classes)
        return 1 if self.task == "binary" else len(self.classes)

    @cached_property
    def untrained(self) -> list[str]:
        """Findings that the training part cannot teach: all present, all absent or all unknown."""
        if not self.findings:
            return []
        targets = self.train.targets()[:, : len(self.findings)]
        low, high = np.nanmin(targets, 0, initial=1), np.nanmax(targets, 0, initial=0)
        learned = (low < 0.5) & (high > 0.5)
        return [name for name, one in zip(self.findings, learned, strict=True) if not one]

    @property
    def task(self) -> str:
        """Which question the labels answer: "binary", "multiclass" or "multilabel"."""
        if self.findings:
            return "multilabel"
        return "binary" if len(self.classes) == 2 else "multiclass"

    @property
    def preprocessing(self) -> dict:
        """What was done to the pixels, for `predictor.json`."""
        return dict(conform.CONFIG)

    def key_of(self, source: str) -> str:
        """Names what is stored for one of the model's inputs."""
        return self.key

    @cached_property
    def train(self) -> Part:
        """The part that is learned from: shuffled, augmented."""
        return self._part("train")

    @cached_property
    def val(self) -> Part:
        """The part that selects: in order, as stored."""
        return self._part("val")

    @cached_property
    def test(self) -> Part:
        """The part that is reported on: in order, as stored, seen once."""
        return self._part("test")

    def _part(self, name):
        if name in self.hidden:
            raise PermissionError(f"the {name} part is hidden here: selection never sees it")
        return Part(name, np.flatnonzero(self.table["split"].to_numpy() == name), self)

    def without_test(self) -> "Data":
        """Returns the same data with the test part out of reach, for selection."""
        table = self.table.copy()
        tested = table["split"] == "test"
        if self.findings:
            table.loc[tested, tables.labels(table)] = np.nan
            marks = [name for name in table if name.startswith(tables.UNCERTAIN)]
            table.loc[tested, marks] = False
        else:
            table.loc[tested, ["label", "class"]] = [-1, ""]
        return replace(self, table=table, hidden=("test",))


def images(
    table,
    image_shape,
    batch_size,
    *,
    findings=(),
    policy=None,
    augment=None,
    views=None,
    seed=0,
    workers=2,
    progress=None,
) -> Data:
    """Stores the pictures of a split table and makes its three parts.

    Args:
        table: from `splits.by_patient`.
        image_shape: (height, width, channels).
        batch_size: pictures a training step.
        findings: label columns to be told at once, for a multi-label table.
        policy: from `uncertainty`, for a table with uncertain labels; None leaves them out.
        augment: from `augment`, applied to the training part only; None for none.
        views: K, the number of augmented views of each picture: epoch e sees view e mod K,
            and the features of a frozen backbone are computed K times in all. None draws a
            new view every epoch; nothing can be computed once then.
        seed: of the augmentation.
        workers: training batches made at the same time.
        progress: called with pictures stored and in all, or None.

    Returns:
        The data set.
    """
    table = table.reset_index(drop=True)
    stored = cache.pictures(table, image_shape, progress)
    if augment is None:
        views = 1
    key = cache.key(table, image_shape)
    given = {"findings": tuple(findings), "policy": policy}
    return Data(table, stored, key, batch_size, augment, views, seed, workers, **given)


def order(count: int, seed: int, stage: int, epoch: int) -> np.ndarray:
    """Returns the order of the training pictures: a permutation of (seed, stage, epoch)."""
    return np.random.default_rng((seed, stage, epoch)).permutation(count)


def stream(batch, first: int, last: int, workers: int = 2):
    """Builds a tf.data pipeline of the steps first..last-1.

    Args:
        batch: pure function from a step number to (list of inputs, labels[, weights]).
        first: first step.
        last: one past the last step.
        workers: batches made at the same time.

    Returns:
        Dataset of known length, in order; see `as_tensors` for its elements.
    """
    import tensorflow as tf

    inputs, *rest = batch(first)
    count, example = len(inputs), [*inputs, *rest]

    def flat(step):
        inputs, *rest = batch(step)
        return [*inputs, *rest]

    def one(step):
        # stateful=False: a pure function, which may run in parallel under op determinism.
        types = [array.dtype for array in example]
        arrays = tf.numpy_function(flat, [step], types, stateful=False)
        for array, like in zip(arrays, example, strict=True):
            array.set_shape((None, *like.shape[1:]))
        return as_tensors((arrays[:count], *arrays[count:]))

    steps = tf.data.Dataset.range(first, last)
    steps = steps.map(one, num_parallel_calls=workers, deterministic=True)
    return steps.apply(tf.data.experimental.assert_cardinality(last - first)).prefetch(2)


def as_tensors(batch):
    """Turns a batch into what Keras takes: bare inputs where there is one.

    Pictures and features become float32; what is int32, such as the exam of a slice, stays.

    Args:
        batch: (list of inputs, labels[, weights]).

    Returns:
        The same as a tuple of tensors.
    """
    import tensorflow as tf

    inputs, *rest = batch
    inputs = tuple(
        tf.cast(array, tf.int32 if array.dtype == np.int32 else tf.float32) for array in inputs
    )
    return (inputs[0] if len(inputs) == 1 else inputs, *rest)
