"""The result in plain words: one headline, and every warning a buyer would want to hear first.

Nothing here is stored; page, table and JSON ask these functions, so they cannot disagree.
"""

from __future__ import annotations

from secateur.cost.speedup import Speedup, speedup
from secateur.report.result import Result
from secateur.report.row import ModelRow
from secateur.report.words import factor, percent, plural, points

NOTABLE_LOSS = 0.01


def gain(result: Result, row: ModelRow) -> Speedup | None:
    """How much faster `row` is than dense; None where either was not measured."""
    if row.latency is None or result.dense.latency is None:
        return None
    return speedup(result.dense.latency, row.latency)


def headline(result: Result) -> str:
    """One sentence: smaller, faster, as accurate."""
    parts = [smaller(result.dense.params, result.pruned.params)]
    gained = gain(result, result.pruned)
    if gained is not None and result.pruned.latency is not None:
        parts.append(f"{faster(gained)} at batch {result.pruned.latency.batch}")
    if result.pruned.accuracy is not None:
        dense = result.dense.accuracy
        beside = "" if dense is None else f" (dense {percent(dense)})"
        parts.append(f"accuracy {percent(result.pruned.accuracy)}{beside}")
    sentence = ", ".join(parts)
    return sentence[0].upper() + sentence[1:]


def smaller(dense: float, pruned: float) -> str:
    """Size in words.

    >>> smaller(1000, 189), smaller(1000, 700), smaller(10, 10), smaller(10, 12)
    ('5.3 times smaller', '30 % smaller', 'no smaller', '20 % larger')
    """
    ratio = dense / pruned
    if ratio >= 1.495:
        return f"{factor(ratio)} times smaller"
    share = 100 * (1 - pruned / dense)
    if abs(share) < 0.05:
        return "no smaller"
    return f"{abs(share):.2g} % {'smaller' if share > 0 else 'larger'}"


def faster(gained: Speedup) -> str:
    """Speed in words.

    >>> faster(Speedup(2.93, 2.8, 3.0, "faster")), faster(Speedup(1.0, 0.9, 1.1, "no speed-up"))
    ('2.9 times faster', 'no faster')
    """
    if gained.verdict == "faster":
        return f"{factor(gained.ratio)} times faster"
    if gained.verdict == "slower":
        return f"{factor(1 / gained.ratio)} times slower"
    return "no faster"


def warnings(result: Result) -> tuple[str, ...]:
    """What a reader must know before trusting the headline, most important first."""
    found = [*_about_gain(result), *_about_accuracy(result), *_about_proof(result)]
    return tuple(dict.fromkeys([*found, *result.warnings, *result.explanation.warnings]))


def _about_gain(result: Result) -> list[str]:
    found = []
    if result.pruned.params >= result.dense.params:
        found.append("Nothing was removed: the pruned model has as many parameters as the dense.")
    gained = gain(result, result.pruned)
    if gained is None:
        found.append("Latency was not measured: whether the cut model is faster is not known.")
    elif gained.verdict != "faster":
        found.append(
            f"On this device the cut model brings {gained}. Smaller layers can be too small to "
            "keep it busy: try a larger batch, a deeper budget, or multiples of 8 as a constraint."
        )
    return found


def _about_accuracy(result: Result) -> list[str]:
    dense, pruned = result.dense.accuracy, result.pruned.accuracy
    if dense is None or pruned is None:
        return ["Accuracy was not measured: what the cut costs is not known."]
    found = []
    if dense - pruned > NOTABLE_LOSS:
        found.append(f"Accuracy fell by {points(pruned, dense).lstrip('-')}.")
    random = None if result.random is None else result.random.accuracy
    if random is not None and random >= pruned:
        found.append(
            f"Removing units at random does as well ({percent(random)}, the criterion "
            f"{percent(pruned)}): here it is the recovery that matters, not the criterion."
        )
    return found


def _about_proof(result: Result) -> list[str]:
    if result.proof is None:
        return ["No proof was made: the cut model was not compared with the masked original."]
    if result.proof.groups_shape_only:
        number = plural(result.proof.groups_shape_only, "group")
        return [
            f"{number} cannot be proved by numbers, only by shapes: there, removing a unit "
            "differs from zeroing it. The reasons stand under Proof."
        ]
    return []
