"""A file with a checksum is read as it was written, or not at all."""

from __future__ import annotations

import logging
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agegender.system.checksums import crc32_of, is_intact
from agegender.system.files import atomic_write


@pytest.mark.parametrize("size", [0, 1, 1 << 20, 3_000_000])
def test_crc32_of_is_zlibs_over_the_file_or_its_first_bytes(size: int, tmp_path: Path) -> None:
    content = np.random.default_rng(0).bytes(size)
    (tmp_path / "file").write_bytes(content)
    assert crc32_of(tmp_path / "file") == zlib.crc32(content)
    assert crc32_of(tmp_path / "file", size // 2) == zlib.crc32(content[: size // 2])


@pytest.mark.parametrize("mapped", [None, "r"])
def test_arrays_with_a_checksum_are_read_as_they_were_written(mapped: str | None, tmp_path: Path) -> None:
    array = np.arange(1000).reshape(10, 100)
    with atomic_write(tmp_path / "one.npy", checksum=True) as file:
        np.save(file, array)
    with atomic_write(tmp_path / "two.npz", checksum=True) as file:
        np.savez(file, first=array, second=-array)
    assert is_intact(tmp_path / "one.npy", "") and is_intact(tmp_path / "two.npz", "")
    assert (np.load(tmp_path / "one.npy", mmap_mode=mapped, allow_pickle=False) == array).all()  # type: ignore[arg-type]
    with np.load(tmp_path / "two.npz", allow_pickle=False) as two:
        assert (two["first"] == array).all() and (two["second"] == -array).all()


@settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(content=st.binary(max_size=300), data=st.data())
def test_any_damage_to_a_file_with_a_checksum_is_found(content: bytes, data: st.DataObject, tmp_path: Path) -> None:
    path = tmp_path / "file"
    with atomic_write(path, checksum=True) as file:
        file.write(content)
    assert is_intact(path, "")
    stored = bytearray(path.read_bytes())
    place = data.draw(st.integers(0, len(stored) - 1))
    kind = data.draw(st.sampled_from(["bit", "cut", "zeroed", "longer"]))
    if kind == "bit":
        stored[place] ^= 1 << data.draw(st.integers(0, 7))
    elif kind == "cut":
        del stored[place:]
    elif kind == "zeroed":
        stored[:] = bytes(len(stored))
    else:
        stored += bytes(1 + place)
    path.write_bytes(stored)
    assert not is_intact(path, "")


def test_damaged_file_is_named_in_one_line_and_a_missing_one_is_not(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "cut.npy").write_bytes(b"\x93NUMPY")
    with caplog.at_level(logging.WARNING, logger="agegender"):
        assert not is_intact(tmp_path / "none.npy", "made again") and not is_intact(tmp_path / "cut.npy", "made again")
    lines = [record.getMessage() for record in caplog.records]
    assert lines == [f"{tmp_path / 'cut.npy'} is damaged (its checksum doesn't match): made again"]
