"""`agegender explore` as a user runs it: one page, its plots and its tables."""

from __future__ import annotations

import base64
import csv
import json
import os
import re
import shutil
import statistics
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from conftest import ROOT, Outcome
from helpers.blank_plots import blank_plots
from helpers.made_tables import half_labeled, rows_of, write_table
from omegaconf import OmegaConf
from PIL import Image

from agegender.cli.main import call_with_config
from agegender.data.index.utkface import GENDERS, GROUPS
from agegender.data.sources.synthetic import IGNORED, QUARANTINED, duplicates
from agegender.errors import AgeGenderError
from agegender.evaluation.explore.explore import explore

Run = Callable[..., Outcome]

PLOTS = {
    *("age_values", "ages_by_gender", "gender_counts", "group_counts", "ages_by_group", "split_ages"),
    *("brightness", "contrast", "sharpness", "samples"),
}
FILES = {"explore.html", "explore.json", "index.csv", "quarantine.csv", *(f"plots/{name}.png" for name in PLOTS)}
TITLES = (
    *("Age", "Gender", "Group", "Sample", "Quarantine", "Copies"),
    *("Brightness", "Contrast", "Sharpness", "Split"),
)
(EXACT, _) = duplicates(60, 2).items()  # of `odd_faces`: the same bytes under another age; (copy, face)


@dataclass
class Section:
    """What a reader sees of one section; `rows` are the rows of faces, each as (file name, caption)."""

    text: str = ""
    cells: list[str] = field(default_factory=list)
    plots: dict[str, bytes] = field(default_factory=dict)
    rows: list[list[tuple[str, str]]] = field(default_factory=list)


class Reader(HTMLParser):
    """Reads a page as a browser does: sections by their titles, and every address that it names."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.sections: dict[str, Section] = {}
        self.addresses: list[str] = []
        self.tags: set[str] = set()
        self.text = ""
        self._tag, self._section, self._name = "", Section(), ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        names = {name: value or "" for name, value in attrs}
        self._tag = tag
        self.tags.add(tag)
        self.addresses += [
            value for name, value in names.items() if name in ("src", "href", "srcset", "data", "action")
        ]
        if tag == "h2":
            self._section = Section()
        elif tag == "div" and "faces" in names.get("class", ""):
            self._section.rows.append([])
        elif tag == "figure" and names.get("class") == "face":
            self._section.rows[-1].append((names["title"], ""))
        elif tag == "figure":
            self._name = names["id"]
            self._section.plots[self._name] = b""
        elif tag == "img" and names["src"].startswith("data:image/png"):
            self._section.plots[self._name] = base64.b64decode(names["src"].partition(",")[2])

    def handle_data(self, data: str) -> None:
        if self._tag != "style":
            self.text += data
        if self._tag == "h2" and data.strip():
            self.sections[data] = self._section
        elif self._tag == "p":
            self._section.text += data
        elif self._tag in ("td", "th") and data.strip():
            self._section.cells.append(data)
        elif self._tag in ("figcaption", "br") and self._section.rows and self._section.rows[-1]:
            name, caption = self._section.rows[-1][-1]
            self._section.rows[-1][-1] = name, f"{caption} {data.strip()}".strip()


def faces_of(section: Section) -> list[list[tuple[str, str]]]:
    return [row for row in section.rows if row]


def read_page(folder: Path) -> Reader:
    return Reader((folder / "explore.html").read_text(encoding="utf-8"))


def figures_of(folder: Path) -> dict[str, Any]:
    figures: dict[str, Any] = json.loads((folder / "explore.json").read_text(encoding="utf-8"))
    return figures


def table_of(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


@pytest.fixture
def explore_here(run_here: Run) -> Run:
    """Explores inside the test's process."""

    return lambda *arguments: run_here("agegender/evaluation/explore/__main__.py", *arguments)


