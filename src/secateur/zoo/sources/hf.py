"""`hf:ID_OR_FOLDER`, or `hf:FOLDER#FILE.gguf`: models that transformers loads.

The class is the one named in the configuration's `architectures`. A GGUF file is dequantised to
float32, because a cut works on plain weights.
"""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import nn

from secateur.zoo.loaded import LoadedModel, LoadOptions, require

_TOKENS = 16


def load(rest: str, options: LoadOptions) -> LoadedModel:
    """Load the trained model; `weights="random"` builds the architecture only."""
    transformers = require("transformers", package="transformers", extra="hf")
    place, _, gguf = rest.partition("#")
    files: dict[str, Any] = {"gguf_file": gguf} if gguf else {}
    if gguf:
        require("gguf", package="gguf", extra="hf")
    try:
        config = transformers.AutoConfig.from_pretrained(place, **files)
    except (OSError, ValueError) as error:
        raise ValueError(
            f"transformers cannot read hf:{rest}: {str(error).splitlines()[0]}. Give the id of a "
            "model on the hub, or a folder with config.json and weights"
        ) from error
    kind = _class(transformers, config, causal=bool(gguf))

    def build() -> nn.Module:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(options.seed)
            model: nn.Module = kind(copy.deepcopy(config))
        return model.eval()

    if options.weights == "random":
        model = build()
    else:
        dtype = {"dtype": torch.float32} if gguf else {}
        model = kind.from_pretrained(place, **files, **dtype).eval()
        if gguf:
            # its weights are plain now, and would not be saved as long as it says otherwise
            del model.config.quantization_config
        config = copy.deepcopy(model.config)
    return LoadedModel(model, _example(model, options), build, place.rstrip("/").split("/")[-1])


def _class(transformers: Any, config: Any, *, causal: bool) -> Any:
    for name in config.architectures or ():
        kind = getattr(transformers, name, None)
        if kind is not None:
            return kind
    auto = transformers.AutoModelForCausalLM if causal else transformers.AutoModel
    return auto._model_mapping[type(config)]


def _example(model: Any, options: LoadOptions) -> dict[str, Any]:
    config = model.config.get_text_config()
    name = model.main_input_name
    generator = torch.Generator().manual_seed(options.seed)
    if name == "input_ids":
        shape = (options.batch, _TOKENS)
        tokens = torch.randint(0, int(config.vocab_size), shape, generator=generator)
        example: dict[str, Any] = {"input_ids": tokens, "attention_mask": torch.ones_like(tokens)}
        if model.config.is_encoder_decoder:
            example["decoder_input_ids"] = tokens.clone()
        if getattr(config, "use_cache", None):
            example["use_cache"] = False  # a cache is not part of what is compared
        return example
    if name == "pixel_values":
        size = options.image_size or model.config.image_size
        height, width = (size, size) if isinstance(size, int) else size
        shape4 = (options.batch, model.config.num_channels, height, width)
        return {name: torch.randn(shape4, generator=generator)}
    raise ValueError(
        f"no example inputs can be derived for {type(model).__name__}, which takes {name!r}; "
        "write a function that returns (model, example_inputs) and give it as "
        "python.module:function"
    )
