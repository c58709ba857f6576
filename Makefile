# zerocp: three headers, nothing to build for a user. This builds the demo, the tests and the bench; see `make help`.

CC      ?= cc
CFLAGS  ?= -O2 -g
CXX     ?= c++
CXXFLAGS ?= -O2 -g
WERROR  ?= -Werror
BUILD   ?= build
PREFIX  ?= /usr/local
DESTDIR ?=
INSTALL ?= install

# As many jobs as there are CPUs, unless the caller says how many.
ifeq ($(filter -j%,$(MAKEFLAGS)),)
MAKEFLAGS += -j$(shell nproc)
endif

headers := zerocp_relptr.h zerocp_shm.h zerocp.h
version := $(shell sed -n '1s/.* zerocp \([0-9][0-9.]*\).*/\1/p' zerocp.h)

# The warning about casts to a type of larger alignment, as the compiler $(1) has it for the language $(2). GCC's plain
# one is silent on machines that allow such an access; clang's is strict by itself.
cast_align = $(shell $(1) -Werror -Wcast-align=strict -fsyntax-only -x $(2) /dev/null 2> /dev/null \
                 && echo -Wcast-align=strict || echo -Wcast-align)

# What zerocp itself needs; what the caller gives comes after it.
warnings := -Wall -Wextra -Wpedantic -Wconversion -Wshadow -Wstrict-prototypes -Wcast-qual $(WERROR)
cppflags := -I. -D_GNU_SOURCE
cflags   := -std=gnu11 $(warnings) $(call cast_align,$(CC),c)
ldlibs   := -pthread -lrt

# What a flavour adds at the end. GCC warns that its TSan does not know fences; clang does not know that warning.
flags_asan := -fsanitize=address,undefined -fno-sanitize-recover=all -fno-omit-frame-pointer -O1 -g
flags_tsan := -fsanitize=thread -O1 -g -Wno-unknown-warning-option -Wno-tsan

# The tests and the demo compile the implementation some fifty times: at -O1 in a third of the time. What is measured,
# soaked, stepped through and installed is compiled as CFLAGS says. .ci/run runs the tests of GCC and Clang at -O2.
TEST_CFLAGS ?= -O1
flags_tests := $(TEST_CFLAGS)
flags_demo  := $(TEST_CFLAGS)
flags_tools  = $(TEST_CFLAGS) -DZEROCP_VERSION='"$(version)"'

# So that it does not depend on what lies before a function how fast it is: some of the loops take up to an eighth longer where they lie badly.
flags_bench := -falign-functions=64

