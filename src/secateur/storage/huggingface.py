"""Hugging Face folders: a cut transformers model that plain `from_pretrained` loads again.

A configuration can express a cut when some values of its integers give every tensor its new
shape; which ones is inferred from the architecture's own constructor (`config_shapes`). What was
written is read back with `from_pretrained` and compared before the folder takes its place.
This is the only file that imports transformers.
"""

from __future__ import annotations

import copy
import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from secateur.core.atomic import replacing_folder
from secateur.core.dims import new_size
from secateur.core.errors import StorageError
from secateur.core.expressions import Field, Relation
from secateur.core.fingerprint import named_tensors
from secateur.core.graph import Graph
from secateur.core.plan import Plan
from secateur.storage.config_fields import with_values
from secateur.storage.config_relations import equations, relations
from secateur.storage.config_shapes import ConfigShapes, config_shapes
from secateur.storage.config_solve import Demand, solve
from secateur.storage.layout import describe, refuse_foreign, write_evidence
from secateur.storage.manifest import NAME, Manifest
from secateur.storage.state import first_few

_TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "tokenizer.model",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.txt",
    "vocab.json",
    "merges.txt",
    "chat_template.jinja",
    "preprocessor_config.json",
)
_ADVICE = "plan on secateur.storage.huggingface.expressible(graph, model) instead of on the graph"


class CannotExpressError(StorageError):
    """No values of the configuration's integers give the model's shapes."""


def is_pretrained(model: nn.Module) -> bool:
    """Whether transformers wrote this model's class; does not import transformers.

    >>> is_pretrained(nn.Linear(1, 1))
    False
    """
    return any(
        kind.__name__ == "PreTrainedModel" and kind.__module__ == "transformers.modeling_utils"
        for kind in type(model).__mro__
    )


def config_relations(
    model: nn.Module, graph: Graph
) -> tuple[tuple[Relation, ...], dict[Field, int]]:
    """What must hold between the graph's sizes and the configuration's integers for
    `save_pretrained` to succeed, and those integers with their present values.

    Raises: ValueError when `model` is no transformers model.
    """
    return relations(_symbolic(model, _config_of(model)), graph)


def expressible(graph: Graph, model: nn.Module) -> Graph:
    """The graph with `config_relations` added: whatever is planned on it can be saved for plain
    `from_pretrained`.
    """
    found, fields = config_relations(model, graph)
    return replace(graph, relations=(*graph.relations, *found), fields={**graph.fields, **fields})


def save_pretrained(
    model: nn.Module,
    folder: str | Path,
    *,
    plan: Plan | None = None,
    example: Any = None,
    tokenizer: Any = None,
    source: str | None = None,
) -> None:
    """Write a folder that plain `from_pretrained` loads, with plan.json and manifest.json beside.

    tokenizer: saved beside the model; without one, tokenizer files of the folder that the model
    came from are copied.
    Raises: CannotExpressError when the configuration cannot express the cut, naming tensors and
    the constraint that would make it possible; StorageError when the folder cannot be written.
    """
    folder = Path(folder)
    refuse_foreign(folder)
    shell = _rebuilt(model, expressing_config(model, plan=plan))
    with replacing_folder(folder) as beside:
        shell.save_pretrained(beside)
        _save_tokenizer(model, tokenizer, beside)
        write_evidence(beside, plan=plan, example=example)
        _check_reads_back(model, beside)
        manifest = describe(model, beside, kind="huggingface", plan=plan, source=source)
        (beside / NAME).write_text(manifest.to_json(), encoding="utf-8")


def load_pretrained(folder: Path, manifest: Manifest) -> nn.Module:
    """The model of a folder whose files were checked against `manifest`.

    Raises: StorageError when transformers has no such class.
    """
    import transformers

    name = manifest.model_class.rsplit(".", 1)[-1]
    kind = getattr(transformers, name, None)
    if kind is None:
        raise StorageError(
            f"transformers {transformers.__version__} has no class {name}, which {folder} needs; "
            "update it: pip install -U transformers"
        )
    model: nn.Module = kind.from_pretrained(folder)
    return model


def expressing_config(model: nn.Module, *, plan: Plan | None = None) -> Any:
    """A configuration with which the model's class builds exactly the model's shapes.

    Raises: CannotExpressError naming what cannot be expressed.
    """
    config = _config_of(model)
    if plan is not None:
        plan = plan.renamed()
        nested = _config_class()
        before = {c.field: c.before for c in plan.changes if c.field.name.startswith("config.")}
        with_values(config, nested=nested, values=before)
    shapes = _symbolic(model, copy.deepcopy(config))
    demands = _demands(model, shapes, plan)
    solution = solve(demands, shapes.conditions, shapes.fields)
    if solution.conflicts:
        raise CannotExpressError(
            f"{type(config).__name__} cannot express this {type(model).__name__}: "
            f"{first_few(list(solution.conflicts))}. To load it with plain from_pretrained, "
            f"{_ADVICE}; or save it as a folder that secateur loads"
        )
    changed = {f: v for f, v in solution.values.items() if v != shapes.fields[f]}
    with_values(config, nested=_config_class(), values=changed)
    return config


