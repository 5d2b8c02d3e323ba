"""`agegender schema`: every shipped config is valid under its schema, and misspelled or wrong settings are not."""

from __future__ import annotations

import contextlib
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import Outcome
from helpers.json_schema import TYPES, is_valid
from omegaconf import OmegaConf

from agegender.cli.commands import COMMANDS
from agegender.cli.schema import write_schemas
from agegender.config.comments import groups_of, options_of
from agegender.config.compose import CONF

Run = Callable[..., Outcome]
MAIN = "agegender/__main__.py"
SHIPPED = [
    *(name for name in COMMANDS if name != "schema"),
    *(f"{group}/{option}" for group in groups_of("train", [CONF]) for option in options_of(group, [CONF])),
]


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The folder of the written schemas, and what was printed."""
    folder, printed = tmp_path_factory.mktemp("schema") / "new", io.StringIO()
    with contextlib.redirect_stdout(printed):
        write_schemas(str(folder), {name: each.signature for name, each in COMMANDS.items() if each.signature})
    return folder, printed.getvalue()


@pytest.fixture(scope="module")
def schemas(written: tuple[Path, str]) -> dict[str, Any]:
    """The written schemas, by file name."""
    return {file.stem: json.loads(file.read_text()) for file in written[0].glob("*.json")}


def config(text: str) -> Any:
    return OmegaConf.to_container(OmegaConf.create(text), resolve=False)


def test_schema_exists_for_every_command_and_group(schemas: dict[str, Any]) -> None:
    assert set(schemas) == {name.split("/")[0] for name in SHIPPED}


@pytest.mark.parametrize("name", SHIPPED)
def test_shipped_config_is_valid(name: str, schemas: dict[str, Any]) -> None:
    schema = schemas[name.split("/")[0]]
    assert is_valid(OmegaConf.to_container(OmegaConf.load(CONF / f"{name}.yaml"), resolve=False), schema, schema)


@pytest.mark.parametrize(
    ("text", "valid"),
    [
        ("optim: {lr: 1e-3}", True),
        ("optim: {lr: '${my.rate}'}", True),
        ("optim: {lr: fast}", False),
        ("optim: {learning_rate: 1e-3}", False),
        ("sed: 1", False),
        ("seed: -1", False),
        ("defaults: [_self_, {override /model: residual}]", True),
        ("defaults: [{override /model: resnet}]", False),
        ("optim: {optimizer: {weight_decy: 0.1}}", False),
        ("optim: {optimizer: {_target_: my_pkg.MyOptimizer, weight_decy: 0.1}}", True),
        ("model: {trunk: {_target_: my_pkg.MyTrunk, width: 3}}", True),
        ("tta: flop", False),
        ("callbacks: {early_stopping: null}", True),
        ("callbacks: {early_stopping: {patience: 3}}", True),
        ("callbacks: {early_stopping: {patiance: 3}}", False),
        ("callbacks: {mine: {_target_: my_pkg.MyCallback, count: 3}}", True),
        ("trainer: {max_epochs: 3, limit_train_batches: 10}", True),
        ("trainer: {max_epoch: 3}", False),
        ("tasks: {smile: {_target_: agegender.tasks.Binary, label: smile}}", True),
        ("tasks: {age: {decoding: median}}", True),
        ("tasks: {age: {decoding: mode}}", False),
    ],
)
def test_experiment_is_checked(text: str, valid: bool, schemas: dict[str, Any]) -> None:
    assert is_valid(config(text), schemas["experiment"], schemas["experiment"]) is valid


def test_option_of_a_group_is_checked_with_its_defaults(schemas: dict[str, Any]) -> None:
    assert is_valid(config("{defaults: [auto], max_epochs: 5}"), schemas["trainer"], schemas["trainer"])
    assert not is_valid(config("{defaults: [auto], epochs: 5}"), schemas["trainer"], schemas["trainer"])
    assert is_valid(config("{img: a.jpg, detect: never}"), schemas["predict"], schemas["predict"])
    assert not is_valid(config("{img: a.jpg, detect: maybe}"), schemas["predict"], schemas["predict"])


def test_schema_has_the_comments_and_the_types_of_the_signatures(schemas: dict[str, Any]) -> None:
    limit = schemas["train"]["$defs"]["data"]["properties"]["limit"]
    assert limit["description"] == "maximum number of images, a fixed subset of all splits"
    assert {"type": "integer"} in limit["anyOf"] and {"type": "null"} in limit["anyOf"]
    # an argument of Lightning's Trainer that no config file sets
    assert {"type": "integer"} in schemas["trainer"]["properties"]["limit_val_batches"]["anyOf"]
    experiment = schemas["train"]["properties"]["defaults"]["items"]["anyOf"][1]["properties"]["experiment"]
    assert "small" in experiment["enum"] and "small: A compact residual network" in experiment["description"]


def test_schema_is_a_schema_of_its_dialect(schemas: dict[str, Any]) -> None:
    def check(node: Any) -> None:
        for key, value in node.items():
            if key == "type":
                assert {value} <= set(TYPES) if isinstance(value, str) else set(value) <= set(TYPES)
            if key in ("properties", "$defs"):
                assert all(isinstance(each, dict) for each in value.values())
                for each in value.values():
                    check(each)
            elif key in ("anyOf", "prefixItems"):
                assert value, node
                for each in value:
                    check(each)
            elif key in ("items", "if", "then", "propertyNames") and isinstance(value, dict):
                check(value)
            elif key == "$ref":
                assert value.removeprefix("#/$defs/") in root["$defs"]

    for root in schemas.values():
        assert root["$schema"] == "https://json-schema.org/draft/2020-12/schema"
        check(root)


@pytest.mark.parametrize("name", SHIPPED)
def test_schema_and_shipped_config_satisfy_jsonschema(name: str, schemas: dict[str, Any]) -> None:
    jsonschema = pytest.importorskip("jsonschema")
    schema = schemas[name.split("/")[0]]
    jsonschema.Draft202012Validator.check_schema(schema)
    content = OmegaConf.to_container(OmegaConf.load(CONF / f"{name}.yaml"), resolve=False)
    jsonschema.Draft202012Validator(schema).validate(content)


def test_schema_offers_the_users_own_options(run_here: Run, tmp_path: Path) -> None:
    for folder, name in (("conf", "mine"), ("shared", "ours")):
        (tmp_path / folder / "model").mkdir(parents=True)
        text = "# My model.\ntrunk:\n  _target_: my_pkg.MyTrunk\n  width: 8\nhead_units: []\n"
        (tmp_path / folder / "model" / f"{name}.yaml").write_text(text)
    shown = run_here(MAIN, "schema", "out=-", "--config-dir", "shared")
    assert (shown.code, shown.err) == (0, "")
    schema = json.loads(shown.out)
    for name in ("mine", "ours"):
        assert is_valid(config(f"defaults: [{{override /model: {name}}}]"), schema, schema)
    assert is_valid(config("model: {trunk: {width: 9}}"), schema, schema)
    assert not any(tmp_path.rglob("*.json"))


def test_schema_names_its_folder_and_the_line_for_an_editor(written: tuple[Path, str]) -> None:
    folder, printed = written
    assert printed.startswith(f"{len(list(folder.glob('*.json')))} schemas in {folder}; ")
    assert f"# yaml-language-server: $schema={folder / 'experiment.json'}\n" in printed


@pytest.mark.slow
def test_schemas_are_written_into_a_hidden_folder_by_default(run_here: Run, tmp_path: Path) -> None:
    shown = run_here(MAIN, "schema")
    count = len(list((tmp_path / ".agegender/schema").glob("*.json")))
    assert shown.code == 0 and count > 20 and shown.out.startswith(f"{count} schemas in .agegender/schema; "), shown.err
