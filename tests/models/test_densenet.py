"""The small DenseNet is built as those of `keras.applications`, with fewer layers a block."""

import keras
import pytest

from medkeras.errors import ResourceError
from medkeras.models import transfer


def test_the_small_densenet_is_the_beginning_of_each_block_of_the_large_one():
    small = transfer.densenet_tiny((64, 64, 1), 14, weights=None, frozen=False)
    large = keras.applications.DenseNet121(include_top=False, weights=None, input_shape=(64, 64, 3))
    known = {layer.name: layer for layer in large.layers}
    own = [one for one in small.layers if one.name.startswith(("conv", "pool")) and one.weights]
    assert len([one for one in own if isinstance(one, keras.layers.Conv2D)]) == 20
    for layer in own:
        config, other = layer.get_config(), known[layer.name].get_config()
        for name in ("kernel_size", "strides", "use_bias", "epsilon"):
            assert config.get(name) == other.get(name), (layer.name, name)
        if layer.name.endswith(("_1_conv", "_2_conv", "conv1_conv")):
            assert config["filters"] == other["filters"]
    assert small.count_params() == 419_776 + 128 * 14 + 14


def test_it_has_no_imagenet_weights_and_says_so(caplog):
    with pytest.raises(ResourceError, match="densenet_tiny: there are none"):
        transfer.densenet_tiny((32, 32, 1), 1, weights="imagenet")
    assert transfer.densenet_tiny((32, 32, 1), 1, weights="auto").weights_origin == "random"
    assert "RANDOM" in caplog.text
