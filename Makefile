PYTHON ?= python3
# On Linux a plain PyPI torch brings CUDA along; PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cpu avoids that.
TORCH ?= torch==2.13.0
BIN := .venv/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check
PROTOC := $(BIN)/python -m grpc_tools.protoc -I.
PROTO := medreward/api/proto/reward.proto

TOOLS := .venv/tools/bin
LOCK := deploy/requirements-cpu.txt

.PHONY: serve setup test check generated proto lock audit sbom

serve: .venv/.serve  ## set up and serve the default model on loopback
	$(BIN)/medreward serve $(ARGS)

test: .venv/.dev  ## set up and run all tests; one that fails is repeated once, and listed
	$(BIN)/python -m pytest --reruns 1 -raR $(ARGS)

setup: .venv/.dev  ## everything for working on the code

check: .venv/.dev  ## lint, types, generated files
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	mkdir -p .venv/made/docs
	$(BIN)/python docs/generate.py .venv/made/docs
	cd service && ../$(PROTOC) --python_out=../.venv/made --pyi_out=../.venv/made --grpc_python_out=../.venv/made $(PROTO)
	diff docs/openapi.json .venv/made/docs/openapi.json
	diff docs/settings.md .venv/made/docs/settings.md
	for file in reward_pb2.py reward_pb2.pyi reward_pb2_grpc.py; do \
		diff service/medreward/api/proto/$$file .venv/made/medreward/api/proto/$$file || exit 1; done

generated: proto  ## everything that is made from something else
	$(BIN)/python docs/generate.py docs

proto: .venv/.dev  ## the gRPC code from the .proto
	cd service && ../$(PROTOC) --python_out=. --pyi_out=. --grpc_python_out=. $(PROTO)

lock: .venv/tools/.made  ## the deployment's packages, each by version and hash; resolved by the Python that runs this
	mkdir -p deploy
	$(TOOLS)/pip-compile --quiet --generate-hashes --strip-extras --no-header --no-emit-index-url --no-emit-find-links \
		--no-emit-trusted-host --unsafe-package medreward --extra cpu --output-file $(LOCK) pyproject.toml
	sed -i '/^# WARNING/,$$d' $(LOCK)

audit: .venv/tools/.made  ## known vulnerabilities of what is locked: error 1 if there are any, 3 if nobody could tell
	deploy/audit $(TOOLS)/pip-audit $(LOCK)

sbom: .venv/tools/.made  ## dist/medreward.cdx.json: what is locked and what needs what, CycloneDX
	deploy/sbom $(TOOLS) $(LOCK) dist/medreward.cdx.json

.venv/tools/.made:
	$(PYTHON) -m venv .venv/tools
	$(TOOLS)/python -m pip install --quiet --disable-pip-version-check 'pip-audit>=2.9' 'pip-tools>=7.5' 'cyclonedx-bom>=7.1'
	touch $@

.venv/bin/python:
	$(PYTHON) -m venv .venv

.venv/.serve: .venv/bin/python pyproject.toml
	$(PIP) --editable '.[cpu]'
	touch $@

.venv/.dev: .venv/.serve
	$(PIP) '$(TORCH)'
	$(PIP) --editable '.[cpu,dev]'
	touch $@
