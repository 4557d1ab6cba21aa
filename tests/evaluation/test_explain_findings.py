"""Many findings a picture: maps equal to those made one by one, and the right ones shown."""

import io
import json
from pathlib import Path
from types import SimpleNamespace

import keras
import numpy as np
import pandas as pd
import pytest
from PIL import Image

from medkeras.evaluation import explain, explain_findings
from medkeras.evaluation.heat import explain_maps, lime, overlays, overlays_findings, pointing
from medkeras.models import transfer
from medkeras.phantoms import chest
from medkeras.preparation import pipeline, uncertainty
from medkeras.preparation.uncertainty import Policy
from medkeras.readers import chexpert, tables

SIZE = 32
SHAPE = (SIZE, SIZE, 1)


def network(kind="plain", outputs=3):
    """A small network whose layer "c2" is explained."""
    keras.utils.set_random_seed(0)
    layers, image = keras.layers, keras.Input(SHAPE, name="image")
    x = layers.Rescaling(1 / 255, name="rescale")(image)
    x = layers.Conv2D(4, 3, strides=2, activation="relu", name="c1")(x)
    seen = layers.Conv2D(6, 3, strides=2, activation="relu", name="c2")(x)
    y = seen
    if kind == "several":  # readers of the map, and a way past it
        y = layers.Conv2D(6, 3, padding="same", activation="relu", name="c3")(seen)
        y = layers.Add(name="add")([y, seen, layers.Conv2D(6, 3, strides=2, name="past")(x)])
    y = layers.GlobalAveragePooling2D(name="pool")(y)
    if kind == "two":  # a second trunk
        other = layers.Conv2D(5, 3, activation="relu", name="other")(image)
        y = layers.Concatenate()([y, layers.GlobalAveragePooling2D(name="pool2")(other)])
    y = layers.Dense(8, activation="relu", name="head")(y) if kind == "deep" else y
    model = keras.Model(image, layers.Dense(outputs, name="logits")(y))
    model.feature_map = "c2"
    return model


def pictures(n=5):
    return np.random.default_rng(0).integers(0, 256, (n, *SHAPE), dtype=np.uint8)


def by_hand(model, batch):
    """Gradient times activation at each place, one finding at a time, through the whole model."""
    import tensorflow as tf

    both, maps = keras.Model(model.input, [model.get_layer("c2").output, model.output]), []
    for finding in range(3):
        with tf.GradientTape() as tape:
            activations, values = both(batch.astype(np.float32))
            answer = tf.reduce_sum(values[:, finding])
        gradient = tape.gradient(answer, activations)
        maps.append(np.maximum((gradient * activations).numpy().sum(axis=-1), 0))
    return np.stack(maps, axis=1)


def test_a_map_too_coarse_to_point_gives_way_to_a_finer_one_before_it():
    model = transfer.densenet_tiny((64, 64, 1), 3, weights=None)
    assert model.get_layer("relu").output.shape[1] == 2
    assert explain_maps.fine(model, "relu") == "pool3_conv"
    assert model.get_layer("pool3_conv").output.shape[1] == 8
    assert explain_maps.fine(network(), "c2") == "c2"
    assert explain_maps.fine(model, "conv1_relu") == "conv1_relu"


@pytest.mark.parametrize("kind", ["deep", "several", "two"])
def test_maps_are_those_of_one_finding_at_a_time(kind, tmp_path):
    model, batch = network(kind), pictures()
    found = explain_maps.heat(model, [batch[:3], batch[3:]], "c2", 3)
    assert found.shape == (5, 3, 7, 7) and found.dtype == np.float32 and found.max() > 0
    np.testing.assert_allclose(found, by_hand(model, batch), rtol=1e-4, atol=1e-7)
    if kind == "two":  # an average and a linear layer follow: then it is Grad-CAM
        alone = explain.heat(model, [np.tile(batch, (3, 1, 1, 1))], "c2", np.repeat(range(3), 5))
        together = found.swapaxes(0, 1).reshape(alone.shape)
        np.testing.assert_allclose(together, alone, rtol=1e-4, atol=1e-7)
    assert bool(explain_maps.beside(model, "c2")) == (kind in ("several", "two"))
    # Keras moves some of a model's tensors when another is made from them.
    model.save(tmp_path / "model.keras")
    again = network(kind)
    again.load_weights(tmp_path / "model.keras")


