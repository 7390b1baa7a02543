# make help lists the targets.

GO ?= go
# More arguments for go test, for example: make test FLAGS='-run TestLaw'
FLAGS ?=
FUZZTIME ?= 10s
MODULES := . integration
LINT_VERSION := v2.15.0
LINT := bin/golangci-lint-$(LINT_VERSION)
# What the race detector needs beside Go; integration/brokers sees to the brokers.
CC_PACKAGES := gcc libc6-dev
# For the tests against other clients: Python's in a virtual environment, Java's, kcat, and tshark, which looks on.
PYTHON_PACKAGES := python3 python3-venv
JAVA_PACKAGES := default-jdk-headless maven

.DEFAULT_GOAL := help
.PHONY: help lint unit test long compose fuzz up down man cc peers tools clean

help: ## this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "make %-7s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

lint: $(LINT) ## formatting, go vet, tidy modules, golangci-lint
	@out=$$(gofmt -l .); if [ -n "$$out" ]; then echo "not formatted:"; echo "$$out"; exit 1; fi
	@set -e; for m in $(MODULES); do \
	  echo "lint $$m"; \
	  (cd $$m && $(GO) vet ./... && $(GO) mod tidy -diff && $(CURDIR)/$(LINT) run ./...); \
	done
	@if command -v shellcheck >/dev/null; then shellcheck -x integration/brokers integration/broker/native/*.sh .ci/run; fi

# In a file that carries its version, so that a new version is built; away from go.mod, whose users do not need it.
$(LINT):
	GOWORK=off GOBIN=$(CURDIR)/bin $(GO) install github.com/golangci/golangci-lint/v2/cmd/golangci-lint@$(LINT_VERSION)
	mv bin/golangci-lint $@

unit: cc ## the library's tests alone, without brokers
	env -u STAGEBUS_TEST_AMQP_URL -u STAGEBUS_TEST_KAFKA_URL $(GO) test -race -count=1 -timeout 10m $(FLAGS) ./...

test: cc peers tools ## all tests, with brokers: the environment's, else Docker's, else native ones
	bin/withbrokers bin/testreport .,integration -race -count=1 -timeout 30m $(FLAGS) ./...

long: cc peers tools ## the same with the tests that take long
	STAGEBUS_LONG=1 bin/withbrokers bin/testreport .,integration -race -count=1 -timeout 3h $(FLAGS) ./...

compose: ## the local stack's tests alone: loaded, brought up if Docker has its images, its dashboard asked
	cd integration && STAGEBUS_LONG=1 $(GO) test -count=1 -v -run '^TestCompose' $(FLAGS) .

fuzz: ## every fuzz target for FUZZTIME (10s)
	@set -e; grep -rEo --include='*_test.go' '^func Fuzz[A-Za-z0-9_]+' . | sort | while IFS=: read -r file func; do \
	  dir=$$(dirname "$$file"); \
	  echo "$$dir $${func#func }"; \
	  (cd "$$dir" && $(GO) test -run '^$$' -fuzz "^$${func#func }$$" -fuzztime $(FUZZTIME) . </dev/null); \
	done

up: ## native brokers that stay; prints the variables that name them, for eval
	@integration/brokers up

down: ## ends them
	@integration/brokers down

man: ## manual pages in bin/man
	$(GO) run ./cmd/stagebus man bin/man

# install COMMAND PACKAGES: installs PACKAGES unless COMMAND succeeds.
define install
@$(1) >/dev/null 2>&1 || { \
  echo "installs $(2)" >&2; \
  sudo=; if [ "$$(id -u)" != 0 ]; then sudo='sudo -n'; fi; \
  $$sudo apt-get update -qq && $$sudo env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $(2) >&2; \
}
endef

cc:
	$(call install,command -v $${CC:-cc},$(CC_PACKAGES))

peers:
	$(call install,python3 -c 'import ensurepip',$(PYTHON_PACKAGES))
	$(call install,{ command -v javac && command -v mvn; },$(JAVA_PACKAGES))
	$(call install,command -v kcat,kcat)
	$(call install,command -v tshark,tshark)

tools:
	cd integration && $(GO) build -buildvcs=false -o $(CURDIR)/bin/ ./broker/withbrokers ./broker/testreport

clean: ## what make has built
	rm -rf bin
