"""Draw a cartoon face part by part, from the traits sampled in `agegender.data.sources.drawing.person`."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from PIL import Image

from agegender.data.sources.drawing.pen import CIRCLE, Pen, Place, Points, arc, mirror, smooth
from agegender.data.sources.drawing.person import INK, Person, mix, sample_person
from agegender.data.sources.drawing.photo import SUPERSAMPLE, develop, draw_background


def head_outline(p: Person, grow: float = 0.0) -> Points:
    """Return the closed outline of the head, enlarged by `grow` on all sides."""
    w, top, chin = p.width + grow, p.crown + grow, p.chin + grow
    cheek = 1.0 - 0.1 * (1 - p.jaw) + 0.02 * p.sag
    right = np.array(
        [
            (0.0, -top), (0.62 * w, -0.84 * top), (0.97 * w, -0.36 * top), (w, 0.02),
            (cheek * w * 0.96, 0.42 * chin), (p.jaw * w, 0.74 * chin), (p.jaw * w * 0.5, 0.965 * chin), (0.0, chin),
        ]
    )  # fmt: skip
    return smooth(np.concatenate([right, mirror(right[-2:0:-1])]))


def hair_dome(p: Person, reach: float, volume: float) -> Points:
    """Return an arc over the skull from the left to the right side; `reach` is its half angle in radians."""
    angle = np.linspace(-reach, reach, 61)
    bumps = 1 + p.curl * np.abs(np.sin(7.5 * angle))
    x = (p.width + volume * 0.75) * np.sin(angle)
    return np.stack([x * bumps, -0.1 - (p.crown + volume - 0.1) * np.cos(angle) * bumps], axis=1)


def draw_body(pen: Pen, p: Person) -> None:
    """Draw the shoulders, the neck and the shadow of the chin."""
    neck = p.neck
    shoulder = np.array([(0.4, 0.86), (1.15, 1.05), (1.5, 2.2)])
    pen.fill(smooth(np.concatenate([shoulder, mirror(shoulder)[::-1]])), p.shirt)
    pen.fill(np.array([(-neck, 0.2), (neck, 0.2), (neck, 0.88), (0.0, 1.12), (-neck, 0.88)]), mix(p.skin, INK, 0.12))
    pen.oval(0, p.chin - 0.04, p.width * 0.62, 0.16, mix(p.skin, INK, 0.3), 0.8)
    collar = np.array([(neck, 0.8), (neck + 0.1, 0.86), (0.1, 1.2), (0.0, 1.12)])
    pen.pair(collar, mix(p.shirt, INK, 0.2))


def draw_back_hair(pen: Pen, p: Person) -> None:
    """Draw the hair behind the head."""
    shade = mix(p.hair, INK, 0.25)
    length = {"bob": 0.62, "long": 1.25}.get(p.style)
    if length is not None:
        w, out = p.width + p.volume, 0.06 + p.curl
        ends = np.array([(w + out, 0.3), (w + out, length - 0.1), (w * 0.7, length + 0.04)])
        curtain = smooth(ends, closed=False)
        pen.fill(np.concatenate([hair_dome(p, 1.6, p.volume), curtain, mirror(curtain)[::-1]]), shade)
    elif p.style == "bun":
        pen.oval(0.1 * p.part, -p.crown - 0.12, 0.24, 0.2, shade)
    elif p.style == "tails":
        for side in (-1, 1):
            pen.oval(side * (p.width + 0.16), 0.1, 0.15, 0.28, shade)
            pen.oval(side * (p.width + 0.05), -0.12, 0.06, 0.06, p.shirt)


def draw_head(pen: Pen, p: Person, light: float) -> None:
    """Draw the ears and the head, shaded on the side away from the light (`light` from -1, left, to 1, right)."""
    shade = mix(p.skin, INK, 0.16)
    for side in (-1, 1):
        pen.oval(side * (p.width + 0.015), p.eye_y + 0.1, 0.085, 0.14 + 0.04 * p.sag, p.skin)
        pen.oval(side * (p.width + 0.025), p.eye_y + 0.1, 0.045, 0.09, shade)
    pen.fill(head_outline(p), shade)
    pen.moved(0.03 * light, -0.012).fill(head_outline(p, -0.025), p.skin)
    for side in (-1, 1):
        x, y = side * p.width * 0.6, p.eye_y + p.eye_size + 0.12
        for size in (1.0, 0.8, 0.55):
            pen.oval(x, y, 0.16 * size, 0.12 * size, (226, 96, 92), p.blush * 0.4)


def draw_eye(pen: Pen, p: Person, side: int, gaze: Place) -> None:
    """Draw one eye with its lids, lashes and brow; the pen's origin is the center of the eye."""
    size, t = p.eye_size, np.linspace(-1, 1, 13)
    lid = -size * p.eye_open * (1 - t**2) ** 0.75 + 0.25 * p.sag * size * np.maximum(side * t, 0)
    low = 0.7 * size * p.eye_open * (1 - t**2) ** 0.8
    upper, lower = np.stack([size * t, lid], axis=1), np.stack([size * t, low], axis=1)
    pen.stroke(upper - (0, 0.035 + 0.02 * p.sag), 0.02 + 0.016 * p.sag, mix(p.skin, INK, 0.4), 0.8)
    pen.fill(np.concatenate([upper, lower[::-1]]), (250, 248, 244))
    for radius, color in ((0.66, p.iris), (0.34, (24, 20, 22))):
        disc = CIRCLE * size * radius + np.array(gaze) * size
        disc[:, 1] = np.clip(disc[:, 1], np.interp(disc[:, 0], size * t, lid), np.interp(disc[:, 0], size * t, low))
        pen.fill(disc, color)
    glint = size * 0.15
    pen.oval(size * (gaze[0] + 0.2), size * (gaze[1] - 0.26 * p.eye_open), glint, glint, (255, 255, 255), 0.9)
    pen.stroke(upper, 0.028 + 0.03 * p.lash, mix(INK, p.skin, 0.25 * (1 - p.lash)))
    pen.stroke(lower, 0.014, mix(p.skin, INK, 0.5), 0.7)
    if p.lash > 0.5:
        for spot, lean in ((0.55, 0.02), (0.8, 0.05), (0.97, 0.07)):
            x, y = side * spot * size, float(np.interp(side * spot, t, lid))
            pen.stroke(np.linspace((x, y), (x + side * lean, y - 0.055 * p.lash), 3), 0.022, INK, even=True)
    rise = -size * (0.85 + 0.5 * p.eye_open) - 0.05
    inner, outer = (-side * size * 1.1, rise + 0.02), (side * size * 1.3, rise + 0.05 + 0.02 * p.sag)
    pen.curve(inner, (0, rise - 0.07), outer, p.brow * 1.7, p.brow_color, 0.95)


