#!/usr/bin/env bash
# From raw text to the shipped weights, their figures and their calibration, on two CPU cores: about eight hours.
#   recipes/minilm/cpu.sh DATA_DIR      DATA_DIR holds en/ and heldout/ as recipes/minilm/cpu.yaml names them
# Four stages, each from the weights of the one before: recipes/minilm/cpu.yaml, and what recipes/minilm/stages/ change in it.
# Then a guide and a lexicon, and a corrector, which leave the weights as they are.
# Each part goes on where it stopped when the same command is given again.
set -euo pipefail
data=${1:?usage: recipes/minilm/cpu.sh DATA_DIR}
run=runs/minilm-cpu
recipe=recipes/minilm

unembed train --config "$recipe/cpu.yaml" --data_dir "$data" --output "$run/1"
for stage in 2 3 4; do
  unembed train --config "$recipe/cpu.yaml" --config "$recipe/stages/$stage.yaml" --data_dir "$data" \
    --init_from "$run/$((stage - 1))/model" --output "$run/$stage"
done
unembed train --config "$recipe/cpu.yaml" --config "$recipe/stages/4.yaml" --config "$recipe/stages/guide.yaml" \
  --data_dir "$data" --init_from "$run/4/model" --output "$run/guided"
unembed train --config "$recipe/cpu.yaml" --config "$recipe/stages/4.yaml" --config "$recipe/stages/corrector.yaml" \
  --data_dir "$data" --init_from "$run/guided/model" --output "$run/corrected"
python "$recipe/pack.py" "$run/corrected/model" "$run/packed"
unembed evaluate --suite headline --model "$run/packed" --data "$data/heldout" -o "$run/headline"
unembed calibrate --model "$run/packed" --rows "$run/headline"
python "$recipe/pack.py" "$run/corrected/model" "$run/packed" --reports "$run"/headline/*.json
