"""transformers' generate() for bench_generate.py: peer_generate.py JOB, prints its speeds as one line of JSON.

  {"model": FOLDER, "dtype": "float32" | "bfloat16" | "int8", "threads": N, "prompts": [[id ...] ...], "beams": N,
   "new_tokens": N, "limit": SECONDS, "started": TIME}

int8 is PyTorch's own dynamic quantization of every Linear, of a model in float32. No stop token; a text ends early, with at
least 4 new tokens, once it has taken `limit` seconds.
"""

import json
import sys
import time

import torch
import transformers


class Clock(transformers.StoppingCriteria):
    """When each token had come."""

    def __init__(self, limit):
        self.limit, self.times = limit, []

    def __call__(self, input_ids, scores, **_):
        self.times.append(time.perf_counter())
        late = len(self.times) >= 4 and self.times[-1] - self.begin > self.limit
        return torch.full((len(input_ids),), late)


def load(job):
    dtype = torch.float32 if job["dtype"] == "int8" else getattr(torch, job["dtype"])
    model = transformers.AutoModelForCausalLM.from_pretrained(job["model"], dtype=dtype).eval()
    model.generation_config.eos_token_id = None
    if job["dtype"] == "int8":
        model = torch.ao.quantization.quantize_dynamic(model, {torch.nn.Linear}, dtype=torch.qint8)
    return model


def generate(model, prompts, job, new_tokens):
    """Seconds until the first token of each, seconds from there to the last, and how many of each came."""
    clock, ids = Clock(job["limit"]), torch.tensor(prompts)
    clock.begin = time.perf_counter()
    model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=new_tokens, do_sample=False,
                   num_beams=job["beams"], pad_token_id=0, stopping_criteria=[clock])
    return clock.times[0] - clock.begin, clock.times[-1] - clock.times[0], len(clock.times)


def main():
    job = json.loads(sys.argv[1])
    transformers.logging.set_verbosity_error()
    torch.set_num_threads(job["threads"])
    model = load(job)
    prompts = job["prompts"]
    generate(model, [prompts[0][:1]], job, 1)
    first_token = time.time() - job["started"]
    generate(model, [prompt[:8] for prompt in prompts], job, 2)
    prefill, decode, count = generate(model, prompts, job, job["new_tokens"])
    print(json.dumps(dict(prefill=sum(map(len, prompts)) / prefill, decode=len(prompts) * (count - 1) / decode,
                          first_token=first_token)))


main()
