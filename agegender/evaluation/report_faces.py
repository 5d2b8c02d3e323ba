"""Faces of a test report, each with its labels and the answer."""

from __future__ import annotations

import math

from agegender.data.decode import UnreadableImageError, read_image
from agegender.evaluation.findings import Findings
from agegender.evaluation.measures import Integers, says_female
from agegender.evaluation.page import Card, Section, face_uri
from agegender.evaluation.run_files import Answers

LETTERS = ("M", "F")
_TITLES = {  # by the attributes of `Cases`
    "largest_age_errors": ("Largest age errors", "The largest first."),
    "wrong_genders": ("Surest wrong genders", "The surest first."),
    "random": ("Random faces", "Drawn by chance, in the order of their ages."),
}
_LINES = (
    "Above, age and gender as labelled; below, the answer: age, with the stated standard deviation where there is one, "
    "and gender with the probability that the model gives it."
)


def face_sections(answers: Answers, findings: Findings, label: str = "") -> list[Section]:
    """Return a section with cards for each kind of case; kinds without a case are left out."""
    uris: dict[str, str] = {}
    sections = []
    for kind, (title, text) in _TITLES.items():
        rows: Integers = getattr(findings.cases, kind)
        if len(rows):
            cards = [_card(answers, row, uris) for row in rows.tolist()]
            gone = sum(not card.uri for card in cards)
            if gone:
                text += f" {gone} of {len(cards)} pictures are not (or no longer) where predictions.csv says."
            sections.append(Section(f"{title} ({label})" if label else title, f"{text} {_LINES}", faces=(cards,)))
    return sections


def _card(answers: Answers, row: int, uris: dict[str, str]) -> Card:
    path, female = answers.paths[row], bool(says_female(answers.p_female[row]))
    if path not in uris:
        try:
            uris[path] = face_uri(read_image(path))
        except UnreadableImageError:
            uris[path] = ""
    std, p_female = float(answers.age_std[row]), float(answers.p_female[row])
    years = f"{answers.age_pred[row]:.0f}" + ("" if math.isnan(std) else f" ± {std:.0f}")
    sure = p_female if female else 1 - p_female
    true_age = f"{answers.age[row]:.0f}" if answers.aged[row] else "?"
    lines = (
        f"true {true_age} {LETTERS[answers.gender[row]] if answers.gendered[row] else '?'}",
        f"says {years}",
        f"{LETTERS[female]} {sure:.2f}",
    )
    return Card(uris[path], lines, answers.names[row])
