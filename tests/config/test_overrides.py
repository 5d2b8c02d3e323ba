"""Settings that name a file or folder: any name reaches the code unchanged, in every command."""

from __future__ import annotations

import contextlib
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf

from agegender.config.compose import compose_command, expand_homes
from agegender.config.overrides import (
    LISTS,
    image_overrides,
    is_path,
    options_last,
    path_overrides,
    paths_value,
    quote_override,
    report_overrides,
    split_options,
    unquoted,
)
from agegender.runs.resume import train_overrides

# Characters that are special to Hydra's grammar, OmegaConf or a shell, and some that aren't.
NAMES = st.text(st.sampled_from(" ,=[](){}$'\"\\:~+*?!@#&;|<>%-_.aB1é日\t"), min_size=1, max_size=12)
TRAPS = (
    *(
        "my faces (1).csv",
        "epoch=3.ckpt",
        "a,b",
        "[a]",
        "[a,b]",
        "{a: b}",
        "${x}",
        "${now:%Y}",
        "$HOME",
        "a$b",
        "\\${x}",
    ),
    *(
        "null",
        "true",
        "12",
        "1e3",
        "nan",
        "-1",
        "it's",
        '"both"',
        "'a'",
        "back\\slash\\",
        "choice(a,b)",
        "glob(*)",
        "a: b",
    ),
    *("~", " around ", "#1", "x=[1,2]", "日本", "a;b", "100%", "@", "a\tb", "-m", "..."),
)


def parse(argument: str) -> Any:
    """Returns the value of a setting after Hydra's grammar and OmegaConf."""
    (override,) = OverridesParser.create().parse_overrides([argument])
    assert not override.is_sweep_override()
    resolved = OmegaConf.to_container(OmegaConf.create({"read": override.value()}), resolve=True)
    assert isinstance(resolved, dict)
    return resolved["read"]


def parse_sweep(argument: str) -> list[str]:
    """Returns the values of a sweep, as each of its runs reads them."""
    (override,) = OverridesParser.create().parse_overrides([argument])
    assert override.is_sweep_override()
    return [parse(f"key={value}") for value in override.sweep_string_iterator()]


@contextlib.contextmanager
def folder_with(*names: str) -> Any:
    """Creates a folder with some files and makes it the working folder."""
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        for name in names:
            try:
                Path(name).touch()
            except OSError:
                assume(False)
        yield Path(folder)


@settings(max_examples=60)
@given(NAMES)
def test_quote_override_survives_parsing_and_unquoted_reverts_it(text: str) -> None:
    assert parse(f"key={quote_override(text)}") == text
    assert unquoted(quote_override(text)) == text


@settings(max_examples=40)
@given(name=NAMES.filter(lambda name: name not in (".", "..")))
@example(name="a,b")
def test_path_overrides_preserve_the_name_of_an_existing_file(name: str) -> None:
    with folder_with(name):
        for key in ("weights", "data.dir", "+data.table", "teacher", "hydra.run.dir"):
            (rewritten,) = path_overrides([f"{key}={name}"])
            assert parse(rewritten) == name
            assert train_overrides([rewritten, "hydra.job.name=train_ddp_process_1"])[0] == rewritten


@pytest.mark.parametrize("name", TRAPS)
@pytest.mark.parametrize("options", [(), ("-m",)], ids=["one run", "sweep"])
def test_path_overrides_preserve_existing_names_with_grammar_characters(name: str, options: tuple[str, ...]) -> None:
    with folder_with(name):
        for key in ("weights", "data.dir", "teacher", "out"):
            assert parse(path_overrides([*options, f"{key}={name}"])[-1]) == name


@settings(max_examples=40)
@given(name=NAMES.map(lambda name: f"new/{name}"))
@example(name="/data/my faces (1).csv")
@example(name="logs/a,b=[3].csv")
def test_path_overrides_preserve_the_name_of_a_new_file(name: str) -> None:
    for key in ("out", "annotate", "data.cache_dir"):
        (rewritten,) = path_overrides([f"{key}={name}"])
        assert parse(rewritten) == name
        assert path_overrides([rewritten]) == [rewritten]  # idempotent, for the processes that this one starts