sources_tests := $(wildcard tests/*.c tests/harness/*.c)
sources_asan  := $(filter-out $(addprefix tests/,compile.c cpp_test.c demo_test.c camera_test.c camera_tokens_test.c pipeline_test.c request_test.c tool_test.c python_test.c style_test.c),\
                   $(sources_tests))
sources_tsan  := $(sources_asan)

tools   := $(BUILD)/zerocp
demos   := $(patsubst tests/demo/%.c,$(BUILD)/demo/%,$(filter-out tests/demo/inspect.c tests/demo/library.c,$(wildcard tests/demo/*.c)))
demos_cxx := $(patsubst tests/demo/%.cpp,$(BUILD)/demo/%,$(wildcard tests/demo/*.cpp))
benches := $(BUILD)/bench/bench

.PHONY: all demo library tools test record bench bench-check bench-peers soak fuzz killstep model weaken machines users sanitize sanitize-asan sanitize-tsan install uninstall clean help FORCE
.DELETE_ON_ERROR:
.SUFFIXES:

all: $(demos) $(demos_cxx) $(BUILD)/libzerocp.so $(BUILD)/libzerocp.a $(tools) $(BUILD)/tests/run $(benches) ## Build the demo, the tool, the tests and the bench (the default)

# ----------------------------------------------------------------------------------------------------------------------
# Compiling. The objects and programs of a flavour lie in $(BUILD)/<flavour>. Beside them lies the command that made
# them: another compiler or flag changes that file, and everything that depends on it is made again.

compile = $(CC) $(cppflags) $(CPPFLAGS) $(cflags) $(CFLAGS) $(flags_$(1))
link    = $(CC) $(cflags) $(CFLAGS) $(flags_$(1)) $(LDFLAGS)
libs    = $(LDLIBS) $(ldlibs)

quoted  = '$(subst ','\'',$(1))'
keep    = @mkdir -p $(@D); printf '%s\n' $(1) | cmp -s - $@ || printf '%s\n' $(1) > $@

$(patsubst %,$(BUILD)/%/command,tests asan tsan demo library tools bench soak killstep): $(BUILD)/%/command: FORCE
	$(call keep,$(call quoted,$(CURDIR): $(call compile,$*) $(LDFLAGS) $(libs)))

# All of tests/*.c and tests/harness/*.c is one program in each of three flavours. The list of objects: so that a removed file is noticed.
define run_rules
objects_$(1) := $(patsubst tests/%.c,$(BUILD)/$(1)/%.o,$(sources_$(1)))
$(BUILD)/$(1)/%.o: tests/%.c $(BUILD)/$(1)/command
	@mkdir -p $$(@D)
	$$(call compile,$(1)) $$(flags_of_$$*) -MMD -MP -c -o $$@ $$<
$(BUILD)/$(1)/objects: FORCE
	$$(call keep,$$(call quoted,$$(objects_$(1))))
$(BUILD)/$(1)/run: $$(objects_$(1)) $(BUILD)/$(1)/objects
	$$(call link,$(1)) -o $$@ $$(objects_$(1)) $$(libs)
-include $$(objects_$(1):.o=.d)
endef
$(foreach flavour,tests asan tsan,$(eval $(call run_rules,$(flavour))))

flags_of_compile = -DTEST_SOURCE_DIR=$(call quoted,"$(CURDIR)")
flags_of_demo_test = $(flags_of_compile)
flags_of_pipeline_test = $(flags_of_compile)
flags_of_cpp_test = $(flags_of_compile)
flags_of_python_test = $(flags_of_compile)
flags_of_style_test = $(flags_of_compile)

# Each .c in tests/demo and in bench is a program, and holds its own implementation, as a user's would.
$(BUILD)/demo/%: tests/demo/%.c $(BUILD)/demo/command
	$(call compile,demo) -MMD -MP -MF $@.d $(LDFLAGS) -o $@ $< $(libs)

# So is the tool, which shows what is in a live instance. Its version is that of the header.
$(BUILD)/zerocp: tests/demo/inspect.c $(BUILD)/tools/command
	$(call compile,tools) -MMD -MP -MF $(BUILD)/tools/zerocp.d $(LDFLAGS) -o $@ $< $(libs)

# For those who would rather link than compile, and for languages that load libraries. A symbol of a program that holds an
# implementation itself goes before the library's; -Bsymbolic-functions: and the library's own calls stay within it.
library := $(BUILD)/libzerocp.so.$(firstword $(subst ., ,$(version)))
$(BUILD)/library/library.o: tests/demo/library.c $(BUILD)/library/command
	$(call compile,library) -fPIC -MMD -MP -c -o $@ $<
$(library): $(BUILD)/library/library.o
	$(call link,library) -shared -Wl,-soname,$(@F) -Wl,-Bsymbolic-functions -o $@ $< $(libs)
$(BUILD)/libzerocp.so: $(library)
	ln -sf $(<F) $@
$(BUILD)/libzerocp.a: $(BUILD)/library/library.o
	rm -f $@
	$(AR) rc $@ $<

# Each .cpp in tests/demo is a program, too, linked to the implementation in C: where there is a C++ compiler whose programs can be
# linked with what $(CC) compiles. Else make says so, and goes on.
cxx_warnings := $(filter-out -Wstrict-prototypes,$(warnings)) $(call cast_align,$(CXX),c++)
cxx = $(CXX) $(cppflags) $(CPPFLAGS) -std=c++11 $(cxx_warnings) $(CXXFLAGS)

$(BUILD)/demo/cxx-command: FORCE
	$(call keep,$(call quoted,$(cxx) $(LDFLAGS) $(libs)))
$(BUILD)/demo/implementation.o: zerocp.h $(headers) $(BUILD)/demo/command
	$(call compile,demo) -DZEROCP_IMPLEMENTATION -x c -c -o $@ $<
$(BUILD)/demo/%: tests/demo/%.cpp $(BUILD)/demo/implementation.o $(BUILD)/demo/cxx-command
	@if printf '#include <string>\nint main() { return 0; }\n' | $(CXX) $(CXXFLAGS) $(LDFLAGS) -o $@ -x c++ - -x none $(BUILD)/demo/implementation.o $(libs) 2> /dev/null; then \
	    set -x; $(cxx) -MMD -MP -MF $@.d $(LDFLAGS) -o $@ $< $(BUILD)/demo/implementation.o $(libs); \
	else \
	    rm -f $@; echo "$@: skipped, there is no C++ compiler here that goes with $(CC)"; \
	fi

# The bench: one program, in which zerocp is compiled apart from its callers, as a user's is.
objects_bench := $(patsubst bench/%.c,$(BUILD)/bench/%.o,$(wildcard bench/*.c))
$(BUILD)/bench/%.o: bench/%.c $(BUILD)/bench/command
	$(call compile,bench) -MMD -MP -c -o $@ $<
$(BUILD)/bench/bench: $(objects_bench)
	$(call link,bench) -o $@ $(objects_bench) $(libs) -ldl -lm

# What the bench compares with, if it is installed: objects that the bench loads if they are there. Once built they are
# kept up to date; `make all`, `make bench` and the tests never need them.
peers       := iceoryx boost dpdk iceoryx_topics zmq nng fastdds boost_queue
peers_built := $(wildcard $(patsubst %,$(BUILD)/bench/peers/%.so,$(peers)))
peer_flags  := -O2 -g -fPIC -shared -Wall -Wextra -Wpedantic -Wshadow -Wconversion $(WERROR) -D_GNU_SOURCE -DNDEBUG
peer_needs   = bench/contender.h bench/loops.h bench/messenger.h bench/topic_loops.h $(BUILD)/bench/peers/command

$(BUILD)/bench/peers/command: FORCE
	$(call keep,$(call quoted,$(CXX) $(CC) $(peer_flags)))

iceoryx_includes = -isystem $(patsubst %/iceoryx_posh/,%,$(lastword $(wildcard /usr/include/iceoryx/*/iceoryx_posh/)))
$(BUILD)/bench/peers/iceoryx.so: bench/peers/iceoryx.cpp $(peer_needs)
	$(CXX) -std=c++17 $(peer_flags) $(iceoryx_includes) -o $@ $< -liceoryx_posh -liceoryx_hoofs
