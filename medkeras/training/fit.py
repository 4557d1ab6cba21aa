"""A stage of training, and the step from one stage to the next."""

import difflib
import json
from functools import cache

import keras
import numpy as np
import pandas as pd

from medkeras.errors import UsageError
from medkeras.files import atomic
from medkeras.preparation import pipeline
from medkeras.training import board, features, histograms, loop, settling


def fit(model, data, run, *, epochs, class_weight=None, **rules) -> None:
    """Trains one stage of a run and leaves the best epoch's weights in the model.

    Calls are numbered: the first is stage 1. With `--resume` a finished stage is loaded and
    an unfinished one goes on where its state was last saved. What is frozen before the first
    layer that learns is computed once, and the log says so.

    Args:
        model: compiled functional model.
        data: from `pipeline.images` or `exams.volumes`.
        run: from `runs.start`.
        epochs: at most this many; `--epochs` caps it.
        class_weight: "balanced" weights each class by the inverse of its share of the
            training pictures; "square_root" by the inverse of the root of that share, with a mean
            of 1, which lets rare classes count for more and frequent ones not for little;
            "complement" by the share of the others, which for two classes has the same ratio
            and a mean of at most one half; a list gives the weights; None weights all pictures
            equally.
        rules: see `loop.Rules`: monitor, mode, patience, min_delta, plateau_patience,
            plateau_factor, min_learning_rate, decay, decay_every.

    Raises:
        UsageError: several GPUs for exams.
        Diverged: the loss is not finite.
        Interrupted: stopped by a signal, after the state was saved.
    """
    if data.unit == "exam" and model.distribute_strategy.num_replicas_in_sync > 1:
        raise UsageError("--strategy mirrored divides pictures, not exams: leave it out")
    run.opened(data)
    stage = run.next_stage()
    rules = loop.Rules(epochs=run.capped(epochs), **rules)
    if settling.settle(model, data):
        run.say("random backbone: its batch-norm statistics are set from training pictures")
    feed = features.feed(model, data)
    run.say(f"stage {stage}: {feed.description}")
    weights = weights_of(class_weight, data)
    optimizer = keras.optimizers.serialize(model.optimizer)
    run.used(
        f"stage_{stage}",
        {
            **vars(rules),
            "class_weight": weights,
            "optimizer": json.loads(json.dumps(optimizer, default=float)),
            "feeding": feed.description,
        },
    )
    # Only now: `build` declares its hyperparameters while it runs, defaults included.
    if run.hyperparameters:
        run.used("values", run.choices | visible(run.hyperparameters))
    run.note(weights_origin=getattr(model, "weights_origin", "not stated"))

    before = len(run.history)  # epochs of the stages before
    boards = {side: board.Board(run.folder / "tensorboard" / side) for side in SIDES}
    # Made at the first epoch's end: before, the features are not there and Keras not built.
    looked_at = cache(lambda: _histograms(boards["train"], model, feed, data, weights))

    def ended(history, best):
        row = history[-1]
        atomic.write_csv(run.folder / "history.csv", pd.DataFrame([*run.history, *history]))
        step = before + row["epoch"]
        for side, values in split_sides(row).items():
            boards[side].scalars(step, values)
        looked_at().write(step, first=row["epoch"] == 1)
        run.epoch_ended(row, rules, best)

    with run.terminal.bar(f"stage {stage}") as shown:
        hooks = loop.Hooks(
            computed=lambda done, total: shown(done, total, "computing the frozen part"),
            step=lambda batch, batches, epoch: shown(
                epoch + batch / batches, rules.epochs, f"epoch {epoch + 1}/{rules.epochs}"
            ),
            epoch=ended,
            stopped=run.stopping,
        )
        progress = loop.train(
            feed,
            data,
            rules,
            seed=run.seed,
            stage=stage,
            class_weight=weights,
            folder=run.folder / "checkpoint" / f"stage-{stage}",
            hooks=hooks,
        )
    run.history += progress.history
    atomic.write_csv(run.folder / "history.csv", pd.DataFrame(run.history))
    for one in boards.values():
        one.close()
    run.say(
        f"stage {stage}: best {rules.monitor} {progress.best:.4f} in epoch "
        f"{progress.best_epoch} of {len(progress.history)}"
    )
    with atomic.writing(run.folder / "model.keras") as temporary:
        model.save(temporary)


def visible(hp) -> dict:
    """Returns the values of hyperparameters without those that KerasTuner keeps for itself."""
    return {name: value for name, value in hp.values.items() if not name.startswith("tuner/")}


def unfreeze(model, first: str | None = None):
    """Lets a layer and all after it learn, batch norms excepted.

    Batch norms keep the statistics they were trained with: small batches of radiographs
    would replace them by worse ones. Compile the model again afterwards.

    Args:
        model: functional model.
        first: name of the first layer that learns; None for all of them.

    Returns:
        The model.

    Raises:
        UsageError: there is no such layer; names the nearest.
    """
    names = [layer.name for layer in model.layers]
    first = first or names[0]
    if first not in names:
        near = difflib.get_close_matches(first, names, n=3) or names[-3:]
        raise UsageError(f"no layer {first!r} in the model; near: {', '.join(near)}")
    # Layer by layer: setting a model's own flag can be ignored when it is already True.
    for layer in model.layers[names.index(first) :]:
        if not isinstance(layer, keras.layers.BatchNormalization):
            layer.trainable = True
    return model


def weights_of(class_weight, data) -> list[float] | None:
    """Returns the weight of each class, from the training part alone.

    Args:
        class_weight: as in `fit`.
        data: from `pipeline.images`.

    Raises:
        UsageError: another word, another number of weights than classes, or findings.
    """
    if class_weight is None:
        return None
    if data.findings:
        raise UsageError(
            "class_weight is for classes; findings are weighed by `losses.positive_weights`"
        )
    count = len(data.classes)
    if isinstance(class_weight, str):
        if class_weight not in WORDS:
            raise UsageError(f"class_weight {class_weight!r} is none of {', '.join(WORDS)}, a list")
        # A class that no picture has weighs something finite, and nothing in the loss.
        present = np.maximum(np.bincount(data.train.labels, minlength=count), 1)
        share = present / len(data.train)
        if class_weight == "complement":
            return (1 - share).tolist()
        if class_weight == "square_root":
            return (share**-0.5 / (share**0.5).sum()).tolist()
        return (1 / (count * share)).tolist()
    if len(class_weight) != count:
        raise UsageError(f"class_weight has {len(class_weight)} weights for {count} classes")
    return [float(weight) for weight in class_weight]


WORDS = ("balanced", "complement", "square_root")
SIDES = ("train", "validation")


def split_sides(row: dict) -> dict:
    """Sorts a history row into TensorBoard's two sides, under the same tags.

    Args:
        row: with `learning_rate`, metrics and `val_` metrics.
    """
    train = {f"epoch/{k}": v for k, v in row.items() if k not in ("stage", "epoch")}
    validation = {k.replace("/val_", "/"): train.pop(k) for k in [*train] if "/val_" in k}
    return {"train": train, "validation": validation}


def _histograms(writer, model, feed, data, weights):
    count = histograms.probe_size(len(data.train), data.batch_size)
    rows = np.arange(count)
    targets = data.train.targets(rows)
    batch = [feed.train(rows, 0), targets]
    if weights is not None:
        batch.append(np.asarray(weights, np.float32)[targets])
    return histograms.Histograms(writer, model, feed.model, pipeline.as_tensors(batch))
