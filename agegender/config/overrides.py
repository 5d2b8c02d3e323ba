"""A command line in Hydra's grammar: paths are quoted as they are, and bare names become `img=`.

Hydra's grammar reads commas, spaces, brackets, braces, `=` and `$` in a value as syntax. A person who names a file or
folder means a file by them. Which settings name one stands here, and nowhere else.
"""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Sequence
from fnmatch import fnmatchcase
from typing import Any

from agegender.distributed.launcher import detect_launcher

ADDRESS = ("http://", "https://")

# Settings whose value is one path, or an address of its own kind, in any of the commands.
PATHS = (
    *("data.dir", "data.table", "data.cache_dir", "data.split_file", "model.pretrained"),
    *("weights", "run", "out", "annotate", "data_dir", "check", "host"),
    *("hydra.run.dir", "hydra.sweep.dir", "hydra.sweep.subdir", "hydra.sweeper.storage"),
    *("trainer.default_root_dir", "callbacks.*.dirpath", "callbacks.*.folder", "logger.*.save_dir"),
)
# (A run's `resume=` is one too: `runs.resume.resume_overrides` takes it as it is given.)
# Settings that take several paths too, a,b or [a,b]; so does report's `run`. `img` has rules of its own, see
# `image_overrides`.
LISTS = ("teacher",)

# Values of a path setting that are no path, unless a file has this name.
_WORDS = {"model.pretrained": ("null", "true", "false")}

# Hydra's own options; the word after one is no setting.
OPTIONS_WITH_VALUE = frozenset(
    ("--cfg", "-c", "--info", "-i", "--package", "-p", "--experimental-rerun")  # what Hydra shows or repeats
) | {"--config-path", "-cp", "--config-name", "-cn", "--config-dir", "-cd"}

_OVERRIDE = re.compile(r"(\+{0,2})([\w.@/]+)=(.*)", re.S)
_SWEEP = re.compile(r"-m|--multirun|\+*sweep=(?!null$).+|\+*hydra\.mode=MULTIRUN")
# What Hydra's grammar computes from a sweep's value, and what OmegaConf does from a text.
_FUNCTION = re.compile(r"(choice|extend_list|glob|interval|range|shuffle|sort|tag)\(.*\)", re.S)
_RESOLVER = re.compile(r"\$\{(now|hydra|oc\.\w+):")


def quote_override(text: str) -> str:
    """Quotes for Hydra's grammar, and keeps OmegaConf from reading `${...}` as an interpolation.

    Both read a backslash as itself, except where it stands before what they would otherwise act on: `${` for OmegaConf,
    the quote for Hydra. Only there it is doubled.
    """
    return _in_quotes(re.sub(r"(\\*)\$\{", r"\1\1\\${", text))


def _in_quotes(text: str) -> str:
    return "'" + re.sub(r"(\\*)('|\Z)", lambda found: found[1] * 2 + found[2].replace("'", "\\'"), text) + "'"


def unquoted(value: str) -> str:
    """Returns the text that `quote_override` was given; any other value as it is."""
    if not _is_quoted(value):
        return value
    inner = re.sub(r"(\\*)(\\'|\Z)", lambda found: found[1][::2] + found[2][1:], value[1:-1])
    return re.sub(r"(\\*)\\\$\{", lambda found: found[1][::2] + "${", inner)


def as_written(overrides: Any) -> list[str]:
    """Returns overrides as they were written: to go through Hydra's own list of them would compute `${...}` in it."""
    from omegaconf import ListConfig, OmegaConf

    plain: Any = OmegaConf.to_container(overrides, resolve=False) if isinstance(overrides, ListConfig) else overrides
    return [str(item) for item in plain or ()]


def is_sweep(arguments: Sequence[str]) -> bool:
    """Tells whether a command line asks for several runs, as far as it can be seen from it alone."""
    return any(_SWEEP.fullmatch(argument) for argument in arguments)


