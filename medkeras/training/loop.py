"""The training loop: a few lines around a step of training and one of testing.

`Model.fit` cannot start in the middle of an epoch, forgets the state of its callbacks, and
saves NaN weights; this loop keeps all of its state in `Progress`, so that a killed run goes
on to the same bits. Steps run inside one graph function, several a call where they are
short, which makes small heads several times faster than one call a step.
"""

import time
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field

import keras
import numpy as np

from medkeras import losses
from medkeras.errors import Diverged, UsageError
from medkeras.preparation import pipeline
from medkeras.training import checkpoint, steps

SAVE_EVERY = 600.0  # seconds, inside an epoch
CALL_SECONDS = 0.5  # aim for one call of the graph


@dataclass(frozen=True)
class Rules:
    """How long a stage trains and which epoch is kept.

    Args:
        epochs: at most this many.
        monitor: a column of the history; decides best epoch, stopping and plateau.
        mode: "min" or "max": the better direction of `monitor`.
        patience: epochs without improvement before stopping; None never stops.
        min_delta: smallest change that counts as improvement.
        plateau_patience: epochs without improvement before the learning rate falls; None
            keeps it.
        plateau_factor: of the learning rate, 0..1.
        min_learning_rate: floor of the learning rate; must lie below the starting one.
        decay: factor on the learning rate after every `decay_every` epochs, 0..1; 1 where the
            optimizer has a schedule of its own, which also needs `plateau_patience=None`.
        decay_every: epochs.
        weigh_validation: weigh the classes in the validation loss as in that of training, so
            that the epoch is chosen by what is trained for; else they count as often as they are.
    """

    epochs: int
    monitor: str = "val_loss"
    mode: str = "min"
    patience: int | None = 8
    min_delta: float = 1e-4
    plateau_patience: int | None = 3
    plateau_factor: float = 0.1
    min_learning_rate: float = 1e-6
    decay: float = 1.0
    decay_every: int = 1
    weigh_validation: bool = False

    def __post_init__(self):
        if self.mode not in ("min", "max"):
            raise UsageError(f"mode {self.mode!r} is neither 'min' nor 'max'")

    def better(self, value: float, best: float | None) -> bool:
        """Says whether a value improves on the best by more than `min_delta`."""
        if best is None:
            return True
        change = best - value if self.mode == "min" else value - best
        return change > self.min_delta


@dataclass
class Progress:
    """Where a stage stands, besides the variables: JSON values only."""

    epoch: int = 0
    batch: int = 0
    best: float | None = None
    best_epoch: int | None = None
    waited: int = 0
    plateau_waited: int = 0
    finished: bool = False
    history: list = field(default_factory=list)


@dataclass(frozen=True)
class Hooks:
    """What the loop tells others.

    Args:
        computed: (views done, views in all) while frozen features are computed.
        step: (batches done, batches, epoch from 0) after each call of the graph.
        epoch: (history, a list of rows; whether the last is the best) after each epoch.
        stopped: asked after each call; True saves the state and raises InterruptedError.
    """

    computed: Callable = lambda done, total: None
    step: Callable = lambda batch, batches, epoch: None
    epoch: Callable = lambda history, best: None
    stopped: Callable = lambda: False


def train(feed, data, rules, *, seed, stage=1, class_weight=None, folder=None, hooks=None):
    """Trains a model until its rules stop it, and leaves the best epoch's weights in it.

    Args:
        feed: `features.Features` or `features.Pictures`; `feed.model` is compiled.
        data: from `pipeline.images`.
        rules: `Rules`.
        seed: of the run: the order of epoch e is a permutation of (seed, stage, e).
        stage: number of the stage, from 1.
        class_weight: weight of each class in the training loss, (classes,), or None.
        folder: `Path` of the stage's checkpoint; None keeps none.
        hooks: `Hooks`, or None.

    Returns:
        `Progress` of the finished stage.

    Raises:
        Diverged: the loss is not finite; the last finite state is kept.
        UsageError: the checkpoint is of another model.
        InterruptedError: `hooks.stopped()` said so, after the state was saved.
    """
    return _Stage(feed, data, rules, seed, stage, class_weight, folder, hooks or Hooks()).run()


