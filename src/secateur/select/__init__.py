"""How much and which: from scores and a budget to a plan. One selector a file.

A selector is a module with `wanted(scores, level)`: how many units each group should keep when
`level`, from 0 to 1, is how far pruning has gone. It must never ask for more at a deeper level.
The search finds the level, the count solver makes the counts possible, and `plan` picks the units.
A new file here is a new selector: it is found, listed and tested by its name.
"""

NOT_EXTENSIONS = frozenset(
    "blocks conflict constraints counts fields give_back matching normalise plan problem "
    "relations search".split()
)
