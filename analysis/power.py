"""How small a change a task can see: the minimum detectable effect of a paired comparison."""

import math

from scipy import optimize, special

from analysis.intervals import ALPHA

POWER = 0.8
"""The share of real changes of the detectable size that a comparison finds."""


def minimum_detectable_effect(
    n: int, discordance: float, *, design_effect: float = 1.0, alpha: float = ALPHA, power: float = POWER
) -> float:
    """The smallest change of an accuracy that a paired comparison over `n` items finds with this power.

    `discordance` is the share of items that one of the two checkpoints answers rightly and the
    other does not: observed, or from `expected_discordance`. It solves the sample size formula of
    Connor (1987), Biometrics 43, n = (z_alpha sqrt(psi) + z_power sqrt(psi - d^2))^2 / d^2, for
    the effect d. `design_effect` is the clustered variance over the plain one: so many items count
    as one (Kish 1965, "Survey Sampling"). Infinite where not even a change of every answer would do.
    """
    if n < 1 or not 0 < discordance <= 1 or design_effect <= 0:
        raise ValueError("A detectable effect needs items, a discordance above 0 and up to 1, and a design effect.")
    sure, found = float(special.ndtri(1 - alpha / 2)), float(special.ndtri(power))

    def surplus(effect: float) -> float:
        # As many answers differ as the effect itself needs.
        differing = max(discordance, effect)
        needed = sure * math.sqrt(differing) + found * math.sqrt(differing - effect**2)
        return effect * math.sqrt(n / design_effect) - needed

    return float(optimize.brentq(surplus, 0.0, 1.0)) if surplus(1.0) >= 0 else math.inf


def expected_discordance(accuracy: float, correlation: float) -> float:
    """The share of items on which two checkpoints of this accuracy differ, 2 p (1 - p) (1 - r).

    `correlation` is that of their right-or-wrong answers over the items; Miller (2024),
    arXiv:2411.00640, on the variance of paired differences.
    """
    if not 0 <= accuracy <= 1 or not -1 <= correlation <= 1:
        raise ValueError("An accuracy lies between 0 and 1, a correlation between -1 and 1.")
    return 2 * accuracy * (1 - accuracy) * (1 - correlation)


def minimum_detectable_mean(
    n: int, deviation: float, *, design_effect: float = 1.0, alpha: float = ALPHA, power: float = POWER
) -> float:
    """The smallest change of a mean that the paired t test over `n` items finds with this power.

    `deviation` is the standard deviation of the items' differences, sigma sqrt(2 (1 - r)) for two
    checkpoints of the same spread. Cohen (1988), "Statistical Power Analysis", chapter 2.
    """
    if deviation < 0 or design_effect <= 0 or n / design_effect < 2:
        raise ValueError("A detectable change needs two independent items or more, and a deviation.")
    from statsmodels.stats.power import TTestPower  # noqa: PLC0415 - late, as in analysis.intervals

    effect = TTestPower().solve_power(nobs=n / design_effect, alpha=alpha, power=power)
    return float(effect) * deviation
