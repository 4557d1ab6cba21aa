"""TensorBoard event files: scalars, histograms, pictures and sweep trials.

Written with TensorBoard's own writer and NumPy: `tf.summary.histogram` needs twelve times
the time for the same counts, and does not run where XLA compiles the training step.
"""

import contextlib
import io
import logging
import time

import numpy as np

BINS = 30


class Board:
    """Writes one event file; a full disk loses the rest of it, never the training.

    Args:
        folder: of the event file; made where it is missing.
    """

    def __init__(self, folder):
        from tensorboard.summary.writer.event_file_writer import EventFileWriter

        folder.mkdir(parents=True, exist_ok=True)
        self._writer = EventFileWriter(str(folder))
        self._lost = False

    def scalars(self, step: int, values: dict) -> None:
        """Writes numbers by tag."""
        from tensorboard.plugins.scalar.summary_v2 import scalar_pb

        for tag, value in values.items():
            self._add(scalar_pb(tag, value), step)

    def histogram(self, step: int, tag: str, values: np.ndarray, description="") -> None:
        """Writes the distribution of an array in 30 bins of equal width.

        Args:
            step: epoch.
            tag: unique for the variable.
            values: array of any shape; values that are not finite are left out.
            description: shown beside the chart.
        """
        from tensorboard.compat.proto import summary_pb2
        from tensorboard.plugins.histogram import metadata
        from tensorboard.util import tensor_util

        finite = _finite(values)
        try:
            counts, edges = np.histogram(finite, bins=BINS)
        except ValueError:  # numbers so near to each other that float32 has no edges between
            counts, edges = np.histogram(finite.astype(np.float64), bins=BINS)
        buckets = np.column_stack([edges[:-1], edges[1:], counts])
        summary = summary_pb2.Summary()
        summary.value.add(
            tag=tag,
            metadata=metadata.create_summary_metadata(display_name=tag, description=description),
            tensor=tensor_util.make_tensor_proto(buckets, dtype=np.float64),
        )
        self._add(summary, step)

    def picture(self, step: int, tag: str, png: bytes, description="") -> None:
        """Writes a PNG picture."""
        from PIL import Image
        from tensorboard.compat.proto import summary_pb2
        from tensorboard.plugins.image import metadata
        from tensorboard.util import tensor_util

        width, height = Image.open(io.BytesIO(png), formats=("PNG",)).size
        summary = summary_pb2.Summary()
        summary.value.add(
            tag=tag,
            metadata=metadata.create_summary_metadata(tag, description, converted_to_tensor=True),
            tensor=tensor_util.make_tensor_proto(
                [str(width).encode(), str(height).encode(), png], dtype="string"
            ),
        )
        self._add(summary, step)

    def trial(self, number: str, hyperparameters: dict, scores: dict) -> None:
        """Writes a sweep's trial for the HParams tab."""
        from tensorboard.plugins.hparams import api

        self._add(api.hparams_pb(hyperparameters, trial_id=number), 0)
        self.scalars(0, scores)

    def close(self) -> None:
        """Flushes and closes the file."""
        with self._forgiving():
            self._writer.close()

    def _add(self, summary, step):
        from tensorboard.compat.proto import event_pb2

        event = event_pb2.Event(wall_time=time.time(), step=step)
        # Some plugins make TensorFlow's message class, others TensorBoard's: same bytes.
        event.summary.ParseFromString(summary.SerializeToString())
        if not self._lost:
            with self._forgiving():
                self._writer.add_event(event)

    @contextlib.contextmanager
    def _forgiving(self):
        try:
            yield
        except OSError as fault:
            if not self._lost:
                logging.getLogger("medkeras").warning("TensorBoard file not written: %s", fault)
            self._lost = True


def _finite(values):
    values = np.asarray(values, np.float32).ravel()
    finite = np.isfinite(values)
    return values if finite.all() else values[finite]
