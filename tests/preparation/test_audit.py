import json
import shutil
import sqlite3
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from medkeras.errors import DataError
from medkeras.files import decode
from medkeras.preparation import audit, copies, splits, verdicts
from medkeras.readers import bone, knee, mrnet


@pytest.fixture
def root(tmp_path):
    """Two classes of four sound pictures, each picture a patient."""
    rng = np.random.default_rng(0)
    for name in ("healthy", "broken"):
        (tmp_path / "data" / name).mkdir(parents=True)
        for number in range(4):
            pixels = rng.integers(0, 256, (20, 16 + number), dtype=np.uint8)
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
    assert table["width"].tolist() == [16, 17, 18, 19] * 2 and set(table["height"]) == {20}
    assert table["sha256"].tolist() == [decode.fingerprint(image) for image in table["image"]]
    assert table["group"].tolist() == table["patient"].tolist()
    assert table.attrs["skipped"] == table.attrs["duplicates"] == []
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
    ramp = np.arange(400, dtype=np.uint16).reshape(20, 20)
    Image.fromarray(ramp * 90).save(root / "broken/deep.png")
    Image.fromarray(np.full((20, 20), 255, np.uint8)).save(root / "broken/blank.png")
    Image.fromarray((ramp % 2).astype(np.uint8)).save(root / "broken/noise.png")
    Image.fromarray(ramp[:15].astype(np.uint8)).save(root / "broken/icon.png")
    Image.fromarray(np.resize(ramp, (160, 19)).astype(np.uint8)).save(root / "broken/strip.png")
    return {
        "lfs.png": "LFS", "empty.png": "empty", "cut.png": "damaged", "label.jpg": "is a PNG",
        "page.png": "web page", "old.bmp": "BMP", "deep.png": "16-bit",
        "blank.png": "every pixel is 255", "noise.png": "0.50 of 255", "icon.png": "20 x 15",
        "strip.png": "19 x 160",
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
    rng = np.random.default_rng(1)
    for path in sorted(root.rglob("*.png")):
        pixels = rng.integers(0, 1024, (20, 20)).astype(np.uint16)
        Image.fromarray(pixels).save(path)
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
    shutil.copy(root / "broken/1.png", root / "broken/9.png")
    expected = audit.checked(bone.read(root))
    calls = []
    real = verdicts._judged
    monkeypatch.setattr(verdicts, "_judged", lambda *args: calls.append(1) or real(*args))
    again = audit.checked(bone.read(root))
    assert not calls
    pd.testing.assert_frame_equal(again, expected)
    assert again.attrs == expected.attrs and expected.attrs["duplicates"]

    data = bytearray((root / "broken/3.png").read_bytes())
    (root / "broken/3.png").write_bytes(data[:-30])
    assert set(found(root)) == {"broken/3.png"}
    assert len(calls) == 1


def rewritten(statement):
    def damage(file):
        store = sqlite3.connect(file)
        with store:
            store.execute(statement)
        store.close()

    return damage


@pytest.mark.parametrize(
    "damage",
    [
        lambda file: file.write_bytes(b""),
        lambda file: file.write_text("[1]" * 2000),
        lambda file: file.write_bytes(file.read_bytes()[:20_000]),
        lambda file: file.write_bytes(file.read_bytes()[:16384] + bytes(16384)),
        rewritten("UPDATE verdicts SET verdict = '5'"),
        rewritten("UPDATE verdicts SET verdict = x'ff00'"),
        rewritten("UPDATE verdicts SET sketch = x'ff00'"),
        rewritten("UPDATE verdicts SET sketch = zeroblob(2048)"),
        rewritten("ALTER TABLE verdicts DROP COLUMN sketch"),
        rewritten("DROP TABLE verdicts"),
    ],
    ids=["empty", "text", "cut", "zeros", "number", "bytes", "short", "length", "other", "none"],
)
def test_a_damaged_memory_is_begun_anew(root, damage, own_cache, monkeypatch):
    expected = audit.checked(bone.read(root))
    (memory,) = (own_cache / "verdicts").iterdir()
    damage(memory)
    assert audit.checked(bone.read(root)).equals(expected)

    monkeypatch.setattr(verdicts, "_judged", lambda *args: pytest.fail("was not remembered"))
    assert audit.checked(bone.read(root)).equals(expected)


def test_an_unwritable_cache_costs_nothing(root, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("MEDKERAS_CACHE", str(tmp_path / "file" / "cache"))
    assert len(audit.checked(bone.read(root))) == 8


def test_a_memory_locked_by_another_costs_nothing(root, own_cache, monkeypatch):
    audit.checked(bone.read(root))
    (memory,) = (own_cache / "verdicts").iterdir()
    real = sqlite3.connect
    monkeypatch.setattr(
        sqlite3, "connect", lambda *args, **options: real(*args, **{**options, "timeout": 0})
    )
    Image.open(root / "broken/0.png").rotate(7).save(root / "broken/0.png")
    other = real(memory, isolation_level=None)
    other.execute("BEGIN EXCLUSIVE")
    assert len(audit.checked(bone.read(root))) == 8
    other.close()


def test_many_may_remember_at_once(own_cache):
    code = """
import sys
from medkeras.preparation import verdicts
with verdicts.Memory() as memory:
    for number in range(1200):
        found = {"reason": str(number), "remedy": "x" * 200, "content": True}
        memory.put(f"{number % 700}-{sys.argv[1] if number % 2 else 0}", found)
"""
    runs = [subprocess.Popen([sys.executable, "-c", code, str(n)]) for n in range(3)]
    assert [run.wait() for run in runs] == [0, 0, 0]
    with verdicts.Memory() as memory:
        assert all(memory.get(f"{number}-0") for number in range(0, 700, 2))
        assert all(memory.get(f"{number}-2") for number in range(1, 700, 2))


def test_progress_is_told(root):
    seen = []
    audit.checked(bone.read(root), progress=lambda done, total: seen.append((done, total)))
    assert seen == [(number, 8) for number in range(1, 9)]


# Copies, and what follows from them.


def encoded_anew(source, target):
    """Writes the same pixels as another file."""
    Image.open(source).save(target, compress_level=1)


def changed(source, target):
    """Writes a turned, brighter, recompressed copy."""
    pixels = np.rot90(np.asarray(Image.open(source)))
    grey = np.clip(pixels.astype(int) * 0.9 + 20, 0, 255).astype(np.uint8)
    Image.fromarray(grey).save(target, quality=90)


@pytest.fixture
def smooth(tmp_path):
    """Two classes of four smooth pictures of 64 pixels, each a patient."""
    return pictures(tmp_path / "smooth", [f"{name}/{n}.png" for name in "ab" for n in range(4)])


def pictures(root, names, size=64):
    for name in names:
        rng = np.random.default_rng([size, *name.encode()])
        coarse = Image.fromarray(rng.integers(30, 220, (12, 10), dtype=np.uint8))
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        coarse.resize((size, size), Image.Resampling.BICUBIC).save(root / name)
    return root


COPY = {"identical file": shutil.copy, "identical pixels": encoded_anew, "near duplicate": changed}


@pytest.mark.parametrize("kind", COPY)
def test_copies_in_one_class_are_noted_and_join_their_patients(smooth, kind):
    COPY[kind](smooth / "a/1.png", smooth / "a/7.png")
    table = audit.checked(bone.read(smooth))
    (same,) = table.attrs["duplicates"]
    assert same["kind"] == kind and same["paths"] == ["a/1.png", "a/7.png"]
    assert same["patients"] == ["a/1.png", "a/7.png"] and same["correlation"] > 0.95
    groups = dict(zip(table["path"], table["group"], strict=True))
    assert groups.pop("a/7.png") == "a/1.png"
    assert all(path == group for path, group in groups.items())
    assert [note["path"] for note in table.attrs["notes"]] == ["patient", "a/1.png"]
    side = splits.by_patient(table, seed=0).set_index("path")["split"]
    assert side["a/1.png"] == side["a/7.png"]
    json.dumps(table.attrs)


@pytest.mark.parametrize("kind", COPY)
def test_copies_of_two_classes_contradict_each_other(smooth, kind):
    COPY[kind](smooth / "a/1.png", smooth / "b/7.png")
    problems = found(smooth)
    assert set(problems) == {"a/1.png", "b/7.png"}
    assert "a/1.png is a" in problems["b/7.png"].reason
    assert len(audit.checked(bone.read(smooth), skip_bad=True)) == 7


def test_a_copy_of_a_copy_belongs_to_all_of_them(smooth):
    shutil.copy(smooth / "a/1.png", smooth / "a/5.png")
    encoded_anew(smooth / "a/1.png", smooth / "a/6.png")
    changed(smooth / "a/1.png", smooth / "b/7.png")
    problems = found(smooth)
    assert set(problems) == {"a/1.png", "a/5.png", "a/6.png", "b/7.png"}
    table = audit.checked(bone.read(smooth), skip_bad=True)
    kinds = {same["kind"]: same["paths"] for same in table.attrs["duplicates"]}
    assert kinds == {
        "identical file": ["a/1.png", "a/5.png"],
        "identical pixels": ["a/1.png", "a/5.png", "a/6.png"],
        "near duplicate": ["a/1.png", "a/5.png", "a/6.png", "b/7.png"],
    }


def test_what_holds_no_picture_is_no_copy(root):
    for name in ("x", "y"):
        (root / f"healthy/{name}.png").write_bytes(b"")
        (root / f"broken/{name}.png").write_bytes(b"version https://git-lfs.github.com/spec/v1")
    table = audit.checked(bone.read(root), skip_bad=True)
    assert table.attrs["duplicates"] == [] and len(table.attrs["skipped"]) == 4


def test_a_class_of_copies_has_too_few_patients(smooth):
    for number in (1, 2, 3):
        encoded_anew(smooth / "a/0.png", smooth / f"a/{number}.png")
    problems = found(smooth)
    assert "4 patients in 4 pictures, which share copies and count as 1" in problems["a"].reason


def test_names_of_changed_copies_are_noted(smooth):
    names = ["a/0-rotated1.png", "a/x_aug3.png", "b/0 - Copy.png", "b/1 (2).png", "b/new (7).png"]
    pictures(smooth, [*names, "a/augusta.png", "b/5.png"])
    (note,) = [note for note in audit.checked(bone.read(smooth)).attrs["notes"]
               if note["path"] == "names"]  # fmt: skip
    assert "a/0-rotated1.png and 3 more are named like" in note["reason"]


@pytest.mark.parametrize("kind", COPY)
@pytest.mark.parametrize("target", ["a/7.png", "b/7.png"])
def test_reasons_can_be_told_without_a_file_s_name(smooth, kind, target):
    COPY[kind](smooth / "a/1.png", smooth / target)
    pictures(smooth, ["a/0-rotated1.png"])
    table = audit.checked(bone.read(smooth), skip_bad=True)
    told = [*table.attrs["notes"], *table.attrs["skipped"]]
    assert any("1.png" in one["reason"] for one in told)
    left = [copies.unnamed(one["reason"]) for one in told]
    assert not any(".png" in reason for reason in left)
    assert any(kind in reason for reason in left)
    assert copies.unnamed("is damaged: truncated") == "is damaged: truncated"


# A published split.


@pytest.fixture
def published(tmp_path):
    """Six patients to train on and four to test, one picture each, of two classes."""
    names = [
        f"train/{name}/{n}L.png"
        for name in "ab"
        for n in range(3 * (name == "b"), 3 + 3 * (name == "b"))
    ]
    names += [f"test/{name}/{n}L.png" for name, n in ("a6", "a7", "b8", "b9")]
    return pictures(tmp_path / "published", names)


def test_a_sound_published_split_passes(published):
    table = audit.checked(bone.read(published))
    assert table["group"].tolist() == table["patient"].tolist()
    assert table["split"].value_counts().to_dict() == {"train": 6, "test": 4}


def test_a_patient_on_two_sides_is_named_with_them(published):
    pictures(published, ["test/b/5R.png"])
    (problem,) = found(published).values()
    assert problem.path == "patient 5" and problem.reason.endswith(
        "sides of the published split: train, test"
    )
    notes = audit.checked(bone.read(published), resplit=True).attrs["notes"]
    assert any("1 patient is on several sides" in note["reason"] for note in notes)


@pytest.mark.parametrize("kind", COPY)
def test_copies_on_two_sides_are_counted_first(published, kind):
    COPY[kind](published / "train/a/1L.png", published / "test/a/21L.png")
    COPY[kind](published / "train/b/4L.png", published / "test/b/22L.png")
    with pytest.raises(DataError) as caught:
        audit.checked(bone.read(published), skip_bad=True)
    first, *others = caught.value.problems
    assert first.reason == "2 pictures stand on both sides of the published split"
    assert "--resplit" in first.remedy
    assert {problem.path for problem in others} == {"train/a/1L.png", "train/b/4L.png"}
    table = audit.checked(bone.read(published), resplit=True)
    assert table["group"].nunique() == 10
    assert any(note["reason"] == first.reason for note in table.attrs["notes"])
    side = splits.by_patient(table, seed=0, resplit=True).set_index("patient")["split"]
    assert side["1"] == side["21"] and side["4"] == side["22"]


def test_several_copies_of_a_picture_are_one_picture(published):
    for number, kind in enumerate(COPY):
        COPY[kind](published / "test/a/6L.png", published / f"train/a/3{number}L.png")
    with pytest.raises(DataError) as caught:
        audit.checked(bone.read(published))
    first, *others = caught.value.problems
    assert first.reason == "1 picture stands on both sides of the published split"
    assert len(others) == 3


def test_faults_of_layout_and_pictures_come_together(published):
    (published / "stray.png").write_bytes((published / "train/a/0L.png").read_bytes())
    (published / "train/a/9L.png").write_bytes(b"")
    COPY["near duplicate"](published / "train/a/1L.png", published / "test/a/21L.png")
    with pytest.raises(DataError) as caught:
        audit.opened(bone.read, published)
    paths = [problem.path for problem in caught.value.problems]
    assert paths[0] == "split" and {"stray.png", "train/a/9L.png"} < set(paths)
    assert len(caught.value.table) == 12


# Exams, and many labels.


@pytest.fixture
def exams(tmp_path):
    """Eight exams of three planes in the layout of MRNet."""
    root, rng = tmp_path / "mrnet", np.random.default_rng(5)
    for plane in mrnet.PLANES:
        (root / "train" / plane).mkdir(parents=True)
        for exam in range(8):
            np.save(
                root / f"train/{plane}/{exam:04}.npy", rng.integers(0, 256, (5, 32, 32), np.uint8)
            )
    for label in mrnet.LABELS:
        rows = "".join(f"{exam:04},{exam % 2}\n" for exam in range(8))
        (root / f"train-{label}.csv").write_text(rows)
    return root


def exam_problems(root, **options):
    with pytest.raises(DataError) as caught:
        audit.opened(mrnet.read, root, **options)
    return [(problem.path, problem.reason) for problem in caught.value.problems]


def test_sound_exams_pass(exams):
    table = audit.opened(mrnet.read, exams)
    assert table["slices_axial"].tolist() == table["slices_sagittal"].tolist() == [5] * 8
    assert set(table["height"]) == set(table["width"]) == {32}
    assert table["sha256"].nunique() == 8 and table.attrs["duplicates"] == []
    json.dumps(table.attrs)


def test_a_fault_names_exam_and_plane(exams):
    sagittal, axial = exams / "train/sagittal", exams / "train/axial"
    np.save(sagittal / "0003.npy", np.random.default_rng(0).normal(0, 9, (4, 40, 32)))
    (axial / "0004.npy").write_bytes((axial / "0004.npy").read_bytes()[:-7])
    np.save(axial / "0005.npy", np.zeros((4, 32, 32), np.uint8))
    (axial / "0006.npy").unlink()
    problems = dict(exam_problems(exams))
    assert "sagittal: has slices of 40 x 32 pixels, expected 32 x 32" in problems["train/0003"]
    assert problems["train/0004"].startswith("axial: is truncated")
    assert problems["train/0005"].startswith("axial: is constant")
    assert "has no axial volume" in problems["train/0006"]


def test_a_copied_plane_joins_two_exams(exams):
    pixels = np.load(exams / "train/coronal/0002.npy")
    np.save(exams / "train/coronal/0004.npy", pixels[:, ::-1])
    table = audit.opened(mrnet.read, exams)
    (same,) = table.attrs["duplicates"]
    assert same["kind"] == "near duplicate" and same["column"] == "coronal"
    assert table["group"].nunique() == 7
    shutil.copy(exams / "train/coronal/0002.npy", exams / "train/coronal/0003.npy")
    told = dict(exam_problems(exams))["train/0003"]
    assert told == ("is abnormal = 1, but the identical file train/0002 is 0 (coronal volume)")


def test_what_is_unknown_contradicts_nothing(exams):
    shutil.copy(exams / "train/axial/0001.npy", exams / "train/axial/0002.npy")
    for label in mrnet.LABELS:
        rows = "".join(f"{exam:04},{'' if exam == 2 else exam % 2}\n" for exam in range(8))
        (exams / f"train-{label}.csv").write_text(rows)
    assert audit.opened(mrnet.read, exams)["group"].nunique() == 7


def test_findings_that_few_have_are_noted_and_refused_only_where_all_are_such(exams):
    (exams / "train-acl.csv").write_text(
        "".join(f"{exam:04},{int(exam < 2)}\n" for exam in range(8))
    )
    (exams / "train-meniscus.csv").write_text("".join(f"{exam:04},0\n" for exam in range(8)))
    notes = {one["path"]: one["reason"] for one in audit.opened(mrnet.read, exams).attrs["notes"]}
    assert notes["acl"] == "is a finding with 2 positive patients"
    assert notes["meniscus"] == "is a finding with no positive patients"
    (exams / "train-abnormal.csv").write_text("".join(f"{exam:04},1\n" for exam in range(8)))
    with pytest.raises(DataError) as caught:
        audit.opened(mrnet.read, exams)
    ((path, reason),) = [(problem.path, problem.reason) for problem in caught.value.problems]
    assert path == "findings" and "none has 3 positive and 3 negative patients" in reason


# The command.


def command(capsys, *argv):
    code = audit.main([str(word) for word in argv])
    return code, *capsys.readouterr()


def test_the_command_says_what_it_found(smooth, capsys, content_of):
    before = content_of(smooth)
    code, printed, errors = command(capsys, smooth)
    assert code == 0 and errors == ""
    assert printed.splitlines()[:4] == [
        "layout: bone", "pictures: 8 of 8 patients", "  a: 4", "  b: 4",
    ]  # fmt: skip
    assert printed.splitlines()[-1] == "Nothing is wrong; 1 to note."

    (smooth / "b/\x1b[2Jodd.png").write_bytes(b"")
    code, printed, errors = command(capsys, smooth)
    assert code == 3 and errors == "" and "\x1b" not in printed
    worst = printed.splitlines()[4]
    assert worst.startswith("error") and "is empty | copy or download it again" in worst
    assert printed.splitlines()[-1].startswith("1 error: ")
    (smooth / "b/\x1b[2Jodd.png").unlink()
    assert content_of(smooth) == before


def test_the_command_speaks_json(smooth, capsys, tmp_path):
    changed(smooth / "a/1.png", smooth / "b/7.png")
    out = tmp_path / "found.json"
    code, printed, errors = command(capsys, smooth, "--json", "--out", out)
    found = json.loads(printed)
    assert code == 3 and errors == "" and found["ok"] is False and found["layout"] == "bone"
    assert found["counts"]["classes"] == {"a": 4, "b": 5} and found["skipped"] == []
    assert {problem["path"] for problem in found["problems"]} == {"a/1.png", "b/7.png"}
    assert found["duplicates"][0]["kind"] == "near duplicate"
    assert json.loads(out.read_text()) == found
    code, printed, _ = command(capsys, smooth, "--json", "--skip-bad")
    assert code == 0 and len(json.loads(printed)["skipped"]) == 2


def test_the_command_knows_exams(exams, capsys):
    code, printed, _ = command(capsys, exams)
    assert code == 0
    assert (
        "exams: 8 of 8 patients" in printed and "acl: 4 positive, 4 negative, 0 unknown" in printed
    )


def test_a_command_that_cannot_be_used(smooth, tmp_path, capsys):
    for argv in (
        [tmp_path / "absent"],
        [smooth, "--reader", "none"],
        [smooth, "--out", smooth / "x"],
        [],
    ):
        with pytest.raises(SystemExit) as ended:
            command(capsys, *argv)
        assert ended.value.code == 2
    assert "--out" in capsys.readouterr().err


def test_an_unknown_layout_is_an_error(tmp_path, capsys):
    (tmp_path / "data").mkdir()
    code, printed, errors = command(capsys, tmp_path / "data")
    assert code == 3 and errors == ""
    assert printed.startswith("layout: not recognised\nerror") and "mrnet" in printed


@pytest.mark.parametrize("options", [[], ["--resplit"]])
def test_a_split_that_divides_patients(published, capsys, options):
    COPY["identical file"](published / "train/a/1L.png", published / "test/a/21L.png")
    code, printed, _ = command(capsys, published, *options)
    (line,) = [line for line in printed.splitlines() if "1 picture stands on both sides" in line]
    assert code == (0 if options else 3)
    assert line.startswith("note" if options else "error")


# Real pictures.


def test_exactly_the_truncated_pictures_are_named(shared):
    problems = found(shared / "data" / "bones_fracatlas")
    assert sorted(problems) == [
        f"images/Non_fractured/IMG000{number}.jpg" for number in (4143, 4148, 4149, 4308, 4347)
    ]
    assert all("truncated" in problem.reason for problem in problems.values())
    table = audit.checked(bone.read(shared / "data" / "bones_fracatlas"), skip_bad=True)
    assert len(table) == 59 and len(table.attrs["skipped"]) == 5
    pairs = [
        same["paths"] for same in table.attrs["duplicates"] if same["kind"] == "identical file"
    ]
    assert [[path[-8:-4] for path in pair] for pair in pairs] == [
        ["4308", "4347"], ["4310", "4346"], ["4314", "4341"],
    ]  # fmt: skip


def test_exactly_the_patients_of_several_parts_are_named(shared):
    root = shared / "data" / "nih64"
    rows = pd.read_csv(root / "labels.csv", dtype=str)
    parts = rows["path"].str.split("/").str[0].groupby(rows["patient_id"]).nunique()
    problems = found(root)
    assert set(problems) == {f"patient {patient}" for patient in parts[parts > 1].index}
    assert len(problems) == 15
    assert audit.checked(bone.read(root), resplit=True).attrs["duplicates"] == []


@pytest.mark.slow
def test_augmented_copies_are_found_in_one_source_only(shared):
    table = audit.checked(bone.read(shared / "data" / "bones_sr2022"))
    assert len(table.attrs["duplicates"]) == 14
    assert table["group"].tolist() == table["patient"].tolist()


@pytest.mark.slow
def test_three_thousand_knees_give_no_complaint(shared):
    table = audit.opened(knee.read, shared / "data" / "knee_kl")
    assert len(table) == 3000 and table["group"].nunique() == table["patient"].nunique() == 1500
    assert table.attrs["notes"] == table.attrs["duplicates"] == []
