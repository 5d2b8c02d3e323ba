"""One estimate per person: weights, an interval as wide as a frame's, and the rows of the tracks."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from helpers.made_predictions import TWO, made

from agegender.errors import AgeGenderError
from agegender.prediction.prediction import NO_FACE, Prediction, to_row
from agegender.prediction.predictor import ImageResult
from agegender.prediction.tracking.people import People, Person


def values(age: float, std: float | None, low: float | None, high: float | None, p: float | None) -> dict[str, Any]:
    return {"age": age, "age_std": std, "age_low": low, "age_high": high, "p_female": p}


def face(path: str, x: float, score: float = 0.9, **given: Any) -> Prediction:
    given = values(30.0, 5.0, 22, 41, 0.8) | {"gender": "female"} | given
    return made(path, box=(x, 10.0, x + 40, 60.0), score=score, **given)


def results(*predictions: Sequence[Prediction]) -> list[ImageResult]:
    return [ImageResult(frame[0].path, list(frame)) for frame in predictions]


def follow(people: People, frames: Iterable[ImageResult]) -> list[list[int | None]]:
    return [[prediction.track for prediction in answered.predictions] for answered in people.follow(frames)]


def test_person_age_is_the_mean_weighted_by_inverse_variance() -> None:
    person = Person(TWO, keep_boxes=False)
    person.add(0.0, np.zeros(4), values(20.0, 1.0, 15, 25, 0.9))
    person.add(0.1, np.zeros(4), values(40.0, 2.0, 30, 50, 0.6))  # a quarter of the weight
    found = person.values()
    assert found["age"] == pytest.approx((20 + 0.25 * 40) / 1.25) == 24.0
    assert found["age_std"] == pytest.approx((1 + 0.25 * 2) / 1.25) == 1.2
    assert (found["age_low"], found["age_high"]) == pytest.approx((18.0, 30.0))
    assert found["p_female"] == pytest.approx(0.75) and found["gender"] == "female"


def test_person_interval_does_not_shrink_with_the_number_of_frames() -> None:
    person = Person(TWO, keep_boxes=False)
    for frame in range(1000):
        person.add(0.1 * frame, np.zeros(4), values(30.0 + frame % 2, 5.0, 22 + frame % 2, 41 + frame % 2, 0.8))
    found = person.values()
    assert found["age"] == pytest.approx(30.5) and found["age_std"] == pytest.approx(5.0)
    assert found["age_high"] - found["age_low"] == pytest.approx(19.0)
    assert person.frames == 1000 and len(person.times) == len(person.boxes) == 2
    assert person.times == pytest.approx([0.0, 99.9])


def test_person_age_varies_less_than_the_ages_of_its_frames() -> None:
    random = np.random.default_rng(0)
    ages = random.normal(30, 4, (200, 16))
    estimates = []
    for row in ages:
        person = Person(TWO, keep_boxes=False)
        for frame, age in enumerate(row):
            person.add(frame, np.zeros(4), values(age, random.uniform(4, 6), age - 6, age + 6, 0.5))
        estimates.append(person.values()["age"])
    assert np.std(estimates) < 0.3 * ages.std()


def test_person_of_uncalibrated_predictions_has_no_interval() -> None:
    person = Person(TWO, keep_boxes=False)
    for age in (20.0, 40.0):
        person.add(0.0, np.zeros(4), values(age, None, None, None, 0.4))
    found = person.values()
    assert found["age"] == 30.0 and found["age_std"] is found["age_low"] is found["age_high"] is None


def test_person_gender_is_unsure_below_the_threshold_of_the_task() -> None:
    tasks = tuple(replace(info, min_confidence=0.7) if info.classes else info for info in TWO)
    person = Person(tasks, keep_boxes=False)
    for p in (0.99, 0.3):
        person.add(0.0, np.zeros(4), values(20.0, 1.0, 15, 25, p))
    assert person.values()["gender"] == "unsure"


def test_person_box_is_interpolated_between_frames_and_held_outside() -> None:
    person = Person(TWO, keep_boxes=True)
    for time, left in ((1.0, 0.0), (2.0, 10.0), (4.0, 20.0)):
        person.add(time, np.array([left, 0, left + 8, 8]), values(20.0, 1.0, 15, 25, 0.9))
    assert [person.box_at(time)[0] for time in (0.0, 1.0, 1.5, 3.0, 4.0, 9.0)] == [0, 0, 5, 15, 20, 20]


def test_people_adds_tracks_to_frames_only() -> None:
    people = People(TWO, 0.75, 1.0)
    frames = results(
        [face("a.mp4#t=0.00", 0), face("a.mp4#t=0.00", 200)], [face("b.jpg", 0)], [face("a.mp4#t=0.10", 202)]
    )
    assert follow(people, frames) == [[1, 2], [None], [2]]


def test_people_of_each_video_are_numbered_from_1() -> None:
    people = People(TWO, 0.75, 1.0)
    frames = results([face("a.mp4#t=0.00", 0)], [face("b.mp4#t=0.00", 0)], [face("a.mp4#t=0.10", 200)])
    assert follow(people, frames) == [[1], [1], [2]]
    assert [(row["path"], row["track"]) for row in people.rows()] == [("a.mp4", 1), ("a.mp4", 2), ("b.mp4", 1)]


def test_people_leaves_out_faces_of_a_low_score_that_continue_no_track() -> None:
    people = People(TWO, 0.75, 1.0)
    frames = results(
        [face("a.mp4#t=0.00", 200, 0.6)], [face("a.mp4#t=0.10", 200, 0.6), replace(face("a.mp4#t=0.10", 0), face=2)]
    )
    first, second = people.follow(frames)
    assert first.predictions == [Prediction("a.mp4#t=0.00", error=NO_FACE)]
    assert [(each.face, each.track, each.left) for each in second.predictions] == [(1, 1, 0)]


def test_people_keeps_errors() -> None:
    people = People(TWO, 0.75, 1.0)
    failed = Prediction("a.mp4#t=0.00", error="no face found")
    both = [face("a.mp4#t=0.10", 0), Prediction("a.mp4#t=0.10", error="the network's output is not a number")]
    first, second = people.follow(results([failed], both))
    assert first.predictions == [failed]
    assert [each.track for each in second.predictions] == [1, None] and second.predictions[1] == both[1]


def test_people_rows_have_times_frames_and_rounded_values() -> None:
    people = People(TWO, 0.75, 1.0)
    first = face("a.mp4#t=0.50", 0, age=20.0, age_std=1.0, age_low=15, age_high=25, p_female=0.9)
    second = face("a.mp4#t=1.25", 2, age=41.0, age_std=2.0, age_low=30, age_high=51, p_female=0.65)
    follow(people, results([first], [second]))
    assert list(people.rows()) == [
        {"path": "a.mp4", "track": 1, "start": 0.5, "end": 1.25, "frames": 2}
        | {"age": 24.2, "age_std": 1.2, "age_low": 18, "age_high": 30, "p_female": 0.775, "gender": "female"}
    ]
    assert people.columns == tuple(next(people.rows()))


def test_people_estimate_replaces_the_values_of_a_frame() -> None:
    people = People(TWO, 0.75, 1.0)
    frames = results([face("a.mp4#t=0.00", 0, age=20.0)], [face("a.mp4#t=0.10", 2, age=30.0)])
    _, second = [answered.predictions[0] for answered in people.follow(frames)]
    assert second.age == 30.0 and people.estimated(second).age == pytest.approx(25.0)
    photo = face("b.jpg", 0)
    assert people.estimated(photo) is photo


def test_people_of_a_replayed_half_equal_those_of_the_whole() -> None:
    random = np.random.default_rng(3)
    frames = []
    for frame in range(60):
        path = f"a.mp4#t={0.1 * frame:.2f}"
        spots = (100 + 3.123 * frame, 300 - 3.321 * frame, 160)
        seen = [face(path, x + random.normal(0, 2), random.uniform(0.5, 1), age=random.normal(30, 4)) for x in spots]
        frames += results([replace(each, face=number) for number, each in enumerate(seen, 1)])
    whole, resumed, before = (People(TWO, 0.75, 1.0, keep_boxes=True) for _ in range(3))
    expected = [each for answered in whole.follow(frames) for each in answered.predictions]
    done = [each for answered in before.follow(frames[:30]) for each in answered.predictions]
    resumed.replay(to_row(each, TWO, tracked=True) for each in done)
    rest = [each for answered in resumed.follow(frames[30:]) for each in answered.predictions]
    assert done + rest == expected and list(resumed.rows()) == list(whole.rows())
    assert {each.track for each in expected} >= {1, 2}


def test_people_refuses_a_task_with_a_column_of_the_tracks() -> None:
    age, gender = TWO
    with pytest.raises(AgeGenderError, match=r"track=true needs the column frames, which is a task's"):
        People((age, replace(gender, name="frames")), 0.75, 1.0)
