"""What the end-to-end tests share: running a command, and small random models as transformers saves them."""

import json
import os
import pathlib
import subprocess
import sys

BIN = pathlib.Path(os.environ["LLMTK_BIN"])
TEXT = ["The quick brown fox jumps over the lazy dog.\n", "床前明月光，疑是地上霜。举头望明月，低头思故乡。\n",
        "To be, or not to be, that is the question. 🙂🙂\n"] * 4


def run(*arguments, exit=0, stdin="", env=None, binary=False):
    """Runs `llmtk ARGUMENTS`, checks its exit code and gives its stdout; for an error (stdout, stderr)."""
    command = [str(BIN / "llmtk"), *map(str, arguments)]
    done = subprocess.run(command, input=stdin.encode() if isinstance(stdin, str) else stdin, capture_output=True,
                          env={**os.environ, **(env or {})}, timeout=300)
    assert done.returncode == exit, f"{command}: exit {done.returncode}, expected {exit}\n{done.stderr.decode()}"
    out = done.stdout if binary else done.stdout.decode()
    return out if exit == 0 else (out, done.stderr.decode())


def json_lines(text):
    return [json.loads(line) for line in text.splitlines()]


def make_tokenizer(folder):
    """A byte-level BPE trained here: Chinese characters and emoji are two to four tokens each."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    bpe.train_from_iterator(TEXT, trainers.BpeTrainer(vocab_size=320, special_tokens=["<|endoftext|>"], show_progress=False,
                                                      initial_alphabet=pre_tokenizers.ByteLevel.alphabet()))
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=bpe, bos_token="<|endoftext|>", eos_token="<|endoftext|>")
    tokenizer.save_pretrained(folder)
    return tokenizer


def make_model(folder, family="gpt2", seed=0, scale=4.0, **settings):
    """A random model whose next token depends on all that came before, with a tokenizer. Returns both."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    torch.set_num_threads(2)
    torch.manual_seed(seed)
    tokenizer = make_tokenizer(folder)
    shape = {"gpt2": dict(n_layer=2, n_head=4, n_embd=48, n_positions=96),
             "llama": dict(hidden_size=48, intermediate_size=96, num_hidden_layers=3, num_attention_heads=4,
                           num_key_value_heads=2, max_position_embeddings=96)}[family]
    config = AutoConfig.for_model(family, vocab_size=len(tokenizer), bos_token_id=0, eos_token_id=0, **shape, **settings)
    model = AutoModelForCausalLM.from_config(config).eval()
    with torch.no_grad():
        for p in model.parameters():
            if p.dim() > 1:
                p.mul_(scale)
    model.save_pretrained(folder)
    return model, tokenizer


def make_bert(folder, head="SequenceClassification", labels=("no", "maybe", "yes"), words=(), max_length=24, seed=5,
              **settings):
    """A random BERT with a head of these labels, and a WordPiece tokenizer that cuts words it does not know into letters."""
    import string

    import torch
    import transformers
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

    torch.manual_seed(seed)
    known = words or "the quick brown fox jumps over lazy dog to be or not".split()
    letters = [*string.ascii_lowercase, *("##" + letter for letter in string.ascii_lowercase)]
    vocabulary = list(dict.fromkeys(["[PAD]", "[UNK]", "[CLS]", "[SEP]", *known, *letters]))
    bare = Tokenizer(models.WordPiece({w: i for i, w in enumerate(vocabulary)}, unk_token="[UNK]"))
    bare.normalizer, bare.pre_tokenizer = normalizers.BertNormalizer(), pre_tokenizers.BertPreTokenizer()
    bare.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", 2), ("[SEP]", 3)])
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_object=bare, unk_token="[UNK]", pad_token="[PAD]", cls_token="[CLS]", sep_token="[SEP]",
        model_max_length=max_length)
    config = transformers.BertConfig(
        vocab_size=len(vocabulary), hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=64,
        max_position_embeddings=max_length, id2label=dict(enumerate(labels)),
        label2id={name: i for i, name in enumerate(labels)}, **settings)
    model = getattr(transformers, "BertFor" + head)(config).eval()
    with torch.no_grad():
        for p in model.parameters():
            if p.dim() > 1:
                p.mul_(12)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return model, tokenizer


def main(tests):
    """Runs every function of `tests` whose name begins with test_, and says how it went."""
    failed = 0
    for name, test in list(tests.items()):
        if not name.startswith("test_"):
            continue
        try:
            test()
            print(f"ok {name}", flush=True)
        except Exception as error:  # the other tests run on
            failed += 1
            import traceback
            traceback.print_exception(error)
            print(f"FAILED {name}", flush=True)
    sys.exit(1 if failed else 0)
