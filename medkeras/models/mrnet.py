"""Networks for knee MRI exams: convolutions a slice, one vector an exam, three planes.

Every slice of a plane goes through a convolution stack and a global average, which gives 256
numbers; `slices` pools them over the slices of the exam; the planes' vectors, side by side, feed
one linear layer. At 256 x 256 pixels, three planes, with the batch norms' moving statistics:

| model | stack | logits | parameters |
|---|---|---|---|
| views("basic") | shared: 4 convolutions | 1 | 1,114,241 |
| views("relu") | shared: 4 convolutions, batch norm, dropout | 1 | 1,117,057 (1,115,649 learn) |
| views("leaky") | the same with LeakyReLU, more dropout | 1 | 1,117,057 (1,115,649 learn) |
| views("pretrained") | shared: AlexNet | 1 | 2,470,465 |
| triple | AlexNet, one a plane | 3 | 7,411,395 |

With one plane and one logit, either network with AlexNet is that of Bien et al., "Deep-learning-
assisted diagnosis for knee magnetic resonance imaging: Development and retrospective validation
of MRNet", PLOS Medicine 15(11), e1002699 (2018).

A batch is the slices of its exams, one after another, without padding. Inputs: the pixels of each
plane (slices, height, width, channels), 0..255, in layers named after the planes; then, in the
same order, the exam of each slice (slices,), 0, 1, ..., sorted, in layers `axial_exam`, ....

As published are layers, widths, rates, slopes, padding and the scaling of the pixels, which is
inside. Different are: the planes' order (axial, coronal, sagittal; published: axial, sagittal,
coronal); random weights, which are He's (uniform), not PyTorch's default; several exams may make
a batch. A picture below 127 pixels (63 with AlexNet) loses the pools that no longer fit: that is
for trials on small samples, not for results.
"""

import keras

from medkeras import layers
from medkeras.errors import UsageError
from medkeras.models import alexnet, pretrained
from medkeras.models.recipe import recipe
from medkeras.readers.mrnet import PLANES

# Dropout rate of each block; None where there is neither dropout nor batch norm.
VARIANTS = {
    "basic": (None, None, None, None),
    "relu": (0.2, 0.4, 0.4, 0.4),
    "leaky": (0.2, 0.5, 0.5, 0.5),
    "pretrained": None,
}
BLOCKS = ((64, 11), (128, 5), (256, 3), (256, 3))  # filters, side of the kernel
MEAN, DEVIATION = 58.09, 49.73  # of MRNet's pixels, each volume stretched to 0..255
SMALLEST = 32  # pixels
EXPLAINED = 14  # pixels a side that a map needs to show where something is, if there is one


@recipe
def views(
    variant="basic",
    image_shape=(256, 256, 1),
    classes=1,
    *,
    planes=PLANES,
    slices="max",
    frozen=False,
    weights=None,
):
    """Builds a network whose planes share one convolution stack.

    Pixels are standardised by (x - 58.09) / 49.73. A batch norm sees one plane's slices at a
    time; dropout draws anew for each plane.

    Args:
        variant: "basic", "relu", "leaky" or "pretrained"; see the table above.
        image_shape: (height, width, channels), pixels, at least 32 a side; one channel is
            seen as three.
        classes: number of logits; 1 for one finding.
        planes: those that are looked at, out of "axial", "coronal", "sagittal".
        slices: "max" (published), "mean" or "attention"; see `layers.pool_slices`.
        frozen: whether the stack keeps its weights; it then has no dropout either.
        weights: None or "none" (random), the path of a weights file of this stack, or the
            folder of a run with this variant; for "pretrained" also "imagenet" (converted by
            `medkeras.models.convert`, else an error) or "auto" (the same, else a warning and
            random weights). For the others "auto" is random.

    Returns:
        An uncompiled functional model, inputs as above, logits (exams, classes) out.
        `model.feature_maps` holds for each plane the tensor to explain: the last activation of
        at least 14 x 14; `model.feature_map` names its layers, `model.weights_origin` says where
        the weights came from.

    Raises:
        UsageError: where an argument or the weights cannot be used.
        ResourceError: where `weights="imagenet"` finds no converted weights.
    """
    if variant not in VARIANTS:
        raise UsageError(f"variant must be one of {', '.join(VARIANTS)}; got {variant!r}")
    if variant == "pretrained":
        stack, name = alexnet.stack(), "alexnet"
    else:
        stack, name = _stack(VARIANTS[variant], variant == "leaky", frozen), f"mrnet {variant}"
        if weights == "imagenet":
            raise UsageError(f"there are no ImageNet weights of mrnet {variant}; use pretrained")
        weights = None if weights == "auto" else weights
    stacks = {plane: stack for plane in _checked(planes)}
    scale = (1 / DEVIATION, -MEAN / DEVIATION)
    model, trunks = _network(stacks, scale, image_shape, classes, slices, f"mrnet_{variant}")
    model.weights_origin = pretrained.load(trunks[0], name, weights)
    return _frozen(model, stacks, frozen)


