# make demo    draw images with the bundled model: out/demo.png
# make test    lint, type check and tests
# make docs    the documentation site: out/site/index.html
# make report-shot    a small sweep, its report and a picture of it in Chromium: out/report/report.png
# Each sets up .venv by itself when that is missing or older than pyproject.toml or constraints.txt.

PYTHON ?= python3
VENV := .venv
READY := $(VENV)/ready

.PHONY: demo test lint docs report-shot clean

demo: $(READY)
	$(VENV)/bin/restart-sampling demo --out out/demo.png

test: lint
	OMP_NUM_THREADS=1 $(VENV)/bin/python -m pytest -n auto --dist worksteal

lint: $(READY)
	$(VENV)/bin/ruff check
	$(VENV)/bin/ruff format --check
	$(VENV)/bin/mypy

docs: $(READY)
	OMP_NUM_THREADS=1 NO_MKDOCS_2_WARNING=1 $(VENV)/bin/python -m mkdocs build

report-shot: $(READY)
	PYTHONPATH=tests $(VENV)/bin/python tests/pictures/report_shot.py out/report

clean:
	rm -rf $(VENV) build dist out src/*.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis

$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(None if sys.version_info >= (3, 11) else \
	    "Python 3.11 or newer is needed, this is %d.%d; name one: make PYTHON=python3.12" % sys.version_info[:2])'
	$(PYTHON) -m venv --clear $(VENV)
	$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $(READY)
