"""A roofline plot as SVG: operations a second over operations a byte, both logarithmic, a dot for each kernel."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from html import escape

from onnxsmith.kernel_times import KernelTime
from onnxsmith.roofline import Roofline, Stream

_WIDTH, _HEIGHT = 960, 480
_LEFT, _RIGHT, _TOP, _BOTTOM = 64, 940, 20, 436
_LARGEST_RADIUS, _SMALLEST_RADIUS = 22.0, 3.0


@dataclass(frozen=True)
class _Scale:
    """Maps values from `low` to `high` logarithmically to positions from `start` to `end`."""

    low: float
    high: float
    start: float
    end: float

    def __call__(self, value: float) -> float:
        part = math.log(value / self.low) / math.log(self.high / self.low)
        return self.start + part * (self.end - self.start)

    def ticks(self) -> Iterator[tuple[float, bool]]:
        """Values at 1, 2 and 5 of each power of ten, and whether it is the power itself."""
        for power in range(math.floor(math.log10(self.low)), math.ceil(math.log10(self.high)) + 1):
            for factor in (1, 2, 5):
                value = factor * 10.0**power
                if self.low <= value <= self.high:
                    yield value, factor == 1


def roofline_plot(steps: Sequence[KernelTime], roofline: Roofline, colors: Mapping[str, str]) -> str:
    """The plot of those of `steps` that compute; `colors` has the CSS colour of each label."""
    dots = [step for step in steps if step.flops and step.traffic and step.seconds]
    x, y = _scales(dots, roofline)
    parts = [
        f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="Roofline plot" '
        'xmlns="http://www.w3.org/2000/svg">',
        '<clipPath id="area">'
        f'<rect x="{_LEFT}" y="{_TOP}" width="{_RIGHT - _LEFT}" height="{_BOTTOM - _TOP}"/></clipPath>',
        *_grid(x, y),
        *_roofs(x, y, roofline),
        *_dots(dots, x, y, colors),
        "</svg>",
    ]
    return "\n".join(parts)


def _scales(dots: Sequence[KernelTime], roofline: Roofline) -> tuple[_Scale, _Scale]:
    intensities = [roofline.ridge / 8, roofline.ridge * 8, *(dot.intensity for dot in dots)]
    low, high = min(intensities) / 1.6, max(intensities) * 1.6
    rates = [roofline.peak, *(dot.flop_rate for dot in dots)]
    slowest = min(rates[1:], default=roofline.peak / 100)
    bottom, top = min(slowest, roofline.peak / 30) / 1.8, max(rates) * 2
    return _Scale(low, high, _LEFT, _RIGHT), _Scale(bottom, top, _BOTTOM, _TOP)


def _grid(x: _Scale, y: _Scale) -> Iterator[str]:
    for value, major in x.ticks():
        at = f"{x(value):.1f}"
        yield f'<line class="grid{" major" * major}" x1="{at}" x2="{at}" y1="{_TOP}" y2="{_BOTTOM}"/>'
        yield f'<text class="tick" x="{at}" y="{_BOTTOM + 16}" text-anchor="middle">{value:g}</text>'
    for value, major in y.ticks():
        at = f"{y(value):.1f}"
        yield f'<line class="grid{" major" * major}" x1="{_LEFT}" x2="{_RIGHT}" y1="{at}" y2="{at}"/>'
        yield f'<text class="tick" x="{_LEFT - 8}" y="{at}" dy="4" text-anchor="end">{value / 1e9:g}</text>'
    middle = (_LEFT + _RIGHT) / 2
    yield f'<text class="axis" x="{middle}" y="{_HEIGHT - 6}" text-anchor="middle">operations a byte</text>'
    yield f'<text class="axis" transform="translate(14 {(_TOP + _BOTTOM) / 2}) rotate(-90)" text-anchor="middle">'
    yield "GFLOP/s</text>"


def _roofs(x: _Scale, y: _Scale, roofline: Roofline) -> Iterator[str]:
    for stream in roofline.streams:
        chosen = stream is roofline.stream
        line = _roof(x, y, roofline, stream)
        yield f'<path class="roof{"" if chosen else " other"}" clip-path="url(#area)" d="{line}"/>'
        yield _slope_label(x, y, stream, above=chosen)
    peak = y(roofline.peak)
    yield f'<text class="name" x="{_RIGHT - 6}" y="{peak - 8:.1f}" text-anchor="end">'
    yield f"{roofline.peak / 1e9:.1f} GFLOP/s, float32</text>"


def _roof(x: _Scale, y: _Scale, roofline: Roofline, stream: Stream) -> str:
    ridge = min(max(roofline.peak / stream.rate, x.low), x.high)
    corners = [(x.low, x.low * stream.rate), (ridge, ridge * stream.rate), (x.high, roofline.peak)]
    return "M" + " L".join(f"{x(a):.1f} {y(b):.1f}" for a, b in corners)


def _slope_label(x: _Scale, y: _Scale, stream: Stream, *, above: bool) -> str:
    """The stream's name along its slope, where that enters the plot."""
    start = max(x.low, y.low / stream.rate)
    left = x(start) + 12
    at = x.low * (x.high / x.low) ** ((left - _LEFT) / (_RIGHT - _LEFT))
    angle = math.degrees(math.atan2(y(2 * at * stream.rate) - y(at * stream.rate), x(2 * at) - x(at)))
    name = f"{stream.rate / 1e9:.1f} GB/s, {stream.size >> 20} MiB read"
    place = f"translate({left:.1f} {y(at * stream.rate):.1f}) rotate({angle:.1f})"
    return f'<text class="name" transform="{place}" dy="{-7 if above else 16}">{escape(name)}</text>'


def _dots(dots: Sequence[KernelTime], x: _Scale, y: _Scale, colors: Mapping[str, str]) -> Iterator[str]:
    """The slow kernels first, so that the small dots of quick ones stay in sight."""
    longest = max((dot.seconds for dot in dots), default=1.0)
    for dot in sorted(dots, key=lambda dot: -dot.seconds):
        radius = max(_SMALLEST_RADIUS, _LARGEST_RADIUS * math.sqrt(dot.seconds / longest))
        yield (
            f'<circle cx="{x(dot.intensity):.1f}" cy="{y(dot.flop_rate):.1f}" r="{radius:.1f}" '
            f'style="fill:{colors[dot.label]};stroke:{colors[dot.label]}"><title>{escape(_tooltip(dot))}</title></circle>'
        )


def _tooltip(dot: KernelTime) -> str:
    return (
        f"step {dot.step}: {dot.label}\n{', '.join(dot.nodes)}\n{dot.seconds * 1e6:.1f} us, "
        f"{dot.flop_rate / 1e9:.1f} GFLOP/s, {dot.byte_rate / 1e9:.1f} GB/s, {dot.intensity:.2f} operations a byte, "
        f"{dot.roofline_share:.0%} of the roofline"
    )
