"""Writing with a T5: the same ids as transformers' `generate`, rows that leave, samples, and what must not be kept."""

from __future__ import annotations

import pytest
import torch

from unembed.models.base import GREEDY
from unembed.models.t5_generation import write

CPU = torch.device("cpu")
LONGEST = 20


def small_t5(**options):
    from transformers import T5Config, T5ForConditionalGeneration

    torch.manual_seed(0)
    config = T5Config(
        vocab_size=60, d_model=32, d_kv=8, d_ff=48, num_layers=2, num_decoder_layers=2, num_heads=4,
        decoder_start_token_id=0, pad_token_id=0, eos_token_id=1, **options,
    )  # fmt: skip
    t5 = T5ForConditionalGeneration(config)
    with torch.no_grad():  # as they are made, the embeddings drown the layers: every text is one token, repeated
        t5.shared.weight.mul_(0.05)
        t5.decoder.final_layer_norm.weight.mul_(40)
        t5.shared.weight[1] *= 1.6  # and hardly any ends
    return t5.eval().requires_grad_(False)


@pytest.fixture(scope="module")
def t5():
    return small_t5()


def inputs(rows=9, length=11, seed=1):
    """Encoder inputs of which some are padded, so that the mask matters."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(rows, length, 32, generator=generator)
    mask = (torch.arange(length) < torch.randint(3, length + 1, (rows, 1), generator=generator)).long()
    return x, mask


def plain(t5, x, mask, n=1, longest=LONGEST, **options):
    """transformers' own way."""
    ids = t5.generate(
        inputs_embeds=x, attention_mask=mask, num_return_sequences=n, max_length=longest, min_length=1,
        early_stopping=False, length_penalty=1.0, do_sample=False, **{"num_beams": 1, **options},
    )  # fmt: skip
    return ids.masked_fill(behind_the_end(ids), 0)  # its beam search pads with the end of text


def behind_the_end(ids):
    ends = (ids == 1).long()
    return ends.cumsum(1) > ends


def logprobs(t5, x, mask, ids):
    """log p of ids by one forward pass, up to the end of each text."""
    n = len(ids) // len(x)
    out = t5(
        inputs_embeds=x.repeat_interleave(n, 0), attention_mask=mask.repeat_interleave(n, 0),
        decoder_input_ids=ids[:, :-1],
    )  # fmt: skip
    chosen = out.logits.log_softmax(-1).gather(2, ids[:, 1:, None])[:, :, 0]
    return chosen.masked_fill(behind_the_end(ids)[:, 1:], 0).sum(1)


@pytest.mark.parametrize("options", [{}, {"feed_forward_proj": "gated-gelu", "tie_word_embeddings": False}])
def test_greedy_is_that_of_transformers(options):
    t5 = small_t5(**options)
    x, mask = inputs(40)
    ids, found = write(t5, x, mask, 1, GREEDY, LONGEST)
    assert torch.equal(ids, plain(t5, x, mask))
    torch.testing.assert_close(found, logprobs(t5, x, mask, ids), atol=1e-4, rtol=1e-4)
    ends = (ids == 1).any(1)
    assert ends.any() and not ends.all()  # some rows left early, some ran to the end