@pytest.fixture(scope="module")
def flipped(odd_faces: Path) -> tuple[str, str]:
    """The name of a face of `odd_faces`, and one for its copy under the other gender."""
    name = max(path.name for path in odd_faces.glob("*_2018*"))
    age, gender, rest = name.split("_", 2)
    return name, f"{age}_{1 - int(gender)}_{rest.replace('2018', '2019')}"


@pytest.fixture(scope="module")
def odd_page(odd_faces: Path, flipped: tuple[str, str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of everything that can be wrong, and of a near copy. Read only."""
    where = tmp_path_factory.mktemp("explored")
    shutil.copytree(odd_faces, where / "faces")
    with Image.open(odd_faces / flipped[0]) as picture:
        picture.save(where / "faces" / flipped[1], "JPEG", quality=70)
    page = explore({"dir": str(where / "faces"), "cache_dir": str(where / "cache")}, str(where / "odd page"))
    assert page == where / "odd page" / "explore.html"
    return page.parent


@pytest.fixture(scope="module")
def crowded_page(faces: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of faces, 204 bad names, 21 files of one picture and 4 blank ones, split at random. Read only."""
    folder = tmp_path_factory.mktemp("crowded") / "faces"
    shutil.copytree(faces, folder)
    for number in range(203):
        (folder / f"note {number:03}.txt").touch()
    (folder / "<b>\udcff.jpg").touch()  # no UTF-8, and it would be a tag
    for age in range(20):
        shutil.copy(min(faces.iterdir()), folder / f"{age}_0_0_20200101000000000.jpg")
    for gray, name in ((2, "30_0_0_1.png"), (1, "30_0_0_2.png"), (253, "30_0_0_3.png"), (254, "30_0_0_4.png")):
        Image.new("L", (64, 64), gray).save(folder / name)
    data = {"dir": str(folder), "split": "random", "limit": 40}
    with blank_plots():
        return explore(data, str(folder.parent / "page"), samples=500, outliers=2).parent


# The page


def test_page_refers_to_nothing_outside_itself(odd_page: Path) -> None:
    page, html = read_page(odd_page), (odd_page / "explore.html").read_text(encoding="utf-8")
    assert len(page.addresses) > 60
    assert all(address.startswith(("data:image/", "#")) for address in page.addresses)
    assert not page.tags & {"script", "link", "iframe", "object", "embed", "base"}
    assert "url(" not in html and "@import" not in html


def test_page_has_every_section_and_each_plot_is_a_png_beside_it(odd_page: Path) -> None:
    page = read_page(odd_page)
    assert tuple(page.sections) == TITLES
    assert {str(path.relative_to(odd_page)) for path in odd_page.rglob("*") if path.is_file()} == FILES
    shown = {name: png for section in page.sections.values() for name, png in section.plots.items()}
    assert set(shown) == PLOTS - {"samples"}  # those faces stand on the page one by one
    for name in PLOTS:
        with Image.open(odd_page / "plots" / f"{name}.png") as picture:
            assert picture.format == "PNG" and min(picture.size) > 100
        assert shown.get(name) in (None, (odd_page / "plots" / f"{name}.png").read_bytes())


def test_explore_counts_equal_those_of_the_file_names(odd_page: Path) -> None:
    labels = [[int(part) for part in row["file"].split("_")[:3]] for row in table_of(odd_page / "index.csv")]
    ages, genders, groups = zip(*labels, strict=True)
    found = figures_of(odd_page)
    assert found["faces"]["images"] == 67
    assert found["faces"]["labels"]["age"] == {
        "mean": pytest.approx(statistics.fmean(ages), abs=1e-4),
        "median": statistics.median(ages),
        "min": min(ages),
        "max": max(ages),
    }
    assert found["faces"]["labels"]["gender"] == {"male": genders.count(0), "female": genders.count(1)}
    assert found["faces"]["labels"]["group"] == {name: groups.count(code) for code, name in enumerate(GROUPS)}
    for code, name in enumerate(GROUPS):
        theirs = [age for age, _, group in labels if group == code]
        assert found["by_class"]["group"][name]["labels"]["age"]["mean"] == pytest.approx(
            statistics.fmean(theirs), abs=1e-4
        )
    page = read_page(odd_page).sections
    for title, name, images in (("Gender", "male", genders.count(0)), ("Group", "Indian", groups.count(3))):
        row = page[title].cells.index(name, page[title].cells.index("share"))  # other labels' classes are columns
        assert page[title].cells[row + 1 : row + 3] == [str(images), f"{100 * images / 67:.1f} %"]


def test_every_quarantined_name_stands_with_its_reason(odd_page: Path) -> None:
    cells = read_page(odd_page).sections["Quarantine"].cells
    rows = {row["file"]: row["reason"] for row in table_of(odd_page / "quarantine.csv")}
    assert set(rows) == {*QUARANTINED, *IGNORED, "nested"}
    for name, reason in rows.items():
        assert cells[cells.index(name) + 1] == reason
    assert figures_of(odd_page)["quarantined"] == {"files": 9, "reasons": dict(Counter(rows.values()))}


def test_quarantine_section_shows_200_names_and_counts_the_rest(crowded_page: Path) -> None:
    section = read_page(crowded_page).sections["Quarantine"]
    assert "<b>?.jpg" in section.cells and "note 198.txt" in section.cells and "note 199.txt" not in section.cells
    assert "204 files" in section.text and " 4 more" in section.text
    assert len(table_of(crowded_page / "quarantine.csv")) == 204


def test_conflicting_copies_are_shown_together_class_conflicts_first(odd_page: Path, flipped: tuple[str, str]) -> None:
    rows = faces_of(read_page(odd_page).sections["Copies"])
    assert [{name for name, _ in row} for row in rows] == [set(flipped), set(EXACT)]
    index = {row["file"]: row for row in table_of(odd_page / "index.csv")}
    for name, caption in (face for row in rows for face in row):
        age, gender, group = map(int, name.split("_")[:3])
        assert caption.startswith(f"{age} {GENDERS[gender]} {GROUPS[group]} ")
        assert index[name]["split"] in caption and index[name]["sha256"][:8] in caption
    ages = [int(name.split("_")[0]) for name in EXACT]
    copies = figures_of(odd_page)["copies"]
    assert copies["exact"]["apart"]["age"]["max"] == abs(ages[0] - ages[1]) == 5
    assert (copies["exact"]["groups"], copies["near"]["groups"], copies["all"]["files"]) == (1, 1, 4)
    assert copies["all"]["disagree"] == {"age": 1, "gender": 1, "group": 0}


def test_duplicates_section_shows_at_most_eight_copies(crowded_page: Path) -> None:
    (row,) = faces_of(read_page(crowded_page).sections["Copies"])
    assert len(row) == 9 and row[-1] == ("", "and 13 more")


def test_outliers_are_shown_with_values_in_order_of_extremity(crowded_page: Path) -> None:
    sections = read_page(crowded_page).sections
    dark, bright = faces_of(sections["Brightness"])
    assert [name for name, _ in dark] == ["30_0_0_2.png", "30_0_0_1.png"] and "brightness 1.0" in dark[0][1]
    assert [name for name, _ in bright] == ["30_0_0_4.png", "30_0_0_3.png"] and "brightness 254.0" in bright[0][1]
    for title in ("Contrast", "Sharpness"):
        (blank,) = faces_of(sections[title])
        assert [name for name, _ in blank] == ["30_0_0_1.png", "30_0_0_2.png"]
    light = figures_of(crowded_page)["light"]["brightness"]
    assert (light["min"], light["max"]) == (1, 254) and 1 < light["median"] < light["percentile_99"] < 254
    assert light["darkest"] == [{"file": "30_0_0_2.png", "value": 1.0}, {"file": "30_0_0_1.png", "value": 2.0}]


def test_sample_larger_than_the_folder_is_the_folder(crowded_page: Path) -> None:
    (row,) = faces_of(read_page(crowded_page).sections["Sample"])
    assert {name for name, _ in row} == {row["file"] for row in table_of(crowded_page / "index.csv")}


def test_splits_table_counts_every_image_once_and_no_copies_straddle(odd_page: Path) -> None:
    split, section = figures_of(odd_page)["split"], read_page(odd_page).sections["Split"]
    rows = table_of(odd_page / "index.csv")
    sides = Counter(row["split"] for row in rows)
    assert {side: part["images"] for side, part in split["sides"].items()} == dict(sides) and len(rows) == 67
    for side in ("train", "val", "test"):
        place = section.cells.index(side)
        female = sum(row["gender"] == "1" for row in rows if row["split"] == side)
        assert section.cells[place + 1 : place + 3] == [str(sides[side]), f"{100 * sides[side] / 67:.1f} %"]
        assert section.cells[place + 5] == f"{100 * female / sides[side]:.1f} %"
    assert split["straddling_groups"] == 0 and "0 of 2 duplicate groups" in section.text


def test_explore_page_names_a_random_split_and_a_limit(crowded_page: Path) -> None:
    section = read_page(crowded_page).sections["Split"]
    assert "the validation images are the test images" in section.text and "data.limit=40" in section.text
    assert section.cells[section.cells.index("all") + 1 :][:2] == ["40", "100.0 %"]


# Running it


@pytest.mark.slow
def test_explore_replaces_its_output_and_samples_by_seed(explore_here: Run, faces: Path, tmp_path: Path) -> None:
    pages = []
    for seed in (0, 0, 1):
        assert explore_here(f"data.dir={faces}", "out=page", "samples=10", f"seed={seed}").code == 0
        found = {str(path.relative_to(tmp_path / "page")) for path in (tmp_path / "page").rglob("*") if path.is_file()}
        assert found == FILES
        (row,) = faces_of(read_page(tmp_path / "page").sections["Sample"])
        pages.append((row, {name: (tmp_path / "page" / name).read_bytes() for name in FILES}))
        for name in FILES:
            (tmp_path / "page" / name).write_bytes(b"old")
    assert pages[0] == pages[1]
    assert pages[0][0] != pages[2][0] and pages[0][1]["plots/samples.png"] != pages[2][1]["plots/samples.png"]
    names = [name for name, _ in pages[0][0]]
    ages = [int(name.split("_")[0]) for name in names]
    assert len(set(names)) == 10 and ages == sorted(ages)


@pytest.mark.usefixtures("undrawn")
def test_explore_shows_a_tables_groups_and_missing_labels(explore_here: Run, faces: Path, tmp_path: Path) -> None:
    rows = half_labeled(faces)
    for number, row in enumerate(rows):
        row |= {"group": ("north", "$ou_th$", "")[number % 3], "split": ("train", "val", "test", "")[number % 4]}
    first = rows[2]["path"]  # a copy of it is under no age and the other gender
    shutil.copy(faces / str(first), tmp_path / "copy.jpg")
    other = {"male": "f", "female": "m"}[str(rows[2]["gender"])]
    rows.append({"path": tmp_path / "copy.jpg", "age": "", "gender": other, "group": "north", "split": ""})
    write_table(tmp_path / "labels.csv", rows)
    outcome = explore_here("data=table", "data.table=labels.csv", f"data.dir={faces}", "out=page")
    assert (outcome.code, outcome.err) == (0, "")
    assert "table: labels.csv" in outcome.out and "unknown for 61 images" in outcome.out
    assert "images: 121" in outcome.out and "quarantined: 0" in outcome.out
    assert outcome.out.splitlines()[-1] == f"page: {Path('page') / 'explore.html'}"
    found, page = figures_of(tmp_path / "page"), read_page(tmp_path / "page")
    assert found["faces"]["missing"] == {"age": 61, "gender": 20, "group": 40}
    assert (
        found["faces"]["labels"]["group"] == {"$ou_th$": 40, "north": 41}
        and list(found["by_class"]["group"]) == found["classes"]["group"]
    )
    assert sum(found["faces"]["age_band"].values()) == 60
    ages = [int(str(row["age"])) for row in rows if row["age"] != ""]
    assert found["faces"]["labels"]["age"]["mean"] == pytest.approx(statistics.fmean(ages), abs=1e-4)
    assert found["copies"]["all"]["disagree"] == {"age": 0, "gender": 1, "group": 0}
    assert "The split is given by the table labels.csv." in page.sections["Split"].text
    captions = [caption for row in faces_of(page.sections["Sample"]) for _, caption in row]
    assert any(caption.startswith("? ") for caption in captions) and not any("-1" in caption for caption in captions)
    assert sum(row["age"] == "" for row in table_of(tmp_path / "page" / "index.csv")) == 61


@pytest.mark.usefixtures("undrawn")
@pytest.mark.parametrize("lacking", [("age",), ("gender", "group")])
def test_explore_accepts_a_table_without_label_columns(
    explore_here: Run, faces: Path, tmp_path: Path, lacking: tuple[str, ...]
) -> None:
    rows = [{name: cell for name, cell in row.items() if name not in lacking} for row in rows_of(faces)]
    write_table(tmp_path / "labels.csv", rows)
    settings = ("data=table", "data.table=labels.csv", f"data.dir={faces}", "data.split=test", "out=page")
    outcome = explore_here(*settings)
    assert outcome.code == 0, outcome.err
    page = read_page(tmp_path / "page")
    for label in ("age", "gender", "group"):
        section = page.sections[label.capitalize()]
        assert (f"No image has the label {label}." in section.text) == (not section.plots) == (label in lacking)
    assert "every image is a test image" in page.sections["Split"].text


@pytest.mark.usefixtures("undrawn")
@pytest.mark.parametrize("tasks", [True, False])
def test_explore_describes_the_labels_of_tasks(explore_here: Run, faces: Path, tmp_path: Path, tasks: bool) -> None:
    words, numbers, rows = ["no", "YES", "0", ""], ["1.5", "NA", "-2"], half_labeled(faces)
    for number, row in enumerate(rows):
        row |= {"smile": words[number % 4], "height": numbers[number % 3], "mood": "?"}
    rows[5]["smile"] = "maybe"
    write_table(tmp_path / "labels.csv", rows)
    further = ["+tasks.smile={_target_: agegender.tasks.Binary, label: smile, classes: [no, yes]}"]
    further += ["+tasks.tall={_target_: agegender.tasks.Regression, label: height}"]
    outcome = explore_here("data=table", "data.table=labels.csv", f"data.dir={faces}", "out=page", *further * tasks)
    assert outcome.code == 0, outcome.err
    found, page = figures_of(tmp_path / "page"), read_page(tmp_path / "page")
    assert list(found["faces"]["labels"]) == ["age", "gender", "group", *["smile", "height"] * tasks]
    assert ("Smile" in page.sections) == ("Height" in page.sections) == tasks
    header = ["file", "age", "gender", "group", *["smile", "height"] * tasks, "split", "duplicate_group", "sha256"]
    index = table_of(tmp_path / "page" / "index.csv")
    assert list(index[0]) == header
    if tasks:
        assert "smile: no " in outcome.out and "height: -2 to 1.5, mean " in outcome.out
        assert found["faces"]["labels"]["smile"] == {"no": 60, "yes": 29} and found["faces"]["missing"]["smile"] == 30
        assert found["quarantined"]["reasons"] == {"smile 'maybe' is none of 0, 1, no, yes": 1}
        assert {row["height"] for row in index} == {"1.5", "-2", ""}
        assert set(page.sections["Smile"].plots) == {"smile_counts", "ages_by_smile"}
        assert set(page.sections["Height"].plots) == {"height_values"}
        assert "smile: yes" in page.sections["Split"].cells and "mean height" in page.sections["Split"].cells


@pytest.mark.usefixtures("undrawn")
def test_explore_marks_synthetic_faces_and_caches_no_pixels(explore_here: Run, tmp_path: Path) -> None:
    drawn = ("data=synthetic", "data.synthetic.count=40", "data.synthetic.size=32", "data.cache_dir=cache")
    outcome = explore_here(*drawn, "data.duplicates=none")
    assert outcome.code == 0, outcome.err
    (folder,) = (tmp_path / "logs" / "explore").iterdir()
    page = read_page(folder)
    assert "The faces are synthetic" in page.text and "UTKFace" not in page.text and "do not publish" not in page.text
    assert "No copies were found (data.duplicates=none)" in page.sections["Copies"].text
    assert {path.name for path in (tmp_path / "cache").iterdir()} == {"synthetic", "scans"}
    assert {path.name for path in tmp_path.iterdir()} == {"logs", "cache"}


def test_explore_names_the_license_of_real_faces(odd_page: Path) -> None:
    text = read_page(odd_page).text
    assert "The faces are synthetic" not in text
    assert "non-commercial research" in text and "assigned by others" in text


@pytest.fixture
def two_faces(faces: Path, tmp_path: Path) -> Path:
    """A folder with a file, an empty folder, and one with two faces."""
    (tmp_path / "file").touch()
    (tmp_path / "empty").mkdir()
    (tmp_path / "few").mkdir()
    for path in sorted(faces.iterdir())[:2]:
        shutil.copy(path, tmp_path / "few")
    return tmp_path


@pytest.mark.parametrize(
    ("argument", "code", "said"),
    [
        ("sample=3", 2, "did you mean samples?"),
        ("data.dri=x", 2, "did you mean dir?"),
        ("samples=many", 1, "samples='many' has the wrong type"),
        ("+data.synthetic={cuont:40}", 1, "did you mean count?"),
        ("data.dir=empty", 1, "no UTKFace-named image in empty"),
        ("+tasks.smile={label: smile}", 1, "a task needs the label smile, but there are only age, gender, group"),
        ("+tasks.smile={classes: [a, b]}", 1, "tasks.smile.label=None must be the name of a label"),
    ],
)
def test_explore_refuses_wrong_arguments_in_one_line_and_writes_nothing(
    argument: str, code: int, said: str, explore_here: Run, two_faces: Path
) -> None:
    outcome = explore_here("data.dir=few", "out=page", argument)
    outcome.assert_one_line_error(said, code=code)
    assert {path.name for path in two_faces.iterdir()} == {"file", "empty", "few"}


@pytest.mark.parametrize(
    ("argument", "said"),
    [
        ("samples=0", "samples=0 must be at least 1"),
        ("outliers=0", "outliers=0 must be at least 1"),
        ("seed=-1", "seed=-1 must be at least 0"),
        ("out=null", "out=None has the wrong type"),
        ("out=file", "out=file is a file"),
        ("data.image_size=many", "data.image_size='many' has the wrong type"),
        ("data.dir=file", "data.dir=file is a file"),
        ("data.dir=few", "split of 2 images is empty"),
    ],
)
def test_explore_refuses_settings_that_do_not_fit(
    argument: str, said: str, two_faces: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(two_faces)
    with pytest.raises(AgeGenderError) as refused:
        call_with_config(explore, OmegaConf.from_dotlist(["data.dir=few", "out=page", argument]))
    assert said in str(refused.value) and "\n" not in str(refused.value)
    assert {path.name for path in two_faces.iterdir()} == {"file", "empty", "few"}


@pytest.mark.usefixtures("undrawn")
def test_explore_folder_that_cannot_be_written_is_an_error_in_one_line(
    explore_here: Run, faces: Path, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    outcome = explore_here(f"data.dir={faces}", "out=file/page")
    outcome.assert_one_line_error()
    assert re.fullmatch(r"error: can't write to out=file/page \(.*\); choose another folder\n", outcome.err)


def test_explore_help_and_errors_skip_slow_imports(tmp_path: Path) -> None:
    probe = "import sys, agegender.evaluation.explore; print(sorted({'torch', 'matplotlib'} & set(sys.modules)))"
    command = [sys.executable, "-c", probe]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
