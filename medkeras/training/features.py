"""The frozen part of a model, computed once.

Everything before the first layer that learns is a fixed function of the picture. Its
output is computed once for every picture and view, kept in the cache folder, and only the
rest is trained, with the same losses as training the whole. The cut is found anew for each
stage; `trunk` and `tail` share the model's variables, so nothing is copied back.
"""

import hashlib
import json
import shutil
from contextlib import ExitStack

import keras
import numpy as np

from medkeras.files import atomic
from medkeras.files.places import cache_folder
from medkeras.preparation import cache
from medkeras.training.cut import apart, cut, fingerprint, source_of


class Pictures:
    """Feeds the whole model: pictures from the store, augmented as they are needed."""

    def __init__(self, model, data):
        self.model, self.data = model, data
        self.description = "whole model in the graph"

    def prepare(self, epochs, progress=None, stopped=lambda: False):
        """Does nothing: pictures are stored already."""

    def train(self, rows, epoch) -> list[np.ndarray]:
        """Returns the inputs for some training pictures in an epoch."""
        view = epoch if self.data.views is None else epoch % self.data.views
        return self.data.train.inputs(rows, view)

    def val(self, rows) -> list[np.ndarray]:
        """Returns the inputs for some validation pictures."""
        return self.data.val.inputs(rows)


class Features:
    """Feeds the tail: stored outputs of the trunk, one file a view.

    Each input of pictures has a trunk of its own, and so has each of several backbones on one: what
    several models share, or several planes of an exam, is found again under the same name.

    Args:
        model: the whole model; its compile settings are given to the tail.
        data: from `pipeline.images` or `exams.volumes`.
        border: `cut.Cut`, what the tail reads.
    """

    def __init__(self, model, data, border):
        self.data = data
        # Keras moves the history of inputs that a second model shares with tensors from inside the
        # first, which then cannot be saved any more.
        histories = [tensor._keras_history for tensor in border.given]
        self.trunks = [
            Trunk(model, source, together)
            for source, tensors in border.fixed.items()
            for together in apart(tensors)
        ]
        inputs = [tensor for trunk in self.trunks for tensor in trunk.tensors] + border.given
        self.model = keras.Model(inputs[0] if len(inputs) == 1 else inputs, model.output)
        for tensor, history in zip(border.given, histories, strict=True):
            tensor._keras_history = history
        self.model.compile_from_config(model.get_compile_config())
        self.given = [source_of(tensor) for tensor in border.given]
        computed = {id(layer) for trunk in self.trunks for layer in trunk.model.layers}
        self.description = (
            f"frozen part computed once: {len(computed)} of {len(model.layers)} layers, "
            f"{data.views} view(s) of each training {data.unit}"
        )
        self.stored = {}

    def bytes(self, epochs) -> int:
        """Returns the room the features take, in bytes."""
        views, total = min(self.data.views, epochs), 0
        for trunk in self.trunks:
            train, val = (part.lengths(trunk.source) for part in (self.data.train, self.data.val))
            entries = views * int(train.sum()) + int(val.sum())
            total += 4 * entries * sum(int(np.prod(shape)) for shape in trunk.shapes)
        return total

    def prepare(self, epochs, progress=None, stopped=lambda: False):
        """Computes the features of all views that are not stored yet.

        Args:
            epochs: at most this many views are needed.
            progress: called with views done (a fraction) and in all, or None.
            stopped: asked between batches; True raises InterruptedError.
        """
        views = [("train", view) for view in range(min(self.data.views, epochs))]
        views.append(("val", None))
        steps = [(part, view, trunk) for part, view in views for trunk in self.trunks]
        for number, (part, view, trunk) in enumerate(steps):

            def computed(share, number=number):
                if stopped():
                    raise InterruptedError
                if progress:
                    progress((number + share) / len(self.trunks), len(views))

            self.stored[part, view, trunk] = trunk.outputs(self.data, part, view, computed)

    def train(self, rows, epoch) -> list[np.ndarray]:
        """Returns the tail's inputs for some training pictures in an epoch."""
        return self._inputs("train", epoch % self.data.views, rows)

    def val(self, rows) -> list[np.ndarray]:
        """Returns the tail's inputs for some validation pictures."""
        return self._inputs("val", None, rows)

    def _inputs(self, part, view, rows):
        found = [
            array
            for trunk in self.trunks
            for array in self.stored[part, view, trunk].gathered(rows)
        ]
        return found + [getattr(self.data, part).given(rows, one) for one in self.given]


