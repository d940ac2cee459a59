# make demo   the main job on the bundled ResNet-20, from nothing to a report
# make test   the tests; make slow, those that take minutes; make gpu, those that need a GPU
# Each sets up .venv first where that was not done.
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt
EXTRAS := torch,onnxruntime,openvino,rtx,test
# in as many processes as there are cores, four at the most (tests/conftest.py says how)
SPREAD := -n auto --maxprocesses 4 --dist loadgroup
NATIVE := '*.h' '*.cpp' '*.cu' '*.c'
DEMO := build/resnet20-int8.dlcv

.PHONY: demo test slow gpu setup lint types format clean

setup: $(VENV)/.ready

$(VENV)/.ready: pyproject.toml constraints.txt
	python3 -m venv $(VENV)
	$(PIP) --editable '.[$(EXTRAS)]'
	touch $@

# kernel-lens carries TensorRT's headers, which the tests compile the plugin against; nothing else of it is used
$(VENV)/.plugin: $(VENV)/.ready
	$(PIP) --editable '.[$(EXTRAS),plugin,service]'
	$(PIP) --no-deps kernel-lens
	touch $@

demo: setup
	mkdir -p build
	$(BIN)/dlcv-deploy build resnet20 --int8 --target openvino --target tensorrt_rtx --output $(DEMO) --force

test: $(VENV)/.plugin
	OMP_WAIT_POLICY=passive $(BIN)/python -m pytest -q $(SPREAD) -m 'not slow'

slow: $(VENV)/.plugin
	$(BIN)/python -m pytest -q -m slow

gpu: $(VENV)/.plugin
	DLCV_REQUIRE=gpu $(BIN)/python -m pytest -q -m gpu

$(VENV)/.dev: $(VENV)/.ready
	$(PIP) --editable '.[$(EXTRAS),dev]'
	$(PIP) --no-deps tensorrt-stubs
	touch $@

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	git ls-files $(NATIVE) | xargs $(BIN)/clang-format --dry-run --Werror

format: $(VENV)/.dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	git ls-files $(NATIVE) | xargs $(BIN)/clang-format -i

# models/ and calibration/ are parts of the package once installed, so that is how they are checked; then what is used
# of TensorRT, against its published stubs
types: $(VENV)/.dev
	rm -rf build/typed build/lib
	$(PIP) --no-deps --target build/typed .
	cd build/typed && $(abspath $(BIN))/mypy --config-file ../../pyproject.toml -p dlcv_deploy
	DLCV_REQUIRE=mypy $(BIN)/python -m pytest -q tests/contract/test_trt_surface.py

clean:
	rm -rf $(VENV) build *.egg-info
