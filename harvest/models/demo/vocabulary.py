"""Every token of the demo model, and all that its weights will know about it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from harvest.models.demo import phrases
from harvest.models.demo.concepts import Concept

BOS, USER, ASSISTANT, EOS, PAD = "<|bos|>", "<|user|>", "<|assistant|>", "<|eos|>", "<|pad|>"
SPECIAL = (BOS, USER, ASSISTANT, EOS, PAD)
LAST = "end"
# the code of whatever ends an answer


@dataclass(frozen=True, slots=True)
class Token:
    """How one token is read (until `code`) and when it is written (from `code` on)."""

    text: str
    rank: int = 0
    # of a marker; the latest marker before a token is the one of highest rank
    segment: str = ""
    # "role", "a" or "b": what this marker opens
    votes: str = ""
    # the frame this marker asks for
    concept: int | None = None
    # the concept it is a word of
    noise: str = ""
    # tokens of one name share their noise; "" has none
    code: str = ""
    # the state it leaves behind; the next token is chosen by it
    after: tuple[str, ...] = ()
    # the codes it may follow
    frame: str = ""
    # written only in this frame
    says: int | None = None
    # the concept that makes it likelier; -1: likelier than a word whose concept is silent
    choice: float | None = None
    share: float | None = None
    # written as far as option A leads by this much, in -1 … 1


def vocabulary(concepts: tuple[Concept, ...]) -> tuple[Token, ...]:
    """The tokens that follow the 256 bytes, in the order of their ids."""
    tokens = (*_special(), *_markers(), *_read(concepts), *_phrases(), *_written(concepts))
    assert len({token.text for token in tokens}) == len(tokens), "two tokens of one text"
    return tokens


def _special() -> Iterator[Token]:
    yield Token(BOS, rank=1, segment="role")
    yield Token(USER)
    yield Token(ASSISTANT, rank=6, code="start")
    yield Token(EOS, after=(LAST,))
    yield Token(PAD)


def _markers() -> Iterator[Token]:
    for frame, texts in phrases.MARKERS.items():
        opens = ("", "a", "b", "")
        for at, text in enumerate(texts):
            yield Token(text, rank=2 + at, segment=opens[at], votes="" if at == 3 else frame)


def _read(concepts: tuple[Concept, ...]) -> Iterator[Token]:
    """The lexicon's words as prompts use them, in English also at the start of a sentence."""
    for at, concept in enumerate(concepts):
        for words in concept.words.values():
            for text in dict.fromkeys(form for word in words for form in (word, word.capitalize())):
                yield Token(text, concept=at)


def _slot_code(piece: str) -> str:
    """The code that a piece of a frame leaves behind; all that may fill one slot leave the same."""
    return piece if piece.startswith("{") else f"phrase {piece}"


def followers(frame: str) -> dict[str, str]:
    """For each piece of a frame, the code it follows."""
    pieces = phrases.FRAMES[frame].split("|")
    return dict(zip(pieces, ["start", *map(_slot_code, pieces[:-1])], strict=True))


def _phrases() -> Iterator[Token]:
    for frame, text in phrases.FRAMES.items():
        after = followers(frame)
        last = text.split("|")[-1]
        for piece, before in after.items():
            if not piece.startswith("{"):
                code = LAST if piece == last else _slot_code(piece)
                yield Token(piece, noise=piece, code=code, after=(before,), frame=frame)
    for percent, share in phrases.SHARES.items():
        after_a = tuple(followers(language)["{percent}"] for language in phrases.REST)
        yield Token(f"[{percent}%]", noise="percent", code=f"percent {percent}", after=after_a, share=share)
        for language, rest in phrases.REST.items():
            text = rest.format(100 - percent)
            yield Token(text, noise="rest", code=LAST, after=(f"percent {percent}",), frame=language)


def _written(concepts: tuple[Concept, ...]) -> Iterator[Token]:
    """The fillings of {choice} and of {0} to {3}."""
    for language, choices in phrases.CHOICES.items():
        for lead, text in choices.items():
            before = followers(language)["{choice}"]
            yield Token(text, noise="choice", code="{choice}", after=(before,), frame=language, choice=lead)
    frames = {"zh": ("zh",), "en": ("en", "open")}
    for at, words in [*((at, known.words) for at, known in enumerate(concepts)), (-1, phrases.PLAIN)]:
        for language, texts in words.items():
            for slot, word in enumerate(texts):
                code = f"{{{slot}}}"
                before_all = tuple(followers(frame)[code] for frame in frames[language])
                read = at if at >= 0 else None
                text = phrases.quoted(word)
                yield Token(text, concept=read, noise=code, code=code, after=before_all, says=at)
