"""Facts about a run for its test report (data, split, settings), and notes on the limits of its metrics."""

from __future__ import annotations

from agegender.data.sources.synthetic import SYNTHETIC_NOTE
from agegender.evaluation.html.data_notes import data_notes
from agegender.evaluation.report.analysis import RunMetrics
from agegender.evaluation.report.comparison import Report, leak_warning, same_split
from agegender.evaluation.report.run_reader import Run
from agegender.tasks.info import TaskInfo


def run_name(label: str) -> str:
    """Return the subject of a sentence about the run with this label."""
    return f"Run {label}" if label else "This run"


def facts_of(run: Run, findings: RunMetrics) -> dict[str, str]:
    """Return the facts about a run, by name; unknown ones are left out."""
    results, known = run.results, run.predictions.duplicates_known
    photographs = f", of {findings.clusters:,} photographs" if known and findings.clusters < findings.images else ""
    if any(found.images < findings.images for found in findings.tasks.values()):
        counts = (f"{name} known for {found.images:,}" for name, found in findings.tasks.items())
        photographs += f"; {', '.join(counts)}"
    epochs = f"{results.get('epochs')}"
    if results.get("best_epoch"):
        epochs += f"; epoch {results['best_epoch']} selected by validation"
    facts = {
        "run": run.folder,
        "data": results.get("data"),
        "table": results.get("table"),
        "split": " ".join(str(results[name]) for name in ("split", "split_fingerprint") if results.get(name)) or None,
        "protocol": ": ".join(str(results[name]) for name in ("protocol", "leak") if results.get(name)) or None,
        "pooled from": _pooled(run),
        "test images": f"{findings.images:,}{photographs}",
        "epochs": epochs if results.get("epochs") else None,
        "settings": results.get("overrides") or None,
        **{f"{task.name} {what}": value for task in run.predictions.tasks for what, value in _of_task(run, task)},
        "parameters": f"{results['parameters']:,}" if "parameters" in results else None,
        "hardware": results.get("hardware"),
    }
    return {name: str(value) for name, value in facts.items() if value is not None}


def _pooled(run: Run) -> str | None:
    """Return the folds whose predictions were pooled, for the run of a sweep; None for any other run."""
    pooled = run.results.get("pooled")
    if not pooled:
        return None
    missing = ", ".join(map(str, pooled["missing"]))
    if not missing:
        return f"{pooled['folds']} folds: each image was predicted by the training of the fold that tests it"
    made = pooled["folds"] - len(pooled["missing"])
    return f"{made} of {pooled['folds']} folds; not complete: fold {missing} missing, with its images"


def _of_task(run: Run, task: TaskInfo) -> list[tuple[str, str]]:
    """Return the facts about one task, by name."""
    class_accuracy = run.results.get(f"test/{task.name}_class_acc")
    found = [] if class_accuracy is None else [("class accuracy", f"{100 * class_accuracy:.2f} %")]
    return found + ([("least confidence", f"{task.min_confidence:.3f}")] if task.kind != "number" else [])


def notes_of(report: Report) -> list[str]:
    """Return the notes at the end of the page: the limits of its metrics."""
    notes = []
    for run in report.runs.values():
        notes += data_notes(run.results.get("data") == SYNTHETIC_NOTE, run.results.get("table"))
    for label, run in report.runs.items():
        if run.results.get("pooled"):
            notes.append(
                f"{run_name(label)} is pooled from {_pooled(run)}. Intervals show the variation between samples of "
                "images; those between folds are in sweep.json."
            )
        if run.results.get("split") == "random":
            notes.append(
                f"{run_name(label)} was split file by file (data.split=random): the epoch was selected on its test "
                "images, which may have copies in the training part. Its metrics and intervals are optimistic."
            )
        elif not same_split(run):
            notes.append(f"{run_name(label)}: {leak_warning(run)}")
        else:
            notes.append(f"{run_name(label)}: the epoch was selected by validation, without the test images.")
        if run.results.get("leak/with_copy"):
            notes.append(f"{run_name(label)}: {run.results.get('leak')}. Its metrics are optimistic.")
    return list(dict.fromkeys(notes))