$(BUILD)/bench/peers/boost.so: bench/peers/boost.cpp $(peer_needs)
	$(CXX) -std=c++17 $(peer_flags) -o $@ $<
$(BUILD)/bench/peers/dpdk.so: bench/peers/dpdk.c $(peer_needs)
	$(CC) -std=gnu11 $(peer_flags) $(patsubst -I%,-isystem %,$(shell pkg-config --cflags libdpdk)) -o $@ $< \
	    -Wl,--no-as-needed -lrte_eal -lrte_mempool -lrte_mempool_ring -lrte_ring
$(BUILD)/bench/peers/iceoryx_topics.so: bench/peers/iceoryx_topics.cpp $(peer_needs)
	$(CXX) -std=c++17 $(peer_flags) $(iceoryx_includes) -o $@ $< -liceoryx_posh_roudi -liceoryx_posh -liceoryx_hoofs
$(BUILD)/bench/peers/fastdds.so: bench/peers/fastdds.cpp $(peer_needs)
	$(CXX) -std=c++17 $(peer_flags) -o $@ $< -lfastrtps -lfastcdr
$(BUILD)/bench/peers/boost_queue.so: bench/peers/boost_queue.cpp $(peer_needs)
	$(CXX) -std=c++17 $(peer_flags) -o $@ $<
$(BUILD)/bench/peers/zmq.so $(BUILD)/bench/peers/nng.so: $(BUILD)/bench/peers/%.so: bench/peers/%.c $(peer_needs)
	$(CC) -std=gnu11 $(peer_flags) -o $@ $< -l$*

$(BUILD)/soak/%: tests/soak/%.c $(BUILD)/soak/command
	$(call compile,soak) -MMD -MP -MF $@.d $(LDFLAGS) -o $@ $< $(libs)

