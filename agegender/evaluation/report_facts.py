"""What a test report says about a run beside its figures: where it comes from, and what must not be read into it."""

from __future__ import annotations

from agegender.data.synthetic import DRAWN
from agegender.evaluation.comparison import Report, foreign_weights, same_split
from agegender.evaluation.findings import Findings
from agegender.evaluation.run_files import Run

_NOTES = (
    "UTKFace, and any figure and weights that come from it, is for non-commercial research.",
    "Gender is the data set's binary label, given by others from appearance; ages are largely estimates.",
    "This page holds pictures of the data set: don't publish it.",
)


def run_name(label: str) -> str:
    """Return how a sentence begins that is about the run of this label."""
    return f"Run {label}" if label else "This run"


def facts_of(run: Run, findings: Findings) -> dict[str, str]:
    """Return what is known about a run, by name; what is not known is left out."""
    results, known = run.results, run.answers.clustered
    photographs = f", of {findings.clusters:,} photographs" if known and findings.clusters < findings.images else ""
    if findings.ages < findings.images or findings.genders < findings.images:
        photographs += f"; {findings.ages:,} with an age, {findings.genders:,} with a gender"
    epochs = f"{results.get('epochs')}"
    if results.get("best_epoch"):
        epochs += f"; epoch {results['best_epoch']} chosen by validation"
    facts = {
        "run": run.folder,
        "data": results.get("data"),
        "table": results.get("table"),
        "split": " ".join(str(results[name]) for name in ("split", "split_fingerprint") if results.get(name)) or None,
        "test images": f"{findings.images:,}{photographs}",
        "epochs": epochs if results.get("epochs") else None,
        "settings": results.get("overrides") or None,
        "age class accuracy": f"{100 * results['test/age_class_acc']:.2f} %"
        if results.get("test/age_class_acc")
        else None,
        "least confidence for a gender": f"{results['min_confidence']:.3f}" if "min_confidence" in results else None,
        "parameters": f"{results['parameters']:,}" if "parameters" in results else None,
        "hardware": results.get("hardware"),
    }
    return {name: str(value) for name, value in facts.items() if value is not None}


def notes_of(report: Report) -> list[str]:
    """Return the lines at the page's end: what its figures don't say."""
    notes = []
    if any(run.results.get("data") == DRAWN for run in report.runs.values()):
        notes.append("The faces are drawn: nothing here says anything about real people.")
    for label, run in report.runs.items():
        if run.results.get("split") == "random":
            notes.append(
                f"{run_name(label)} was split file by file (data.split=random): its test images chose the epoch and "
                "may have copies in the training part, so its figures, its ages' spread too, flatter it."
            )
        elif not same_split(run):
            notes.append(f"{run_name(label)}: {foreign_weights(run)}")
        else:
            notes.append(f"{run_name(label)}: the test images chose nothing; validation chose the epoch.")
    return [*notes, *_NOTES]
