"""Grad-CAM of exams: equal to its definition, plane by plane and slice by slice, and well shown."""

import io
import itertools
import json
from pathlib import Path

import keras
import numpy as np
import pandas as pd
import pytest
from PIL import Image

from medkeras.evaluation import explain_exams
from medkeras.evaluation.heat import overlays, pointing
from medkeras.phantoms import knee_mri
from medkeras.preparation import exams
from medkeras.readers import mrnet, tables

SIZE, MAP = 48, 12
PLANES = mrnet.PLANES


def network(outputs=2, frozen=False):
    """One trunk for all planes, averages, maxima over slices, a linear layer."""
    keras.utils.set_random_seed(1)
    trunk = [
        keras.layers.Rescaling(1 / 255, name="rescale"),
        keras.layers.Conv2D(4, 3, strides=2, padding="same", activation="relu", name="c1"),
        keras.layers.Conv2D(8, 3, strides=2, padding="same", activation="relu", name="c2"),
    ]
    pixels = [keras.Input((SIZE, SIZE, 1), name=plane) for plane in PLANES]
    numbers = [keras.Input((), dtype="int32", name=f"{plane}_exam") for plane in PLANES]
    maps, pooled = {}, []
    for plane, x, exam in zip(PLANES, pixels, numbers, strict=True):
        for layer in trunk:
            layer.trainable = not frozen
            x = layer(x)
        maps[plane] = x
        x = keras.layers.GlobalAveragePooling2D()(x)
        pooled.append(keras.ops.segment_max(x, exam, sorted=True))
    logits = keras.layers.Dense(outputs, bias_initializer="he_normal", name="logits")
    model = keras.Model([*pixels, *numbers], logits(keras.layers.Concatenate()(pooled)))
    model.feature_maps, model.feature_map = maps, "c2"
    return model


def exam(*counts, seed=0):
    """Inputs of one exam with so many slices a plane."""
    rng = np.random.default_rng(seed)
    pixels = [rng.integers(0, 256, (n, SIZE, SIZE, 1), dtype=np.uint8) for n in counts]
    return [*pixels, *(np.zeros(n, np.int32) for n in counts)]


def by_hand(model, inputs, finding):
    """Activations of each plane, and the gradient of each slice and channel, without any tape."""
    x = keras.Input((SIZE, SIZE, 1))
    y = model.get_layer("c2")(model.get_layer("c1")(model.get_layer("rescale")(x)))
    trunk = keras.Model(x, y)
    kernels = np.split(model.get_layer("logits").kernel.numpy()[:, finding], len(PLANES))
    for pixels, kernel in zip(inputs[: len(PLANES)], kernels, strict=True):
        activations = trunk(pixels.astype("float32")).numpy()
        winner = activations.mean(axis=(1, 2)).argmax(axis=0)
        gradients = np.zeros((len(pixels), len(kernel)))
        gradients[winner, np.arange(len(kernel))] = kernel / MAP**2
        yield activations, gradients


@pytest.mark.parametrize("frozen", [False, True])
def test_maps_of_planes_that_share_a_trunk_are_those_of_each_plane(frozen):
    model, inputs = network(frozen=frozen), exam(3, 2, 4)
    found = explain_exams.heat(model, inputs, 1)
    spread = explain_exams.heat(model, inputs, 1, per="plane")
    per_slice = explain_exams.heat(model, inputs, 1, per="slice")
    hand = by_hand(model, inputs, 1)
    for plane, (activations, gradients) in zip(PLANES, hand, strict=True):
        own = np.einsum("shwc,sc->shw", activations, gradients)
        together = np.einsum("shwc,c->shw", activations, gradients.mean(axis=0))
        assert found[plane].dtype == np.float32 and found[plane].max() > 0
        np.testing.assert_allclose(found[plane], np.maximum(own, 0), rtol=1e-4, atol=1e-7)
        np.testing.assert_allclose(per_slice[plane], found[plane], rtol=1e-4, atol=1e-7)
        np.testing.assert_allclose(spread[plane], np.maximum(together, 0), rtol=1e-4, atol=1e-7)
    assert list(found) == list(PLANES)


