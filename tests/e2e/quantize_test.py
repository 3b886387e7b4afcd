"""llmtk quantize: every family in every scheme. Folders open in transformers with compressed-tensors or bitsandbytes, and theirs
open here; logits are the same. Where transformers has no such layers (GPT-2's), plain PyTorch computes the same rounding."""

import json
import os
import pathlib
import shutil
import tempfile

import torch
import transformers
from safetensors.torch import load_file, save_file

from support import BIN, main, make_tokenizer, run

os.environ["OMP_NUM_THREADS"] = "1"  # models this small gain nothing from more
torch.set_num_threads(1)
transformers.logging.set_verbosity_error()
FOLDER = pathlib.Path(tempfile.mkdtemp(prefix="llmtk-e2e-quantize-"))
IDS = [5, 9, 260, 31, 7, 118, 64, 200, 3, 17]
LLAMA = dict(hidden_size=64, intermediate_size=96, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
             max_position_embeddings=96)
GPT = dict(n_layer=2, n_head=4, n_embd=64, n_positions=96)
BERT = dict(hidden_size=64, intermediate_size=96, num_hidden_layers=2, num_attention_heads=4, max_position_embeddings=96)
FAMILIES = {
    "llama": ("CausalLM", LLAMA),
    "qwen3": ("CausalLM", dict(LLAMA, head_dim=16, tie_word_embeddings=True)),
    "gemma2": ("CausalLM", dict(LLAMA, head_dim=16, query_pre_attn_scalar=24, sliding_window=6)),
    "gpt_neox": ("CausalLM", dict(hidden_size=64, intermediate_size=96, num_hidden_layers=2, num_attention_heads=4,
                                  max_position_embeddings=96)),
    "opt": ("CausalLM", dict(hidden_size=64, ffn_dim=96, num_hidden_layers=2, num_attention_heads=4,
                             max_position_embeddings=96, word_embed_proj_dim=32)),
    "bert": ("MaskedLM", BERT),
    "roberta": ("SequenceClassification", dict(BERT, num_labels=3)),
    "t5": ("Seq2SeqLM", dict(d_model=64, d_kv=16, d_ff=96, num_layers=2, num_decoder_layers=2, num_heads=4,
                             decoder_start_token_id=0)),
    "gpt2": ("CausalLM", GPT),
}
PLAIN = ("gpt2", "t5")  # what transformers cannot open, or not when it is packed
SCHEMES = {"W8A8": [], "W8A16": [], "W4A16": ["--group-size", 32], "W4A16_ASYM": ["--group-size", 32],
           "W4A8": ["--group-size", 32]}


def make(family, dtype=torch.float32, **settings):
    """A random model with a tokenizer; its folder and its class."""
    head, shape = FAMILIES[family]
    folder = FOLDER / f"{family}{len(os.listdir(FOLDER))}"
    tokenizer = make_tokenizer(folder)
    torch.manual_seed(4)
    config = transformers.AutoConfig.for_model(family, vocab_size=len(tokenizer), bos_token_id=0, eos_token_id=0, pad_token_id=1,
                                               **{**shape, **settings})
    auto = getattr(transformers, "AutoModelFor" + head)
    model = auto.from_config(config).eval()
    with torch.no_grad():
        for p in model.parameters():
            p.copy_(torch.randn(p.shape) * 0.15 if p.dim() > 1 else p + torch.randn(p.shape) * 0.1)
    model.to(dtype).save_pretrained(folder)
    return folder, auto


def our_logits(folder, dtype="float32"):
    target = ["--target-ids", ",".join(map(str, IDS[:4]))] if pathlib.Path(folder).name.startswith("t5") else []
    path = FOLDER / "logits.safetensors"
    run("inspect", "logits", folder, "--ids", ",".join(map(str, IDS)), *target, "--dtype", dtype, "--output", path)
    return load_file(path)["logits"][0]