def draw_nose(pen: Pen, p: Person) -> None:
    """Draw the bridge, the tip and the nostrils, scaled with the length of the nose."""
    base, half = p.eye_y + p.nose + 0.03, 0.035 + 0.2 * p.nose
    dark = mix(p.skin, INK, 0.35)
    if p.nose > 0.15:
        pen.fill(arc((half * 0.4, p.eye_y), (half * 0.3, base - 0.1), (half * 1.1, base)), dark, 0.35)
    pen.oval(0, base - 0.025, half * 0.95, 0.045 + 0.06 * p.nose, mix(p.skin, (255, 236, 220), 0.3), 0.8)
    pen.curve((-half, base - 0.02), (0, base + 0.07), (half, base - 0.02), 0.026, dark)
    for side in (-1, 1):
        pen.oval(side * half * 0.5, base + 0.008, half * 0.22, 0.013, mix(p.skin, INK, 0.6))


def mouth_height(p: Person) -> float:
    """Return the y coordinate of the mouth, between the nose and the chin."""
    base = p.eye_y + p.nose + 0.03
    return base + 0.44 * (p.chin - base)


def draw_mouth(pen: Pen, p: Person) -> None:
    """Draw two lips around a line, or around a row of teeth."""
    y, w, lip, curve = mouth_height(p), p.mouth_width, max(p.lip, 0.012), 2 * p.smile
    left, right = (-w, y - p.smile), (w, y - p.smile)
    gap = 0.07 if p.teeth else 0.0
    line, under = arc(left, (0, y + curve), right), arc(left, (0, y + curve + 2 * gap), right)
    peak = y - 1.5 * lip
    bow = smooth(np.array([left, (-w * 0.35, peak), (0, y - lip), (w * 0.35, peak), right]), closed=False)
    pen.fill(np.concatenate([bow, line[::-1]]), mix(p.lip_color, INK, 0.12))
    if p.teeth:
        pen.fill(np.concatenate([line, under[::-1]]), (252, 250, 246))
    pen.fill(np.concatenate([under, arc(right, (0, y + curve + 2 * gap + 3.4 * lip), left)]), p.lip_color)
    pen.stroke(line, 0.02, mix(p.lip_color, INK, 0.7))


