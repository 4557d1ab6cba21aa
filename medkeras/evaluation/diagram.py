"""A model's layers as inline SVG: boxes from left to right, long backbones in named groups.

A box is a layer, or a block of layers whose names share a prefix (Xception's `block13`,
DenseNet's `conv4_block2`, Inception's `mixed7`). Shaded boxes are frozen.
"""

import re
from dataclasses import dataclass, field
from html import escape

import numpy as np

MOST = 25
PER_ROW = 5
WIDTH, HEIGHT, GAP, DOWN, EDGE = 172, 62, 26, 26, 8
# Names that Keras gives by itself say nothing of the block: such a layer joins its neighbours.
AUTOMATIC = re.compile(
    r"(conv2d|separable_conv2d|depthwise_conv2d|batch_normalization|activation|add|concatenate"
    r"|multiply|re_lu|average_pooling2d|max_pooling2d|zero_padding2d|dropout|reshape)(_\d+)?$"
)
BLOCKS = [
    re.compile(r"(mixed\d+(?:_\d+)?)"),
    re.compile(r"(conv\d+_block\d+)"),
    re.compile(r"(block_?\d+[a-z]?)"),
    re.compile(r"((?:stage|stack|layer|pool)_?\d+)"),
    re.compile(r"(conv\d+)_"),
    re.compile(r"(expanded_conv|stem|top)(?:_|$)"),
]
COARSER = re.compile(r"(conv\d+)_block\d+$|(block\d+)[a-z]$")


@dataclass
class Box:
    """Layers drawn as one."""

    name: str
    layers: list = field(default_factory=list)

    @property
    def kind(self) -> str:
        if len(self.layers) > 1:
            return f"{len(self.layers)} layers"
        return type(self.layers[0]).__name__

    @property
    def parameters(self) -> int:
        return sum(_count(layer.weights) for layer in self.layers)

    @property
    def trainable(self) -> int:
        return sum(_count(layer.trainable_weights) for layer in self.layers)

    @property
    def shape(self) -> str:
        output = self.layers[-1].output
        output = output[0] if isinstance(output, list | tuple) else output
        return " × ".join(str(size) if size else "?" for size in output.shape[1:]) or "scalar"


