"""The hourglass picture of an autoencoder: geometry computed once, drawn as SVG or by matplotlib.

The glass stands upright: the input on top, the code at the waist, the output at the bottom. A bar's
width follows the logarithm of the number of values at that level. Shapes stand on the left,
operations on the right, so that no number of levels makes two texts meet.

Longer than 400 lines: the geometry and its two renderers share the shapes and change together.
"""

from __future__ import annotations

import io
import math
import os
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any
from xml.sax.saxutils import escape

from diabolo.errors import InvalidParameterError, MissingExtraError

if TYPE_CHECKING:
    from diabolo.parts.architectures import Level

# role of a colour -> (on light, on dark); both palettes keep text at a contrast of 4.5 or more
PALETTE: dict[str, tuple[str, str]] = {
    "card": ("#fbfbfa", "#181b20"),
    "edge": ("#dedcd6", "#343a43"),
    "ink": ("#22252b", "#eceae4"),
    "muted": ("#666b74", "#a0a6b0"),
    "line": ("#a9adb5", "#666c77"),
    "encoder": ("#2c6a9e", "#6fb1e4"),
    "decoder": ("#1d7d72", "#57bfb1"),
    "accent": ("#b4491a", "#f0955f"),
}
FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', 'DejaVu Sans', sans-serif"

MARGIN = 26.0
GLASS = 270.0  # widest bar
NARROWEST = 26.0
BAR = 13.0
PITCH = 48.0
GUTTER = 20.0
LINE_HEIGHT = 16.0

Point = tuple[float, float]


@dataclass(frozen=True)
class Polygon:
    """A closed, filled outline."""

    points: tuple[Point, ...]
    color: str
    opacity: float = 1.0
    outline: bool = False


@dataclass(frozen=True)
class Polyline:
    """An open line; ``arrow`` puts a head on its last point."""

    points: tuple[Point, ...]
    color: str = "line"
    width: float = 1.2
    dashed: bool = False
    arrow: bool = False


@dataclass(frozen=True)
class Text:
    """One line of text; ``anchor`` is start, middle or end, ``y`` the middle of the line."""

    x: float
    y: float
    content: str
    size: float = 12.0
    color: str = "ink"
    anchor: str = "start"
    bold: bool = False
    upright: bool = True


@dataclass(frozen=True)
class Picture:
    """Everything to draw, in drawing order, in pixels with y downwards."""

    width: float
    height: float
    items: tuple[Polygon | Polyline | Text, ...]


@dataclass(frozen=True)
class Diagram:
    """The hourglass of one autoencoder; shows itself in notebooks.

    Parameters
    ----------
    title : str
        Heading of the picture.
    levels : tuple of Level
        Input, hidden levels, code and output, in this order; at least input, code and output.
    corruption : str or None
        Noise on the input while training.
    latent : str
        What happens at the bottleneck.
    penalties : tuple of str
        What is added to the loss; may be empty.
    loss : str
        What a reconstruction costs.
    """

    title: str
    levels: tuple[Level, ...] = field(repr=False)
    corruption: str | None
    latent: str
    penalties: tuple[str, ...]
    loss: str

    def to_svg(self) -> str:
        """Return the picture as a standalone SVG text that follows the viewer's light or dark scheme."""
        return _svg(self.picture(), self.title)

    def _repr_svg_(self) -> str:
        return self.to_svg()

    def picture(self) -> Picture:
        """Return the geometry: outlines, lines and texts in pixels."""
        return _Composer(self).compose()

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write the picture to ``path``, whose suffix is .svg or .png, and return the path.

        The file appears whole or not at all.

        Raises
        ------
        InvalidParameterError
            For any other suffix.
        MissingExtraError
            For .png where matplotlib is not installed.
        """
        target = Path(path)
        suffix = target.suffix.lower()
        if suffix == ".svg":
            content = self.to_svg().encode()
        elif suffix == ".png":
            content = _png(self.picture())
        else:
            raise InvalidParameterError(
                f"the file name of a diagram must be one that ends in .svg or .png; got {str(path)!r}. "
                "Name the file, for instance, model.svg."
            )
        handle, name = tempfile.mkstemp(dir=target.parent, prefix=f".{target.stem[:40]}-", suffix=suffix)
        aside = Path(name)
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(content)
            aside.chmod(0o644)
            aside.replace(target)
        except BaseException:
            aside.unlink(missing_ok=True)
            raise
        return target


def text_width(content: str, size: float, bold: bool = False) -> float:
    """Return an upper estimate of a text's width in pixels, for the fonts in ``FONT``."""
    narrow = sum(character in " .,:;'|!()[]ijl" for character in content)
    return size * ((0.66 if bold else 0.61) * (len(content) - narrow) + 0.42 * narrow)


