"""The page of a profile: whole, safe against names in a model, and true to its kernels."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from xml.etree import ElementTree

import pytest

from onnxsmith.commands.profile_page import profile_page
from onnxsmith.kernel_times import KernelTime
from onnxsmith.roofline import Roofline, Stream

ROOFLINE = Roofline("a<b>c", 512, 2, peak=200e9, streams=(Stream(64 << 20, 20e9), Stream(1 << 30, 10e9)))
VOID = {"meta", "br"}


def kernel(step: int, label: str, seconds: float, flops: int, traffic: int, *nodes: str) -> KernelTime:
    return KernelTime(step, label, 1, seconds, flops, traffic, ROOFLINE.seconds(flops, traffic), (f"k{step}",), nodes)


STEPS = [
    kernel(0, "conv", 4e-3, 400_000_000, 4_000_000, "/first", "/relu"),
    kernel(1, "map", 1e-3, 0, 16_000_000, "/turn"),
    kernel(2, "conv", 1e-3, 100_000_000, 1_000_000, "</script><b>&\"'"),
    kernel(3, "rows", 1e-3, 3_000_000, 12_000_000, *(f"/many{number}" for number in range(9))),
]


class Page(HTMLParser):
    """Collects text by the element that it is in; AssertionError where elements are not nested."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.texts: list[tuple[str, str]] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        assert not {name for name, _ in attributes} & {"src", "href", "onclick"}
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        pass

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open:
            self.texts.append((self.open[-1], data))


def page(steps: list[KernelTime] = STEPS, roofline: Roofline = ROOFLINE, name: str = "net.onnx") -> str:
    return profile_page(name, steps, 6.5e-3, roofline)


def test_page_parses_and_names_every_kernel_and_node() -> None:
    parsed = Page(page())
    assert parsed.open == []
    cells = [text for tag, text in parsed.texts if tag == "td"]
    for label in ("conv", "map", "rows"):
        assert label in cells
    assert "/turn" in cells and "/first, /relu" in cells
    assert "/many0, /many1, /many2, /many3, and 5 more" in cells
    assert not {"script", "link", "img"} & {tag for tag, _ in parsed.texts}


def test_names_are_text() -> None:
    text = page(name="<script>alert(1)</script>")
    assert "<script" not in text and "<b>&" not in text
    words = [data for _, data in Page(text).texts]
    assert "</script><b>&\"'" in words
    assert "<script>alert(1)</script>" in words


def plot(text: str) -> ElementTree.Element:
    (drawing,) = re.findall(r"<svg.*?</svg>", text, re.DOTALL)
    return ElementTree.fromstring(drawing)


def dots(text: str) -> dict[str, tuple[float, float, float]]:
    """(x, y, radius) by the first word of the tooltip's second line."""
    return {
        circle[0].text.split("\n")[1].split(",")[0]: tuple(float(circle.get(name)) for name in ("cx", "cy", "r"))
        for circle in plot(text).iter()
        if circle.tag.endswith("circle")
    }


def test_a_dot_for_each_kernel_that_computes() -> None:
    found = dots(page())
    assert set(found) == {"/first", "</script><b>&\"'", "/many0"}
    first, second, last = found["/first"], found["</script><b>&\"'"], found["/many0"]
    assert first[:2] == second[:2]  # the same rate and intensity
    assert first[2] == 2 * second[2]  # four times the time
    assert last[0] < first[0] and last[1] > first[1]  # fewer operations a byte, fewer a second; y runs downwards


def test_plot_has_the_roofs() -> None:
    drawing = plot(page())
    paths = [element.get("class") for element in drawing.iter() if element.tag.endswith("path")]
    assert paths == ["roof", "roof other"]
    words = [element.text for element in drawing.iter() if element.tag.endswith("text")]
    assert "20.0 GB/s, 64 MiB read" in words and "10.0 GB/s, 1024 MiB read" in words


@pytest.mark.parametrize(
    "steps", [[], [STEPS[1]], [kernel(0, "map", 0.0, 0, 0)]], ids=["none", "no arithmetic", "idle"]
)
def test_models_without_arithmetic(steps: list[KernelTime]) -> None:
    text = page(steps)
    assert Page(text).open == []
    assert dots(text) == {}
