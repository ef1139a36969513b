# Builds taskshed with PGXS, PostgreSQL's own build system for extensions.
#
#   make, make install, make installcheck   against the server of PG_CONFIG
#   make -f ../taskshed/Makefile install    the same, built in another folder
#   make demo, make test, make lint         need nothing but this folder: they bring a throw-away
#                                           server, and what is missing on a bare Debian (as root)
#   make test QUICK=1                       in 4 minutes, what guards the promises of docs/design.md
#   make soak [MINUTES=20]                  tasks under all kinds of faults for a while
#   make bench [QUICK=1]                    measures it beside its peers; see bench/
#   make test-matrix, make test-package     on other versions, and the Debian package (see scripts/)
#   make dist                               the archive for PGXN
#
# WERROR=1 turns warnings into errors.  "make installcheck" starts its own temporary server too,
# because taskshed has to be preloaded; it needs "make install" first, and an ordinary user.

# Where this file is, "" for the current folder.  Wildcards are not looked for in VPATH.
here := $(filter-out ./,$(dir $(firstword $(MAKEFILE_LIST))))
here := $(if $(filter $(realpath .),$(realpath $(here))),,$(here))

# Elsewhere, what has been built in the folder of the sources would be found in VPATH, and installed,
# whatever server it was built for.
$(if $(and $(here),$(wildcard $(addprefix $(here)src/,*.o *.bc */*.o */*.bc) $(here)taskshed.so $(here)taskshed.dylib)),\
  $(error taskshed has been built in $(here) itself; run "make clean" there first))

# PGXS brings a rule for "all", but there may be no PGXS when "make test" is called.
all:

PG_CONFIG ?= pg_config

MODULE_big = taskshed
EXTENSION  = taskshed
DATA       = sql/taskshed--1.0.sql
OBJS       = $(patsubst $(here)%.c,%.o,$(sort $(wildcard $(here)src/*.c $(here)src/*/*.c)))
PGFILEDESC = "taskshed - runs functions at their time"

# -Wextra, less what PostgreSQL's own headers and conventions can't keep to.  The server's flags
# are gcc's; clang is told not to mind the ones it doesn't know.
PG_CPPFLAGS = -I$(srcdir)/src
PG_CFLAGS   = -Wall -Wextra -Wno-unused-parameter -Wno-sign-compare -Wno-missing-field-initializers
PG_CFLAGS  += $(if $(findstring clang,$(CC)),-Wno-unknown-warning-option \
                 -Wno-ignored-optimization-argument -Wno-ignored-attributes)
PG_CFLAGS  += $(if $(WERROR),-Werror)

# Both regression suites start a server of their own.  An empty list (hence the :=) leaves its
# suite out.
TEST_OPTS      = --temp-config=$(here)test/taskshed.conf --inputdir=$(here)test --load-extension=taskshed
REGRESS       := $(patsubst $(here)test/sql/%.sql,%,$(sort $(wildcard $(here)test/sql/*.sql)))
REGRESS_OPTS   = $(TEST_OPTS) --temp-instance=tmp_check
ISOLATION     := $(patsubst $(here)test/specs/%.spec,%,$(sort $(wildcard $(here)test/specs/*.spec)))
ISOLATION_OPTS = $(TEST_OPTS) --temp-instance=tmp_check_iso --outputdir=.
TAP_TESTS     := $(if $(wildcard $(here)test/t/*.pl),1)
PROVE_TESTS   ?= test/t/*.pl

PGXS := $(shell $(PG_CONFIG) --pgxs 2>/dev/null)
ifneq ($(and $(wildcard $(PGXS)),$(wildcard $(shell $(PG_CONFIG) --includedir-server)/postgres.h)),)
include $(PGXS)
else
all install uninstall installcheck clean:
	@echo "$(PG_CONFIG) leads to no PostgreSQL to build for: install the server's development" >&2
	@echo "files (Debian: postgresql-server-dev-15), or say PG_CONFIG=/path/to/pg_config" >&2
	@false
endif

$(OBJS): $(wildcard $(here)src/*.h $(here)src/*/*.h)

# Elsewhere the objects need folders, which as targets would be found in VPATH, and pg_regress looks
# for expected outputs in the current one.
$(if $(here),$(shell mkdir -p $(sort $(dir $(OBJS))) && ln -sfn $(abspath $(here)expected) expected))

# A folder is called "test", hence .PHONY.
soak:
	@TASKSHED_SOAK=$(or $(MINUTES),20) TESTS="test/t/030_ledger.pl test/t/031_recurring_ledger.pl" $(here)scripts/test

.PHONY: all demo test soak bench test-matrix test-package lint dist
demo test bench test-matrix test-package lint:
	@$(here)scripts/$@

# The archive for PGXN, of what is committed.
DISTVERSION = $(shell sed -n 's/^    "version": "\(.*\)",$$/\1/p' META.json)
dist:
	git archive --format=zip --prefix=taskshed-$(DISTVERSION)/ -o taskshed-$(DISTVERSION).zip HEAD
