"""DAVAE: the network against the reference checkpoint, cached writing, the original's quirks, losses, the inverter."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

import davae_fixtures
import unembed
from davae_fixtures import LATENT, TEXTS
from unembed.checkpoints.davae import Checkpoint, load
from unembed.compat.davae import DAVAEModel
from unembed.embedders.spec import EmbedderSpec
from unembed.errors import InputError
from unembed.models.base import GREEDY, Sampling
from unembed.models.davae.generation import MARK, UNKNOWN, Quirks, Settings, beam_search, original, write
from unembed.models.davae.losses import adversarial, kl, reconstruction
from unembed.models.davae.network import Past
from unembed.models.davae.vae import filter_noise

CPU = torch.device("cpu")
SPEC = EmbedderSpec("some/embedder", 10, fingerprint=None)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return davae_fixtures.folder(tmp_path_factory.mktemp("davae") / "parts", spec=SPEC)


@pytest.fixture(scope="module")
def model(folder):
    return load(folder, CPU)


@pytest.fixture(scope="module")
def vae(model):
    return model.vae


@pytest.fixture(scope="module")
def reference(parity_dir):
    """(checkpoint, texts and numbers, tensors) of the reference."""
    path = parity_dir / "davae"
    said = json.loads((path / "reference.json").read_text(encoding="utf-8"))
    return Checkpoint(path), said, load_file(path / "reference_tensors.safetensors")


@pytest.fixture(scope="module")
def original_model(reference):
    return DAVAEModel(reference[0].vae(CPU))


def latents(n, seed=0):
    return torch.randn(n, LATENT, generator=torch.Generator().manual_seed(seed))


# The reference checkpoint


def test_reference_encoder(reference, original_model):
    checkpoint, said, tensors = reference
    vae = original_model.vae
    states = []
    hook = vae.net.bert.register_forward_hook(lambda module, inputs, out: states.append(out))
    mean, logvar = vae.net.encode(tensors["enc_input_ids"])
    hook.remove()
    found = [mean, logvar, states[0].last_hidden_state, states[0].pooler_output]
    for ours, name in zip(found, ("mean", "logvar", "enc_last_hidden", "enc_pooled"), strict=True):
        torch.testing.assert_close(ours, tensors[name], atol=1e-5, rtol=1e-5)
    assert vae.pad(vae.read(said["inputs"])).equal(tensors["enc_input_ids"])


def test_reference_decoder(reference, original_model):
    _, said, tensors = reference
    decoder, labels = original_model.vae.net.decoder, tensors["labels"]
    inputs = []
    places = [*decoder.layers, decoder.final_layernorm]
    hooks = [place.register_forward_pre_hook(lambda module, given: inputs.append(given[0])) for place in places]
    logits = decoder(labels, tensors["mean"])
    for hook in hooks:
        hook.remove()
    for i, state in enumerate(
        inputs
    ):  # what the original keeps as memory: the inputs of its layers and their last output
        torch.testing.assert_close(state, tensors[f"mem.{i}"], atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(logits[..., -64:], tensors["dec_logits_last64"], atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(logits.sum(-1), tensors["dec_logits_rowsum"], atol=0.5, rtol=1e-6)
    assert logits.argmax(-1).equal(tensors["dec_logits_argmax"])
    none = decoder(labels, torch.zeros_like(tensors["mean"]))
    torch.testing.assert_close(none.sum(-1), tensors["dec_logits_nolatent_rowsum"], atol=0.5, rtol=1e-6)


def test_reference_losses(reference, original_model):
    _, said, tensors = reference
    net, labels = original_model.vae.net, tensors["labels"]
    end, mean, logvar = 50000, tensors["mean"], tensors["logvar"]
    costs = reconstruction(net.decoder(labels, mean), labels, end)
    torch.testing.assert_close(costs, tensors["dec_loss_per_sent"], atol=1e-4, rtol=1e-4)
    tokens = (labels != end).sum(1)
    for mode in (0, 1, 2):
        divergence = kl(mean, logvar, mode, 0.1)
        torch.testing.assert_close(divergence, tensors[f"kl_fb{mode}"])
        rec = reconstruction(net.decoder(labels, tensors[f"z_fb{mode}"]), labels, end)
        found = [(rec / tokens).mean(), divergence.mean(), (rec + 0.5 * divergence).sum()]
        assert [float(value) for value in found] == pytest.approx(said[f"forward_fb{mode}_beta0.5"], rel=1e-5)
        if mode == 1:
            weighted = float((rec / tokens + 0.5 * divergence).sum())
            assert weighted == pytest.approx(said["forward_fb1_beta0.5_lengthweighted"][2], rel=1e-5)
    pair = adversarial(net.discriminator, mean, torch.Generator().manual_seed(5))
    assert [float(loss) for loss in pair] == pytest.approx(said["loss_adv_fp32(seed5)"], rel=1e-5)


def test_reference_texts(reference, original_model):
    _, said, _ = reference
    texts, settings = said["inputs"], dict(said["sampled_settings"])
    assert original_model.simulate_batch(None, None, texts) == said["simulate_batch_greedy"]
    one_by_one = [original_model.simulate_batch(None, None, [text])[0] for text in texts]
    assert one_by_one == said["simulate_batch_greedy_single"]
    prompts = ["个人认为", "博物馆", "我们"]  # of different lengths: rows are held to the longer ones
    assert original_model.simulate_batch(None, None, texts[:3], prompts) == said["simulate_batch_greedy_prompt"]
    vae = original_model.vae
    written = vae.write(vae.encode(texts), vae.starts(None, len(texts)))
    assert [[vae.pieces.bos_id, *text.ids] for text in written] == said["greedy_ids"]
    seed = settings.pop("seed")
    assert (
        original_model.simulate_batch(None, None, texts, seed=seed, **settings) == said["simulate_batch_sampled_seed99"]
    )
    torch.manual_seed(seed)  # without a seed of ours, torch's own generator draws, as in the original
    assert original_model.simulate_batch(None, None, texts, **settings) == said["simulate_batch_sampled_seed99"]


def test_reference_tokenizer(reference):
    pieces = reference[0].pieces()
    assert (pieces.eos_id, pieces.pad_id, pieces.bos_id) == (50000, 50001, 50002)
    assert pieces.encode(["虽然不在长沙了,"]) == [[1647, 1829, 6330, 43370, 43359]]
    assert pieces.decode([1647, 0, 1829, 50001, 50020, 6330]) == "虽然<unk>不在长沙"
    assert pieces.cut("虽然不在长沙了,真的", 3) == "虽然不在长沙"
    assert pieces.start("虽然不在长沙了", 2) == "虽然不在"


# Cached writing


def test_cache_gives_the_logits_of_a_whole_pass(vae):
    decoder, ids, z = vae.net.decoder, torch.randint(0, 300, (4, 40)), latents(4)
    with torch.inference_mode():
        whole = decoder(ids, z)
        past = Past(decoder, 4, 40)
        parts = [decoder(ids[:, :5], z, past)] + [decoder(ids[:, i : i + 1], z, past) for i in range(5, 40)]
        torch.testing.assert_close(torch.cat(parts, 1), whole, atol=1e-4, rtol=1e-4)
        past.length = 20  # taken back, and shortened to two rows
        past.select(torch.tensor([3, 1]))
        again = decoder(ids[[3, 1], 20:26], z[[3, 1]], past)
    torch.testing.assert_close(again, whole[[3, 1], 20:26], atol=1e-4, rtol=1e-4)


def plainly(decoder, z, starts, pick, end, longest, first_mark):
    """The original's loop: all that is written is read anew for each token."""
    first, owners = min(map(len, starts)), list(range(len(starts)))
    ids, out = torch.tensor([start[:first] for start in starts]), {}
    for at in range(first, longest):
        if first_mark and at == first + 2:
            ids[ids[:, first] == MARK, first] = UNKNOWN
        tokens = pick(decoder(ids, z)[:, -1], ids)
        tokens = torch.tensor([
            starts[i][at] if len(starts[i]) > at else int(token) for i, token in zip(owners, tokens, strict=True)
        ])  # fmt: skip
        for row in (tokens == end).nonzero()[:, 0].tolist():
            out[owners[row]] = ids[row].tolist()
        going = tokens != end
        owners = [i for i, goes in zip(owners, going.tolist(), strict=True) if goes]
        ids, z = torch.cat([ids, tokens[:, None]], 1)[going], z[going]
        if not owners:
            break
    out |= dict(zip(owners, ids.tolist(), strict=True))
    return [out[i][len(start) :] for i, start in enumerate(starts)]


