#!/usr/bin/env bash
# The pretraining recipe from end to end at tiny scale, on any machine, in a few minutes: two slices, the second of which goes
# on from the first one's compact checkpoint, then packing and a look at the result.
#   recipes/minilm/rehearse.sh DATA_DIR
set -euo pipefail
data=${1:?usage: recipes/minilm/rehearse.sh DATA_DIR}
export RUN=${RUN:-runs/minilm-rehearsal} LIMIT=2000
tiny=(--model '{"d_model": 64, "n_layers": 2, "n_heads": 2, "reader_width": 128, "max_tokens": 160, "vocab_size": 1024}'
  --lexical_spans 2000 --batch_tokens 2048 --chunk 2048 --compile false --heldout_samples 8 --log_every 5 --tracker none
  --max_steps 1000)
for slice in 1 2; do
  recipes/minilm/gpu.sh "$data" 0.5 "${tiny[@]}"
done
python recipes/minilm/pack.py "$RUN/model" "$RUN/packed"
unembed evaluate --model "$RUN/packed" --data "$data/heldout/en_squad_dev.txt.xz" --lengths '[8, 16]' --n 20 --steps 0