def svg(model, most=MOST) -> str:
    """Draws a functional model.

    Args:
        model: a built `keras.Model`.
        most: largest number of boxes.

    Returns:
        An SVG element; names in it are escaped.
    """
    found = boxes(model, most)
    rows = -(-len(found) // PER_ROW)
    width = PER_ROW * WIDTH + (PER_ROW - 1) * GAP + 2 * EDGE
    height = rows * HEIGHT + (rows - 1) * DOWN + 2 * EDGE
    parts = [_box(n, box) for n, box in enumerate(found)]
    parts += [_arrow(n) for n in range(len(found) - 1)]
    title = escape(f"Layers of {model.name}")
    return (
        f'<svg class="diagram" role="img" aria-label="{title}" viewBox="0 0 {width} {height}" '
        f'xmlns="http://www.w3.org/2000/svg"><title>{title}</title>'
        '<defs><marker id="tip" markerWidth="7" markerHeight="7" refX="6" refY="3" orient="auto">'
        '<path d="M0,0 L6,3 L0,6 z" fill="#8a929c"/></marker></defs>' + "".join(parts) + "</svg>"
    )


def boxes(model, most=MOST) -> list[Box]:
    """Groups a model's layers, in order, into at most `most` boxes."""
    layers = list(model.layers)
    found = [Box(layer.name, [layer]) for layer in layers]
    if len(found) <= most:
        return found
    keys = _keys(layers)
    if not any(keys):
        keys = [_resolution(layer) for layer in layers]
    found = _grouped(layers, keys)
    if len(found) > most:
        keys = [COARSER.sub(lambda m: m[1] or m[2], key) if key else None for key in keys]
        found = _grouped(layers, keys)
    while len(found) > most:
        # Joins the two neighbours that have the fewest layers together.
        totals = [len(a.layers) + len(b.layers) for a, b in zip(found, found[1:], strict=False)]
        n = int(np.argmin(totals))
        first, second = found[n].name.split(" … ")[0], found[n + 1].name.split(" … ")[-1]
        joined = Box(f"{first} … {second}", found[n].layers + found[n + 1].layers)
        found[n : n + 2] = [joined]
    return found


def _keys(layers):
    """The block each layer belongs to, or None for layers of no block."""
    keys = [_block(layer.name) for layer in layers]
    named = [n for n, key in enumerate(keys) if key]
    if not named:
        return keys
    # Inception names the end of a block, the others its layers.
    at_end = keys[named[0]].startswith("mixed")
    order = range(len(keys) - 1, -1, -1) if at_end else range(len(keys))
    last = None
    for n in order:
        if keys[n]:
            last = keys[n]
        elif AUTOMATIC.match(layers[n].name) and n <= named[-1]:
            keys[n] = last
    if at_end:
        # What comes before the first block's own output size is the stem.
        size = _resolution(layers[named[0]])
        for n in range(named[0]):
            if keys[n] and _resolution(layers[n]) != size:
                keys[n] = "stem"
            elif keys[n]:
                break
    return keys


def _block(name):
    for pattern in BLOCKS:
        found = pattern.match(name)
        if found:
            return found[1]
    return None


def _resolution(layer):
    shape = getattr(layer.output, "shape", ())
    return f"{shape[1]} × {shape[2]}" if len(shape) == 4 else None


def _grouped(layers, keys):
    found, by_key = [], {}
    for layer, key in zip(layers, keys, strict=True):
        if key is None:
            found.append(Box(layer.name, [layer]))
        elif key in by_key:
            by_key[key].layers.append(layer)
        else:
            by_key[key] = Box(key, [layer])
            found.append(by_key[key])
    for box in found:
        box.name = box.layers[0].name if len(box.layers) == 1 else box.name
    return found


def _count(weights):
    return sum(int(np.prod(weight.shape)) for weight in weights)


def _place(n):
    return EDGE + n % PER_ROW * (WIDTH + GAP), EDGE + n // PER_ROW * (HEIGHT + DOWN)


def _box(n, box):
    x, y = _place(n)
    frozen = box.parameters > 0 and box.trainable == 0
    fill = "#e3e6ea" if frozen else "#dcebf7" if box.parameters else "#ffffff"
    state = "frozen" if frozen else "trainable" if box.parameters else ""
    if box.parameters and 0 < box.trainable < box.parameters:
        state = f"{box.trainable:,} trainable"
    count = f"{box.parameters:,} parameters" if box.parameters else "no parameters"
    name = box.name if len(box.name) <= 25 else box.name[:24] + "…"
    kind = f"{box.kind} → {box.shape}"
    lines = [(name, 17, 'font-weight="600"'), (kind, 34, ""), (count, 51, 'fill="#5b6470"')]
    texts = "".join(
        f'<text x="{x + 9}" y="{y + at}" font-size="{12 if at == 17 else 10.5}" {extra}>'
        f"{escape(text)}</text>"
        for text, at, extra in lines
    )
    hint = escape(", ".join(layer.name for layer in box.layers[:40]) + (f"; {state}" * bool(state)))
    return (
        f'<g><title>{hint}</title><rect x="{x}" y="{y}" width="{WIDTH}" height="{HEIGHT}" rx="5" '
        f'fill="{fill}" stroke="#aab2bc"/>{texts}</g>'
    )


def _arrow(n):
    x, y = _place(n)
    style = 'fill="none" stroke="#8a929c" marker-end="url(#tip)"'
    if n % PER_ROW < PER_ROW - 1:
        middle = y + HEIGHT / 2
        return f'<path d="M{x + WIDTH},{middle} h{GAP - 2}" {style}/>'
    below = y + HEIGHT + DOWN / 2
    left, start = EDGE + WIDTH / 2, x + WIDTH / 2
    return f'<path d="M{start},{y + HEIGHT} V{below} H{left} v{DOWN / 2 - 2}" {style}/>'
