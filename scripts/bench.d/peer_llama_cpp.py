"""llama.cpp, by the low-level functions of its Python bindings: peer_llama_cpp.py JOB, of which it prints the result as JSON.

  {"do": "generate", "model": FILE, "threads": N, "prompts": [[id ...] ...], "new_tokens": N, "started": TIME}
  {"do": "score", "model": FILE, "threads": N, "windows": [[id ...] ...]}
  {"do": "quantize", "model": FILE, "target": FILE, "type": NAME, "threads": N}

Work is done as llama.cpp's own llama-batched-bench does it, with its defaults (a cache in 16 bits, flash attention where that is
faster, weights repacked for the processor), but the tokens are the most probable ones.
"""

import ctypes
import json
import sys
import time

import llama_cpp.llama_cpp as lib
import numpy

LOGICAL_BATCH = 2048


class Context:
    def __init__(self, path, threads, sequences, length, scores=False):
        parameters = lib.llama_model_default_params()
        self.model = lib.llama_model_load_from_file(str(path).encode(), parameters)
        settings = lib.llama_context_default_params()
        settings.n_ctx, settings.n_seq_max = sequences * length, sequences
        settings.n_batch = length if scores else min(LOGICAL_BATCH, sequences * length)
        settings.n_threads = settings.n_threads_batch = threads
        self.context = lib.llama_init_from_model(self.model, settings)
        if not self.context:
            sys.exit(f"llama.cpp cannot open {path}")
        self.vocabulary = lib.llama_vocab_n_tokens(lib.llama_model_get_vocab(self.model))
        self.capacity = settings.n_batch
        self.batch = lib.llama_batch_init(self.capacity, 0, 1)

    def clear(self):
        lib.llama_memory_clear(lib.llama_get_memory(self.context), False)

    def decode(self, rows):
        """Runs (token, position, sequence, whether logits are wanted) in batches. Returns the logits, one row for each that wants
        some; llama.cpp's own memory, which the next call writes over, where one batch is enough."""
        found = []
        for begin in range(0, len(rows), self.capacity):
            part = rows[begin:begin + self.capacity]
            self.batch.n_tokens = len(part)
            for i, (token, position, sequence, wanted) in enumerate(part):
                self.batch.token[i], self.batch.pos[i], self.batch.logits[i] = token, position, wanted
                self.batch.n_seq_id[i], self.batch.seq_id[i][0] = 1, sequence
            if lib.llama_decode(self.context, self.batch) != 0:
                sys.exit("llama_decode failed")
            lib.llama_synchronize(self.context)
            count = sum(row[3] for row in part)
            if count:
                memory = ctypes.cast(lib.llama_get_logits(self.context), ctypes.POINTER(ctypes.c_float))
                found.append(numpy.ctypeslib.as_array(memory, (count, self.vocabulary)))
                if len(rows) > self.capacity:
                    found[-1] = found[-1].copy()
        return found[0] if len(found) == 1 else numpy.concatenate(found)

    def greedy(self, prompts, new_tokens):
        """Seconds until the first token of each, and from there to the last; the tokens."""
        self.clear()
        begin = time.perf_counter()
        last = self.decode([(token, i, s, i + 1 == len(prompt)) for s, prompt in enumerate(prompts)
                            for i, token in enumerate(prompt)]).argmax(axis=1)
        middle = time.perf_counter()
        written = [last]
        for step in range(new_tokens - 1):
            rows = [(int(token), len(prompt) + step, s, True) for s, (token, prompt) in enumerate(zip(last, prompts))]
            last = self.decode(rows).argmax(axis=1)
            written.append(last)
        return middle - begin, time.perf_counter() - middle, numpy.stack(written, axis=1).tolist()


def memory():
    """Of the process until now, in GB."""
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) for line in file if line.startswith("VmHWM:")) / 1024 / 1024


def generate(job):
    before = memory()
    prompts, new_tokens = job["prompts"], job["new_tokens"]
    context = Context(job["model"], job["threads"], len(prompts), len(prompts[0]) + new_tokens)
    context.greedy([prompts[0][:1]], 1)
    first_token = time.time() - job["started"]
    context.greedy([prompt[:8] for prompt in prompts], 2)
    prefill, decode, written = context.greedy(prompts, new_tokens)
    return dict(prefill=sum(map(len, prompts)) / prefill, decode=len(prompts) * (new_tokens - 1) / decode,
                first_token=first_token, python_gb=before, ids=written, system=lib.llama_print_system_info().decode().strip())


def log_probability(logits, ids):
    """The sum of the natural logarithms of the probabilities of `ids`, each after its row of `logits`."""
    largest = logits.max(axis=1, keepdims=True)
    normalizer = numpy.exp(logits - largest).sum(axis=1, dtype=numpy.float64)
    chosen = logits[numpy.arange(len(ids)), ids].astype(numpy.float64)
    return float((chosen - largest[:, 0] - numpy.log(normalizer)).sum())


def score(job):
    """As `llmtk eval perplexity` with a stride as long as the window: the first token of each window is not scored."""
    windows = job["windows"]
    context = Context(job["model"], job["threads"], 1, max(map(len, windows)), scores=True)
    total = 0.0
    for window in windows:
        context.clear()
        logits = context.decode([(token, i, 0, i + 1 < len(window)) for i, token in enumerate(window)])
        total += log_probability(logits, window[1:])
    count = sum(len(window) - 1 for window in windows)
    return dict(nats_per_token=-total / count, tokens=count)


def quantize(job):
    parameters = lib.llama_model_quantize_default_params()
    parameters.ftype, parameters.nthread = getattr(lib, f"LLAMA_FTYPE_MOSTLY_{job['type']}"), job["threads"]
    if lib.llama_model_quantize(job["model"].encode(), job["target"].encode(), ctypes.byref(parameters)) != 0:
        sys.exit(f"llama.cpp cannot make {job['type']} of {job['model']}")
    return {}


@lib.llama_log_callback
def errors_alone(level, text, _):
    if level == 4:
        sys.stderr.write(text.decode(errors="replace"))


def main():
    lib.llama_log_set(errors_alone, None)
    lib.llama_backend_init()
    job = json.loads(sys.argv[1])
    print(json.dumps({"generate": generate, "score": score, "quantize": quantize}[job["do"]](job)))


main()