def test_the_trunk_is_computed_once_and_never_differentiated():
    graph = explain_maps._graph(network(outputs=5), "c2", 5).get_concrete_function().graph
    kinds = [op.type for op in graph.get_operations()]
    inner = [op.type for f in graph._functions.values() for op in f.graph.get_operations()]
    kinds += inner
    assert kinds.count("Conv2D") == 2
    assert not [kind for kind in kinds if "Backprop" in kind]


def test_a_second_logit_of_each_finding_is_not_read():
    once, twice = network(outputs=3), network(outputs=6)
    twice.set_weights([np.hstack([w, w]) if w.shape[-1] == 3 else w for w in once.get_weights()])
    found = explain_maps.heat(twice, [pictures()], "c2", 3)
    np.testing.assert_array_equal(found, explain_maps.heat(once, [pictures()], "c2", 3))


def test_no_pictures_give_no_maps_and_no_layer_without_places():
    assert explain_maps.heat(network(), [], "c2", 3).shape[:2] == (0, 3)
    with pytest.raises(ValueError, match="feature map"):
        explain_maps.heat(network(), [pictures()], "pool", 3)


def test_worst_answers_and_best_hits_take_turns():
    nan = np.nan
    labels = np.array([[1, 0], [1, 1], [0, nan], [0, 1], [nan, 0], [nan, nan]])
    chances = np.array([[0.9, 0.2], [0.1, 0.7], [0.8, 0.9], [0.3, 0.4], [0.99, 0.6], [1, 1]])
    chosen = explain_findings.picked(labels, chances, [0, 1], 4)
    # First the missed row 1 of 0 and the best hit of 1, which is row 3 as row 1 is taken.
    assert chosen == [(1, 0), (3, 1), (0, 0), (4, 1)]
    every = explain_findings.picked(labels, chances, [0, 1], 99)
    assert sorted(row for row, _ in every) == [0, 1, 2, 3, 4]
    assert {k for _, k in explain_findings.picked(labels, chances, [1], 99)} == {1}


def test_words_say_what_is_known():
    part = SimpleNamespace(
        labels=np.array([[1, 0, np.nan, np.nan]], np.float32),
        uncertain=np.array([[False, False, True, False]]),
    )
    words = [explain_findings.said(part, 0, k, np.full((1, 4), 0.25)) for k in range(4)]
    assert words == [f"25 %, known: {w}" for w in ("present", "absent", "uncertain", "unknown")]


@pytest.fixture(scope="module")
def chests(tmp_path_factory):
    root = tmp_path_factory.mktemp("chests") / "CheXpert-v1.0-small"
    chest.write(root, patients=6, valid_patients=14, size=SIZE, lateral=0.0)
    table = uncertainty.blanks_as(chexpert.read(root), 0.0)
    table.loc[table.index[:2], "split"] = "val"
    table["Fracture"] = 0.0  # nothing to learn
    return table


