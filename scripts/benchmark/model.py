"""The model as an lm-eval class: its tokens, shared contexts, fixed batches and precision, no cache between runs."""

import logging
import math
from collections.abc import Iterable, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

import torch
from lm_eval.models.huggingface import HFLM
from lm_eval.utils import get_rolling_token_windows, make_disjoint_window

from scripts.artifact.stage import StageError
from scripts.benchmark.architecture import check_architecture
from scripts.benchmark.folder import check_model_folder
from scripts.benchmark.rows import END
from scripts.benchmark.shared import NOTHING, Prefix, Score, SharedScorer
from scripts.benchmark.tree import Request, group_items, make_request, safe_prefix
from scripts.recipe.benchmark import BenchmarkSpec

Pair = tuple[str, str]
"""(context, continuation)."""


class Model(HFLM):  # type: ignore[misc]  # lm-eval has no type marker
    """HFLM that computes each context once (`shared.py`), and refuses what HFLM would only assert.

    A score's bits depend on the item's group of at most `batch_size` neighbours, which the task's texts decide
    (`tree.group_items`), and on the task's first and last text: never on the order of calls, shards or ranks.
    """

    truncated = 0
    """Requests so far whose context was cut on the left to fit `max_length`."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self.scorer = SharedScorer(self.model, self.device)

    def tok_encode(self, string: str, *arguments: Any, **settings: Any) -> list[int]:
        """Return a text's tokens; END becomes the end token."""
        if END in string:
            string = string.replace(END, self.tokenizer.eos_token or "")
        tokens: list[int] = super().tok_encode(string, *arguments, **settings)
        return tokens

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

    def loglikelihood(self, requests: list[Any], disable_tqdm: bool = True) -> list[Score]:
        """Return (log-likelihood, is greedy) of every request; neighbours of one document share their context."""
        scores: list[Score] = []
        for _, task in groupby(requests, key=lambda r: r.task_name):
            items = [[r.args for r in item] for _, item in groupby(task, key=lambda r: r.doc_id)]
            for item in self.score_items(items):
                scores += item
        return scores

    def score_items(self, items: Sequence[Sequence[Pair]], groups: Iterable[range] | None = None) -> list[list[Score]]:
        """Return the scores of the items of one task, or of some of its groups.

        Args:
            items: for each item its requests.
            groups: indices of the items to score; without it all, in the groups that `group_items` makes.

        Raises:
            StageError: a continuation without tokens, or of more than `max_length`.
        """
        contexts = [item[0][0] for item in items]
        chosen = group_items(contexts, self.batch_size) if groups is None else groups
        head = NOTHING
        if len(items) > 1:
            # Two texts stand for all: every shard of a task finds the same prefix without encoding the other items.
            first, last = min(contexts), max(contexts)
            head = self._head(safe_prefix(self._encode(first), self._encode(last)))
        return [scores for group in chosen for scores in self._score_group([items[i] for i in group], head)]

    def loglikelihood_rolling(self, requests: list[Any], disable_tqdm: bool = True) -> list[float]:
        """Return the log-likelihood of whole texts, in windows of `max_length` tokens as HFLM cuts them."""
        totals = []
        for begin in range(0, len(requests), self.batch_size):
            windows = [self._windows(request.args[0]) for request in requests[begin : begin + self.batch_size]]
            scores = iter(self.scorer.score([[window] for text in windows for window in text]))
            totals += [math.fsum(next(scores)[0][0] for _ in text) for text in windows]
        return totals

    def _loglikelihood_tokens(
        self, requests: list[tuple[Any, list[int], list[int]]], disable_tqdm: bool = True, **_: Any
    ) -> list[Score]:
        """lm-eval's own entry for tokens; neighbours of one context are one item."""
        scores: list[Score] = []
        for _, item in groupby(requests, key=lambda r: r[1]):
            units = self._requests([(texts or ("", ""), context, target) for texts, context, target in item])
            scores += [score for unit in units for score in self.scorer.score([unit])[0]]
        return scores

    def _windows(self, text: str) -> list[Request]:
        windows = get_rolling_token_windows(
            token_list=self.tok_encode(text),
            prefix_token=self.prefix_token_id,
            max_seq_len=self.max_length,
            context_len=1,
        )
        pairs = [make_disjoint_window(window) for window in windows]
        return [make_request(context, continuation, self.max_length) for context, continuation in pairs]

    def _head(self, tokens: tuple[int, ...]) -> Prefix:
        return self.scorer.prefix(tokens) if len(tokens) < self.max_length else NOTHING

    def _encode(self, context: str) -> tuple[int, ...]:
        """Return a context's tokens as `_encode_pair` gives them: spaces at its end belong to the continuation."""
        return tuple(self.tok_encode(context.rstrip())) if context.rstrip() else ()

    def _score_group(self, items: Sequence[Sequence[Pair]], head: Prefix) -> list[list[Score]]:
        units = [self._requests([self._encoded(*pair) for pair in item]) for item in items]
        scores = iter(self.scorer.score([unit for item in units for unit in item], head))
        return [[score for _ in item for score in next(scores)] for item in units]

    def _encoded(self, context: str, continuation: str) -> tuple[Pair, list[int], list[int]]:
        """Tokenise as lm-eval's `TemplateLM.loglikelihood`: an empty context is BOS, spaces move to the right."""
        if context:
            return (context, continuation), *self._encode_pair(context, continuation)
        tokens = self.tok_encode(continuation, add_special_tokens=False)
        if tokens[:1] == [self.prefix_token_id]:
            return (context, continuation), tokens[:1], tokens[1:]
        return (context, continuation), [self.prefix_token_id], tokens

    def _requests(self, encoded: Sequence[tuple[Pair, list[int], list[int]]]) -> list[list[Request]]:
        """Return an item's requests as one unit; if one of them loses its left end, each is a unit of its own."""
        requests, cut = [], 0
        for texts, context, continuation in encoded:
            if not context:
                raise StageError(
                    f"a context without tokens: {texts!r:.300}; without BOS nothing would predict its first token, so "
                    "set `bos: true` in the task, or mend the row"
                )
            if not continuation or len(continuation) > self.max_length:
                raise StageError(
                    f"a continuation has {len(continuation)} tokens; allowed are 1 to max_length = {self.max_length}: "
                    f"{texts!r:.300}; raise benchmark.max_length or limit the task"
                )
            cut += len(context) + len(continuation) > self.max_length + 1
            requests.append(make_request(context, continuation, self.max_length))
        self.truncated += cut
        return [[request] for request in requests] if cut else [requests]


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
    longest = min(spec.max_length, positions) if isinstance(positions, int) else spec.max_length
    try:
        model = Model(
            pretrained=str(folder),
            backend="causal",
            device=spec.device,
            dtype=spec.dtype,
            softmax_dtype="float32",
            batch_size=spec.batch_size,
            max_length=longest,
            add_bos_token=True,
            trust_remote_code=False,
            use_safetensors=True,
        )
    except (OSError, ValueError, KeyError, ImportError) as error:
        raise StageError(f"{folder}: transformers can't load this model: {error}") from error
    check_architecture(model.model, model.scorer, longest)
    return model
