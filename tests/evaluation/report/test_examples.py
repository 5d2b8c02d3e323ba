"""The rows of faces: labels and answers under each, with or without its picture."""

from __future__ import annotations

import base64
import io
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from helpers.made_runs import AGE, ETHNICITY, GENDER, HEIGHT, Made, make_run
from PIL import Image

from agegender.evaluation.html.page import Card, Section
from agegender.evaluation.report.analysis import analyze
from agegender.evaluation.report.examples import face_sections
from agegender.evaluation.report.run_reader import read_run
from agegender.tasks.info import TaskInfo


def sections_of(
    folder: Path, *made: Made, label: str = "", faces: int = 24, tasks: Sequence[TaskInfo] = (AGE, GENDER)
) -> list[Section]:
    found = read_run(make_run(folder / "run", made, pictures=str(folder), tasks=tasks)).predictions
    return face_sections(found, analyze(found, resamples=5, faces=faces, seed=0), label)


def cards_of(section: Section) -> list[Card]:
    (row,) = section.faces
    return list(row)


def test_card_shows_labels_prediction_std_and_probability(tmp_path: Path) -> None:
    largest, wrong, drawn = sections_of(
        tmp_path,
        Made("a.jpg", age=23, age_pred=61.4, gender=1, p_female=0.82, age_std="8.6"),
        Made("b.jpg", age=30, age_pred=29.6, gender=1, p_female=0.25),
    )
    assert [card.title for card in cards_of(largest)] == ["a.jpg", "b.jpg"]
    first, second = cards_of(largest)
    assert first.lines == ("true 23 F", "pred. 61 ± 9", "F 0.82")
    assert second.lines == ("true 30 F", "pred. 30", "M 0.75")
    assert [card.title for card in cards_of(wrong)] == ["b.jpg"]
    assert [card.title for card in cards_of(drawn)] == ["a.jpg", "b.jpg"]  # by age


def test_cards_hold_their_images_and_stay_empty_for_missing_files(tmp_path: Path) -> None:
    name = os.fsdecode(b"\xff.jpg")
    Image.new("RGB", (300, 200), (200, 30, 30)).save(tmp_path / "there.jpg")
    Image.new("RGB", (40, 40), (30, 200, 30)).save(os.path.join(tmp_path, name), "JPEG")
    (tmp_path / "damaged.jpg").write_bytes(b"no picture")
    sections = sections_of(tmp_path, *(Made(each) for each in ("there.jpg", name, "damaged.jpg", "gone.jpg")))
    cards = {card.title: card.uri for card in cards_of(sections[0])}
    assert cards["damaged.jpg"] == cards["gone.jpg"] == ""
    with Image.open(io.BytesIO(base64.b64decode(cards["there.jpg"].partition(",")[2]))) as picture:
        assert picture.size == (112, 75)
        red, green, _ = picture.convert("RGB").getpixel((50, 40))  # type: ignore[misc]
        assert red > 150 > green
    assert cards[name].startswith("data:image/jpeg")
    assert "2 of 4 images are not" in sections[0].text


def test_example_rows_respect_the_limit_and_empty_sections_are_omitted(tmp_path: Path) -> None:
    made = [Made(f"{i}.jpg", age_pred=30 + i) for i in range(9)]
    sections = sections_of(tmp_path, *made, label="B", faces=4)
    assert [section.title for section in sections] == [
        "Largest age errors (B)",
        "Random faces (B)",
    ]  # all genders right
    assert [len(cards_of(section)) for section in sections] == [4, 4]
    assert [card.title for card in cards_of(sections[0])] == ["8.jpg", "7.jpg", "6.jpg", "5.jpg"]
    assert sections_of(tmp_path / "none", *made, faces=0) == []


def test_card_shows_every_task_and_a_missing_label_as_a_question_mark(tmp_path: Path) -> None:
    twins = replace(ETHNICITY, classes=("Alpha", "Aleph", "Beta", "Gamma", "Delta"))
    probabilities: dict[str, float | str] = {f"p_{name}": 0.1 for name in ("White", "Black", "Asian", "Indian")}
    made = Made("a.jpg", group=4, more={**probabilities, "p_Others": 0.6, "height": "", "height_pred": 171.26})
    (drawn,) = sections_of(tmp_path, made, tasks=(HEIGHT, GENDER, twins))
    assert drawn.title == "Random faces" and "In ascending order of height." in drawn.text
    assert cards_of(drawn)[0].lines == ("true ? M Delta", "pred. 171.3", "M 0.90", "Delta 0.60")
    assert "M: male; F: female" in drawn.text  # initials that are not unique are no short names
