"""What llmtk convert writes, run by llama.cpp (xllamacpp), and whole files of quantized types that others write.

After prompts of several lengths llama.cpp gives the log-probability of every token, and so does `inspect logits` on the same file.
"""

import shutil

import gguf
import numpy as np
import torch
import xllamacpp
from safetensors import safe_open
from safetensors.torch import load_file

from gguf_models import FAMILIES, FOLDER, ROPE, make_model
from support import main, run

PROMPTS = [[5], [7, 9, 20, 33, 41, 12, 8], [11 + i * i % 180 for i in range(60)]]  # the last one is longer than the windows
# llama.cpp rounds what it multiplies to the type of the weights: float16, bfloat16, or eight bits in blocks.
ASCII = 17  # "1"
GELU = 3e-3  # it looks GELU up in a table of float16
BOUNDS = {"F32": 2e-5, "F16": 1e-2, "BF16": 0.06, "Q8_0": 0.2}


def llama_cpp(file, vocabulary):
    """Log-probabilities [prompts, vocabulary] of the token after each prompt."""
    params = xllamacpp.CommonParams()
    params.model.path = str(file)
    params.n_ctx, params.n_parallel, params.verbosity = 96, 1, -1
    params.warmup = params.fit_params = False
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = 1
    params.cache_type_k = params.cache_type_v = xllamacpp.ggml_type.GGML_TYPE_F32
    params.flash_attn_type = xllamacpp.llama_flash_attn_type.LLAMA_FLASH_ATTN_TYPE_DISABLED
    server = xllamacpp.Server(params)
    rows = []
    for prompt in PROMPTS:
        # Whichever token is chosen: it tells the probabilities, which are those before the bias, with whole characters only.
        answer = server.handle_completions({"prompt": prompt, "temperature": 0, "n_predict": 1, "n_probs": vocabulary,
                                            "cache_prompt": False, "logit_bias": [[ASCII, 100]]})
        best = answer["choices"][0]["logprobs"]["content"][0]["top_logprobs"]
        assert len(best) == vocabulary, (len(best), vocabulary)
        row = torch.full((vocabulary,), float("nan"))
        for token in best:
            row[token["id"]] = token["logprob"]
        rows.append(row)
    return torch.stack(rows)


def llmtk(model):
    output = FOLDER / "logits.safetensors"
    ids = [word for prompt in PROMPTS for word in ("--ids", ",".join(map(str, prompt)))]
    run("inspect", "logits", model, *ids, "--device", "cpu", "--threads", 1, "--dtype", "float32", "--output", output)
    found = load_file(output)
    return torch.log_softmax(found["logits"][:, -1].float(), -1)  # padded on the left


def check(found, expected, bound, what):
    assert not expected.isnan().any() and found.shape == expected.shape, (what, found.shape)
    worst = (found - expected).abs().max().item()
    assert worst < bound, f"{what}: log-probabilities differ by {worst:.2g}"
    if bound < 1e-2:
        assert (found.argmax(-1) == expected.argmax(-1)).all(), what
    return worst


def test_llama_cpp_runs_every_family_as_llmtk_does():
    for name in FAMILIES:
        folder = make_model(name)
        for kind, bound in BOUNDS.items() if name in ("llama", "gemma3") else [("F32", BOUNDS["F32"])]:
            file = FOLDER / f"{name}.{kind}.gguf"
            run("convert", folder, file, "--type", kind)
            found = llmtk(file)
            if FAMILIES[name][0] in ("gpt2", "gemma2", "gemma3_text"):
                bound = max(bound, GELU)
            worst = check(found, llama_cpp(file, found.shape[1]), bound, f"{name} in {kind}")
            print(f"  {name:14} {kind:5} {worst:.1e}")
            if kind == "F32":
                check(found, llmtk(folder), 2e-5, f"{name}: file and folder")


