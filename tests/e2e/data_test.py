"""`llmtk data`: what it shows, what it refuses, and that the rows are those of transformers' and trl's own recipes."""

import importlib.util
import json
import os
import pathlib
import random
import tempfile

import transformers

import support
from support import run

spec = importlib.util.spec_from_file_location(
    "chat_templates", pathlib.Path(os.environ["LLMTK_SOURCE"]) / "tests/text/chat_templates.py")
templates = importlib.util.module_from_spec(spec)
spec.loader.exec_module(templates)

FOLDER = pathlib.Path(tempfile.mkdtemp(prefix="llmtk-data-"))
RANDOM = random.Random(3)
WORDS = "the quick brown fox 床前 明月光 jumps over 🙂 lazy dog To be or not".split()
SHAPES = {
    "gpt2": transformers.GPT2Config(n_layer=1, n_head=2, n_embd=8, n_positions=4096, vocab_size=400),
    "bert": transformers.BertConfig(hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8,
                                    max_position_embeddings=64, vocab_size=400),
    "t5": transformers.T5Config(d_model=8, d_kv=4, d_ff=8, num_layers=1, num_heads=2, vocab_size=400),
}


def chat_tokenizer(name, template=None):
    tokenizer = support.make_tokenizer(FOLDER / name)
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|im_start|>"], "eos_token": "<|im_end|>"})
    tokenizer.chat_template = template
    tokenizer.save_pretrained(FOLDER / name)
    return tokenizer


def sentence(least=1, most=12):
    return " ".join(RANDOM.choices(WORDS, k=RANDOM.randint(least, most)))


def write_rows(name, rows):
    path = FOLDER / name
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
    return path


def config(rows, tokenizer, model="gpt2", objective="causal_lm", **data):
    SHAPES[model].to_json_file(FOLDER / f"{model}.json")
    path = FOLDER / "run.yaml"
    path.write_text(json.dumps({
        "model": {"name_or_path": str(FOLDER / f"{model}.json")}, "tokenizer": {"name_or_path": str(FOLDER / tokenizer)},
        "objective": objective, "data": {"train": [{"path": str(rows)}], **data}, "trainer": {"output_dir": "unused"}}))
    return path


def data_of(*arguments, rows=1000, **settings):
    return json.loads(run("data", config(*arguments, **settings), "--json", "--rows", rows))


def mask_of(row):
    """Which ids a decoder is trained on."""
    return [0] + [int(label != -100) for label in row["labels"][:-1]]


def conversations(count, turns=3):
    chats = []
    for _ in range(count):
        chat = [{"role": "system", "content": sentence()}] if RANDOM.random() < 0.5 else []
        for _ in range(RANDOM.randint(1, turns)):
            chat += [{"role": "user", "content": sentence()}, {"role": "assistant", "content": sentence()}]
        chats.append(chat)
    return chats


def test_generation_marks_as_transformers():
    tokenizer = chat_tokenizer("marked", templates.CHATML_GENERATION)
    chats = conversations(40)
    path = write_rows("chats.jsonl", [{"messages": chat} for chat in chats])
    for train_on in ("generation", "answers"):
        rows = data_of(path, "marked", train_on=train_on, max_length=256)["rows"]
        assert len(rows) == len(chats)
        for chat, row in zip(chats, rows):
            theirs = tokenizer.apply_chat_template(chat, return_assistant_tokens_mask=True, return_dict=True)
            assert row["input_ids"] == theirs["input_ids"]
            assert mask_of(row) == theirs["assistant_masks"]


