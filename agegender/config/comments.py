"""The comments of config files: the only description of the settings, for `--help` and the JSON Schemas."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from omegaconf import OmegaConf

_KEY = re.compile(r"( *)([\w.]+):(?= |$)(.*)")
# A value, in which `#` in quotes starts no comment, and the comment
_TRAILING = re.compile(r"""((?:'[^']*'|"[^"]*"|[^'"])*?)(?:\s#\s?(.*))?$""")


class Documented(NamedTuple):
    """The keys and comments of a config file and of the files of its group that its defaults list names.

    Attributes:
        summary: Comment at the top of the file, on one line.
        package: Prefix of the keys in the composed config, with a trailing dot; empty for the root.
        keys: Comment of each key, without the package; empty for a key without one.
    """

    summary: str
    package: str
    keys: dict[str, str]


def read_comments(text: str) -> tuple[str | None, str, dict[str, str]]:
    """Return the `@package` of a YAML file, the comment at its top, and the comment of each key by dotted key.

    The comment of a key follows it on its line and goes on in lines whose `#` is in the same column, or it stands in
    the lines above the key.
    """
    package: str | None = None
    summary: str | None = None
    above: list[str] = []
    comments: dict[str, str] = {}
    path: list[tuple[int, str]] = []  # indentation and name of the keys around the current line
    column, last = -1, ""  # of the last comment beside a key
    for line in text.splitlines():
        bare = line.strip()
        if bare.startswith("# @package "):
            package = bare.split()[2]
        elif bare.startswith("#") and line.index("#") == column:
            comments[last] += f" {bare.lstrip('# ')}"
        elif bare.startswith("#"):
            above.append(bare.lstrip("# "))
        else:
            if summary is None:
                summary, above = " ".join(filter(None, above)), []
            column = -1
            if match := _KEY.match(line):
                path = [each for each in path if each[0] < len(match[1])] + [(len(match[1]), match[2])]
                last = ".".join(name for _, name in path)
                beside = _TRAILING.match(match[3])
                if beside and beside[2]:
                    above.append(beside[2])
                    column = match.start(3) + match[3].rindex("#", 0, beside.start(2))
                comments[last] = " ".join(filter(None, above))
            above = []
    return package, summary or "", comments


def document(name: str, folders: Sequence[Path]) -> Documented:
    """Return the comments of a config, such as `train` or `trainer/cpu`; without a file, none."""
    group = name.rpartition("/")[0]
    file = _config_file(name, folders)
    if file is None:
        return Documented("", f"{group.replace('/', '.')}.", {})
    package, summary, comments = read_comments(file.read_text(encoding="utf-8"))
    inherited: dict[str, str] = {}
    for entry in defaults_of(name, folders):
        if isinstance(entry, str) and entry != "_self_" and group:
            inherited = merged(inherited, document(f"{group}/{entry}", folders).keys)
    place = "" if package == "_global_" or not group else package or group.replace("/", ".")
    own = {key: comment for key, comment in comments.items() if key.split(".")[0] != "defaults"}
    return Documented(summary, f"{place}." if place else "", merged(inherited, own))


def merged(comments: dict[str, str], later: dict[str, str]) -> dict[str, str]:
    """Return the comments of two files, of which the later's take precedence where it has any."""
    return comments | {key: comment or comments.get(key, "") for key, comment in later.items()}


def defaults_of(name: str, folders: Sequence[Path]) -> list[Any]:
    """Return the defaults list of a config: names, and dictionaries of a group and an option."""
    file = _config_file(name, folders)
    config: Any = OmegaConf.to_container(OmegaConf.load(file), resolve=False) if file else None
    return list(config.get("defaults") or []) if isinstance(config, dict) else []


def groups_of(name: str, folders: Sequence[Path]) -> list[str]:
    """Return the config groups of a command, in the order of its defaults list."""
    entries = [next(iter(entry)) for entry in defaults_of(name, folders) if isinstance(entry, dict)]
    return [entry for entry in entries if not entry.startswith("override ")]


def options_of(group: str, folders: Sequence[Path]) -> list[str]:
    """Return the options of a config group in all folders, sorted."""
    return sorted({file.stem for folder in folders for file in (folder / group).glob("*.yaml")})


def _config_file(name: str, folders: Sequence[Path]) -> Path | None:
    files = (folder / f"{name}.yaml" for folder in folders)
    return next((file for file in files if file.is_file()), None)
