"""The MindSpore side of tests/test_mindspore_parity.py, in an environment without torch: reads a job, writes what its
network says. `python mindspore_worker.py JOB.json`, which has

folder, inputs (.npz: targets, labels, and for a corrector hypothesis_ids, hypothesis_vectors), output (.npz)
beams, max_length; steps of training with the settings `train`, and where the trained network goes (`trained`)
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import mindspore as ms
import numpy as np

from unembed.backends.mindspore.model import Model
from unembed.backends.mindspore.training import Settings, Trainer


def answer(job: dict) -> dict[str, np.ndarray]:
    model = Model.load(Path(job["folder"]), dropout=0.0)
    inputs = dict(np.load(job["inputs"]))
    labels = inputs.pop("labels")
    condition = list(inputs.values())
    batch = [condition[0], labels, *condition[1:]]
    tensors = [ms.Tensor(part) for part in batch]
    out = {"logits": model.net.logits(*tensors).asnumpy().reshape(*labels.shape, -1)}
    for beams in job["beams"]:
        ids, logprobs = model.generate(*condition, beams=beams, max_length=job["max_length"], batch_size=len(labels))
        out |= {f"ids{beams}": ids, f"logprobs{beams}": logprobs}
        out[f"texts{beams}"] = np.array(model.decode(ids[:, 0]))
    trainer = Trainer(model.net, Settings(**job["train"]))
    out["loss"] = np.array(trainer._measure(*tensors).asnumpy())
    if job["steps"]:
        rates = [job["rate"] * min(1.0, i / 2) for i in range(job["steps"])]
        losses = [trainer.step(i + 1, rate, batch).asnumpy() for i, rate in enumerate(rates)]
        out["losses"] = np.array(losses)
        model.save(Path(job["trained"]))
        model.net.set_train(False)

        def logits(*batch: ms.Tensor) -> ms.Tensor:
            return model.net.logits(*batch)

        # Compiled after training: a step that makes tensors of its own has been seen to crash that.
        out["trained_logits"] = ms.jit(logits)(*tensors).asnumpy().reshape(*labels.shape, -1)
    return out


def dropped() -> np.ndarray:
    """Share of the numbers that a dropout of 0.1 sets to zero, and what it makes of the others."""
    from unembed.backends.mindspore.encoder_decoder import Projector

    layer = Projector(4, 4, 4, 0.1)[1]
    layer.set_train(True)
    out = layer(ms.Tensor(np.ones((200, 200), np.float32))).asnumpy()
    return np.array([(out == 0).mean(), out.max()])


def main() -> None:
    job = json.loads(Path(sys.argv[1]).read_text())
    np.savez(job["output"], **answer(job), dropped=dropped(), torch="torch" in sys.modules)


if __name__ == "__main__":
    main()
