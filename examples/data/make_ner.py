#!/usr/bin/env python3
"""Writes ner.{english,chinese}.{train,dev,test}.conll: names that are persons or brands, by context.

usage: examples/data/make_ner.py [DIRECTORY]

The names are made of syllables (characters in Chinese). Any name may be a person here and a brand
there: only the words around it say which. No name of the test part, first names included, is seen
in training; the patterns of the sentences are. English has the tag scheme BIO, Chinese, by
characters, BMES.
"""

import pathlib
import random
import re
import sys

# Words in capitals are slots; <per NAME> is an entity.
ENGLISH = {
    "PERSON": "<per NAME>|<per NAME>|<per FIRST NAME>|<per FIRST NAME>|Mr. <per NAME>",
    "BRAND": "<brand NAME>|<brand NAME>|<brand NAME>|<brand NAME Motors>|<brand NAME & Sons>",
    "TIME": "yesterday|last year|this morning|on Monday|in May|again",
    "PLACE": "at the station|near the harbour|in the north|by the river|in town",
    "KIN": "brother|mother|neighbour|teacher|friend|uncle",
    "THING": "bicycle|car|kettle|sewing machine|lorry|radio|drill|camera",
    "OLD": "old|new|red|cheap|broken|small",
    "NUMBER": "two|five|ten|twelve|forty",
    "DID": "laughed|slept|waited|sang|cried|smiled",
    "templates": """
PERSON hired a boat TIME .|BRAND hired NUMBER hundred workers TIME .
PERSON fell down the stairs TIME .|BRAND fell by NUMBER percent TIME .
PERSON has closed her eyes .|BRAND has closed its factory PLACE .
TIME PERSON sold his OLD THING .|TIME BRAND sold more of every THING than ever .
we waited for PERSON PLACE .|we waited for shares of BRAND to rise .
I love PERSON and her KIN .|I love my OLD BRAND THING .
PERSON DID when the train left .|BRAND stopped when the oil ran out .
PERSON broke her arm TIME .|my BRAND broke down PLACE TIME .
people trust PERSON , who is a doctor .|people trust BRAND , which makes the best THING .
PERSON lives PLACE with a KIN .|BRAND builds every THING PLACE .
she called PERSON TIME .|she repaired the BRAND TIME .
everybody likes PERSON because he DID .|everybody likes BRAND because it is cheap .
the KIN of PERSON DID TIME .|the engine of a BRAND needs oil .
have you seen PERSON PLACE ?|have you driven a BRAND PLACE ?
PERSON was ill for NUMBER days .|BRAND was founded NUMBER years ago .
PERSON bought a BRAND TIME .|PERSON DID beside a OLD BRAND .
PERSON works for BRAND PLACE .|BRAND thanked PERSON for NUMBER years of work .
a BRAND is cheaper than a BRAND .|PERSON is older than PERSON .
PERSON and PERSON met PLACE .|BRAND and BRAND lowered the price of a THING .
the THING was OLD , and nobody DID .|TIME the KIN DID PLACE .
""",
}
CHINESE = {
    "PERSON": "<per NAME>|<per NAME>|<per NAME>|<per NAME>先生|<per NAME>女士",
    "BRAND": "<brand NAME>|<brand NAME>|<brand NAME>|<brand NAME公司>",
    "TIME": "昨天|去年|今天早上|星期一|五月|刚才",
    "PLACE": "在车站|在河边|在北方|在城里|在码头",
    "KIN": "哥哥|母亲|邻居|老师|朋友|叔叔",
    "THING": "自行车|汽车|水壶|缝纫机|卡车|收音机|相机",
    "OLD": "旧|新|红色|便宜|坏",
    "NUMBER": "两|五|十|十二|四十",
    "DID": "笑了|睡着了|唱歌|哭了|走了",
    "templates": """
TIMEPERSON雇了一条船。|TIMEBRAND雇了NUMBER百个工人。
PERSON从楼梯上摔了下来。|BRAND的股价下跌了百分之NUMBER。
PERSON闭上了眼睛。|BRAND关闭了PLACE的工厂。
TIMEPERSON卖掉了他的OLDTHING。|TIMEBRAND卖出了更多的THING。
我们PLACE等PERSON。|我们等BRAND的股票上涨。
我喜欢PERSON和她的KIN。|我喜欢我的OLDBRANDTHING。
火车开走时PERSONDID。|油用完时BRAND停了下来。
PERSONTIME摔断了胳膊。|我的BRANDTIME出了故障。
大家相信PERSON，她是医生。|大家相信BRAND，它的THING最好。
PERSON和KIN住PLACE。|BRANDPLACE生产THING。
她TIME给PERSON打电话。|她TIME修好了那辆BRAND。
PERSON病了NUMBER天。|BRAND成立了NUMBER年。
PERSON的KINDID。|BRAND的发动机需要机油。
你PLACE看见PERSON了吗？|你PLACE开过BRAND吗？
PERSONTIME买了一辆BRAND。|PERSON坐在OLDBRAND旁边DID。
PERSONPLACE为BRAND工作。|BRAND感谢PERSON工作了NUMBER年。
BRAND比BRAND便宜。|PERSON比PERSON年纪大。
PERSON和PERSONPLACE见面。|BRAND和BRAND降低了THING的价格。
这台THING很OLD，没有人DID。|TIMEKINPLACEDID。
""",
}
FRONT = "Mar Tar Kel Dun Hal Ber Lin Wen Cor Fal Gar Hol Jen Lam Nor Pel Ros Sel Tul Ver Win Bram Cald Stan"
BACK = "low ven rick more ton by man ley ford well son ner dale field kin mer sted wick"
FIRST_FRONT = "An El Ma Jo Ti No Vi Os Ru Lu Cla Si Be Da Fe Gre Hu I Ka Ol Pe Ro Sa Wi"
FIRST_BACK = "na mo ra lin bert vin da la nya ric tha dor mund sa"
CHARACTERS = "林安华康乐天海星明宏达美佳丰泰和永利德福长新东方金龙白云秋江"


