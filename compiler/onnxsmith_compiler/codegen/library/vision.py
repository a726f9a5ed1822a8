"""Pooling over regions of interest of images [N, H, W, C]. REAL is the type that is computed in, SCALE a number."""

from __future__ import annotations

from typing import Any

from numpy import float32, int64

from onnxsmith_compiler.codegen.intrinsics import load, offset, scratch, store
from onnxsmith_compiler.codegen.scalar import ceil, floor, int_div, maximum, minimum, select, trunc_to_int64

REAL: Any = float32
SCALE = 1.0
HALF_PIXEL = False
AVERAGE = True


def roi_align(
    ctx: Any,
    x: Any,
    regions: Any,
    batches: Any,
    y: Any,
    images: Any,
    height: Any,
    width: Any,
    channels: Any,
    rows: Any,
    columns: Any,
    ratio: Any,
    begin: Any,
    end: Any,
) -> Any:
    """A tile is one of the rows x columns bins of a region: its C results, of bilinear samples within the bin.

    Mask R-CNN, arXiv:1703.06870. Where the largest sample is asked for, it is the largest of the products of
    elements and weights, as in ONNX. Fault 1: an image that is not there. Fault 3: more than 65536 samples a side.
    """
    totals = scratch(ctx, REAL, 0)
    shift = REAL(0.5) if HALF_PIXEL else REAL(0.0)
    for tile in range(begin, end):
        region = int_div(tile, rows * columns)
        row = int_div(tile - region * rows * columns, columns)
        column = tile - (region * rows + row) * columns
        batch = int64(load(batches, region))
        if batch < 0 or batch >= images:
            store(ctx, 3, batch)
            store(ctx, 4, images)
            return 1
        left = REAL(load(regions, region * 4)) * REAL(SCALE) - shift
        top = REAL(load(regions, region * 4 + 1)) * REAL(SCALE) - shift
        span_x = REAL(load(regions, region * 4 + 2)) * REAL(SCALE) - shift - left
        span_y = REAL(load(regions, region * 4 + 3)) * REAL(SCALE) - shift - top
        if not HALF_PIXEL:
            span_x = maximum(span_x, REAL(1.0))
            span_y = maximum(span_y, REAL(1.0))
        bin_x = span_x / REAL(columns)
        bin_y = span_y / REAL(rows)
        samples_x = maximum(select(ratio > 0, ratio, trunc_to_int64(ceil(bin_x))), int64(0))
        samples_y = maximum(select(ratio > 0, ratio, trunc_to_int64(ceil(bin_y))), int64(0))
        if maximum(samples_x, samples_y) > 65536:
            store(ctx, 3, maximum(samples_x, samples_y))
            store(ctx, 4, 65536)
            return 3
        for channel in range(channels):
            store(totals, channel, REAL(0.0))
        image = offset(x, batch * height * width * channels)
        first = True
        for sample_y in range(samples_y):
            place_y = top + REAL(row) * bin_y + (REAL(sample_y) + REAL(0.5)) * bin_y / REAL(samples_y)
            inside_y = place_y >= REAL(-1.0) and place_y <= REAL(height)
            place_y = minimum(maximum(place_y, REAL(0.0)), REAL(height - 1))
            low_y = maximum(minimum(trunc_to_int64(place_y), height - 1), int64(0))
            high_y = minimum(low_y + 1, height - 1)
            part_y = place_y - REAL(low_y)
            for sample_x in range(samples_x):
                place_x = left + REAL(column) * bin_x + (REAL(sample_x) + REAL(0.5)) * bin_x / REAL(samples_x)
                inside = inside_y and place_x >= REAL(-1.0) and place_x <= REAL(width)
                place_x = minimum(maximum(place_x, REAL(0.0)), REAL(width - 1))
                low_x = maximum(minimum(trunc_to_int64(place_x), width - 1), int64(0))
                high_x = minimum(low_x + 1, width - 1)
                part_x = place_x - REAL(low_x)
                a = offset(image, (low_y * width + low_x) * channels)
                b = offset(image, (low_y * width + high_x) * channels)
                c = offset(image, (high_y * width + low_x) * channels)
                d = offset(image, (high_y * width + high_x) * channels)
                weight_a = (REAL(1.0) - part_y) * (REAL(1.0) - part_x)
                weight_b = (REAL(1.0) - part_y) * part_x
                weight_c = part_y * (REAL(1.0) - part_x)
                weight_d = part_y * part_x
                if AVERAGE:
                    if inside:
                        for channel in range(channels):
                            upper = weight_a * load(a, channel) + weight_b * load(b, channel)
                            lower = weight_c * load(c, channel) + weight_d * load(d, channel)
                            store(totals, channel, load(totals, channel) + (upper + lower))
                else:
                    for channel in range(channels):
                        upper = maximum(weight_a * load(a, channel), weight_b * load(b, channel))
                        lower = maximum(weight_c * load(c, channel), weight_d * load(d, channel))
                        found = select(inside, maximum(upper, lower), REAL(0.0))
                        store(totals, channel, select(first, found, maximum(load(totals, channel), found)))
                    first = False
        count = REAL(maximum(samples_x * samples_y, int64(1))) if AVERAGE else REAL(1.0)
        for channel in range(channels):
            store(y, tile * channels + channel, load(totals, channel) / count)
    return 0