def draw_lines_of_age(pen: Pen, p: Person) -> None:
    """Draw wrinkles, bags under the eyes, age spots and freckles."""
    dark, mouth, nose = mix(p.skin, INK, 0.45), mouth_height(p), p.eye_y + p.nose
    strength = 0.15 + 0.75 * p.wrinkles
    if p.wrinkles > 0.12:
        for line in range(int(0.5 + 3.6 * p.wrinkles)):
            y = p.eye_y - 0.33 - 0.075 * line
            pen.curve((-0.27, y + 0.02), (0, y - 0.03), (0.27, y + 0.02), 0.02, dark, strength * 0.8)
        for side in (-1, 1):
            x, corner = side * p.width * 0.44, side * (p.mouth_width + 0.05)
            pen.curve(
                (side * 0.1, nose - 0.02), (side * 0.2, nose + 0.05), (corner, mouth + 0.02), 0.03, dark, strength
            )
            bag = p.eye_y + p.eye_size * 0.75 + 0.035
            pen.curve((x - 0.1, bag - 0.02), (x, bag + 0.06), (x + 0.1, bag - 0.02), 0.022, dark, strength * 0.9)
            for foot in range(int(0.6 + 3 * p.wrinkles)):
                tip = (x + side * (p.eye_size + 0.11), p.eye_y - 0.06 + 0.065 * foot)
                pen.curve((x + side * (p.eye_size + 0.02), p.eye_y), tip, tip, 0.02, dark, strength)
            if p.wrinkles > 0.55:
                end = (corner - side * 0.06, mouth + 0.17)
                pen.curve((corner - side * 0.03, mouth + 0.04), (corner, mouth + 0.1), end, 0.024, dark, strength)
                pen.curve((side * 0.3, 0.08), (side * 0.36, 0.2), (side * 0.3, 0.32), 0.018, dark, strength * 0.35)
    for spot in range(p.spots):
        side = 1 if spot % 2 else -1
        pen.oval(side * (0.3 + 0.035 * (spot % 5)), -0.32 + 0.13 * spot % 0.6, 0.018, 0.014, (130, 84, 56), 0.45)
    if p.freckles:
        for x, y in ((0.16, 0.0), (0.22, 0.04), (0.28, 0.0), (0.34, 0.05), (0.26, 0.09), (0.2, 0.1)):
            for side in (-1, 1):
                pen.oval(side * x, nose - 0.06 + y, 0.011, 0.011, (160, 92, 60), 0.6)


def draw_beard(pen: Pen, p: Person) -> None:
    """Draw a full beard, a goatee or a mustache; a low density is stubble."""
    if p.beard == 0:
        return
    mouth, w = mouth_height(p), p.mouth_width
    color, alpha = mix(p.hair, INK, 0.15), p.beard
    if p.beard_style == "full":
        outline = head_outline(p, 0.025 if alpha > 0.5 else -0.01)
        low = outline[outline[:, 1] > p.eye_y + 0.12]
        low = low[np.argsort(-np.arctan2(low[:, 0], low[:, 1]))]  # from the right side down to the chin and up the left
        inner = np.array([(-p.width * 0.8, mouth - 0.14), (-w - 0.05, mouth - 0.11), (0, mouth - 0.07),
                          (w + 0.05, mouth - 0.11), (p.width * 0.8, mouth - 0.14)])  # fmt: skip
        pen.fill(np.concatenate([low, smooth(inner, closed=False)]), color, alpha)
    elif p.beard_style == "goatee":
        pen.oval(0, (mouth + p.chin) / 2 + 0.06, w * 0.85, (p.chin - mouth) / 2 + 0.02, color, alpha)
    if p.beard_style != "full":
        tip = (w + 0.04, mouth + 0.03)
        top = arc((0, mouth - 0.1), (w * 0.8, mouth - 0.13), tip)
        half = np.concatenate([top, arc(tip, (w * 0.6, mouth - 0.02), (0, mouth - 0.03))])
        pen.pair(half, color, alpha)


