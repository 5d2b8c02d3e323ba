"""Settings of two versions of the project are compared after filling in defaults."""

from __future__ import annotations

from helpers.nodes import age_node, gender_node, trunk_node

from agegender.training.checks.resume import with_defaults


def test_with_defaults_completes_the_settings_of_an_older_version() -> None:
    gender = {key: value for key, value in gender_node().items() if key != "output"}
    old = {"image_size": 16, "in_channels": 1, "tasks": {"age": age_node("mae"), "gender": gender}}
    old["trunk"] = trunk_node(channels=[4])
    both = {"age": age_node("mae", output="linear"), "gender": gender_node()}
    new = {**old, "tasks": both, "trunk": trunk_node(channels=[4], padding="valid"), "mean": [0.5]}
    assert with_defaults(old) == with_defaults(new)
    assert with_defaults(old) != with_defaults(new | {"tasks": both | {"gender": gender_node(output="sigmoid")}})
    assert with_defaults(old) != with_defaults(new | {"tasks": both | {"age": age_node("mae", output="relu")}})
    assert with_defaults(old) != with_defaults(new | {"tasks": {"age": age_node("mae")}})
