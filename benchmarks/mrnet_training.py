"""Training of the knee MRI network: our loop against PyTorch with one exam a batch, as published.

Both train `mrnet.views("pretrained")`: AlexNet's convolutions, shared by three planes, the mean
of each slice, the largest of an exam's slices, one logit; every weight learns, by Adam with a
coupled weight decay. Ours is `loop.train`, in float32 and, where the CPU computes in it, with
`mixed_bfloat16`: stored uint8 volumes, standardised in the model. Theirs is `_mrnet_torch.py`,
in float32: each volume read, standardised in float64 and stacked to three channels in every
epoch, PyTorch's default layout. The goals hold for step and loading together; the step alone
works on batches that are ready. Counted is an epoch after a first one, which traces.

The logit of one exam must agree to 1e-4 under the same weights, else the exit code is 1.

The share of the peak: the operations of our convolutions in a training step (forward, gradient of
the weights, gradient of the input except the pictures'; the first reads one grey channel) by the
time of our float32 step alone, against the best run of one large 3x3 convolution in the same
process. The ratio to PyTorch's step that this peak allows is printed: it depends on the CPU.

Memory is the peak of the whole process, libraries included, over two epochs.

Each side is run in processes of its own, the sides in turn; the figures are medians. PyTorch is
no dependency: `pip install torch`. Without it the exit code is 2.

    python benchmarks/mrnet_training.py [--size 256] [--exams 4] [--repeats 3]
"""

import importlib.util
import json
import subprocess
import sys
import time
from pathlib import Path
from statistics import median

import keras
import numpy as np
from _measure import Clock, conclude, flags, knees, reopened, workplace
from _memory import peak

from medkeras import layers
from medkeras.losses import compiled
from medkeras.models import alexnet, mrnet
from medkeras.preparation import exams, pipeline
from medkeras.readers import tables
from medkeras.training import environment, features, loop, optimizers

GOALS = {"float32": 1.3, "bfloat16": 2}
PEAK_GOAL, MEMORY_GOAL, TOLERANCE = 0.85, 1.5, 1e-4
TORCH = "PyTorch, float32, one exam a batch"
RULES = loop.Rules(epochs=2, patience=None, plateau_patience=None)


def has_bfloat16():
    """Says whether this CPU multiplies bfloat16 (read from /proc: Linux)."""
    told = Path("/proc/cpuinfo")
    words = set(told.read_text().split()) if told.exists() else set()
    return bool(words & {"avx512_bf16", "amx_bf16"})


def trained(folder, precision):
    """Measures our side in this process; prints it as JSON."""
    table = tables.single(reopened(folder), "abnormal")
    size = np.load(table["axial"][0], mmap_mode="r", allow_pickle=False).shape[1]
    environment.prepare(0, precision)
    data = exams.volumes(table, (size, size, 1), 1, stretch=True)
    model = mrnet.views("pretrained", data.image_shape)
    compiled(model, optimizers.CoupledAdam(1e-5, decay=0.01), curves=True)
    apart = difference(model, data, np.load(folder / "published.npz", allow_pickle=False))
    found = {"epoch": epoch_seconds(model, data), "megabytes": peak()}
    found["step"] = step_seconds(model, data)
    slices = sum(data.train.lengths(plane).sum() for plane in data.planes)
    found["rate"] = operations(size) * int(slices) / found["step"] / 1e9
    found["peak"] = convolution_peak() if precision == "float32" else None
    print(json.dumps(found | {"apart": apart}))


def difference(model, data, published):
    """Gives the model PyTorch's weights; returns how far apart the logits of an exam are."""
    for name, number in alexnet.CONVOLUTIONS.items():
        kernel, bias = (published[f"features.{number}.{kind}"] for kind in ("weight", "bias"))
        model.get_layer(name).set_weights([kernel.transpose(2, 3, 1, 0), bias])
    kernel, bias = published["classifier.weight"], published["classifier.bias"]
    model.get_layer("logits").set_weights([kernel.T, bias])
    inputs, _ = pipeline.as_tensors((data.train.inputs(np.array([0])), data.train.labels[:1]))
    return float(np.max(np.abs(model(inputs).numpy() - published["logit"])))


def epoch_seconds(model, data):
    """Returns the CPU seconds of the second epoch of `loop.train`, without its validation."""
    seconds = []

    def step(batch, batches, epoch):
        if epoch == 1 and batch == batches:
            seconds.append(time.process_time() - seconds[0])

    hooks = loop.Hooks(step=step, epoch=lambda history, best: seconds.append(time.process_time()))
    loop.train(features.feed(model, data), data, RULES, seed=0, hooks=hooks)
    return seconds[1]


