"""Intervals and tests that know that answers of one rater, and answers on one item, hang together."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from scipy import special, stats

from omnihuman.evaluation.study.strengths import HALF_VOTE, strengths
from omnihuman.evaluation.study.votes import Votes


@dataclass(frozen=True)
class Interval:
    """A figure with its interval; None where there is nothing to estimate from."""

    value: float | None
    low: float | None
    high: float | None


@dataclass(frozen=True)
class Difference:
    """Strength of one system less that of another: the log odds of choosing the first of the two."""

    first: str
    second: str
    estimate: Interval
    p_value: float | None
    """Of no difference, not corrected for the number of tests."""


@dataclass(frozen=True)
class Preferred:
    """What the votes on one question say of the systems, in their order."""

    shares: tuple[Interval, ...]
    """How often it was chosen, of the votes in which it was shown."""
    strengths: tuple[Interval, ...]
    differences: tuple[Difference, ...]


def preferred(votes: Votes, confidence: float, num_resamples: int, seed: int) -> Preferred:
    """Shares and strengths with two-way bootstrap intervals.

    The variance of a figure is V_raters + V_items - V_votes, each by resampling raters, items, or votes one by one
    (Cameron, Gelbach and Miller, Journal of Business & Economic Statistics 2011, 29:238), and at least that of
    independent votes, which alone is left where a system has all votes or none. The interval is the estimate +- t of
    min(raters, items) - 1 degrees of freedom times its root; shares are taken as log odds, so that it stays between 0
    and 1. Resampling raters and items at once would count the votes' own variance three times (Owen, Annals of Applied
    Statistics 2007, 1:386); docs/howto/study.md has what each covered.

    Args:
        votes: without abstentions. If there are none, there is no figure.
    """
    num = len(votes.systems)
    if not len(votes.chosen):
        nothing = Interval(None, None, None)
        pairs = tuple(Difference(*names, nothing, None) for names in combinations(votes.systems, 2))
        return Preferred((nothing,) * num, (nothing,) * num, pairs)
    figures = _Figures(votes)
    resampled = [figures.of(weights) for weights in _resampled(votes, num_resamples, np.random.default_rng(seed))]
    by_rater, by_item, by_vote = (draws.var(axis=0, ddof=1) for draws in resampled)
    deviation = np.sqrt(np.maximum(by_rater + by_item - by_vote, figures.independent_variance()))
    freedom = min(len(np.unique(votes.rater)), len(np.unique(votes.item))) - 1  # of 0 scipy gives NaN
    reach = stats.t.ppf((1 + confidence) / 2, freedom) * deviation
    estimate = figures.of(np.ones((1, len(votes.chosen))))[0]
    ends = np.stack([estimate - reach, estimate + reach])
    tests = 2 * stats.t.sf(np.abs(estimate / deviation), freedom)
    wins, shown = figures.counts(np.ones((1, len(votes.chosen))))
    shares = np.divide(wins[0], shown[0], out=np.full(num, np.nan), where=shown[0] > 0)
    return Preferred(
        tuple(_interval(shares[i], special.expit(ends[:, i])) for i in range(num)),
        tuple(_interval(estimate[i], ends[:, i]) for i in range(num, 2 * num)),
        tuple(
            Difference(votes.systems[i], votes.systems[j], _interval(estimate[at], ends[:, at]), _number(tests[at]))
            for at, (i, j) in enumerate(figures.pairs, start=2 * num)
        ),
    )


def _resampled(votes: Votes, num_resamples: int, random: np.random.Generator) -> Iterator[np.ndarray]:
    """How often each vote is drawn, [B, V], when raters, items, or votes are drawn with replacement."""

    def drawn(groups: np.ndarray) -> np.ndarray:
        present, member = np.unique(groups, return_inverse=True)
        even = np.full(len(present), 1 / len(present))
        return random.multinomial(len(present), even, size=num_resamples)[:, member].astype(float)

    return map(drawn, (votes.rater, votes.item, np.arange(len(votes.chosen))))


class _Figures:
    """All figures of weighted votes side by side: log odds of k shares, k strengths, k (k - 1) / 2 differences."""

    def __init__(self, votes: Votes) -> None:
        num = len(votes.systems)
        self.pairs = list(combinations(range(num), 2))
        self._sets, of_vote = np.unique(votes.shown, axis=0, return_inverse=True)
        self._chosen, self._shown = np.eye(num)[votes.chosen], votes.shown.astype(float)  # [V, k]
        self._of_vote = np.eye(len(self._sets))[of_vote.reshape(-1)]  # [V, S]

    def counts(self, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Votes for each system, and votes in which it was shown: [B, k] each."""
        return weights @ self._chosen, weights @ self._shown

    def of(self, weights: np.ndarray) -> np.ndarray:
        """[B, 2 k + pairs], of weights [B, V]."""
        wins, shown = self.counts(weights)
        odds = np.log((wins + HALF_VOTE) / (shown - wins + HALF_VOTE))
        logs = strengths(wins, weights @ self._of_vote, self._sets)
        apart = np.stack([logs[:, i] - logs[:, j] for i, j in self.pairs], axis=1)
        return np.concatenate([odds, logs, apart], axis=1)

    def independent_variance(self) -> np.ndarray:
        """Of votes that do not hang together, by the delta method with half votes (Gart 1966): [2 k + pairs]."""
        wins, shown = self._chosen.sum(axis=0), self._shown.sum(axis=0)
        each, others = 1 / (wins + HALF_VOTE), 1 / (shown - wins + HALF_VOTE)
        centred = each * (1 - 2 / len(wins)) + each.sum() / len(wins) ** 2
        return np.concatenate([each + others, centred, [each[i] + each[j] for i, j in self.pairs]])


def _interval(value: float, ends: np.ndarray) -> Interval:
    """Half votes can put the end of a share just inside one of 0% or 100%: then the interval ends there."""
    return Interval(_number(value), _number(np.minimum(ends[0], value)), _number(np.maximum(ends[1], value)))


def _number(value: float) -> float | None:
    return None if np.isnan(value) else float(value)
