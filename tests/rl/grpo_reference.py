"""Steps of GRPO for grpo_parity_test.cpp: grpo_reference.py FOLDER. TRL's GRPOTrainer learns from fixed responses and rewards, in four
ways; the weights that it comes to and what it reports are written down."""

import json
import pathlib
import sys

import datasets
import torch
import transformers
from safetensors.torch import save_file
from tokenizers import Tokenizer, models
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast
from trl import GRPOConfig, GRPOTrainer
from trl.trainer import grpo_trainer

FOLDER = pathlib.Path(sys.argv[1])
FOLDER.mkdir(parents=True, exist_ok=True)
torch.set_num_threads(1)
datasets.disable_progress_bars()
transformers.logging.set_verbosity_error()
B, G, R, V, PAD, EOS = 8, 4, 7, 37, 36, 35
CASES = {
    "dapo": dict(loss_type="dapo", beta=0.1, epsilon=0.02, epsilon_high=0.03, steps_per_generation=2, num_iterations=2,
                 temperature=0.8, gradient_accumulation_steps=1),
    "grpo": dict(loss_type="grpo", importance_sampling_level="sequence", scale_rewards="batch", epsilon=0.01, steps_per_generation=2,
                 num_iterations=3, gradient_accumulation_steps=2),
    "dr_grpo": dict(loss_type="dr_grpo", scale_rewards="none", mask_truncated_completions=True, epsilon=0.01, delta=1.05, beta=0.05,
                    steps_per_generation=2, num_iterations=2, gradient_accumulation_steps=1),
    "bnpo": dict(loss_type="bnpo", steps_per_generation=1, num_iterations=1, gradient_accumulation_steps=1,
                 per_device_train_batch_size=B),
}

torch.manual_seed(0)
policy = LlamaForCausalLM(LlamaConfig(vocab_size=V, hidden_size=24, intermediate_size=40, num_hidden_layers=2, num_attention_heads=4,
                                      num_key_value_heads=2, max_position_embeddings=32, pad_token_id=PAD, eos_token_id=EOS,
                                      bos_token_id=EOS))
with torch.no_grad():
    for p in policy.parameters():
        if p.dim() > 1:
            p.mul_(8)
policy.save_pretrained(FOLDER / "policy")
with torch.no_grad():
    for p in policy.parameters():
        p.add_(0.02 * torch.randn_like(p))
policy.save_pretrained(FOLDER / "reference")

words = {f"w{i}": i for i in range(V)}
tokenizer = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(models.WordLevel(words, unk_token="w0")), pad_token=f"w{PAD}",
                                    eos_token=f"w{EOS}", padding_side="left")
prompts = [torch.randint(0, EOS, (length,)).tolist() for length in (3, 5)]
lengths = torch.tensor([R, 3, 1, 5, R, 2, 4, 6])
responses = [torch.randint(0, EOS, (length,)).tolist() for length in lengths.tolist()]
for response in responses[:4] + responses[5:]:  # the fifth does not end
    response[-1] = EOS
rewards = torch.rand(B)
grpo_trainer.shuffle_sequence_dict = lambda batch: batch


class Trainer(GRPOTrainer):
    def _tokenize_prompts(self, prompts_of_batch):
        return [prompts[int(prompt)] for prompt in prompts_of_batch], None, {}

    def _generate_single_turn(self, prompt_ids, images, multimodal_fields):
        return responses, None


out = {"prompts": torch.full((B, 5), PAD), "prompt_lengths": torch.tensor([len(prompts[i // G]) for i in range(B)]),
       "responses": torch.full((B, R), PAD), "lengths": lengths, "rewards": rewards}
for i in range(B):
    out["prompts"][i, : len(prompts[i // G])] = torch.tensor(prompts[i // G])
    out["responses"][i, : len(responses[i])] = torch.tensor(responses[i])
figures = {}
for case, settings in CASES.items():
    settings = {"per_device_train_batch_size": B // 2, **settings}
    steps = settings["steps_per_generation"] // settings["gradient_accumulation_steps"] * settings["num_iterations"]
    arguments = GRPOConfig(output_dir=str(FOLDER / "trl"), max_steps=steps, num_generations=G, max_completion_length=R, learning_rate=0.05,
                           optim="sgd", lr_scheduler_type="constant", max_grad_norm=0, report_to=[], use_cpu=True, bf16=False,
                           save_strategy="no", disable_tqdm=True, gradient_checkpointing=False, logging_steps=1, shuffle_dataset=False,
                           **settings)
    trainer = Trainer(model=str(FOLDER / "policy"), args=arguments, processing_class=tokenizer,
                      reward_funcs=lambda completions, **_: rewards.tolist(),
                      train_dataset=datasets.Dataset.from_list([{"prompt": str(i)} for i in range(2)]))
    if trainer.ref_model is not None:
        trainer.ref_model.load_state_dict(policy.state_dict())
    trainer.train()
    for name, p in trainer.model.named_parameters():
        out[f"{case}.{name}"] = p.detach()
    figures[case] = [entry for entry in trainer.state.log_history if "loss" in entry]
save_file({name: tensor.clone().contiguous() for name, tensor in out.items()}, FOLDER / "trl.safetensors")
(FOLDER / "figures.json").write_text(json.dumps({"settings": CASES, "figures": figures}))
