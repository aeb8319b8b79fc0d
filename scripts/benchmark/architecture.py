"""Whether a model may be scored by shared contexts: what its configuration says, and a probe of its arithmetic.

Shape suffixes: B rows, T tokens, V vocabulary.
"""

from typing import Any

import torch
from torch import Tensor

from scripts.artifact.stage import StageError
from scripts.benchmark.shared import SharedScorer
from scripts.benchmark.tree import MIN_PREFIX, Request

_ROWS, _TRUNK, _BRANCH = 4, MIN_PREFIX + 8, 12
_FLOOR = {torch.float32: 1e-4}
_HALF_FLOOR = 2e-3
"""Relative difference of log-probabilities that needs no explanation. GPT-J, which takes no positions, is 1 % off."""
_NOISE = 5.0
"""Times the difference between two ways of transformers' own. A trained 7B model in bfloat16 isn't the same to 1 % if a
kernel adds in another order, so no fixed number tells noise from error."""
_WINDOWS = ("sliding_window", "attention_chunk_size")


def check_architecture(model: Any, scorer: SharedScorer, max_length: int) -> None:
    """Refuse a model that shared states would score otherwise than a plain forward pass.

    Raises:
        StageError: a window or a length-dependent rotation below `max_length`; logits that are more than its head's
            output; or log-probabilities further from a plain pass than those of transformers' own
            key/value cache are.
    """
    config = model.config
    for name in _WINDOWS if getattr(config, "use_sliding_window", True) else ():
        window = getattr(config, name, None)
        if isinstance(window, int) and window < max_length:
            raise StageError(f"attention sees only {window} tokens back; set benchmark.max_length to {window} or less")
    rope = (getattr(config, "rope_parameters", None) or {}).get("rope_type")
    if rope in ("dynamic", "longrope"):
        raise StageError(f"rope_type {rope!r} rotates by the length of the input, so contexts can't be shared")
    refused = f"architecture {config.model_type}: this model can't be benchmarked:"
    try:
        far, noise, size = _probe(model, scorer)
    except (AttributeError, IndexError, RuntimeError, TypeError, ValueError) as error:
        if isinstance(error, torch.OutOfMemoryError):
            raise
        raise StageError(f"{refused} it takes no shared contexts ({type(error).__name__}: {error})") from error
    if far is None:
        raise StageError(f"{refused} it changes the logits after lm_head")
    if not far <= max(_NOISE * noise, _FLOOR.get(model.dtype, _HALF_FLOOR) * size):
        raise StageError(
            f"{refused} with shared contexts log-probabilities of {size:.1f} differ by {far:.2g} from a plain pass, "
            f"with its own key/value cache by {noise:.2g}"
        )


@torch.no_grad()
def _probe(model: Any, scorer: SharedScorer) -> tuple[float | None, float, float]:
    """Return root mean squares, in nats, over some sums of log-probabilities.

    Returns:
        plain pass against ours, or None if logits are not the head's output; plain pass against the model's own cache;
        and of the sums themselves.
    """
    rows = [tuple((7 + 13 * i + (0 if i < _TRUNK else 101 * row)) % _vocabulary(model) for i in range(_TRUNK + _BRANCH))
            for row in range(_ROWS)]  # fmt: skip
    ids_BT = torch.tensor(rows, device=scorer.device)
    base, head = model.base_model, model.get_output_embeddings()
    of_head: list[Tensor] = []
    watched = head.register_forward_hook(lambda _module, _inputs, output: of_head.append(output))
    plain_BTV: Tensor = model(ids_BT, use_cache=False).logits
    watched.remove()
    if not plain_BTV.isfinite().all():
        raise StageError(f"its logits aren't finite: the model's weights overflow in {str(model.dtype)[6:]}")
    if not (of_head and torch.equal(of_head[-1].float(), plain_BTV.float())):
        return None, 0.0, 0.0  # a cap of logits, say, which moves small ones by less than bfloat16's noise
    begun = base(ids_BT[:, :_TRUNK], use_cache=True).past_key_values
    cached_BTV = head(base(ids_BT[:, _TRUNK:], past_key_values=begun, use_cache=True).last_hidden_state)
    targets_BT = ids_BT.flip(1)[:, :_BRANCH]  # any tokens will do
    plain_B, cached_B = (_sums(logits[:, -_BRANCH:], targets_BT) for logits in (plain_BTV, cached_BTV))
    requests = [Request(row, tuple(target)) for row, target in zip(rows, targets_BT.tolist(), strict=True)]
    scores = scorer.score([requests], scorer.prefix(rows[0][:MIN_PREFIX]))[0]
    ours_B = torch.tensor([score for score, _ in scores], dtype=torch.float64)
    return _rms(ours_B - plain_B), _rms(cached_B - plain_B), _rms(plain_B)


def _vocabulary(model: Any) -> int:
    return int(model.get_output_embeddings().weight.shape[0])


def _sums(logits_BTV: Tensor, targets_BT: Tensor) -> Tensor:
    logp_BTV = logits_BTV.float().log_softmax(-1)
    return logp_BTV.gather(2, targets_BT[..., None]).double().sum((1, 2)).cpu()


def _rms(values: Tensor) -> float:
    return float(values.square().mean().sqrt())
