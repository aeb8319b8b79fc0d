"""The model, as lm-eval's `HFLM`: one device, fixed batch size, fixed precision, no cache between runs."""

import logging
from pathlib import Path
from typing import Any

import torch
from lm_eval.models.huggingface import HFLM

from scripts.artifact.stage import StageError
from scripts.benchmark.folder import check_model_folder
from scripts.recipe.benchmark import BenchmarkSpec

Request = tuple[tuple[str, str], list[int], list[int]]
"""(texts, context tokens, continuation tokens)."""


class Model(HFLM):  # type: ignore[misc]  # lm-eval has no type marker
    """HFLM that refuses what it would only assert, and counts inputs that lose their left end."""

    truncated = 0
    """Requests so far whose context was cut on the left to fit `max_length`."""

    def use_bos(self, bos: bool) -> None:
        """Choose whether contexts begin with BOS from now on.

        Raises:
            StageError: the tokenizer does otherwise than asked.
        """
        self.add_bos_token = bos
        start = [self.tokenizer.bos_token_id] if bos else []
        plain = self.tokenizer.encode("a", add_special_tokens=False)
        if self.tok_encode("a") != start + plain:
            raise StageError(
                f"{self.pretrained}: the tokenizer encodes 'a' as {self.tok_encode('a')}, expected {start + plain}; "
                "set add_bos_token and add_eos_token right in tokenizer_config.json"
            )

    def loglikelihood(self, requests: list[Any], disable_tqdm: bool = True) -> list[tuple[float, bool]]:
        """As HFLM's, without progress bars, which would fill a log file."""
        scores: list[tuple[float, bool]] = super().loglikelihood(requests, disable_tqdm=disable_tqdm)
        return scores

    def _loglikelihood_tokens(self, requests: list[Request], **kwargs: Any) -> list[tuple[float, bool]]:
        for texts, context, continuation in requests:
            if not continuation or len(continuation) > self.max_length:
                raise StageError(
                    f"a continuation has {len(continuation)} tokens; allowed are 1 to max_length = {self.max_length}: "
                    f"{texts!r:.300}; raise benchmark.max_length or limit the task"
                )
            self.truncated += len(context) + len(continuation) > self.max_length + 1
        kwargs["disable_tqdm"] = True
        scores: list[tuple[float, bool]] = super()._loglikelihood_tokens(requests, **kwargs)
        return scores


def load_model(folder: Path, spec: BenchmarkSpec) -> Model:
    """Load a model folder for scoring.

    Log-softmax is taken in float32 whatever `dtype` is: with bfloat16's 8 bits, long answers would tie.
    On a CPU one thread computes: the number of threads would change the last bits.

    Raises:
        StageError: a folder that asks for code or that transformers can't read, or no such device.
    """
    config = check_model_folder(folder)
    # lm-eval warns once for every shortened request; they are counted in `truncated` and shown in the results.
    logging.getLogger("lm_eval").setLevel(logging.ERROR)
    if spec.device == "cpu":
        torch.set_num_threads(1)
    elif not torch.cuda.is_available():
        raise StageError("benchmark.device is cuda, but torch finds no GPU here; set it to cpu or run on a GPU node")
    else:
        torch.use_deterministic_algorithms(True, warn_only=True)
    positions = config.get("max_position_embeddings")
    try:
        model = Model(
            pretrained=str(folder),
            backend="causal",
            device=spec.device,
            dtype=spec.dtype,
            softmax_dtype="float32",
            batch_size=spec.batch_size,
            max_length=min(spec.max_length, positions) if isinstance(positions, int) else spec.max_length,
            add_bos_token=True,
            trust_remote_code=False,
            use_safetensors=True,
        )
    except (OSError, ValueError, KeyError, ImportError) as error:
        raise StageError(f"{folder}: transformers can't load this model: {error}") from error
    return model
