"""What bench_generate.py runs of transformers: prints the new tokens per second of generate(), prompt left out, as JSON.

  peer_generate.py FOLDER DTYPE THREADS BATCH BEAMS NEW_TOKENS
"""

import json
import sys
import time

import torch
import transformers


def main():
    folder, dtype, threads, batch, beams, new_tokens = sys.argv[1], sys.argv[2], *map(int, sys.argv[3:7])
    transformers.logging.set_verbosity_error()
    torch.set_num_threads(threads)
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=getattr(torch, dtype)).eval()
    ids = torch.tensor([[5, 6, 7, 8]] * batch)

    def seconds(count):
        start = time.perf_counter()
        model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=count, do_sample=False, num_beams=beams,
                       pad_token_id=0)
        return time.perf_counter() - start

    seconds(2)
    alone, whole = seconds(1), seconds(new_tokens)
    print(json.dumps({"tokens_per_second": batch * (new_tokens - 1) / (whole - alone)}))


main()
