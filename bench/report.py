"""Writes what was measured as RESULTS.md and a plot."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bench.catalog import MODELS, RELATIVES
from bench.peers import ENGINES, OURS, REFERENCE

NAMES = [engine.name for engine in ENGINES]
PEERS = [name for name in NAMES if name != OURS.name]
# An output further off than this, as a share of its scale, is not a rounding difference.
WRONG = 1e-2
COLORS = {OURS.name: "#c2410c", REFERENCE.name: "#64748b", "OpenVINO": "#0ea5e9"}

# {"machine": ..., "versions": {...}, "models": {model: {"threads": {"1": row}, "footprint": {...}}}}
Results = Mapping[str, Any]


def write(results: Results, folder: Path) -> None:
    """RESULTS.md and results.png in `folder`, over all models in `results`."""
    counts = results["machine"]["peak"]
    parts = [heading(results)]
    for threads in counts:
        parts.append(latency_table(results, threads))
        plot(results, threads, folder / f"results-{threads}.png")
    parts.append(footprint_table(results))
    parts.append(failures(results))
    (folder / "RESULTS.md").write_text("\n".join(part for part in parts if part))


def heading(results: Results) -> str:
    machine = results["machine"]
    versions = ", ".join(f"{name} {version}" for name, version in results["versions"].items())
    peaks = ", ".join(f"{peak:.0f} with {threads}" for threads, peak in machine["peak"].items())
    loads = [row["load"] for row in results["models"].values()]
    commits = sorted({row["commit"] for row in results["models"].values()})
    return f"""# Benchmark results

Written by `make bench`; nothing here is typed in by hand. Float32 throughout.

- Machine: {machine["cpu"]}, {machine["cores"]} cores, {machine["system"]}, Python {machine["python"]}.
- Measured peak, billions of multiply-adds a second by threads: {peaks}.
- Engines: {versions}. Commit: {", ".join(commits)}.
- Load average before each model: {min(loads):.1f} to {max(loads):.1f}; the benchmark itself makes about 1.
- Times are medians of runs in which the engines take turns in one process, each turn after 30 ms of rest
  and one run that is not timed. Error is the largest difference from onnxruntime over the output's scale,
  the worst output. Share of peak counts the model's multiply-adds done directly, so that a faster
  algorithm (Winograd) can exceed it.
"""


def latency_table(results: Results, threads: str) -> str:
    lines = [
        f"## Milliseconds a run, {threads} thread{'s' if threads != '1' else ''}\n",
        f"![times of the peers over onnxsmith's](results-{threads}.png)\n",
        *header("model", *NAMES, *(f"{peer} / {OURS.name}" for peer in PEERS), "share of peak", "error"),
    ]
    peak = results["machine"]["peak"][threads]
    for model, row in _in_order(results):
        engines = row["threads"].get(threads)
        if engines is None:
            continue
        ours = engines[OURS.name]
        cells = [_time(engines[name]) for name in NAMES]
        cells += [_ratio(engines[peer], ours) for peer in PEERS]
        cells += [_share(row["multiply_adds"], ours, peak), _error(ours)]
        lines.append(f"| {model} | {' | '.join(cells)} |")
    for peer in PEERS:
        ratios = speedups(results, threads, peer)
        if ratios:
            mean = math.exp(sum(map(math.log, ratios.values())) / len(ratios))
            faster = sum(ratio > 1 for ratio in ratios.values())
            count = f"faster on {faster} of {len(ratios)} models that run"
            lines.append(f"\nAgainst {peer}: geometric mean {mean:.2f}, {count}.")
    return "\n".join(lines) + "\n"


def footprint_table(results: Results) -> str:
    columns = [f"{OURS.name} cold", "after a relative", *NAMES]
    lines = [
        "## Start and memory, 1 thread, one process an engine\n",
        "Seconds until a session is ready, imports not counted: cold is a first compilation with an empty",
        "cache, after a relative one with a cache in which another model of the family is "
        f"({', '.join(f'{model} after {other}' for model, other in RELATIVES.items())}), the rest is",
        "in a new process that finds the cache filled (the peers keep none). Peak memory is of the whole",
        "process, import to fourth run.\n",
        *header("model", *(f"{name}, s" for name in columns), *(f"{name}, MiB" for name in NAMES)),
    ]
    for model, row in _in_order(results):
        prints = row["footprint"]
        cells = [_number(prints.get(name, {}), "open_s", ".3g") for name in ("cold", "relative", *NAMES)]
        cells += [_number(prints.get(name, {}), "peak_mib", ".0f") for name in NAMES]
        lines.append(f"| {model} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def failures(results: Results) -> str:
    """Every engine's failures with their messages."""
    lines = []
    for model, row in _in_order(results):
        footprints = {name: row["footprint"][name] for name in NAMES}
        found = {name: cell["failure"] for name, cell in footprints.items() if "failure" in cell}
        for engines in row["threads"].values():
            found |= {name: cell["failure"] for name, cell in engines.items() if "failure" in cell}
        lines += [f"- {model}, {name}: `{message}`" for name, message in found.items()]
    return "\n".join(["## What does not run\n", *lines]) + "\n" if lines else ""


