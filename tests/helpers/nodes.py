"""Settings of networks, with trunks and age tasks named as in conf/model and conf/age."""

from __future__ import annotations

import inspect
from typing import Any

from agegender.models.trunks.conv_stack import ConvStack
from agegender.models.trunks.face import FaceTrunk
from agegender.models.trunks.resnet import ResNetTrunk
from agegender.models.trunks.torchvision import TorchvisionTrunk
from agegender.tasks.number import NumberTask
from agegender.tasks.task import build_tasks

# Class and loss of the age task by its name in conf/age.
AGES: dict[str, dict[str, Any]] = {
    "mae": {"_target_": "agegender.tasks.Regression", "loss": "mae", "scale": 20.0, "offset": 33.0},
    "mse": {"_target_": "agegender.tasks.Regression", "loss": "mse", "scale": 20.0, "offset": 33.0},
    "huber": {"_target_": "agegender.tasks.Regression", "loss": "huber", "scale": 20.0, "offset": 33.0},
    "classes": {"_target_": "agegender.tasks.BinnedAge"},
    "dldl": {"_target_": "agegender.tasks.LabelDistribution"},
    "coral": {"_target_": "agegender.tasks.Coral"},
}
_HEIGHT = {"scale": 9.0, "offset": 170.0}
# A further task of each kind, for labels that UTKFace lacks.
FURTHER: dict[str, dict[str, Any]] = {
    "mood": {"_target_": "agegender.tasks.Multiclass", "label": "mood", "classes": ["happy", "calm", "sad"]},
    "glasses": {"_target_": "agegender.tasks.Binary", "label": "glasses", "classes": ["no", "yes"]},
    "height": {"_target_": "agegender.tasks.Regression", "label": "height", "unit": "cm", **_HEIGHT},
}
TRUNKS: dict[str, type[Any]] = {
    "conv_stack": ConvStack,
    "face": FaceTrunk,
    "residual": ResNetTrunk,
    "torchvision": TorchvisionTrunk,
}


def target(built: type[Any]) -> str:
    """Return a class's dotted name."""
    return f"{built.__module__}.{built.__qualname__}"


def age_node(name: str, **options: Any) -> dict[str, Any]:
    """Return the settings of an age task."""
    common = {"label": "age", "weight": 1.0, "unit": "years", "limits": [0, 120], "tolerance": 5.0}
    return {**AGES[name], **common, **options}


def age_task(name: str, **options: Any) -> NumberTask:
    """Return an age task."""
    task = build_tasks({"age": age_node(name, **options)})["age"]
    assert isinstance(task, NumberTask)
    return task


def gender_node(**options: Any) -> dict[str, Any]:
    """Return the settings of the gender task."""
    node = {"_target_": "agegender.tasks.Binary", "label": "gender", "weight": 1.0, "classes": ["male", "female"]}
    return {**node, "column": "p_female", "output": "logit", **options}


def task_nodes(age: str = "mae", /, gender: dict[str, Any] | None = None, **options: Any) -> dict[str, Any]:
    """Return the settings of the two tasks of tasks=age_gender; `options` are those of the age."""
    return {"age": age_node(age, **options), "gender": gender_node(**(gender or {}))}


def trunk_node(trunk: str = "conv_stack", /, **options: Any) -> dict[str, Any]:
    """Return the settings of a trunk."""
    return {"_target_": target(TRUNKS[trunk]), **options}


def network_settings(
    age: dict[str, Any] | None = None, trunk: str = "conv_stack", tasks: dict[str, Any] | None = None, **options: Any
) -> dict[str, Any]:
    """Return the arguments of `MultiTaskNet`.

    Args:
        age: `name` of the age task, and its arguments.
        trunk: Name of the trunk.
        tasks: The tasks, or further tasks beside age and gender if `age` is given.
        options: Arguments of the network or of the trunk; `gender_output` is that of the gender task.
    """
    known = {*inspect.signature(TRUNKS[trunk]).parameters} - {"in_channels", "image_size"}
    trunks = {key: value for key, value in options.items() if key in known}
    others = {key: value for key, value in options.items() if key not in {*trunks, "gender_output"}}
    chosen = dict(tasks or {})
    if age is not None or not chosen:
        given = dict(age or {"name": "mae"})
        gender = {"output": options["gender_output"]} if "gender_output" in options else {}
        chosen = task_nodes(given.pop("name"), gender=gender, **given) | chosen
    return {"tasks": chosen, "trunk": trunk_node(trunk, **trunks), **others}
