"""Rewriting of command lines for Hydra's grammar: quoting of paths, and bare file names as `img=`.

Hydra's grammar parses commas, spaces, brackets, braces, `=` and `$` in a value as syntax, but paths may contain them.
`PATHS` is the only list of the settings that are paths.
"""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Sequence
from fnmatch import fnmatchcase
from typing import Any

from agegender.distributed.launcher import detect_launcher
from agegender.errors import AgeGenderError

ADDRESS = ("http://", "https://")
STREAM_ADDRESS = ("rtsp://", "rtsps://")  # of cameras in the network
WEBCAM = "webcam"  # the first camera of this computer

# Settings of any command whose value is a path or a URL.
PATHS = (
    *("data.dir", "data.table", "data.cache_dir", "data.split_file", "model.pretrained"),
    *("weights", "run", "out", "annotate", "tracks", "boxes", "data_dir", "check", "host", "runtime"),
    *("hydra.run.dir", "hydra.sweep.dir", "hydra.sweep.subdir", "hydra.sweeper.storage"),
    *("trainer.default_root_dir", "callbacks.*.dirpath", "callbacks.*.folder", "logger.*.save_dir"),
)
# (`resume=` is a path, too, which `runs.resume.resume_overrides` parses itself.)
# Settings that may be a list of paths, a,b or [a,b]; so may `run` of report and compare. For `img`: `image_overrides`.
LISTS = ("teacher",)

# Keywords of a path setting, unless a file has that name.
_KEYWORDS = {"model.pretrained": ("null", "true", "false")}

# Options of Hydra that have a value, in the next argument.
OPTIONS_WITH_VALUE = frozenset(
    ("--cfg", "-c", "--info", "-i", "--package", "-p", "--experimental-rerun")  # print something, or repeat a run
) | {"--config-path", "-cp", "--config-name", "-cn", "--config-dir", "-cd"}

_OVERRIDE = re.compile(r"(\+{0,2})([\w.@/]+)=(.*)", re.S)
_SWEEP = re.compile(r"-m|--multirun|\+*sweep=(?!null$).+|\+*hydra\.mode=MULTIRUN")
# Functions of Hydra's sweep grammar, and interpolations: a resolver, or another setting (`${data.fold}`, `${seed}`).
_FUNCTION = re.compile(r"(choice|extend_list|glob|interval|range|shuffle|sort|tag)\(.*\)", re.S)
_INTERPOLATION = re.compile(r"\$\{((now|hydra|oc\.\w+):|([a-z]\w*(\.\w+)+|name|seed)\})")


def quote_override(text: str) -> str:
    """Return a string quoted for Hydra's grammar, with `${` escaped for OmegaConf.

    Both parsers take a backslash literally, except before a character that it can escape: `${` for OmegaConf, a quote
    for Hydra. Only there backslashes are doubled.
    """
    return _in_quotes(re.sub(r"(\\*)\$\{", r"\1\1\\${", text))


def _in_quotes(text: str) -> str:
    return "'" + re.sub(r"(\\*)('|\Z)", lambda match: match[1] * 2 + match[2].replace("'", "\\'"), text) + "'"


def unquoted(value: str) -> str:
    """Return the string that `quote_override` quoted; a value without quotes unchanged."""
    if not _is_quoted(value):
        return value
    inner = re.sub(r"(\\*)(\\'|\Z)", lambda match: match[1][::2] + match[2][1:], value[1:-1])
    return re.sub(r"(\\*)\\\$\{", lambda match: match[1][::2] + "${", inner)


def as_written(overrides: Any) -> list[str]:
    """Return overrides as they were written; iteration over Hydra's list of them would resolve `${...}`."""
    from omegaconf import ListConfig, OmegaConf

    plain: Any = OmegaConf.to_container(overrides, resolve=False) if isinstance(overrides, ListConfig) else overrides
    return [str(item) for item in plain or ()]


def is_sweep(arguments: Sequence[str]) -> bool:
    """Return whether a command line starts a multirun, as far as the arguments alone show it."""
    return any(_SWEEP.fullmatch(argument) for argument in arguments)


def split_options(arguments: Sequence[str]) -> tuple[dict[str, str], list[str]]:
    """Return Hydra's options that have a value, by name, and the settings."""
    options: dict[str, str] = {}
    settings: list[str] = []
    for previous, argument in zip(("", *arguments), arguments, strict=False):
        name, equals, value = argument.partition("=")
        if previous in OPTIONS_WITH_VALUE:
            options[previous] = argument
        elif equals and name in OPTIONS_WITH_VALUE:
            options[name] = value
        elif not argument.startswith("-"):
            settings.append(argument)
    return options, settings


