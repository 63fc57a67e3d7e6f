# Every target sets up what it needs, from a bare clone, with Python >= 3.11 and make alone.
# `make help` lists them.

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

ifndef PYTHON
PYTHON := $(shell sh tools/find-python.sh)
endif
export PYTHON
export SAM_CLI_TELEMETRY := 0
# Inside sam's own make these would point at this one's jobs.
unexport MAKEFLAGS MFLAGS MAKELEVEL

UV := .tools/uv/bin/uv --no-config --quiet
SAM := .tools/sam/bin/sam
SOURCES := functions shared cli local simulation tests tools benchmarks
WORDED := functions shared cli local tools benchmarks template.yaml docs $(wildcard *.md)

# ---- environments ------------------------------------------------------------------------------
# Each is made anew when its list, or the interpreter, is another one.

# What takes a while is announced, and says how many seconds it took.
define step
@printf '… $(1): '; began=$$(date +%s); { $(2); } || exit 1; echo "$$(($$(date +%s) - began)) s"
endef

# ministack's own requirements would install another boto3; its DynamoDB, run in process, needs none.
PACKAGE := .[stripe,cli]
MINISTACK_PIN = sed -n '/^ministack==/,/\# via/p' requirements/ministack.txt
.venv/ready: requirements/dev.txt requirements/ministack.txt pyproject.toml .tools/uv/ready
	$(call step,installing $< into .venv,$(UV) venv --clear --python $(PYTHON) .venv \
		&& $(UV) pip sync --python .venv/bin/python --require-hashes --compile-bytecode $< \
		&& $(MINISTACK_PIN) | $(UV) pip install \
			--python .venv/bin/python --no-deps --require-hashes --compile-bytecode --requirements - \
		&& $(UV) pip install --python .venv/bin/python --no-deps --no-build-isolation --editable '$(PACKAGE)')
	@touch $@

.tools/sam/ready .tools/ministack/ready .tools/awscli/ready .tools/docs/ready .tools/schemathesis/ready .tools/checkov/ready .tools/bench/ready: .tools/%/ready: requirements/%.txt .tools/uv/ready
	$(call step,installing $< into .tools/$*,$(UV) venv --clear --python $(PYTHON) .tools/$* \
		&& $(UV) pip sync --python .tools/$*/bin/python --require-hashes $<)
	@touch $@

.tools/uv/ready: requirements/uv.txt .tools/python
	$(call step,installing $< into .tools/uv,$(PYTHON) -m venv --clear .tools/uv \
		&& .tools/uv/bin/python -m pip install --quiet --require-hashes --requirement $<)
	@touch $@

.tools/python: always
	@mkdir -p $(@D)
	@echo "$(PYTHON)" | cmp -s - $@ || echo "$(PYTHON)" > $@

.PHONY: always
always:

# ---- what one does with the project ------------------------------------------------------------

# Compiled tests start seconds sooner, in each worker.
PYTEST := env -u PYTHONDONTWRITEBYTECODE .venv/bin/pytest --quiet --numprocesses auto --dist worksteal

.PHONY: test
test: .venv/ready ## unit and functional tests, with coverage; with ARGS="-k name", some of them
	$(PYTEST) $(or $(ARGS),--cov --cov-fail-under 95)

.PHONY: test-fast
test-fast: .venv/ready ## the same without coverage and exhaustive searches, while one works on the code
	$(PYTEST) -m 'not exhaustive' $(ARGS)

.PHONY: test-moto
test-moto: .venv/ready ## the functional tests again, on moto's DynamoDB, without exhaustive searches
	$(PYTEST) --dynamodb=moto -m 'not exhaustive' $(or $(ARGS),tests/stripe_integrations tests/functions)

.PHONY: check
check: .venv/ready .tools/sam/ready .tools/docs/ready ## linter, formatter, types, imports, words, template
	.venv/bin/ruff check $(SOURCES)
	.venv/bin/ruff format --check $(SOURCES)
	.venv/bin/mypy $(SOURCES)
	.venv/bin/lint-imports --no-logo
	.venv/bin/codespell $(WORDED)
	$(SAM) validate --lint
	.tools/docs/bin/python -m tools.reference --check

# Whatever git has or would take, and not the environments.
.PHONY: scan
scan: .tools/checkov/ready ## the template against the rules of an auditor, and secrets anywhere; offline
	.tools/checkov/bin/checkov --framework cloudformation secrets --enable-secret-scan-all-files \
		--skip-download --compact --quiet \
		--file $$(git ls-files --cached --others --exclude-standard)

.PHONY: demo
demo: .venv/ready .tools/sam/ready .tools/ministack/ready ## the whole story, step by step, on a local cloud
	@.venv/bin/python -m local.demo

.PHONY: serve
serve: .venv/ready .tools/sam/ready .tools/ministack/ready ## the local cloud, left running until Ctrl-C; PARAMETERS="LogLevel=DEBUG" VERBOSE=1
	@.venv/bin/python -m local.serve $(PARAMETERS)

.PHONY: invoke
invoke: .venv/ready ## one function of the local cloud that serve runs; FUNCTION=get_customer EVENT=file
	@.venv/bin/python -m local.invoke --function '$(FUNCTION)' --event '$(EVENT)'

.PHONY: sam-local-invoke
sam-local-invoke: .venv/ready .tools/sam/ready ## the same with sam local invoke, in Lambda's own container; needs Docker
	@.venv/bin/python -m tools.sam_local invoke --function '$(FUNCTION)' --event '$(EVENT)' $(ARGS)

