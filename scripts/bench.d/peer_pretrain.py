"""One peer of `scripts/bench pretrain`: trains a GPT-2 or Llama shape in Python and prints one JSON line.

Two implementations: "transformers" (its model classes) and "plain" (a GPT or Llama written by hand on PyTorch, the way
people write them to be fast: fused qkv, SDPA, cross-entropy on flattened logits). Both use AdamW (fused) and the same rows
of tokens as llmtk gets.
"""

import argparse
import json
import math
import statistics
import time

import numpy
import torch
from torch import nn
from torch.nn import functional as F


class PlainBlock(nn.Module):
    """A pre-norm block: GPT-2's (LayerNorm, GELU, biases) or Llama's (RMSNorm, rotary, SwiGLU)."""

    def __init__(self, shape):
        super().__init__()
        width, self.shape = shape["width"], shape
        self.heads, self.kv_heads = shape["heads"], shape["kv_heads"]
        self.head_dim = width // self.heads
        llama = shape["family"] == "llama"
        norm = (lambda: nn.RMSNorm(width, eps=1e-5)) if llama else (lambda: nn.LayerNorm(width))
        self.norm1, self.norm2 = norm(), norm()
        self.qkv = nn.Linear(width, (self.heads + 2 * self.kv_heads) * self.head_dim, bias=not llama)
        self.out = nn.Linear(width, width, bias=not llama)
        if llama:
            self.gate_up = nn.Linear(width, 2 * shape["inner"], bias=False)
            self.down = nn.Linear(shape["inner"], width, bias=False)
        else:
            self.up = nn.Linear(width, shape["inner"])
            self.down = nn.Linear(shape["inner"], width)

    def attention(self, x, rotary):
        B, T, C = x.shape
        q, k, v = self.qkv(x).split(
            [self.heads * self.head_dim, self.kv_heads * self.head_dim, self.kv_heads * self.head_dim], dim=2)
        q, k, v = (t.view(B, T, -1, self.head_dim).transpose(1, 2) for t in (q, k, v))
        if rotary is not None:
            cos, sin = (t.to(q.dtype) for t in rotary)
            rotate = lambda t: torch.cat((-t[..., self.head_dim // 2:], t[..., :self.head_dim // 2]), dim=-1)
            q, k = q * cos + rotate(q) * sin, k * cos + rotate(k) * sin
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=self.kv_heads != self.heads)
        return self.out(y.transpose(1, 2).reshape(B, T, C))

    def mlp(self, x):
        if self.shape["family"] == "llama":
            gate, up = self.gate_up(x).chunk(2, dim=-1)
            return self.down(F.silu(gate) * up)
        return self.down(F.gelu(self.up(x), approximate="tanh"))

    def forward(self, x, rotary):
        x = x + self.attention(self.norm1(x), rotary)
        return x + self.mlp(self.norm2(x))


class Plain(nn.Module):
    def __init__(self, shape):
        super().__init__()
        self.shape = shape
        width, llama = shape["width"], shape["family"] == "llama"
        self.tokens = nn.Embedding(shape["vocab"], width)
        self.positions = None if llama else nn.Embedding(shape["positions"], width)
        self.blocks = nn.ModuleList(PlainBlock(shape) for _ in range(shape["layers"]))
        self.norm = nn.RMSNorm(width, eps=1e-5) if llama else nn.LayerNorm(width)
        self.head = nn.Linear(width, shape["vocab"], bias=False)
        self.head.weight = self.tokens.weight
        for p in self.parameters():
            if p.dim() == 2:
                nn.init.normal_(p, std=0.02)
        if llama:
            dim = width // shape["heads"]
            angle = torch.arange(shape["positions"])[:, None] / 10000.0 ** (torch.arange(0, dim, 2) / dim)
            angle = torch.cat((angle, angle), dim=-1)
            self.register_buffer("cos", angle.cos()), self.register_buffer("sin", angle.sin())

    def forward(self, ids, labels):
        T = ids.shape[1]
        x, rotary = self.tokens(ids), None
        if self.positions is not None:
            x = x + self.positions(torch.arange(T))
        else:
            rotary = (self.cos[:T], self.sin[:T])
        for block in self.blocks:
            x = block(x, rotary)
        logits = self.head(self.norm(x))
        return F.cross_entropy(logits.view(-1, logits.shape[-1]).float(), labels.view(-1))


def hugging_face(shape):
    import transformers

    if shape["family"] == "llama":
        config = transformers.LlamaConfig(
            vocab_size=shape["vocab"], hidden_size=shape["width"], intermediate_size=shape["inner"],
            num_hidden_layers=shape["layers"], num_attention_heads=shape["heads"], num_key_value_heads=shape["kv_heads"],
            max_position_embeddings=shape["positions"], tie_word_embeddings=True, use_cache=False)
        return transformers.LlamaForCausalLM(config)
    config = transformers.GPT2Config(
        vocab_size=shape["vocab"], n_embd=shape["width"], n_layer=shape["layers"], n_head=shape["heads"],
        n_positions=shape["positions"], resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0, use_cache=False)
    return transformers.GPT2LMHeadModel(config)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("job", help="JSON: kind, compile, shape, dtype, batch, length, steps, warmup, threads, tokens")
    job = json.loads(parser.parse_args().job)
    torch.manual_seed(0)
    torch.set_num_threads(job["threads"])
    shape = job["shape"]
    tokens = numpy.fromfile(job["tokens"], dtype=numpy.uint16).astype(numpy.int64)
    model = Plain(shape) if job["kind"] == "plain" else hugging_face(shape)
    decay = [p for p in model.parameters() if p.dim() >= 2]
    rest = [p for p in model.parameters() if p.dim() < 2]
    optimizer = torch.optim.AdamW([{"params": decay, "weight_decay": 0.1}, {"params": rest, "weight_decay": 0.0}],
                                  lr=1e-4, betas=(0.9, 0.95), fused=True)
    model.train()

    def loss_of(ids, labels):
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=job["dtype"] == "bfloat16"):
            if job["kind"] == "plain":
                return model(ids, labels)
            logits = model(input_ids=ids).logits
            return F.cross_entropy(logits.view(-1, logits.shape[-1]).float(), labels.view(-1))

    step_loss = torch.compile(loss_of) if job["compile"] else loss_of
    B, T = job["batch"], job["length"]
    seconds, losses = [], []
    for step in range(job["warmup"] + job["steps"]):
        start = (step * B * (T + 1)) % (len(tokens) - B * (T + 1))
        rows = torch.from_numpy(tokens[start:start + B * (T + 1)]).view(B, T + 1)
        begin = time.perf_counter()
        loss = step_loss(rows[:, :-1].contiguous(), rows[:, 1:].contiguous())
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        losses.append(loss.item())
        if step >= job["warmup"]:
            seconds.append(time.perf_counter() - begin)
    assert all(math.isfinite(value) for value in losses)
    print(json.dumps({"tokens_per_second": B * T / statistics.median(seconds),
                      "first_loss": losses[0], "last_loss": losses[-1]}))


if __name__ == "__main__":
    main()