def test_trl_training_templates_as_transformers():
    """The real families' templates as trl marks them: those that llmtk and transformers take the most different ways through."""
    found = importlib.util.find_spec("trl")  # looked for, not run: it takes seconds to load
    folder = pathlib.Path(found.submodule_search_locations[0]) / "chat_templates"
    tokenizer = chat_tokenizer("bare")
    chats = [[message for message in chat if message["role"] != "system"] for chat in conversations(6)]
    path = write_rows("chats.jsonl", [{"messages": chat} for chat in chats])
    for name in ("qwen3", "llama3", "gemma", "deepseekv3", "cohere"):
        file = folder / f"{name}_training.jinja"
        rows = data_of(path, "bare", chat_template=str(file), train_on="generation", max_length=4096)["rows"]
        for chat, row in zip(chats, rows, strict=True):
            theirs = tokenizer.apply_chat_template(chat, chat_template=file.read_text(), return_assistant_tokens_mask=True,
                                                   return_dict=True)
            assert row["input_ids"] == theirs["input_ids"], name
            assert mask_of(row) == theirs["assistant_masks"], name


def test_answers_by_renderings():
    """As trl tokenizes conversational prompts and completions, turn by turn; but the line feed behind an answer's end."""
    tokenizer = chat_tokenizer("chatml", templates.CHATML)
    chats = conversations(30)
    rows = data_of(write_rows("chats.jsonl", [{"messages": chat} for chat in chats]), "chatml", max_length=256)
    end = tokenizer.eos_token_id

    def ids(messages, **more):
        return tokenizer.apply_chat_template(messages, return_dict=False, **more)

    for chat, row in zip(chats, rows["rows"], strict=True):
        whole = ids(chat)
        mask = [0] * len(whole)
        for i, message in enumerate(chat):
            if message["role"] == "assistant":
                before, after = ids(chat[:i], add_generation_prompt=True), ids(chat[:i + 1])
                assert whole[:len(before)] == before and whole[:len(after)] == after
                mask[len(before):len(after)] = [1] * (len(after) - len(before))
                last = len(after) - 1 - after[::-1].index(end)
                mask[last + 1:len(after)] = [0] * (len(after) - last - 1)
        assert row["input_ids"] == whole
        assert mask_of(row) == mask
    assert rows["train"]["untrained_eos"] == 0


def test_prompts_and_completions_as_trl():
    """trl's SFTTrainer: the ids of prompt + completion + eos; those of the prompt alone are not trained on."""
    tokenizer = chat_tokenizer("plain")
    pairs = [{"prompt": sentence() + " ", "completion": sentence()} for _ in range(40)]
    rows = data_of(write_rows("pairs.jsonl", pairs), "plain", max_length=256)["rows"]
    for pair, row in zip(pairs, rows, strict=True):
        ids = tokenizer(pair["prompt"] + pair["completion"])["input_ids"] + [tokenizer.eos_token_id]
        assert row["input_ids"] == ids
        # A token that holds the last blank of the prompt and a part of the answer is trained on.
        prompt = tokenizer(pair["prompt"])["input_ids"]
        common = next((i for i, (a, b) in enumerate(zip(prompt, ids)) if a != b), len(prompt))
        assert mask_of(row) == [0] * common + [1] * (len(ids) - common)


def test_packing_is_best_fit_decreasing():
    """Against plain search: the longest first, into the fullest bin with room."""
    chat_tokenizer("plain")
    path = write_rows("texts.jsonl", [{"text": sentence(1, 40)} for _ in range(150)])
    single = data_of(path, "plain", shuffle=False, max_length=128)
    packed = data_of(path, "plain", packing=True, max_length=128)
    bins = []
    for row in sorted(single["rows"], key=lambda row: -row["tokens"]):
        fits = [b for b in bins if sum(r["tokens"] for r in b) + row["tokens"] <= 128]
        best = max(fits, key=lambda b: sum(r["tokens"] for r in b), default=None)
        bins.append([row]) if best is None else best.append(row)
    assert packed["train"]["packing"]["rows"] == len(bins) < 150
    assert sorted(row["tokens"] for row in packed["rows"]) == sorted(sum(r["tokens"] for r in b) for b in bins)
    texts = {tuple(row["input_ids"]): row["labels"] for row in single["rows"]}
    seen = 0
    for row in packed["rows"]:
        starts = [t for t, position in enumerate(row["position_ids"]) if position == 0] + [row["tokens"]]
        for begin, end in zip(starts, starts[1:]):
            assert row["position_ids"][begin:end] == list(range(end - begin))
            assert row["labels"][begin:end] == texts[tuple(row["input_ids"][begin:end])]
            seen += 1
    assert seen == 150


