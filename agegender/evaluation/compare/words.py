"""A paired comparison in sentences, for the terminal and the page."""

from __future__ import annotations

from agegender.evaluation.html.metric_format import NOTHING, MetricColumn, format_number
from agegender.evaluation.statistics.bootstrap import Estimate
from agegender.evaluation.statistics.mcnemar import McNemar


def difference_sentence(column: MetricColumn, difference: Estimate, images: int) -> str:
    """Return a sentence about a metric's difference, B minus A.

    Args:
        column: The metric.
        difference: B minus A.
        images: Number of images that the metric is computed from.
    """
    name, _, unit = column.title.partition(", ")
    unit = "points" if unit == "%" else unit
    value, low, high = (
        format_number(part, column.form, sign)
        for part, sign in ((difference.value, ""), (difference.low, "+"), (difference.high, "+"))
    )
    if NOTHING in (value, low, high):
        return f"{name}: undefined on these faces."
    if difference.low <= 0 <= difference.high:
        return f"{name}: no difference that these {images:,} faces can show ({low} to {high} {unit}".rstrip() + ")."
    verb = "lower" if difference.high < 0 else "higher"
    ends = sorted(abs(part) for part in (difference.low, difference.high))
    value, low, high = (format_number(part, column.form) for part in (abs(difference.value), *ends))
    return f"B's {name} is {verb} by {value} {unit}".rstrip() + f" ({low} to {high})."


def mcnemar_sentence(task: str, found: McNemar) -> str:
    """Return a sentence about McNemar's test of a task."""
    p = format_p(found.p)
    return (
        f"{task}: only A is right on {found.only_a:,} faces, only B on {found.only_b:,}; "
        f"McNemar's exact test: p {p if p.startswith('<') else f'= {p}'}."
    )


def format_p(p: float) -> str:
    """Return a p-value as text, such as `0.0312` or `< 0.0001`."""
    return "< 0.0001" if p < 1e-4 else f"{p:.4f}" if p < 0.1 else f"{p:.2f}"
