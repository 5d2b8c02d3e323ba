"""The example faces of a test report, each with its labels and the prediction."""

from __future__ import annotations

import math

from agegender.data.decode import UnreadableImageError, read_image
from agegender.evaluation.html.page import Card, Section, face_uri
from agegender.evaluation.report.analysis import RunMetrics
from agegender.evaluation.report.run_reader import RunPredictions
from agegender.evaluation.statistics.metrics import Integers, predicts_female

LETTERS = ("M", "F")
_TITLES = {  # by the attributes of `ExampleRows`
    "largest_age_errors": ("Largest age errors", "In descending order."),
    "wrong_genders": ("Most confident wrong genders", "In descending order of confidence."),
    "random": ("Random faces", "In ascending order of age."),
}
_LINES = (
    "First line: labeled age and gender. Below: predicted age, with its standard deviation if the model predicts one, "
    "and predicted gender with its probability."
)


def face_sections(answers: RunPredictions, findings: RunMetrics, label: str = "") -> list[Section]:
    """Return a section of cards for each kind of case; kinds without a case are left out."""
    uris: dict[str, str] = {}
    sections = []
    for kind, (title, text) in _TITLES.items():
        rows: Integers = getattr(findings.cases, kind)
        if len(rows):
            cards = [_card(answers, row, uris) for row in rows.tolist()]
            gone = sum(not card.uri for card in cards)
            if gone:
                text += f" {gone} of {len(cards)} images are not at the path in predictions.csv (any more)."
            sections.append(Section(f"{title} ({label})" if label else title, f"{text} {_LINES}", faces=(cards,)))
    return sections


def _card(answers: RunPredictions, row: int, uris: dict[str, str]) -> Card:
    path, female = answers.paths[row], bool(predicts_female(answers.p_female[row]))
    if path not in uris:
        try:
            uris[path] = face_uri(read_image(path))
        except UnreadableImageError:
            uris[path] = ""
    std, p_female = float(answers.age_std[row]), float(answers.p_female[row])
    years = f"{answers.age_pred[row]:.0f}" + ("" if math.isnan(std) else f" ± {std:.0f}")
    sure = p_female if female else 1 - p_female
    true_age = f"{answers.age[row]:.0f}" if answers.has_age[row] else "?"
    lines = (
        f"true {true_age} {LETTERS[answers.gender[row]] if answers.has_gender[row] else '?'}",
        f"pred. {years}",
        f"{LETTERS[female]} {sure:.2f}",
    )
    return Card(uris[path], lines, answers.names[row])