def max_roi_pool(
    ctx: Any,
    x: Any,
    regions: Any,
    y: Any,
    images: Any,
    height: Any,
    width: Any,
    channels: Any,
    rows: Any,
    columns: Any,
    begin: Any,
    end: Any,
) -> Any:
    """A tile is one of the rows x columns bins of a region: the largest element of each channel, 0 where it is empty.

    Fast R-CNN, arXiv:1504.08083. Fault 1: an image that is not there.
    """
    for tile in range(begin, end):
        region = int_div(tile, rows * columns)
        row = int_div(tile - region * rows * columns, columns)
        column = tile - (region * rows + row) * columns
        batch = trunc_to_int64(REAL(load(regions, region * 5)))
        if batch < 0 or batch >= images:
            store(ctx, 3, batch)
            store(ctx, 4, images)
            return 1
        # bounds far outside are brought near, so that no sum overflows
        far = REAL(1073741824.0)
        left = minimum(maximum(REAL(load(regions, region * 5 + 1)) * REAL(SCALE), -far), far)
        top = minimum(maximum(REAL(load(regions, region * 5 + 2)) * REAL(SCALE), -far), far)
        right = minimum(maximum(REAL(load(regions, region * 5 + 3)) * REAL(SCALE), -far), far)
        bottom = minimum(maximum(REAL(load(regions, region * 5 + 4)) * REAL(SCALE), -far), far)
        first_column = trunc_to_int64(left + select(left < REAL(0.0), REAL(-0.5), REAL(0.5)))
        first_row = trunc_to_int64(top + select(top < REAL(0.0), REAL(-0.5), REAL(0.5)))
        last_column = trunc_to_int64(right + select(right < REAL(0.0), REAL(-0.5), REAL(0.5)))
        last_row = trunc_to_int64(bottom + select(bottom < REAL(0.0), REAL(-0.5), REAL(0.5)))
        bin_x = REAL(maximum(last_column - first_column + 1, int64(1))) / REAL(columns)
        bin_y = REAL(maximum(last_row - first_row + 1, int64(1))) / REAL(rows)
        first_y = minimum(maximum(first_row + trunc_to_int64(floor(REAL(row) * bin_y)), int64(0)), height)
        last_y = minimum(maximum(first_row + trunc_to_int64(ceil(REAL(row + 1) * bin_y)), int64(0)), height)
        first_x = minimum(maximum(first_column + trunc_to_int64(floor(REAL(column) * bin_x)), int64(0)), width)
        last_x = minimum(maximum(first_column + trunc_to_int64(ceil(REAL(column + 1) * bin_x)), int64(0)), width)
        result = offset(y, tile * channels)
        if first_y >= last_y or first_x >= last_x:
            for channel in range(channels):
                store(result, channel, REAL(0.0))
        else:
            start = offset(x, ((batch * height + first_y) * width + first_x) * channels)
            for channel in range(channels):
                store(result, channel, load(start, channel))
            for place_y in range(first_y, last_y):
                for place_x in range(first_x, last_x):
                    element = offset(x, ((batch * height + place_y) * width + place_x) * channels)
                    for channel in range(channels):
                        store(result, channel, maximum(load(result, channel), load(element, channel)))
    return 0