class Trunk:
    """The frozen part behind one input of pictures.

    Args:
        model: the whole model.
        source: name of the input.
        tensors: fixed outputs to compute.
    """

    def __init__(self, model, source, tensors):
        self.source, self.tensors = source, tensors
        (self.number,) = [n for n, one in enumerate(model.inputs) if source_of(one) == source]
        outputs = tensors[0] if len(tensors) == 1 else tensors
        self.model = keras.Model(model.inputs[self.number], outputs)
        self.shapes = [tuple(tensor.shape[1:]) for tensor in tensors]
        self.name = fingerprint(self.model)
        self._forward = _forward(self.model)

    def outputs(self, data, part_name, view, computed):
        """Opens the outputs for a part of the data, computing them first where they are not."""
        part = getattr(data, part_name)
        augment = data.augment if part_name == "train" else None
        recipe = {
            "trunk": self.name,
            "pictures": data.key_of(self.source),
            "rows": part.rows.tolist(),
            "augment": augment and [self.source, augment.config()],
            "view": view if augment else None,
            "seed": data.seed if augment else None,
            "batch": data.batch_size,
            "keras": keras.__version__,
        }
        key = hashlib.sha256(json.dumps(recipe, sort_keys=True).encode()).hexdigest()[:40]
        folder = cache_folder() / "features"
        paths = [folder / f"{key}-{number}.npy" for number in range(len(self.shapes))]
        starts = np.concatenate([[0], np.cumsum(part.lengths(self.source))])
        shapes = [(int(starts[-1]), *shape) for shape in self.shapes]
        stored = [cache.opened(p, s, np.float32) for p, s in zip(paths, shapes, strict=True)]
        if any(array is None for array in stored):
            folder.mkdir(parents=True, exist_ok=True)
            self._compute(part, view, paths, shapes, starts, computed)
            stored = [cache.opened(p, s, np.float32) for p, s in zip(paths, shapes, strict=True)]
        return Stored(stored, starts)

    def _compute(self, part, view, paths, shapes, starts, computed):
        size = part.data.batch_size
        firsts = range(0, len(part), size)
        with ExitStack() as files:
            arrays = [
                np.lib.format.open_memmap(
                    files.enter_context(atomic.writing(path)), "w+", np.float32, shape
                )
                for path, shape in zip(paths, shapes, strict=True)
            ]
            for done, first in enumerate(firsts, start=1):
                last = min(first + size, len(part))
                pictures = part.inputs(np.arange(first, last), view)[self.number]
                for array, output in zip(arrays, self._forward(pictures), strict=True):
                    array[starts[first] : starts[last]] = output.numpy()
                computed(done / len(firsts))
            for array in arrays:
                array.flush()


class Stored:
    """Stored outputs of a trunk: entries of all rows of a part, one after the other.

    Args:
        arrays: (entries, ...) each.
        starts: first entry of each row, and the number of all, (n + 1,).
    """

    def __init__(self, arrays, starts):
        self.arrays, self.starts = arrays, starts
        self.one_each = len(starts) == starts[-1] + 1

    def gathered(self, rows) -> list[np.ndarray]:
        """Returns the entries of some rows, in their order."""
        if self.one_each:
            return [array[rows] for array in self.arrays]
        spans = [slice(self.starts[row], self.starts[row + 1]) for row in rows]
        return [np.concatenate([array[span] for span in spans]) for array in self.arrays]


def feed(model, data, *, plain=False):
    """Chooses how a compiled model is trained: its tail on stored features, or the whole.

    Args:
        model: compiled functional model.
        data: from `pipeline.images`.
        plain: train the whole model in any case.

    Returns:
        `Features` where a prefix with weights is frozen, the views are counted and the
        features fit into half of the free disk; else `Pictures`. `description` says which.
    """
    border = None if plain else cut(model)
    whole = Pictures(model, data)
    if not border:
        whole.description += ": " + ("asked for" if plain else "no frozen part to compute once")
        return whole
    if data.views is None:
        whole.description = (
            "whole model in the graph: a new view every epoch (views=None) cannot be stored"
        )
        return whole
    features = Features(model, data, border)
    free = shutil.disk_usage(_existing(cache_folder())).free
    if features.bytes(data.views) > free / 2:
        whole.description = (
            f"whole model in the graph: the frozen part's features would take "
            f"{features.bytes(data.views) / 1e9:.1f} GB, more than half of the "
            f"{free / 1e9:.1f} GB free in {cache_folder()}"
        )
        return whole
    return features


def _forward(trunk):
    import tensorflow as tf

    @tf.function(autograph=False, input_signature=[tf.TensorSpec(trunk.input.shape, tf.uint8)])
    def forward(pictures):
        return keras.tree.flatten(trunk(tf.cast(pictures, tf.float32), training=False))

    return forward


def _existing(folder):
    return next(parent for parent in [folder, *folder.parents] if parent.exists())
