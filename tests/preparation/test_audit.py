import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from medkeras.errors import DataError
from medkeras.files import decode
from medkeras.preparation import audit
from medkeras.readers import bone


@pytest.fixture
def root(tmp_path):
    """Two classes of four sound pictures, each picture a patient."""
    rng = np.random.default_rng(0)
    for name in ("healthy", "broken"):
        (tmp_path / "data" / name).mkdir(parents=True)
        for number in range(4):
            pixels = rng.integers(0, 256, (20, 10 + number), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "data" / name / f"{number}.png")
    return tmp_path / "data"


def found(root, **options):
    with pytest.raises(DataError) as caught:
        audit.checked(bone.read(root), **options)
    return {problem.path: problem for problem in caught.value.problems}


def test_sound_pictures_pass(root):
    read = bone.read(root)
    columns = list(read.columns)
    table = audit.checked(read)
    assert table["path"].tolist() == read["path"].tolist()
    assert table["width"].tolist() == [10, 11, 12, 13] * 2 and set(table["height"]) == {20}
    assert table["sha256"].tolist() == [decode.fingerprint(image) for image in table["image"]]
    assert table.attrs["skipped"] == []
    assert list(read.columns) == columns


def spoil(root):
    """Spoils one picture in each way; returns what the reason must contain."""
    good = (root / "healthy/0.png").read_bytes()
    (root / "broken/lfs.png").write_bytes(b"version https://git-lfs.github.com/spec/v1\n")
    (root / "broken/empty.png").write_bytes(b"")
    (root / "broken/cut.png").write_bytes(good[: len(good) // 2])
    (root / "broken/label.jpg").write_bytes(good[:-12] + good[-12:])
    (root / "broken/page.png").write_bytes(b"<html>404</html>")
    (root / "broken/old.bmp").write_bytes(b"BM" + bytes(60))
    Image.fromarray(np.full((4, 4), 300, np.uint16)).save(root / "broken/deep.png")
    return {
        "lfs.png": "LFS", "empty.png": "empty", "cut.png": "damaged", "label.jpg": "is a PNG",
        "page.png": "web page", "old.bmp": "BMP", "deep.png": "16-bit",
    }  # fmt: skip


def test_every_problem_is_named_with_a_remedy(root):
    expected = spoil(root)
    problems = found(root)
    assert set(problems) == {f"broken/{name}" for name in expected}
    for name, reason in expected.items():
        assert reason in problems[f"broken/{name}"].reason
        assert problems[f"broken/{name}"].remedy


def test_bad_pictures_can_be_skipped(root):
    before = audit.checked(bone.read(root))
    expected = spoil(root)
    table = audit.checked(bone.read(root), skip_bad=True)
    assert sorted(table["path"]) == sorted(before["path"])
    assert table.index.tolist() == list(range(8))
    assert {Path(item["path"]).name for item in table.attrs["skipped"]} == set(expected)
    assert table["height"].dtype == "int64"
    json.dumps(table.attrs)


def test_a_class_with_too_few_patients_is_never_skipped(root):
    (root / "broken/0.png").write_bytes(b"")
    (root / "broken/1.png").write_bytes(b"")
    assert set(found(root)) == {"broken", "broken/0.png", "broken/1.png"}
    problems = found(root, skip_bad=True)
    assert "2 patients in 2 pictures (2 of its 4 pictures are broken)" in problems["broken"].reason


def test_a_class_whose_pictures_are_all_broken(root):
    for path in (root / "broken").iterdir():
        path.write_bytes(b"")
    assert "0 patients in 0 pictures" in found(root, skip_bad=True)["broken"].reason


def test_one_patient_with_many_pictures_is_one_patient(root):
    rows = [f"{name}/{n}.png,{name if name == 'broken' else n}" for name in ("healthy", "broken")
            for n in range(4)]  # fmt: skip
    (root / "list.csv").write_text("path,patient\n" + "\n".join(rows))
    assert "1 patient in 4 pictures" in found(root)["broken"].reason


def test_sixteen_bits_throughout_are_fine(root):
    for number, path in enumerate(sorted(root.rglob("*.png"))):
        Image.fromarray(np.full((4, 4), 300 + number, np.uint16)).save(path)
    table = audit.checked(bone.read(root))
    assert len(table.attrs["notes"]) == 1 + 8


def test_fixed_rules_are_noted(root):
    Image.open(root / "broken/0.png").convert("RGBA").save(root / "broken/0.png")
    notes = audit.checked(bone.read(root)).attrs["notes"]
    (note,) = [note for note in notes if note["path"] == "broken/0.png"]
    assert note["severity"] == "note" and "opaque" in note["reason"]


def test_the_same_file_in_two_classes(root):
    shutil.copy(root / "healthy/2.png", root / "broken/copy.png")
    problems = found(root)
    assert set(problems) == {"healthy/2.png", "broken/copy.png"}
    assert "identical file healthy/2.png is healthy" in problems["broken/copy.png"].reason


def test_verdicts_are_remembered_by_content_only(root, monkeypatch):
    expected = audit.checked(bone.read(root))
    calls = []
    real = decode.decode
    monkeypatch.setattr(decode, "decode", lambda *args: calls.append(1) or real(*args))
    again = audit.checked(bone.read(root))
    assert not calls
    assert again.equals(expected)

    data = bytearray((root / "broken/3.png").read_bytes())
    (root / "broken/3.png").write_bytes(data[:-30])
    assert set(found(root)) == {"broken/3.png"}
    assert len(calls) == 1


@pytest.mark.parametrize("damage", ["", "[1]", '{"x": 1', None])
def test_a_damaged_memory_is_ignored(root, damage, tmp_path, monkeypatch):
    monkeypatch.setenv("MEDKERAS_CACHE", str(tmp_path / "cache"))
    expected = audit.checked(bone.read(root))
    (memory,) = (tmp_path / "cache" / "verdicts").iterdir()
    stored = json.loads(memory.read_text())
    memory.write_text(json.dumps(dict.fromkeys(stored, 5)) if damage is None else damage)
    assert audit.checked(bone.read(root)).equals(expected)


def test_an_unwritable_cache_costs_nothing(root, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("MEDKERAS_CACHE", str(tmp_path / "file" / "cache"))
    assert len(audit.checked(bone.read(root))) == 8


def test_progress_is_told(root):
    seen = []
    audit.checked(bone.read(root), progress=lambda done, total: seen.append((done, total)))
    assert seen == [(number, 8) for number in range(1, 9)]


def test_exactly_the_truncated_pictures_are_named(shared):
    problems = found(shared / "data" / "bones_fracatlas")
    assert sorted(problems) == [
        f"images/Non_fractured/IMG000{number}.jpg" for number in (4143, 4148, 4149, 4308, 4347)
    ]
    assert all("truncated" in problem.reason for problem in problems.values())
    table = audit.checked(bone.read(shared / "data" / "bones_fracatlas"), skip_bad=True)
    assert len(table) == 59 and len(table.attrs["skipped"]) == 5
