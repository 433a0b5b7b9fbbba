"""Where models and data come from: one source a file, found by the word before the colon.

`models.load_model("torchvision:resnet18")` and `data.load_data("digits")` are the entrances.
"""