def bar_widths(sizes: list[int]) -> list[float]:
    """Return the width of each level's bar in pixels: affine in log(size).

    Ratios below 8 are not stretched to the full range: 64 to 60 looks like 64 to 60.
    """
    largest = max(sizes)
    smallest = min(min(sizes), largest / 8)
    span = math.log(largest) - math.log(smallest)
    return [NARROWEST + (GLASS - NARROWEST) * (math.log(s) - math.log(smallest)) / span for s in sizes]


def _short(ratio: float) -> str:
    return f"{ratio:,.0f}" if ratio >= 100 else f"{ratio:.3g}"


def shape_text(shape: tuple[int, ...]) -> str:
    """Return a shape as it is read aloud: 3 × 28 × 28."""
    return " × ".join(f"{extent:,}" if len(shape) == 1 else str(extent) for extent in shape)


class _Composer:
    """Places everything; one use."""

    def __init__(self, diagram: Diagram) -> None:
        self.diagram = diagram
        self.items: list[Polygon | Polyline | Text] = []
        self.levels = diagram.levels
        roles = [level.role for level in self.levels]
        self.code = roles.index("code") if "code" in roles else len(roles) // 2
        self.widths = bar_widths([max(level.size, 1) for level in self.levels])
        self.operations = [" · ".join(filter(None, (lv.operation, lv.activation))) for lv in self.levels]
        self.waist_notes = [f"+ {penalty}" for penalty in diagram.penalties]

    def compose(self) -> Picture:
        diagram, levels = self.diagram, self.levels
        rows = self._rows()
        left_width = max(
            max(text_width(shape_text(level.shape), 13, True), text_width(self._count(level), 11))
            for level in levels
        )
        right_texts = [(text, 12.0, False) for text in self.operations]
        right_texts += [(text, 12.0, False) for text in self.waist_notes]
        right_texts += [(f"latent: {diagram.latent}", 12.0, True), (f"loss: {diagram.loss}", 12.0, True)]
        if diagram.corruption:
            right_texts += [(f"corruption: {diagram.corruption}", 12.0, True)]
            left_width = max(left_width, text_width("clean input", 12))
        right_width = max(text_width(*text) for text in right_texts)
        x_text = MARGIN + 26 + left_width  # right edge of the shapes
        center = x_text + GUTTER + GLASS / 2
        x_right = center + GLASS / 2 + GUTTER
        x_loop = x_right + right_width + 14
        titles = [(diagram.title, 17.0, True), (self._summary(), 12.0, False)]
        width = max(x_loop + MARGIN, 2 * MARGIN + max(text_width(*title) for title in titles))

        self._text(MARGIN, 34, diagram.title, size=17, bold=True)
        self._text(MARGIN, 56, self._summary(), color="muted")
        for i in range(1, len(levels)):
            self._flow(center, rows, i)
            self._text(x_right, (rows[i - 1] + rows[i]) / 2, self.operations[i], color="muted")
        for i, level in enumerate(levels):
            self._bar(center, rows[i], self.widths[i], self._color(i))
            self._label(x_text, rows[i], level)
            self._leader(x_text + 7, center - self.widths[i] / 2 - 5, rows[i])
        self._waist(x_right, center, rows[self.code])
        self._halves(rows)
        top = self._corruption(center, x_text, x_right, rows[0]) if diagram.corruption else rows[0]
        self._loop(center, x_right, x_loop, top, rows[-1])
        height = rows[-1] + 24 + MARGIN
        card = Polygon(_rectangle(0.5, 0.5, width - 0.5, height - 0.5), "card")
        return Picture(width, height, (card, *self.items))

    def _rows(self) -> list[float]:
        y = 96.0 + (PITCH + 6 if self.diagram.corruption else 0.0)
        rows = [y]
        room = max(0.0, LINE_HEIGHT * len(self.waist_notes) - 6)
        for i in range(1, len(self.levels)):
            y += PITCH + (room if self.code in (i - 1, i) else 0.0)
            rows.append(y)
        return rows

    def _summary(self) -> str:
        size, code = self.levels[0].size, self.levels[self.code].size
        ratio = size / max(code, 1)
        told = f"{_short(ratio)} to 1" if ratio >= 1 else f"1 to {_short(1 / ratio)}, over-complete"
        return f"{size:,} values in, {code:,} in the code ({told})"

    def _count(self, level: Level) -> str:
        return f"{level.size:,} values" if len(level.shape) > 1 else ""

    def _color(self, i: int) -> str:
        return "accent" if i == self.code else "encoder" if i < self.code else "decoder"

    def _text(self, x: float, y: float, content: str, **look: Any) -> None:
        if content:
            self.items.append(Text(x, y, content, **look))

    def _label(self, x: float, y: float, level: Level) -> None:
        count = self._count(level)
        self._text(x, y - 7 if count else y, shape_text(level.shape), size=13, anchor="end", bold=True)
        self._text(x, y + 8, count, size=11, anchor="end", color="muted")

    def _leader(self, start: float, end: float, y: float) -> None:
        if end - start > 12:
            self.items.append(Polyline(((start, y), (end, y)), width=0.8, dashed=True))

    def _flow(self, center: float, rows: list[float], i: int) -> None:
        """The body of the glass above level i: sides that leave and arrive vertically."""
        top, bottom = rows[i - 1] + BAR / 2, rows[i] - BAR / 2
        wide, next_wide = self.widths[i - 1], self.widths[i]
        steps = 14
        side = []
        for k in range(steps + 1):
            t = k / steps
            half = (wide + (next_wide - wide) * t * t * (3 - 2 * t)) / 2
            side.append((half - 1.5, top + (bottom - top) * t))
        outline = [(center + half, y) for half, y in side]
        outline += [(center - half, y) for half, y in reversed(side)]
        self.items.append(Polygon(tuple(outline), "encoder" if i <= self.code else "decoder", opacity=0.16))

    def _bar(self, center: float, y: float, width: float, color: str) -> None:
        box = _rectangle(center - width / 2, y - BAR / 2, center + width / 2, y + BAR / 2, BAR / 2)
        self.items.append(Polygon(box, color))

    def _waist(self, x: float, center: float, y: float) -> None:
        lines = [f"latent: {self.diagram.latent}", *self.waist_notes]
        start = y - LINE_HEIGHT * (len(lines) - 1) / 2
        for k, line in enumerate(lines):
            self._text(x, start + k * LINE_HEIGHT, line, color="accent", bold=k == 0)
        self._leader(center + self.widths[self.code] / 2 + 5, x - 7, y)

    def _halves(self, rows: list[float]) -> None:
        x = MARGIN + 6
        for name, first, last in (("encoder", 0, self.code), ("decoder", self.code, len(rows) - 1)):
            top, bottom = rows[first] - BAR / 2, rows[last] + BAR / 2
            top += BAR + 6 if first else 0
            bottom -= BAR + 6 if not first else 0
            self.items.append(Polyline(((x + 9, top), (x + 9, bottom)), color=name, width=1.6))
            if bottom - top > text_width(name, 11) + 4:
                self._text(x, (top + bottom) / 2, name, size=11, color=name, anchor="middle", upright=False)

    def _corruption(self, center: float, x_text: float, x_right: float, y: float) -> float:
        """Draw the clean input above the input and return its row."""
        top = y - PITCH - 6
        width = self.widths[0]
        box = _rectangle(center - width / 2, top - BAR / 2, center + width / 2, top + BAR / 2, BAR / 2)
        self.items.append(Polygon(box, "encoder", outline=True))
        self._text(x_text, top, "clean input", anchor="end", color="muted")
        for k in (-1, 0, 1):
            x = center + k * width / 4
            ends = ((x, top + BAR / 2 + 4), (x, y - BAR / 2 - 3))
            self.items.append(Polyline(ends, color="accent", dashed=True, arrow=True))
        middle = (top + y) / 2
        self._text(x_right, middle - 7, f"corruption: {self.diagram.corruption}", color="accent", bold=True)
        self._text(x_right, middle + 9, "while training only", size=11, color="muted")
        return top

    def _loop(self, center: float, x_right: float, x_loop: float, top: float, bottom: float) -> None:
        start = center + self.widths[-1] / 2 + 5
        end = center + self.widths[0] / 2 + 5
        points = ((start, bottom), (x_loop, bottom), (x_loop, top), (end, top))
        self.items.append(Polyline(points, arrow=True))
        self._text(x_right, bottom + 15, f"loss: {self.diagram.loss}", bold=True)


