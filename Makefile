# Shorthands; every target is a script that can be run by hand.
.PHONY: help demo test faults bench lint generate lab-up lab-down fresh clean

help: ## this list
	@sed -nE 's/^([a-z-]+):.*## (.*)/\1\t\2/p' $(MAKEFILE_LIST) | expand -t 12

demo: ## install what is missing and run the main job on a live guest
	./scripts/demo.sh

test: ## all test layers
	./scripts/test.sh

faults: ## the fault campaign, about an hour; FAMILY=name SEED=number for one family
	./scripts/faults.sh $(if $(FAMILY),--family $(FAMILY)) $(if $(SEED),--seed $(SEED))

bench: ## benchmarks, for a machine on which nothing else runs; NAME=merge for one
	./scripts/bench.sh $(NAME)

lint: ## all linters (after one run of make test or demo)
	./scripts/bootstrap.sh --dev
	./scripts/lint.sh

generate: ## write the files that follow from the code
	.venv/bin/python scripts/generate.py

lab-up: ## start the lab's libvirt hosts and guests
	./scripts/lab.sh up

lab-down: ## stop them
	./scripts/lab.sh down

fresh: ## both commands, twice, in a new Debian 12 root
	./scripts/fresh.sh

clean: ## remove everything that is built, but not .venv
	rm -rf build
