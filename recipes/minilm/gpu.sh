#!/usr/bin/env bash
# One slice of the pretraining of the default inverter on one GPU; the same command runs the next one.
#   recipes/minilm/gpu.sh DATA_DIR [MINUTES] [flags of unembed train]
# DATA_DIR holds en/ and heldout/ as for recipes/minilm/cpu.sh. A slice ends by itself after MINUTES (default 8) with an
# evaluation, samples, and a checkpoint of int8 weights; runs/minilm-gpu alone has to be kept between slices. The first
# slice also makes the data ready, on the CPU. On a laptop, recipes/minilm/rehearse.sh runs two slices of a tiny network.
set -euo pipefail
data=${1:?usage: recipes/minilm/gpu.sh DATA_DIR [MINUTES] [flags of unembed train]}
minutes=${2:-8}
run=${RUN:-runs/minilm-gpu}

python recipes/minilm/prepare.py "$data" "$run/data" ${LIMIT:+--limit "$LIMIT"}
mkdir -p "$run/data/heldout"
cp -n "$data"/heldout/en_* "$run/data/heldout/"
unembed train --config recipes/minilm/gpu.yaml --data_dir "$run/data" --output "$run" --minutes "$minutes" "${@:3}"
