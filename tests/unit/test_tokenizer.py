"""Tokenizers: the memo, our tokenizer.json and sentencepiece agree token for token."""

import json
import os
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scripts.create.tokenizer import trained_tokenizer
from scripts.recipe.tokenizer import FastTokenizer, SentencePieceTokenizer, TokenizerError, load_tokenizer
from scripts.recipe.tokenizer_files import CHAT_TEMPLATE, write_tokenizer_files
from tests.unit.test_create import write_mix

REAL = Path(os.environ.get("ATELIER_REAL_DATA", Path(__file__).resolve().parents[3] / "shared" / "data"))
HOSTILE = [
    "",
    " ",
    "  ",
    "a  b",
    " leading and trailing ",
    "\n\n  \t x\r\n",
    *(" " * n + "word" + " " * n for n in range(1, 36)),
    "a" * 50 + "=" * 77 + "!" * 33,
    "\u2581 literal \u2581\u2581mark\u2581",
    "caf\u00e9 e\u0301 \u00df \ufb01 \u3000wide\u3000 \u00a0hard\u00a0 \u200bzero\u200d \ufeff",
    "\U0001f469\u200d\U0001f680 \u4e2d\u6587 \u0e44\u0e17\u0e22 \ufdfd \U00010400 \x00\x01\x7f",
    "<0x41><0xFF> <|user|>Hi<|model|>Yo",
    "numbers 1234567890 3.14 -7 1,000",
]
ANY_TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=60)
SPACED_TEXT = st.text("the river.\n  \u2581<|\u00e9", max_size=60)
CONTROL_LITERALS = ["</s>", "a</s> b<s>c <unk>", "<s> <s></s></s>"]


@pytest.fixture(scope="session")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a tokenizer of 400 pieces, trained on our own sentences."""
    folder = tmp_path_factory.mktemp("small")
    model = trained_tokenizer(write_mix(folder / "mix") / "train.parquet", 400)
    write_tokenizer_files(model, folder, 128)
    return folder


@pytest.fixture(scope="session")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the real Llama 2 tokenizer and our files for it."""
    source = REAL / "llama2_tokenizer.model"
    if not source.is_file():
        pytest.skip(f"{source} is absent; set ATELIER_REAL_DATA to a folder that has it")
    folder = tmp_path_factory.mktemp("llama")
    write_tokenizer_files(source.read_bytes(), folder, 4096)
    return folder


def real_texts() -> list[str]:
    """Return the real sample texts: stories, chat messages, instruction rows."""
    stories = (REAL / "text" / "text_adventures.txt").read_text(encoding="utf-8").split("<|endoftext|>")
    chats = json.loads((REAL / "text" / "multiround_chat.json").read_text(encoding="utf-8"))
    messages = [message["value"] for chat in chats for message in chat["conversations"]]
    rows = (REAL / "text" / "self_instruct_seed_tasks.jsonl").read_text(encoding="utf-8").splitlines()
    return [*stories, *messages, *rows]