def test_words_as_run_ner():
    """run_ner.py's tokenize_and_align_labels, padded by DataCollatorForTokenClassification."""
    _, tokenizer = support.make_bert(FOLDER / "bert", max_length=64)
    names = ["B-LOC", "B-PER", "O"]
    known = "the quick brown fox jumps zebra lazy xylophone".split()
    sentences = [RANDOM.choices(known, k=RANDOM.randint(1, 9)) for _ in range(30)]
    tags = [RANDOM.choices(names, k=len(words)) for words in sentences]
    path = write_rows("words.jsonl", [{"tokens": w, "tags": t} for w, t in zip(sentences, tags)])
    ours = data_of(path, "bert", model="bert", objective="token_classification", max_length=20)
    assert ours["label_names"] == names
    features = []
    for words, own in zip(sentences, tags):
        encoded = tokenizer(words, is_split_into_words=True, truncation=True, max_length=20)
        labels, before = [], None
        for word in encoded.word_ids():
            labels.append(-100 if word is None or word == before else names.index(own[word]))
            before = word
        features.append({"input_ids": encoded["input_ids"], "attention_mask": encoded["attention_mask"], "labels": labels})
    theirs = transformers.DataCollatorForTokenClassification(tokenizer)([dict(f) for f in features])
    for row, ids, labels, feature in zip(ours["rows"], theirs["input_ids"], theirs["labels"], features, strict=True):
        n = len(feature["input_ids"])
        assert row["input_ids"] == ids[:n].tolist() and row["labels"] == labels[:n].tolist()
        assert set(labels[n:].tolist()) <= {-100}
    assert ours["train"]["words_cut"] == sum(len(w) for w in sentences) - sum(
        sum(label != -100 for label in f["labels"]) for f in features) > 0


def test_pairs_as_transformers():
    _, tokenizer = support.make_bert(FOLDER / "bert", max_length=64)
    known = "the quick brown fox jumps zebra".split()
    rows = [{"premise": " ".join(RANDOM.choices(known, k=RANDOM.randint(1, 12))),
             "hypothesis": " ".join(RANDOM.choices(known, k=RANDOM.randint(1, 12))), "gold": RANDOM.randint(0, 2)}
            for _ in range(30)]
    columns = {"text": "premise", "text_pair": "hypothesis", "label": "gold"}
    path = write_rows("pairs.jsonl", rows)
    ours = data_of(path, "bert", model="bert", objective="sequence_classification", max_length=24,
                   train=[{"path": str(path), "columns": columns}])
    assert ours["problem_type"] == "single_label_classification" and ours["label_names"] == ["0", "1", "2"]
    for row, one in zip(rows, ours["rows"], strict=True):
        theirs = tokenizer(row["premise"], row["hypothesis"], truncation=True, max_length=24, return_token_type_ids=True)
        assert one["input_ids"] == theirs["input_ids"] and one["token_type_ids"] == theirs["token_type_ids"]
        assert one["labels"] == [row["gold"]]


def test_targets_as_transformers():
    """run_summarization.py: tokenizer(inputs), tokenizer(text_target=targets), both cut."""
    from tokenizers import processors
    tokenizer = support.make_tokenizer(FOLDER / "t5")
    tokenizer._tokenizer.post_processor = processors.TemplateProcessing(
        single="$A <|endoftext|>", pair="$A <|endoftext|> $B <|endoftext|>", special_tokens=[("<|endoftext|>", 0)])
    tokenizer.save_pretrained(FOLDER / "t5")
    rows = [{"input": sentence(), "output": sentence()} for _ in range(30)]
    ours = data_of(write_rows("sums.jsonl", rows), "t5", model="t5", objective="seq2seq", source_prefix="add: ",
                   max_length=24, max_target_length=12)
    for row, one in zip(rows, ours["rows"], strict=True):
        assert one["input_ids"] == tokenizer("add: " + row["input"], truncation=True, max_length=24)["input_ids"]
        assert one["labels"] == tokenizer(text_target=row["output"], truncation=True, max_length=12)["input_ids"]
    assert ours["train"]["answers_cut"] > 0