def test_gallery_is_written_without_names_and_scored_by_its_masks(chests, small_run, monkeypatch):
    monkeypatch.setattr(overlays, "SHOWN", 60)
    shown = []
    sheet = explain_findings.sheet
    monkeypatch.setattr(explain_findings, "sheet", lambda *a: shown.append(a) or sheet(*a))
    policy = Policy(dict.fromkeys(chexpert.LABELS, "multiclass"))
    data = pipeline.images(chests, SHAPE, 8, findings=chexpert.LABELS, policy=policy)
    assert "Fracture" in data.untrained
    model, run = network(outputs=data.outputs), small_run()
    first = ("Cardiomegaly", "Edema")
    gallery = explain_findings.grad_cam(model, data, run, most=5, top=2, lime=1, scored=first)

    folder, items = run.folder / "explanations", gallery.items
    assert len(items) == 5 and {item.finding for item in items} <= set(first)
    assert [item.file for item in items] == [
        f"{n:02d}_{i.finding}.png" for n, i in enumerate(items)
    ]
    test = data.test.table.set_index("path")
    values = model.predict(data.test.pictures().astype("float32"), verbose=0)[:, :14]
    chances = pd.DataFrame(1 / (1 + np.exp(-values)), test.index, chexpert.LABELS)
    chances = chances.drop(columns=data.untrained)
    for item, (_, answers, regions, *_) in zip(items, shown, strict=True):
        present = test.loc[item.path, item.finding] == 1
        assert item.true == (item.finding if present else f"no {item.finding}")
        chance = chances.loc[item.path, item.finding]
        assert item.probability == pytest.approx(max(chance, 1 - chance), rel=1e-4)
        names = [one.name for one in answers]
        assert names[:2] == list(chances.loc[item.path].nlargest(2).index)
        assert names[2:] == [item.finding] * (item.finding not in names[:2])
        assert (regions is not None) == (item is items[0])
        assert item.png == (folder / item.file).read_bytes()
        assert not Image.open(io.BytesIO(item.png)).info
    maps = np.load(folder / "maps.npy", allow_pickle=False)
    assert maps.shape == (5, 14, 7, 7) and maps.min() == 0
    (regions,) = folder.glob("*_lime.npy")
    assert regions.name == f"{items[0].file[:-4]}_lime.npy"
    assert np.load(regions, allow_pickle=False).shape == (SIZE, SIZE)
    assert "patient" not in " ".join(path.name for path in folder.iterdir())

    scores = json.loads((folder / "scores.json").read_text())
    assert scores == gallery.scores and scores["layer"] == "c2" and not scores["notes"]
    assert list(scores["findings"]) == [n for n in chexpert.LABELS if n not in data.untrained]
    total = 0
    for name, entry in scores["findings"].items():
        marked = [mask_of(row, name) for _, row in data.test.table.iterrows()]
        marked = [one.mean() for one in marked if one is not None]
        assert (entry or {"n": 0})["n"] == len(marked)
        assert not marked or entry["chance"] == pytest.approx(np.mean(marked))
        total += len(marked)
    assert scores["pointing_game"]["n"] == total > 10
    assert scores["pointing_game"]["n_patients"] <= 14


def mask_of(row, name):
    """The mask on disk of a finding that the label says is present."""
    root = Path(row["image"].removesuffix(row["path"]))
    path = root / "masks" / name.replace(" ", "_") / f"{row['path'][:-4]}.png"
    return np.asarray(Image.open(path)) > 0 if row[name] == 1 and path.is_file() else None


def test_under_a_null_there_is_no_lesion(chests, small_run):
    table = chests.copy()
    table.attrs["lesions"] = False
    data = pipeline.images(table, SHAPE, 8, findings=("Edema", "Lung Opacity"))
    gallery = explain_findings.grad_cam(network(outputs=2), data, small_run(), most=3, lime=0)
    assert len(gallery.items) == 3 and not any(item.lesion for item in gallery.items)
    assert gallery.scores["pointing_game"] is None and gallery.scores["reason"]
    assert set(gallery.scores["findings"].values()) == {None}


@pytest.mark.parametrize(("left", "value"), [(20, 1.0), (2, 0.0)])
def test_planted_evidence_wins_the_game_inside_the_lesion_only(tmp_path, small_run, left, value):
    rows = []
    for n, part in enumerate(["train", "train", "val", "val", "test", "test"]):
        pixels, mask = np.zeros((2, SIZE, SIZE), np.uint8)
        if n % 2:
            pixels[12:20, 20:28] = 250
            mask[12:20, left : left + 8] = 255
        path = f"{part}/{n}.png"
        for place, array in {path: pixels, f"masks/Lung_Lesion/{path}": mask}.items():
            (tmp_path / "data" / place).parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(array).save(tmp_path / "data" / place)
        rows.append((path, str(tmp_path / "data" / path), f"p{n}", part, float(n % 2)))
    table = pd.DataFrame(rows, columns=["path", "image", "patient", "split", "Lung Lesion"])
    table.attrs["labels"] = ["Lung Lesion"]
    data = pipeline.images(table, SHAPE, 2, findings=tables.labels(table))
    model = network(outputs=1)
    for name in ("c1", "c2", "logits"):  # adds up brightness
        model.get_layer(name).kernel.assign(np.ones(model.get_layer(name).kernel.shape))
    gallery = explain_findings.grad_cam(model, data, small_run(), lime=0)
    game = gallery.scores["findings"]["Lung Lesion"]
    assert game["value"] == value and game["n"] == 1
    assert game["chance"] == pytest.approx(64 / SIZE**2) and gallery.scores["pointing_game"] == game
    shown = {item.path: item.lesion for item in gallery.items}
    assert shown == {"test/4.png": False, "test/5.png": True}