def english_names(rng, fronts=FRONT, backs=BACK):
    names = [front + back for front in fronts.split() for back in backs.split()]
    rng.shuffle(names)
    return names


def chinese_names(rng):
    names = [a + b for a in CHARACTERS for b in CHARACTERS if a != b]
    rng.shuffle(names)
    return names[:400]


def expand(rng, words, text):
    """Fills the slots of a text in, until none is left."""
    slots = "|".join(slot for slot in words if slot.isupper())
    while found := re.search(slots, text):
        text = text[: found.start()] + rng.choice(words[found[0]]) + text[found.end() :]
    return text


def bio(size):
    return ["B"] + ["I"] * (size - 1)


def bmes(size):
    return ["S"] if size == 1 else ["B"] + ["M"] * (size - 2) + ["E"]


def sentence(rng, words, split, prefixes):
    """Lines of a sentence: token, tab, tag."""
    text = expand(rng, words, rng.choice(words["templates"]))
    lines = []
    place = 0
    for entity in re.finditer("<([a-z]+) (.*?)>", text):
        lines += [f"{token}\tO" for token in split(text[place : entity.start()])]
        tokens = split(entity[2])
        lines += [f"{t}\t{tag}-{entity[1].upper()}" for t, tag in zip(tokens, prefixes(len(tokens)))]
        place = entity.end()
    return lines + [f"{token}\tO" for token in split(text[place:])]


def main():
    directory = pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else pathlib.Path(__file__).parent)
    for name, slots, make_names, split, prefixes in (
        ("english", ENGLISH, english_names, str.split, bio),
        ("chinese", CHINESE, chinese_names, list, bmes),
    ):
        rng = random.Random(name)
        names = make_names(rng)
        # So many that most of them are rare.
        first = english_names(random.Random("first"), FIRST_FRONT, FIRST_BACK)
        parts = {
            "train": (1000, names[:250], first[:200]),
            "dev": (200, names[250:300], first[200:250]),
            "test": (400, names[300:], first[250:]),
        }
        for part, (count, known, known_first) in parts.items():
            words = {slot: text.strip().replace("\n", "|").split("|") for slot, text in slots.items()}
            words |= {"NAME": known, "FIRST": known_first}
            sentences = ["\n".join(sentence(rng, words, split, prefixes)) for _ in range(count)]
            text = "\n\n".join(sentences) + "\n"
            (directory / f"ner.{name}.{part}.conll").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
