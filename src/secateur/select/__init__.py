"""How much and which: from scores and a budget to a plan. One selector a file.

A selector is a module with `ladder(scores)`: a function from a level, from 0 to 1, to how many
units each group should keep when pruning has gone that far. It asks for all units at level 0 and
never for more at a deeper level. The search finds the level, the count solver makes the counts
possible, and `plan` picks the units. A selector that looks at what units cost has
`costed_ladder(problem)` as well, which is asked instead. A new file here is a new selector: it is
found, listed and tested by its name.
"""

NOT_EXTENSIONS = frozenset(
    "alignment bundles conflict constraints counts depth fields give_back matching normalise "
    "notes plan problem relations repeats search sharding shares stairs ties".split()
)
