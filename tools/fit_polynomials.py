"""Fits the minimax polynomials of `onnxsmith_compiler/codegen/vector_math*.py` and prints their coefficients.

Run `python tools/fit_polynomials.py [name ...]`; needs mpmath, which the compiler itself does not. Each entry
of FITS approximates `target(t)` by a polynomial in t, so that `weight(t) * |polynomial - target|`, which is
the relative error of the finished function, is about smallest. Coefficients are rounded
to the working type from the constant term upward, and what is left is fitted again after each rounding.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass

import mpmath as mp
import numpy as np

mp.mp.dps = 70
LAWSON_ROUNDS = 12
Real = Callable[[mp.mpf], mp.mpf]


@dataclass(frozen=True)
class Fit:
    """`terms` coefficients for `target` on [low, high], kept as `precision` (np.float32 or np.float64)."""

    target: Real
    weight: Real
    low: float
    high: float
    terms: int
    precision: type[np.floating]


def minimax(samples: list[tuple[mp.mpf, mp.mpf, mp.mpf]], fixed: list[float], terms: int) -> list[mp.mpf]:
    """Coefficients after the `fixed` ones, constant first, of about least weighted error on `samples`.

    `samples` holds (t, target, weight). Lawson's algorithm: least squares, each sample's share multiplied by
    its error after each round.
    """
    powers = range(len(fixed), terms)
    rows = [[w * t**k for k in powers] for t, _, w in samples]
    right = [w * (y - mp.polyval(fixed[::-1] or [0], t)) for t, y, w in samples]
    share = [mp.mpf(1) / len(samples)] * len(samples)
    best: tuple[mp.mpf, list[mp.mpf]] = (mp.inf, [])
    for _ in range(LAWSON_ROUNDS):
        normal = mp.matrix(len(powers), len(powers))
        moment = mp.matrix(len(powers), 1)
        for row, y, s in zip(rows, right, share, strict=True):
            for i, a in enumerate(row):
                moment[i] += s * a * y
                for j, b in enumerate(row):
                    normal[i, j] += s * a * b
        solution = list(mp.lu_solve(normal, moment))
        errors = [abs(mp.fdot(row, solution) - y) for row, y in zip(rows, right, strict=True)]
        best = min(best, (max(errors), solution), key=lambda pair: pair[0])
        share = [s * e for s, e in zip(share, errors, strict=True)]
        total = mp.fsum(share)
        share = [s / total for s in share]
    return best[1]


def fit(spec: Fit) -> tuple[list[float], float]:
    """The rounded coefficients and the largest weighted error left with them."""
    low, high = mp.mpf(spec.low), mp.mpf(spec.high)
    middle, half = (low + high) / 2, (high - low) / 2
    count = 8 * spec.terms + 1
    nodes = [middle - half * mp.cos(mp.pi * (k + mp.mpf(1) / 2) / count) for k in range(count)]
    samples = [(t, spec.target(t), spec.weight(t)) for t in nodes if t != 0]
    rounded: list[float] = []
    while len(rounded) < spec.terms:
        rounded.append(float(spec.precision(float(minimax(samples, rounded, spec.terms)[0]))))
    return rounded, float(max(abs(w * (mp.polyval(rounded[::-1], t) - y)) for t, y, w in samples))


def _odd_tail(function: Real) -> Real:
    """g with function(x) = x + x^3 g(x^2), as a function of t = x^2."""
    return lambda t: (function(mp.sqrt(t)) / mp.sqrt(t) - 1) / t


def _odd_tail_weight(function: Real) -> Real:
    return lambda t: abs(t * mp.sqrt(t) / function(mp.sqrt(t)))


def _odd(function: Real, high: float, terms: int, precision: type[np.floating]) -> Fit:
    return Fit(_odd_tail(function), _odd_tail_weight(function), 0.0, high**2, terms, precision)


def _log_ratio(t: mp.mpf) -> mp.mpf:
    """g with log(m) = 2 s + s^3 g(s^2), s = (m - 1) / (m + 1)."""
    s = mp.sqrt(t)
    return (2 * mp.atanh(s) - 2 * s) / s**3


LN2 = mp.log(2)
F32, F64 = np.float32, np.float64
FITS: dict[str, Fit] = {
    # exp(r) = 1 + r + r^2 g(r)
    "exp_f32": Fit(lambda r: (mp.expm1(r) - r) / r**2, lambda r: r**2 / mp.exp(r), -0.6935, 0.6935, 6, F32),
    # 2^r = 1 + r g(r)
    "exp2_f32": Fit(lambda r: (mp.mpf(2) ** r - 1) / r, lambda r: abs(r) / mp.mpf(2) ** r, -1.0, 1.0, 7, F32),
    # expm1(r) = r + r^2 g(r)
    "expm1_f32": Fit(
        lambda r: (mp.expm1(r) - r) / r**2, lambda r: abs(r**2 / mp.expm1(r)), -0.3468, 0.3468, 5, F32
    ),
    # log(1 + f) = f - f^2 / 2 + f^3 g(f)
    "log_f32": Fit(
        lambda f: (mp.log1p(f) - f + f**2 / 2) / f**3,
        lambda f: abs(f**3 / mp.log1p(f)),
        -0.2930,
        0.4143,
        9,
        F32,
    ),
    "tanh_f32": _odd(mp.tanh, 0.63, 5, F32),
    # erf(x) = x + x g(x^2), |x| < 1
    "erf_small_f32": Fit(
        lambda t: mp.erf(mp.sqrt(t)) / mp.sqrt(t) - 1,
        lambda t: abs(mp.sqrt(t) / mp.erf(mp.sqrt(t))),
        0.0,
        1.0,
        7,
        F32,
    ),
    # erf(x) = 1 - exp(-x - x g(x)), 1 <= x < 4
    "erf_large_f32": Fit(
        lambda x: -mp.log(mp.erfc(x)) / x - 1, lambda x: x * mp.erfc(x) / mp.erf(x), 0.92, 4.0, 7, F32
    ),
    "sin_f32": _odd(mp.sin, 0.7855, 3, F32),
    # cos(x) = 1 - x^2 / 2 + x^4 g(x^2)
    "cos_f32": Fit(
        lambda t: (mp.cos(mp.sqrt(t)) - 1 + t / 2) / t**2,
        lambda t: t**2 / mp.cos(mp.sqrt(t)),
        0.0,
        0.7855**2,
        3,
        F32,
    ),
    # log2(1 + f) = f g(f), to float32's accuracy in float64
    "log2_pow_f32": Fit(
        lambda f: mp.log1p(f) / LN2 / f, lambda f: abs(f * LN2 / mp.log1p(f)), -0.2930, 0.4143, 12, F64
    ),
    "exp2_pow_f32": Fit(lambda r: mp.mpf(2) ** r, lambda r: mp.mpf(2) ** -r, -0.5, 0.5, 7, F64),
}


def main(names: list[str]) -> None:
    for name in names or list(FITS):
        coefficients, error = fit(FITS[name])
        print(f"{name}: largest relative error 2^{float(mp.log(error, 2)):.2f}")
        for coefficient in coefficients:
            print(f"    {coefficient!r},")


if __name__ == "__main__":
    main(sys.argv[1:])
