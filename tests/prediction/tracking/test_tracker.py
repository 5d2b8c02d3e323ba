"""Tracks of moving boxes: through crossings, low scores, gaps and fast movements."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from agegender.prediction.tracking.tracker import Tracker

Box = tuple[float, float, float, float]


def around(x: float, y: float = 100.0, side: float = 40.0) -> Box:
    return x - side / 2, y - side / 2, x + side / 2, y + side / 2


def update(tracker: Tracker, time: float, boxes: Sequence[Box], *scores: float | None) -> list[int | None]:
    return tracker.update(time, np.array(boxes, np.float64).reshape(-1, 4), scores or [0.9] * len(boxes))


def test_tracker_numbers_faces_in_the_order_of_their_beginnings() -> None:
    tracker = Tracker(0.75, 1.0)
    assert update(tracker, 0.0, []) == []
    assert update(tracker, 0.1, [around(50), around(300)]) == [1, 2]
    assert update(tracker, 0.2, [around(302), around(180), around(52)]) == [2, 3, 1]


def test_tracker_keeps_the_tracks_of_two_people_who_cross() -> None:
    tracker = Tracker(0.75, 1.0)
    for frame in range(41):  # they meet in the middle at frame 20, at 100 pixels per second each
        left_to_right, right_to_left = around(100 + 10 * frame), around(500 - 10 * frame, 112)
        assert update(tracker, 0.1 * frame, [left_to_right, right_to_left]) == [1, 2], frame


def test_tracker_finds_both_again_when_one_hides_the_other() -> None:
    tracker = Tracker(0.75, 1.0)
    for frame in range(41):
        there = [around(100 + 10 * frame)]
        hidden = abs(frame - 20) <= 2  # the distance is at most the half of a face
        there += [] if hidden else [around(500 - 10 * frame, 112)]
        assert update(tracker, 0.1 * frame, there) == ([1] if hidden else [1, 2]), frame


def test_tracker_continues_but_begins_no_track_with_a_low_score() -> None:
    tracker = Tracker(0.75, 1.0)
    assert update(tracker, 0.0, [around(50), around(300)], 0.9, 0.6) == [1, None]
    assert update(tracker, 0.1, [around(50), around(300)], 0.6, 0.6) == [1, None]
    assert update(tracker, 0.2, [around(70), around(300)], 0.6, 0.75) == [None, 2]  # an IoU of 1/3
    assert update(tracker, 0.3, [around(50)], 0.6) == [None]  # not in the previous frame
    assert update(tracker, 0.4, [around(50)], 0.9) == [1]


def test_tracker_associates_high_scores_before_low_ones() -> None:
    tracker = Tracker(0.75, 1.0)
    update(tracker, 0.0, [around(50)])
    assert update(tracker, 0.1, [around(50), around(58)], 0.6, 0.8) == [None, 1]


@pytest.mark.parametrize(("gap", "track"), [(1.0, 1), (0.89, 2)])
def test_tracker_ends_a_track_after_the_gap(gap: float, track: int) -> None:
    tracker = Tracker(0.75, gap)
    update(tracker, 0.0, [around(50)])
    for frame in range(1, 9):
        update(tracker, 0.1 * frame, [])
    assert update(tracker, 0.9, [around(50)]) == [track]


def test_tracker_predicts_a_constant_velocity() -> None:
    tracker = Tracker(0.75, 1.0)
    for frame in range(3):
        assert update(tracker, 0.1 * frame, [around(50 + 20 * frame)]) == [1]
    # half a second later the face is 100 pixels farther, and another one is where it was last
    assert update(tracker, 0.7, [around(90), around(190)]) == [2, 1]


def test_tracker_follows_a_face_that_moves_by_its_own_width() -> None:
    tracker = Tracker(0.75, 1.0)
    assert update(tracker, 0.0, [around(50)]) == [1]
    assert update(tracker, 0.1, [around(95)]) == [1]  # the boxes don't touch
    assert update(tracker, 0.2, [around(140)]) == [1]
    assert update(tracker, 0.3, [around(400)]) == [2]


def test_tracker_begins_anew_at_an_earlier_time() -> None:
    tracker = Tracker(0.75, 1.0)
    update(tracker, 0.0, [around(50)])
    update(tracker, 0.5, [around(50)])
    assert update(tracker, 0.0, [around(50)]) == [2]


def test_tracker_treats_boxes_without_a_score_as_high() -> None:
    assert update(Tracker(0.75, 1.0), 0.0, [around(50)], None) == [1]