def their_logits(model):
    with torch.no_grad():
        ids = torch.tensor([IDS])
        more = dict(decoder_input_ids=torch.tensor([[0, *IDS[:3]]])) if model.config.is_encoder_decoder else {}
        return model(input_ids=ids, **more).logits[0].float()


def opened(auto, folder, **more):
    return auto.from_pretrained(folder, attn_implementation="eager", dtype=torch.float32, **more)


def close(got, expected, what, tolerance=5e-5):
    assert got.shape == expected.shape, (what, got.shape, expected.shape)
    error, limit = (got - expected).abs().max().item(), tolerance * expected.abs().max().item()
    assert error <= limit, (what, error, limit)


def close_rounded(got, expected, scheme, what):
    """Where inputs are rounded, the last bit of one decides now and then which of two integers it becomes: the first token's numbers, which
    hang on few of them, are the same."""
    if not scheme.endswith("A8"):
        return close(got, expected, what)
    close(got, expected, what, 2e-2)
    if got.shape[0] == len(IDS) and "bert" not in what:
        close(got[:1], expected[:1], (*what, "first token"))


def schemes_of(family):
    """All of one family, two of each other: with inputs rounded, and without."""
    if family == "opt":  # whose feed-forward sees a matrix in transformers, and of a matrix the package rounds all rows with one scale
        return {name: SCHEMES[name] for name in ("W8A16", "W4A16")}
    if family == "t5":
        return {"W8A8": SCHEMES["W8A8"]}
    names = list(SCHEMES) if family == "llama" else [("W8A8", "W4A8")[len(family) % 2], ("W8A16", "W4A16_ASYM")[len(family) % 2]]
    return {name: SCHEMES[name] for name in names}


def quantize(folder, scheme, *flags, exit=0):
    out = FOLDER / f"{folder.name}-{scheme}-{len(os.listdir(FOLDER))}"
    answer = run("quantize", folder, out, "--scheme", scheme, *flags, "--no-speed", "--json", exit=exit)
    return (out, json.loads(answer)) if exit == 0 else answer


def test_every_family_opens_in_transformers():
    for family in FAMILIES:
        if family == "gpt2":
            continue
        folder, auto = make(family)
        whole = their_logits(opened(auto, folder))
        for scheme, flags in schemes_of(family).items():
            out, answer = quantize(folder, scheme, *flags, "--dtype", "float32")
            assert answer["receipt"]["mean_kl"] > 0 and len(answer["matrices"]) > 5, answer
            expected = their_logits(opened(auto, out))
            close_rounded(our_logits(out), expected, scheme, (family, scheme))
            assert (expected - whole).abs().max() > 1e-3 * whole.abs().max(), (family, scheme)


def stored_matrices(folder):
    """What a folder of ours holds, by module, in float32: read with the package's functions."""
    from compressed_tensors.compressors import BaseCompressor
    from compressed_tensors.quantization import QuantizationConfig

    config = json.loads((folder / "config.json").read_text())["quantization_config"]
    group = QuantizationConfig.model_validate(config).config_groups["group_0"]
    tensors, found = load_file(folder / "model.safetensors"), {}
    for name in tensors:
        if name.endswith(".weight_scale"):
            path = name.removesuffix(".weight_scale")
            state = {part.removeprefix(path + "."): tensor for part, tensor in tensors.items() if part.startswith(path + ".w")}
            found[path] = BaseCompressor.get_value_from_registry(group.format).decompress(state, group)["weight"].float()
    return found


def rounds_inputs(module, inputs):
    """int8 per token, as the schemes with dynamic activations do."""
    x = inputs[0]
    scale = x.abs().amax(-1, keepdim=True) / 127.5
    return ((x / scale).clamp(-128, 127).round() * scale,)


