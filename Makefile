# make demo    draw images with the bundled model: out/demo.png
# make test    lint, type check and tests
# make docs    the documentation site: out/site/index.html
# make report-shot    a small sweep, its report and a picture of it in Chromium: out/report/report.png
# make wheel   the sdist and the wheel in dist/, checked, and the wheel used in an empty environment
# make release    the same, where nothing is left that only the owner knows
# Each sets up .venv by itself when that is missing or older than pyproject.toml or constraints.txt.

PYTHON ?= python3
VENV := .venv
READY := $(VENV)/ready

.PHONY: demo test lint docs report-shot wheel release clean

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

wheel:
	rm -rf dist build/release
	$(PYTHON) -m venv --clear build/release/tools
	build/release/tools/bin/python -m pip install --quiet build twine check-wheel-contents
	build/release/tools/bin/pyproject-build
	build/release/tools/bin/twine check --strict dist/*
	build/release/tools/bin/check-wheel-contents --ignore W002 dist/*.whl  # twice: the tokenizer, in both folders of text models
	$(PYTHON) -m venv --clear build/release/empty
	build/release/empty/bin/python -m pip install --quiet -c constraints.txt dist/*.whl
	cd build/release && empty/bin/restart-sampling --version && empty/bin/restart-sampling plan --list \
	    && empty/bin/restart-sampling generate --model cifar10-small --plan 3 --seeds 0-3 --out images \
	    && empty/bin/python -m restart_sampling doctor
	ls -l dist

# The files are those of CONTRIBUTING.md, 'Before a release'.
release:
	@if grep -Hn OWNER pyproject.toml integrations/comfyui/pyproject.toml CITATION.cff mkdocs.yml; then \
	    echo "these lines have to name the owner before a release; see CONTRIBUTING.md, or make wheel for a trial" >&2; exit 2; fi
	$(MAKE) wheel

clean:
	rm -rf $(VENV) build dist out src/*.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis

$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(None if sys.version_info >= (3, 11) else \
	    "Python 3.11 or newer is needed, this is %d.%d; name one: make PYTHON=python3.12" % sys.version_info[:2])'
	$(PYTHON) -m venv --clear $(VENV)
	$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $(READY)
