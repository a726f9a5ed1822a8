"""What the measured machine allows."""

from __future__ import annotations

import pytest

from onnxsmith.roofline import Roofline, Stream


@pytest.mark.parametrize("streams", [(Stream(64, 10.0), Stream(1024, 4.0)), (Stream(64, 4.0), Stream(1024, 10.0))])
def test_the_slower_of_arithmetic_and_the_faster_stream_is_the_limit(streams: tuple[Stream, ...]) -> None:
    roofline = Roofline("cpu", 256, 2, peak=100.0, streams=streams)
    assert roofline.stream.rate == 10
    assert roofline.ridge == 10
    assert roofline.seconds(flops=1000, traffic=10) == 10
    assert roofline.seconds(flops=1000, traffic=1000) == 100
    assert roofline.seconds(flops=0, traffic=20) == 2
    assert roofline.seconds(0, 0) == 0
