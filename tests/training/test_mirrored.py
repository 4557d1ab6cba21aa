"""Two replicas learn what one does."""

import subprocess
import sys

import pytest

SCRIPT = """
import keras, numpy as np, pandas as pd, tensorflow as tf
cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
from medkeras.losses import compiled
from medkeras.models import custom_cnn
from medkeras.preparation.pipeline import Data
from medkeras.training import features, fit, loop

count = 90
label = np.arange(count) % 3
table = pd.DataFrame({"label": label, "class": [f"c{n}" for n in label], "patient": "a",
                      "split": ["train"] * 60 + ["val"] * 30})
noise = np.random.default_rng(0).integers(0, 120, (count, 32, 32, 1))
pictures = (noise + label[:, None, None, None] * 40).astype("uint8")
data = Data(table, pictures, "key", 16)

def losses(strategy):
    with strategy.scope():
        keras.utils.set_random_seed(0)
        model = compiled(custom_cnn.v1((32, 32, 1), 3, dropout=0.0), keras.optimizers.Adam(1e-3))
        feed = features.feed(model, data)
        looked_at = []
        def ended(history, best):
            looked_at.append(fit._histograms(None, model, feed, data, None).now()[0])
        rules = loop.Rules(epochs=2)
        progress = loop.train(feed, data, rules, seed=0, hooks=loop.Hooks(epoch=ended))
    return [[row["loss"], row["val_loss"]] for row in progress.history], looked_at[-1]

one, gradient = losses(tf.distribute.get_strategy())
two, same = losses(tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"]))
assert np.allclose(one, two, rtol=1e-5), (one, two)
assert np.allclose(gradient, same, atol=1e-5), np.abs(gradient - same).max()
assert np.abs(gradient).max() > 0
"""


@pytest.mark.slow
def test_two_replicas_have_the_losses_and_gradients_of_one():
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
