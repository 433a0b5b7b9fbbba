"""Saved models: a folder of safetensors, plan and manifest, read back with checks and no pickle.

`folder` saves and loads any module; `huggingface` does so in the layout that plain transformers
reads, when the model's config can express the cut.
"""

from secateur.storage.folder import load, save

__all__ = ["load", "save"]