def test_against_plain_pytorch():
    """GPT-2's Conv1D is no Linear to compressed-tensors; transformers' T5 looks for weights that are packed, to initialize them."""
    for family in PLAIN:
        folder, auto = make(family)
        for scheme, flags in SCHEMES.items():
            out, _ = quantize(folder, scheme, *flags, "--dtype", "float32")
            model = opened(auto, folder)
            matrices = stored_matrices(out)
            assert len(matrices) == {"gpt2": 8, "t5": 32}[family], len(matrices)
            with torch.no_grad():
                for path, matrix in matrices.items():
                    module = model.get_submodule(path)
                    matrix = matrix.T if type(module).__name__ == "Conv1D" else matrix
                    assert (module.weight - matrix).abs().max() > 0
                    module.weight.copy_(matrix)
                    if scheme.endswith("A8"):
                        module.register_forward_pre_hook(rounds_inputs)
            close_rounded(our_logits(out), their_logits(model), scheme, (family, scheme))


def test_nf4_opens_in_transformers():
    os.environ["TORCHDYNAMO_DISABLE"] = "1"  # bitsandbytes would compile what is computed once
    for family in ("llama", "gpt2", "bert", "t5"):
        folder, auto = make(family)
        out, answer = quantize(folder, "NF4", "--dtype", "float32")
        model = opened(auto, out, device_map="cpu")
        assert sum(type(m).__name__ == "Linear4bit" for m in model.modules()) == len(answer["matrices"])
        close(our_logits(out), their_logits(model), family)


def test_folders_of_others_open_here():
    """What compressed-tensors and bitsandbytes write themselves."""
    from compressed_tensors.compressors import BaseCompressor
    from compressed_tensors.quantization import QuantizationConfig, preset_name_to_scheme
    from compressed_tensors.quantization.utils import calculate_qparams

    folder, auto = make("llama")
    for preset in ("W8A8", "W4A16", "W4A16_ASYM", "W8A16"):
        model = opened(auto, folder)
        scheme = preset_name_to_scheme(preset, ["Linear"])
        if scheme.weights.group_size:
            scheme.weights.group_size = 32
        scheme.format = "int-quantized" if preset == "W8A8" else "pack-quantized"
        tensors = {name: tensor.clone() for name, tensor in model.state_dict().items()}
        for path, module in model.named_modules():
            if isinstance(module, torch.nn.Linear) and path != "lm_head":
                groups = module.weight.detach().unflatten(1, (-1, scheme.weights.group_size or module.weight.shape[1]))
                scale, zero = calculate_qparams(groups.amin(2), groups.amax(2), scheme.weights)
                state = {"weight": tensors.pop(path + ".weight"), "weight_scale": scale, "weight_zero_point": zero}
                compressed = BaseCompressor.get_value_from_registry(scheme.format).compress(state, scheme)
                tensors |= {f"{path}.{part}": tensor.contiguous() for part, tensor in compressed.items()}
        out = FOLDER / f"theirs-{preset}"
        shutil.copytree(folder, out)
        save_file(tensors, out / "model.safetensors")
        config = json.loads((out / "config.json").read_text())
        config["quantization_config"] = json.loads(QuantizationConfig(
            config_groups={"group_0": scheme}, format=scheme.format, quantization_status="compressed",
            ignore=["lm_head"]).model_dump_json())
        (out / "config.json").write_text(json.dumps(config))
        close_rounded(our_logits(out), their_logits(opened(auto, out)), preset, (preset,))

    os.environ["TORCHDYNAMO_DISABLE"] = "1"
    for double in (False, True):
        bits = transformers.BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4" if double else "fp4",
                                               bnb_4bit_use_double_quant=double)
        model = opened(auto, folder, quantization_config=bits, device_map="cpu")
        out = FOLDER / f"theirs-4bit-{double}"
        shutil.copytree(folder, out)
        model.save_pretrained(out)
        close(our_logits(out), their_logits(model), double)


