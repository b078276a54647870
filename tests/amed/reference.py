"""An AMED sample of one image, written out from the papers in float64 numpy; import with `from .reference import ...`.

Knows nothing of the code under test. Levels are the host's; VE levels are written t. Integrals of D are taken by adaptive quadrature of
the Lagrange polynomial, released approximations from their papers' formulas.
"""

from __future__ import annotations

import math

import numpy as np
from scipy.integrate import quad

FAMILIES = ("vp", "edm", "flow")
ADAMS = {1: (1,), 2: (3 / 2, -1 / 2), 3: (23 / 12, -16 / 12, 5 / 12), 4: (55 / 24, -59 / 24, 37 / 24, -9 / 24)}


def stamps_of(family, count, last=0.0):
    """`count` levels, the last of them `last`, unevenly spaced."""
    above = count - (last == 0)
    t = 12.0 * np.exp(-5.2 * np.linspace(0, 1, above) ** 1.2) if above > 1 else np.array([12.0])
    if last:
        t[-1] = last
    levels = t / (1 + t) if family == "flow" else t
    return tuple(levels) + ((0.0,) if last == 0 else ())


def to_t(level, family):
    return level / (1 - level) if family == "flow" else level


def from_t(t, family):
    return t / (1 + t) if family == "flow" else t


def lam(level, family):
    return -math.log(to_t(level, family))


def alpha(level, family):
    return 1 - level if family == "flow" else 1.0


def lagrange_weights(start, end, nodes):
    """Integral of e^(u - end) times each Lagrange polynomial."""

    def polynomial(j, u):
        return math.prod((u - other) / (nodes[j] - other) for m, other in enumerate(nodes) if m != j)

    return [quad(lambda u, j=j: math.exp(u - end) * polynomial(j, u), start, end, epsabs=1e-14, epsrel=1e-13)[0] for j in range(len(nodes))]


class Walker:
    """One image. `r`, `c`, `a`: one number a step; `denoised(x, level)`: the model."""

    def __init__(self, form, family, stamps, afs, r, c, a, denoised):
        self.name, self.order = (form[:-1], int(form[-1])) if form[-1].isdigit() and form != "dpm2" else (form, 1)
        self.family, self.stamps, self.afs, self.r, self.c, self.a = family, stamps, afs, r, c, a
        self.model, self.calls = denoised, 0
        steps = len(stamps) - 1
        self.pairs = steps - (stamps[-1] == 0)
        self.half_steps = 2 * self.pairs + (stamps[-1] == 0)

    def call(self, x, level):
        self.calls += 1
        return self.model(x, level)

    def first(self, x):
        level = self.stamps[0]
        if not self.afs:
            return self.call(x, level)
        if self.family == "flow":
            return x / (1 - level) * (1 - level / math.sqrt((1 - level) ** 2 + level**2))
        return x - level * x / math.sqrt(1 + level**2)

    def run(self, x):
        states = []
        history = []  # (node level, D, slope), newest first
        redo = None
        for n in range(self.pairs):
            t0, t1 = self.stamps[n], self.stamps[n + 1]
            s = from_t(to_t(t1, self.family) ** self.r[n] * to_t(t0, self.family) ** (1 - self.r[n]), self.family)
            called = from_t(self.a[n] * to_t(s, self.family), self.family)
            denoised = self.first(x) if n == 0 else self.call(x, t0)
            history.insert(0, (t0, denoised, (x - denoised) / t0))
            x = self.corrected(x, redo, history)
            if self.name in ("amed", "dpm2"):
                d_n = history[0][2]
                x_s = x + (s - t0) * d_n
                d_s = (x_s - self.call(x_s, called)) / s
                late = 1.0 if self.name == "amed" else 1 / (2 * self.r[n])
                x = x + self.c[n] * (t1 - t0) * (late * d_s + (1 - late) * d_n)
                states.append(x)
                continue
            redo = (x, t0, s, self.half_order(2 * n))
            x = self.half_step(x, t0, s, history, self.half_order(2 * n), 1.0)
            denoised = self.call(x, called)
            history.insert(0, (s, denoised, (x - denoised) / s))
            x = self.corrected(x, redo, history)
            redo = (x, s, t1, self.half_order(2 * n + 1))
            x = self.half_step(x, s, t1, history, self.half_order(2 * n + 1), self.c[n])
            states.append(x)
        if self.stamps[-1] == 0:
            states.append(self.call(x, self.stamps[-2]))
        return states

    def half_order(self, k):
        low = self.order if self.name == "ipndm" else self.half_steps - k
        return min(self.order, k + 1, low)

    def half_step(self, x, start, end, history, order, c):
        if self.name in ("euler", "ipndm"):
            return x + c * (end - start) * sum(w * slope for w, (_, _, slope) in zip(ADAMS[order], history, strict=False))
        weights = self.dpmpp(start, end, history, order) if self.name == "dpmpp" else self.unipc(start, end, history[:order], order == 2)
        part = sum(w * denoised for w, (_, denoised, _) in zip(weights, history, strict=False))
        return end / start * x + c * alpha(end, self.family) * part

    def dpmpp(self, start, end, history, order):
        """Algorithm 2 and appendix B of arXiv 2211.01095, the third order with the code's divided difference."""
        at = [lam(level, self.family) for level, _, _ in history[:order]]
        h = lam(end, self.family) - at[0]
        e = 1 - math.exp(-h)
        unit = np.eye(order)
        if order == 1:
            return [e]
        if order == 2:
            return e * unit[0] + 0.5 * e * (unit[0] - unit[1]) / ((at[0] - at[1]) / h)
        r0, r1 = (at[0] - at[1]) / h, (at[1] - at[2]) / h
        d10, d11 = (unit[0] - unit[1]) / r0, (unit[1] - unit[2]) / r1
        d1, d2 = d10 + r0 / (r0 + r1) * (d10 - d11), (d10 - d11) / (r0 + r1)
        return e * unit[0] - (math.exp(-h) - 1 + h) / h * -1 * d1 + ((1 - math.exp(-h) - h) / h**2 + 0.5) * d2

    def unipc(self, start, end, nodes, half):
        """Nodes in the order of the weights; `half`: the code's 0.5 for one difference, with B(h) = e^-h - 1."""
        at = [lam(level, self.family) for level, _, _ in nodes]
        low, high = lam(start, self.family), lam(end, self.family)
        if not half:
            return lagrange_weights(low, high, at)
        other = 1 - at.index(low)
        h = high - low
        ratio = (at[other] - low) / h
        weights = [0.0, 0.0]
        weights[other] = -(math.exp(-h) - 1) * 0.5 / ratio
        weights[1 - other] = 1 - math.exp(-h) - weights[other]
        return weights

    def corrected(self, x, redo, history):
        if redo is None or self.name != "unipc":
            return x
        base, start, end, order = redo
        nodes = history[: order + 1]
        weights = self.unipc(start, end, nodes, order == 1)
        return end / start * base + alpha(end, self.family) * sum(w * denoised for w, (_, denoised, _) in zip(weights, nodes, strict=True))
