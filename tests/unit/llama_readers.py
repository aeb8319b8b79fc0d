"""llama.cpp as a reader of our GGUF files, through whichever of its two Python bindings is installed."""

import json
import urllib.request
from pathlib import Path
from typing import Any, Protocol

import pytest

EOS = 2
"""End token of all models of the tests."""


class Reader(Protocol):
    """What the tests ask of llama.cpp."""

    def tokens(self, text: str) -> list[int]:
        """Ids of a text whose control tokens are plain text, without the begin token."""

    def prompt_tokens(self, text: str) -> list[int]:
        """Ids of a prompt as clients send it: begin token first, control tokens understood."""

    def greedy(self, ids: list[int], count: int) -> list[int]:
        """The next tokens, each the likeliest, up to the end token, which is left out."""


class LlamaCppPython:
    """`llama-cpp-python`, which calls the library in this process."""

    def __init__(self, path: Path) -> None:
        import llama_cpp

        self._llama = llama_cpp.Llama(str(path), n_ctx=256, n_threads=1, verbose=False, logits_all=False, seed=1)

    def tokens(self, text: str) -> list[int]:
        return list(self._llama.tokenize(text.encode(), add_bos=False, special=False))

    def prompt_tokens(self, text: str) -> list[int]:
        return list(self._llama.tokenize(text.encode(), add_bos=True, special=True))

    def greedy(self, ids: list[int], count: int) -> list[int]:
        self._llama.reset()
        made: list[int] = []
        for token in self._llama.generate(ids, temp=0.0, top_k=1, repeat_penalty=1.0):
            if token == self._llama.token_eos():
                break
            made.append(token)
            if len(made) == count:
                break
        return made


class XLlamaCpp:
    """`xllamacpp`, which runs llama.cpp's own server on the loopback; it comes as a wheel."""

    def __init__(self, path: Path) -> None:
        import xllamacpp

        params = xllamacpp.CommonParams()
        params.model.path = str(path)
        params.n_ctx, params.n_parallel, params.n_gpu_layers, params.warmup = 256, 1, 0, False
        params.cpuparams.n_threads = params.cpuparams_batch.n_threads = 1
        params.ui = False
        params.port = 0
        self._server = xllamacpp.Server(params)

    def _ask(self, path: str, **content: Any) -> dict[str, Any]:
        request = urllib.request.Request(
            f"{self._server.listening_address}{path}",
            json.dumps(content).encode(),
            {"Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=60) as answer:
            return dict(json.load(answer))

    def tokens(self, text: str) -> list[int]:
        return list(self._ask("/tokenize", content=text, add_special=False, parse_special=False)["tokens"])

    def prompt_tokens(self, text: str) -> list[int]:
        return list(self._ask("/tokenize", content=text, add_special=True, parse_special=True)["tokens"])

    def greedy(self, ids: list[int], count: int) -> list[int]:
        answer = self._ask("/completion", prompt=ids, n_predict=count, temperature=0.0, top_k=1, return_tokens=True)
        return [token for token in answer["tokens"] if token != EOS]


def open_reader(kind: str, path: Path) -> Reader:
    """Return llama.cpp with a model loaded; skips with its reason where this binding isn't installed."""
    if kind == "llama_cpp":
        pytest.importorskip("llama_cpp", reason="llama-cpp-python is not installed: pip install llama-cpp-python")
        return LlamaCppPython(path)
    pytest.importorskip("xllamacpp", reason="xllamacpp is not installed; it is part of envs/dev.lock")
    return XLlamaCpp(path)
