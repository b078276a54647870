"""Charts and labelled picture tables for node outputs.

Drawn with Pillow, which every ComfyUI has; matplotlib is not among its requirements, and for polylines on two axes it is not needed.
Everything is drawn three times too large and reduced, which gives smooth lines with Pillow's plain ones.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

PAPER, INK, FAINT, GRID = "#ffffff", "#1b1b1b", "#5f6368", "#e4e6e8"
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#aa4499")  # can be told apart with any colour vision; marks differ as well
_SCALE = 3


@lru_cache(maxsize=32)
def font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """Pillow's own font; a fixed small one where Pillow is too old or built without FreeType."""
    try:
        return ImageFont.load_default(size)
    except (TypeError, OSError, ImportError):
        return ImageFont.load_default()


def as_images(pictures: Sequence[Image.Image]) -> Tensor:
    """Pictures of one size as ComfyUI's IMAGE: float32 [B, H, W, 3] in 0..1."""
    return torch.stack([torch.from_numpy(np.asarray(picture.convert("RGB"), dtype=np.float32) / 255.0) for picture in pictures])


def as_picture(image: Tensor) -> Image.Image:
    """One image [H, W, C] in 0..1 of an IMAGE; one channel is grey, a fourth is left out."""
    array = (image.detach().cpu().float().clamp(0, 1) * 255).round().to(torch.uint8).numpy()
    return Image.fromarray(array[..., 0] if array.shape[-1] == 1 else array[..., :3]).convert("RGB")


def stacked(*pictures: Image.Image | None) -> Image.Image:
    """The pictures one below the other; those that are None are left out.

    Raises
    ------
    ValueError
        If there is none.
    """
    shown = [picture for picture in pictures if picture is not None]
    if not shown:
        raise ValueError("There is no picture to stack; give at least one.")
    whole = Image.new("RGB", (max(picture.width for picture in shown), sum(picture.height for picture in shown)), PAPER)
    top = 0
    for picture in shown:
        whole.paste(picture, (0, top))
        top += picture.height
    return whole


# -- charts ---------------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Curve:
    """Heights over 0, 1, 2, ...; an infinite one is drawn as an arrow at the edge."""

    label: str
    heights: Sequence[float]


@dataclass(frozen=True)
class Axis:
    """The vertical axis: its name, and whether heights are decimal logarithms of what the ticks say."""

    name: str
    logarithmic: bool = False

    def ticks(self, low: float, high: float) -> list[tuple[float, str]]:
        """Heights and texts of the ticks between two heights."""
        if not self.logarithmic:
            return [(value, f"{value:g}") for value in even_ticks(low, high)]
        found: list[tuple[float, str]] = []
        if high - low < 0.7:  # within a decade, round numbers are evenly spaced ones
            return [(math.log10(value), f"{value:g}") for value in even_ticks(10.0**low, 10.0**high)]
        for multiples in ((1,), (1, 3), (1, 2, 5), (1, 2, 3, 4, 5, 6, 7, 8, 9)):
            decades = range(math.floor(low) - 1, math.ceil(high) + 1)
            places = [(math.log10(m) + d, f"{m * 10.0**d:g}") for d in decades for m in multiples]
            found = [place for place in places if low <= place[0] <= high]
            if len(found) >= 4:
                break
        every = max(1, math.ceil(len(found) / 9))
        return found[::every]


def even_ticks(low: float, high: float, most: int = 8) -> list[float]:
    """Round numbers 1, 2 or 5 times a power of ten apart, at most `most` of them from `low` to `high`."""
    if not high > low:
        return [low]
    rough = (high - low) / most
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(m * power for m in (1, 2, 5, 10) if m * power >= rough * (1 - 1e-9))
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [round(i * step, 12) for i in range(first, last + 1)]


