"""Traits of a cartoon face: `sample_person` samples a `Person` from (age, gender, group).

Only this module depends on the labels; `face.py` draws the traits. Lengths are in half image sides: the image spans
-1 to 1 along both axes, y points down, and an upright face is centered at the origin.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

Color = tuple[int, int, int]

INK: Color = (58, 42, 40)
SKIN_TONES = ((255, 226, 202), (244, 200, 164), (222, 168, 124), (172, 118, 80), (112, 72, 52))
HAIR_TONES = ((36, 30, 34), (66, 44, 34), (104, 66, 40), (150, 98, 54), (206, 164, 92), (168, 76, 40))
DYES = ((92, 78, 150), (196, 84, 118), (60, 122, 140))
EYE_TONES = ((74, 48, 34), (106, 74, 44), (92, 116, 76), (78, 118, 160), (110, 124, 132))


@dataclass(frozen=True)
class Person:
    """Traits of a face."""

    width: float  # half width of the head at the temples
    crown: float  # from the origin up to the top of the skull
    chin: float  # from the origin down to the chin
    jaw: float  # half width of the jaw, as a fraction of `width`
    eye_y: float
    eye_size: float
    eye_open: float
    nose: float
    mouth_width: float
    lip: float
    smile: float
    teeth: bool
    brow: float  # thickness
    lash: float
    skin: Color
    hair: Color
    brow_color: Color
    iris: Color
    lip_color: Color
    shirt: Color
    style: str  # one of: wisps, bald, short, fringe, swept, bob, long, bun, tails
    volume: float  # how far the hair stands off the skull
    hairline: float  # y of the hairline over the forehead
    recede: float  # 0..1
    curl: float
    part: float
    beard: float  # 0 none, up to 1 dense
    beard_style: str  # one of: full, goatee, moustache
    wrinkles: float  # 0..1
    sag: float
    spots: int
    freckles: bool
    blush: float
    glasses: str  # one of: none, round, square
    earrings: bool
    neck: float


def mix(first: Color, second: Color, share: float) -> Color:
    """Blend two colors; `share` is the fraction of the second."""
    keep = 1.0 - share
    return (
        int(first[0] * keep + second[0] * share),
        int(first[1] * keep + second[1] * share),
        int(first[2] * keep + second[2] * share),
    )


def pick(tones: tuple[Color, ...], position: float) -> Color:
    """Return the interpolated color at `position` (0 to 1) along a row of colors."""
    place = float(np.clip(position, 0, 1)) * (len(tones) - 1)
    low = min(int(place), len(tones) - 2)
    return mix(tones[low], tones[low + 1], place - low)


def sample_style(seen_age: float, manly: float, recede: float, rng: np.random.Generator) -> str:
    """Sample a hair style; the distributions of the genders and ages overlap."""
    draw, long = rng.random(), rng.random() < 1 / (1 + np.exp(2.1 * manly))
    if draw < np.clip(1.25 - seen_age / 2.6, 0, 1):
        return "wisps"
    if recede > 0.8 and not long:
        return "bald"
    if long:
        return str(rng.choice(["long", "long", "bob", "bob", "bun", "tails" if seen_age < 14 else "long"]))
    return str(rng.choice(["short", "short", "swept", "fringe"]))


def sample_person(age: int, gender: int, group: int, rng: np.random.Generator) -> Person:
    """Sample the traits of one person.

    Appearance is a noisy function of the labels, so that no network can predict either label perfectly: `seen` is the
    apparent age in years, and `manly` (about -1 to 1, with much overlap, weaker in children) the apparent gender.
    `group` shifts the skin tone slightly and nothing else; its codes represent no real people.
    """
    seen = max(0.5, age * rng.normal(1, 0.11) + rng.normal(0, 0.4 + 0.08 * min(age, 40)))
    grown = 1 - np.exp(-seen / 9)
    old = float(np.clip((seen - 45) / 50, 0, 1))
    male = gender == 0
    manly = float((1 if male else -1) * np.clip(0.35 + seen / 26, 0.35, 1) + rng.normal(0, 0.5))

    def ageing(child: float, adult: float, spread: float) -> float:
        return float(child + (adult - child) * grown + rng.normal(0, spread))

    recede = float(np.clip((seen - rng.normal(50 if male else 112, 22)) / 32, 0, 1))
    style = sample_style(seen, manly, recede, rng)
    thinning = recede if style == "short" else min(recede, 0.3)  # a parting or a bun needs hair
    gray = float(1 / (1 + np.exp((rng.normal(53, 7) - seen) / 5))) * (rng.random() > 0.12)
    natural = HAIR_TONES[int(rng.choice(6, p=[0.26, 0.22, 0.2, 0.14, 0.12, 0.06]))]
    color = DYES[int(rng.integers(3))] if rng.random() < 0.03 and seen > 13 else natural
    hair = mix(mix(color, (120, 90, 60), rng.uniform(0, 0.25)), (214, 214, 218), 0.95 * gray)
    skin = pick(SKIN_TONES, rng.normal(0.4 + 0.04 * (group - 2), 0.24))
    bearded = male and seen > 17 and rng.random() < 0.36
    made_up = manly < 0.2 and seen > 15 and rng.random() < 0.55
    hue = rng.uniform(0, 2 * np.pi)
    shirt = tuple(int(140 + 75 * np.cos(hue + shift)) for shift in (0.0, 2.1, 4.2))
    return Person(
        width=ageing(0.675, 0.54, 0.016) + 0.012 * manly * grown,
        crown=ageing(0.68, 0.63, 0.015),
        chin=ageing(0.52, 0.78, 0.02) + 0.012 * manly * grown,
        jaw=ageing(0.80, 0.76, 0.03) + 0.05 * manly * grown + 0.05 * old,
        eye_y=ageing(0.16, -0.01, 0.012),
        eye_size=ageing(0.168, 0.115, 0.006) - 0.004 * manly,
        eye_open=ageing(0.86, 0.62, 0.06) - 0.2 * old - 0.03 * manly,
        nose=ageing(0.11, 0.27, 0.018) + 0.045 * old + 0.01 * manly * grown,
        mouth_width=ageing(0.13, 0.225, 0.018),
        lip=ageing(0.03, 0.05, 0.006) - 0.011 * manly * grown - 0.018 * old,
        smile=float(rng.normal(0.045, 0.03)),
        teeth=bool(rng.random() < 0.3 and seen > 5),
        brow=float(np.clip(ageing(0.016, 0.036, 0.005) + 0.011 * manly, 0.01, 0.07)),
        lash=float(np.clip(0.45 - 0.38 * manly + rng.normal(0, 0.2), 0, 1)) * (0.5 + 0.5 * grown),
        skin=mix(skin, (228, 200, 186), 0.25 * old),
        hair=hair,
        brow_color=mix(mix(natural, INK, 0.4), (190, 188, 188), 0.7 * gray),
        iris=EYE_TONES[int(rng.choice(5, p=[0.4, 0.22, 0.13, 0.15, 0.1]))],
        lip_color=mix(mix(skin, (176, 62, 70), 0.45), (190, 40, 62), 0.5 * made_up),
        shirt=(shirt[0], shirt[1], shirt[2]),
        style=style,
        volume=float(np.clip(rng.normal(0.11, 0.03) - 0.03 * old, 0.05, 0.2)) * (0.45 + 0.55 * grown),
        hairline=ageing(-0.34, -0.37, 0.025) - 0.15 * thinning,
        recede=thinning,
        curl=float(rng.uniform(0.04, 0.09)) if rng.random() < 0.3 and style != "wisps" else 0.0,
        part=float(rng.uniform(-0.7, 0.7)),
        beard=float(rng.choice([0.22, 0.3, 0.85, 1.0])) if bearded else 0.0,
        beard_style=str(rng.choice(["full", "full", "goatee", "moustache"])),
        wrinkles=float(np.clip((seen - 27) / 52 + rng.normal(0, 0.08), 0, 1)),
        sag=old,
        spots=int(rng.poisson(5 * old)),
        freckles=bool(rng.random() < 0.1 and seen < 45),
        blush=float(np.clip(0.42 - 0.34 * grown + rng.normal(0, 0.06), 0, 0.5)),
        glasses=str(rng.choice(["round", "square"])) if rng.random() < (seen > 4) * (0.1 + 0.4 * old) else "none",
        earrings=bool(rng.random() < (0.04 if manly > 0 else 0.3) and seen > 9),
        neck=ageing(0.26, 0.33, 0.015) + 0.035 * manly * grown,
    )
