# Every target is a plain command on the project's own virtual environment.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: help install demo quick site journeys npm lint types test alone zoo mutants hostile fuzz bits devices arm bench clean

help: ## this text
	@sed -n 's/^\([a-z]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 10

$(VENV)/all: pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --editable '.[all]'
	touch $@

$(VENV)/dev: $(VENV)/all
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	touch $@

$(VENV)/docs: pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --editable '.[docs]'
	touch $@

$(VENV)/quick: pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --editable '.[quick]'
	touch $@

install: $(VENV)/all ## a virtual environment with steprnn[all]

demo: install ## train, export, check and generate on the embedded lyrics (under a minute)
	$(BIN)/steprnn demo

quick: $(VENV)/quick ## style and the tests that need no TensorFlow (90 seconds; sets up 370 MB)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pytest --numprocesses 2 --dist loadfile tests/runtime tests/tiny tests/test_docs.py tests/test_project.py tests/test_isolation.py --ignore tests/runtime/bench

site: $(VENV)/docs ## the documentation as a site, in build/site/html (seconds; warnings are errors)
	$(BIN)/python docs/site/stage.py

journeys: ## the tutorials, run in a clean clone as a new user meets them (ten minutes, 2.8 GB)
	$(PYTHON) tests/journeys/run.py

npm: $(VENV)/dev ## the package for npm in Node.js, Vite and TypeScript (a minute, 250 MB from npm)
	STEPRNN_NPM=1 $(BIN)/pytest tests/web/test_npm.py

lint: $(VENV)/dev ## ruff: style, and that the runtime imports nothing heavy
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/dev ## mypy --strict
	$(BIN)/mypy

test: $(VENV)/dev alone ## every test, and the runtime alone with each engine
	$(BIN)/pytest --numprocesses 2 --dist loadfile

alone: $(VENV)/dev ## the runtime without TensorFlow: one clean environment for each engine
	$(BIN)/python tests/alone.py

zoo: $(VENV)/dev ## every published model of docs/models.md, exported and held against its framework (half an hour)
	STEPRNN_ZOO=all $(BIN)/pytest tests/zoo

mutants: $(VENV)/dev ## which changes of the code the nearest tests notice (an hour; see CONTRIBUTING.md)
	$(BIN)/python -m pip install --quiet --editable '.[mutants]'
	$(BIN)/python tests/mutants.py runtime
	$(BIN)/python tests/mutants.py step

MUTANTS ?= 7000
KILLS ?= 1000
STEPS ?= 5000000
hostile: $(VENV)/dev ## mutants, kills, ten times the load, millions of steps (three hours; MUTANTS= of each kind, KILLS=, STEPS=)
	$(BIN)/python tests/hostile/layers.py build/graphs
	$(BIN)/python tests/hostile/fuzz.py --count $(MUTANTS) --graphs build/graphs; mutants=$$?; \
	$(BIN)/python tests/hostile/kill.py --kills $(KILLS); kills=$$?; \
	$(BIN)/python tests/hostile/steps.py tests/tiny/bundle --steps $(STEPS); steps=$$?; \
	$(BIN)/python tests/hostile/overload.py tests/tiny/bundle --tokens 1000 --seconds 30; load=$$?; \
	test $$mutants$$kills$$steps$$load = 0000  # each is run, whatever came of the one before

PROGRAMS ?= 10000000
fuzz: $(VENV)/dev ## damaged step programs against the interpreter, under sanitizers (minutes; PROGRAMS=how many)
	$(BIN)/python tests/hostile/programs.py --count $(PROGRAMS)

bits: $(VENV)/dev ## step programs give the same bits with each compiler, kernel and processor that is here
	STEPRNN_BITS=all $(BIN)/pytest -rs tests/export/program/test_bits.py

devices: $(VENV)/dev ## packaged models on emulated boards, and the tables of docs/devices.md (ten minutes)
	$(BIN)/python tests/devices/table.py docs/devices.md

BUNDLE ?=
arm: $(VENV)/dev ## the runtime under Linux on emulated Arm and RISC-V (fifteen minutes; BUNDLE=another to check)
	$(BIN)/python tests/devices/arm.py $(BUNDLE) --tables docs/devices.md

build/program-errors: benchmarks/program_errors.c runtime/steprnn/runtime/engines/native/functions.h
	mkdir -p build
	cc -O3 -ffp-contract=off -march=native -I runtime/steprnn/runtime/engines/native -o $@ $< -lm

build/lyrics.bundle: $(VENV)/all
	rm -rf $@
	$(BIN)/steprnn train --out build/checkpoint --overwrite --quiet
	$(BIN)/steprnn export build/checkpoint --out $@ --quantize none,float16,int8,int8-weights \
		--formats saved_model,tflite,onnx,program

bench: build/lyrics.bundle ## the figures, tables and picture of docs/measured.md (18 minutes on a quiet machine)
	$(BIN)/python -m pip install --quiet --editable '.[bench]'
	$(BIN)/python benchmarks/steps.py build/checkpoint build/lyrics.bundle --tables docs/measured.md
	$(BIN)/python benchmarks/threads.py build/lyrics.bundle --tables docs/measured.md
	$(BIN)/python benchmarks/sizes.py --tables docs/measured.md --picture docs/cost.svg
	$(BIN)/python benchmarks/serve.py build/lyrics.bundle
	$(BIN)/python benchmarks/rows.py build/lyrics.bundle --rows 20000 --tables docs/measured.md
	$(BIN)/python benchmarks/train.py
	XDG_CACHE_HOME=build/zig CC="$(abspath $(BIN))/python -m ziglang cc" $(BIN)/python benchmarks/program.py --tables docs/measured.md README.md README.zh-CN.md

clean: ## remove the virtual environment and what demo wrote
	rm -rf $(VENV) build demo
