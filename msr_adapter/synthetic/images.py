"""Drawn images: one motif in one colour on a patterned background; place, size and shade vary from item to item."""

import math
from collections.abc import Callable

import numpy as np
from PIL import Image, ImageDraw

from msr_adapter.synthetic.vocabulary import COLOURS, MOTIFS, PATTERNS

IMAGE_SIZE = 56
"""Side in pixels: 4 x 4 patches of 14, which Qwen2-VL merges into 4 image tokens."""

_SCALE = 4  # drawn larger and shrunk, so that edges are smooth
_SIDE = IMAGE_SIZE * _SCALE

Point = tuple[float, float]
Colour = tuple[int, int, int]

_PAINT: dict[str, Colour] = {
    "red": (214, 36, 36), "yellow": (246, 208, 28), "green": (34, 150, 70),
    "blue": (36, 84, 212), "pink": (246, 130, 190), "brown": (118, 70, 30),
}  # fmt: skip


def draw_image(motif: int, colour: int, pattern: int, rng: np.random.Generator) -> Image.Image:
    """Draw one RGB image (56 x 56) from the codes of its facets; ``rng`` moves, scales and shades it a little."""
    light = int(rng.integers(222, 246))
    image = Image.new("RGB", (_SIDE, _SIDE), (light, light, light))
    pen = ImageDraw.Draw(image)
    _BACKGROUNDS[PATTERNS[pattern]](pen, light - 80, int(rng.integers(0, 48)))
    shade = rng.integers(-12, 13, size=3)
    paint = tuple(int(np.clip(c + s, 0, 255)) for c, s in zip(_PAINT[COLOURS[colour]], shade, strict=True))
    centre = tuple(_SIDE / 2 + rng.uniform(-14, 14, size=2))
    radius = float(rng.uniform(66, 84))
    _MOTIFS[MOTIFS[motif]](_Brush(pen, (centre[0], centre[1]), radius, (paint[0], paint[1], paint[2])))
    return image.resize((IMAGE_SIZE, IMAGE_SIZE), Image.Resampling.BOX)


class _Brush:
    """Draws in a motif's own coordinates: -1..1 to the right and downwards around its centre."""

    def __init__(self, pen: ImageDraw.ImageDraw, centre: Point, radius: float, paint: Colour) -> None:
        self.pen, self.centre, self.radius, self.paint = pen, centre, radius, paint

    def at(self, x: float, y: float) -> Point:
        """Return the pixel of a motif coordinate."""
        return self.centre[0] + x * self.radius, self.centre[1] + y * self.radius

    def polygon(self, *points: Point) -> None:
        """Fill a polygon with a dark edge."""
        self.pen.polygon([self.at(*point) for point in points], fill=self.paint, outline=_EDGE, width=4)

    def ellipse(self, x: float, y: float, rx: float, ry: float) -> None:
        """Fill an ellipse around (x, y) with a dark edge."""
        box = [self.at(x - rx, y - ry), self.at(x + rx, y + ry)]
        self.pen.ellipse(box, fill=self.paint, outline=_EDGE, width=4)

    def line(self, *points: Point, width: int = 10) -> None:
        """Draw a dark line."""
        self.pen.line([self.at(*point) for point in points], fill=_EDGE, width=width, joint="curve")


_EDGE: Colour = (32, 32, 40)


def _polar(radius: float, turn: float) -> Point:
    return radius * math.sin(2 * math.pi * turn), -radius * math.cos(2 * math.pi * turn)


def _star(brush: _Brush) -> None:
    brush.polygon(*(_polar(1.0 if step % 2 == 0 else 0.42, step / 10) for step in range(10)))


def _moon(brush: _Brush) -> None:
    arc = [_polar(1.0, step / 48) for step in range(25)]
    brush.polygon(*((0.45 - x, y) for x, y in arc), *((0.45 - 0.4 * x, y) for x, y in reversed(arc)))


def _heart(brush: _Brush) -> None:
    turns = [2 * math.pi * step / 40 for step in range(40)]
    brush.polygon(
        *(
            (math.sin(t) ** 3, -(13 * math.cos(t) - 5 * math.cos(2 * t) - 2 * math.cos(3 * t) - math.cos(4 * t)) / 16)
            for t in turns
        )
    )


