import csv
import os
import re
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from agegender.data.index.utkface import GENDERS, GROUPS
from agegender.data.sources import synthetic
from agegender.data.sources.drawing.person import Person, sample_person
from agegender.data.sources.synthetic import draw_face, duplicates, generate_faces
from agegender.errors import AgeGenderError

NAME = re.compile(r"(\d{1,3})_([01])_([0-4])_(\d{17})\.jpg\.chip\.jpg")


def read_all(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def people(ages: range, gender: int) -> list[Person]:
    return [sample_person(age, gender, 0, np.random.default_rng([9, age, i])) for age in ages for i in range(20)]


@pytest.fixture(scope="module")
def faces(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return generate_faces(tmp_path_factory.mktemp("faces") / "plain", 24, seed=3, size=64)


@pytest.fixture(scope="module")
def odd(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return generate_faces(tmp_path_factory.mktemp("faces") / "odd", 8, seed=3, size=64, odd_files=True)


def test_synthetic_names_follow_utkface_and_every_image_opens(faces: Path) -> None:
    matches = [NAME.fullmatch(path.name) for path in faces.iterdir()]
    assert len(matches) == 24 and all(matches)
    assert len({match[4] for match in matches if match}) == 24  # the stamps are unique
    for path in faces.iterdir():
        with Image.open(path) as image:
            image.load()
            assert (image.format, image.mode, image.size) == ("JPEG", "RGB", (64, 64))


def test_same_seed_draws_the_same_bytes(faces: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: 1)  # the fixture used every core
    assert read_all(generate_faces(tmp_path / "again", 24, seed=3, size=64)) == read_all(faces)


def test_another_seed_draws_other_faces(faces: Path, tmp_path: Path) -> None:
    other = read_all(generate_faces(tmp_path / "other", 24, seed=4, size=64))
    assert not set(other.values()) & set(read_all(faces).values())


def test_growing_the_count_keeps_earlier_faces(faces: Path, tmp_path: Path) -> None:
    more = read_all(generate_faces(tmp_path / "more", 30, seed=3, size=64))
    assert len(more) == 30 and read_all(faces).items() <= more.items()


def test_ages_follow_a_population() -> None:
    labels = np.array([synthetic._traits(0, index)[0] for index in range(3000)])
    ages = labels[:, 0]
    assert ages.min() == 1 and 90 < ages.max() <= 100 and 31 < ages.mean() < 38
    assert (ages < 4).mean() > 0.05 and (ages > 70).mean() > 0.05  # infants and the elderly
    assert 0.46 < labels[:, 1].mean() < 0.54 and set(labels[:, 2]) == {0, 1, 2, 3, 4}


def test_folder_drawn_before_is_returned_untouched(faces: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(synthetic, "draw_face", lambda *_: pytest.fail("drew a face again"))
    (faces / ".DS_Store").touch()
    assert generate_faces(faces, 24, seed=3, size=64) == faces
    (faces / ".DS_Store").unlink()


@pytest.mark.parametrize(("asked", "says"), [((25, 3, 64), "missing"), ((24, 4, 64), "is "), ((24, 3, 72), "72 x 72")])
def test_folder_drawn_with_other_settings_is_an_error(faces: Path, asked: tuple[int, int, int], says: str) -> None:
    before = read_all(faces)
    with pytest.raises(AgeGenderError, match=says) as caught:
        generate_faces(faces, *asked)
    assert str(faces) in str(caught.value) and "\n" not in str(caught.value)
    assert read_all(faces) == before


def test_folder_with_other_files_is_never_overwritten(faces: Path, tmp_path: Path) -> None:
    mine = shutil.copytree(faces, tmp_path / "mine")
    (mine / "holiday.jpg").write_bytes(b"mine")
    before = read_all(mine)
    with pytest.raises(AgeGenderError, match=r"holiday\.jpg is unexpected"):
        generate_faces(mine, 24, seed=3, size=64)
    assert read_all(mine) == before


@pytest.mark.parametrize("end", [0, -1])
def test_empty_first_or_last_face_is_an_error(faces: Path, tmp_path: Path, end: int) -> None:
    copy = shutil.copytree(faces, tmp_path / "copy")
    os.truncate(sorted(copy.iterdir(), key=lambda path: path.name.split("_")[3])[end], 0)
    with pytest.raises(AgeGenderError, match="is not an image"):
        generate_faces(copy, 24, seed=3, size=64)


def test_file_at_the_target_path_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "faces").write_text("mine")
    with pytest.raises(AgeGenderError, match="not a folder"):
        generate_faces(tmp_path / "faces", 2, size=32)
    assert (tmp_path / "faces").read_text() == "mine"


def test_target_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(AgeGenderError, match="Can't write"):
        generate_faces(tmp_path / "file" / "faces", 2, size=32)


@pytest.mark.parametrize("wrong", [{"count": 0}, {"count": 1_000_001}, {"seed": -1}, {"size": 15}])
def test_arguments_out_of_range_are_an_error(tmp_path: Path, wrong: dict[str, int]) -> None:
    with pytest.raises(AgeGenderError, match="Can't draw"):
        generate_faces(tmp_path / "faces", **{"count": 2, "seed": 0, "size": 32, **wrong})  # type: ignore[arg-type]
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("stop", [KeyboardInterrupt, RuntimeError])
def test_interrupted_run_leaves_nothing_behind(tmp_path: Path, stop: type[BaseException]) -> None:
    def progress(done: int) -> None:
        if done == 3:
            raise stop

    with pytest.raises(stop):
        generate_faces(tmp_path / "faces", 40, size=32, progress=progress)
    assert not list(tmp_path.iterdir())


def test_concurrent_generation_uses_the_copy_finished_first(tmp_path: Path) -> None:
    barrier, ends = threading.Barrier(2), []

    def progress(done: int) -> None:
        if done == 6:
            barrier.wait(timeout=20)  # both have drawn everything before either renames

    def run() -> None:
        ends.append(generate_faces(tmp_path / "faces", 6, size=32, progress=progress))

    threads = [threading.Thread(target=run) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert ends == [tmp_path / "faces"] * 2
    assert [path.name for path in tmp_path.iterdir()] == ["faces"] and len(read_all(tmp_path / "faces")) == 6


def test_generate_faces_works_in_a_script_without_a_main_guard(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        "from agegender.data.sources.synthetic import generate_faces\n"
        "print('started')\n"
        f"generate_faces({str(tmp_path / 'faces')!r}, 4, size=32)\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(synthetic.__file__).parents[3])}
    done = subprocess.run([sys.executable, script], env=environment, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (0, "started\n", "")
    assert len(read_all(tmp_path / "faces")) == 4


def test_progress_counts_every_face(tmp_path: Path) -> None:
    seen: list[int] = []
    generate_faces(tmp_path / "deep" / "faces", 7, size=32, progress=seen.append)
    assert seen == [1, 2, 3, 4, 5, 6, 7]


def test_odd_files_are_the_documented_ones(odd: Path) -> None:
    plain = {synthetic._traits(3, index)[1] for index in range(8)}
    extra = {*synthetic.ODD_READABLE, *synthetic.QUARANTINED, *synthetic.IGNORED, *synthetic.NESTED, *duplicates(8, 3)}
    assert set(read_all(odd)) == plain | extra and not plain & extra
    assert generate_faces(odd, 8, seed=3, size=64, odd_files=True) == odd
    with pytest.raises(AgeGenderError, match="unexpected"):
        generate_faces(odd, 8, seed=3, size=64)


def test_glasses_are_a_third_label_and_change_nothing_else(faces: Path, tmp_path: Path) -> None:
    """`faces` wear glasses too, but by age: of those whose glasses happen to be the same, no byte differs."""
    folder = generate_faces(tmp_path / "glasses", 24, seed=3, size=64, glasses=True)
    with (folder / "labels.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert {row["path"] for row in rows} == set(read_all(faces)) == set(read_all(folder)) - {"labels.csv"}
    for row in rows:
        age, gender, group, _ = row["path"].split("_")
        assert [row["age"], row["gender"], row["group"]] == [age, GENDERS[int(gender)], GROUPS[int(group)]]
    worn = [synthetic._glasses(3, index) for index in range(24)]
    assert [row["glasses"] for row in rows] == ["no" if glasses == "none" else "yes" for glasses in worn]
    equal = set()
    for index, glasses in enumerate(worn):
        labels, name, rng = synthetic._traits(3, index)
        same = (folder / name).read_bytes() == (faces / name).read_bytes()
        assert same == (sample_person(*labels, rng).glasses == glasses)
        equal.add(same)
    assert equal == {True, False}
    assert generate_faces(folder, 24, seed=3, size=64, glasses=True) == folder
    with pytest.raises(AgeGenderError, match=r"labels\.csv is unexpected"):
        generate_faces(folder, 24, seed=3, size=64)


def test_glasses_are_on_half_of_the_faces_at_any_age() -> None:
    ages = np.array([synthetic._traits(0, index)[0][0] for index in range(3000)])
    worn = np.array([synthetic._glasses(0, index) != "none" for index in range(3000)])
    assert 0.47 < worn[ages < 20].mean() < 0.53 and 0.47 < worn[ages > 45].mean() < 0.53


def test_glasses_and_odd_files_exclude_each_other(tmp_path: Path) -> None:
    with pytest.raises(AgeGenderError, match=r"data\.synthetic\.odd_files and data\.synthetic\.glasses: choose one"):
        generate_faces(tmp_path / "faces", 2, odd_files=True, glasses=True)


def test_only_the_broken_odd_files_fail_to_open(odd: Path) -> None:
    broken = set()
    for name in read_all(odd):
        try:
            with Image.open(odd / name) as image:
                image.load()
        except OSError:
            broken.add(name)
    reasons = {"truncated JPEG", "empty file"}
    assert broken == {name for name, why in synthetic.QUARANTINED.items() if why in reasons} | set(synthetic.IGNORED)


def test_odd_files_hold_a_relabeled_exact_copy_and_a_near_copy(odd: Path) -> None:
    (same, same_of), (near, near_of) = duplicates(8, 3).items()
    assert (odd / same).read_bytes() == (odd / same_of).read_bytes()
    assert abs(int(same.split("_")[0]) - int(same_of.split("_")[0])) == 5
    assert near.split("_")[:3] == near_of.split("_")[:3]
    first, second = (np.asarray(Image.open(odd / name), dtype=float) for name in (near_of, near))
    assert (odd / near).read_bytes() != (odd / near_of).read_bytes()
    assert np.abs(second[:, 1:] - first[:, :-1]).mean() < 4


def test_appearance_depends_on_age_and_gender() -> None:
    def mean(group: list[Person], trait: str) -> float:
        return float(np.mean([getattr(person, trait) for person in group]))

    infants, adults, old = people(range(1, 4), 0), people(range(25, 40), 0), people(range(70, 90), 0)
    women = people(range(25, 40), 1)
    assert mean(infants, "eye_y") > mean(adults, "eye_y") + 0.08  # low in the face
    assert mean(infants, "eye_size") > mean(adults, "eye_size") * 1.2
    assert mean(infants, "chin") < mean(adults, "chin") - 0.1
    assert mean(adults, "wrinkles") + 0.4 < mean(old, "wrinkles")
    assert np.mean([p.hair for p in adults]) + 50 < np.mean([p.hair for p in old])  # gray
    assert mean(women, "lash") > mean(adults, "lash") + 0.3 and mean(women, "brow") < mean(adults, "brow")
    assert mean(women, "beard") == 0 < mean(adults, "beard") and mean(infants, "beard") == 0


def test_appearance_of_the_genders_overlaps() -> None:
    men, women = people(range(25, 40), 0), people(range(25, 40), 1)
    lengthy = ("bob", "long", "bun")
    assert 0.02 < np.mean([p.style in lengthy for p in men]) < 0.4 < np.mean([p.style in lengthy for p in women]) < 0.98
    assert max(p.lash for p in men) > min(p.lash for p in women)


def test_group_changes_the_skin_tone_only() -> None:
    first, last = (sample_person(30, 1, group, np.random.default_rng(5)) for group in (0, 4))
    changed = {field for field in Person.__dataclass_fields__ if getattr(first, field) != getattr(last, field)}
    assert changed == {"skin", "lip_color"}  # lips blend with the skin
    assert 0 < np.abs(np.subtract(first.skin, last.skin)).max() < 60


@pytest.mark.parametrize("age", [1, 8, 30, 60, 100])
@pytest.mark.parametrize("gender", [0, 1])
def test_face_has_the_requested_size(age: int, gender: int) -> None:
    face = draw_face(age, gender, 2, np.random.default_rng(age), size=48)
    assert face.size == (48, 48) and face.mode == "RGB"
    assert np.asarray(face).std() > 10  # something is drawn
