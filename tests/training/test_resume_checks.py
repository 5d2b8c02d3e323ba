"""Settings of two versions of the project are compared after filling in defaults."""

from __future__ import annotations

from helpers.nodes import age_node, trunk_node

from agegender.training.resume_checks import with_defaults

AGE = age_node("mae", scale=20.0, offset=33.0)


def test_with_defaults_completes_the_settings_of_an_older_version() -> None:
    old = {"image_size": 16, "in_channels": 1, "age": age_node("mae", scale=20.0), "trunk": trunk_node(channels=[4])}
    parts = {"age": {**AGE, "output": "linear"}, "trunk": trunk_node(channels=[4], padding="valid")}
    new = {**old, **parts, "gender_output": "logit", "mean": [0.5]}
    assert with_defaults(old) == with_defaults(new)
    assert with_defaults(old) != with_defaults(new | {"gender_output": "sigmoid"})
    assert with_defaults(old) != with_defaults(new | {"age": AGE | {"output": "relu"}})