@pytest.mark.parametrize(
    "settings",
    [
        Settings(max_out_length=40, top_k=1),
        Settings(max_out_length=40, top_k=0, top_p=0.9, temperature=1.3, repetition_penalty=1.5),
        Settings(max_out_length=40, top_k=20),
    ],
)
def test_cached_writing_equals_the_original_loop(vae, settings):
    decoder, bos = vae.net.decoder, vae.pieces.bos_id
    starts = [[bos], [bos, 5], [bos, 9, 11, 12], *[[bos]] * 13]
    # The id of an often chosen token as the end, and the mark of the quirk as another.
    pick = lambda seed: original(settings, Quirks(), torch.Generator().manual_seed(seed))  # noqa: E731

    def marked(choose):
        """Some rows begin with the mark."""
        return lambda logits, ids: (
            choose(logits, ids).where(torch.arange(len(ids)) % 3 > 0, MARK) if ids.size(1) == 1 else choose(logits, ids)
        )

    with torch.inference_mode():
        ended = plainly(decoder, latents(16), starts, pick(3), -1, 40, False)
        common = int(np.bincount(np.concatenate(ended)).argsort()[-4])
        for end in (vae.pieces.eos_id, common):
            ours = write(
                decoder, latents(16), starts, marked(pick(3)), end=end, longest=40, first_mark=True
            )  # fmt: skip
            theirs = plainly(decoder, latents(16), starts, marked(pick(3)), end, 40, True)
            assert [text.ids for text in ours] == theirs
    assert len({len(ids) for ids in theirs}) > 1  # some texts ended early
    assert any(ids and ids[0] == UNKNOWN for ids in theirs)