def step_seconds(model, data):
    """Returns the CPU seconds of the training steps of an epoch, batches ready."""
    import tensorflow as tf

    train, rows = data.train, np.arange(len(data.train))[:, None]
    batches = [pipeline.as_tensors((train.inputs(row), train.labels[row])) for row in rows]
    shapes = keras.tree.map_structure(
        lambda x: tf.TensorSpec([None, *x.shape[1:]], x.dtype), batches[0]
    )
    step = tf.function(model.train_step, input_signature=[shapes], autograph=False)
    step(batches[0])
    with Clock() as clock:
        for batch in batches:
            step(batch)
    return clock.seconds


def operations(side):
    """Counts the operations of the convolutions in a training step, one slice."""
    stack = alexnet.stack()
    outputs = layers.applied(stack, keras.Input((side, side, 3)))
    forward = [
        2 * int(np.prod(outputs[layer.name].shape[1:3])) * int(np.prod(layer.kernel.shape))
        for layer in stack
        if layer.name in alexnet.CONVOLUTIONS
    ]
    forward[0] //= 3  # one channel of grey pictures; PyTorch's convolves three equal ones
    return 3 * sum(forward) - forward[0]


def convolution_peak(count=64, side=15, channels=384, times=20):
    """Returns the best GFLOP a CPU second of a 3x3 convolution."""
    import tensorflow as tf

    x = tf.ones((count, side, side, channels))
    kernel = tf.ones((3, 3, channels, channels))
    convolve = tf.function(lambda: tf.nn.conv2d(x, kernel, 1, "SAME"), autograph=False)
    convolve()
    seconds = []
    for _ in range(times):
        with Clock() as clock:
            convolve()
        seconds.append(clock.seconds)
    return 2 * count * side**2 * 9 * channels**2 / min(seconds) / 1e9


def run(side, folder):
    """Runs one side in a process of its own; returns what it found."""
    ours = [__file__, "--side", side, str(folder)]
    theirs = [str(Path(__file__).with_name("_mrnet_torch.py")), str(folder)]
    command = [sys.executable, *(theirs if side == "torch" else ours)]
    printed = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return json.loads(printed.stdout.splitlines()[-1])


def main():
    given = flags(__doc__, size=256, exams=4, repeats=3)
    if importlib.util.find_spec("torch") is None:
        print("the other side is PyTorch, which is not installed: pip install torch")
        return 2
    sides = ["torch", *(GOALS if has_bfloat16() else ["float32"])]
    with workplace() as folder:
        table = knees(folder / "exams", given.exams, given.size)
        rounds = [
            {side: run(side, folder / "exams") for side in sides} for _ in range(given.repeats)
        ]

    def middle(side, what):
        return median(found[side][what] for found in rounds)

    count = int((table["split"] == "train").sum())
    print(f"{count} exams of 3 planes, {given.size} pixels; {given.repeats} runs of each side")
    for side in sides[1:]:
        for what, named in (("epoch", "ratio"), ("step", "ratio of the step alone")):
            ours, theirs = (middle(one, what) / count for one in (side, "torch"))
            unit, named = "CPU s an exam", f"{side} {named}"
            conclude((f"ours, {side}", ours), (TORCH, theirs), GOALS[side], unit, named, 2)
    if len(sides) == 2:
        print("bfloat16: skipped, this CPU does not compute in it")

    rate, best = middle("float32", "rate"), middle("float32", "peak")
    print(f"{rate:12.4f} GFLOP a CPU s  our float32 step")
    print(f"{best:12.4f} GFLOP a CPU s  one large 3x3 convolution")
    print(f"peak ratio {rate / best:.2f} (goal >= {PEAK_GOAL})")
    limit = middle("torch", "step") / middle("float32", "step") * best / rate
    print(f"at that peak the float32 ratio of the step alone would be {limit:.2f}")
    for side in sides[1:]:
        ours, theirs = (middle(one, "megabytes") for one in (side, "torch"))
        print(f"{ours:12.1f} MB  ours, {side}")
        print(f"{theirs:12.1f} MB  {TORCH}")
        print(f"{side} memory ratio {ours / theirs:.2f} (goal <= {MEMORY_GOAL})")
    apart = max(found["float32"]["apart"] for found in rounds)
    print(f"logits agree to {apart:.1e} (at most {TOLERANCE:g})")
    return int(not apart <= TOLERANCE)


if __name__ == "__main__":
    sys.exit(trained(Path(sys.argv[3]), sys.argv[2]) if "--side" in sys.argv else main())
