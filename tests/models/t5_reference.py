"""Makes the models that t5_test.cpp compares with: t5_reference.py FOLDER.

Small random T5 models of transformers, one folder per case as save_pretrained writes it, and beside each a
reference.safetensors: inputs, logits, hidden states, attention, loss, every gradient, and the weights after 20 steps of
torch.optim.AdamW.
"""

import copy
import json
import sys
from pathlib import Path

import torch
import transformers
from safetensors.torch import load_file, save_file
from transformers import T5Config, T5ForConditionalGeneration

from rounded import rounded

torch.set_num_threads(1)
transformers.logging.set_verbosity_error()

T5 = dict(vocab_size=97, d_model=48, d_kv=12, d_ff=80, num_layers=3, num_heads=4, dropout_rate=0.0,
          decoder_start_token_id=0)
CASES = {
    "t5": dict(T5, model_type="t5"),
    "t5_v1_1": dict(T5, feed_forward_proj="gated-gelu", tie_word_embeddings=False),
    # What version 5 makes of a new config of v1.1: tied all the same, and not scaled.
    "t5_tied_unscaled": dict(T5, feed_forward_proj="gelu", tie_word_embeddings=False),
    "t5_shapes": dict(T5, num_layers=4, num_decoder_layers=2, d_kv=20, feed_forward_proj="gated-silu",
                      relative_attention_num_buckets=8, relative_attention_max_distance=20),
}
OWN_HEAD = {"t5_v1_1"}
B, S, T = 3, 44, 26


def make(case, generator):
    settings = dict(CASES[case])
    settings.pop("model_type", None)
    model = T5ForConditionalGeneration._from_config(T5Config(**settings), attn_implementation="eager").eval()
    if case in OWN_HEAD:
        model.lm_head.weight = torch.nn.Parameter(model.lm_head.weight.detach().clone())
    with torch.no_grad():
        for name, p in model.named_parameters():
            noise = torch.randn(p.shape, generator=generator)
            if p.dim() == 1:
                p.copy_(1 + noise * 0.1)
            elif "relative" in name:
                p.copy_(noise * 0.8)  # a bias on distances that is seen in the attention
            else:
                # Scores are not scaled: the queries are, so that rounding does not grow over the optimizer's steps.
                p.copy_(noise * 0.15 * (model.config.d_kv**-0.5 if name.endswith(".q.weight") else 1))
    return model


def each_row_alone(model, ids, mask, decoder_ids, decoder_mask):
    """Logits of the real tokens, from every row without its padding."""
    logits = torch.zeros(B, T, model.config.vocab_size)
    for row in range(B):
        real, decoder_real = mask[row].bool(), decoder_mask[row].bool()
        logits[row, decoder_real] = model(ids[row, real][None], decoder_input_ids=decoder_ids[row, decoder_real][None],
                                          use_cache=False).logits[0]
    return logits


def reference(model, generator):
    V = model.config.vocab_size
    ids = torch.randint(2, V, (B, S), generator=generator)
    labels = torch.randint(2, V, (B, T), generator=generator)
    labels[2, 17:] = -100
    decoder_ids = model._shift_right(labels)
    out = {"input_ids": ids, "labels": labels, "decoder_input_ids": decoder_ids}
    result = model(ids, labels=labels, output_hidden_states=True, output_attentions=True, use_cache=False)
    out["logits"], out["loss"] = result.logits, result.loss
    for side in ("encoder", "decoder"):
        hidden = result[side + "_hidden_states"]
        out[side + "_hidden_first"], out[side + "_hidden_last"] = hidden[0], hidden[-1]
        out[side + "_attention_first"], out[side + "_attention_last"] = (result[side + "_attentions"][i] for i in (0, -1))
    out["cross_attention_last"] = result.cross_attentions[-1]
    result.loss.backward()
    for name, p in model.named_parameters():
        out["grad." + name] = p.grad.clone()

    with torch.no_grad():
        mask, decoder_mask = torch.ones(B, S, dtype=torch.long), torch.ones(B, T, dtype=torch.long)
        mask[1, 31:], mask[2, :13] = 0, 0
        decoder_mask[1, :7], decoder_mask[2, 20:] = 0, 0
        out["mask"], out["decoder_mask"] = mask, decoder_mask
        out["padded_logits"] = each_row_alone(model, ids, mask, decoder_ids, decoder_mask)

    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, betas=(0.9, 0.95), eps=1e-6, weight_decay=0.1)
    for _ in range(20):
        optimizer.zero_grad()
        model(ids, labels=labels, use_cache=False).loss.backward()
        optimizer.step()
    for name, p in model.named_parameters():
        out["after." + name] = p.detach()
    return {name: tensor.detach().clone().contiguous() for name, tensor in out.items()}


def old_files(folder):
    """The same models as older files hold them."""
    # The hub's: the table under its other names, and one that nothing reads.
    weights = load_file(folder / "t5" / "model.safetensors")
    for name in ("encoder.embed_tokens.weight", "decoder.embed_tokens.weight", "lm_head.weight"):
        weights[name] = weights["shared.weight"].clone()
    unread = "decoder.block.0.layer.1.EncDecAttention.relative_attention_bias.weight"
    weights[unread] = torch.ones_like(weights[unread.replace("1.EncDecAttention", "0.SelfAttention")])
    (folder / "old").mkdir(exist_ok=True)
    (folder / "old" / "config.json").write_text((folder / "t5" / "config.json").read_text())
    save_file(weights, folder / "old" / "model.safetensors")
    # Version 4's config of v1.1.
    config = json.loads((folder / "t5_v1_1" / "config.json").read_text())
    config.update(tie_word_embeddings=False, torch_dtype=config.pop("dtype"), n_positions=512, output_past=True,
                  dense_act_fn="gelu_new", is_gated_act=True, num_decoder_layers=None)
    config.pop("scale_decoder_outputs")
    (folder / "v1_1_config_v4.json").write_text(json.dumps(config))


def main(folder):
    for number, case in enumerate(CASES):
        generator = torch.Generator().manual_seed(2000 + number)
        model = make(case, generator)
        model.save_pretrained(folder / case)
        exact = copy.deepcopy(model)  # reference() trains it
        out = reference(model, generator)
        ids, decoder_ids = out["input_ids"], out["decoder_input_ids"]
        answers = lambda wide: wide(ids, decoder_input_ids=decoder_ids, use_cache=False).logits
        for dtype, logits in rounded(exact, folder / case, answers).items():
            out["logits." + dtype] = logits
        save_file(out, folder / case / "reference.safetensors")
    old_files(folder)


main(Path(sys.argv[1]))