# The instructions of these are stepped through; bound at the start, so that none of them are the dynamic linker's.
objects_killstep := $(addprefix $(BUILD)/killstep/,impl.o killstep.o)
$(BUILD)/killstep/impl.o: tests/harness/impl.c
$(BUILD)/killstep/killstep.o: tests/killstep/killstep.c
$(objects_killstep): $(BUILD)/killstep/command
	$(call compile,killstep) -MMD -MP -c -o $@ $(filter %.c,$^)
$(BUILD)/killstep/killstep: $(objects_killstep)
	$(call link,killstep) -Wl,-z,now -o $@ $(objects_killstep) $(libs)

-include $(addsuffix .d,$(demos) $(demos_cxx) $(BUILD)/soak/soak) $(BUILD)/tools/zerocp.d $(BUILD)/library/library.d $(objects_killstep:.o=.d) $(objects_bench:.o=.d)

# ----------------------------------------------------------------------------------------------------------------------
# Running

test_options = $(if $(JOBS),--jobs=$(JOBS)) $(TEST_OPTIONS)
test_environment = FILTER=$(call quoted,$(FILTER)) CC=$(call quoted,$(CC))

tools: $(tools) ## Build build/zerocp, which lists, shows, watches and checks instances; build/zerocp --help

demo: $(demos) ## Run the demo: a server and a client exchange chunks
	$(BUILD)/demo/demo

library: $(BUILD)/libzerocp.so $(BUILD)/libzerocp.a ## Build build/libzerocp.so and .a, to link and for other languages: tests/demo/zerocp.py

test: $(BUILD)/tests/run $(demos) $(demos_cxx) $(BUILD)/libzerocp.so $(tools) ## Run the tests; FILTER=PATTERNS JOBS=N TEST_OPTIONS=--help
	@$(test_environment) $(BUILD)/tests/run $(test_options)

# A layout version is recorded once, when it is released, after its headers were committed: what was recorded then must not change.
record: $(BUILD)/demo/recorder ## Append the present layout version to tests/recorded.h, for the tests of later ones
	@$< "$$(git log -1 --format=%s -- $(headers))" > $(BUILD)/demo/recorded
	@version=$$(sed 's/,.*//;q' $(BUILD)/demo/recorded); \
	if grep -qF "$$version," tests/recorded.h; then \
	    echo "tests/recorded.h has $$version, ...) already; if that layout was never released, delete its lines first"; \
	    exit 1; \
	fi
	cat $(BUILD)/demo/recorded >> tests/recorded.h

results := $(BUILD)/bench/results

bench: $(benches) $(peers_built) ## Measure; CSV, plots and tables go to build/bench/results; BENCH_OPTIONS=--help
	@mkdir -p $(results)
	$(BUILD)/bench/bench --csv=$(results)/bench.csv --plots=$(results) $(BENCH_OPTIONS)

# OLD and NEW each had better be a run of many rounds on a quiet machine.
bench-check: $(benches) ## Compare two CSVs of the bench, OLD=file NEW=file: status 1 if something got slower
	@$(BUILD)/bench/bench --check=$(call quoted,$(OLD)),$(call quoted,$(NEW)) $(BENCH_OPTIONS)

bench-peers: ## Install (Debian, as root) and build what the bench compares with: iceoryx, Boost, DPDK, ZeroMQ, nng, Fast-DDS
	@if test "$$(id -u)" = 0 && command -v apt-get > /dev/null; then \
	    apt-get update -qq; \
	    DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends g++ pkg-config libiceoryx-posh-dev \
	        libiceoryx-hoofs-dev libboost-dev libdpdk-dev libzmq3-dev libnng-dev libfastrtps-dev libacl1-dev || echo "not all could be installed: what is there is built"; \
	else \
	    echo "not root, or no apt-get: nothing is installed, what is there is built"; \
	fi
	@for peer in $(peers); do \
	    $(MAKE) --no-print-directory $(BUILD)/bench/peers/$$peer.so || echo "peer=$$peer skipped (does not compile: see above)"; \
	done

SECONDS ?= 60
soak: $(BUILD)/soak/soak ## Kill and stop eight working processes at random for SECONDS=60; SOAK_OPTIONS=--seed=N
	$(BUILD)/soak/soak --seconds=$(SECONDS) $(SOAK_OPTIONS)

