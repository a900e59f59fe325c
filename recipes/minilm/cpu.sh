#!/usr/bin/env bash
# From raw text to the shipped weights and their figures, on two CPU cores: about two hours.
#   recipes/minilm/cpu.sh DATA_DIR      DATA_DIR holds en/ and heldout/ as recipes/minilm/cpu.yaml names them
# Each part goes on where it stopped when the same command is given again.
set -euo pipefail
data=${1:?usage: recipes/minilm/cpu.sh DATA_DIR}
run=runs/minilm-cpu
# glibc: keep memory instead of giving it back after each step, a fifth of the time (docs/lab.md)
export MALLOC_MMAP_MAX_=0 MALLOC_TRIM_THRESHOLD_=100000000000 MALLOC_TOP_PAD_=1000000000 MALLOC_ARENA_MAX=1

unembed train --config recipes/minilm/cpu.yaml --data_dir "$data" --output "$run"
python recipes/minilm/pack.py "$run/model" "$run/packed"
unembed evaluate --suite headline --model "$run/packed" --data "$data/heldout" -o "$run/headline"
python recipes/minilm/pack.py "$run/model" "$run/packed" --reports "$run"/headline/*-zero.json "$run"/headline/*-search.json