@pytest.fixture(autouse=True, scope="module")
def memo_at_once() -> Iterator[None]:
    """Texts as few as these would not be worth compiling."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("scripts.recipe.tokenizer._WORTH_BYTES", 0)
        yield


def assert_equal_to_plain(ours: SentencePieceTokenizer, texts: list[str]) -> None:
    """The memo, asked twice for all texts, gives what sentencepiece gives for each."""
    plain = [[*way(text).tolist()] for way in (ours.encode, ours.encode_continuation) for text in texts]
    for _ in range(2):
        ids, counts = ours.encode_all(texts * 2, [False] * len(texts) + [True] * len(texts))
        found = [part.tolist() for part in np.split(ids, np.cumsum(counts)[:-1])]
        differing = [(text, a, b) for text, a, b in zip(texts * 2, found, plain, strict=True) if a != b]
        assert not differing, differing[0]


def check(folder: Path, texts: list[str]) -> None:
    """Compare memo, plain tokenizers and AutoTokenizer with sentencepiece."""
    transformers = pytest.importorskip("transformers")
    (folder / "config.json").write_text(json.dumps({"model_type": "llama"}), encoding="utf-8")
    auto = transformers.AutoTokenizer.from_pretrained(folder)
    ours = load_tokenizer(folder)
    assert isinstance(ours, SentencePieceTokenizer) and ours.memo
    fast = FastTokenizer((folder / "tokenizer.json").read_text(encoding="utf-8"), "<s>", "</s>")
    assert_equal_to_plain(ours, texts)
    for text in texts:
        truth = ours.processor.encode(text)
        assert ours.encode(text).tolist() == truth, text[:200]
        assert fast.encode(text).tolist() == truth, text[:200]
        assert auto.encode(text, split_special_tokens=True) == [1, *truth], text[:200]
        if not re.search(r"</?s>|<unk>", text):
            assert auto(text)["input_ids"] == [1, *truth], text[:200]
        continued = ours.encode_continuation(text).tolist()
        assert fast.encode_continuation(text).tolist() == continued, text[:200]
        assert ours.decode(np.array(continued, dtype=np.uint16)) == text.replace("\u2581", " "), text[:200]


def test_small_tokenizer_on_hostile_texts(small: Path) -> None:
    check(small, [*HOSTILE, *CONTROL_LITERALS])


def test_llama_on_hostile_texts(llama: Path) -> None:
    check(llama, [*HOSTILE, *CONTROL_LITERALS])
    tokenizer = load_tokenizer(llama)
    # The reference: transformers' own conversion gives [263, 259, 29890].
    assert tokenizer.encode("a  b").tolist() == [263, 29871, 289]
    assert tokenizer.encode("<|model|>").tolist() == [529, 29989, 4299, 29989, 29958]
    assert tokenizer.encode_continuation("<|model|>").tolist()[0] == 29966


@pytest.mark.slow
def test_llama_on_real_texts(llama: Path) -> None:
    if not (REAL / "text").is_dir():
        pytest.skip(f"{REAL / 'text'} is absent; set ATELIER_REAL_DATA to a folder that has it")
    check(llama, real_texts())


@settings(max_examples=300, deadline=None)
@given(text=ANY_TEXT | SPACED_TEXT)
def test_any_text_is_encoded_as_sentencepiece_does(small: Path, text: str) -> None:
    ours = load_once(small)
    assert ours.encode(text).tolist() == ours.processor.encode(text)
    assert_equal_to_plain(ours, [text, "the river" + text])


def test_a_text_that_fails_spoils_no_later_one(small: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ours = SentencePieceTokenizer((small / "tokenizer.model").read_bytes())
    with pytest.raises(TokenizerError, match="UTF-8"):
        ours.encode_all(["the river greets", "the river \ud800 greets the garden"], [False, True])
    with monkeypatch.context() as patch:
        patch.setattr(ours._words, "_encode", lambda texts: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            ours.encode_all(["the river greets"], [False])
    assert_equal_to_plain(ours, ["the river greets"])


LOADED: dict[Path, SentencePieceTokenizer] = {}


def load_once(folder: Path) -> SentencePieceTokenizer:
    """Return one tokenizer for all examples, so that its memo is warm for most."""
    return LOADED.setdefault(folder, SentencePieceTokenizer((folder / "tokenizer.model").read_bytes()))


@pytest.mark.parametrize("limit", ["WORDS", "CHARS"])
def test_a_full_memo_starts_anew(small: Path, monkeypatch: pytest.MonkeyPatch, limit: str) -> None:
    monkeypatch.setattr(f"scripts.recipe.word_memo.{limit}", 3)
    ours = SentencePieceTokenizer((small / "tokenizer.model").read_bytes())
    for space in (" ", "  "):
        assert_equal_to_plain(ours, ["the river greets the garden and the lantern {}".replace(" ", space)])
    assert_equal_to_plain(ours, ["river"])
    assert len(ours._words) == 2, "with a space before it and without"


def test_a_memo_that_grows_keeps_what_it_knows(small: Path) -> None:
    """Tables and arenas are made larger by each call."""
    ours = SentencePieceTokenizer((small / "tokenizer.model").read_bytes())
    for words in (1, 30, 3_000, 30_000):
        assert_equal_to_plain(ours, [" ".join(f"w{number}" for number in range(words))])
    assert len(ours._words) == 30_001


def test_words_that_depend_on_each_other_switch_the_memo_off(tmp_path: Path) -> None:
    import io

    import sentencepiece

    for options in ({"split_by_whitespace": False}, {"model_type": "unigram"}, {"normalization_rule_name": "nfkc"}):
        model = io.BytesIO()
        lines = ["of the sea of the sea of the tree at the sea"] * 20
        arguments = {"model_type": "bpe", "byte_fallback": True, "normalization_rule_name": "identity"} | options
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(lines), model_writer=model, vocab_size=290, minloglevel=2,
            hard_vocab_limit=False, remove_extra_whitespaces=False, **arguments,
        )  # fmt: skip
        ours = SentencePieceTokenizer(model.getvalue())
        assert not ours.memo, options
        assert_equal_to_plain(ours, ["of the sea \ufb01sh", "", " sea  of the"])
        for text in ("of the sea \ufb01sh", "", " sea  of the"):
            assert ours.encode(text).tolist() == ours.processor.encode(text)
        if "model_type" in options:
            with pytest.raises(TokenizerError, match="only BPE models"):
                write_tokenizer_files(model.getvalue(), tmp_path, 128)


def test_chat_template(small: Path) -> None:
    transformers = pytest.importorskip("transformers")
    auto = transformers.AutoTokenizer.from_pretrained(small)
    assert (auto.bos_token, auto.eos_token, auto.unk_token, auto.pad_token) == ("<s>", "</s>", "<unk>", "</s>")
    assert auto.chat_template == CHAT_TEMPLATE == (small / "chat_template.jinja").read_text(encoding="utf-8")
    turns = [("system", "Enter RP mode."), ("user", "Hi"), ("assistant", "Yo"), ("user", "?")]
    messages = [{"role": role, "content": text} for role, text in turns]
    text = auto.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    assert text == "<s><|system|>Enter RP mode.<|user|>Hi<|model|>Yo</s><|user|>?<|model|>"
    with pytest.raises(Exception, match="system, user and assistant, not tool"):
        auto.apply_chat_template([{"role": "tool", "content": "x"}], tokenize=False)


def test_folder_without_tokenizer_model_uses_tokenizer_json(small: Path, tmp_path: Path) -> None:
    with pytest.raises(TokenizerError, match=r"holds neither tokenizer\.model nor tokenizer\.json"):
        load_tokenizer(tmp_path)
    (tmp_path / "tokenizer.json").write_bytes((small / "tokenizer.json").read_bytes())
    named = {"bos_token": {"content": "<s>"}, "eos_token": "</s>"}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(named), encoding="utf-8")
    found, truth = load_tokenizer(tmp_path), load_tokenizer(small)
    assert (found.vocab_size, found.bos_id, found.eos_id) == (truth.vocab_size, 1, 2)
    assert found.encode("The river </s>").tolist() == truth.encode("The river </s>").tolist()
    (tmp_path / "tokenizer_config.json").write_text('{"bos_token": "<s>"}', encoding="utf-8")
    with pytest.raises(TokenizerError, match="names no eos_token"):
        load_tokenizer(tmp_path)


def test_bad_text_and_bad_model_are_named(small: Path) -> None:
    with pytest.raises(TokenizerError, match="can't be encoded as UTF-8"):
        load_tokenizer(small).encode("half a pair \ud800")
    with pytest.raises(TokenizerError, match="not a sentencepiece model"):
        SentencePieceTokenizer(b"\x00\x01 garbage")
