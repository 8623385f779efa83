# `make demo` and `make test` set up .venv by themselves; a second call starts at once.
SHELL := /bin/bash
PYTHON ?= $(shell python3.11 -c '' 2>/dev/null && echo python3.11 || echo python3)
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
LUNG := triton_repo/unet_lung/1/model.onnx
UNETPP := triton_repo/unetpp_lung/1/model.onnx
TRANSUNET := triton_repo/transunet_lung/1/model.onnx
SAM := triton_repo/sam_tiny_decoder/1/model.onnx
# Compiled modules are kept, or every process that a test starts compiles them once more.
unexport PYTHONDONTWRITEBYTECODE
# A third process computes while others wait for servers; a file's tests share fixtures.
WORKERS := -n 3 --dist loadfile --no-loadscope-reorder
NUCLEI := triton_repo/maskrcnn_nuclei/1/model.onnx

.PHONY: demo test test-aarch64 faults faults-server quick full lanes lint types audit sbom docs tables setup clean

demo: $(READY) $(LUNG) $(UNETPP) $(TRANSUNET) $(SAM) $(NUCLEI)  ## the Dice / latency table of the shipped models on real X-rays and cells
	$(BIN)/seg-bench run --repo triton_repo --models unet_lung,unetpp_lung,transunet_lung \
		--data tests/data/montgomery --where in-process,shared-memory,grpc,http --baseline torch --repeats 10 \
		--out out/demo/lungs.json >/dev/null
	$(BIN)/seg-bench run --repo triton_repo --models sam_tiny --data tests/data/montgomery \
		--where in-process,shared-memory --baseline torch --warm-up 1 --repeats 5 --out out/demo/sam_tiny.json >/dev/null
	$(BIN)/seg-bench run --repo triton_repo --models maskrcnn_nuclei --data tests/data/nuclei \
		--where in-process,grpc --baseline torch --repeats 6 --out out/demo/maskrcnn_nuclei.json >/dev/null
	$(BIN)/seg-bench report out/demo
	$(BIN)/seg-run segment tests/data/montgomery/images --repo triton_repo --model unet_lung -o out/masks
	$(BIN)/seg-run sam tests/data/montgomery/images/MCUCXR_0003_0.png --repo triton_repo --model sam_tiny \
		--box 45,55,245,368 --box 278,56,480,353 -o out/sam
	$(BIN)/seg-run instances tests/data/nuclei/images --repo triton_repo --model maskrcnn_nuclei -o out/nuclei
	$(BIN)/seg-bench report out/demo --format html -o out/demo.html
	@echo "table: above, out/demo.html and the records in out/demo; masks and overlays: out/masks, out/sam, out/nuclei"

test: $(READY)  ## every test; the longest where what they rest on has changed since `make full`
	$(BIN)/python -m pytest $(WORKERS)

# On Debian with qemu-user-static; 4 minutes. Writes nothing into bench/results.
test-aarch64: $(READY) $(LUNG)  ## masks of the thin install on an emulated aarch64 against this machine's
	$(BIN)/python -m microbench.aarch64 --out out/aarch64.json

# 20 minutes on two cores.
faults: $(READY)  ## malformed images, checkpoints and repositories, and kills while publishing
	$(BIN)/python -m microbench.faults_files --out bench/results/faults.json

# 8 minutes on two cores.
faults-server: $(READY)  ## a server and its clients, killed, stopped and cut off, and asked by strangers
	$(BIN)/python -m microbench.faults_server --out bench/results/faults_server.json

quick: $(READY)  ## tests without the slow ones
	$(BIN)/python -m pytest $(WORKERS) -m "not slow and not full and not lanes"

full: $(READY)  ## the longest tests where anything changed, and tests/full.json for those that pass
	$(BIN)/python -m pytest $(WORKERS) -m full --full stamp

lanes: $(READY)  ## the thin wheel with the newest and the lowest versions on Python 3.10 and 3.13
	$(BIN)/python -m pytest -n 2 --dist loadgroup --full all tests/project/test_lanes.py

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(READY)
	$(BIN)/mypy

# Exit code 1 for a known vulnerability, 3 where the advisory service could not be asked.
audit: $(READY)  ## known vulnerabilities of the versions in constraints.txt; asks pypi.org
	$(BIN)/python .ci/audit.py constraints.txt

sbom: $(READY)  ## out/sbom.json: CycloneDX of the versions in constraints.txt
	$(BIN)/python .ci/sbom.py constraints.txt out/sbom.json

docs: $(READY)  ## docs/commands.md from the commands themselves
	(for pair in seg-export:seg_export.cli.main seg-serve:seg_runtime.cli.serve seg-run:seg_runtime.cli.run \
		seg-bench:seg_bench.cli; do $(BIN)/typer $${pair#*:} utils docs --name $${pair%%:*}; done) > docs/commands.md

tables: $(READY)  ## tables of README and docs from the records that their markers name, and the schema of records
	$(BIN)/seg-bench report --update README.md
	$(BIN)/seg-bench report --update docs/results.md
	$(BIN)/seg-bench report --update docs/training.md
	$(BIN)/seg-bench schema --out docs/records.schema.json

setup: $(READY)

$(READY): pyproject.toml constraints.txt
	@echo "setting up $(VENV) with $$($(PYTHON) --version): 2 to 5 minutes, 6 GB, once"
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --disable-pip-version-check -c constraints.txt -e '.[dev]'
	# Source only: it is built with the torch that is there, and without CUDA kernels that nothing here calls.
	SAM2_BUILD_CUDA=0 $(BIN)/python -m pip install --disable-pip-version-check -c constraints.txt \
		--no-build-isolation --no-deps sam2==1.1.0
	@touch $@

$(LUNG): export/seg_export/weights/unet_lung.pth | $(READY)
	$(BIN)/seg-export unet --pretrained lung --repo triton_repo --images tests/data/montgomery/images

$(UNETPP): export/seg_export/weights/unetpp_lung.pth | $(READY)
	$(BIN)/seg-export unetpp --pretrained lung --repo triton_repo --images tests/data/montgomery/images

$(TRANSUNET): export/seg_export/weights/transunet_lung.pth | $(READY)
	$(BIN)/seg-export transunet --pretrained lung --repo triton_repo --images tests/data/montgomery/images

$(SAM): export/seg_export/weights/sam_tiny.pth | $(READY)
	$(BIN)/seg-export sam --tiny --repo triton_repo

$(NUCLEI): export/seg_export/weights/maskrcnn_nuclei.pth | $(READY)
	$(BIN)/seg-export maskrcnn --pretrained nuclei --repo triton_repo --images tests/data/nuclei/images

clean:
	rm -rf $(VENV) .artifacts out build dist triton_repo/*/[0-9]* .triton_repo.staging
