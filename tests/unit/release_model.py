"""A small random Llama with a sentencepiece tokenizer trained on the demo's tasks, as an artifact holds it."""

import io
from pathlib import Path

import sentencepiece
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from scripts.recipe.base import keyed_hash
from scripts.recipe.prompt_format import FormatName, write_chat_template
from scripts.recipe.tokenizer_files import write_tokenizer_files
from tests.demo_benchmarks import TASKS, text

VOCAB = 480
# What tokenizers disagree about: runs of spaces, controls, bytes, marks, surrogate pairs, right-to-left, joined marks.
_PIECES = (
    *(" " * n for n in (1, 2, 3, 8)),
    *("\n", "\n\n", "\t", "\r\n", "\x00", "\x01", "\x7f", "\ufeff", "\u200b", "\u2028", "\u00a0", "\u3000", "\u2581"),
    *("<s>", "</s>", "<unk>", "<0x41>", "<0x0A>", "<|user|>", "<|model|>", "<|system|>", "<|im_end|>", "[INST]", "</s"),
    *("the", "The", "and", "word", "story", "1234567890", "...", "!!", '"', "'", "\\", "{{x}}", "e\u0301", "\u00e9"),
    *("\u4e2d\u6587", "\u0e44\u0e17\u0e22", "\u05e9\u05dc\u05d5\u05dd", "\u0661\u0662", "\U0001f469\u200d\U0001f680"),
    *("\U00010400", "\ufdfd", "\u212b", "\ufb01", "a\u0300\u0301", "\uff21", "\u00ad"),
)


def hostile_strings(count: int) -> list[str]:
    """Return texts that depend on nothing but their number."""
    made = []
    for number in range(count):
        length = 1 + keyed_hash("hostile", number, "length") % 24
        picks = (keyed_hash("hostile", number, place) % len(_PIECES) for place in range(length))
        made.append("".join(_PIECES[pick] for pick in picks))
    return made


def write_model(folder: Path, form: FormatName = "metharme", dtype: torch.dtype = torch.float16) -> Path:
    """Write a Llama with fewer key than query heads and weights so large that the likeliest token is clear."""
    folder.mkdir(parents=True)
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=(line for task in TASKS for line in text(task).splitlines()),
        model_writer=model,
        model_type="bpe",
        vocab_size=VOCAB,
        byte_fallback=True,
        split_digits=True,
        allow_whitespace_only_pieces=True,
        normalization_rule_name="identity",
        remove_extra_whitespaces=False,
        num_threads=1,
        minloglevel=2,
    )
    write_tokenizer_files(model.getvalue(), folder, 256)
    config = LlamaConfig(
        vocab_size=VOCAB,
        hidden_size=64,
        intermediate_size=96,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=256,
        bos_token_id=1,
        eos_token_id=2,
    )
    llama = LlamaForCausalLM(config)
    generator = torch.Generator().manual_seed(11)
    for parameter in llama.parameters():
        if parameter.dim() > 1:
            parameter.data = torch.empty_like(parameter).normal_(0, 0.25, generator=generator)
    llama.to(dtype).save_pretrained(folder)
    write_chat_template(folder, form)
    return folder
