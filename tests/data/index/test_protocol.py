"""Protocols of a split: the name, and the test images with a copy in training."""

from __future__ import annotations

import logging
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from omegaconf import OmegaConf

from agegender.config.allowlist import kwargs_of
from agegender.config.compose import compose_command
from agegender.data.datamodule import AgeGenderDataModule
from agegender.data.index import protocol
from agegender.data.index.index import build_index
from agegender.data.index.protocol import Leak, count_leak, protocol_of

#         a pair       a triple                 a pair        alone
GROUPS = [0, 0, 2, 2, 2, 5, 5, 7, 8, 9]


@pytest.mark.parametrize(
    ("sides", "expected"),
    [
        # the pair is split; of the triple, two test images have a copy in validation; the other pair is tested as one
        ("train test val test test test test train test unused", Leak(test=6, training=3, with_copy=3)),
        # a copy that is left out, or tested as well, is no leak
        ("unused test test test test train train val unused val", Leak(test=4, training=4, with_copy=0)),
        # the rule `random`: validation images are the test images, so a copy in validation is none in training
        (
            "train val+test val+test val+test train train train train train train",
            Leak(test=3, training=7, with_copy=3),
        ),
        ("test test test test test test test test test test", Leak(test=10, training=0, with_copy=0)),
    ],
)
def test_leak_counts_test_images_with_a_copy_in_the_training_part(sides: str, expected: Leak) -> None:
    assert count_leak(sides.split(), np.array(GROUPS)) == expected


@pytest.mark.parametrize(
    ("leak", "words"),
    [
        (Leak(3287, 13_144, 172), "172 of 3,287 test faces have a copy among the 13,144 training faces"),
        (Leak(20, 80, 1), "1 of 20 test faces has a copy among the 80 training faces"),
        (Leak(20, 80, 0), "no test face has a copy in training"),
        (Leak(20, 80, 0, near=False), "no test face has a byte-identical copy in training"),
        (Leak(20, 80, 3, near=False), "3 of 20 test faces have a byte-identical copy among the 80 training faces"),
        (Leak(1200, 0, 0), "all 1,200 faces are test faces"),
    ],
)
def test_leak_reads_as_a_sentence(leak: Leak, words: str) -> None:
    assert str(leak) == words


CLEAN = {"split": "content", "duplicates": "near", "age_range": [0, 120], "fold": None, "folds": None}
CORAL = {"split": "coral", "duplicates": "none", "age_range": [21, 60]}


@pytest.mark.parametrize(
    ("changed", "source", "name"),
    [
        ({}, None, "clean"),
        ({"age_range": [21, 60]}, None, "clean"),
        ({"duplicates": "exact"}, None, "clean with data.duplicates=exact"),
        ({"split": "random"}, None, "random"),
        ({"split": "random", "duplicates": "none"}, None, "random"),
        ({"split": "test"}, None, "test"),
        ({"split": "folds", "fold": 2, "folds": 5}, None, "folds"),
        ({"split": "folds", "fold": 2, "folds": 5, "duplicates": "none"}, None, "folds with data.duplicates=none"),
        (CORAL, None, "coral"),
        (CORAL | {"duplicates": "near"}, None, "coral with data.duplicates=near"),
        (
            CORAL | {"duplicates": "exact", "age_range": [21, 40]},
            None,
            "coral with data.duplicates=exact and data.age_range=[21, 40]",
        ),
        ({"duplicates": "none"}, "file mine.csv", "file mine.csv"),
        ({}, "table labels.csv", "table labels.csv"),
    ],
)
def test_protocol_name_follows_from_the_settings(changed: dict[str, Any], source: str | None, name: str) -> None:
    assert protocol_of(CLEAN | changed, source, None).name == name


def test_protocol_line_holds_name_leak_and_remark() -> None:
    settings = CLEAN | {"split": "fivefold_benchmark", "fold": 3, "folds": 5}
    line = str(protocol_of(settings, None, Leak(20, 80, 0)))
    assert line.startswith("fivefold_benchmark: no test face has a copy in training; fold 3 of 5, counted from 0; ")
    assert "published lists are not available" in line and "\n" not in line
    assert str(protocol_of(CLEAN, None, Leak(20, 80, 0))) == "clean: no test face has a copy in training"
    assert str(protocol_of(CLEAN, None, None)) == "clean"


