"""How important a unit or a single weight is. One criterion a file, found, listed and tested by
its name; a criterion sees matrices and statistics, never operator types.

`NEEDS` says what a criterion looks at: "weights", and at most one kind of evidence about them.

=================== ==============================================================================
"gradient"          of the loss of one calibration batch; scores are averaged over the batches
"sample_gradient"   of the loss of one sample; scores are averaged over the samples
"mean_gradient"     averaged over all batches with its sign, before it is scored
"hessian_gradient"  the Hessian of the mean loss times its gradient
"hessian_diagonal"  an estimate of the diagonal of the Hessian of the mean loss
"synaptic_gradient" of the summed outputs for an input of ones and absolute weights; no data
"input_norm"        L2 norm of what a weight is multiplied with, over all calibration data
"norm_scale"        nothing more, but only scales of normalisations count as weights
"activations"       statistics of each unit's activations (`Context.activations`)
"input_moments"     second moments of what the next layers read
"outputs"           what the model's outputs lose as a group loses units, measured
"stream"            what goes into a residual block and what comes out
=================== ==============================================================================

A criterion has some of these functions.

- `element(weights, evidence)`: the importance of each single weight, as a tensor of the weights'
  shape, which is any; `evidence` has that shape or broadcasts to it. Criteria whose NEEDS name no
  evidence take the weights alone, and `random.element(weights, generator=...)` a generator too.
  Weights and evidence come in float32 at least. ``POINTWISE = False`` says that a weight's number
  depends on the others, so that it wants whole tensors (lamp); otherwise chunks do as well.
- `importance(matrix, context)`: one number per unit of one member of a group, from a `UnitMatrix`.
  `POWER` says how members combine: ``(sum of member ** POWER) ** (1 / POWER)``, of which infinity
  is the largest. A member without evidence is left out.
- `of_group(matrices, context)`: one number per unit of a group, where it is not such a sum.
- `error(weights, residuals)`: of one next layer's outputs, per unit ("input_moments").
- `rise(errors, saved)`: per unit, in the order in which they go ("outputs").
- `change(given, returned)`: one number per position of a block's "stream".

Higher stays. Where ``importance ** POWER`` is a sum of one term for each weight that can be written
into a buffer, `TERM` gives it, and scoring reads each weight once.
"""

NOT_EXTENSIONS = frozenset(
    "activations blocks contractions curvature divided evidence exact_sums gradients input_norms "
    "marginals matrices moments next_layers patches removal running scales score sensitivity "
    "sharded shares sound synaptic together".split()
)
