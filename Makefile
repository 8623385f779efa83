# `make demo` and `make test` set up .venv by themselves; a second call starts at once.
SHELL := /bin/bash
PYTHON ?= $(shell python3.11 -c '' 2>/dev/null && echo python3.11 || echo python3)
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
LUNG := triton_repo/unet_lung/1/model.onnx

.PHONY: demo test quick lint types docs setup clean

demo: $(READY) $(LUNG)  ## the Dice / latency table of the lung U-Net on real X-rays, in process and on Triton
	$(BIN)/seg-bench run --repo triton_repo --models unet_lung --data tests/data/montgomery \
		--where in-process,shared-memory,grpc,http --baseline torch --repeats 10 --out out/demo.json
	$(BIN)/seg-run segment tests/data/montgomery/images --repo triton_repo --model unet_lung -o out/masks
	$(BIN)/seg-bench report out/demo.json --format html -o out/demo.html
	@echo "table: above, out/demo.json and out/demo.html; masks and overlays: out/masks"

test: $(READY)  ## every test, slow ones too
	$(BIN)/python -m pytest

quick: $(READY)  ## tests without the slow ones
	$(BIN)/python -m pytest -m "not slow"

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(READY)
	$(BIN)/mypy

docs: $(READY)  ## docs/commands.md from the commands themselves
	(for pair in seg-export:seg_export.cli seg-serve:seg_runtime.cli.serve seg-run:seg_runtime.cli.run \
		seg-bench:seg_bench.cli; do $(BIN)/typer $${pair#*:} utils docs --name $${pair%%:*}; done) > docs/commands.md

setup: $(READY)

$(READY): pyproject.toml constraints.txt
	@echo "setting up $(VENV) with $$($(PYTHON) --version): 2 to 5 minutes, 6 GB, once"
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@

$(LUNG): export/seg_export/weights/unet_lung.pth | $(READY)
	$(BIN)/seg-export unet --pretrained lung --repo triton_repo --images tests/data/montgomery/images

clean:
	rm -rf $(VENV) out build dist triton_repo/*/[0-9]* .triton_repo.staging
