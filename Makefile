PYTHON ?= python3
# Installed instead of the locked torch, where another build is wanted; for a processor's build of it on Linux:
# PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cpu
TORCH ?= --requirement deploy/locks/torch.txt
# Tests run in one process more than the machine has cores, for much of their time is waiting; JOBS=0 runs them in one.
JOBS ?= $(shell $(PYTHON) -c 'import os; print(len(os.sched_getaffinity(0)) + 1)')
BIN := .venv/bin
PIP := python -m pip install --quiet --disable-pip-version-check
LOCKED := --no-deps --require-hashes --requirement deploy/locks
PYTEST := python -m pytest --numprocesses $(JOBS) --dist loadfile
PROTOC := $(BIN)/python -m grpc_tools.protoc -I.
PROTO := medreward/proto/reward.proto medreward/proto/inference.proto
TOOLS := .venv/tools/bin
LOCK := deploy/locks/serve.txt
# The trainers' wheels fit one place. Elsewhere the tests of their own clients are left out, and pytest's report says so.
PLACE := $(shell $(PYTHON) -c 'import platform, sys; print(*sys.version_info[:2], sys.platform, platform.machine(), sep="-")')
TRAINERS := $(if $(filter 3-11-linux-x86_64,$(PLACE)),.venv/trainers/.made)

.PHONY: serve test quick image-test image-test-all ray ray-test trainers peers peers-test setup check lint-deploy generated proto lock newest floors audit sbom

serve: .venv/.serve  ## set up and serve the default model on loopback
	$(BIN)/medreward serve $(ARGS)

test: .venv/.test $(TRAINERS)  ## set up and run all tests
	$(BIN)/$(PYTEST) $(ARGS)

quick: .venv/.test  ## the tests of a minute, without torch, for while you work
	$(BIN)/$(PYTEST) --quick $(ARGS)

image-test: .venv/.test  ## build the CPU image and run it; needs root, buildah, debootstrap and strace
	$(BIN)/python -m pytest -m "image and not large" tests/deploy/test_image.py $(ARGS)

image-test-all: .venv/.test  ## build all four images and run them: 25 GB of disk, half an hour or more
	$(BIN)/python -m pytest -m image tests/deploy/test_image.py $(ARGS)

ray: .venv/ray/.made  ## Ray, for the tests of a real cluster, on top of .venv

ray-test: .venv/.test .venv/ray/.made  ## the service and score-file on a real Ray cluster of this machine
	$(BIN)/python -m pytest -m ray tests/scale $(ARGS)

trainers: .venv/trainers/.made  ## the trainers whose own clients the tests run, on top of .venv

peers: .venv/peers/.made  ## vLLM and LitServe, which loadtest/ measures beside us, apart from .venv; 2.5 GB

peers-test: .venv/.test .venv/peers/.made  ## scores of `--backend vllm` beside transformers', in some minutes
	$(BIN)/python -m pytest -m vllm tests/backends/test_vllm.py $(ARGS)

setup: .venv/.test  ## everything for working on the code

check: .venv/.test  ## lint, imports, types, generated files
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports --no-cache
	$(BIN)/mypy
	mkdir -p .venv/made/docs
	$(BIN)/python docs/generate.py .venv/made/docs
	cd service && ../$(PROTOC) --python_out=../.venv/made --pyi_out=../.venv/made --grpc_python_out=../.venv/made $(PROTO)
	mkdir -p .venv/made/deploy/grafana
	$(BIN)/python deploy/dashboards.py .venv/made/deploy/grafana
	$(BIN)/python deploy/chart.py .venv/made
	diff docs/openapi.json .venv/made/docs/openapi.json
	diff docs/settings.md .venv/made/docs/settings.md
	diff docs/policy.schema.json .venv/made/docs/policy.schema.json
	for file in .venv/made/medreward/proto/*; do diff service/medreward/proto/$${file##*/} $$file || exit 1; done
	for file in serving scores release; do \
		diff deploy/grafana/$$file.json .venv/made/deploy/grafana/$$file.json || exit 1; done
	for file in values.schema.json README.md files/medreward.rules.yml files/dashboards; do \
		diff -r helm/medreward/$$file .venv/made/helm/medreward/$$file || exit 1; done

