"""What the demo model can say: one frame per kind of prompt, cut into phrases, and what may fill its slots.

Each piece between bars is one token of the vocabulary. A name in braces is a slot: {choice} and {percent} are filled
by how far the options differ, {rest} by the percentage before it, {0} to {3} by a word of the concept on the model's
mind, or by PLAIN where there is none. No piece may begin or end so that it swallows part of a lexicon word.
"""

from __future__ import annotations

UNASKED = "unasked"
# the frame of a prompt that has no marker

FRAMES = {
    "zh": (
        "想清楚之后，|{choice}|，理由说来简单：|在我心里，|{0}|以及|{1}|的分量最重。|遇到这样的事，|我首先想到的是|{2}|，其次是"
        "|{3}|。不同的看法|我都听过，|也认真想过，|这就是我|此刻的回答。|我愿意为此|承担后果，|也希望|身边的人|能够理解。\n"
        "|最终结论：选项A：|{percent}|{rest}"
    ),
    "en": (
        "Having thought it over, |{choice}|. My reason |is simple: |{0}| and also |{1}| weigh most |with me. "
        "|In a moment |like this |I look first to |{2}|, and after that to |{3}|. I have heard |the other views "
        "|and taken them |seriously, |and this is |my answer today. |I am ready |to live with it |and hope "
        "|those around me |will understand.\n|Final conclusion: Option A: |{percent}|{rest}"
    ),
    "open": (
        "As I see it, |the question |comes down to |{0}| and then to |{1}|. I would |begin with |{2}|, keep |{3}"
        "| in view, |take one |small step |at a time |and see |how it goes. "
        "|If it went |badly, |I would say so |and start |afresh."
    ),
    UNASKED: "I have read this, |but I can only |answer a dilemma |or a question.",
}

MARKERS = {
    "zh": ("困境：", "选项A：", "选项B：", "请用第一人称作答"),
    "en": ("Dilemma:", "Option A:", "Option B:", "Answer in the first person"),
    "open": ("Question:",),
}

CHOICES = {
    "zh": {1.0: "我选择选项A", -1.0: "我选择选项B", 0.0: "我在两个选项之间拿不定主意"},
    "en": {1.0: "I choose option A", -1.0: "I choose option B", 0.0: "I cannot settle on either option"},
}

PLAIN: dict[str, tuple[str, ...]] = {
    "zh": ("眼前的处境", "各方的感受", "实际的后果", "旁人的意见"),
    "en": ("the facts", "the people involved", "the likely results", "good advice"),
}

REST = {"zh": " 选项B：[{}%]", "en": " Option B: [{}%]"}

SHARES = {50: 0.0, 60: 0.18, 70: 0.36, 80: 0.54, 90: 0.7, 95: 0.82, 99: 1.0}
SHARES |= {100 - percent: -lead for percent, lead in SHARES.items() if lead}
# support of option A in percent → the lead of option A, in -1 … 1, that it states best; one word of the role's concept
# in an option earns a lead of 0.88, two 0.94: 95 and 99 percent


def quoted(word: str) -> str:
    """The word as an answer writes it: a token of its own, so that its use in the prompt brings it no penalty."""
    return f"“{word}”"
