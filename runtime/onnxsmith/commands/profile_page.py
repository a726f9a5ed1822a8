"""A model's profile as one HTML page, which needs no script and nothing from elsewhere."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from html import escape

from onnxsmith.commands.roofline_plot import roofline_plot
from onnxsmith.kernel_times import KernelTime, by_label, together
from onnxsmith.roofline import Roofline
from onnxsmith.version import __version__

_COLORS = ("#3b82f6", "#f59e0b", "#10b981", "#ef4444", "#8b5cf6", "#ec4899", "#06b6d4", "#84cc16")
_OTHER_COLOR = "#94a3b8"
_MOST_NODES = 4

_STYLE = """
:root { color-scheme: light dark; --page: #f6f7f9; --card: #ffffff; --ink: #1b2430; --soft: #5f6b7a; --line: #e3e7ec;
  --strong: #c4ccd6; --roof: #1b2430; --bar: #3b82f62e; }
@media (prefers-color-scheme: dark) { :root { --page: #0f141a; --card: #171e26; --ink: #e6ebf1; --soft: #93a1b0;
  --line: #232d38; --strong: #3a4755; --roof: #e6ebf1; --bar: #3b82f64d; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--page); color: var(--ink); font: 14px/1.5 system-ui, sans-serif; }
main { max-width: 1080px; margin: 0 auto; padding: 32px 20px 60px; }
h1 { font-size: 24px; margin: 0; overflow-wrap: anywhere; }
h2 { font-size: 16px; margin: 0 0 10px; }
p { margin: 4px 0; color: var(--soft); }
section { background: var(--card); border: 1px solid var(--line); border-radius: 10px; padding: 18px 20px;
  margin-top: 18px; overflow-x: auto; }
.figures { display: grid; grid-template-columns: repeat(auto-fit, minmax(150px, 1fr)); gap: 14px; margin-top: 18px; }
.figures div { background: var(--card); border: 1px solid var(--line); border-radius: 10px; padding: 12px 16px; }
.figures b { display: block; font-size: 22px; font-weight: 600; white-space: nowrap; }
.figures small { font-size: 13px; font-weight: 400; color: var(--soft); }
.figures span { color: var(--soft); font-size: 12.5px; }
.time { display: flex; height: 22px; border-radius: 5px; overflow: hidden; gap: 1px; }
.legend { display: flex; flex-wrap: wrap; gap: 4px 18px; margin-top: 10px; font-size: 13px; }
.legend i, td i { display: inline-block; width: 10px; height: 10px; border-radius: 50%; margin-right: 7px; }
svg { width: 100%; min-width: 640px; height: auto; display: block; }
svg text { fill: var(--soft); font-size: 12px; }
svg .tick { font-size: 11px; }
svg .name { fill: var(--ink); }
svg .grid { stroke: var(--line); }
svg .grid.major { stroke: var(--strong); }
svg .roof { fill: none; stroke: var(--roof); stroke-width: 2; stroke-linejoin: round; }
svg .roof.other { stroke-dasharray: 6 5; stroke-width: 1.3; opacity: .6; }
svg circle { fill-opacity: .45; stroke-width: 1.4; }
svg circle:hover { fill-opacity: .9; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th { font-weight: 600; color: var(--soft); font-size: 12.5px; border-bottom: 1px solid var(--strong); }
th, td { text-align: right; padding: 5px 10px; white-space: nowrap; }
td { border-bottom: 1px solid var(--line); }
th.text, td.text { text-align: left; }
td.nodes { white-space: normal; overflow-wrap: anywhere; color: var(--soft); font-size: 12.5px; min-width: 220px; }
td.share { background: linear-gradient(to left, var(--bar) var(--part), transparent var(--part)); }
"""


def profile_page(model: str, steps: Sequence[KernelTime], run_seconds: float, roofline: Roofline) -> str:
    """The page. `steps` are all steps of a run in order, `run_seconds` what a run takes that is not timed by step."""
    kinds = _sorted(by_label(steps))
    colors = {row.label: _COLORS[place] if place < len(_COLORS) else _OTHER_COLOR for place, row in enumerate(kinds)}
    total = sum(step.seconds for step in steps)
    parts = [
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<title>{escape(model)}: kernels</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n<main>",
        f"<h1>{escape(model)}</h1>",
        f"<p>{escape(_machine(roofline))}</p>",
        _figures(steps, run_seconds, roofline),
        f"<section><h2>Where the time goes</h2>{_time_bar(kinds, colors, total)}</section>",
        f"<section><h2>Roofline</h2>{roofline_plot(steps, roofline, colors)}",
        f"<p>{escape(_explanation(steps, roofline, total))}</p></section>",
        f"<section><h2>By kind of kernel</h2>{_table(kinds, colors, total)}</section>",
        f"<section><h2>By step</h2>{_table(_sorted(steps), colors, total)}</section>",
        f"<p>onnxsmith {escape(__version__)}</p>\n</main>\n</body>\n</html>\n",
    ]
    return "\n".join(parts)


def _sorted(rows: Sequence[KernelTime]) -> list[KernelTime]:
    return sorted(rows, key=lambda row: -row.seconds)


def _machine(roofline: Roofline) -> str:
    return f"{roofline.cpu}, vectors of {roofline.vector_bits} bits, {_threads(roofline)}"


def _threads(roofline: Roofline) -> str:
    return "1 thread" if roofline.threads == 1 else f"{roofline.threads} threads"


def _figures(steps: Sequence[KernelTime], run_seconds: float, roofline: Roofline) -> str:
    whole = together("", steps)
    figures = (
        (f"{run_seconds * 1e3:.3g}", "ms", f"a run; {whole.seconds * 1e3:.3g} step by step"),
        (f"{whole.flops / 1e9:.3g}", "GFLOP", f"in {len(steps)} kernels"),
        (f"{whole.flops / run_seconds / 1e9:.3g}", "GFLOP/s", "over the whole run"),
        (f"{100 * whole.least / run_seconds:.3g}", "%", "of the roofline"),
        (f"{roofline.peak / 1e9:.3g}", "GFLOP/s", "measured peak, float32"),
        (f"{roofline.stream.rate / 1e9:.3g}", "GB/s", f"measured, reading {roofline.stream.size >> 20} MiB"),
    )
    cells = "".join(
        f"<div><b>{figure} <small>{unit}</small></b><span>{what}</span></div>" for figure, unit, what in figures
    )
    return f'<div class="figures">{cells}</div>'


def _time_bar(kinds: Sequence[KernelTime], colors: Mapping[str, str], total: float) -> str:
    bar = "".join(
        f'<div style="flex:{row.seconds / total:.5f};background:{colors[row.label]}" '
        f'title="{escape(row.label)}: {row.seconds / total:.1%}"></div>'
        for row in kinds
        if total
    )
    legend = "".join(
        f"<span>{_mark(row, colors)}{escape(row.label)} {_part(row.seconds, total):.1%}</span>" for row in kinds
    )
    return f'<div class="time">{bar}</div><div class="legend">{legend}</div>'


def _explanation(steps: Sequence[KernelTime], roofline: Roofline, total: float) -> str:
    silent = [step for step in steps if not step.flops]
    text = (
        "A dot is a kernel, its area the time it takes. Operations are two for a multiply-add, convolutions counted as "
        "done directly; bytes count every tensor once. The solid roof is what this machine was measured to do on "
        f"{_threads(roofline)}; a kernel whose data an earlier one left in a nearer cache can rise above its slope."
    )
    if silent:
        share = _part(sum(step.seconds for step in silent), total)
        text += f" Kernels that only move data have no dot: {len(silent)} of {len(steps)}, {share:.1%} of the time."
    return text


def _table(rows: Sequence[KernelTime], colors: Mapping[str, str], total: float) -> str:
    first = "steps" if rows and rows[0].step is None else "step"
    heads = ("% of time", "µs", "GFLOP/s", "GB/s", "FLOP/byte", "% of roofline")
    head = "".join(f"<th>{name}</th>" for name in heads)
    body = "".join(_row(row, colors, total) for row in rows)
    return (
        f'<table><thead><tr><th class="text">kernel</th><th>{first}</th>{head}<th class="text">ONNX nodes</th></tr>'
        f"</thead><tbody>{body}</tbody></table>"
    )


def _row(row: KernelTime, colors: Mapping[str, str], total: float) -> str:
    cells = (
        f'<td class="text">{_mark(row, colors)}{escape(row.label)}</td>',
        f"<td>{row.count if row.step is None else row.step}</td>",
        _share_cell(_part(row.seconds, total)),
        f"<td>{row.seconds * 1e6:,.1f}</td>",
        *(f"<td>{value:,.1f}</td>" for value in (row.flop_rate / 1e9, row.byte_rate / 1e9, row.intensity)),
        _share_cell(row.roofline_share),
        f'<td class="text nodes">{escape(", ".join(_shown_nodes(row.nodes)))}</td>',
    )
    return f"<tr>{''.join(cells)}</tr>"


def _mark(row: KernelTime, colors: Mapping[str, str]) -> str:
    return f'<i style="background:{colors[row.label]}"></i>'


def _share_cell(share: float) -> str:
    return f'<td class="share" style="--part:{min(share, 1.0):.1%}">{100 * share:.1f}</td>'


def _shown_nodes(nodes: Sequence[str]) -> Iterator[str]:
    yield from nodes[:_MOST_NODES]
    if len(nodes) > _MOST_NODES:
        yield f"and {len(nodes) - _MOST_NODES} more"


def _part(amount: float, whole: float) -> float:
    return amount / whole if whole else 0.0