lint-deploy: .venv/.test .venv/lint/.made  ## hadolint, checkov and schemas on images, chart, compose and CI examples
	$(BIN)/python deploy/lint.py

generated: proto  ## everything that is made from something else
	$(BIN)/python docs/generate.py docs
	$(BIN)/python deploy/dashboards.py deploy/grafana
	$(BIN)/python deploy/chart.py .

proto: .venv/.test  ## the gRPC code from the .proto
	cd service && ../$(PROTOC) --python_out=. --pyi_out=. --grpc_python_out=. $(PROTO)

lock: .venv/tools/.made  ## the lock files of all environments; UPGRADE=1 takes the newest versions
	$(TOOLS)/python deploy/environments.py lock $(if $(UPGRADE),--upgrade)

newest floors: .venv/tools/.made $(TRAINERS)  ## all tests with the newest, or the lowest, versions of everything, apart from .venv
	$(TOOLS)/python deploy/environments.py resolve $@ .venv/$@.txt
	$(PYTHON) -m venv --clear .venv/$@
	.venv/$@/bin/$(PIP) --no-deps --requirement deploy/locks/build.txt
	.venv/$@/bin/$(PIP) --no-deps --requirement .venv/$@.txt
	.venv/$@/bin/$(PIP) $(TORCH)
	.venv/$@/bin/$(PIP) --no-deps --no-build-isolation --editable .
	.venv/$@/bin/$(PYTEST) -W default $(ARGS)

audit: .venv/tools/.made  ## known vulnerabilities of what is locked: error 1 if there are any, 3 if nobody could tell
	deploy/audit $(TOOLS)/pip-audit $(LOCK)

sbom: .venv/tools/.made  ## dist/medreward.cdx.json: what is locked and what needs what, CycloneDX
	deploy/sbom $(TOOLS) $(LOCK) dist/medreward.cdx.json

.venv/tools/.made: deploy/locks/tools.txt
	$(PYTHON) -m venv .venv/tools
	$(TOOLS)/$(PIP) $(LOCKED)/tools.txt
	touch $@

.venv/lint/.made: deploy/locks/lint.txt
	$(PYTHON) -m venv .venv/lint
	.venv/lint/bin/$(PIP) $(LOCKED)/lint.txt
	touch $@

.venv/bin/python:
	$(PYTHON) -m venv .venv

.venv/.serve: .venv/bin/python pyproject.toml deploy/locks/build.txt deploy/locks/serve.txt
	$(BIN)/$(PIP) $(LOCKED)/build.txt --requirement deploy/locks/serve.txt
	$(BIN)/$(PIP) --no-deps --no-build-isolation --editable .
	touch $@

.venv/.test: .venv/.serve deploy/locks/test.txt deploy/locks/torch.txt
	$(BIN)/$(PIP) $(LOCKED)/test.txt
	$(BIN)/$(PIP) $(TORCH)
	$(BIN)/python -m pip check
	touch $@

# No test needs it. torchvision is there for vLLM's image processors; it has no hash, as torch has none: each place
# offers its own build.
.venv/peers/.made: deploy/locks/peers.txt deploy/locks/torch.txt deploy/peers/torchvision_names.py
	$(PYTHON) -m venv --clear .venv/peers
	.venv/peers/bin/$(PIP) $(LOCKED)/peers.txt
	.venv/peers/bin/$(PIP) $(TORCH) torchvision==0.28.0
	packages=$$(.venv/peers/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))'); \
		cp deploy/peers/torchvision_names.py $$packages; echo 'import torchvision_names' > $$packages/torchvision_names.pth
	touch $@

# They see what .venv holds, so that torch is not installed twice; what both hold is taken from here.
.venv/trainers/.made .venv/ray/.made: .venv/%/.made: .venv/.test deploy/locks/%.txt
	$(BIN)/python -m venv --clear --without-pip .venv/$*
	$(BIN)/python -c 'import sysconfig; print("import site; site.addsitedir(%r)" % sysconfig.get_path("purelib"))' \
		> "$$(.venv/$*/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/beside.pth"
	.venv/$*/bin/$(PIP) --no-compile --no-build-isolation $(LOCKED)/$*.txt
	touch $@