def test_logprob_is_that_of_the_text(model):
    [[greedy], *_] = model.hypothesize(np.ones((1, 10), np.float32))
    [[found]] = model.hypothesize(np.ones((1, 10), np.float32), 1, Sampling(0.7), seed=4)
    targets = np.ones((1, 10), np.float32)
    for text in (greedy, found):
        assert text.logprob < 0 and math.isfinite(text.logprob)
    decoder, pieces, z = model.vae.net.decoder, model.vae.pieces, model.latents(targets)
    [written] = write(
        decoder, z, [[pieces.bos_id]], lambda logits, ids: logits.argmax(1), end=pieces.eos_id, longest=25
    )
    ids = [pieces.bos_id, *written.ids, *([pieces.eos_id] if len(written.ids) < 24 else [])]
    with torch.inference_mode():
        logs = decoder(torch.tensor([ids]), z).log_softmax(-1)[0]
    assert written.logprob == pytest.approx(float(sum(logs[i, token] for i, token in enumerate(ids[1:]))), abs=1e-3)


def test_beams_find_what_is_likelier(model):
    targets = np.random.default_rng(0).standard_normal((3, 10)).astype(np.float32)
    pieces, z = model.vae.pieces, model.latents(targets)
    rows = beam_search(model.vae.net.decoder, z, pieces.bos_id, 3, 4, end=pieces.eos_id, longest=12)
    for row, latent in zip(rows, z, strict=True):
        assert len(row) == 3 and len({tuple(text.ids) for text in row}) == 3
        means = [text.logprob / (len(text.ids) + 1) for text in row]
        assert means == sorted(means, reverse=True)
        for text in row:
            ids = [pieces.bos_id, *text.ids, *([pieces.eos_id] if len(text.ids) < 11 else [])]
            with torch.inference_mode():
                logs = model.vae.net.decoder(torch.tensor([ids]), latent[None]).log_softmax(-1)[0]
            assert text.logprob == pytest.approx(float(sum(logs[i, t] for i, t in enumerate(ids[1:]))), abs=1e-3)
    alone = beam_search(model.vae.net.decoder, z[:1], pieces.bos_id, 3, 4, end=pieces.eos_id, longest=12)
    assert [text.ids for text in alone[0]] == [text.ids for text in rows[0]]


# Quirks, one by one


