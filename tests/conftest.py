"""Fixtures shared by all tests."""

import gc
import hashlib
import os
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
import pandas as pd
import pytest

SHARED = Path(__file__).resolve().parents[2] / "shared"


def pytest_collection_finish():
    """Begins with everything imported left out of later collections."""
    _left_out()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item, nextitem):
    """Goes on so after each file: Keras and TensorFlow keep much of what a test has made."""
    result = yield
    if nextitem is None or nextitem.path != item.path:
        _left_out()
    return result


def _left_out():
    # Keras collects whenever a session is cleared, at half a second for a million objects.
    gc.collect()
    gc.freeze()


@pytest.fixture
def shared():
    """Folder of real pictures and weights beside the checkout; skips where it is absent."""
    if not (SHARED / "data").is_dir():
        pytest.skip("real pictures are not on this machine: ../shared/data is absent")
    return SHARED


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory, monkeypatch):
    """Gives every test a cache folder of its own, so that none sees what another stored."""
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("MEDKERAS_CACHE", str(folder))
    return folder


@pytest.fixture(scope="session")
def phantom_folder(tmp_path_factory):
    """Writes a small bone phantom once for each set of arguments; nobody may write into it."""
    from medkeras.phantoms import bone

    written = {}

    def make(classes=2, size=32, patients=None, pictures=(1, 2)):
        arguments = (classes, size, patients, pictures)
        if arguments not in written:
            written[arguments] = bone.write(
                tmp_path_factory.mktemp("phantom") / "bone",
                classes=bone.CLASSES[:classes],
                patients=patients or 8 * classes,
                pictures_per_patient=pictures,
                size=size,
                difficulty=0.0,
            )
        return written[arguments]

    return make


@pytest.fixture
def content_of():
    """Function of a folder: every file below it by relative path, with size, time and hash."""

    def read(folder):
        return {
            path.relative_to(folder).as_posix(): (
                path.stat().st_mtime_ns,
                hashlib.sha256(path.read_bytes()).hexdigest(),
            )
            for path in sorted(Path(folder).rglob("*"))
            if path.is_file()
        }

    return read


@pytest.fixture
def tiny_data():
    """Makes a data set of noise in memory; the mean grey value says the class, `signal` how well.

    Of every six pictures four are trained on, one validates, one tests; each is a patient.
    """
    from medkeras.preparation.pipeline import Data

    def make(pictures=24, size=16, classes=2, batch_size=3, signal=60, **options):
        number = np.arange(pictures)
        label = number // 6 % classes
        rng = np.random.default_rng(5)
        stored = rng.integers(0, 120, (pictures, size, size, 1), dtype=np.uint8)
        stored += (label * signal).astype(np.uint8)[:, None, None, None]
        table = pd.DataFrame(
            {
                "path": [f"{n:03d}.png" for n in number],
                "patient": [f"p{n:03d}" for n in number],
                "label": label,
                "class": [f"class{n}" for n in label],
                "split": [
                    ("train", "train", "train", "train", "val", "test")[n % 6] for n in number
                ],
            }
        )
        key = hashlib.sha256(stored.tobytes()).hexdigest()
        return Data(table, stored, key, batch_size, **options)

    return make


@pytest.fixture
def deterministic():
    """Makes TensorFlow repeat itself to the bit, as a run does on a CPU."""
    import keras
    import tensorflow as tf

    tf.config.experimental.enable_op_determinism()
    keras.utils.set_random_seed(0)


@pytest.fixture
def tiny_model():
    """Makes a compiled CNN of a few hundred parameters, or one behind a frozen trunk.

    The frozen trunk ends in a residual connection: the first layer that learns (`learns`) reads
    one of its tensors and the sum behind it another.
    """
    import keras

    from medkeras.losses import compiled

    def make(seed=0, *, frozen=False, size=16, outputs=1, dropout=0.3, learning_rate=1e-2, l2=None):
        layers = keras.layers
        keras.utils.set_random_seed(seed)
        image = keras.Input((size, size, 1), name="image")
        x = layers.Rescaling(1 / 255, name="rescale")(image)
        x = layers.Conv2D(4, 3, strides=2, activation="relu", name="conv1")(x)
        x = layers.BatchNormalization(momentum=0.5, name="bn1")(x)
        if frozen:
            y = layers.Conv2D(4, 3, padding="same", use_bias=False, name="conv2")(x)
            y = layers.BatchNormalization(name="bn2")(y)
            y = layers.ReLU(name="relu2")(y)
            y = layers.Conv2D(4, 3, padding="same", name="learns")(y)
            x = layers.Add(name="add")([x, y])
        x = layers.GlobalAveragePooling2D(name="pooling")(x)
        x = layers.Dropout(dropout, name="dropout")(x) if dropout else x
        regularizer = keras.regularizers.L2(l2) if l2 else None
        x = layers.Dense(8, activation="relu", kernel_regularizer=regularizer, name="dense")(x)
        model = keras.Model(image, layers.Dense(outputs, name="logits")(x), name="tiny")
        if frozen:
            for name in ("conv1", "bn1", "conv2", "bn2"):
                model.get_layer(name).trainable = False
        return compiled(model, keras.optimizers.Adam(learning_rate))

    return make


@pytest.fixture
def new_run(tmp_path):
    """Makes or, with `--resume`, reopens a run in a folder, without a page: as `fit` has it."""
    from medkeras.training import commandline, runs

    def make(*argv, folder="run"):
        argv = ["--out", str(tmp_path / folder), *argv]
        flags = commandline.parse("A page.", "page", argv)
        page = tmp_path / "experiments" / "page.py"
        run = runs.Run(page, flags, argv, "data/bone", None, 32)
        if not run.resumed:
            run.folder.mkdir(parents=True, exist_ok=True)
            run.status("running")
        run.terminal.folder = run.folder
        return run

    return make