.PHONY: sam-local-start-api
sam-local-start-api: .venv/ready .tools/sam/ready ## the API with sam local start-api, on port 3000; needs Docker
	@.venv/bin/python -m tools.sam_local start-api $(ARGS)

.PHONY: build
build: .tools/sam/ready ## the functions as they are deployed, in .aws-sam/build
	$(SAM) build

.PHONY: openapi
openapi: .venv/ready ## openapi.json anew, from the code
	.venv/bin/python -m tools.openapi

COMPILE = $(UV) pip compile --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header

.PHONY: lock
lock: .tools/uv/ready ## all requirements/*.txt anew, with the newest versions that fit
	$(COMPILE) --upgrade pyproject.toml --output-file requirements/function.txt
	$(COMPILE) --upgrade pyproject.toml --extra stripe --output-file requirements/function-stripe.txt
	for name in uv dev sam ministack awscli docs schemathesis checkov bench; do \
		$(COMPILE) --upgrade requirements/$$name.in --output-file requirements/$$name.txt || exit 1; \
	done

.PHONY: docs
docs: .tools/docs/ready ## docs/api-reference.md anew, from the docstrings
	.tools/docs/bin/python -m tools.reference

.PHONY: test-local-cloud
test-local-cloud: .venv/ready .tools/sam/ready .tools/ministack/ready .tools/awscli/ready ## races and crashes, on the deployed local cloud
	.venv/bin/pytest --quiet tests/local_cloud $(ARGS)

.PHONY: smoke
smoke: .venv/ready ## a deployed stack, called as its callers do; STACK=name ARGS="--close"
	@.venv/bin/python -m tools.smoke --stack $(or $(STACK),$(error STACK is not set)) $(ARGS)

.PHONY: simulate
simulate: .venv/ready ## random histories with faults, checked; HISTORIES=1000 SEED=1 JOBS=2
	@.venv/bin/python -m simulation --histories $(or $(HISTORIES),1000) --seed $(or $(SEED),1) \
		--jobs $(or $(JOBS),2) $(ARGS)

.PHONY: fuzz
fuzz: .venv/ready ## all functions, called with malformed input; CASES=20000 SEED=1 JOBS=2 BLOCK=7
	@.venv/bin/python -m tests.fuzz --cases $(or $(CASES),20000) --seed $(or $(SEED),1) \
		--jobs $(or $(JOBS),2) $(if $(BLOCK),--block $(BLOCK)) $(ARGS)

.PHONY: simulate-mutants
simulate-mutants: .venv/ready ## the same against mutants of the product, each of which must be caught
	@.venv/bin/python -m simulation.mutation --jobs $(or $(JOBS),2) $(ARGS)

.PHONY: bench
bench: .venv/ready .tools/sam/ready .tools/bench/ready ## cold, warm, cost, growth, stream, size; ARGS="--parts cost size --base COMMIT"
	@.venv/bin/python -m benchmarks $(ARGS)
	@.tools/bench/bin/python -m benchmarks.charts

.PHONY: bench-check
bench-check: .venv/ready .tools/bench/ready ## the numbers of calls, units, modules, log lines and bytes, against the committed ones
	@.venv/bin/python -m benchmarks.check

# ---- the same against programs that others wrote ------------------------------------------------
# Each fetches what it needs, and says NOT RUN: and why where that is not to be had.

.PHONY: test-dynamodb-local
test-dynamodb-local: .venv/ready ## the functional tests on AWS's DynamoDB Local, without exhaustive searches, and tests of its own
	@.venv/bin/python -m tools.target $@ --needs dynamodb-local -- \
		$(PYTEST) --dynamodb=local -m 'not exhaustive' \
		$(or $(ARGS),tests/stripe_integrations tests/functions tests/dynamodb_local)

.PHONY: test-contract
test-contract: .venv/ready ## every call to Stripe, against stripe-mock
	@.venv/bin/python -m tools.target $@ --needs stripe-mock -- \
		env PYTHONPATH=. $(PYTEST) --dist loadfile -p tests.stripe_mock_plugin -m 'not exhaustive' \
		tests/stripe_integrations tests/functions tests/local tests/contract $(ARGS)

.PHONY: test-sam-local
test-sam-local: .venv/ready .tools/sam/ready .tools/ministack/ready ## every function in Lambda's own container
	@.venv/bin/python -m tools.target $@ --needs docker -- \
		.venv/bin/pytest --quiet tests/sam_local $(ARGS)

.PHONY: test-browser
test-browser: .venv/ready .tools/sam/ready .tools/ministack/ready ## the console of a local cloud, in Chromium
	@.venv/bin/python -m tools.target $@ --needs chromium -- \
		.venv/bin/pytest --quiet tests/browser $(ARGS)

.PHONY: screenshots
screenshots: .venv/ready .tools/sam/ready .tools/ministack/ready ## the screenshots in docs/console anew; needs Chromium
	@.venv/bin/python -m tests.browser.screenshots

.PHONY: test-schemathesis
test-schemathesis: .venv/ready .tools/sam/ready .tools/ministack/ready .tools/schemathesis/ready ## made-up requests, on the deployed local cloud; REQUESTS=500 SEED=1
	@.venv/bin/python -m local.generated_requests --requests $(or $(REQUESTS),500) \
		--seed $(or $(SEED),1) $(ARGS)

.PHONY: clean
clean: ## remove everything that the other targets made
	rm -rf .venv .tools .build .aws-sam .coverage htmlcov .*_cache .hypothesis
	find $(SOURCES) -name __pycache__ -prune -exec rm -rf {} +

.PHONY: help
help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "make %-22s %s\n", $$1, $$2}' $(MAKEFILE_LIST)