def options_last(arguments: Sequence[str]) -> list[str]:
    """Move Hydra's options behind the overrides, which its parser accepts only as one contiguous sequence."""
    options: list[str] = []
    settings: list[str] = []
    for previous, argument in zip(("", *arguments), arguments, strict=False):
        is_option = argument.startswith("-") or previous in OPTIONS_WITH_VALUE
        (options if is_option else settings).append(argument)
    return [*settings, *options]


def config_dir(arguments: Sequence[str]) -> str | None:
    """Return the folder of `--config-dir`, or None."""
    options, _ = split_options(arguments)
    return options.get("--config-dir", options.get("-cd"))


def report_overrides(arguments: Sequence[str]) -> list[str]:
    """Rewrite the command line of report or compare, in which `run` may be two paths; see `path_overrides`."""
    return path_overrides(arguments, lists=("run",))


def path_overrides(arguments: Sequence[str], lists: Sequence[str] = LISTS) -> list[str]:
    """Rewrite a command line: quote every path for Hydra's grammar, and expand `~`.

    A comma belongs to a path if a file of that name exists, or, for a comma in its folder, if the folder exists.
    Otherwise it is a separator in a sweep (`-m weights=a.ckpt,b.ckpt`) and in a setting with several paths (`run=a,b`).
    In any other setting it always belongs to the path.

    A value in quotes, or in brackets for a setting with several paths, is passed to Hydra unchanged, unless a file of
    that name exists. `${now:...}`, `${hydra:...}`, `${oc.env:...}` and other settings (`${data.fold}`, `${name}`,
    `${seed}`) are resolved; in the folders of `hydra` any `${...}` is.

    Args:
        arguments: Command-line arguments, without the program.
        lists: Settings that may be several paths.
    """
    sweeps = is_sweep(arguments)
    rewritten: list[str] = []
    for previous, argument in zip(("", *arguments), arguments, strict=False):
        match = None if previous in OPTIONS_WITH_VALUE else _OVERRIDE.fullmatch(argument)
        if match and (match[2] in lists or is_path(match[2])):
            argument = f"{match[1]}{match[2]}={_path_value(match[2], match[3], sweeps, match[2] in lists)}"
        rewritten.append(argument)
    return rewritten


def is_path(key: str) -> bool:
    """Return whether the value of a setting is a path."""
    return any(fnmatchcase(key, pattern) for pattern in PATHS)


def _path_value(key: str, value: str, sweeps: bool, is_list: bool) -> str:
    exists = os.path.lexists(value)
    is_hydra_syntax = (
        value in _KEYWORDS.get(key, ("null",)) or _is_quoted(value) or (sweeps and _FUNCTION.fullmatch(value))
    )
    if value == "" or (is_hydra_syntax and not exists and not all(map(os.path.lexists, _split_paths(value, is_list)))):
        return value
    if exists or not (is_list or sweeps) or key.startswith("hydra."):
        return _quoted_path(key, value)
    if sweeps:
        return ",".join(_sweep_choice(key, part, is_list) for part in _split_paths(value, is_list))
    if _in_brackets(value):
        return _sweep_choice(key, value, is_list)
    names = [name for name in _split_paths(value, lists=True) if name]
    return _quoted_path(key, names[0]) if len(names) == 1 else path_list(names) if names else value


def _sweep_choice(key: str, part: str, is_list: bool) -> str:
    """Return one value of a sweep, which may be a list of paths in brackets, in Hydra's grammar."""
    if os.path.lexists(part):
        return _quoted_path(key, part)
    if part in ("", *_KEYWORDS.get(key, ("null",))) or _is_quoted(part):
        return part
    if is_list and _in_brackets(part):
        inside = part[1:-1]
        return (
            part
            if "'" in inside or '"' in inside
            else path_list([name.strip() for name in _split_paths(inside, lists=False) if name])
        )
    return _quoted_path(key, part)


def _quoted_path(key: str, path: str) -> str:
    """Return a path as a value in Hydra's grammar, in quotes if needed, with `~` expanded."""
    if path.startswith("~") and not os.path.lexists(path):
        path = os.path.expanduser(path)
    pattern = re.compile(r"\$\{") if key.startswith("hydra.") else _INTERPOLATION
    if pattern.search(path) and not os.path.lexists(path):
        return _in_quotes(path)
    return path if _is_unquoted_string(path) else quote_override(path)


def _is_unquoted_string(value: str) -> bool:
    """Return whether Hydra's grammar parses an unquoted value as this string: not as null, a boolean or a number."""
    if not re.fullmatch(r"[A-Za-z0-9_./-]+", value) or value.lower() in ("null", "true", "false"):
        return False
    try:
        float(value)
    except ValueError:
        return True
    return False


def path_list(names: Sequence[str]) -> str:
    """Return paths as a list in Hydra's grammar."""
    return f"[{','.join(_quoted_path('', name) for name in names)}]"


