"""How important a unit is. One criterion a file; a criterion sees matrices, never operator types.

A criterion is a module with three names. `NEEDS` says what it looks at, of "weights" and
"gradient". `POWER` says how the members of a group combine: ``(sum of member ** POWER) **
(1 / POWER)``. `importance(matrix, context)` gives one number per unit of one member. A new file
here is a new criterion: it is found, listed and tested by its name. One that needs the "stream"
scores whole residual blocks: it has `change(given, returned)`, one number per position. Where
``importance ** POWER`` is a sum of one term for each weight, `TERM` gives the term, and scoring
reads each weight once.
"""

NOT_EXTENSIONS = frozenset({"blocks", "gradients", "marginals", "matrices", "score", "sound"})