def draw_front_hair(pen: Pen, p: Person) -> None:
    """Draw the hair in front of the skull: a tuft, side patches, or a cap down to the hairline."""
    if p.style == "wisps":
        pen.fill(np.concatenate([hair_dome(p, 1.25, 0.012), [(0.0, -p.crown * 0.93)]]), p.hair, 0.45)
        for lean in (-0.13, -0.02, 0.1):
            root = (0.4 * lean + 0.03 * p.part, -p.crown + 0.08)
            pen.stroke(arc(root, (lean, -p.crown - 0.08), (lean * 1.8 + 0.05, -p.crown - 0.06)), 0.045, p.hair)
        return
    if p.style == "bald":
        dome = hair_dome(p, 1.75, p.volume)
        inner = arc((p.width * 0.98, 0.12), (p.width * 0.84, -0.1), (p.width * 0.86, -0.36))
        patch = np.concatenate([dome[52:], inner])
        pen.pair(patch, p.hair)
        return
    u = np.linspace(1, -1, 41)
    edge = p.hairline + (p.eye_y + 0.02 - p.hairline) * np.abs(u) ** 6
    edge -= p.recede * 0.2 * np.exp(-(((np.abs(u) - 0.6) / 0.2) ** 2))  # the temples recede first
    if p.style in ("fringe", "bob"):
        edge = np.maximum(edge, p.eye_y - 0.27 + 0.025 * np.abs(np.sin(9 * u)))
    elif p.style != "short":
        edge += 0.16 * np.abs(u - p.part) * (np.abs(u) < 0.97) - 0.08
    line = np.stack([p.width * 0.97 * u, edge], axis=1)
    dome = hair_dome(p, 1.72, p.volume)
    pen.fill(np.concatenate([dome, line]), p.hair)
    pen.stroke(line[3:-3], 0.018, mix(p.hair, INK, 0.35), 0.6)
    if p.style in ("long", "bob"):
        reach, w = (1.05, 0.6)[p.style == "bob"], p.width + p.volume * 0.75
        inside, outside = [(w * 0.8, -0.3), (p.width * 0.93, 0.1)], [(w + 0.07, reach - 0.1), (w, -0.1)]
        lock = smooth(np.array([*inside, (p.width * 0.9, reach), *outside]))
        pen.pair(lock, p.hair)
    shine = np.clip(len(dome) * (0.5 + 0.2 * p.part), 14, 46).astype(int)
    pen.stroke(dome[shine - 9 : shine + 9] * 0.92 + (0, 0.02), 0.05, mix(p.hair, (255, 250, 235), 0.35), 0.7)


def draw_extras(pen: Pen, p: Person) -> None:
    """Draw glasses and earrings."""
    if p.earrings:
        for side in (-1, 1):
            pen.oval(side * (p.width + 0.04), p.eye_y + 0.27, 0.032, 0.04, (232, 190, 84))
    if p.glasses == "none":
        return
    frame, x, size = mix(p.shirt, INK, 0.75), p.width * 0.44, p.eye_size * 1.5
    shape = CIRCLE if p.glasses == "round" else np.sign(CIRCLE) * np.abs(CIRCLE) ** 0.55 * (1.08, 0.85)
    for side in (-1, 1):
        rim = np.concatenate([shape, shape[:1]]) * size + (side * x, p.eye_y + 0.02)
        pen.fill(rim, (255, 255, 255), 0.14)
        pen.stroke(rim, 0.034, frame, even=True)
        temple = np.linspace((side * (x + size), p.eye_y), (side * p.width, p.eye_y - 0.02), 3)
        pen.stroke(temple, 0.034, frame, even=True)
    pen.stroke(arc((size - x, p.eye_y), (0, p.eye_y - 0.06), (x - size, p.eye_y)), 0.034, frame, even=True)


def draw_face(
    age: int, gender: int, group: int, rng: np.random.Generator, size: int = 200, glasses: str | None = None
) -> Image.Image:
    """Draw one cartoon face.

    Args:
        age: In years, 1 to 100.
        gender: 0 male, 1 female.
        group: 0 to 4; shifts the skin tone slightly and nothing else. It represents no real people.
        rng: Source of all other traits; the same state draws the same image.
        size: Side of the image in pixels.
        glasses: `none`, `round` or `square`; None for a random choice that depends on the age.

    Returns:
        An RGB image, `size` x `size`.
    """
    p = sample_person(age, gender, group, rng)
    p = p if glasses is None else replace(p, glasses=glasses)
    light, turn = float(rng.uniform(-1, 1)), float(rng.normal(0, 0.35))
    picture = draw_background(size * SUPERSAMPLE, rng)
    shift = (float(rng.normal(0, 0.045)), float(rng.normal(0.02, 0.04)))
    pen = Pen(picture, float(rng.normal(0, 0.1)), float(np.clip(rng.normal(1.08, 0.07), 0.88, 1.25)), shift)
    inner = pen.moved(0.09 * np.clip(turn, -1, 1), float(rng.normal(0, 0.01)))
    gaze = (float(rng.uniform(-0.2, 0.2)), float(rng.uniform(-0.08, 0.08)))
    draw_back_hair(pen, p)
    draw_body(pen, p)
    draw_head(pen, p, light)
    draw_lines_of_age(inner, p)
    draw_beard(pen, p)
    for side in (-1, 1):
        draw_eye(inner.moved(side * p.width * 0.44, p.eye_y), p, side, gaze)
    draw_nose(inner.moved(0.03 * turn, 0), p)
    draw_mouth(inner, p)
    draw_front_hair(pen, p)
    draw_extras(inner, p)
    return develop(picture, size, light, rng)