def random_blocks(kind, rows, columns, random):
    """Any quants and scales, with the float16 factors of every block small numbers, so that a model of them computes."""
    block, size = gguf.GGML_QUANT_SIZES[gguf.GGMLQuantizationType[kind]]
    data = random.integers(0, 256, (rows, columns // block, size), dtype=np.uint8)
    factors = {"Q8_0": [0], "Q4_0": [0], "Q4_1": [0, 2], "Q5_0": [0], "Q5_1": [0, 2], "Q2_K": [80, 82], "Q3_K": [108],
               "Q4_K": [0, 2], "Q5_K": [0, 2], "Q6_K": [208]}[kind]
    largest = {"Q8_0": 128, "Q4_0": 8, "Q4_1": 16, "Q5_0": 16, "Q5_1": 32, "Q2_K": 45, "Q3_K": 128, "Q4_K": 945,
               "Q5_K": 1953, "Q6_K": 4096}[kind]
    for at in factors:
        numbers = (random.uniform(0.02, 0.08, (rows, columns // block)) / largest * 2).astype(np.float16)
        data[:, :, at:at + 2] = numbers[:, :, None].view(np.uint8).reshape(rows, columns // block, 2)
    return data.reshape(rows, -1)


def quantized(file, output, kinds):
    """`file` with every matrix in one of `kinds`, and the numbers that these blocks are, by the package gguf."""
    reader, random, numbers = gguf.GGUFReader(file), np.random.default_rng(0), {}
    writer = gguf.GGUFWriter(output, reader.fields["general.architecture"].contents())
    for field in reader.fields.values():
        if field.name == "general.architecture" or field.name.startswith("GGUF."):
            continue
        writer.add_key_value(field.name, field.contents(), field.types[0],
                             sub_type=field.types[-1] if field.types[0] == gguf.GGUFValueType.ARRAY else None)
    matrices = 0
    for tensor in reader.tensors:
        if len(tensor.shape) < 2:
            writer.add_tensor(tensor.name, np.array(tensor.data))
            numbers[tensor.name] = torch.tensor(np.array(tensor.data))
            continue
        kind = kinds[matrices % len(kinds)]
        matrices += 1
        columns, rows = (int(n) for n in tensor.shape)
        data = random_blocks(kind, rows, columns, random)
        writer.add_tensor(tensor.name, data, raw_dtype=gguf.GGMLQuantizationType[kind])
        numbers[tensor.name] = torch.tensor(gguf.quants.dequantize(data, gguf.GGMLQuantizationType[kind]))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    assert matrices >= len(kinds), (matrices, kinds)
    return numbers


def test_whole_models_of_quantized_types():
    FAMILIES["wide"] = ("qwen2", dict(ROPE, hidden_size=256, intermediate_size=512, num_hidden_layers=2, tie_word_embeddings=False))
    plain = FOLDER / "wide.gguf"
    run("convert", make_model("wide"), plain)
    for kinds in (["Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K"], ["Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0"]):
        what = ", ".join(kinds)
        file, folder = FOLDER / f"wide-{kinds[0]}.gguf", FOLDER / f"wide-{kinds[0]}"
        numbers = quantized(plain, file, kinds)
        run("convert", file, folder, "--dtype", "float32")
        with safe_open(folder / "model.safetensors", "pt") as saved:
            names = dict(zip(numbers, gguf_to_hf(numbers)))
            assert sorted(names.values()) == sorted(saved.keys()), what
            for name, expected in numbers.items():
                assert torch.equal(saved.get_tensor(names[name]), expected), (what, name)
        found = llmtk(file)
        check(found, llmtk(folder), 2e-5, f"{what}: file and folder")
        # llama.cpp rounds what it multiplies to eight bits.
        print(f"  {what:34} {check(found, llama_cpp(file, found.shape[1]), 0.3, what):.1e}")


def gguf_to_hf(names):
    """Qwen2's names, by the package gguf."""
    table = gguf.get_tensor_name_map(gguf.MODEL_ARCH.QWEN2, 2)
    hf = {table.get_name(f"model.layers.{layer}.{part}"): f"model.layers.{layer}.{part}" for layer in range(2) for part in
          ["input_layernorm", "post_attention_layernorm", "mlp.gate_proj", "mlp.up_proj", "mlp.down_proj",
           *(f"self_attn.{p}_proj" for p in "qkvo")]}
    hf.update({table.get_name(name): name for name in ("model.embed_tokens", "model.norm", "lm_head")})
    return [hf[name.rsplit(".", 1)[0]] + "." + name.rsplit(".", 1)[1] for name in names]


try:
    main(dict(globals()))
finally:
    shutil.rmtree(FOLDER)
