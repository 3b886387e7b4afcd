"""llmtk generate on T5 folders, version 1.0 and 1.1: greedy and beam search give what transformers' generate() gives of each
text alone."""

import collections
import math
import os
import pathlib
import shutil
import tempfile

import torch
import transformers

from support import TEXT, json_lines, main, run

os.environ["OMP_NUM_THREADS"] = "1"  # models this small gain nothing from more
torch.set_num_threads(1)
FOLDER = pathlib.Path(tempfile.mkdtemp(prefix="llmtk-e2e-generate-t5-"))
PROMPTS = ["The quick brown fox", "床前明月光，", "To be, or not to be, that is the question.", "fox"]
PAD, EOS = 0, 1
SHAPE = dict(d_model=48, d_kv=12, d_ff=96, num_layers=2, num_heads=4)
VERSIONS = {"v1_0": dict(feed_forward_proj="relu"),
            "v1_1": dict(feed_forward_proj="gated-gelu", tie_word_embeddings=False, scale_decoder_outputs=False)}


def make_tokenizer():
    """Of T5's kind: pieces with their scores, an </s> after each text."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
    words = collections.Counter(word for text in TEXT for word in ("▁" + text.strip().replace(" ", " ▁")).split())
    counts = collections.Counter(character for text in TEXT for character in text.strip()) | words
    pieces = sorted(("▁" if piece == " " else piece, math.log(n / counts.total())) for piece, n in counts.items())
    unigram = Tokenizer(models.Unigram([("<pad>", 0), ("</s>", 0), ("<unk>", 0), *pieces], unk_id=2))
    unigram.pre_tokenizer, unigram.decoder = pre_tokenizers.Metaspace(), decoders.Metaspace()
    unigram.add_special_tokens(["<pad>", "</s>", "<unk>"])
    unigram.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", EOS)])
    return transformers.PreTrainedTokenizerFast(tokenizer_object=unigram, pad_token="<pad>", eos_token="</s>",
                                                unk_token="<unk>")


def make_model(version):
    """Random weights, as large as makes every token depend on the text and on those before it. Returns its folder, the model
    and its tokenizer."""
    folder = FOLDER / version
    if not folder.exists():
        tokenizer = make_tokenizer()
        torch.manual_seed(5)
        config = transformers.T5Config(vocab_size=len(tokenizer), pad_token_id=PAD, eos_token_id=EOS,
                                       decoder_start_token_id=PAD, **SHAPE, **VERSIONS[version])
        model = transformers.T5ForConditionalGeneration(config)
        with torch.no_grad():
            for p in model.parameters():
                if p.dim() > 1:
                    p.mul_(2)
            if version == "v1_1":  # version 5 of transformers ties it whatever the config says
                model.lm_head.weight = torch.nn.Parameter(torch.randn_like(model.shared.weight))
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        MODELS[version] = model.eval(), tokenizer
    return folder, *MODELS[version]


MODELS = {}


def generate(folder, *arguments):
    flags = [word for prompt in PROMPTS for word in ("--prompt", prompt)]
    return json_lines(run("generate", folder, "--json", *flags, *arguments))[:-1]


def until_end(ids):
    """New ids, eos included."""
    ids = ids.tolist()[1:]
    return ids[:ids.index(EOS) + 1] if EOS in ids else ids


def expected(model, tokenizer, prompt, **settings):
    return model.generate(**tokenizer(prompt, return_tensors="pt", return_token_type_ids=False), max_new_tokens=12,
                          return_dict_in_generate=True, output_scores=True, output_logits=True, **settings)


def check_text(got, new, tokenizer):
    assert got["ids"] == new, (got, new)
    assert got["tokens"] == tokenizer.convert_ids_to_tokens(new)
    assert got["text"] == tokenizer.decode(new, skip_special_tokens=True), got
    assert got["finish_reason"] == ("eos" if new[-1] == EOS else "length")


def test_greedy():
    for version in VERSIONS:
        folder, model, tokenizer = make_model(version)
        found = generate(folder, "--max-new-tokens", 12)
        assert len({tuple(row["ids"]) for row in found}) > 1  # the text counts
        for prompt, got in zip(PROMPTS, found, strict=True):
            out = expected(model, tokenizer, prompt)
            new = until_end(out.sequences[0])
            check_text(got, new, tokenizer)
            assert got["prompt_ids"] == tokenizer(prompt).input_ids and got["prompt_ids"][-1] == EOS
            logprobs = [logits[0].log_softmax(-1)[i].item() for logits, i in zip(out.logits, new)]
            assert max(abs(a - b) for a, b in zip(got["logprobs"], logprobs, strict=True)) < 2e-4


def test_beams():
    ends = set()
    for version in VERSIONS:
        folder, model, tokenizer = make_model(version)
        for penalty in (1.0, -2.0):
            found = generate(folder, "--max-new-tokens", 12, "--num-beams", 4, "--num-return-sequences", 3,
                             "--length-penalty", penalty, "--no-repeat-ngram-size", 2)
            assert len(found) == 3 * len(PROMPTS)
            for p, prompt in enumerate(PROMPTS):
                out = expected(model, tokenizer, prompt, num_beams=4, num_return_sequences=3, length_penalty=penalty,
                               no_repeat_ngram_size=2)
                for s, got in enumerate(found[3 * p:3 * p + 3]):
                    check_text(got, until_end(out.sequences[s]), tokenizer)
                    score = out.sequences_scores[s].item()
                    assert abs(got["score"] - score) < 1e-5 * max(1, abs(score)), (got, score)
                    ends.add(got["finish_reason"])
    assert ends == {"eos", "length"}, ends


def test_settings_of_the_folder():
    """The start token of generation_config.json; where neither it nor config.json has one, that is said."""
    import json
    folder, model, tokenizer = make_model("v1_0")
    other = FOLDER / "other_start"
    shutil.copytree(folder, other)
    settings = json.loads((other / "generation_config.json").read_text())
    (other / "generation_config.json").write_text(json.dumps(settings | {"decoder_start_token_id": 7}))
    for prompt, got in zip(PROMPTS, generate(other, "--max-new-tokens", 12), strict=True):
        check_text(got, until_end(expected(model, tokenizer, prompt, decoder_start_token_id=7).sequences[0]), tokenizer)
    for name in ("config.json", "generation_config.json"):
        settings = json.loads((other / name).read_text())
        del settings["decoder_start_token_id"]
        (other / name).write_text(json.dumps(settings))
    assert "decoder_start_token_id" in run("generate", other, "--prompt", "x", exit=5)[1]


try:
    main(dict(globals()))
finally:
    shutil.rmtree(FOLDER)