def _demands(model: nn.Module, shapes: ConfigShapes, plan: Plan | None) -> list[Demand]:
    changed: Mapping[str, Any] = {} if plan is None else plan.tensors
    counts = {} if plan is None else plan.counts()
    demands = [
        Demand(expression, new_size(dim, counts), name)
        for expression, dim, name in equations(shapes, changed)
    ]
    for name, tensor in model.state_dict(keep_vars=True).items():
        if name not in changed:
            sizes = zip(shapes.tensors.get(name, ()), tensor.shape, strict=False)
            demands += [Demand(expression, size, name) for expression, size in sizes]
    for change in () if plan is None else plan.changes:
        expression = shapes.attributes.get(change.field)
        expression = change.field if change.field in shapes.fields else expression
        if expression is not None:
            demands.append(Demand(expression, change.after, str(change.field)))
    return demands


def _rebuilt(model: nn.Module, config: Any) -> Any:
    """A model built from `config` that holds the tensors of `model`, without copying them."""
    with torch.device("meta"):
        shell: Any = type(model)(config)
    state = model.state_dict()
    wrong = [
        f"{name} would be {tuple(tensor.shape)}, is {_shape(state.get(name))}"
        for name, tensor in shell.state_dict().items()
        if name not in state or state[name].shape != tensor.shape
    ]
    wrong += [f"{name} would not exist" for name in state if name not in shell.state_dict()]
    if wrong:
        raise CannotExpressError(
            f"{type(config).__name__} cannot express this {type(model).__name__}: "
            f"{first_few(wrong)}. To load it with plain from_pretrained, {_ADVICE}; or save it as "
            "a folder that secateur loads"
        )
    shell.load_state_dict(state, strict=True, assign=True)
    shell.tie_weights()
    shell.generation_config = getattr(model, "generation_config", None)
    return shell


def _check_reads_back(model: nn.Module, folder: Path) -> None:
    """Raises: StorageError when `from_pretrained` gives other tensors than the model has."""
    kind: Any = type(model)
    read = kind.from_pretrained(folder)
    held = dict(named_tensors(read))
    stored = model.state_dict().keys()
    wrong = [
        name
        for name, tensor in named_tensors(model)
        if name not in held or not _same(held[name], tensor, same_dtype=name in stored)
    ]
    wrong += _differing_numbers(model, read)
    if wrong:
        raise CannotExpressError(
            f"from_pretrained would rebuild {first_few(wrong)} with other values than the cut "
            f"model has: its code computes them from the configuration. To keep them, {_ADVICE}; "
            "or save it as a folder that secateur loads"
        )


def _differing_numbers(model: nn.Module, read: nn.Module) -> list[str]:
    """Float attributes, such as attention scales, that the two models do not share."""
    return [
        f"{name}.{attribute} ({getattr(other, attribute, None)}, not {value})"
        for (name, module), other in zip(model.named_modules(), read.modules(), strict=True)
        for attribute, value in vars(module).items()
        if isinstance(value, float) and getattr(other, attribute, None) != value
    ]


def _same(read: Tensor, held: Tensor, *, same_dtype: bool) -> bool:
    # a buffer that code computes may be read in more precision than `model.to(bfloat16)` left it
    held = held.detach().to(read.device)
    if same_dtype and read.dtype != held.dtype:
        return False
    return torch.equal(read.to(held.dtype), held)


def _save_tokenizer(model: nn.Module, tokenizer: Any, folder: Path) -> None:
    if tokenizer is not None:
        tokenizer.save_pretrained(folder)
        return
    origin = Path(str(getattr(model, "name_or_path", "") or ""))
    for name in _TOKENIZER_FILES:
        if origin.is_dir() and (origin / name).is_file() and str(origin) != "":
            shutil.copyfile(origin / name, folder / name)


def _symbolic(model: nn.Module, config: Any) -> ConfigShapes:
    names = {type(module).__module__ for module in model.modules()} | {type(config).__module__}
    names = {name for name in names if not name.startswith("torch.")}
    return config_shapes(type(model), config, nested=_config_class(), module_names=names)


def _config_of(model: nn.Module) -> Any:
    if not is_pretrained(model):
        raise ValueError(
            f"{type(model).__name__} is no transformers model; its layout has no configuration"
        )
    config: Any = copy.deepcopy(model.config)
    quantization = getattr(config, "quantization_config", None)
    if quantization is not None:
        method = getattr(quantization, "quant_method", quantization)
        if str(getattr(method, "value", method)) != "gguf":
            raise StorageError(
                f"{type(model).__name__} is quantized with {method}; load its weights in float to "
                "cut and save it, and quantize the result"
            )
        del config.quantization_config  # a GGUF file is dequantized when it is loaded
    return config


def _config_class() -> type:
    import transformers

    kind: type = transformers.PretrainedConfig  # the name that versions 4 and 5 share
    return kind


def _shape(tensor: Tensor | None) -> str:
    return "absent" if tensor is None else str(tuple(tensor.shape))