def test_a_folder_of_masks_holds_anything(tmp_path):
    row = {"path": "valid/a.jpg", "image": str(tmp_path / "valid/a.jpg")}
    place = tmp_path / "masks" / "Pleural_Effusion" / "valid" / "a.png"
    assert pointing.marked(row, "Pleural Effusion", (8, 8)) is None
    place.parent.mkdir(parents=True)
    place.write_bytes(b"no picture")
    assert pointing.marked(row, "Pleural Effusion", (8, 8)) is None
    Image.new("L", (16, 16)).save(place)
    assert pointing.marked(row, "Pleural Effusion", (8, 8)) is None
    Image.new("L", (16, 16), 255).save(place)
    assert pointing.marked(row, "Pleural Effusion", (8, 8)).all()
    row["image"] = "/noise/of/a/control.png"
    assert pointing.marked(row, "Pleural Effusion", (8, 8)) is None


def drawn(answers, regions=None, **more):
    grey = np.full((20, 20, 1), 90, np.uint8)
    png = overlays_findings.sheet(grey, answers, regions, **more)
    return np.asarray(Image.open(io.BytesIO(png)), dtype=int)


def panels(sheet, count):
    """The first pictures of a sheet, from left to right."""
    side, step = overlays.SHOWN, overlays.SHOWN + overlays.MARGIN
    top, left = 2 * overlays.LINE + 6, overlays.MARGIN
    return [sheet[top : top + side, left + n * step :][:, :side] for n in range(count)]


def test_a_sheet_shows_heat_lesion_and_the_absence_of_evidence():
    hot, none = np.eye(4), np.zeros((4, 4))
    mask = np.zeros((20, 20), bool)
    mask[5:10, 12:18] = True
    answers = [overlays_findings.Answer("Edema", "9 %", one, m) for one, m in
               [(hot, None), (hot, mask), (none, None)]]  # fmt: skip
    plain, warm, lesion, empty = panels(drawn(answers), 4)
    assert (plain == 90).all() and (warm != plain).any()
    rows, columns = np.nonzero((warm != lesion).any(axis=2))
    assert (rows.min(), rows.max()) == (50, 99) and (columns.min(), columns.max()) == (120, 179)
    assert (empty[:30] != plain[:30]).any() and (empty[30:] == plain[30:]).all()
    assert (drawn(answers) != drawn(answers, synthetic=True)).any()


def test_a_sheet_colours_the_strongest_regions_for_and_against():
    segments = np.arange(16).repeat(25).reshape(4, 4, 5, 5).transpose(0, 2, 1, 3).reshape(20, 20)
    own = np.array([5, -4, 3, -2, *np.linspace(0.1, 0.9, 12)], np.float32)
    regions = lime.Explanation(own[segments], segments, 0.2)
    answer = [overlays_findings.Answer("Edema", "9 %", np.eye(4))]
    plain, _, coloured = panels(drawn(answer, regions), 3)
    middle = coloured[25::50, 25::50].reshape(16, 3)
    kept = np.argsort(-np.abs(own))[: overlays_findings.STRONGEST]
    assert (middle != plain[0, 0]).any(axis=1).nonzero()[0].tolist() == sorted(kept)
    blue = middle[:, 2] > middle[:, 0]
    assert blue[kept].tolist() == (own[kept] > 0).tolist()
    good = lime.Explanation(regions.weights, segments, 0.9)
    assert (drawn(answer, regions) != drawn(answer, good)).any()
