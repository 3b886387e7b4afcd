"""Makes the encoders that encoder_parity_test.cpp compares with: encoder_reference.py FOLDER.

Small random models of transformers, one folder per family and head as save_pretrained writes it, and beside each a
reference.safetensors: inputs, logits, loss, every gradient, and the weights after 20 steps of torch.optim.AdamW.
"""

import json
import sys
from pathlib import Path

import torch
import transformers
from safetensors.torch import save_file
from transformers import AutoConfig

from rounded import rounded

torch.set_num_threads(1)  # models this small gain nothing from more
transformers.logging.set_verbosity_error()

SHAPE = dict(hidden_size=48, num_hidden_layers=3, num_attention_heads=4, intermediate_size=80,
             hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)
BERT = dict(SHAPE, model_type="bert", vocab_size=97, max_position_embeddings=40, type_vocab_size=2)
ROBERTA = dict(SHAPE, model_type="roberta", vocab_size=101, max_position_embeddings=42, type_vocab_size=1,
               layer_norm_eps=1e-5)
XLM_ROBERTA = dict(ROBERTA, model_type="xlm-roberta")
LABELS = dict(id2label={0: "PER", 1: "LOC", 2: "地点", 3: "O", 4: "X"}, label2id={"PER": 0, "LOC": 1, "地点": 2, "O": 3, "X": 4})

# case -> (class, config)
CASES = {
    "bert": ("BertModel", BERT),
    "bert_masked_lm": ("BertForMaskedLM", BERT),
    "bert_masked_lm_tanh": ("BertForMaskedLM", dict(BERT, hidden_act="gelu_new", pad_token_id=3)),
    "bert_sequence": ("BertForSequenceClassification", dict(BERT, num_labels=3, classifier_dropout=0.0)),
    "bert_sequence_regression": ("BertForSequenceClassification",
                                 dict(BERT, num_labels=1, problem_type="regression", hidden_act="relu")),
    "bert_token": ("BertForTokenClassification", dict(BERT, **LABELS)),
    "roberta": ("RobertaModel", ROBERTA),
    "roberta_masked_lm": ("RobertaForMaskedLM", dict(ROBERTA, hidden_act="gelu_new")),  # its head says gelu all the same
    "roberta_sequence": ("RobertaForSequenceClassification", dict(ROBERTA, num_labels=4)),
    "roberta_token": ("RobertaForTokenClassification", dict(ROBERTA, **LABELS)),
    "roberta_pad_0": ("RobertaForMaskedLM", dict(ROBERTA, pad_token_id=0, type_vocab_size=2)),
    "xlm_roberta_masked_lm": ("XLMRobertaForMaskedLM", XLM_ROBERTA),
    "xlm_roberta_sequence": ("XLMRobertaForSequenceClassification", dict(XLM_ROBERTA, num_labels=2)),
}
ROWS, LENGTH = 3, 24
LENGTHS = [LENGTH, LENGTH - 5, LENGTH - 11]


def randomize(model, generator):
    """Weights large enough that attention is far from uniform; norms and biases away from 1 and 0."""
    with torch.no_grad():
        for name, p in model.named_parameters():
            noise = torch.randn(p.shape, generator=generator)
            if p.dim() == 1:
                p.copy_(noise * 0.1 + (0.0 if name.endswith("bias") else 1.0))
            else:
                p.copy_(noise * 0.15)


def answers(result):
    """What the model says: the logits, or the pooler's output where it has no head."""
    return result.logits if "logits" in result else result.pooler_output


def loss_of(result, target):
    """Of hidden states and pooler towards random ones; else that of the labels, as HF's classes compute it."""
    if "logits" not in result:
        return (result.last_hidden_state - target).square().mean() + (result.pooler_output - target[:, 0]).square().mean()
    if target.is_floating_point():
        return torch.nn.functional.mse_loss(result.logits.squeeze(), target)
    return torch.nn.functional.cross_entropy(result.logits.flatten(0, -2), target.flatten())


def parameters(model):
    """Each once, under the name that files have it under."""
    tied = dict(model._tied_weights_keys or {})
    return {tied.get(name, name): p for name, p in model.named_parameters()}