@pytest.mark.parametrize(
    ("settings", "leak", "level"),
    [
        (CLEAN, Leak(20, 80, 0), logging.INFO),
        (CORAL, Leak(20, 80, 1), logging.WARNING),
        (CLEAN | {"split": "random"}, Leak(20, 80, 0), logging.WARNING),
    ],
)
def test_protocol_that_leaks_is_logged_as_a_warning(
    settings: dict[str, Any], leak: Leak, level: int, caplog: pytest.LogCaptureFixture
) -> None:
    found = protocol_of(settings, None, leak)
    with caplog.at_level("INFO"):
        found.log()
    assert [(record.levelno, record.getMessage()) for record in caplog.records] == [(level, f"protocol {found}")]


@pytest.fixture
def doubled(faces: Path, tmp_path: Path) -> Path:
    """The drawn faces, each with an exact copy."""
    (tmp_path / "faces").mkdir()
    for path in faces.iterdir():
        shutil.copy(path, tmp_path / "faces")
        shutil.copy(path, tmp_path / "faces" / path.name.replace("_2", "_3", 1))
    return tmp_path / "faces"


@pytest.mark.parametrize("most", [50_000, 10], ids=["near", "exact"])
def test_leak_is_counted_where_the_split_ignores_copies(
    doubled: Path, tmp_path: Path, most: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(protocol, "_SEARCHED", most)
    split = tmp_path / "split.csv"
    names = sorted(path.name for path in doubled.iterdir())
    sides = ["test" if number % 3 == 0 else "train" for number in range(len(names))]
    lines = "".join(f"{name},{side}\n" for name, side in zip(names, sides, strict=True))
    split.write_text("file,split\n" + lines, encoding="utf-8")
    index = build_index(doubled, tmp_path / "cache", split_file=split, duplicates="none")
    trained = {digest for digest, side in zip(index.digests, index.split, strict=True) if side != "test"}
    tested = [digest for digest, side in zip(index.digests, index.split, strict=True) if side == "test"]
    exact = sum(digest in trained for digest in tested)
    assert index.duplicates.tolist() == list(range(len(names)))  # the split itself joins nothing
    assert exact > 0 and index.leak == Leak(len(tested), len(names) - len(tested), exact, near=most > 10)


def test_folds_of_real_files_test_each_once_without_a_leak(doubled: Path, tmp_path: Path) -> None:
    def index(fold: int, split: Any = "folds", folds: int = 3) -> Any:
        module = AgeGenderDataModule(
            dir=str(doubled), cache_dir=str(tmp_path / "cache"), split=split, fold=fold, folds=folds, cache="none"
        )
        module.setup()
        return module.index

    for split, folds in (("folds", 3), ("fivefold_benchmark", 5)):
        indexes = [index(fold, split, folds) for fold in range(folds)]
        tested = sorted(indexes[0].names[row] for each in indexes for row in each.rows("test"))
        assert tested == sorted(indexes[0].names)
        assert {each.leak.with_copy for each in indexes} == {0} and len({each.fingerprint for each in indexes}) == folds


@pytest.mark.skipif("UTKFACE_DIR" not in os.environ, reason="UTKFACE_DIR names no folder of real faces")
@pytest.mark.parametrize(
    ("name", "fingerprint", "leak"),
    [
        ("clean", "8c15e3013e8a", Leak(4659, 19_045, 0)),
        ("folds", "8c15e3013e8a", Leak(4659, 19_045, 0)),
        ("fivefold_benchmark", "9fb64d6d4910", Leak(4659, 19_045, 0)),
        ("coral", "dcb8cb969cfa", Leak(3287, 13_143, 191)),
        ("random", "4dea5ab585ef", Leak(4741, 18_963, 332)),
    ],
)
def test_protocols_of_utkface_have_the_documented_splits_and_leaks(
    name: str, fingerprint: str, leak: Leak, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = str(Path(os.environ["UTKFACE_DIR"]).resolve())
    settings: Any = OmegaConf.to_container(compose_command("train", [f"protocol={name}"]).data)
    cache = str(tmp_path_factory.getbasetemp() / "utkface")  # one scan for all protocols
    index = AgeGenderDataModule(**kwargs_of(settings) | {"dir": folder, "cache_dir": cache}).find_index()
    assert (index.fingerprint, index.leak) == (fingerprint, leak)