class _Stage:
    """What `train` works on."""

    def __init__(self, feed, data, rules, seed, stage, class_weight, folder, hooks):
        self.feed, self.data, self.rules, self.hooks = feed, data, rules, hooks
        self.seed, self.stage, self.folder = seed, stage, folder
        self.model = feed.model
        self.weights = None if class_weight is None else np.asarray(class_weight, np.float32)
        self.batches = -(-len(data.train) // data.batch_size)
        self.progress, self.best = Progress(), None

    def run(self):
        saved = checkpoint.load(self.folder) if self.folder else None
        if not (saved and saved[1]["finished"]):
            self.feed.prepare(self.rules.epochs, self.hooks.computed, self.hooks.stopped)
            self._build()
        if saved:
            self._restore(*saved)
        if not self.progress.finished:
            self._train()
            self.progress.finished = True
            self._save()
        for variable, value in zip(self.model.weights, self.best, strict=True):
            variable.assign(value)
        return self.progress

    def _train(self):
        first = self.progress.epoch * self.batches + self.progress.batch
        last = self.rules.epochs * self.batches
        # Stopped in the last batch, or killed just before the end: there is none left.
        spread = self.model.distribute_strategy.experimental_distribute_dataset
        batches = iter(spread(self._stream(first, last)) if first < last else [])
        train_steps = _graph(self.model, steps.train(self.model))
        test_steps = _graph(self.model, steps.test(self.model))
        val_batches = -(-len(self.data.val) // self.data.batch_size)
        val = spread(pipeline.stream(self._validation_batch, 0, val_batches))
        call, saved_at = 1, time.monotonic()
        while self.progress.epoch < self.rules.epochs and not self._waited_enough():
            if self.progress.batch == 0:
                self.model.reset_metrics()
            while self.progress.batch < self.batches:
                started = time.monotonic()
                count = min(call, self.batches - self.progress.batch)
                train_steps(batches, count)
                self.progress.batch += count
                took = max(time.monotonic() - started, 1e-3)
                call = max(1, min(4 * call, int(count * CALL_SECONDS / took)))
                self._check(self.model.get_metrics_result()["loss"], "training loss")
                self.hooks.step(self.progress.batch, self.batches, self.progress.epoch)
                stopped = self.hooks.stopped()
                if stopped or time.monotonic() - saved_at > SAVE_EVERY:
                    self._save()
                    saved_at = time.monotonic()
                if stopped:
                    raise InterruptedError
            row = self._row("", self.model.get_metrics_result())
            self.model.reset_metrics()
            with _averaged(self.model):
                test_steps(iter(val), val_batches)
                row |= self._row("val_", self.model.get_metrics_result())
                self._judge(row)
            self._end_epoch()
            saved_at = time.monotonic()
            self.hooks.epoch(self.progress.history, self.progress.waited == 0)

    def _build(self):
        """Makes the variables that Keras makes at the first batch: slots and metrics."""
        start = self._rate()
        if self.rules.plateau_patience is not None and self.rules.min_learning_rate >= start:
            raise UsageError(
                f"min_learning_rate {self.rules.min_learning_rate:g} is not below the learning "
                f"rate {start:g}: the plateau could never lower it"
            )
        self.model.optimizer.build(self.model.trainable_variables)
        first = pipeline.as_tensors(self._batch(self.feed.val, "val", [0]))
        self.model.distribute_strategy.run(steps.test(self.model), args=(first,))
        self.model.reset_metrics()

    def _stream(self, first, last):
        return pipeline.stream(self._training_batch, first, last, self.data.workers)

    def _training_batch(self, step):
        epoch, batch = divmod(int(step), self.batches)
        rows = pipeline.order(len(self.data.train), self.seed, self.stage, epoch)
        rows = rows[batch * self.data.batch_size : (batch + 1) * self.data.batch_size]
        return self._batch(lambda rows: self.feed.train(rows, epoch), "train", rows, epoch)

    def _validation_batch(self, step):
        start = int(step) * self.data.batch_size
        rows = np.arange(start, min(start + self.data.batch_size, len(self.data.val)))
        return self._batch(self.feed.val, "val", rows)

    def _batch(self, inputs, part, rows, epoch=0):
        labels = getattr(self.data, part).targets(rows, epoch)
        if self.weights is None or (part == "val" and not self.rules.weigh_validation):
            return inputs(rows), labels
        return inputs(rows), labels, self.weights[labels]

    def _row(self, prefix, metrics):
        return {f"{prefix}{name}": float(value) for name, value in losses.flat(metrics).items()}

    def _judge(self, row):
        progress, rules = self.progress, self.rules
        if rules.monitor not in row:
            raise UsageError(f"monitor {rules.monitor!r} is not one of {', '.join(row)}")
        head = {"stage": self.stage, "epoch": progress.epoch + 1, "learning_rate": self._rate()}
        progress.history.append(head | row)
        # The accuracy of NaN is a number, so the losses are looked at in any case.
        for name in ("loss", "val_loss", rules.monitor):
            self._check(row[name], name)
        if rules.better(row[rules.monitor], progress.best):
            progress.best, progress.best_epoch = row[rules.monitor], progress.epoch + 1
            progress.waited = progress.plateau_waited = 0
            self.best = [checkpoint.copied(variable) for variable in self.model.weights]
        else:
            progress.waited += 1
            progress.plateau_waited += 1

    def _end_epoch(self):
        progress, rules = self.progress, self.rules
        if progress.plateau_waited and progress.plateau_waited == rules.plateau_patience:
            lower = max(self._rate() * rules.plateau_factor, rules.min_learning_rate)
            self.model.optimizer.learning_rate.assign(lower)
            progress.plateau_waited = 0
        progress.epoch, progress.batch = progress.epoch + 1, 0
        if rules.decay != 1 and progress.epoch % rules.decay_every == 0:
            self.model.optimizer.learning_rate.assign(self._rate() * rules.decay)
        self._save()

    def _rate(self):
        return float(keras.ops.convert_to_numpy(self.model.optimizer.learning_rate))

    def _waited_enough(self):
        return self.rules.patience is not None and self.progress.waited >= self.rules.patience

    def _check(self, value, name):
        if not np.isfinite(value):
            raise Diverged(
                f"{name} is {float(value)} in stage {self.stage}, epoch {self.progress.epoch + 1}, "
                f"batch {self.progress.batch}, learning rate "
                f"{self._rate():g}; a lower one may help"
            )

    def _groups(self):
        return {
            "model": self.model.variables,
            "optimizer": self.model.optimizer.variables,
            "metrics": self.model.metrics_variables,
        }

    def _save(self):
        if self.folder:
            groups = self._groups() | {"best": self.best or []}
            checkpoint.save(self.folder, checkpoint.gather(groups), asdict(self.progress))

    def _restore(self, arrays, progress):
        self.progress = Progress(**progress)
        self.best = checkpoint.values(arrays, "best") or None
        if self.progress.finished:
            # The next stage goes on with dropout's seeds, and without compiling with all of it.
            self.model.optimizer.build(self.model.trainable_variables)
        for group, variables in self._groups().items():
            if group == "metrics" and self.progress.finished:
                continue
            try:
                checkpoint.restore(arrays, group, variables)
            except ValueError as fault:
                raise UsageError(
                    f"{self.folder} holds the state of another model ({fault}): "
                    "the page has changed since; start another run"
                ) from fault


@contextmanager
def _averaged(model):
    """Puts the running means of the weights into the model, where its optimizer keeps them.

    They are what is judged and kept: means over the last steps of a training with `use_ema=True`
    err less than the weights of any one step (Polyak and Juditsky, SIAM J. Control 30, 1992).
    """
    if not model.optimizer.use_ema:
        yield
        return
    last = [checkpoint.copied(variable) for variable in model.trainable_variables]
    model.optimizer.finalize_variable_values(model.trainable_variables)
    try:
        yield
    finally:
        for variable, value in zip(model.trainable_variables, last, strict=True):
            variable.assign(value)


def _graph(model, step):
    """Makes a graph function that runs `count` steps on an iterator's batches."""
    import tensorflow as tf

    step = tf.function(step, autograph=False, reduce_retracing=True, jit_compile=model.jit_compile)

    @tf.function(autograph=False, reduce_retracing=True)
    def run(iterator, count):
        def body(done):
            model.distribute_strategy.run(step, args=(next(iterator),))
            return done + 1

        tf.while_loop(lambda done: done < count, body, [tf.constant(0)], parallel_iterations=1)

    return lambda iterator, count: run(iterator, tf.constant(count))
