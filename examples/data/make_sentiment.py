#!/usr/bin/env python3
"""Writes sentiment.{english,chinese}.{train,dev,test}.txt: sentences in which order and negation decide.

usage: examples/data/make_sentiment.py [DIRECTORY]

A sentence is a frame ("X but Y") whose clauses say something good or bad, plainly or by a negation
("the film was not dull"). Its label is what Y says; X says the contrary, so that the words alone
balance out. The test part has the patterns (a frame, and which clauses are negated) of UNSEEN and no
other; training and dev part have all the rest. Every word of the test part is seen in training.
"""

import itertools
import pathlib
import random
import sys

# Y says what the label says, X the contrary. "nobody" and "untrue" turn the X behind them round.
FRAMES = {
    "plain": ["Y"],
    "opinion": ["SAYS Y"],
    "but": ["X", "BUT", "Y"],
    "although": ["ALTHOUGH X", "COMMA", "Y"],
    "although last": ["Y", "ALTHOUGH_LAST X"],
    "expected": ["EXPECTED X", "YET", "Y"],
    "nobody": ["NOBODY X"],
    "untrue": ["UNTRUE X"],
    "although nobody": ["ALTHOUGH X", "COMMA", "NOBODY X"],
    "but nobody": ["X", "BUT", "NOBODY X"],
}

# Which clauses are negated, in their order.
UNSEEN = {
    ("but", (True, True)),
    ("although", (True, True)),
    ("although last", (True, True)),
    ("expected", (True, True)),
    ("nobody", (True,)),
    ("although nobody", (False, False)),
    ("but nobody", (True, False)),
}
# Neither in training nor in the test part: they would need three turns.
LEFT_OUT = {
    ("although nobody", (False, True)),
    ("although nobody", (True, True)),
    ("although nobody", (True, False)),
    ("but nobody", (False, True)),
    ("but nobody", (True, True)),
}

ENGLISH = {
    "subjects": "film story music acting ending food service room book show plot cast dinner soup "
    "band hotel view trip garden speech".split(),
    "good": "good great lovely brilliant wonderful charming clever superb delightful pleasant "
    "splendid fine".split(),
    "bad": "bad awful dull boring terrible weak clumsy dreadful poor silly tedious hopeless".split(),
    "only plain": set(),
    "plain": ["the {s} was {a}", "the {s} was very {a}", "the {s} was really {a}", "the {s} seemed {a}"],
    "negated": ["the {s} was not {a}", "the {s} was never {a}", "the {s} was not very {a}",
                "the {s} did not seem {a}"],
    "SAYS": ["everybody thought that", "i found that", "it was clear that"],
    "BUT": ["but", "but in the end", "and yet"],
    "ALTHOUGH": ["although", "even if"],
    "ALTHOUGH_LAST": ["although", "even if"],
    "COMMA": [","],
    "EXPECTED": ["i had been told that", "they promised that"],
    "YET": [", but", ", yet in truth"],
    "NOBODY": ["nobody thought that", "i do not believe that"],
    "UNTRUE": ["it is not true that", "nobody could say that"],
    "space": " ",
    "end": " .",
    "labels": {True: "positive", False: "negative"},
}

CHINESE = {
    "subjects": "电影 故事 音乐 演员 结局 饭菜 服务 房间 小说 节目 酒店 风景 歌曲 展览 早餐 表演".split(),
    "good": "好 棒 精彩 出色 优秀 迷人 有趣 完美 令人满意 不错 有意思".split(),
    "bad": "差 糟 无聊 乏味 糟糕 平淡 低劣 难看 令人失望 没意思".split(),
    "only plain": {"不错", "有意思", "没意思"},
    "plain": ["这{s}很{a}", "那{s}真{a}", "{s}非常{a}", "这次的{s}确实{a}"],
    "negated": ["这{s}不{a}", "那{s}并不{a}", "{s}一点也不{a}", "这次的{s}从来不{a}"],
    "SAYS": ["大家都觉得", "我发现", "可以说"],
    "BUT": ["，但是", "，可是", "，不过"],
    "ALTHOUGH": ["虽然", "尽管"],
    "ALTHOUGH_LAST": ["，虽然", "，尽管"],
    "COMMA": ["，"],
    "EXPECTED": ["我原来以为", "听人说"],
    "YET": ["，结果", "，其实"],
    "NOBODY": ["没有人觉得", "我不相信"],
    "UNTRUE": ["谁也不能说", "不能说"],
    "space": "",
    "end": "。",
    "labels": {True: "正面", False: "负面"},
}


def clauses(frame):
    return sum(part.split()[-1] in ("X", "Y") for part in FRAMES[frame])


def patterns():
    for frame in FRAMES:
        for negated in itertools.product((False, True), repeat=clauses(frame)):
            yield frame, negated


def clause(rng, words, good, negated):
    adjectives = words["good" if good != negated else "bad"]
    if negated:
        adjectives = [a for a in adjectives if a not in words["only plain"]]
    form = rng.choice(words["negated" if negated else "plain"])
    return form.format(s=rng.choice(words["subjects"]), a=rng.choice(adjectives))


def sentence(rng, words, pattern):
    frame, negated = pattern
    positive = rng.random() < 0.5
    which = iter(negated)
    parts = []
    for part in FRAMES[frame]:
        for item in part.split():
            if item in ("X", "Y"):
                good = positive if item == "Y" else not positive
                parts.append(clause(rng, words, good, next(which)))
            else:
                parts.append(rng.choice(words[item]))
    return words["labels"][positive], words["space"].join(parts).replace(" ,", " ,")


def write(path, rng, words, chosen, count, others):
    """So many lines, none of which is among `others`; adds them there."""
    lines = []
    while len(lines) < count:
        label, text = sentence(rng, words, chosen[len(lines) % len(chosen)])
        line = f"{label} {text}{words['end'] if rng.random() < 0.5 else ''}\n"
        if line not in others:
            others.add(line)
            lines.append(line)
    rng.shuffle(lines)
    path.write_text("".join(lines), encoding="utf-8")


def main():
    directory = pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else pathlib.Path(__file__).parent)
    seen = [p for p in patterns() if p not in UNSEEN | LEFT_OUT]
    unseen = [p for p in patterns() if p in UNSEEN]
    for name, words in (("english", ENGLISH), ("chinese", CHINESE)):
        rng = random.Random(name)
        lines = set()
        for part, chosen, count in (("train", seen, 2000), ("dev", seen, 300), ("test", unseen, 500)):
            write(directory / f"sentiment.{name}.{part}.txt", rng, words, chosen, count, lines)


if __name__ == "__main__":
    main()