def config_file(name, folder, out, **more):
    path = FOLDER / name
    path.write_text(json.dumps({"model": {"name_or_path": str(folder), "dtype": "float32"}, "output_dir": str(out),
                                "receipt": {"speed": False}, **more}))
    return path


def test_a_scheme_for_some_modules():
    folder, auto = make("llama")
    out = FOLDER / "mixed"
    path = config_file("mixed.yaml", folder, out, scheme="W4A16", group_size=32, groups=[
        {"targets": ["lm_head", "re:.*down_proj$"], "scheme": "W8A16"},
        {"targets": ["model.layers.1.mlp.up_proj"], "scheme": "W8A8"}], ignore=["model.layers.0.self_attn.q_proj"])
    answer = json.loads(run("quantize", path, "--json"))
    schemes = {m["module"]: m["scheme"] for m in answer["matrices"]}
    assert schemes["lm_head"] == schemes["model.layers.0.mlp.down_proj"] == "W8A16", schemes
    assert schemes["model.layers.1.mlp.up_proj"] == "W8A8" and schemes["model.layers.0.mlp.up_proj"] == "W4A16", schemes
    assert "model.layers.0.self_attn.q_proj" in answer["kept"] and len(schemes) == 14, answer
    close(our_logits(out), their_logits(opened(auto, out)), "mixed")


def test_a_table_and_the_head_that_is_tied_to_it():
    for family, table in (("qwen3", "model.embed_tokens"), ("gpt2", "transformer.wte"), ("t5", "shared"),
                          ("bert", "bert.embeddings.word_embeddings")):
        folder, auto = make(family)
        out = FOLDER / f"{folder.name}-table"
        path = config_file("table.yaml", folder, out, scheme="W8A16", groups=[{"targets": [table], "scheme": "W8A16"}])
        run("quantize", path)
        tensors = load_file(out / "model.safetensors")
        assert table + ".weight" not in tensors and tensors[table + ".weight_packed"].dtype == torch.int32
        model = opened(auto, folder)
        with torch.no_grad():
            for path, matrix in stored_matrices(out).items():
                module = model.get_submodule(path)
                module.weight.copy_(matrix.T if type(module).__name__ == "Conv1D" else matrix)
        close(our_logits(out), their_logits(model), family)
        text = FOLDER / "score.txt"
        text.write_text("The quick brown fox jumps over the lazy dog. To be, or not to be.\n" * 3)
        if family in ("qwen3", "gpt2"):  # what fuses with the head
            run("eval", "perplexity", out, text, "--json")
            assert "token" in run("generate", out, "--prompt", "The", "--max-new-tokens", 3, "--json")


TEXT = FOLDER / "text.txt"
TEXT.write_text("".join(f"{i} foxes jump over {i * 7 % 13} lazy dogs; to be, or not to be {i % 5} times.\n" for i in range(400)))
GPTQ = ["--method", "gptq", "--calibration", TEXT, "--num-samples", 24, "--max-length", 64]


def test_gptq_loses_less():
    for family in ("llama", "opt", "gpt2", "bert", "t5", "roberta"):
        folder, auto = make(family)
        nearest = quantize(folder, "W4A16", "--group-size", 32, "--dtype", "float32", "--text", TEXT, "--max-tokens", 600)[1]
        for more in ([], ["--desc-act"]) if family == "llama" else ([],):
            out, answer = quantize(folder, "W4A16", "--group-size", 32, "--dtype", "float32", "--text", TEXT, "--max-tokens", 600,
                                   *GPTQ, *more)
            assert all("output_error" in m for m in answer["matrices"]), family
            assert answer["receipt"]["mean_kl"] < nearest["receipt"]["mean_kl"], (family, more, answer["receipt"], nearest["receipt"])
            if family not in PLAIN:
                close(our_logits(out), their_logits(opened(auto, out)), (family, more))


