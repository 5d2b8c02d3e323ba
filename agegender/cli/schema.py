"""JSON Schemas of the configs, with which an editor completes and checks YAML files.

They are derived from the config files (settings, comments, options) and from the signatures of the classes and
functions that take the settings, which `config/validation.py` checks against as well.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from hydra.utils import get_object
from omegaconf import OmegaConf

from agegender.cli.hint_schema import INTERPOLATION, any_of, hint_schema, value_schema
from agegender.cli.signatures import train_settings
from agegender.config.allowlist import check_target
from agegender.config.comments import defaults_of, document, groups_of, merged, options_of
from agegender.config.compose import config_path
from agegender.config.validation import PROVIDED, parameter_hints
from agegender.system.files import atomic_write, raise_write_errors
from agegender.system.terminal import print_page

DIALECT = "https://json-schema.org/draft/2020-12/schema"
Schema = dict[str, Any]
_NAMED = ("callbacks", "logger", "tasks")  # nodes that hold any number of named objects


def write_schemas(out: str, commands: Mapping[str, str], config_dir: str | None = None) -> None:
    """Write the schemas of the commands' configs and of the config groups.

    Args:
        out: Folder of the files; `-` prints the schema of training configs instead.
        commands: Dotted names of the functions that take the settings of the commands other than `train`, by command.
        config_dir: Additional config folder, whose options are completed as well as those of `./conf`.
    """
    folders = config_path(config_dir)
    schemas = {"train": train_schema(folders)}
    if out == "-":
        print_page(json.dumps(schemas["train"], indent=2))
        return
    schemas |= {group: group_schema(group, schemas["train"], folders) for group in groups_of("train", folders)}
    schemas |= {name: command_schema(name, function, folders) for name, function in commands.items()}
    target = Path(out)
    with raise_write_errors("the schemas", target):
        target.mkdir(parents=True, exist_ok=True)
        for name, content in schemas.items():
            with atomic_write(target / f"{name}.json", "w", encoding="utf-8") as file:
                json.dump(content, file, indent=2)
                file.write("\n")
    print(f"{len(schemas)} schemas in {target}; connect one in the first line of a config, such as an experiment:")
    print(f"# yaml-language-server: $schema={(target / 'experiment.json').resolve()}")


def train_schema(folders: Sequence[Path]) -> Schema:
    """Return the schema of the training config, which is that of an experiment, too."""
    return _config_schema("train", train_settings, folders)


def command_schema(name: str, function: str, folders: Sequence[Path]) -> Schema:
    """Return the schema of the config of another command.

    Args:
        name: The command.
        function: Dotted name of the function that takes its settings.
        folders: The config folders.
    """

    def settings(where: str) -> dict[str, Any]:
        if where:
            return train_settings(where)
        try:
            return parameter_hints(get_object(function))[0]
        except Exception:  # Hydra's error for a module that needs an extra which is not installed
            return {}

    return _config_schema(name, settings, folders)


def _config_schema(name: str, settings: Callable[[str], dict[str, Any]], folders: Sequence[Path]) -> Schema:
    top, groups = document(name, folders), groups_of(name, folders)
    samples, comments = [_content(name, folders)], dict(top.keys)
    for group in groups:
        for option in options_of(group, folders) if group != "experiment" else ():  # experiments define no settings
            found, content = document(f"{group}/{option}", folders), _content(f"{group}/{option}", folders)
            for part in reversed(found.package.split(".")[:-1]):
                content = {part: content}
            samples.append(content)
            comments = merged({f"{found.package}{key}": text for key, text in found.keys.items()}, comments)
    builder = _Builder(settings, comments)
    root = builder.node("", samples)
    root["properties"] |= {"defaults": _defaults(groups, folders), "hydra": {"type": "object"}}
    described = {"$schema": DIALECT, "title": f"agegender {name}", "description": top.summary}
    return {**described, **root, "$defs": {"interpolation": INTERPOLATION, **builder.nodes}}


def group_schema(group: str, whole: Schema, folders: Sequence[Path]) -> Schema:
    """Return the schema of an option of a config group, a part of that of the training config."""
    package = document(f"{group}/{options_of(group, folders)[0]}", folders).package
    if not package:  # an experiment
        return whole
    node = whole["$defs"][package.removesuffix(".")]
    own = {"properties": node["properties"] | {"defaults": whole["properties"]["defaults"]}}
    if "then" in node:
        own["then"] = {"propertyNames": {"enum": [*node["then"]["propertyNames"]["enum"], "defaults"]}}
    return {"$schema": DIALECT, "title": f"agegender conf/{group}", **node, **own, "$defs": whole["$defs"]}


def _content(name: str, folders: Sequence[Path]) -> dict[str, Any]:
    """Return the plain content of a config file, on top of the files of its group that its defaults list names."""
    group = name.rpartition("/")[0]
    file = next(folder / f"{name}.yaml" for folder in folders if (folder / f"{name}.yaml").is_file())
    parents = [each for each in defaults_of(name, folders) if isinstance(each, str) and each != "_self_" and group]
    layers = OmegaConf.merge(*(_content(f"{group}/{each}", folders) for each in parents), OmegaConf.load(file))
    content: dict[str, Any] = OmegaConf.to_container(layers, resolve=False)  # type: ignore[assignment]
    return {key: value for key, value in content.items() if key not in ("defaults", "hydra")}


class _Builder:
    """Builds the schemas of the nodes of a config, from the root.

    Attributes:
        nodes: The schemas of the nodes below the root, by dotted key.
    """

    def __init__(self, settings: Callable[[str], dict[str, Any]], comments: Mapping[str, str]):
        """Take the settings of a node without `_target_` with their types, by its key, and the comments by key."""
        self._settings, self._comments = settings, comments
        self.nodes: dict[str, Schema] = {}

    def node(self, where: str, samples: Sequence[Mapping[str, Any]]) -> Schema:
        """Return the schema of a node from its contents in the config files, and from what takes its entries."""
        hints, is_open = self._settings(where), False
        targets = sorted({str(sample["_target_"]) for sample in samples if sample.get("_target_")})
        for target in targets:
            found, takes_any = _target_hints(target, where)
            hints, is_open = {**found, **hints}, is_open or takes_any
        values = {key: [sample[key] for sample in samples if key in sample] for key in _union(*samples, hints)}
        prefix = f"{where}." if where else ""
        properties = {
            key: self._property(f"{prefix}{key}", seen, hints.get(key))
            for key, seen in values.items()
            if key != "_target_"
        }
        schema: Schema = {"type": "object", "properties": properties}
        if where in _NAMED:
            built = {"type": ["object", "null"], "properties": {"_target_": {"type": "string"}}}
            return {**schema, "additionalProperties": built}
        if not targets:
            return {**schema, "additionalProperties": False}
        text = "the class to build: one of these, or one of a package of your own"
        properties["_target_"] = {"description": text, "anyOf": [{"enum": targets}, {"type": "string"}]}
        if is_open:
            return schema
        known = {"properties": {"_target_": {"enum": targets}}}  # the arguments of another class are not known
        return {**schema, "if": known, "then": {"propertyNames": {"enum": list(properties)}}}

    def _property(self, key: str, values: Sequence[Any], hint: Any) -> Schema:
        nodes = [value for value in values if isinstance(value, dict)]
        parts = [hint_schema(hint)] if hint is not None else [value_schema(value) for value in values if not nodes]
        if any(nodes):
            self.nodes[key] = self.node(key, nodes)
            others = [part for part in any_of(parts) if part and part.get("type") != "object"]
            parts = [{"$ref": f"#/$defs/{key}"}, *others]
        if None in values or (nodes and "." in key):
            parts.append({"type": "null"})
        comment = self._comments.get(key)
        described = {"description": comment} if comment else {}
        alternatives = any_of(parts)
        if {} in alternatives:
            return described
        if {"type": "string"} not in alternatives:
            alternatives.append({"$ref": "#/$defs/interpolation"})
        return {**described, "anyOf": alternatives}


def _union(*nodes: Mapping[str, Any]) -> list[str]:
    return list(dict.fromkeys(key for node in nodes for key in node))


def _target_hints(target: str, where: str) -> tuple[dict[str, Any], bool]:
    """Return the arguments of a `_target_` with their types, and whether there may be others."""
    try:
        check_target(target, None, f"{where}._target_")
        hints, takes_any = parameter_hints(get_object(target))
    except Exception:  # a class of a user's config that is not trusted or not installed
        return {}, True
    return {key: hint for key, hint in hints.items() if key not in PROVIDED.get(where, ())}, takes_any


def _defaults(groups: Sequence[str], folders: Sequence[Path]) -> Schema:
    """Return the schema of a defaults list: an item is a name, or a group with one of its options."""
    entries: dict[str, Schema] = {}
    for group in groups:
        options = options_of(group, folders)
        lines = (f"{option}: {document(f'{group}/{option}', folders).summary}" for option in options)
        one = {"description": "\n".join(lines), "enum": [*options, None]}
        entries |= dict.fromkeys((group, f"/{group}", f"override {group}", f"override /{group}"), one)
    return {"type": "array", "items": {"anyOf": [{"type": "string"}, {"type": "object", "properties": entries}]}}