def split_options(arguments: Sequence[str]) -> tuple[dict[str, str], list[str]]:
    """Returns Hydra's options that have a value, by name, and the settings."""
    options: dict[str, str] = {}
    settings: list[str] = []
    for before, argument in zip(("", *arguments), arguments, strict=False):
        name, is_joined, value = argument.partition("=")
        if before in OPTIONS_WITH_VALUE:
            options[before] = argument
        elif is_joined and name in OPTIONS_WITH_VALUE:
            options[name] = value
        elif not argument.startswith("-"):
            settings.append(argument)
    return options, settings


def config_dir(arguments: Sequence[str]) -> str | None:
    """Returns the folder that `--config-dir` names, or None."""
    options, _ = split_options(arguments)
    return options.get("--config-dir", options.get("-cd"))


def report_overrides(arguments: Sequence[str]) -> list[str]:
    """Rewrites report's command line, which takes one or two runs; see `path_overrides`."""
    return path_overrides(arguments, lists=("run",))


def path_overrides(arguments: Sequence[str], lists: Sequence[str] = LISTS) -> list[str]:
    """Rewrites a command line so that every path reaches the config unharmed, and `~` as the home folder.

    A comma is part of a path where that file is there, or its folder is (if the comma stands in that). Else it
    separates, in a sweep (`-m weights=a.ckpt,b.ckpt`) and in a setting that takes several paths (`run=a,b`). Where
    nothing can be separated, it is part of the path in any case.

    A value in Hydra's own quotes, or in brackets where there may be a list, is left to Hydra, unless there is a file
    of that name. `${now:...}`, `${hydra:...}` and `${oc.env:...}` are computed; in the folders of `hydra` any
    `${...}`.

    Args:
        arguments: After the program's name.
        lists: The settings that take several paths.
    """
    sweeps = is_sweep(arguments)
    rewritten: list[str] = []
    for before, argument in zip(("", *arguments), arguments, strict=False):
        found = None if before in OPTIONS_WITH_VALUE else _OVERRIDE.fullmatch(argument)
        if found and (found[2] in lists or is_path(found[2])):
            argument = f"{found[1]}{found[2]}={_path_value(found[2], found[3], sweeps, found[2] in lists)}"
        rewritten.append(argument)
    return rewritten


def is_path(key: str) -> bool:
    """Tells whether a setting names one file or folder."""
    return any(fnmatchcase(key, pattern) for pattern in PATHS)


def _path_value(key: str, value: str, sweeps: bool, listed: bool) -> str:
    there = os.path.lexists(value)
    is_hydras = value in _WORDS.get(key, ("null",)) or _is_quoted(value) or (sweeps and _FUNCTION.fullmatch(value))
    if value == "" or (is_hydras and not there and not all(map(os.path.lexists, _parts(value, listed)))):
        return value
    if there or not (listed or sweeps) or key.startswith("hydra."):
        return _plain(key, value)
    if sweeps:
        return ",".join(_choice(key, part, listed) for part in _parts(value, listed))
    if _is_list(value):
        return _choice(key, value, listed)
    names = [name for name in _parts(value, lists=True) if name]
    return _plain(key, names[0]) if len(names) == 1 else path_list(names) if names else value


def _choice(key: str, part: str, listed: bool) -> str:
    if os.path.lexists(part):
        return _plain(key, part)
    if part in ("", *_WORDS.get(key, ("null",))) or _is_quoted(part):
        return part
    if listed and _is_list(part):
        inside = part[1:-1]
        return (
            part
            if "'" in inside or '"' in inside
            else path_list([name.strip() for name in _parts(inside, lists=False) if name])
        )
    return _plain(key, part)


def _plain(key: str, path: str) -> str:
    """Returns one path as a value, in quotes where Hydra would read more than a text in it."""
    if path.startswith("~") and not os.path.lexists(path):
        path = os.path.expanduser(path)
    computed = not os.path.lexists(path) and ("${" in path if key.startswith("hydra.") else _RESOLVER.search(path))
    if computed:
        return _in_quotes(path)
    return path if _is_a_plain_text(path) else quote_override(path)