def target_for(class_name, config, ids, generator):
    if class_name.endswith("Model"):
        return torch.randn(ROWS, LENGTH, config.hidden_size, generator=generator)
    if class_name.endswith("SequenceClassification"):
        if config.num_labels == 1:
            return torch.randn(ROWS, generator=generator)
        return torch.randint(config.num_labels, (ROWS,), generator=generator)
    labels = torch.randint(config.num_labels, ids.shape, generator=generator)
    if class_name.endswith("MaskedLM"):
        labels = ids.clone()
    labels[torch.rand(ids.shape, generator=generator) < 0.5] = -100
    return labels


def reference(class_name, model, generator, folder):
    config = model.config
    ids = torch.randint(4, config.vocab_size, (ROWS, LENGTH), generator=generator)
    types = (torch.arange(LENGTH).expand(ROWS, LENGTH) > 9).long() * (config.type_vocab_size - 1)
    target = target_for(class_name, config, ids, generator)
    out = {"input_ids": ids, "token_type_ids": types, "target": target}
    result = model(ids, token_type_ids=types, output_hidden_states=True, output_attentions=True)
    out["answers"] = answers(result)
    out["hidden_first"], out["hidden_last"] = result.hidden_states[0], result.hidden_states[-1]
    out["attention_last"] = result.attentions[-1]
    loss = loss_of(result, target)
    out["loss"] = loss
    loss.backward()
    for name, p in parameters(model).items():
        out["grad." + name] = p.grad.clone()

    with torch.no_grad():
        # Padding on the right; and what each row is alone, which padding on the left must not change either.
        mask = torch.zeros(ROWS, LENGTH, dtype=torch.long)
        for row, length in enumerate(LENGTHS):
            mask[row, :length] = 1
        out["padded_mask"] = mask
        padded = ids.masked_fill(mask == 0, config.pad_token_id)
        out["padded_answers"] = answers(model(padded, token_type_ids=types, attention_mask=mask))
        for row, length in enumerate(LENGTHS):
            out[f"alone.{row}"] = answers(model(ids[row:row + 1, :length], token_type_ids=types[row:row + 1, :length]))
        # An id of padding within the text: RoBERTa counts past it, and its vector is not trained.
        holes = ids.clone()
        holes[:, 7] = config.pad_token_id
        out["holes"], out["holes_answers"] = holes, answers(model(holes))
    of_types = lambda wide: answers(wide(ids, token_type_ids=types))
    for dtype, found in rounded(model, folder, of_types).items():
        out["answers." + dtype] = found
    model.zero_grad()
    loss_of(model(holes), target).backward()
    for name, p in parameters(model).items():
        if "_embeddings" in name:
            out["holes_grad." + name] = p.grad.clone()

    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, betas=(0.9, 0.95), eps=1e-6, weight_decay=0.1)
    for _ in range(20):
        optimizer.zero_grad()
        loss_of(model(ids, token_type_ids=types), target).backward()
        optimizer.step()
    for name, p in parameters(model).items():
        out["after." + name] = p.detach()
    return out


def version_4(config):
    """config.json in the words of version 4 of transformers, with what it wrote at one time or another."""
    config = {key: value for key, value in config.items() if value is not None or key in ("classifier_dropout", "pad_token_id")}
    for key in ("is_decoder", "add_cross_attention", "tie_word_embeddings"):  # not of this version
        config.pop(key, None)
    return config | dict(torch_dtype=config.pop("dtype"), position_embedding_type="absolute", use_cache=True,
                         gradient_checkpointing=False, output_past=True, transformers_version="4.36.2")


def main(folder):
    for number, (case, (class_name, settings)) in enumerate(CASES.items()):
        settings = dict(settings)
        generator = torch.Generator().manual_seed(2000 + number)
        config = AutoConfig.for_model(settings.pop("model_type"), **settings)
        config._attn_implementation = "eager"
        model = getattr(transformers, class_name)(config).eval()
        randomize(model, generator)
        target = folder / case
        model.save_pretrained(target)
        config_v4 = version_4(json.loads((target / "config.json").read_text()))
        (target / "config_v4.json").write_text(json.dumps(config_v4))
        out = reference(class_name, model, generator, target)
        save_file({k: v.detach().clone().contiguous() for k, v in out.items()}, target / "reference.safetensors")


main(Path(sys.argv[1]))
