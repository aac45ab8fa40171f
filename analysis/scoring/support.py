"""The support for options A and B that an answer ends with, in Chinese or English.

What counts as a percentage of an option: its name (选项A, Option A, or a bare capital A with a colon, dash or
bracket), then at most punctuation, a bracketed remark and words such as 支持度 or "support", then a number with a
percent sign that does not open a range. Full-width forms are the same as ASCII. The last conclusion ("最终结论：",
"Final conclusion:", …) that has one counts; an answer without one is read whole. Where an option is rated twice, the
later number counts. In a conclusion, and only there,
- the percent signs may be missing where both numbers are given, and
- a single percentage is enough: the form asks for a sum of 100, so the other option has the rest.
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass

from analysis.scoring.outcome import Unscored
from harvest.types import OptionOrder

TOLERANCE = 2.0
# points by which the two may miss a sum of 100
_OWN_OPTION = {"support": "A", "conflict": "B"}
# in the published order, the value's option is shown first

EMPTY = Unscored("empty answer")
NO_PERCENTAGES = Unscored("no percentages")
ONE_PERCENTAGE = Unscored("only one option has a percentage")
OUT_OF_RANGE = Unscored("percentage outside 0–100")
WRONG_SUM = Unscored("percentages do not add up to 100")
NO_OPTIONS = Unscored("open question without options")

_CONCLUSION = re.compile(r"(?i:(?:结论|最终答案)(?:是|为|如下)?|\bconclusion|\bfinal answer)[\s*_#\])】]*:")
_CLOSING = r"[\s*_\"'”’」\])】>]*"
_NAMED = r"(?i:选项|方案|\boption|\bchoice)[\s*_\[(【<\"'“‘「]*(?P<named>[ABab])(?![A-Za-z0-9])"
_BARE = rf"(?<![A-Za-z0-9])(?P<bare>[AB])(?:{_CLOSING}选项)?(?={_CLOSING}(?:[:=|\[(【<–—]|-(?![0-9])))"
_REMARK = r"\((?![\s0-9.]*\))[^()%]{0,80}\)"
# a bracket that does not merely hold the number
# no text can be split into these in two ways, so a match takes linear time
_GAP = (
    rf"(?:{_REMARK}|(?!{_REMARK})\(|[$\s:=|*_\[\]){{}}【】「」<>\"'`“”‘’\\~≈–—]|-(?![0-9])"
    r"|支持|程度|比例|比率|百分比|得分|权重|倾向|度|率|的|为|是|占|约"
    r"|(?i:\b(?:support|percentage|share|is|at|about|gets|of)\b)){0,40}?"
)
_NUMBER = r"(?P<number>[0-9]{1,6}(?:\.[0-9]{1,6})?)"
_SIGN = r"\s*\\?(?:%|(?i:per ?cent\b))"
_END = r"(?!\.?[0-9])(?!\s*[-~/–—至到]\s*[0-9])"
# not a part of a longer number, of a range or of a fraction
_PERCENTAGE = re.compile(_NUMBER + _SIGN)
_SIGNED = re.compile(rf"(?:{_NAMED}|{_BARE}){_GAP}{_NUMBER}{_SIGN}{_END}")
_PLAIN = re.compile(rf"(?:{_NAMED}|{_BARE}){_GAP}{_NUMBER}{_END}")


@dataclass(frozen=True, slots=True)
class Support:
    """The support for the option shown as A and for the one shown as B, in percent as written."""

    a: float
    b: float


def parse_support(text: str) -> Support | Unscored:
    """The support an answer ends with, or why there is none; never raises."""
    plain = unicodedata.normalize("NFKC", text)
    if not plain.strip():
        return EMPTY
    for conclusion in reversed(_CONCLUSION.split(plain)[1:]):
        found = _concluded(conclusion)
        if found is not None:
            return found
    values = _values(_SIGNED, plain)
    if len(values) == 2:
        return _checked(values)
    return ONE_PERCENTAGE if values else NO_PERCENTAGES


def own_option_support(text: str, aspect: str, option_order: OptionOrder) -> float | Unscored:
    """The support, in percent, of the option that belongs to the aspect, wherever it was shown.

    The value's option belongs to `support`, the other to `conflict`; aspects of open questions are unscored.
    """
    if aspect not in _OWN_OPTION:
        return NO_OPTIONS
    support = parse_support(text)
    if isinstance(support, Unscored):
        return support
    published = option_order is OptionOrder.PUBLISHED
    return support.a if (_OWN_OPTION[aspect] == "A") is published else support.b


def _concluded(conclusion: str) -> Support | Unscored | None:
    """What one conclusion says; None if it rates no option."""
    signed = _values(_SIGNED, conclusion)
    plain = _values(_PLAIN, conclusion)
    if len(signed) == 2 or len(plain) == 2:
        return _checked(signed if len(signed) == 2 else plain)
    if not signed:
        return None
    # a second percentage may well be the other option's, in a form that was not understood
    if len(_PERCENTAGE.findall(conclusion)) > 1:
        return ONE_PERCENTAGE
    ((letter, value),) = signed.items()
    return _checked({letter: value, "A" if letter == "B" else "B": 100.0 - value})


def _values(pattern: re.Pattern[str], text: str) -> dict[str, float]:
    """The last number of each option."""
    found = ((match["named"] or match["bare"], match["number"]) for match in pattern.finditer(text))
    return {letter.upper(): float(number) for letter, number in found}


def _checked(values: dict[str, float]) -> Support | Unscored:
    if not all(0 <= value <= 100 for value in values.values()):
        return OUT_OF_RANGE
    if abs(sum(values.values()) - 100) > TOLERANCE:
        return WRONG_SUM
    return Support(values["A"], values["B"])
