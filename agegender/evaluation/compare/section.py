"""The section about McNemar's test in a report on two runs."""

from __future__ import annotations

from collections.abc import Mapping

from agegender.evaluation.compare.words import format_p
from agegender.evaluation.html.page import Section, Table
from agegender.evaluation.statistics.mcnemar import McNemar


def mcnemar_section(tests: Mapping[str, McNemar]) -> Section:
    """Return the section; `tests` by task, at least one."""
    rows = [
        (name, *(f"{count:,}" for count in (found.only_a, found.only_b, found.images)), format_p(found.p))
        for name, found in tests.items()
    ]
    text = (
        "Only the images that one run predicts correctly and the other doesn't distinguish their accuracies. p is the "
        "probability of counts at least as unequal if both accuracies are equal (McNemar's exact test, two-sided). The "
        "test takes images as independent; the interval of the paired difference draws copies together."
    )
    return Section("Paired test", text, [Table(("", "only A right", "only B right", "images", "p"), rows)])
