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
    """g with log(m) = 2 s + 2 s g(s^2), s = (m - 1) / (m + 1), as a function of t = s^2."""
    s = mp.sqrt(t)
    return mp.atanh(s) / s - 1


def _exp_tail(r: mp.mpf) -> mp.mpf:
    """g with exp(r) = 1 + r + r^2 g(r)."""
    return (mp.expm1(r) - r) / r**2


def _exp(terms: int, precision: type[np.floating]) -> Fit:
    return Fit(_exp_tail, lambda r: r**2 / mp.exp(r), -HALF_LN2, HALF_LN2, terms, precision)


def _expm1(terms: int, precision: type[np.floating]) -> Fit:
    return Fit(_exp_tail, lambda r: abs(r**2 / mp.expm1(r)), -HALF_LN2, HALF_LN2, terms, precision)


def _cos(high: float, terms: int, precision: type[np.floating]) -> Fit:
    """g with cos(x) = 1 - x^2 / 2 + x^4 g(x^2)."""
    return Fit(
        lambda t: (mp.cos(mp.sqrt(t)) - 1 + t / 2) / t**2,
        lambda t: t**2 / mp.cos(mp.sqrt(t)),
        0.0,
        high**2,
        terms,
        precision,
    )


def _log_quotient(scale: mp.mpf, low: float, high: float, terms: int, precision: type[np.floating]) -> Fit:
    """g with scale log(1 + f) = f g(f)."""
    return Fit(lambda f: scale * mp.log1p(f) / f, lambda f: abs(f / mp.log1p(f) / scale), low, high, terms, precision)


def _erf_small(high: float, terms: int, precision: type[np.floating]) -> Fit:
    """g with erf(x) = x + x g(x^2)."""
    return Fit(
        lambda t: mp.erf(mp.sqrt(t)) / mp.sqrt(t) - 1,
        lambda t: abs(mp.sqrt(t) / mp.erf(mp.sqrt(t))),
        0.0,
        high**2,
        terms,
        precision,
    )


def _erf_whole(bound: float, terms: int) -> Fit:
    """g with erf(x) = x g(2 x^2 / bound^2 - 1)."""

    def root(u: mp.mpf) -> mp.mpf:
        return mp.mpf(bound) * mp.sqrt((u + 1) / 2)

    return Fit(lambda u: mp.erf(root(u)) / root(u), lambda u: root(u) / mp.erf(root(u)), -1.0, 1.0, terms, np.float32)


def _erf_large(low: float, high: float, terms: int, precision: type[np.floating]) -> Fit:
    """g with erf(x) = 1 - exp(-x - x g(x))."""
    return Fit(
        lambda x: -mp.log(mp.erfc(x)) / x - 1,
        lambda x: x * mp.erfc(x) / mp.erf(x),
        low,
        high,
        terms,
        precision,
    )


LN2 = mp.log(2)
HALF_LN2 = 0.347
QUARTER_PI = 0.7855
WIDE_QUARTER_PI = 0.884  # quarter turns of float32 arguments are rounded to within 1/16
LOG_LOW, LOG_HIGH = -0.2930, 0.4143  # sqrt(1/2) - 1 and sqrt(2) - 1
F32, F64 = np.float32, np.float64
FITS: dict[str, Fit] = {
    "exp_f32": _exp(5, F32),
    # exp(r) = 1 + r g(r)
    "exp_small_f32": Fit(lambda r: mp.expm1(r) / r, lambda r: abs(r) / mp.exp(r), -HALF_LN2, HALF_LN2, 5, F32),
    # 2^r = 1 + r g(r)
    "exp2_f32": Fit(lambda r: (mp.mpf(2) ** r - 1) / r, lambda r: abs(r) / mp.mpf(2) ** r, -0.5, 0.5, 6, F32),
    "expm1_f32": _expm1(5, F32),
    # log(1 + f) = f - f^2 / 2 + f^3 g(f)
    "log_f32": Fit(
        lambda f: (mp.log1p(f) - f + f**2 / 2) / f**3,
        lambda f: abs(f**3 / mp.log1p(f)),
        LOG_LOW,
        LOG_HIGH,
        8,
        F32,
    ),
    "log2_f32": _log_quotient(1 / LN2, LOG_LOW, LOG_HIGH, 9, F32),
    "log10_f32": _log_quotient(1 / mp.log(10), LOG_LOW, LOG_HIGH, 9, F32),
    "tanh_f32": _odd(mp.tanh, 0.555, 4, F32),
    "erf_f32": _erf_whole(3.8, 16),
    "sin_f32": _odd(mp.sin, WIDE_QUARTER_PI, 3, F32),
    "cos_f32": _cos(WIDE_QUARTER_PI, 3, F32),
    "tan_f32": _odd(mp.tan, WIDE_QUARTER_PI, 8, F64),
    "asin_f32": _odd(mp.asin, 0.5001, 5, F32),
    "atan_f32": _odd(mp.atan, 1.0, 9, F32),
    "sinh_f32": _odd(mp.sinh, 1.0, 4, F32),
    "pow_log2_f32": _log_quotient(1 / LN2, LOG_LOW, LOG_HIGH, 12, F64),
    "pow_exp2_f32": Fit(lambda r: mp.mpf(2) ** r, lambda r: mp.mpf(2) ** -r, -0.5, 0.5, 7, F64),
    "exp_f64": _exp(10, F64),
    "expm1_f64": _expm1(10, F64),
    "log_f64": Fit(_log_ratio, lambda t: mp.sqrt(t) / mp.atanh(mp.sqrt(t)), 0.0, 0.17158**2, 8, F64),
    # log(m) = 2 s + 2/3 s^3 + s^5 g(s^2)
    "pow_log_f64": Fit(
        lambda t: 2 * (_log_ratio(t) - t / 3) / t**2,
        lambda t: t**2 * mp.sqrt(t) / mp.atanh(mp.sqrt(t)),
        0.0,
        0.17158**2,
        7,
        F64,
    ),
    "sin_f64": _odd(mp.sin, QUARTER_PI, 7, F64),
    "cos_f64": _cos(QUARTER_PI, 6, F64),
    "asin_f64": _odd(mp.asin, 0.5001, 13, F64),
    "atan_f64": _odd(mp.atan, 0.4143, 11, F64),
    "sinh_f64": _odd(mp.sinh, 1.0, 7, F64),
    "erf_small_f64": _erf_small(1.0, 14, F64),
    "erf_large_f64": _erf_large(0.99, 6.0, 18, F64),
}


def main(names: list[str]) -> None:
    for name in names or list(FITS):
        coefficients, error = fit(FITS[name])
        print(f"{name}: largest relative error 2^{float(mp.log(error, 2)):.2f}")
        for coefficient in coefficients:
            print(f"    {coefficient!r},")


if __name__ == "__main__":
    main(sys.argv[1:])
