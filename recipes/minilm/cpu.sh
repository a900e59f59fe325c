#!/usr/bin/env bash
# From raw text to the shipped weights and their figures, on two CPU cores: about two hours.
#   recipes/minilm/cpu.sh DATA_DIR      DATA_DIR holds en/ and heldout/ as recipes/minilm/cpu.yaml names them
# Each part goes on where it stopped when the same command is given again.
set -euo pipefail
data=${1:?usage: recipes/minilm/cpu.sh DATA_DIR}
run=runs/minilm-cpu

unembed train --config recipes/minilm/cpu.yaml --data_dir "$data" --output "$run"
python recipes/minilm/pack.py "$run/model" "$run/packed"
for set in squad_dev scifact_abstracts synthetic_pii; do
  file="$data/heldout/en_$set.txt.xz"
  unembed evaluate --model "$run/packed" --data "$file" --steps 0 --sequence-beam-width 1 --n 300 -o "$run/$set-zero.json"
  unembed evaluate --model "$run/packed" --data "$file" --n 50 -o "$run/$set-search.json"
done
python recipes/minilm/pack.py "$run/model" "$run/packed" --reports "$run"/*-zero.json "$run"/*-search.json