def line_chart(curves: Sequence[Curve], axis: Axis, width: int, height: int, title: str = "", x_name: str = "step") -> Image.Image:
    """A chart with grid, ticks and legend.

    Raises
    ------
    ValueError
        If no curve has a finite height.
    """
    finite = [h for curve in curves for h in curve.heights if math.isfinite(h)]
    if not finite:
        raise ValueError("There is no level to draw: the lists are empty, or nothing in them is finite on this axis.")
    return _Chart(curves, axis, width, height, title, x_name, finite).draw()


class _Chart:
    def __init__(self, curves, axis, width, height, title, x_name, finite) -> None:
        self.curves, self.axis, self.title, self.x_name = curves, axis, title, x_name
        self.size = (width * _SCALE, height * _SCALE)
        self.unit = _SCALE * max(0.75, min(width / 768, height / 480, 2.0))  # one "pixel" of a chart of ordinary size
        self.small, self.large = font(round(13 * self.unit)), font(round(15 * self.unit))
        low, high = min(finite), max(finite)
        margin = 0.06 * (high - low) or max(abs(high), 1.0) * 0.1
        everything = [h for curve in curves for h in curve.heights]
        self.low = low - margin * (3 if -math.inf in everything else 1)  # room for the arrows
        self.high = high + margin * (3 if math.inf in everything else 1)
        if not axis.logarithmic and low == 0:
            self.low = 0.0
        self.steps = max(1, *(len(curve.heights) - 1 for curve in curves))

    def draw(self) -> Image.Image:
        self.image = Image.new("RGB", self.size, PAPER)
        self.pen = ImageDraw.Draw(self.image)
        ticks = self.axis.ticks(self.low, self.high)
        u = self.unit
        widest = max((self.pen.textlength(text, font=self.small) for _, text in ticks), default=0)
        self.left, self.right = widest + 44 * u, self.size[0] - 18 * u
        self.top, self.bottom = (46 if self.title else 18) * u, self.size[1] - 52 * u
        self._axes(ticks)
        for number, curve in enumerate(self.curves):
            self._curve(curve, number)
        self._legend()
        return self.image.reduce(_SCALE)

    def _x(self, step: float) -> float:
        inset = 10 * self.unit
        return self.left + inset + (self.right - self.left - 2 * inset) * step / self.steps

    def _y(self, h: float) -> float:
        return self.bottom - (self.bottom - self.top) * (h - self.low) / (self.high - self.low)

    def _axes(self, ticks: Sequence[tuple[float, str]]) -> None:
        u, pen = self.unit, self.pen
        for h, text in ticks:
            y = self._y(h)
            pen.line([(self.left, y), (self.right, y)], fill=GRID, width=round(u))
            pen.text((self.left - 7 * u, y), text, fill=FAINT, font=self.small, anchor="rm")
        for step in even_ticks(0, self.steps, 12):
            if step != int(step):
                continue
            x = self._x(step)
            pen.line([(x, self.top), (x, self.bottom)], fill=GRID, width=round(u))
            pen.text((x, self.bottom + 7 * u), f"{int(step)}", fill=FAINT, font=self.small, anchor="mt")
        pen.rectangle([self.left, self.top, self.right, self.bottom], outline=FAINT, width=round(u))
        pen.text(((self.left + self.right) / 2, self.size[1] - 10 * u), self.x_name, fill=INK, font=self.small, anchor="mb")
        if self.title:
            pen.text(((self.left + self.right) / 2, 14 * u), self.title, fill=INK, font=self.large, anchor="mt")
        self._upright(self.axis.name)

    def _upright(self, text: str) -> None:
        box = self.pen.textbbox((0, 0), text, font=self.small)
        label = Image.new("RGB", (round(box[2] + 2), round(box[3] + 2)), PAPER)
        ImageDraw.Draw(label).text((0, 0), text, fill=INK, font=self.small)
        label = label.rotate(90, expand=True)
        self.image.paste(label, (round(9 * self.unit), round((self.top + self.bottom - label.height) / 2)))

    def _curve(self, curve: Curve, number: int) -> None:
        u, colour = self.unit, COLOURS[number % len(COLOURS)]
        points = [(self._x(i), self._y(h)) for i, h in enumerate(curve.heights) if math.isfinite(h)]
        if len(points) > 1:
            self.pen.line(points, fill=colour, width=round(2 * u), joint="curve")
        if len(points) <= 64:  # more marks would run together
            for x, y in points:
                self._mark(x, y, number, colour)
        for i, h in enumerate(curve.heights):
            if math.isinf(h):
                self._arrow(i, h > 0, curve.heights, number, colour)

    def _mark(self, x: float, y: float, number: int, colour: str) -> None:
        r = 4 * self.unit
        shape = number % 4
        if shape == 0:
            self.pen.ellipse([x - r, y - r, x + r, y + r], fill=colour)
        elif shape == 1:
            self.pen.rectangle([x - 0.9 * r, y - 0.9 * r, x + 0.9 * r, y + 0.9 * r], fill=colour)
        else:
            turned = 1 if shape == 2 else 0
            corners = 3 if turned else 4
            angles = [2 * math.pi * k / corners - math.pi / 2 for k in range(corners)]
            self.pen.polygon([(x + 1.3 * r * math.cos(a), y + 1.3 * r * math.sin(a)) for a in angles], fill=colour)

    def _arrow(self, i: int, upwards: bool, heights: Sequence[float], number: int, colour: str) -> None:
        """A dotted line from the neighbouring level to the edge, ending in an arrow head."""
        u, x = self.unit, self._x(i)
        tip, base = (self.top + 2 * u, self.top + 11 * u) if upwards else (self.bottom - 2 * u, self.bottom - 11 * u)
        here = [n for n, curve in enumerate(self.curves) if i < len(curve.heights) and curve.heights[i] == heights[i]]
        x += 8 * u * (here.index(number) - (len(here) - 1) / 2)  # several lists may end at the same step
        neighbour = i - 1 if i and math.isfinite(heights[i - 1]) else i + 1
        if 0 <= neighbour < len(heights) and math.isfinite(heights[neighbour]):
            x0, y0 = self._x(neighbour), self._y(heights[neighbour])
            dots = max(2, int(math.hypot(x - x0, base - y0) / (7 * u)))
            for k in range(1, dots):
                cx, cy = x0 + (x - x0) * k / dots, y0 + (base - y0) * k / dots
                self.pen.ellipse([cx - u, cy - u, cx + u, cy + u], fill=colour)
        self.pen.polygon([(x, tip), (x - 5 * u, base), (x + 5 * u, base)], fill=colour)

    def _legend(self) -> None:
        u = self.unit
        labels = [shortened(curve.label, self.small, self.pen, (self.right - self.left) * 0.6) for curve in self.curves]
        line, widest = 20 * u, max(self.pen.textlength(text, font=self.small) for text in labels)
        width, height = widest + 44 * u, line * len(labels) + 10 * u
        x, y = self._legend_corner(width, height)
        self.pen.rounded_rectangle([x, y, x + width, y + height], radius=4 * u, fill=PAPER, outline=GRID, width=round(u))
        for number, text in enumerate(labels):
            colour, middle = COLOURS[number % len(COLOURS)], y + 5 * u + line * (number + 0.5)
            self.pen.line([(x + 8 * u, middle), (x + 30 * u, middle)], fill=colour, width=round(2 * u))
            self._mark(x + 19 * u, middle, number, colour)
            self.pen.text((x + 37 * u, middle), text, fill=INK, font=self.small, anchor="lm")

    def _legend_corner(self, width: float, height: float) -> tuple[float, float]:
        """The corner whose box covers the least of the curves."""
        gap = 10 * self.unit
        xs, ys = (self.right - width - gap, self.left + gap), (self.top + gap, self.bottom - height - gap)
        samples = [
            (self._x(i + part), self._y(a + part * (b - a)))
            for curve in self.curves
            for i, (a, b) in enumerate(zip(curve.heights, curve.heights[1:], strict=False))
            if math.isfinite(a) and math.isfinite(b)
            for part in (0.0, 0.25, 0.5, 0.75, 1.0)
        ]
        samples += [  # the arrows
            (self._x(i), self.top if h > 0 else self.bottom) for curve in self.curves for i, h in enumerate(curve.heights) if math.isinf(h)
        ]

        def covered(corner: tuple[float, float]) -> int:
            x, y = corner
            return sum(x - gap <= px <= x + width + gap and y - gap <= py <= y + height + gap for px, py in samples)

        return min(((x, y) for y in ys for x in xs), key=covered)


