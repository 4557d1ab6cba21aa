"""A model's layers as inline SVG: boxes from left to right, long backbones in named groups.

A box is a layer, or a block of layers whose names share a prefix (Xception's `block13`,
DenseNet's `conv4_block2`, Inception's `mixed7`). Shaded boxes are frozen. A model that looks at
several inputs, such as the planes of an exam, has a row for each (`lanes`).
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
    rows = lanes(model)
    if len(rows) == 1:
        found = boxes(rows[0], most)
        rows = [found[start : start + PER_ROW] for start in range(0, len(found), PER_ROW)]
        ends = [_turn] * (len(rows) - 1)
    else:
        rows = [boxes(row, PER_ROW) for row in rows]
        ends = [_nothing] * (len(rows) - 1)
    width = PER_ROW * WIDTH + (PER_ROW - 1) * GAP + 2 * EDGE
    height = len(rows) * HEIGHT + (len(rows) - 1) * DOWN + 2 * EDGE
    places = [(row, column) for row, own in enumerate(rows) for column in range(len(own))]
    parts = [_box(*place, rows[place[0]][place[1]]) for place in places]
    parts += [_next(*place) for place in places if place[1] < len(rows[place[0]]) - 1]
    parts += [end(row, len(rows[row]) - 1) for row, end in enumerate(ends)]
    title = escape(f"Layers of {model.name}")
    return (
        f'<svg class="diagram" role="img" aria-label="{title}" viewBox="0 0 {width} {height}" '
        f'xmlns="http://www.w3.org/2000/svg"><title>{title}</title>'
        '<defs><marker id="tip" markerWidth="7" markerHeight="7" refX="6" refY="3" orient="auto">'
        '<path d="M0,0 L6,3 L0,6 z" fill="#8a929c"/></marker></defs>' + "".join(parts) + "</svg>"
    )


def lanes(model) -> list[list]:
    """Sorts a model's layers into rows, in order.

    Returns:
        All layers in one list where there is one input of pictures. Else a list for each such
        input, one of the layers that several inputs share, and one of what they join in.
    """
    pictures = [tensor for tensor in model.inputs if len(tensor.shape) == 4]
    if len(pictures) < 2:
        return [list(model.layers)]
    names = {id(tensor): tensor._keras_history.operation.name for tensor in pictures}
    behind = {key: {name} for key, name in names.items()}  # tensor id -> inputs it depends on
    calls = {}  # layer id -> inputs behind each of its calls
    for depth in sorted(model._nodes_by_depth, reverse=True):
        for node in model._nodes_by_depth[depth]:
            found = set().union(*(behind.get(id(t), set()) for t in node.input_tensors))
            for tensor in node.outputs:
                behind.setdefault(id(tensor), found)
            calls.setdefault(id(node.operation), []).append(behind[id(node.outputs[0])])
    rows = {name: [] for name in [*names.values(), "shared", "joined"]}
    for layer in model.layers:
        own = calls[id(layer)]
        if len(set().union(*own)) == 1:
            rows[next(iter(own[0]))].append(layer)
        elif any(own):  # an input that says whose the slices are is drawn nowhere
            rows["shared" if max(map(len, own)) == 1 else "joined"].append(layer)
    return [row for row in rows.values() if row]


def boxes(layers, most=MOST) -> list[Box]:
    """Groups layers, in order, into at most `most` boxes."""
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


def _place(row, column):
    return EDGE + column * (WIDTH + GAP), EDGE + row * (HEIGHT + DOWN)


def _box(row, column, box):
    x, y = _place(row, column)
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


STYLE = 'fill="none" stroke="#8a929c" marker-end="url(#tip)"'


def _next(row, column):
    x, y = _place(row, column)
    return f'<path d="M{x + WIDTH},{y + HEIGHT / 2} h{GAP - 2}" {STYLE}/>'


def _turn(row, column):
    """Leads from the end of a row to the beginning of the next."""
    x, y = _place(row, column)
    below = y + HEIGHT + DOWN / 2
    left, start = EDGE + WIDTH / 2, x + WIDTH / 2
    return f'<path d="M{start},{y + HEIGHT} V{below} H{left} v{DOWN / 2 - 2}" {STYLE}/>'


def _nothing(row, column):
    return ""
