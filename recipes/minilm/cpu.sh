#!/usr/bin/env bash
# From raw text to the shipped weights and their figures, on two CPU cores: about two hours.
#   recipes/minilm/cpu.sh DATA_DIR      DATA_DIR holds en/ and heldout/ as recipes/minilm/cpu.yaml names them
# Each part goes on where it stopped when the same command is given again.
set -euo pipefail
data=${1:?usage: recipes/minilm/cpu.sh DATA_DIR}
run=runs/minilm-cpu

unembed train --config recipes/minilm/cpu.yaml --data_dir "$data" --output "$run"
python recipes/minilm/pack.py "$run/model" "$run/packed"
unembed evaluate --suite headline --model "$run/packed" --data "$data/heldout" -o "$run/headline"
python recipes/minilm/pack.py "$run/model" "$run/packed" --reports "$run"/headline/*-zero.json "$run"/headline/*-search.json
