"""The one error tree. Every message says what failed, where, why, and what to type next.

    SecateurError
      TraceError            the forward could not be recorded
        UnsupportedOpError  an operator without a rule, under strict=True
      BudgetError           a budget, constraint or stopping rule cannot be met
      PlanMismatchError     a plan and a model (or two graphs) do not belong together
      CutError              a cut would make a model that does not run as predicted
      ProofError            the cut model does not equal the masked original
      ScoreError            a criterion cannot score (NaN weights, missing data)
      TrainError            recovery cannot start or go on
        DivergedError       loss, gradient, weights or metric became NaN or infinite
      RecipeError           a recipe file is wrong (line and column in the message)
      StorageError          a saved folder is truncated, tampered with, or cannot be written
      ExportError           a target format cannot hold the model
      EngineError           processes could not be started or talked to

A wrong argument of a public function is a plain ``ValueError``.
"""


class SecateurError(Exception):
    """Root of every error that secateur raises on purpose."""


class TraceError(SecateurError):
    """The forward pass could not be recorded."""


class UnsupportedOpError(TraceError):
    """An operator has no rule and ``strict=True`` forbids pinning what it touches."""


class BudgetError(SecateurError):
    """A budget, constraint or stopping rule cannot be met."""


class PlanMismatchError(SecateurError):
    """A plan does not belong to this model."""


class CutError(SecateurError):
    """The cut model would not run as the plan predicts."""


class ProofError(SecateurError):
    """The cut model's outputs differ from the masked original's."""


class ScoreError(SecateurError):
    """A criterion could not score the groups."""


class TrainError(SecateurError):
    """Recovery could not start or go on."""


class DivergedError(TrainError):
    """Loss, gradient, weights or metric of a recovery became NaN or infinite; a lower learning
    rate may help. The best weights so far were put back."""


class RecipeError(SecateurError):
    """A recipe is not valid."""


class StorageError(SecateurError):
    """A folder could not be saved or loaded."""


class ExportError(SecateurError):
    """A target format cannot hold the model."""


class EngineError(SecateurError):
    """An engine could not run."""
