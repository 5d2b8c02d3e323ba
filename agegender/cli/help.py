"""`--help` of a command: its settings by config group, with the comments of the config files."""

from __future__ import annotations

import re
import shutil
import textwrap
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from agegender.config.comments import document, groups_of, merged, options_of
from agegender.config.compose import compose_command, config_path
from agegender.config.overrides import config_dir, split_options
from agegender.distributed.launcher import script

_COLUMN = 34  # where the comments start


def command_help(name: str, arguments: Sequence[str]) -> str:
    """Return the help of a command: every setting with its value and comment, and the options of each group.

    Args:
        name: The command, whose config is `conf/<name>.yaml`.
        arguments: Its command line: values are those under its overrides, and `--config-dir` is searched.

    Raises:
        HydraException: An override is invalid.
    """
    folder = config_dir(arguments)
    config = compose_command(name, split_options(arguments)[1], folder, hydra=True)
    folders = config_path(folder)
    top = document(name, folders)
    groups = {group: config.hydra.runtime.choices.get(group) for group in groups_of(name, folders)}
    comments, owner = dict(top.keys), {group: group for group in groups}
    for group, option in groups.items():
        found = document(f"{group}/{option}", folders)
        keys = {f"{found.package}{key}": comment for key, comment in found.keys.items()}
        comments = merged(comments, keys)
        owner |= dict.fromkeys(keys, group) if found.package else {}  # an experiment's keys belong to other groups
    sections: dict[str, list[str]] = {group: [] for group in ("", *groups)}
    plain: Any = OmegaConf.to_container(config, resolve=False)
    for key, value in _flat({key: value for key, value in plain.items() if key != "hydra"}):
        group = owner.get(key, owner.get(key.split(".")[0], ""))
        sections[group] += _lines(f"  {key}={_shown(value)}", _comment(key, comments))
    usage = f"usage: {script(name)} [name=value ...]"
    parts = [usage, "", *_wrapped(top.summary, ""), "", *sections[""]]
    for group, option in groups.items():
        parts += ["", f"{group}={_shown(option)}", *_options(group, option, folders), *sections[group]]
    return "\n".join((*parts, "", "--cfg job prints the composed config; --hydra-help lists Hydra's own options."))


def _flat(node: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in node.items():
        if isinstance(value, dict) and value:
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _comment(key: str, comments: dict[str, str]) -> str:
    """Return the comment of a setting; a node's comment stands at its first setting, `_target_`."""
    node = comments.get(key.removesuffix("._target_"), "") if key.endswith("._target_") else ""
    return comments.get(key) or node


def _shown(value: Any) -> str:
    """Return a value in Hydra's grammar, without the quotes of strings that need some."""
    if isinstance(value, list):
        return f"[{','.join(map(_shown, value))}]"
    if value is None or isinstance(value, bool):
        return "null" if value is None else str(value).lower()
    return str(value) if value != "" else "''"


def _options(group: str, chosen: str | None, folders: Sequence[Path]) -> Iterator[str]:
    """Yield the options of a group with their comments; of those that are not chosen, the first sentence."""
    for option in options_of(group, folders):
        summary = document(f"{group}/{option}", folders).summary
        text = summary if option == chosen else re.split(r"(?<=\.) |: (?=[a-z]+=)", summary)[0]
        yield from _lines(f"{'*' if option == chosen else ' '} {group}={option}", text)


def _lines(left: str, comment: str) -> list[str]:
    """Return a setting and its comment in two columns."""
    beside = _wrapped(comment, " " * _COLUMN)
    if len(left) < _COLUMN - 1 and beside:
        return [f"{left:{_COLUMN}}{beside[0].lstrip()}", *beside[1:]]
    return [left, *beside]


def _wrapped(text: str, indent: str) -> list[str]:
    width = min(max(shutil.get_terminal_size((100, 24)).columns, 80), 100)
    return textwrap.wrap(text, width, initial_indent=indent, subsequent_indent=indent, break_on_hyphens=False)