@pytest.mark.parametrize("per", ["place", "slice"])
def test_slices_of_all_planes_add_up_to_the_logit(per):
    model = network()
    bias = model.get_layer("logits").bias.numpy()
    for seed, counts in enumerate([(3, 2, 4), (5, 5, 2), (2, 6, 3)]):
        inputs = exam(*counts, seed=seed)
        for finding, logit in enumerate(model(list(map(keras.ops.array, inputs))).numpy()[0]):
            parts = explain_exams.evidence(model, inputs, finding, per)
            total = sum(part.sum(dtype=float) for part in parts.values())
            assert total == pytest.approx(logit - bias[finding], rel=1e-5, abs=1e-5)
    # Every number of slices and every finding ran through one graph.
    graph = explain_exams._graph(model, explain_exams.WEIGHTS[per])
    assert graph.experimental_get_tracing_count() == 1


def test_a_place_shows_only_what_was_used_there():
    # The map feeds a second convolution: its mean gradient also speaks for what another place used.
    pixels, number = keras.Input((SIZE, SIZE, 1), name="axial"), keras.Input((), dtype="int32")
    early = keras.layers.Conv2D(2, 3, padding="same", activation="relu", name="c1")(pixels)
    late = keras.layers.Conv2D(1, 1, use_bias=False, name="c2")(early)
    # Only the upper half is looked at.
    upper = keras.layers.Cropping2D(((0, SIZE // 2), (0, 0)))(late)
    x = keras.layers.GlobalAveragePooling2D()(upper)
    logits = keras.layers.Dense(1, use_bias=False)(keras.ops.segment_max(x, number, sorted=True))
    model = keras.Model([pixels, number], logits)
    model.feature_maps = {"axial": early}
    inputs = [exam(2)[0], np.zeros(2, np.int32)]
    place, mean = (
        explain_exams.evidence(model, inputs, 0, per)["axial"] for per in ("place", "slice")
    )
    lower = np.s_[:, SIZE // 2 :]
    assert np.abs(place[:, : SIZE // 2]).max() > 0 and not place[lower].any()
    assert mean[lower].any()


def test_no_evidence_stays_zero_and_says_so():
    model = network()
    model.get_layer("logits").kernel.assign(-np.ones((24, 2)))
    found = explain_exams.heat(model, exam(2, 2, 2), 0)
    assert all((one == 0).all() for one in found.values())

    volumes = {"axial": np.full((5, 20, 20), 90, np.uint8)}
    empty = drawn(volumes, {"axial": np.zeros((5, 4, 4), np.float32)}, {})
    hot = drawn(volumes, {"axial": np.eye(4)[None].repeat(5, axis=0)}, {})
    plain, warm = beside(empty)
    np.testing.assert_array_equal(plain, warm)
    plain, warm = beside(hot)
    assert (plain != warm).any()
    heading = slice(overlays.LINE + overlays.MARGIN, 2 * overlays.LINE + overlays.MARGIN)
    assert (empty[heading] != hot[heading]).any()


def drawn(volumes, maps, lesions, **more):
    png = overlays.montage(volumes, maps, lesions, "Evidence for acl.", **more)
    return np.asarray(Image.open(io.BytesIO(png)), dtype=int)


def beside(sheet):
    """The first slice of a montage, and the same under its heat."""
    top, side = 3 * overlays.LINE + overlays.MARGIN, overlays.SHOWN
    row, left = sheet[top : top + side], overlays.MARGIN
    return row[:, left : left + side], row[:, left + side + overlays.GAP :][:, :side]


def test_montage_outlines_the_lesion_on_the_slice_that_has_it():
    volumes = {"axial": np.full((1, 20, 20), 90, np.uint8)}
    maps = {"axial": np.zeros((1, 4, 4), np.float32)}
    mask = np.zeros((1, 20, 20), bool)
    mask[0, 5:10, 12:18] = True
    plain, outlined = beside(drawn(volumes, maps, {"axial": mask}))
    rows, columns = np.nonzero((plain != outlined).any(axis=2))
    assert (rows.min(), rows.max()) == (50, 99) and (columns.min(), columns.max()) == (120, 179)
    assert (drawn(volumes, maps, {}) != drawn(volumes, maps, {}, synthetic=True)).any()


def test_most_active_slices_are_shown_in_their_order():
    assert list(overlays.most_active([0, 9, 1, 0, 5, 7], 3)) == [1, 4, 5]
    assert list(overlays.most_active(np.zeros(7), 3)) == [2, 3, 4]
    assert list(overlays.most_active([1, 2], 3)) == [0, 1]


def test_the_hottest_point_of_all_planes_is_what_counts():
    maps = {"axial": np.zeros((4, 6, 6), np.float32), "coronal": np.zeros((3, 6, 6), np.float32)}
    lesion = {"axial": np.zeros((4, 24, 24), bool)}
    lesion["axial"][2, 8:12, 16:20] = True
    assert pointing.hits(maps, lesion) == (False, False)
    maps["axial"][2, 2, 4] = 1
    assert pointing.hits(maps, lesion) == (True, True)
    maps["axial"][1, 2, 4] = 2  # the same place on the next slice
    assert pointing.hits(maps, lesion) == (False, False)
    maps["axial"][2, 0, 0] = 3  # elsewhere on the slice that shows it
    assert pointing.hits(maps, lesion) == (False, True)
    maps["axial"][2, 2, 4] = 4
    assert pointing.hits(maps, lesion) == (True, True)
    maps["coronal"][0, 2, 4] = 5  # a plane on which no lesion is marked
    assert pointing.hits(maps, lesion) == (False, False)


def test_a_folder_of_masks_holds_anything(tmp_path):
    planes = ("axial", "coronal", "sagittal", "oblique", "other")
    row = {plane: str(tmp_path / "knees" / "valid" / plane / "0042.npy") for plane in planes}
    volumes = {plane: np.zeros((4, 20, 30), np.uint8) for plane in planes}
    mask = np.zeros((4, 40, 40), np.uint8)
    mask[3, 10:20, 20:30] = 255
    written = {"axial": mask, "coronal": mask[1:], "sagittal": mask.astype(str)}
    for plane, one in written.items():
        path = tmp_path / "knees" / "masks" / "acl" / "valid" / plane / "0042.npy"
        path.parent.mkdir(parents=True)
        np.save(path, one)
    (tmp_path / "knees" / "masks" / "acl" / "valid" / "oblique" / "0042.npy").mkdir(parents=True)

    found = pointing.lesions(row, "acl", volumes)
    assert list(found) == ["axial"] and found["axial"].shape == (4, 20, 30)
    expected = np.zeros((4, 20, 30), bool)
    expected[3, 5:10, 15:23] = True  # columns 15 to 22.5
    different = found["axial"] != expected
    assert not different[:, :, :22].any() and not different[:, :, 23:].any()
    assert pointing.lesions(row, "meniscus", volumes) == {}


@pytest.fixture
def small_panels(monkeypatch):
    monkeypatch.setattr(overlays, "SHOWN", SIZE)


@pytest.fixture(scope="module")
def knees(tmp_path_factory):
    root = tmp_path_factory.mktemp("knees") / "MRNet-v1.0"
    options = {"exams": 18, "valid": 12, "size": SIZE, "slices": (4, 6)}
    return mrnet.read(knee_mri.write(root, difficulty=0.0, disagreement=0.0, **options))


def test_gallery_of_every_finding_is_written_without_names(knees, small_run, small_panels):
    table, run = knees.copy(), small_run()
    table.loc[table.index[-1], "acl"] = np.nan
    data = exams.volumes(table, (SIZE, SIZE, 1), 4, findings=knee_mri.LABELS)
    model = network(3)
    gallery = explain_exams.grad_cam(model, data, run, most=6)
    unlabelled, maps = explain_exams.explained(model, data.test, len(data.test) - 1, 1, "chosen")
    assert unlabelled.true == "unknown" and unlabelled.file == "chosen.png"
    assert list(maps) == [f"chosen_{plane}" for plane in PLANES]

    folder = run.folder / "explanations"
    items = gallery.items
    assert [item.finding for item in items] == sorted(["abnormal", "acl", "meniscus"] * 2)
    assert [item.file for item in items] == [
        f"{n:02d}_{i.finding}.png" for n, i in enumerate(items)
    ]
    truth = table.set_index("path")
    for item in items:
        no = f"no {item.finding}"
        assert item.true == (item.finding if truth.loc[item.path, item.finding] else no)
        assert item.predicted in (item.finding, no) and item.probability >= 0.5
        assert item.lesion == (item.true == item.finding) and item.evidence
        assert item.png == (folder / item.file).read_bytes()
        picture = Image.open(io.BytesIO(item.png))
        assert not picture.info and item.path.split("/")[1] not in item.file
        for plane in PLANES:
            raw = np.load(folder / f"{item.file[:-4]}_{plane}.npy", allow_pickle=False)
            slices = len(np.load(truth.loc[item.path, plane]))
            assert raw.shape == (slices, MAP, MAP) and raw.dtype == np.float32 and raw.min() == 0
    index = pd.read_csv(folder / "index.csv")
    assert list(index["file"]) == [item.file for item in items]
    assert sorted(path.suffix for path in folder.iterdir()).count(".npy") == 18
    assert list((run.folder / "tensorboard" / "explanations").iterdir())

    scores = json.loads((folder / "scores.json").read_text())
    test = table[table["split"] == "test"]
    assert scores == gallery.scores and scores["layer"] == "c2"
    covered = {name: [] for name in knee_mri.LABELS}
    for (_, row), name in itertools.product(test.iterrows(), knee_mri.LABELS):
        # A small lesion may lie between two slices.
        if row[name] == 1 and (share := covered_by(row, name)):
            covered[name].append(share)
    for name, shares in covered.items():
        assert scores["findings"][name]["n"] == len(shares) > 0
        assert scores["findings"][name]["chance"] == pytest.approx(np.mean(shares))
    every = np.concatenate(list(covered.values()))
    assert scores["pointing_game"]["n"] == len(every)
    assert scores["pointing_game"]["chance"] == pytest.approx(every.mean())
    assert scores["pointing_game"]["n_patients"] == len(covered["abnormal"])


def covered_by(row, finding):
    """Share of all pixels of an exam that its lesion covers."""
    split, pixels = row["path"].split("/")[0], []
    for plane in PLANES:
        path = Path(row[plane])
        mask = path.parents[2] / "masks" / finding / split / plane / path.name
        pixels.append(np.load(mask) > 0 if mask.exists() else np.zeros(np.load(path).shape, bool))
    return np.concatenate([one.ravel() for one in pixels]).mean()


def test_single_finding_without_masks_is_not_scored(knees, small_run, small_panels, monkeypatch):
    monkeypatch.setattr(pointing, "lesions", lambda *_: {})
    run = small_run(synthetic=False)
    data = exams.volumes(tables.single(knees, "acl"), (SIZE, SIZE, 1), 4)
    gallery = explain_exams.grad_cam(network(1), data, run, most=4, per="plane")
    assert {item.finding for item in gallery.items} == {"acl"} and len(gallery.items) == 4
    assert {item.true for item in gallery.items} == {"acl", "no acl"}
    assert gallery.scores["pointing_game"] is None and gallery.scores["reason"]
    assert gallery.scores["findings"] == {"acl": None}


@pytest.fixture
def planted(tmp_path):
    """Exams of dark slices; those with the finding have a bright square, of which a mask tells."""

    def make(left):
        records = []
        for n, part in enumerate(["train", "train", "test", "test"]):
            record = {"path": f"{part}/{n}", "patient": f"p{n}", "label": n % 2, "split": part}
            record["class"] = ("no acl", "acl")[n % 2]
            for plane in PLANES:
                pixels, mask = np.zeros((2, 3, SIZE, SIZE), np.uint8)
                pixels[:, 0, 0] = 1
                if plane == "coronal" and n % 2:
                    pixels[1, 8:16, 24:32] = 200
                    mask[1, 8:16, left : left + 8] = 255
                for folder, array in {"": pixels, "masks/acl": mask}.items():
                    path = tmp_path / folder / part / plane / f"{n}.npy"
                    path.parent.mkdir(parents=True, exist_ok=True)
                    np.save(path, array)
                record[plane] = str(tmp_path / part / plane / f"{n}.npy")
            records.append(record)
        table = pd.DataFrame(records)
        table.attrs["images"] = list(PLANES)
        return exams.volumes(table, (SIZE, SIZE, 1), 4)

    return make


@pytest.mark.parametrize(("left", "value"), [(24, 1.0), (0, 0.0)])
def test_planted_evidence_wins_the_game_inside_the_lesion_only(
    left, value, planted, small_run, small_panels
):
    model = network(1)
    for name in ("c1", "c2", "logits"):  # adds up brightness
        model.get_layer(name).kernel.assign(np.ones(model.get_layer(name).kernel.shape))
    scores = explain_exams.grad_cam(model, planted(left), small_run()).scores
    game, slices = scores["findings"]["acl"], scores["slice_findings"]["acl"]
    assert game["value"] == value and game["n"] == game["n_patients"] == 1
    assert game["chance"] == pytest.approx(64 / (9 * SIZE**2))
    assert slices["value"] == 1.0 and slices["chance"] == pytest.approx(1 / 9)
    assert scores["pointing_game"] == game and scores["slice_game"] == slices
