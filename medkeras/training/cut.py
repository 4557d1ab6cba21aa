"""Where the frozen part of a model ends, and what it is called."""

import hashlib
import json
from dataclasses import dataclass
from itertools import chain

import keras
import numpy as np

# Settings of a layer that change nothing of what it computes with weights that are given.
NO_PART = ("_regularizer", "_initializer", "_constraint")


@dataclass(frozen=True)
class Cut:
    """Where the frozen part of a model ends.

    Args:
        fixed: tensors that the rest reads, by the one input of pictures that they depend on.
        given: inputs that the rest reads as they are: what is no picture, such as the number of a
            slice's exam, or risk factors.
    """

    fixed: dict
    given: list


def cut(model) -> Cut | None:
    """Finds every fixed tensor that a layer which is not fixed reads.

    An output is fixed if its layer has no trainable variable and no random state, and all
    its inputs are fixed. Inputs that are no pictures are not: a number of an exam is a matter of
    the batch, and a few risk factors are not worth storing again.

    Args:
        model: flat functional model.

    Returns:
        The cut; None where nothing fixed lies behind a layer with weights, so that nothing is
        worth keeping, or where it mixes several inputs of pictures.
    """
    fixed, border = {}, {}  # tensor id -> (sources, whether weights lie before it); id -> tensor
    given = [t for t in model.inputs if len(t.shape) != 4]
    for depth in sorted(model._nodes_by_depth, reverse=True):
        for node in model._nodes_by_depth[depth]:
            inputs = node.input_tensors
            if not inputs:
                fixed |= {
                    id(t): (frozenset([source_of(t)]), False)
                    for t in node.outputs
                    if not any(t is one for one in given)
                }
            elif all(id(t) in fixed for t in inputs) and not _learns_or_draws(node.operation):
                sources = frozenset().union(*(fixed[id(t)][0] for t in inputs))
                weighted = _works(node.operation)
                weighted = weighted or any(fixed[id(t)][1] for t in inputs)
                fixed |= {id(t): (sources, weighted) for t in node.outputs}
            else:
                border |= {id(t): t for t in inputs if id(t) in fixed}
    if not any(fixed[number][1] for number in border):
        return None
    if any(len(fixed[number][0]) > 1 for number in border):
        return None
    by_source = {}
    for number, tensor in border.items():
        by_source.setdefault(*fixed[number][0], []).append(tensor)
    return Cut(by_source, given)


def apart(tensors) -> list[list]:
    """Groups fixed tensors by the weights that they depend on.

    What joins several groups, such as the concatenation of the features of several backbones, is
    left to whoever reads the groups: its inputs take its place.

    Args:
        tensors: of one model.

    Returns:
        Groups of which no two share a layer with weights, so that each can be computed alone.
    """
    groups = _grouped(tensors)
    for tensor in tensors:
        operation, inputs = _made_by(tensor)
        joins = not _works(operation) and all(map(_weighted, inputs))
        if joins and len(_grouped(inputs)) > 1:
            others = [one for one in tensors if one is not tensor]
            known = {id(one) for one in others}
            return apart(others + [one for one in inputs if id(one) not in known])
    return groups


def _grouped(tensors):
    groups = []  # of (the layers with weights, the tensors)
    for tensor in tensors:
        layers, together, others = _weighted(tensor), [], []
        for group in groups:
            if group[0] & layers:
                layers, together = layers | group[0], together + group[1]
            else:
                others.append(group)
        groups = [*others, (layers, [*together, tensor])]
    return [together for _, together in groups]


def _weighted(tensor):
    """Numbers of the operations with weights before a tensor."""
    found, seen, left = set(), set(), [tensor]
    while left:
        one = left.pop()
        if id(one) in seen:
            continue
        seen.add(id(one))
        operation, inputs = _made_by(one)
        if _works(operation):
            found.add(id(operation))
        left += inputs
    return found


def _made_by(tensor):
    """The operation that a tensor comes from, and what it was called with."""
    operation, node = tensor._keras_history[:2]
    return operation, operation._inbound_nodes[node].input_tensors


def source_of(tensor) -> str:
    """Names the operation that a Keras tensor comes from."""
    return tensor._keras_history.operation.name


def fingerprint(trunk) -> str:
    """Names what a frozen part computes: layers, wiring, weights and outputs, not layer names.

    Automatic names count up within a process; two trials' trunks must be found equal.
    """
    digest = hashlib.sha256()
    # Operations, not layers: `image / 127.5` in a page is no layer, and its 127.5 no setting.
    position = {id(operation): number for number, operation in enumerate(trunk.operations)}
    wiring = {number: [] for number in position.values()}
    for node in chain.from_iterable(trunk._nodes_by_depth.values()):
        given = keras.tree.flatten([node.arguments.args, node.arguments.kwargs])
        wiring[position[id(node.operation)]].append([_named(value, position) for value in given])
    for number, operation in enumerate(trunk.operations):
        config = operation.get_config()
        for setting in [*config]:
            if setting in ("name", "trainable") or setting.endswith(NO_PART):
                del config[setting]
        described = [type(operation).__name__, config, wiring[number]]
        digest.update(json.dumps(described, sort_keys=True, default=str).encode())
        for weight in getattr(operation, "weights", []):
            digest.update(np.ascontiguousarray(weight.numpy()))
    digest.update(json.dumps([_named(one, position) for one in trunk.outputs]).encode())
    return digest.hexdigest()


def _named(value, position):
    """Names an argument of a call: by the operation it comes from, else by its value."""
    if isinstance(value, keras.KerasTensor):
        source = value._keras_history
        return ["from", position[id(source.operation)], source.tensor_index]
    return np.asarray(value).tolist()


def _works(operation) -> bool:
    """Says whether an operation has weights; those of a normalisation of pixels are no work."""
    weights = getattr(operation, "weights", None)
    return bool(weights) and not isinstance(operation, keras.layers.Normalization)


def _learns_or_draws(operation) -> bool:
    if not isinstance(operation, keras.layers.Layer):
        return False
    if operation.trainable_variables:
        return True
    if isinstance(operation, keras.layers.BatchNormalization):
        return operation.trainable
    return bool(operation._seed_generators) and getattr(operation, "rate", 1) > 0
