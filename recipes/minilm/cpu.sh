#!/usr/bin/env bash
# From raw text to the shipped weights and their figures, on two quiet CPU cores: about three hours.
#   recipes/minilm/cpu.sh DATA_DIR      DATA_DIR holds en/ and heldout/ as recipes/minilm/cpu.yaml names them
# Each part goes on where it stopped when the same command is given again.
set -euo pipefail
data=${1:?usage: recipes/minilm/cpu.sh DATA_DIR}
first=runs/minilm-cpu second=runs/minilm-cpu-more

unembed train --config recipes/minilm/cpu.yaml --data_dir "$data" --output "$first"
unembed train --config recipes/minilm/cpu-more.yaml --data_dir "$data" --output "$second"
python recipes/minilm/pack.py "$second/model" "$second/packed" --after "$first/model"
for set in squad_dev scifact_abstracts synthetic_pii; do
  file="$data/heldout/en_$set.txt.xz"
  unembed evaluate --model "$second/packed" --data "$file" --steps 0 --sequence-beam-width 1 --n 200 -o "$second/$set-zero.json"
done
unembed evaluate --model "$second/packed" --data "$data/heldout/en_squad_dev.txt.xz" --n 30 -o "$second/squad_dev-search.json"
python recipes/minilm/pack.py "$second/model" "$second/packed" --after "$first/model" \
  --reports "$second"/*-zero.json "$second"/*-search.json
