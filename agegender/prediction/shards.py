"""Which pictures of a list are this machine's: `shard=2/8` is the second of eight contiguous parts."""

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
    """One of `count` parts of a list, `number` counting from 1."""

    number: int
    count: int

    def __str__(self) -> str:
        """Returns it as the setting has it."""
        return f"{self.number}/{self.count}"

    def of(self, names: Sequence[Name], batch_size: int) -> Sequence[Name]:
        """Returns this part of the list; the parts in order make the list again.

        The list is cut between batches only. A network's sums depend, in their last bits, on how many pictures go
        through it together: so every picture is among the same ones as in a run over the whole list. Parts differ by
        one batch at the most. Where there are fewer batches than parts, some parts are empty.
        """
        batches = -(-len(names) // batch_size)
        first, last = ((number * batches // self.count) * batch_size for number in (self.number - 1, self.number))
        return names[first:last]


def parse_shard(given: str) -> Shard:
    """Reads `i/n`.

    Raises:
        AgeGenderError: It is no such pair.
    """
    found = re.fullmatch(r"([0-9]{1,9})/([0-9]{1,9})", given.strip())
    if found is None:
        raise AgeGenderError(f"shard={given} must be two numbers, such as shard=2/8: the second of eight parts")
    shard = Shard(int(found[1]), int(found[2]))
    require(1 <= shard.number <= shard.count, f"shard={given}: of {shard.count} parts, there are 1 to {shard.count}")
    return shard


def list_digest(names: Sequence[str]) -> str:
    """Tells lists apart: 12 hexadecimal digits over all names in their order.

    Parts of one whole only fit together if every machine saw the same list.
    """
    hashed = hashlib.sha256()
    for name in names:
        hashed.update(os.fsencode(name) + b"\0")
    return hashed.hexdigest()[:12]
