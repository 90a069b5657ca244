# Short names for what one does here; the work is in the scripts. `make` alone lists the targets.
.PHONY: help demo test check bench bench-peers parity explained sim planted kills fuzz bless clean-cache
.DEFAULT_GOAL := help

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "make %-12s %s\n", $$1, $$2}' $(firstword $(MAKEFILE_LIST))

demo: ## Set up, build, and run a sweep on two CPU workers
	@deploy/demo.sh

test: ## Set up, build, lint, and run every test
	@tests/run.sh all

check: ## Format, lints, licences and sources of the dependencies
	@tests/run.sh check

bench: ## Measure against the peers: make bench [PART=train] [ROW=train_sst2] [PAIRS=3]
	@tests/bench/run.sh $(if $(PART),--part $(PART)) $(if $(ROW),--row $(ROW)) $(if $(PAIRS),--pairs $(PAIRS))

bench-peers: ## Install the peers that `make bench` compares with (6 GB once)
	@tests/bench/peers.sh

parity: ## Compare exported models with the reference libraries (installs 5 GB once)
	@tests/parity/run.sh

explained: ## Compare explanations of real models with Captum's [MODEL=DIR] (installs 6 GB once)
	@tests/golden/explain/compare.sh $(if $(MODEL),$(MODEL))

sim: ## Simulate the coordinator with SEEDS=100000 seeds (a night): faults, replays, invariants
	@MUSTER_SEEDS=$(or $(SEEDS),100000) cargo test --release --workspace --locked --test simulation -- --nocapture

planted: ## Break rules of the engine one by one, in a copy, and see the simulation find each
	@tests/simulation/planted.sh

kills: ## Kill worker and coordinator at KILLS=200 random moments of training [SEED=1]
	@MUSTER_KILLS=$(or $(KILLS),200) MUSTER_SEED=$(or $(SEED),1) cargo test --release --workspace --locked --test kill_storm -- --nocapture

fuzz: ## Feed mutated bytes to every parser, SECONDS_EACH=60 for each [TARGET=metrics]
	@tests/fuzz/run.sh $(or $(SECONDS_EACH),60) $(TARGET)

bless: ## Regenerate the generated code of the wire format, the schema of manifests, imported samples, screens, bits of proposals
	@MUSTER_BLESS=1 cargo test --release -p muster-proto --no-default-features --test generated
	@MUSTER_BLESS=1 cargo test --release --workspace --locked published_copy
	@MUSTER_BLESS=1 cargo test --release --workspace --locked samples_become
	@MUSTER_BLESS=1 cargo test --release --workspace --locked screens_are_approved
	@MUSTER_BLESS=1 cargo test --release --workspace --locked proposals_have_the_same_bits

clean-cache: ## Remove what the set-up scripts installed
	@rm -rf .cache
