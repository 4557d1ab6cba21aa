import itertools

import cv2
import numpy as np
import pytest

from medkeras.phantoms import bone
from medkeras.preparation import duplicates


def read(path):
    return cv2.imread(str(path), cv2.IMREAD_GRAYSCALE)


def recompressed(pixels):
    return cv2.imdecode(cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, 50])[1], 0)


def halved(pixels):
    return cv2.resize(pixels, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)


def brighter(pixels):
    return np.clip(pixels.astype(int) + 30, 0, 255).astype(np.uint8)


def gamma(pixels):
    return np.round(255 * (pixels / 255) ** 0.7).astype(np.uint8)


VARIANTS = {
    "recompressed": recompressed,
    "half size": halved,
    "quarter turn": np.rot90,
    "half turn": lambda pixels: np.rot90(pixels, 2),
    "mirrored and turned": lambda pixels: np.rot90(pixels, 3)[:, ::-1],
    "brighter": brighter,
    "gamma": gamma,
}


@pytest.fixture(scope="module")
def radiographs(tmp_path_factory):
    """Sixty made-up bone X-rays, each of another patient."""
    root = bone.write(
        tmp_path_factory.mktemp("bone") / "bone",
        patients=60,
        pictures_per_patient=(1, 1),
        size=160,
    )
    return [read(path) for path in sorted(root.glob("*/*.png"))]


def noise(rng, count):
    """Sketches of random pictures, some smooth and some not."""
    return [
        duplicates.sketch(
            cv2.GaussianBlur(rng.normal(0, 50, (70, 80)), (0, 0), rng.uniform(0.5, 3))
        )
        for _ in range(count)
    ]


def symmetries(pixels):
    for quarters in range(4):
        turned = np.rot90(pixels, quarters)
        yield turned
        yield turned[:, ::-1]


def test_copies_are_found_and_nothing_else(radiographs):
    pictures = [*radiographs]
    owner = list(range(60))
    for change in VARIANTS.values():
        pictures += [change(pixels) for pixels in radiographs]
        owner += range(60)
    sketches = np.stack([duplicates.sketch(pixels) for pixels in pictures])

    found = duplicates.links(sketches)
    group = list(range(len(owner)))
    for one, other, _ in found:
        group = [group[one] if name == group[other] else name for name in group]
    assert sum(owner[one] != owner[other] for one, other, _ in found) == 0
    for number, name in enumerate(VARIANTS, start=1):
        recall = np.mean([group[60 * number + n] == group[n] for n in range(60)])
        assert recall >= 0.95, name


@pytest.mark.parametrize("number", range(8))
def test_a_symmetry_changes_nothing(radiographs, number):
    pixels = radiographs[0][:, :130]
    changed = list(symmetries(pixels))[number]
    pair = np.stack([duplicates.sketch(pixels), duplicates.sketch(np.ascontiguousarray(changed))])
    assert duplicates.links(pair)[0][2] > 0.999


def test_what_is_documented_as_not_found_is_not_found(radiographs):
    def turned(pixels):
        matrix = cv2.getRotationMatrix2D((80, 80), 6, 1)
        return cv2.warpAffine(pixels, matrix, (160, 160), borderMode=cv2.BORDER_REPLICATE)

    for change in (turned, lambda pixels: 255 - pixels):
        pair = np.stack(
            [duplicates.sketch(radiographs[3]), duplicates.sketch(change(radiographs[3]))]
        )
        assert not duplicates.links(pair)


def test_the_range_of_the_grey_values_does_not_matter(radiographs):
    pixels = radiographs[0]
    for other in (
        pixels.astype(np.uint16) * 16,
        np.repeat(pixels[..., None], 3, axis=2),
        pixels / 9,
    ):
        pair = np.stack([duplicates.sketch(pixels), duplicates.sketch(other)])
        assert duplicates.links(pair)[0][2] > 0.999


@pytest.mark.parametrize(
    "pixels",
    [
        np.full((40, 40), 7, np.uint8),
        np.full((100, 90), 1e-3),
        np.tile(100 + 50 * np.cos(np.arange(64) / 64 * 12 * np.pi), (64, 1)),
        np.zeros((64, 64, 3), np.uint8),
    ],
    ids=["one grey", "one small number", "stripes", "black in colour"],
)
def test_pictures_without_detail_are_not_compared(pixels):
    assert duplicates.sketch(pixels) is None


def test_the_bound_is_never_below_the_correlation():
    sketches = np.stack(noise(np.random.default_rng(0), 60)).astype(np.float32)
    square = sketches.reshape(-1, duplicates.CUT, duplicates.CUT)
    bounds = duplicates._bound(square)
    for one, other in itertools.combinations(range(60), 2):
        exact = duplicates._correlation(square[[one]], square[[other]])[0]
        assert bounds[one] @ bounds[other] >= exact - 1e-5


@pytest.mark.parametrize("limit", [0.95, 0.6])
def test_no_pair_is_lost_on_the_way(monkeypatch, limit):
    monkeypatch.setattr(duplicates, "BLOCK", 16)
    monkeypatch.setattr(duplicates, "CHUNK", 7)
    rng = np.random.default_rng(1)
    sketches = noise(rng, 40)
    sketches += [sketch + rng.normal(0, 0.004, sketch.shape) for sketch in sketches[:15]]
    sketches = np.stack(sketches).astype(np.float32)
    sketches /= np.linalg.norm(sketches, axis=1, keepdims=True)
    square = sketches.reshape(-1, duplicates.CUT, duplicates.CUT)
    first, second = np.triu_indices(len(sketches), 1)
    exact = duplicates._correlation(square[first], square[second])

    def joined(pairs):
        group = list(range(len(sketches)))
        for one, other in pairs:
            group = [group[one] if name == group[other] else name for name in group]
        return [group.index(name) for name in group]

    expected = [(i, j) for i, j, r in zip(first, second, exact, strict=True) if r >= limit]
    found = duplicates.links(sketches, limit)
    assert len(expected) >= 15
    assert joined((one, other) for one, other, _ in found) == joined(expected)
    assert all(one < other and r >= limit for one, other, r in found)


def test_a_thousand_copies_are_joined_once_each():
    rng = np.random.default_rng(2)
    sketches = np.repeat(np.stack(noise(rng, 2)), 500, axis=0)
    found = duplicates.links(sketches)
    assert len(found) == 998
    assert all((one < 500) == (other < 500) for one, other, _ in found)


def test_nothing_to_compare():
    assert duplicates.links(np.empty((0, duplicates.LENGTH), np.float16)) == []
    assert duplicates.links(np.stack(noise(np.random.default_rng(3), 1))) == []
