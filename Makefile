PYTHON ?= python3
# On Linux a plain PyPI torch brings CUDA along; PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cpu avoids that.
TORCH ?= torch==2.13.0
BIN := .venv/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check
PROTOC := $(BIN)/python -m grpc_tools.protoc -I.
PROTO := medreward/api/proto/reward.proto

.PHONY: serve setup test check generated proto

serve: .venv/.serve  ## set up and serve the default model on loopback
	$(BIN)/medreward serve $(ARGS)

test: .venv/.dev  ## set up and run all tests
	$(BIN)/python -m pytest $(ARGS)

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

.venv/bin/python:
	$(PYTHON) -m venv .venv

.venv/.serve: .venv/bin/python pyproject.toml
	$(PIP) --editable '.[cpu]'
	touch $@

.venv/.dev: .venv/.serve
	$(PIP) '$(TORCH)'
	$(PIP) --editable '.[cpu,dev]'
	touch $@
