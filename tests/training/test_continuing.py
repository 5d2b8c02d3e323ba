"""Settings of two versions of the project are compared by what they mean."""

from __future__ import annotations

from agegender.training.continuing import complete

AGE = {"name": "mae", "scale": 20.0, "offset": 33.0}


def test_settings_of_an_older_version_are_completed_by_the_defaults() -> None:
    old = {"image_size": 16, "in_channels": 1, "age": {"name": "mae", "scale": 20.0}, "channels": [4]}
    new = {**old, "age": {**AGE, "output": "linear"}, "padding": "valid", "gender_output": "logit", "mean": [0.5]}
    assert complete(old) == complete(new)
    assert complete(old) != complete(new | {"gender_output": "sigmoid"})
    assert complete(old) != complete(new | {"age": AGE | {"output": "relu"}})