def paths_value(names: Sequence[str]) -> str:
    """Return a value of report's `run` that `report_overrides` parses as these paths; comma-separated if possible."""
    names = [f"./{name}" if name.startswith("~") else name for name in names]
    value = ",".join(names)
    is_syntax = _is_quoted(value) or _in_brackets(value) or value in ("", "null")
    round_trips = _split_paths(value, lists=True) == names and not is_syntax
    return value if round_trips else path_list(names)


def _is_quoted(value: str) -> bool:
    return len(value) > 1 and value[0] == value[-1] and value[0] in "'\""


def _in_brackets(value: str) -> bool:
    return value.startswith("[") and value.endswith("]")


def _split_paths(value: str, lists: bool) -> list[str]:
    """Split a value at the commas that belong to no path; with `lists`, not at commas in brackets either."""
    pieces = _split_outside_brackets(value) if lists else value.split(",")
    paths: list[str] = []
    while pieces:
        ends = range(len(pieces), 0, -1)
        end = next((end for end in ends if end == 1 or _path_exists(",".join(pieces[:end]))), 1)
        paths.append(",".join(pieces[:end]))
        pieces = pieces[end:]
    return paths


def _path_exists(path: str) -> bool:
    """Return whether a path exists, or its folder does if the comma is in the folder's name."""
    path = os.path.expanduser(path)
    folder, name = os.path.split(path)
    return os.path.lexists(path) or ("," in folder and "," not in name and os.path.isdir(folder))


def _split_outside_brackets(value: str) -> list[str]:
    pieces, depth = [""], 0
    for character in value:
        depth += (character == "[") - (character == "]")
        if character == "," and depth <= 0:
            pieces.append("")
        else:
            pieces[-1] += character
    return pieces if depth == 0 else value.split(",")


def image_overrides(arguments: Sequence[str]) -> list[str]:
    """Rewrite predict's command line: all images become one quoted list, and every other path is quoted.

    Images are the values of `img=`, such as `img=holiday (1).jpg`, and bare file names, as a shell's globbing inserts
    them. A value in brackets is passed to Hydra unchanged, unless a file of that name exists.

    Raises:
        AgeGenderError: A bare argument is neither a setting nor something that exists.
    """
    images: list[str] = []
    rest: list[str] = []
    for previous, argument in zip(("", *arguments), arguments, strict=False):
        value = argument.removeprefix("img=")
        if value != argument:
            if value[:1] in ("[", "'", '"') and not os.path.lexists(value):
                rest.append(argument)
            elif value.startswith(ADDRESS + STREAM_ADDRESS):
                images += re.split(",(?=(?:https?|rtsps?)://)", value)  # other commas belong to the URL
            elif "," in value and not os.path.lexists(value) and not glob.glob(value):
                images += value.split(",")
            else:
                images.append(value)
        elif previous not in OPTIONS_WITH_VALUE and _is_file_name(argument):
            images.append(_existing(argument))
        else:
            rest.append(argument)
    rest = path_overrides(rest)
    images = [image for image in images if image]
    if images:
        rest.append(f"img=[{','.join(quote_override(image) for image in images)}]")
    return rest


def _is_file_name(argument: str) -> bool:
    """Return whether an argument is a bare file name; `+` and `~` begin a setting unless a file of that name exists."""
    if argument.startswith("-"):
        return argument == "-"  # names on standard input
    if argument.startswith(ADDRESS + STREAM_ADDRESS) or os.path.lexists(argument):
        return True
    return argument.startswith("~/") or not ("=" in argument or argument.startswith(("+", "~")))


def _existing(argument: str) -> str:
    """Return a bare argument that is a file, a folder, a glob, an address, a camera or `-`.

    Raises:
        AgeGenderError: It is none of them: an image that isn't there, or a misspelled setting.
    """
    is_other = argument in ("", "-", WEBCAM) or argument.isdecimal() or argument.startswith(ADDRESS + STREAM_ADDRESS)
    is_file = os.path.lexists(argument) or os.path.lexists(os.path.expanduser(argument))
    if not (is_other or is_file or glob.has_magic(argument)):
        raise AgeGenderError(f"{argument} does not exist: give an image, a folder or a video, or a setting name=value")
    return argument


def overrides_for_rank(arguments: list[str]) -> list[str]:
    """Return the arguments for this process; on ranks other than 0, Hydra makes no run folder and no record.

    torchrun and srun start the same command for every rank, but the time in the folder's name may differ.
    """
    launch = detect_launcher(arguments=arguments)
    if launch is None or launch.launcher == "Lightning" or launch.rank == 0:
        return arguments
    kept = [argument for argument in arguments if not argument.startswith(("hydra.run.dir=", "hydra.output_subdir="))]
    return [*kept, "hydra.run.dir=.", "hydra.output_subdir=null"]