def test_bounds_of_the_receipt():
    folder, _ = make("llama")
    _, answer = quantize(folder, "W8A8", "--text", TEXT)
    growth = answer["receipt"]["perplexity"]["increase"]
    assert answer["bytes"]["after"] < answer["bytes"]["before"] / 2, answer["bytes"]
    for flag, got in (("--max-kl", answer["receipt"]["mean_kl"]), ("--max-ppl-increase", abs(growth)),
                      ("--max-logit-difference", answer["receipt"]["largest_logit_difference"])):
        quantize(folder, "W8A8", "--text", TEXT, flag, got * 1.01)
        if flag != "--max-ppl-increase" or growth > 0:
            _, err = quantize(folder, "W8A8", "--text", TEXT, flag, got * 0.99, exit=7)
            assert "above the bound" in err, err


def test_stopped_and_run_again():
    import signal
    import subprocess
    import time

    folder, _ = make("llama", hidden_size=256, intermediate_size=512, num_hidden_layers=24)
    whole, _ = quantize(folder, "W4A16", "--group-size", 64)
    out = FOLDER / "stopped"
    progress = FOLDER / "stopped.partial" / "progress.jsonl"
    command = [BIN / "llmtk", "quantize", folder, out, "--scheme", "W4A16", "--group-size", "64", "--no-speed"]
    running = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    while not progress.exists() or progress.read_text().count("\n") < 20:
        time.sleep(0.002)
    running.send_signal(signal.SIGTERM)
    _, err = running.communicate(timeout=60)
    assert running.returncode == 75 and "the same command goes on" in err, (running.returncode, err)
    assert not out.exists()
    kept = progress.read_text().splitlines()
    (progress.parent / "progress.jsonl").write_text("\n".join([*kept, '{"piece": "cut sho']))  # a line that was cut short
    done = subprocess.run([*command, "--json"], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0 and f"going on with" in done.stderr and f"{len(kept) - 1} of" in done.stderr, done.stderr
    assert (out / "model.safetensors").read_bytes() == (whole / "model.safetensors").read_bytes()
    assert not progress.parent.exists() and sorted(os.listdir(out)) == sorted(os.listdir(whole))
    assert len(json.loads(done.stdout)["matrices"]) == 24 * 7


def test_gguf():
    import gguf

    folder, auto = make("llama")
    whole = load_file(folder / "model.safetensors")
    for scheme in ("Q8_0", "Q4_0", "Q4_1"):
        out = FOLDER / f"{scheme}.gguf"
        answer = json.loads(run("quantize", folder, out, "--scheme", scheme, "--text", TEXT, "--no-speed", "--json"))
        assert answer["receipt"]["perplexity"]["after"] > 0, answer
        tensors = {t.name: t for t in gguf.GGUFReader(out).tensors}
        of_table = gguf.GGMLQuantizationType.Q8_0
        assert tensors["token_embd.weight"].tensor_type == of_table, scheme
        up = tensors["blk.1.ffn_up.weight"]
        expected = gguf.quants.quantize(whole["model.layers.1.mlp.up_proj.weight"].numpy(), gguf.GGMLQuantizationType[scheme])
        assert up.tensor_type.name == scheme and up.data.tobytes() == expected.tobytes(), scheme
        converted = FOLDER / f"{scheme}-converted.gguf"
        run("convert", folder, converted, "--type", scheme.lower(), "--name", folder.name)
        assert converted.read_bytes() == out.read_bytes(), scheme


def says(error, *parts):
    for part in parts:
        assert part in error[1], (part, error[1])


def test_errors():
    folder, _ = make("llama")
    says(quantize(folder, "W4A16", exit=2), "model.layers.0.self_attn.q_proj", "64 columns in groups of 128", "--group-size 64")
    says(quantize(folder, "W4A17", exit=2), "W4A16", "did you mean")
    says(quantize(folder, "W8A8", "--group-size", 64, exit=2), "no effect with W8A8")
    says(quantize(folder, "W8A8", "--ignore", "model.layers.0.q_proj", exit=2), "names no linear layer")
    says(quantize(folder, "W8A8", "--ignore", "re:(", exit=2), "regular expression")
    says(quantize(folder, "W8A8", "--ignore", "Linear", exit=2), "nothing is left")
    says(quantize(folder, "W8A8", "--calibration", TEXT, exit=2), "no effect with method: rtn")
    says(quantize(folder, "W8A8", "--method", "gptq", exit=2), "gptq needs text")
    says(quantize(folder, "W8A8", "--max-ppl-increase", 0.1, exit=2), "perplexity needs a text")
    says(quantize(folder, "Q4_0", exit=2), ".gguf")
    says(quantize(folder, "W8A8", "--method", "gptq", "--calibration", TEXT, "--max-length", 96, "--num-samples", 5000, exit=3),
         "too short", "num_samples, 5000")
    bad = FOLDER / "bad"
    shutil.copytree(folder, bad)
    tensors = load_file(bad / "model.safetensors")
    tensors["model.layers.1.mlp.up_proj.weight"][3, 5] = float("nan")
    save_file(tensors, bad / "model.safetensors", {"format": "pt"})
    says(quantize(bad, "W8A8", exit=5), "model.layers.1.mlp.up_proj.weight", "NaN")

    good, _ = quantize(folder, "W4A16", "--group-size", 32)
    says(run("quantize", folder, good, exit=2), "there already")
    says(run("quantize", good, FOLDER / "twice", exit=5), "quantization_config")
    says(run("convert", good, FOLDER / "plain.gguf", exit=5), "quantization_config")
    tensors = load_file(good / "model.safetensors")
    config = json.loads((good / "config.json").read_text())
    path = "model.layers.0.mlp.up_proj"

    def broken(change, *parts):
        other = FOLDER / "broken"
        shutil.rmtree(other, ignore_errors=True)
        shutil.copytree(good, other)
        mine, settings = dict(tensors), json.loads(json.dumps(config))
        change(mine, settings)
        save_file({name: tensor.contiguous() for name, tensor in mine.items()}, other / "model.safetensors")
        (other / "config.json").write_text(json.dumps(settings))
        says(run("generate", other, "--prompt", "The", "--max-new-tokens", 1, exit=5), *parts)

    def group(settings):
        return settings["quantization_config"]["config_groups"]["group_0"]

    broken(lambda t, c: t.pop(path + ".weight_scale"), path + ".weight_scale", "missing")
    broken(lambda t, c: t.pop(path + ".weight_packed"), path + ".weight", "missing")
    broken(lambda t, c: t.update({path + ".weight_packed": t[path + ".weight_packed"][:, :-1]}), path, "does not fit")
    broken(lambda t, c: t.update({path + ".weight_scale": t[path + ".weight_scale"][:, :1]}), path, "does not fit")
    broken(lambda t, c: t.update({path + ".weight_g_idx": torch.zeros(64, dtype=torch.int32)}), "weight_g_idx", "not known here")
    broken(lambda t, c: t.update({"model.layers.7.up_proj.weight_scale": torch.ones(2, 2)}), "does not have", "layers.7")
    broken(lambda t, c: group(c)["weights"].update(type="float", num_bits=8), "float8", "llmtk quantize")
    broken(lambda t, c: group(c)["weights"].update(num_bits=3), "int3")
    broken(lambda t, c: group(c).update(input_activations={"num_bits": 8, "type": "int", "strategy": "tensor", "dynamic": False}),
           "input activations int8, strategy tensor")
    broken(lambda t, c: c["quantization_config"].update(kv_cache_scheme={"num_bits": 8}), "kv_cache_scheme")
    broken(lambda t, c: c["quantization_config"]["ignore"].append(path), path, "no group")
    for method in ("awq", "gptq", "fp8"):
        broken(lambda t, c: c.update(quantization_config={"quant_method": method, "bits": 4}), method, "compressed-tensors")


main(globals())