def _rectangle(x0: float, y0: float, x1: float, y1: float, radius: float = 0.0) -> tuple[Point, ...]:
    if not radius:
        return ((x0, y0), (x1, y0), (x1, y1), (x0, y1))
    points = []
    corners: list[tuple[float, float, int]] = [(x1 - radius, y0 + radius, -90), (x1 - radius, y1 - radius, 0)]
    corners += [(x0 + radius, y1 - radius, 90), (x0 + radius, y0 + radius, 180)]
    for x, y, first in corners:
        for k in range(7):
            angle = math.radians(first + 15 * k)
            points.append((x + radius * math.cos(angle), y + radius * math.sin(angle)))
    return tuple(points)


def _head(points: tuple[Point, ...]) -> tuple[Point, ...]:
    """Return the triangle of an arrow head on the last point."""
    (x0, y0), (x1, y1) = points[-2:]
    length = math.hypot(x1 - x0, y1 - y0) or 1.0
    dx, dy = (x1 - x0) / length, (y1 - y0) / length
    x, y = x1 - 7 * dx, y1 - 7 * dy
    return ((x1, y1), (x - 3.4 * dy, y + 3.4 * dx), (x + 3.4 * dy, y - 3.4 * dx))


def _svg(picture: Picture, title: str) -> str:
    width, height = math.ceil(picture.width), math.ceil(picture.height)
    dark = "".join(f".dg-{r}{{fill:{d}}}.dg-{r}-s{{stroke:{d}}}" for r, (_, d) in PALETTE.items())
    opening = f'xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img"'
    lines = [
        f'<svg {opening} width="{width}" height="{height}" font-family="{escape(FONT)}">',
        f"<title>{escape(title)}</title>",
        f"<style>@media (prefers-color-scheme: dark){{{dark}}}</style>",
    ]
    lines += [_svg_item(item) for item in picture.items]
    return "\n".join([*lines, "</svg>", ""])