@recipe
def triple(
    image_shape=(256, 256, 1),
    classes=3,
    *,
    planes=PLANES,
    slices="max",
    frozen=False,
    weights=None,
):
    """Builds a network with an AlexNet for each plane, its layers named `axial_conv1`, ....

    Pixels are divided by 255.

    Args:
        image_shape: (height, width, channels), pixels, at least 32 a side; one channel is
            seen as three.
        classes: number of logits, one a finding.
        planes: as in `views`.
        slices: as in `views`.
        frozen: whether the AlexNets keep their weights.
        weights: as in `views` for "pretrained"; loaded into each AlexNet, of a run those of
            the same plane.

    Returns:
        A model as from `views`.

    Raises:
        UsageError: where an argument or the weights cannot be used.
        ResourceError: where `weights="imagenet"` finds no converted weights.
    """
    stacks = {plane: alexnet.stack(f"{plane}_") for plane in _checked(planes)}
    model, trunks = _network(stacks, (1 / 255, 0.0), image_shape, classes, slices, "mrnet_triple")
    for trunk in trunks:
        model.weights_origin = pretrained.load(trunk, "alexnet", weights)
        if model.weights_origin == "random":
            weights = None  # the warning is said once
    return _frozen(model, stacks, frozen)


def _stack(rates, leaky, frozen):
    """Builds the four blocks: convolution, batch norm, activation, dropout, pool."""
    stack = [keras.layers.ZeroPadding2D(2, name="block1_pad")]
    for block, ((filters, size), rate) in enumerate(zip(BLOCKS, rates), start=1):
        name = f"block{block}"
        kind = layers.GreyConv2D if block == 1 else keras.layers.Conv2D
        stack.append(
            kind(
                filters,
                size,
                strides=4 if block == 1 else 1,
                padding="valid" if block == 1 else "same",
                kernel_initializer="he_uniform",
                name=f"{name}_conv",
            )
        )
        if rate:
            norm = keras.layers.BatchNormalization(momentum=0.9, epsilon=1e-5, name=f"{name}_bn")
            stack.append(norm)
        if leaky:
            stack.append(keras.layers.LeakyReLU(negative_slope=0.1, name=f"{name}_relu"))
        else:
            stack.append(keras.layers.ReLU(name=f"{name}_relu"))
        if rate and not frozen:
            stack.append(keras.layers.Dropout(rate, name=f"{name}_dropout"))
        stack.append(keras.layers.MaxPooling2D(3, 2, name=f"{name}_pool"))
    return stack


def _checked(planes):
    known = isinstance(planes, (tuple, list)) and set(planes) <= set(PLANES)
    if not known or not planes or len(set(planes)) != len(planes):
        raise UsageError(f"planes must be some of {', '.join(PLANES)}, each once; got {planes!r}")
    return planes


def _network(stacks, scale, image_shape, classes, slices, name):
    """Builds the model of one stack a plane; returns it and each plane's part up to its maps."""
    pixels, exams, pooled, trunks, explained = [], [], [], [], {}
    for plane, stack in stacks.items():
        image = layers.image_input(image_shape, SMALLEST, name=plane)
        exam = keras.Input((), dtype="int32", name=f"{plane}_exam")
        x = layers.rescale(image, *scale, name=f"{plane}_rescale")
        outputs = layers.applied(stack, x)
        *_, maps = outputs.values()
        x = keras.layers.GlobalAveragePooling2D(name=f"{plane}_average")(maps)
        pooled.append(layers.pool_slices(x, exam, slices, f"{plane}_slices"))
        pixels.append(image)
        exams.append(exam)
        trunks.append(keras.Model(image, maps))
        explained[plane] = _explained(stack, outputs)
    x = pooled[0]
    if len(pooled) > 1:
        x = keras.layers.Concatenate(dtype="float32", name="planes")(pooled)
    model = keras.Model([*pixels, *exams], layers.logits(x, classes), name=name)
    model.feature_maps = {plane: maps for plane, (_, maps) in explained.items()}
    model.feature_map = ", ".join(dict.fromkeys(layer for layer, _ in explained.values()))
    return model, trunks


def _explained(stack, outputs):
    """Finds the last activation whose map is large enough to show a place: (name, tensor)."""
    activations = [
        layer.name
        for layer in stack
        if isinstance(layer, (keras.layers.ReLU, keras.layers.LeakyReLU))
    ]
    fine = [name for name in activations if min(outputs[name].shape[1:3]) >= EXPLAINED]
    chosen = fine[-1] if fine else activations[0]
    return chosen, outputs[chosen]


def _frozen(model, stacks, frozen):
    for stack in stacks.values():
        for layer in stack:
            layer.trainable = not frozen
    return model