def test_penalty_counts_occurrences_only_as_a_quirk():
    logits, ids = torch.zeros(1, 4).log_softmax(1), torch.tensor([[1, 1, 1, 2]])
    chances = {}
    for quirks in (Quirks(), Quirks.none()):
        pick = original(Settings(repetition_penalty=2.0), quirks, torch.Generator().manual_seed(0))
        drawn = torch.stack([pick(logits, ids)[0] for _ in range(4000)])
        chances[quirks.penalty_per_occurrence] = (drawn.bincount(minlength=4) / 4000).tolist()
    assert chances[True] == pytest.approx(np.array([1, 1 / 8, 1 / 2, 1]) / 2.625, abs=0.03)
    assert chances[False] == pytest.approx(np.array([1, 1 / 2, 1 / 2, 1]) / 3, abs=0.03)


def test_marks_are_doubled_only_as_a_quirk(vae):
    doubled = vae.read(["门票"])[0]
    assert doubled[:2] == [101, 101] and doubled[-2:] == [102, 102]
    from unembed.models.davae.vae import TextVAE

    plain = TextVAE(vae.net, vae.reader, vae.pieces, vae.settings, Quirks.none())
    assert plain.read(["门票"])[0] == doubled[1:-1]
    assert len(plain.read(["门" * 100])[0]) == 40  # the encoder's positions


def test_noise_is_filtered():
    assert filter_noise("我 2 3 人 ok 好 ， 对") == "我23人 ok 好，对"
    assert filter_noise("a【b】c [d] e<unk>f原文地址：g 引用日期2013") == "ac  efg"
    assert filter_noise("5 - 3") == "5 - 3"  # its own list of characters lacks the hyphen


# The auto-encoder and the inverter


def test_encode_decode_interpolate_sample(vae):
    z = vae.encode(TEXTS)
    assert z.shape == (len(TEXTS), LATENT) and z.dtype == np.float32
    np.testing.assert_allclose(z[2:3], vae.encode(TEXTS[2:3]), atol=1e-5)  # padding changes nothing
    np.testing.assert_array_equal(vae.encode(TEXTS, 1.0, seed=1), vae.encode(TEXTS, 1.0, seed=1))
    assert np.abs(vae.encode(TEXTS, 1.0, seed=1) - z).max() > 0.1
    texts = vae.decode(3 * latents(6).numpy())
    assert vae.decode(3 * latents(6).numpy()) == texts and len(set(texts)) > 1
    line = vae.interpolate(TEXTS[0], TEXTS[4], n=5)
    assert [line[0], line[-1]] == vae.decode(z[[0, 4]]) and len(line) == 5
    assert vae.sample(3, seed=2) == vae.sample(3, seed=2)
    assert vae.sample(3, seed=2) != vae.sample(3, seed=3)


def test_the_search_drives_it(folder):
    """Without a map: its encoder is the embedder, and a latent is inverted like any vector."""
    inverter = unembed.load(davae_fixtures_without_map(folder))
    assert inverter.embedder.spec.dim == LATENT and inverter.embedder.spec == inverter.model.spec
    vectors = inverter.embedder.encode(TEXTS[:2])
    np.testing.assert_allclose(vectors, inverter.model.vae.encode(TEXTS[:2]), atol=1e-5)
    found = inverter.invert(vectors, steps=2, sequence_beam_width=2, hypotheses=4)
    zero = inverter.invert(vectors, steps=0, sequence_beam_width=1)
    assert all(more.cosine >= less.cosine and more.steps for more, less in zip(found, zero, strict=True))
    assert [text.text for text in zero] == inverter.model.vae.decode(vectors)


def davae_fixtures_without_map(folder):
    """A copy of the folder without its map."""
    import shutil

    from safetensors.torch import save_file

    copy = folder.with_name("plain")
    if not copy.exists():
        shutil.copytree(folder, copy)
        tensors = load_file(folder / "model.safetensors")
        save_file({n: t for n, t in tensors.items() if not n.startswith("latent_map.")}, copy / "model.safetensors")
    return copy