def test_what_it_shows():
    chat_tokenizer("chatml", templates.CHATML)
    chat = [{"role": "user", "content": "床前明月光"}, {"role": "assistant", "content": "疑是地上霜。"}]
    path = config(write_rows("chat.jsonl", [{"messages": chat}] * 4), "chatml", validation_fraction=0.25)
    text = run("data", path, "--rows", 1)
    assert "<|im_start|>user\n床前明月光<|im_end|>\n<|im_start|>assistant\n⟦疑是地上霜。<|im_end|>⟧\n" in text, text
    assert "train: 3 rows, " in text and "validation: 1 rows, " in text
    assert "\x1b" not in text
    colored = run("data", path, "--rows", 1, "--color", "always")
    assert "\x1b[32m疑是地上霜。<|im_end|>\x1b[0m" in colored and "⟦" not in colored
    assert "0:<|endoftext|>" not in text and ":<|im_end|>⟧" in run("data", path, "--rows", 1, "--ids")
    assert run("data", path, "--rows", 0).startswith("train: 3 rows")
    assert "=== row 1 of 1, " in run("data", path, "--validation")
    assert json.loads(run("data", path, "--json", "--from", 2))["rows"][0]["row"] == 2


def test_what_it_refuses():
    chat_tokenizer("chatml", templates.CHATML)
    question = [{"role": "user", "content": "a " * 200}, {"role": "assistant", "content": "b"}]
    path = config(write_rows("chat.jsonl", [{"messages": question}]), "chatml", max_length=32)
    assert "no row has anything to train on: got 1 rows without, the first at " in run("data", path, exit=3)[1]
    broken = write_rows("broken.jsonl", [{"messages": question}])
    broken.write_text(broken.read_text() + '{"messages": [\n')
    out, err = run("data", config(broken, "chatml"), "--json", exit=3)
    assert "broken.jsonl:2: not JSON" in err and json.loads(out)["exit_code"] == 3
    fine = config(write_rows("fine.jsonl", [{"text": "a"}]), "chatml")
    for arguments, message in [(["data.packin=true"], "did you mean 'packing'"), (["--validation"], "holds nothing out"),
                               (["--from", 9], "behind the last row"), (["--json", "--ids"], "--ids"),
                               (["objective=tokens"], "token_classification"), (["optimizer.learning_rate=-1"], "above 0")]:
        assert message in run("data", fine, *arguments, exit=2)[1], arguments
    assert "which config?" in run("data", exit=2)[1]


def test_a_method_s_change_is_shown():
    """Virtual tokens leave less room, as they do in the run."""
    tokenizer = support.make_tokenizer(FOLDER / "room")
    transformers.BertForSequenceClassification(SHAPES["bert"]).save_pretrained(FOLDER / "bert-base")
    tokenizer.save_pretrained(FOLDER / "bert-base")
    rows = write_rows("room.jsonl", [{"text": sentence(60, 80), "label": label} for label in "abab"])
    path = config(rows, "room", "bert", "sequence_classification")
    base = f"model.name_or_path={FOLDER / 'bert-base'}"
    for arguments, room in ([base], 64), ([base, "p_tuning_v2.num_virtual_tokens=10"], 54), ([base, "lora.r=2"], 64):
        shown = json.loads(run("data", path, "--json", *arguments))
        assert shown["max_length"] == room and {row["tokens"] for row in shown["rows"]} == {room}, (arguments, shown)
    assert "querry" in run("data", path, base, "lora.target_modules=[querry]", exit=2)[1]
    assert "a base with weights" in run("data", path, "prefix_tuning.num_virtual_tokens=4", exit=2)[1]


support.main(globals())