@settings(max_examples=40)
@given(names=st.lists(NAMES.filter(lambda name: name.strip(".")), min_size=2, max_size=4, unique=True))
@example(names=["a,b", "c"])
@example(names=["'a", "b'"])
@example(names=["1", "''"])
@example(names=["[a", "b]", "null"])
def test_path_overrides_sweep_over_existing_files(names: list[str]) -> None:
    whole = ",".join(names)
    joined = {",".join(names[i:j]) for i in range(len(names)) for j in range(i + 2, len(names) + 1)}
    assume(not joined & set(names) and not any("," in name for name in names[1:]))  # ambiguous
    with folder_with(*names):
        assert parse_sweep(path_overrides(["-m", f"weights={whole}"])[1]) == names


def test_path_overrides_keep_a_comma_only_in_existing_paths() -> None:
    with folder_with("a", "b", "c,d") as folder:
        (folder / "e,f").mkdir()
        assert parse_sweep(path_overrides(["-m", "weights=a,b,c,d"])[1]) == ["a", "b", "c,d"]
        assert parse_sweep(path_overrides(["-m", "weights=a,no,c"])[1]) == ["a", "no", "c"]
        assert parse_sweep(path_overrides(["sweep=grid", "data.cache_dir=e,f/new,a"])[1]) == ["e,f/new", "a"]
        assert parse(path_overrides(["weights=no,such"])[0]) == "no,such"
        assert parse(path_overrides(["teacher=a,c,d"])[0]) == ["a", "c,d"]
        assert parse(path_overrides(["-m", "hydra.sweep.dir=x,y"])[1]) == "x,y"  # never swept over
        assert path_overrides(["-m", "weights=choice(a,b)", "teacher=a,[a,b]"])[1:] == [
            "weights=choice(a,b)",
            "teacher=a,[a,b]",
        ]


def test_path_overrides_expand_a_tilde_unless_a_file_has_that_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/a b")
    assert parse(path_overrides(["data.dir=~/UTKFace"])[0]) == "/home/a b/UTKFace"
    assert parse(report_overrides(["run=~/x,y"])[0]) == ["/home/a b/x", "y"]
    assert parse_sweep(path_overrides(["-m", "weights=~/x,y"])[1]) == ["/home/a b/x", "y"]
    with folder_with("~"):
        assert parse(path_overrides(["data.dir=~"])[0]) == "~"