def header(*columns: str) -> tuple[str, str]:
    """A table's first two lines, all columns but the first aligned to the right."""
    return f"| {' | '.join(columns)} |", "|---" + "|---:" * (len(columns) - 1) + "|"


def speedups(results: Results, threads: str, peer: str) -> dict[str, float]:
    """The peer's time over ours for each model that both run correctly."""
    ratios = {}
    for model, row in _in_order(results):
        engines = row["threads"].get(threads, {})
        cells = [engines.get(name, {}) for name in (peer, OURS.name)]
        if all("ms" in cell for cell in cells) and not is_wrong(cells[1]):
            ratios[model] = cells[0]["ms"] / cells[1]["ms"]
    return ratios


def is_wrong(cell: Mapping[str, Any]) -> bool:
    return max(cell["errors"], default=0.0) > WRONG


def plot(results: Results, threads: str, path: Path) -> None:
    """A bar for each model and peer: the peer's time over ours, on a logarithmic axis."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot, ticker

    ratios = {peer: speedups(results, threads, peer) for peer in PEERS}
    models = [model for model, _ in _in_order(results) if any(model in ratios[peer] for peer in PEERS)]
    figure, axes = pyplot.subplots(figsize=(9, 1.5 + 0.34 * len(models)), dpi=110)
    for number, peer in enumerate(PEERS):
        found = [(index, ratios[peer][model]) for index, model in enumerate(models) if model in ratios[peer]]
        places = [index + (number - 0.5) * 0.38 for index, _ in found]
        # Bars begin at 1, where both are equally fast: a logarithmic axis has no zero.
        axes.barh(places, [ratio - 1 for _, ratio in found], 0.36, left=1, label=peer, color=COLORS[peer])
        for place, (_, ratio) in zip(places, found, strict=True):
            side, shift = ("left", 3) if ratio >= 1 else ("right", -3)
            axes.annotate(
                f"{ratio:.2f}", (ratio, place), (shift, 0), textcoords="offset points",
                ha=side, va="center", fontsize=7,
            )  # fmt: skip
    axes.set_yticks(range(len(models)), models, fontsize=8)
    axes.invert_yaxis()
    axes.set_xscale("log")
    for axis in (axes.xaxis.set_major_formatter, axes.xaxis.set_minor_formatter):
        axis(ticker.FuncFormatter(lambda value, _: f"{value:g}"))
    axes.tick_params(axis="x", which="both", labelsize=7)
    axes.axvline(1, color=COLORS[OURS.name], linewidth=1.5)
    axes.set_xlabel(
        f"time / {OURS.name}'s time, {threads} thread(s): right of the line {OURS.name} is faster", fontsize=8
    )
    axes.margins(x=0.1)
    axes.spines[["top", "right", "left"]].set_visible(False)
    if models:
        axes.legend(frameon=False, fontsize=8, ncols=len(PEERS), loc="lower center", bbox_to_anchor=(0.5, 1))
    figure.tight_layout()
    figure.savefig(path, metadata={"Software": None})
    pyplot.close(figure)


def _in_order(results: Results) -> Sequence[tuple[str, Mapping[str, Any]]]:
    return [(model.name, results["models"][model.name]) for model in MODELS if model.name in results["models"]]


def _time(cell: Mapping[str, Any]) -> str:
    if "failure" in cell:
        return "fails"
    return "wrong" if is_wrong(cell) else f"{cell['ms']:.3g}"


def _ratio(peer: Mapping[str, Any], ours: Mapping[str, Any]) -> str:
    if "ms" not in peer or "ms" not in ours or is_wrong(ours):
        return "-"
    return f"{peer['ms'] / ours['ms']:.2f}"


def _share(multiply_adds: int, ours: Mapping[str, Any], peak: float) -> str:
    if not multiply_adds or "ms" not in ours:
        return "-"
    return f"{multiply_adds / (ours['ms'] / 1000) / 1e9 / peak:.0%}"


def _error(ours: Mapping[str, Any]) -> str:
    return f"{max(ours['errors'], default=0.0):.1e}" if "errors" in ours else "-"


def _number(cell: Mapping[str, Any], key: str, form: str) -> str:
    return f"{cell[key]:{form}}" if key in cell else "fails" if "failure" in cell else "-"