# The fuzzer's runtime comes with clang only. A finding lies in $(BUILD)/fuzz; run $(BUILD)/fuzz/fuzz FILE to see it again.
FUZZ_CC ?= clang
flags_fuzz := -fsanitize=fuzzer,address,undefined -fno-sanitize-recover=all -fno-omit-frame-pointer -O1 -g

$(BUILD)/fuzz/fuzz: tests/fuzz/fuzz.c tests/harness/hostile.h tests/harness/scribble.h $(headers)
	@mkdir -p $(@D)/corpus
	$(FUZZ_CC) $(cppflags) $(CPPFLAGS) -std=gnu11 $(warnings) -Wcast-align $(flags_fuzz) -o $@ $< $(libs)

fuzz: ## Feed mutated segments to attach and every operation for SECONDS=60 (clang)
	@mkdir -p $(BUILD)/fuzz; \
	printf 'int LLVMFuzzerTestOneInput(const char *d, unsigned long n);\nint LLVMFuzzerTestOneInput(const char *d, unsigned long n) { return d && !n; }\n' > $(BUILD)/fuzz/probe.c; \
	if ! $(FUZZ_CC) $(flags_fuzz) -o $(BUILD)/fuzz/probe $(BUILD)/fuzz/probe.c 2> /dev/null; then \
	    echo "skipped: $(FUZZ_CC) with its fuzzer runtime is not installed"; \
	    echo "0 passed, 0 failed, 1 skipped"; \
	    exit 0; \
	fi; \
	$(MAKE) --no-print-directory $(BUILD)/fuzz/fuzz || exit 1; \
	ZEROCP_FUZZ_NAME=zcp-fuzz-$$$$; \
	export ZEROCP_FUZZ_NAME; \
	$(BUILD)/fuzz/fuzz -max_total_time=$(SECONDS) -max_len=2048 -timeout=20 -rss_limit_mb=1024 -print_final_stats=1 \
	    -verbosity=0 -artifact_prefix=$(BUILD)/fuzz/ $(FUZZ_OPTIONS) $(BUILD)/fuzz/corpus; \
	status=$$?; \
	rm -f /dev/shm/$${ZEROCP_FUZZ_NAME}_memory_*; \
	if test $$status = 0; then echo "1 passed, 0 failed"; else echo "0 passed, 1 failed"; fi; \
	exit $$status

killstep: $(BUILD)/killstep/killstep ## Kill and stop a process at every step of each operation; OP='NAMES...' FULL=1 (2: at most) JOBS=2
	$< $(if $(FULL),--full) $(if $(filter 2,$(FULL)),--all-ways) $(if $(JOBS),--jobs=$(JOBS)) $(KILLSTEP_OPTIONS) $(OP)

model: ## Check the protocol with GenMC, and its models with Spin; GENMC=path SPIN=no QUICK=1 MODELS='rc11 imm' WORDS='1 2 4'
	@{ MODELS=$(call quoted,$(MODELS)) WORDS=$(call quoted,$(WORDS)) QUICK=$(QUICK) SCENARIOS=$(call quoted,$(SCENARIOS)) tests/model/check $(GENMC) || echo "status $$?"; \
	  test '$(SPIN)' = no || CC=$(call quoted,$(CC)) BUILD=$(call quoted,$(BUILD)) tests/model/spin || echo "status $$?"; } | \
	awk '/^status [0-9]+$$/ { if ($$2 > status) status = $$2; next } \
	    /^[0-9]+ passed, [0-9]+ failed/ { passed += $$1; failed += $$3; skipped += $$5; next } \
	    { print; fflush() } \
	    END { print passed + 0 " passed, " failed + 0 " failed" (skipped ? ", " skipped " skipped" : ""); exit status }'

weaken: ## Weaken each order of the protocol in a copy and see GenMC find it; GENMC=path ROWS='NAMES...'
	@ROWS=$(call quoted,$(ROWS)) WORDS=$(call quoted,$(WORDS)) BUILD=$(call quoted,$(BUILD)) tests/model/weaken $(GENMC)