def shortened(text: str, face: ImageFont.ImageFont, pen: ImageDraw.ImageDraw, width: float) -> str:
    """`text`, cut with dots where it is wider than `width`."""
    if pen.textlength(text, font=face) <= width:
        return text
    while len(text) > 1 and pen.textlength(text + "...", font=face) > width:
        text = text[:-1]
    return text + "..."


def legend(pen: ImageDraw.ImageDraw, x: float, y: float, entries: Iterable[tuple[str, str]], scale: int) -> None:
    """Coloured squares with texts, (colour, text), side by side from x on, their middles at y."""
    face = font(13 * scale)
    for colour, text in entries:
        pen.rectangle([x, y - 6 * scale, x + 12 * scale, y + 6 * scale], fill=colour)
        pen.text((x + 18 * scale, y), text, fill=INK, font=face, anchor="lm")
        x += pen.textlength(text, font=face) + 44 * scale


# -- tables of pictures ---------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Row:
    """Pictures with a caption and a fainter second line at their left."""

    caption: str
    note: str
    pictures: Sequence[Image.Image]


def picture_table(rows: Sequence[Row], tile: int, title: str = "") -> Image.Image:
    """Rows of pictures, each fitted into a tile; small pictures are enlarged in whole pixels."""
    caption_face, note_face, title_face = font(17), font(13), font(18)
    gap, margin = 4, 14
    measure = ImageDraw.Draw(Image.new("RGB", (1, 1)))
    lines = [line for row in rows for line in ((row.caption, caption_face), *((note, note_face) for note in row.note.split("\n")))]
    caption_width = math.ceil(max(measure.textlength(text, font=face) for text, face in lines)) + 2 * margin
    fitted = [[_fit(picture, tile) for picture in row.pictures] for row in rows]
    columns = max(len(row) for row in fitted)
    cell_width = max(picture.width for row in fitted for picture in row)
    cell_height = max(max(picture.height for row in fitted for picture in row), 26 + 18 * max(row.note.count("\n") + 1 for row in rows))
    head = 2 * margin + 18 if title else margin
    width = caption_width + columns * (cell_width + gap) + margin
    if title:
        width = max(width, math.ceil(measure.textlength(title, font=title_face)) + 2 * margin)
    image = Image.new("RGB", (width, head + len(rows) * (cell_height + gap) + margin), PAPER)
    pen = ImageDraw.Draw(image)
    if title:
        pen.text((margin, margin), title, fill=INK, font=title_face, anchor="lt")
    for r, (row, pictures) in enumerate(zip(rows, fitted, strict=True)):
        top = head + r * (cell_height + gap)
        notes = row.note.split("\n")
        y = top + (cell_height - 22 - 18 * len(notes)) / 2
        pen.text((caption_width - margin, y + 11), row.caption, fill=INK, font=caption_face, anchor="rm")
        for i, note in enumerate(notes):
            pen.text((caption_width - margin, y + 22 + 18 * i + 9), note, fill=FAINT, font=note_face, anchor="rm")
        for c, picture in enumerate(pictures):
            left = caption_width + c * (cell_width + gap)
            image.paste(picture, (left + (cell_width - picture.width) // 2, top + (cell_height - picture.height) // 2))
    return image


def _fit(picture: Image.Image, tile: int) -> Image.Image:
    largest = max(picture.size)
    if largest * 2 <= tile:
        times = tile // largest
        return picture.resize((picture.width * times, picture.height * times), Image.Resampling.NEAREST)
    if largest <= tile:
        return picture
    size = (max(1, round(picture.width * tile / largest)), max(1, round(picture.height * tile / largest)))
    return picture.resize(size, Image.Resampling.LANCZOS)
