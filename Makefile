.PHONY: help check zoo zoo-exports

PYTHON ?= python3
ZOO := .venv-zoo

help:
	@echo "make check all that must hold before a change lands, from scratch (.ci/run)"
	@echo "make zoo   resize the foreign models of tests/zoo and prove each equal"
	@echo "make zoo-exports export them, dense and halved, and run the files beside JAX"

zoo: $(ZOO)/installed
	PYTHONPATH=.:tests $(ZOO)/bin/python tests/zoo/run.py --out=results/zoo.json $(ARGS)

zoo-exports: $(ZOO)/installed
	PYTHONPATH=.:tests $(ZOO)/bin/python tests/zoo/exported.py --out=results/zoo_exports.json $(ARGS)

check:
	.ci/run

$(ZOO)/installed: tests/zoo/requirements.txt constraints.txt pyproject.toml
	$(PYTHON) -m venv $(ZOO)
	$(ZOO)/bin/pip install --quiet -c constraints.txt -e '.[plots,export]'
	$(ZOO)/bin/pip install --quiet --no-deps -r tests/zoo/requirements.txt
	touch $@
