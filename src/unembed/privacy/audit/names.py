"""Names of people, places and organisations by how they are written, for where no model recognises them.

A run of capitalised words is a name, and a single one inside a sentence; at the start of a sentence, where every word
has a capital, only a given name that is on Faker's lists. Of a script without capitals, a Chinese family name before a
form of address or a given name on the list. So "Paris" counts like "Miller"; a family name that begins a sentence is
missed, and so are rare Chinese names without a form of address.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from functools import cache

from unembed.errors import require
from unembed.scripts import UNSPACED

_LETTERS = rf"(?:(?![{UNSPACED}])[^\W\d_])++"
_WORD = re.compile(rf"(?<![\w’'-]){_LETTERS}(?:['’-]{_LETTERS})*+(?!\d|_)")
_SENTENCE_END = ".!?…:\n"
_TITLES = frozenset("dr mr mrs ms prof sir madam miss доктор профессор господин госпожа гражданин гражданка".split())
_DATES = frozenset(
    "january february march april may june july august september october november december monday tuesday wednesday "
    "thursday friday saturday sunday".split()
)
_STARTS = frozenset(
    "a an the this that these those my our your his her its their i we you he she it they in on at by for from to of "
    "with about after before during since until while when where who what why how if as and but or so no not yes "
    "please dear hello hi thanks thank there here each every some all both many most one two new "
    "patient customer employee client user doctor nurse teacher invoice order flight account "
    "пациент пациентка врач клиент сотрудник заказ счёт договор "
    "в во на по из за от до для при о об с со к у и а но или если когда где кто что как это этот эта эти мой наш ваш "
    "его её их я мы вы он она они не да нет".split()
)
"""Words that stand before a name with a capital, most of them at the start of a sentence, and are no part of it."""
_FAMILY = (
    "王李张刘陈杨黄赵吴周徐孙马朱胡郭何林罗高梁郑谢宋唐许韩邓冯曹彭曾肖田董潘袁蔡蒋余于杜叶程魏苏吕丁任卢姚沈钟姜崔谭陆范汪廖石金"
    "韦贾夏付方邹熊白孟秦邱侯江尹薛闫段雷龙黎史陶贺毛郝顾龚邵万覃武钱戴严莫孔"
)
_ADDRESSED = (
    rf"(?:(?<![\u4e00-\u9fff])|(?<=[和与及跟请给让向对由找是系]))[{_FAMILY}][\u4e00-\u9fff]{{1,2}}"
    r"(?=先生|女士|小姐|医生|老师|教授|经理|律师|同学)"
)
_LOCALES = "en_US en_GB en_IN de_DE fr_FR es_ES it_IT pt_BR nl_NL pl_PL ru_RU uk_UA".split()
_COMMON = frozenset(
    "angel april art august autumn bill chance christian chase christmas crystal dawn destiny drew earnest faith frank "
    "gene glen grace grant guy harmony heather heaven hope hunter ivory ivy jack joy june justice king lane mark mason "
    "may mercedes micah miles misty noble norm olive page patience pearl penny pierce prince rich rob robin rose royal "
    "ruby rusty sage savannah serenity sky skye sterling summer sunny sunshine treasure trinity tucker ward wayne "
    "will winter "
    "август лев роман марс ярослав вера надежда любовь слава роза лилия майя победа свет мир воля зима весна".split()
)
"""Given names that a sentence as often begins with as words."""


@cache
def given_names() -> frozenset[str]:
    """Common given names in lower case, of languages that write them with capitals. Raises MissingExtra without
    Faker."""
    return frozenset({name.lower() for locale in _LOCALES for name in _listed(locale)} - _COMMON)


@cache
def _chinese() -> re.Pattern[str]:
    """A given name alone needs two characters: one stands in too many words."""
    given = "|".join(sorted({name for name in _listed("zh_CN") if len(name) == 2}))
    return re.compile(rf"{_ADDRESSED}|[{_FAMILY}](?:{given})")


def _listed(locale: str) -> Iterable[str]:
    return require(f"faker.providers.person.{locale}", "audit").Provider.first_names


def names(text: str) -> list[str]:
    """The distinct names in `text`, in order."""
    found = [*_runs(text), *(match.group() for match in _chinese().finditer(text))]
    return list(dict.fromkeys(found))


def _runs(text: str) -> Iterator[str]:
    run: list[re.Match[str]] = []
    for match in _WORD.finditer(text):
        word = match.group()
        if not _capitalised(word) or word.lower() in _DATES:
            yield from _name(text, run)
            run = []
        elif run and _joined(text[run[-1].end() : match.start()], run[-1].group()):
            run.append(match)
        else:
            yield from _name(text, run)
            run = [match]
    yield from _name(text, run)


def _capitalised(word: str) -> bool:
    """With a capital first and not only capitals; an initial is one."""
    return word[0].isupper() and (len(word) == 1 or not word.isupper())


def _joined(gap: str, before: str) -> bool:
    """Whether two words with `gap` between them may be one name: "Anna Miller", "J. Miller", "Dr. Miller"."""
    return gap == " " or (gap == ". " and (len(before) == 1 or before.lower() in _TITLES))


def _name(text: str, run: list[re.Match[str]]) -> Iterator[str]:
    titled = False
    while run and run[0].group().lower() in _TITLES | _STARTS:
        titled = run[0].group().lower() in _TITLES
        run = run[1:]
    if not run:
        return
    before = text[: run[0].start()].rstrip(" \"'«“„(")
    inside = titled or (before and before[-1] not in _SENTENCE_END)
    first = run[0].group()
    if len(run) > 1 or (inside and len(first) > 2) or first.lower() in given_names():
        yield text[run[0].start() : run[-1].end()]