machines: ## Processes of other word sizes, libcs, architectures, compilers and languages in one instance; PARTS='bits musl ...' ROUNDS=N
	@BUILD=$(call quoted,$(BUILD)) ROUNDS=$(ROUNDS) tests/machines/check $(PARTS)

users: ## Projects that use an installed and a copied zerocp: pkg-config, CMake, Meson, Python; PARTS='cmake meson ...'
	@BUILD=$(call quoted,$(BUILD)) CC=$(call quoted,$(CC)) tests/install/check $(PARTS)

# Both are run, whatever the first one says; each leaves its output in a log, for the summary.
sanitize: ## Run the tests under ASan + UBSan, then under TSan; FILTER, JOBS, TEST_OPTIONS
	@status=0; \
	for flavour in asan tsan; do \
	    rm -f $(BUILD)/$$flavour/log; \
	    $(MAKE) --no-print-directory sanitize-$$flavour || status=1; \
	done; \
	for flavour in asan tsan; do \
	    echo "$$flavour: $$(tail -n 1 $(BUILD)/$$flavour/log 2> /dev/null || echo was not built)"; \
	done; \
	exit $$status

# TSan's shadow memory does not fit every layout of an address space: more than 28 random bits are too many for it.
sanitize-asan sanitize-tsan: sanitize-%: $(BUILD)/%/run
	@prefix=; \
	if test $* = tsan && test "$$(cat /proc/sys/vm/mmap_rnd_bits)" -gt 28 && setarch -R true; then \
	    prefix='setarch -R'; \
	fi 2> /dev/null; \
	{ $(test_environment) $$prefix $< $(test_options); echo $$? > $(<D)/status; } 2>&1 | tee $(<D)/log; \
	exit $$(cat $(<D)/status)

# ----------------------------------------------------------------------------------------------------------------------
# Installing

# Where, below PREFIX. PYTHON is asked in which of the directories there it looks for modules.
BINDIR ?= bin
INCLUDEDIR ?= include
LIBDIR ?= lib
PYTHON ?= python3
PYTHONDIR ?= $(patsubst $(PREFIX)/%,%,$(shell $(PYTHON) -c 'import site, sys; \
    print(next((path for path in site.getsitepackages() + [site.getusersitepackages()] if path.startswith(sys.argv[1] + "/lib/")), ""))' \
    $(call quoted,$(PREFIX)) 2> /dev/null))
to_python = $(or $(PYTHONDIR),$(LIBDIR)/python3/site-packages)

space := $(subst ,, )
to_prefix = $(subst $(space),/,$(patsubst %,..,$(subst /, ,$(LIBDIR)/cmake/zerocp)))
root      = $(DESTDIR)$(PREFIX)
packages := $(addprefix $(BUILD)/package/,zerocp.pc zerocp-headers.pc zerocp-config.cmake zerocp-config-version.cmake zerocp.py)
to_install = $(BUILD)/libzerocp.so $(BUILD)/libzerocp.a $(tools) $(packages)
installed = $(addprefix $(INCLUDEDIR)/,$(headers)) $(addprefix $(LIBDIR)/,$(notdir $(library)) libzerocp.so libzerocp.a) $(BINDIR)/zerocp \
    $(addprefix $(LIBDIR)/pkgconfig/,zerocp.pc zerocp-headers.pc) $(addprefix $(LIBDIR)/cmake/zerocp/,zerocp-config.cmake zerocp-config-version.cmake) \
    $(to_python)/zerocp.py

pc = 'prefix=$(PREFIX)' 'includedir=$${prefix}/$(INCLUDEDIR)' 'libdir=$${prefix}/$(LIBDIR)' '' 'Name: $(basename $(@F))' \
    'Description: Shared-memory chunk pools that survive the death of their processes$(1)' 'Version: $(version)' 'Cflags: -I$${includedir}'
$(BUILD)/package/zerocp.pc: FORCE
	$(call keep,$(call pc,) 'Libs: -L$${libdir} -lzerocp $(ldlibs)')
$(BUILD)/package/zerocp-headers.pc: FORCE
	$(call keep,$(call pc, (for who compiles the implementation)) 'Libs: $(ldlibs)')

