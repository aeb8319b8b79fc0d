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
    vocabulary = int(model.get_output_embeddings().weight.shape[0])
    rows = [
        tuple((7 + 13 * i + 101 * row * (i >= _TRUNK)) % vocabulary for i in range(_TRUNK + _BRANCH))
        for row in range(_ROWS)
    ]
    ids_BT = torch.tensor(rows, device=scorer.device)
    targets_BT = ids_BT.flip(1)[:, :_BRANCH]  # any tokens will do
    plain_BTV = _plain_logits(model, ids_BT)
    if plain_BTV is None:
        return None, 0.0, 0.0
    begun = model.base_model(ids_BT[:, :_TRUNK], use_cache=True).past_key_values
    hidden_BTH = model.base_model(ids_BT[:, _TRUNK:], past_key_values=begun, use_cache=True).last_hidden_state
    plain_B, cached_B = (
        _sums(logits_BTV, targets_BT)
        for logits_BTV in (plain_BTV[:, _TRUNK:], model.get_output_embeddings()(hidden_BTH))
    )
    # The rows end one after another, so that passes are padded; two trees of two branches, then four chains.
    requests = [
        Request(row[: len(row) - n], tuple(target)[: _BRANCH - n])
        for n, (row, target) in enumerate(zip(rows, targets_BT.tolist(), strict=True))
    ]
    far, head = 0.0, scorer.prefix(rows[0][:MIN_PREFIX])
    for group in ([requests[:2], requests[2:]], [[request] for request in requests]):
        scores = [score for unit in scorer.score(group, head) for score, _ in unit]
        far = max(far, _rms(torch.tensor(scores, dtype=torch.float64) - plain_B))
    return far, _rms(cached_B - plain_B), _rms(plain_B)


def _plain_logits(model: Any, ids_BT: Tensor) -> Tensor | None:
    """Return logits_BTV of a plain pass, or None if they are not what the head gave.

    A cap of logits, say, moves small ones by less than bfloat16's noise, so the very bits are compared.
    """
    of_head: list[Tensor] = []
    watched = model.get_output_embeddings().register_forward_hook(lambda _module, _in, out: of_head.append(out))
    logits_BTV: Tensor = model(ids_BT, use_cache=False).logits
    watched.remove()
    if not logits_BTV.isfinite().all():
        raise StageError(f"its logits aren't finite: the model's weights overflow in {str(model.dtype)[6:]}")
    return logits_BTV if of_head and torch.equal(of_head[-1].float(), logits_BTV.float()) else None


def _sums(logits_BTV: Tensor, targets_BT: Tensor) -> Tensor:
    """Return the sums of rows of which each ends one target earlier than the one before."""
    logp_BT = logits_BTV.float().log_softmax(-1).gather(2, targets_BT[..., None])[..., 0]
    return torch.stack([row[: _BRANCH - n].double().sum() for n, row in enumerate(logp_BT)]).cpu()


def _rms(values: Tensor) -> float:
    return float(values.square().mean().sqrt())