def _svg_item(item: Polygon | Polyline | Text) -> str:
    fill = f'class="dg-{item.color}" fill="{PALETTE[item.color][0]}"'
    stroke = f'fill="none" class="dg-{item.color}-s" stroke="{PALETTE[item.color][0]}"'
    if isinstance(item, Text):
        place = f'x="{item.x:.1f}" y="{item.y:.1f}" dy="0.35em" text-anchor="{item.anchor}"'
        turn = "" if item.upright else f' transform="rotate(-90 {item.x:.1f} {item.y:.1f})"'
        look = f'font-size="{item.size:g}"' + (' font-weight="600"' if item.bold else "")
        return f"<text {place} {look}{turn} {fill}>{escape(item.content)}</text>"
    points = " ".join(f"{x:.1f},{y:.1f}" for x, y in item.points)
    if isinstance(item, Polygon):
        if item.outline:
            return f'<polygon points="{points}" {stroke} stroke-width="1.4"/>'
        opacity = f' fill-opacity="{item.opacity:g}"' if item.opacity < 1 else ""
        return f'<polygon points="{points}" {fill}{opacity}/>'
    dash = ' stroke-dasharray="2 3"' if item.dashed else ""
    line = f'<polyline points="{points}" {stroke} stroke-width="{item.width:g}"{dash}/>'
    if not item.arrow:
        return line
    head = " ".join(f"{x:.1f},{y:.1f}" for x, y in _head(item.points))
    return f'{line}<polygon points="{head}" {fill}/>'


def _png(picture: Picture) -> bytes:
    """Draw the same geometry with matplotlib, without pyplot and its global state."""
    try:
        import matplotlib
        from matplotlib.figure import Figure
        from matplotlib.patches import Polygon as Patch
    except ImportError as error:
        raise MissingExtraError("a picture in PNG", "matplotlib", "report") from error

    with matplotlib.rc_context({"font.family": "sans-serif", "text.usetex": False}):
        figure = Figure(figsize=(picture.width / 100, picture.height / 100), dpi=100)
        axes = figure.add_axes((0.0, 0.0, 1.0, 1.0))
        axes.set_xlim(0, picture.width)
        axes.set_ylim(picture.height, 0)
        axes.axis("off")
        for item in picture.items:
            color = PALETTE[item.color][0]
            if isinstance(item, Text):
                anchor = {"start": "left", "middle": "center", "end": "right"}[item.anchor]
                look: dict[str, Any] = {
                    "fontweight": "bold" if item.bold else "normal",
                    "rotation": 0 if item.upright else 90,
                }
                look |= {"fontsize": item.size * 0.72, "color": color, "parse_math": False}
                axes.text(item.x, item.y, item.content, ha=anchor, va="center", **look)
            elif isinstance(item, Polygon):
                look = {"fill": False, "edgecolor": color} if item.outline else {"facecolor": color, "lw": 0}
                axes.add_patch(Patch(item.points, alpha=item.opacity, **look))
            else:
                style = (0, (2, 3)) if item.dashed else "-"
                xs, ys = zip(*item.points, strict=True)
                axes.plot(xs, ys, color=color, linewidth=item.width * 0.72, linestyle=style)
                if item.arrow:
                    axes.add_patch(Patch(_head(item.points), facecolor=color, lw=0))
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png", dpi=200)
    return buffer.getvalue()