def test_inverter_of_foreign_vectors(model):
    assert model.spec == SPEC
    targets = np.random.default_rng(1).standard_normal((3, 10)).astype(np.float32)
    rows = model.hypothesize(targets, 4, Sampling(1.0), seed=7)
    assert [len(row) for row in rows] == [4, 4, 4] and len({text.text for text in rows[0]}) > 1
    assert rows == model.hypothesize(targets, 4, Sampling(1.0), seed=7)
    assert len({row[0].text for row in model.hypothesize(targets)}) > 1
    assert [len(row) for row in model.hypothesize(targets, 2)] == [2, 2, 2]  # n-best
    corrected = model.correct(targets, TEXTS[:3], targets, 2, Sampling(1.0))
    assert [len(row) for row in corrected] == [2, 2, 2]
    # A hypothesis whose vector is the target stays where it is: its own latent is written from.
    mean = model.vae.posterior(TEXTS[:3])[0]
    assert [row[0].text for row in model.correct(targets, TEXTS[:3], targets)] == [
        row[0].text for row in model.write(torch.from_numpy(mean), 1, GREEDY, 0)
    ]
    scores = model.score(TEXTS[:3], targets)
    assert scores.shape == (3,) and (scores < 0).all()
    np.testing.assert_allclose(scores[1:2], model.score(TEXTS[1:2], targets[1:2]), atol=1e-3)
    assert len(model.sample_prior(3, Sampling())) == 3


def test_losses_do_not_pull_at_each_other(vae):
    disc = torch.nn.Sequential(torch.nn.Linear(LATENT, 4), torch.nn.ReLU(), torch.nn.Linear(4, 1))
    z = latents(6).requires_grad_()
    theirs, ours = adversarial(disc, z)
    theirs.backward(retain_graph=True)
    assert z.grad is None and disc[0].weight.grad.abs().sum() > 0
    disc.zero_grad()
    ours.backward()
    assert z.grad.abs().sum() > 0 and disc[0].weight.grad is None
    for loss in adversarial(disc.bfloat16(), z):
        assert loss.dtype == torch.float32 and loss.isfinite()


def test_free_bits_have_no_gradient_below_the_floor():
    mean, logvar = torch.tensor([[0.1, 2.0]], requires_grad=True), torch.zeros(1, 2, requires_grad=True)
    kl(mean, logvar, 1, 0.1).sum().backward()
    assert mean.grad.tolist() == [[0.0, 2.0]]
    assert float(kl(mean, torch.full((1, 2), 3.0), 2).detach()) == pytest.approx(0.5 * (0.01 + 4))


def test_the_end_is_learned_only_where_it_is_asked_for(vae):
    eos, pad = vae.pieces.eos_id, vae.pieces.pad_id
    ids = torch.tensor([[vae.pieces.bos_id, 5, 6, eos, pad]])
    logits = torch.zeros(1, 5, vae.pieces.size)
    one = math.log(vae.pieces.size)
    assert float(reconstruction(logits, ids, pad)) == pytest.approx(3 * one, rel=1e-5)
    assert float(reconstruction(logits, ids.where(ids != pad, eos), eos)) == pytest.approx(2 * one, rel=1e-5)


def test_bad_input(vae, model):
    with pytest.raises(InputError, match="text 1 is empty"):
        vae.encode(["好", " "])
    with pytest.raises(InputError, match=r"prompt 0 has \d+ tokens.*at most 23 .max_out_length"):
        vae.decode(np.zeros((1, LATENT)), ["好" * 60])
    with pytest.raises(InputError, match="latent 1 holds NaN"):
        vae.decode(np.array([np.zeros(LATENT), np.full(LATENT, np.nan)]))
    with pytest.raises(InputError, match=rf"\[n, {LATENT}\]"):
        vae.decode(np.zeros((1, 3)))
    with pytest.raises(InputError, match="a target holds NaN"):
        model.hypothesize(np.full((1, 10), np.nan, np.float32))
    with pytest.raises(InputError, match="one prompt for each"):
        vae.decode(np.zeros((2, LATENT)), ["好"])
    compat = DAVAEModel(vae)
    with pytest.raises(InputError, match="text 0 is empty"):
        compat.simulate_batch(None, None, [""])
    with pytest.raises(InputError, match="unexpected keyword argument 'top_q'; known are"):
        compat.simulate_batch(None, None, ["好"], top_q=1)
    with pytest.raises(InputError, match="temperature"):
        compat.simulate_batch(None, None, ["好"], temperature=0)
    assert compat.simulate_batch(None, None, []) == []
