"""A small data set on disk, a small model and a run folder, for the whole chain."""

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from PIL import Image

SIZE = 24


@pytest.fixture
def small_table(tmp_path):
    """Makes a split table of real PNG files; the lesion is a bright square with a known mask."""

    def make(names=("healthy", "fractured", "displaced"), pictures=72):
        generator, rows = np.random.default_rng(0), []
        for n in range(pictures):
            label = n % len(names)
            pixels = generator.integers(20, 60, (SIZE, SIZE), dtype=np.uint8)
            mask = np.zeros((SIZE, SIZE), dtype=np.uint8)
            if label:
                top, left = generator.integers(2, SIZE - 8, 2)
                mask[top : top + 6, left : left + 6] = 255
                pixels[mask > 0] += np.uint8(90 * label)
            folder = tmp_path / "data" / f"class{label}"
            folder.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(folder / f"{n}.png")
            Image.fromarray(mask).save(folder / f"{n}_mask.png")
            rows.append(
                {
                    "image": str(folder / f"{n}.png"),
                    "path": f"class{label}/{n}.png",
                    "patient": f"patient-{n // len(names):03d}",
                    "label": label,
                    "class": names[label],
                    "split": ("train", "val", "test", "test")[n // len(names) % 4],
                    "mask": str(folder / f"{n}_mask.png") if label else None,
                    "width": 300 + n,
                    "height": 400 - n,
                }
            )
        return pd.DataFrame(rows)

    return make


@pytest.fixture
def small_model():
    """Makes a small functional CNN with random weights."""

    def make(outputs=3, dtype=None):
        import keras

        keras.utils.set_random_seed(0)
        image = keras.Input((SIZE, SIZE, 1), name="image")
        x = keras.layers.Rescaling(1 / 255, name="rescale", dtype=dtype)(image)
        x = keras.layers.Conv2D(8, 3, padding="same", activation="relu", name="c1", dtype=dtype)(x)
        x = keras.layers.MaxPooling2D(name="p1", dtype=dtype)(x)
        x = keras.layers.Conv2D(8, 3, padding="same", activation="relu", name="c2", dtype=dtype)(x)
        x = keras.layers.GlobalAveragePooling2D(name="pool", dtype=dtype)(x)
        x = keras.layers.Dropout(0.5, name="dropout")(x)
        logits = keras.layers.Dense(outputs, name="logits", dtype=dtype)(x)
        model = keras.Model(image, logits, name="small")
        model.feature_map = "c2"
        model.recipe = {"function": "custom_cnn.v1", "arguments": {"classes": outputs}}
        model.weights_origin = "random"
        return model

    return make


@pytest.fixture
def small_run(tmp_path):
    """Makes a run folder with the files that training leaves."""

    def make(synthetic=True, folder="run"):
        folder = tmp_path / folder
        (folder / "tuning").mkdir(parents=True)
        environment = {
            "medkeras": "0.1.0",
            "command": "python experiments/bone_cnn_v3.py --sample",
            "data": {
                "root_name": "bone",
                "skipped": [{"path": "images/cut.png", "reason": "cut short", "remedy": ""}],
                "notes": ["2 pictures were read as grey"],
            },
        }
        (folder / "environment.json").write_text(json.dumps(environment))
        (folder / "hyperparameters.json").write_text(json.dumps({"units": 64, "dropout": 0.4}))
        columns = ["trial", "status", "score", "epochs", "units", "dropout", "reason"]
        trials = [[0, "COMPLETED", 0.6, 3, 64, 0.4, None], [1, "FAILED", None, 0, 32, 0.4, "NaN"]]
        pd.DataFrame(trials, columns=columns).to_csv(folder / "tuning" / "trials.csv", index=False)
        history = {"stage": [1, 1, 2], "epoch": [1, 2, 3]}
        history |= {name: [0.3, 0.2, 0.1] for name in ("loss", "val_loss")}
        pd.DataFrame(history).to_csv(folder / "history.csv", index=False)
        return SimpleNamespace(
            folder=folder,
            data=Path("data/bone"),
            seed=3,
            synthetic=synthetic,
            experiment="bone_cnn_v3",
        )

    return make
