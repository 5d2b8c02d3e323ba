"""Shards of a list of images: `shard=2/8` is the second of eight contiguous parts."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

from agegender.errors import AgeGenderError, require

Name = TypeVar("Name", bound=str)


@dataclass(frozen=True)
class Shard:
    """Part `number` of `count` parts of a list, counted from 1."""

    number: int
    count: int

    def __str__(self) -> str:
        """Return the value of the setting, such as `2/8`."""
        return f"{self.number}/{self.count}"

    def select(self, names: Sequence[Name]) -> Sequence[Name]:
        """Return this part of the list; the parts concatenated in order are the list, and differ by one name at most.

        If there are fewer names than parts, some parts are empty.
        """
        first, last = (number * len(names) // self.count for number in (self.number - 1, self.number))
        return names[first:last]


def parse_shard(given: str) -> Shard:
    """Parse `i/n`.

    Raises:
        AgeGenderError: The value is not of this form, or i is not in 1..n.
    """
    found = re.fullmatch(r"([0-9]{1,9})/([0-9]{1,9})", given.strip())
    if found is None:
        raise AgeGenderError(f"shard={given} must be two numbers, such as shard=2/8 for the second of eight parts")
    shard = Shard(int(found[1]), int(found[2]))
    require(1 <= shard.number <= shard.count, f"shard={given}: the first number must lie between 1 and {shard.count}")
    return shard


def list_digest(names: Sequence[str]) -> str:
    """Return a digest of the names in order, as 12 hexadecimal digits.

    Shards belong together only if every machine has the same list.
    """
    hashed = hashlib.sha256()
    for name in names:
        hashed.update(os.fsencode(name) + b"\0")
    return hashed.hexdigest()[:12]