def test_expand_homes_expands_a_tilde_in_a_config(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    config = compose_command("train", ["data.dir='~/faces'", "weights='~/a.ckpt'", "name='~x'"])
    expand_homes(config)
    assert (config.data.dir, config.weights, config.name) == ("/home/me/faces", "/home/me/a.ckpt", "~x")


def test_path_overrides_keep_interpolations(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FACES", "/data/faces")
    assert parse(path_overrides(["data.dir=${oc.env:FACES}/a b"])[0]) == "/data/faces/a b"
    argument = "hydra.run.dir=logs/my runs/${name}/${now:%Y}"
    config = compose_command("train", path_overrides([argument, "name=x"]), hydra=True)
    assert config.hydra.run.dir.startswith("logs/my runs/x/2")


@pytest.mark.parametrize(
    ("argument", "value"),
    [
        ("weights=logs/folds/${data.fold}", "logs/folds/3"),
        ("weights=logs/${name}_${seed}", "logs/probe_1"),
        ("data.table=my faces/${data.name}.csv", "my faces/folder.csv"),
        ("teacher=logs/folds/${data.fold}", "logs/folds/3"),
        ("teacher=my logs/a,logs/${data.fold}", ["my logs/a", "logs/3"]),
    ],
)
def test_path_overrides_resolve_other_settings(argument: str, value: str | list[str]) -> None:
    arguments = [argument, "protocol=folds", "data.fold=3", "name=probe", "seed=1", "+data.name=folder"]
    assert OmegaConf.select(compose_command("train", path_overrides(arguments)), argument.partition("=")[0]) == value


def test_path_overrides_in_a_sweep_resolve_other_settings() -> None:
    (override,) = OverridesParser.create().parse_overrides([path_overrides(["-m", "weights=a/${seed},b/${seed}"])[1]])
    configs = [compose_command("train", ["seed=2", f"weights={value}"]) for value in override.sweep_string_iterator()]
    assert [config.weights for config in configs] == ["a/2", "b/2"]


def test_path_overrides_prefer_a_file_to_an_interpolation() -> None:
    with folder_with("${data.fold}"):
        assert parse(path_overrides(["weights=${data.fold}"])[0]) == "${data.fold}"


def test_path_overrides_leave_other_settings_alone() -> None:
    others = ["--help", "seed=1,2", "-cn", "weights=a b", "--config-dir", "out=x", "out=", "weights=null", "~weights"]
    others += [
        "data.dir=data/UTKFace",
        "weights='a b'",
        "data=table",
        "model.channels=[8,16]",
        "x.weights=[1]",
        "out=-",
    ]
    assert path_overrides(others) == others


def test_path_overrides_know_every_path_setting() -> None:
    """The list holds every setting of the package whose value is a path."""
    found = set()
    for command in (
        "train",
        "predict",
        "explore",
        "report",
        "compare",
        "robustness",
        "pack",
        "export",
        "serve",
        "bundle",
    ):
        config = OmegaConf.to_container(compose_command(command, []), resolve=False)
        assert isinstance(config, dict)
        flat = dict(config) | {f"data.{key}": None for key in config.get("data") or {}}
        found |= {str(key) for key in flat if is_path(str(key)) or key in LISTS}
    assert found == {
        *("data.dir", "data.table", "data.cache_dir", "data.split_file", "weights", "teacher", "out", "annotate"),
        *("run", "data_dir", "check", "host", "tracks", "boxes", "runtime"),
    }


@settings(max_examples=40)
@given(st.lists(NAMES, min_size=1, max_size=3))
@example(["null"])
@example(["~"])
@example(["[a]", "'b'"])
def test_paths_value_round_trips_several_paths(names: list[str]) -> None:
    with folder_with():
        value = parse(report_overrides([f"run={paths_value(names)}"])[0])
    assert [Path(name) for name in ([value] if isinstance(value, str) else value)] == list(map(Path, names))


def test_image_overrides_keep_path_settings_beside_images() -> None:
    rewritten = image_overrides(["img=a b.jpg", "out=x (1).csv", "weights=epoch=3.ckpt", "resume=true"])
    assert [parse(argument) for argument in rewritten] == ["x (1).csv", "epoch=3.ckpt", True, ["a b.jpg"]]


def test_split_options_separates_hydra_options_from_settings() -> None:
    given_arguments = ["-m", "a=1", "--config-dir", "my conf", "--cfg=job", "b=2", "-cn", "other", "--resolve"]
    options = {"--config-dir": "my conf", "--cfg": "job", "-cn": "other"}
    assert split_options(given_arguments) == (options, ["a=1", "b=2"])


def test_options_last_keeps_the_order_of_settings_and_the_values_of_options() -> None:
    given_arguments = ["--cfg", "job", "a=1", "-m", "b=2", "--config-dir=my conf", "~c", "-p", "optim"]
    options = ["--cfg", "job", "-m", "--config-dir=my conf", "-p", "optim"]
    assert options_last(given_arguments) == ["a=1", "b=2", "~c", *options]


def test_path_overrides_treat_pretrained_weights_as_a_path() -> None:
    assert is_path("weights") and is_path("model.pretrained")
    (rewritten,) = path_overrides(["model.pretrained=faces (1).onnx"])
    assert parse(rewritten) == "faces (1).onnx"


@pytest.mark.parametrize("arguments", [["model.pretrained=true"], ["-m", "model.pretrained=true,false,null"]])
def test_path_overrides_leave_boolean_pretrained_alone(arguments: list[str]) -> None:
    assert path_overrides(arguments) == arguments
