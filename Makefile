# Sluice. `make run` starts all of it on this machine, `make test` tests it.

HTTP_PORT           ?= 8080
INGEST_ADMIN_PORT   ?= 8081
CONSUMER_ADMIN_PORT ?= 8082
CLICKHOUSE_PORT     ?= 8123
KAFKA_PORT          ?= 9092
PARTITIONS          ?= 4
TIME                ?= 30s
ARGS                ?=
TEST_FLAGS          ?= -race
export HTTP_PORT INGEST_ADMIN_PORT CONSUMER_ADMIN_PORT CLICKHOUSE_PORT KAFKA_PORT PARTITIONS

BIN := .local/bin
GOLANGCI := v2.15.0

.DEFAULT_GOAL := help
.PHONY: help run build engine clean-local env consumer ingest demo test lint vet bench fuzz

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "make %-12s %s\n", $$1, $$2}' Makefile

run: build ## start broker, ClickHouse, edge and consumer; Ctrl-C stops them
	@exec $(BIN)/supervisor run

build: ## all programs into .local/bin
	@mkdir -p $(BIN)
	@go build -o $(BIN)/ingest ./ingest
	@go build -o $(BIN)/consumer ./consumer
	@go build -o $(BIN)/supervisor ./deploy/local
	@go build -o $(BIN)/broker ./deploy/local/broker
	@go build -o $(BIN)/engine ./deploy/local/engine

engine: ## install the ClickHouse engine (178 MB) if it is missing
	@mkdir -p $(BIN)
	@go build -o $(BIN)/supervisor ./deploy/local
	@$(BIN)/supervisor install

clean-local: ## remove binaries, engine and data (asks; YES=1 does not)
	@[ "$(YES)" = 1 ] || { printf 'remove .local with all data? [y/N] '; read answer; [ "$$answer" = y ]; }
	@rm -rf .local

env: build ## export lines that aim .local/bin/consumer at the local stack
	@$(BIN)/supervisor env

consumer: build ## a consumer command against the local stack: ARGS="verify --json"
	@eval "$$($(BIN)/supervisor env)" && exec $(BIN)/consumer $(ARGS)

ingest: build ## an edge command against the local stack: ARGS="config"
	@eval "$$($(BIN)/supervisor env)" && SLUICE_ADMIN_ADDRESS=127.0.0.1:$(INGEST_ADMIN_PORT) SLUICE_HTTP_ADDRESS=127.0.0.1:$(HTTP_PORT) exec $(BIN)/ingest $(ARGS)

demo: ## post a real sample to a running `make run`, part of it twice, and look
	@go run ./deploy/demo

test: engine ## every test but the long ones, with the race detector
	go test $(TEST_FLAGS) -timeout 15m ./...

vet: ## go vet
	go vet ./...

lint: ## golangci-lint, built once into .local/bin
	@[ -x $(BIN)/golangci-lint ] || { echo 'building golangci-lint $(GOLANGCI), once, a few minutes'; \
		GOBIN=$(CURDIR)/$(BIN) go install github.com/golangci/golangci-lint/v2/cmd/golangci-lint@$(GOLANGCI); }
	$(BIN)/golangci-lint run ./...

bench: engine ## benchmarks, each beside its floor
	go test -run '^$$' -bench . -benchmem ./ingest/... ./consumer/... ./schemas/...

fuzz: ## every fuzz target for TIME (default 30s)
	@for pkg in $$(go list ./...); do \
		for f in $$(go test -list '^Fuzz' $$pkg | grep '^Fuzz'); do \
			echo "== $$pkg $$f"; go test -run '^$$' -fuzz "^$$f\$$" -fuzztime $(TIME) $$pkg || exit 1; \
		done; \
	done
