"""Is this configuration right? Every setting is held against the signature of what it will be handed to."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from hydra.utils import get_object
from pydantic import NonNegativeInt

from agegender.data.datamodule import AgeGenderDataModule
from agegender.data.synthetic import generate_faces
from agegender.data.transforms import Augment
from agegender.errors import AgeGenderError, require
from agegender.models.age import AGE_CODINGS
from agegender.models.network import TRUNKS, AgeGenderNet
from agegender.signatures import check_call, check_named, check_value
from agegender.training.build import check_target
from agegender.training.metrics import HIGHER_IS_BETTER, NAMES
from agegender.training.module import warmup_cosine

_TOP_LEVEL: dict[str, Any] = {
    "seed": NonNegativeInt,
    "fit": bool,
    "test": bool,
    "resume": str | None,
    "weights": str | None,
    "monitor": str,
    "mode": Literal["min", "max"],
    "name": str,
    "loss": dict[str, float],
}


def check_config(config: Mapping[str, Any]) -> None:
    """Refuses unknown keys and wrong-typed values before any data is read.

    There is no second list of settings to keep in step: the signatures and type hints of our own classes, and of the
    library classes that `_target_` names, are the schema.

    Args:
        config: The composed training config, resolved, as plain containers.

    Raises:
        AgeGenderError: Names the key, and the nearest valid one or the type wanted.
    """
    check_target(config)
    for group in ("data", "model", "age", "optim", "trainer"):
        require(bool(config.get(group)), f"{group} is left out: there is nothing to train; choose one of conf/{group}")
    for key, hint in _TOP_LEVEL.items():
        check_value(key, config[key], hint)
    if set(config["loss"]) != {"age", "gender"}:
        raise AgeGenderError(f"loss has the weights age and gender, not {', '.join(sorted(config['loss']))}")
    check_named("monitor", config["monitor"], [f"val/{name}" for name in NAMES])
    wanted = "max" if config["monitor"].removeprefix("val/") in HIGHER_IS_BETTER else "min"
    require(config["mode"] == wanted, f"monitor={config['monitor']} needs mode={wanted}")
    check_call("data", config["data"], AgeGenderDataModule, given=("augment", "seed"))
    check_call("data.generate", config["data"].get("generate") or {}, generate_faces, given=("folder", "progress"))
    check_call("augment", config.get("augment") or {}, Augment)
    check_named("age.name", config["age"].get("name"), AGE_CODINGS)
    coding = {key: value for key, value in config["age"].items() if key != "name"}
    check_call("age", coding, AGE_CODINGS[config["age"]["name"]])
    check_named("model.trunk", config["model"].get("trunk"), TRUNKS)
    trunk = TRUNKS[config["model"]["trunk"]]
    check_call("model", config["model"], AgeGenderNet, trunk, given=("age", "in_channels", "image_size"))
    if config["optim"].get("schedule"):
        check_call("optim.schedule", config["optim"]["schedule"], warmup_cosine, given=("step", "steps"))
    _check_built("optim.optimizer", config["optim"]["optimizer"], given=("params",))
    _check_built("trainer", config["trainer"], given=("callbacks", "logger"))
    for group in ("callbacks", "logger"):
        for name, node in (config.get(group) or {}).items():
            if node is not None:
                _check_built(f"{group}.{name}", node)


def _check_built(where: str, node: Mapping[str, Any], given: tuple[str, ...] = ()) -> None:
    """Checks a node that names its class by `_target_`."""
    target = node.get("_target_")
    if target is None:
        raise AgeGenderError(f"{where} has no _target_: name the class to build")
    try:
        built = get_object(target)
    except Exception as error:
        raise AgeGenderError(f"{where}._target_={target} can't be imported: {' '.join(str(error).split())}") from None
    check_call(where, {key: value for key, value in node.items() if not key.startswith("_")}, built, given=given)