# zerocp::headers is for who compiles the implementation, zerocp::zerocp links it.
$(BUILD)/package/zerocp-config.cmake: FORCE
	$(call keep,'get_filename_component(zerocp_prefix "$${CMAKE_CURRENT_LIST_DIR}/$(to_prefix)" ABSOLUTE)' \
	    'if(NOT TARGET zerocp::headers)' \
	    '  add_library(zerocp::headers INTERFACE IMPORTED)' \
	    '  set_target_properties(zerocp::headers PROPERTIES' \
	    '    INTERFACE_INCLUDE_DIRECTORIES "$${zerocp_prefix}/$(INCLUDEDIR)"' \
	    '    INTERFACE_LINK_LIBRARIES "$(subst $(space),;,$(ldlibs))")' \
	    'endif()' \
	    'if(NOT TARGET zerocp::zerocp)' \
	    '  add_library(zerocp::zerocp SHARED IMPORTED)' \
	    '  set_target_properties(zerocp::zerocp PROPERTIES' \
	    '    IMPORTED_LOCATION "$${zerocp_prefix}/$(LIBDIR)/$(notdir $(library))"' \
	    '    IMPORTED_SONAME "$(notdir $(library))"' \
	    '    INTERFACE_LINK_LIBRARIES zerocp::headers)' \
	    'endif()' \
	    'unset(zerocp_prefix)')
$(BUILD)/package/zerocp-config-version.cmake: FORCE
	$(call keep,'set(PACKAGE_VERSION "$(version)")' \
	    'if(PACKAGE_FIND_VERSION_MAJOR STREQUAL "$(firstword $(subst ., ,$(version)))" AND NOT PACKAGE_VERSION VERSION_LESS PACKAGE_FIND_VERSION)' \
	    '  set(PACKAGE_VERSION_COMPATIBLE TRUE)' \
	    'endif()' \
	    'if(PACKAGE_VERSION VERSION_EQUAL PACKAGE_FIND_VERSION)' \
	    '  set(PACKAGE_VERSION_EXACT TRUE)' \
	    'endif()')

# The installed module looks for the library where it was installed.
$(BUILD)/package/zerocp.py: tests/demo/zerocp.py FORCE
	@mkdir -p $(@D)
	@sed 's|^INSTALLED = ""|INSTALLED = "$(PREFIX)/$(LIBDIR)/$(notdir $(library))"|' $< > $@

# The dynamic linker learns of the library, if this is not for another system.
ldconfig = $(if $(DESTDIR),,@if test "$$(id -u)" = 0; then ldconfig || true; fi)

install: $(to_install) ## Install headers, library, tool (zerocp), pkg-config, CMake and Python: PREFIX=/usr/local DESTDIR= LIBDIR=lib
	$(INSTALL) -d $(addprefix $(root)/,$(sort $(dir $(installed))))
	$(INSTALL) -m 644 $(headers) $(root)/$(INCLUDEDIR)
	$(INSTALL) -m 755 $(library) $(root)/$(LIBDIR)
	ln -sf $(notdir $(library)) $(root)/$(LIBDIR)/libzerocp.so
	$(INSTALL) -m 644 $(BUILD)/libzerocp.a $(root)/$(LIBDIR)
	$(INSTALL) -m 755 $(tools) $(root)/$(BINDIR)
	$(INSTALL) -m 644 $(filter %.pc,$(packages)) $(root)/$(LIBDIR)/pkgconfig
	$(INSTALL) -m 644 $(filter %.cmake,$(packages)) $(root)/$(LIBDIR)/cmake/zerocp
	$(INSTALL) -m 644 $(filter %.py,$(packages)) $(root)/$(to_python)
	$(ldconfig)

uninstall: ## Remove what install put there, with the same variables
	rm -f $(addprefix $(root)/,$(installed))
	-@rmdir $(root)/$(LIBDIR)/cmake/zerocp 2> /dev/null || true
	$(ldconfig)

clean: ## Remove build/
	rm -rf $(BUILD)

help: ## List these targets
	@echo "Variables: CC CFLAGS CXX CXXFLAGS CPPFLAGS LDFLAGS LDLIBS, TEST_CFLAGS=-O1 (after CFLAGS, for tests and demo), WERROR= (warnings are no errors), BUILD=build (all output)"
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1\t\2/p' Makefile | expand -t 20