def _tree(brush: _Brush) -> None:
    brush.polygon((-0.16, 0.4), (0.16, 0.4), (0.16, 1.0), (-0.16, 1.0))
    brush.polygon((0, -1.0), (0.5, -0.2), (0.3, -0.2), (0.75, 0.5), (-0.75, 0.5), (-0.3, -0.2), (-0.5, -0.2))


def _house(brush: _Brush) -> None:
    brush.polygon((-0.7, -0.1), (0.7, -0.1), (0.7, 0.9), (-0.7, 0.9))
    brush.polygon((-1.0, -0.1), (0, -1.0), (1.0, -0.1))
    brush.line((0, 0.9), (0, 0.35), width=28)


def _boat(brush: _Brush) -> None:
    brush.polygon((-1.0, 0.4), (1.0, 0.4), (0.6, 0.95), (-0.6, 0.95))
    brush.line((0, 0.4), (0, -1.0))
    brush.polygon((0.1, -0.9), (0.1, 0.25), (0.85, 0.25))


def _fish(brush: _Brush) -> None:
    brush.polygon((0.35, 0.0), (1.0, -0.55), (1.0, 0.55))
    brush.ellipse(-0.2, 0.0, 0.75, 0.48)
    brush.line((-0.62, -0.12), (-0.5, -0.12), width=14)


def _flower(brush: _Brush) -> None:
    brush.line((0, 0), (0, 1.0), width=16)
    for step in range(5):
        x, y = _polar(0.42, step / 5)
        brush.ellipse(x, y - 0.35, 0.32, 0.32)
    brush.line((-0.12, -0.35), (0.12, -0.35), width=40)


def _cup(brush: _Brush) -> None:
    brush.pen.arc([brush.at(0.2, -0.35), brush.at(1.0, 0.45)], -100, 100, fill=_EDGE, width=18)
    brush.polygon((-0.8, -0.7), (0.5, -0.7), (0.4, 0.8), (-0.7, 0.8))


def _kite(brush: _Brush) -> None:
    brush.line((0, 0.4), (-0.25, 0.7), (0.2, 0.85), (-0.1, 1.1))
    brush.polygon((0, -1.0), (0.65, -0.3), (0, 0.5), (-0.65, -0.3))
    brush.line((0, -1.0), (0, 0.5), width=6)
    brush.line((-0.65, -0.3), (0.65, -0.3), width=6)


_MOTIFS: dict[str, Callable[[_Brush], None]] = {
    "star": _star, "moon": _moon, "heart": _heart, "tree": _tree, "house": _house,
    "boat": _boat, "fish": _fish, "flower": _flower, "cup": _cup, "kite": _kite,
}  # fmt: skip


def _paper(pen: ImageDraw.ImageDraw, tone: int, shift: int) -> None:
    """Leave the background as it is."""


def _stripes(pen: ImageDraw.ImageDraw, tone: int, shift: int) -> None:
    for x in range(shift - _SIDE - 48, _SIDE, 48):
        pen.line([(x, 0), (x + _SIDE, _SIDE)], fill=(tone, tone, tone), width=16)


def _dots(pen: ImageDraw.ImageDraw, tone: int, shift: int) -> None:
    for x in range(shift - 48, _SIDE, 48):
        for y in range(shift - 48, _SIDE, 48):
            pen.ellipse([x, y, x + 22, y + 22], fill=(tone, tone, tone))


def _checks(pen: ImageDraw.ImageDraw, tone: int, shift: int) -> None:
    for row, y in enumerate(range(shift - 48, _SIDE, 48)):
        for x in range(shift - 96 + 48 * (row % 2), _SIDE, 96):
            pen.rectangle([x, y, x + 47, y + 47], fill=(tone, tone, tone))


_BACKGROUNDS: dict[str, Callable[[ImageDraw.ImageDraw, int, int], None]] = {
    "paper": _paper, "stripes": _stripes, "dots": _dots, "checks": _checks,
}  # fmt: skip
