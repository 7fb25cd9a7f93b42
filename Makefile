# Each target is a script that also runs by itself, without make; scripts/lib.sh
# installs what is missing on Debian.

.PHONY: build demo test test-short bench generate lint clean

build: ## bin/fermata, static
	@scripts/build

demo: ## build, then checkpoint, kill and restore a real program
	@scripts/demo

test: ## everything, within half an hour
	@scripts/test

test-short: ## a representative part, within two minutes
	@scripts/test --short

bench: ## the table of docs/performance.md; CRIU=path compares
	@scripts/bench

generate: ## regenerate the protobuf messages, the manual and docs/coverage.md
	@scripts/generate

lint:
	@scripts/lint

clean:
	rm -rf bin