def _is_a_plain_text(value: str) -> bool:
    if not re.fullmatch(r"[A-Za-z0-9_./-]+", value) or value.lower() in ("null", "true", "false"):
        return False
    try:
        float(value)
    except ValueError:
        return True
    return False


def path_list(names: Sequence[str]) -> str:
    """Returns paths as a list in Hydra's grammar."""
    return f"[{','.join(quote_override(os.path.expanduser(name)) for name in names)}]"


def paths_value(names: Sequence[str]) -> str:
    """Returns a value for report's `run` that `report_overrides` leads back to these paths; a plain one if it can."""
    names = [f"./{name}" if name.startswith("~") else name for name in names]
    value = ",".join(names)
    plain = _parts(value, lists=True) == names and not (_is_quoted(value) or _is_list(value) or value in ("", "null"))
    return value if plain else path_list(names)


def _is_quoted(value: str) -> bool:
    return len(value) > 1 and value[0] == value[-1] and value[0] in "'\""


def _is_list(value: str) -> bool:
    return value.startswith("[") and value.endswith("]")


def _parts(value: str, lists: bool) -> list[str]:
    """Splits at the commas that are part of no path and, where there may be `lists`, of none in brackets."""
    words = _outside_brackets(value) if lists else value.split(",")
    parts: list[str] = []
    while words:
        ends = range(len(words), 0, -1)
        end = next((end for end in ends if end == 1 or _is_there(",".join(words[:end]))), 1)
        parts.append(",".join(words[:end]))
        words = words[end:]
    return parts


def _is_there(path: str) -> bool:
    path = os.path.expanduser(path)
    folder, name = os.path.split(path)
    return os.path.lexists(path) or ("," in folder and "," not in name and os.path.isdir(folder))


def _outside_brackets(value: str) -> list[str]:
    words, depth = [""], 0
    for letter in value:
        depth += (letter == "[") - (letter == "]")
        if letter == "," and depth <= 0:
            words.append("")
        else:
            words[-1] += letter
    return words if depth == 0 else value.split(",")


def image_overrides(arguments: Sequence[str]) -> list[str]:
    """Rewrites predict's command line so that any file name reaches the config unharmed, other paths too.

    `img=holiday (1).jpg` and names given without `img=` (as a shell's own globbing leaves them) become one quoted list.
    A value in brackets is left to Hydra, unless there is a file of that name.
    """
    images: list[str] = []
    rest: list[str] = []
    for before, argument in zip(("", *arguments), arguments, strict=False):
        value = argument.removeprefix("img=")
        if value != argument:
            if value[:1] in ("[", "'", '"') and not os.path.lexists(value):
                rest.append(argument)
            elif value.startswith(ADDRESS):
                images += re.split(",(?=https?://)", value)  # other commas are the address's own
            elif "," in value and not os.path.lexists(value) and not glob.glob(value):
                images += value.split(",")
            else:
                images.append(value)
        elif before not in OPTIONS_WITH_VALUE and _is_file_name(argument):
            images.append(argument)
        else:
            rest.append(argument)
    rest = path_overrides(rest)
    named = [image for image in images if image]
    if named:
        rest.append(f"img=[{','.join(quote_override(image) for image in named)}]")
    return rest


def _is_file_name(argument: str) -> bool:
    """Tells a bare name from a setting; `+` and `~` begin settings too, unless there is a file of that name."""
    if argument.startswith("-"):
        return False
    if argument.startswith(ADDRESS) or os.path.lexists(argument):
        return True
    return not ("=" in argument or argument.startswith(("+", "~")))


def overrides_for_rank(arguments: list[str]) -> list[str]:
    """Returns the arguments for this process: of several, only the first has a run's folder made and recorded.

    torchrun and srun start the same command everywhere, and the time of day, which names the folder, may differ.
    """
    launch = detect_launcher(arguments=arguments)
    if launch is None or launch.launcher == "Lightning" or launch.rank == 0:
        return arguments
    kept = [argument for argument in arguments if not argument.startswith(("hydra.run.dir=", "hydra.output_subdir="))]
    return [*kept, "hydra.run.dir=.", "hydra.output_subdir=null"]
