"""The two demo sources of single questions and answers: OpenOrca and Airoboros."""

from collections import Counter
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from tests.demo_texts.voice import LITERALS, Pair, Planted, Voice, dumps, spread, write_lines

OPENORCA_ROWS = 600
AIROBOROS_ROWS = 700


def orca_numbers(voice: Voice) -> Pair:
    """Return a word problem with one operation."""
    kind = voice.pick(["sum", "difference", "product"])
    high = 9 if kind == "product" else 60
    a, b = voice.number(3, high), voice.number(2, high)
    if kind == "difference" and a < b:
        a, b = b, a
    sign, value = {"sum": ("+", a + b), "difference": ("-", a - b), "product": ("*", a * b)}[kind]
    voice.bound.update(a=str(a), b=str(b), answer=str(value))
    voice.bind("name", "goods", "container")
    working = f"The numbers are {a} and {b}. We need their {kind}: {a} {sign} {b} = {value}."
    return voice.say(f"${kind}"), voice.say(f"$lead {working} $close")


def orca_odd(voice: Voice) -> Pair:
    """Return an odd-one-out question."""
    kinds = voice.grammar["kinds"]
    many, one = voice.pick_all(sorted(kinds), 2)
    stranger = voice.pick(kinds[one])
    words = voice.pick_all(kinds[many], 3)
    listed = ", ".join(voice.pick_all([*words, stranger], 4))
    voice.bound.update(list=listed, answer=stranger)
    named = f"{words[0]}, {words[1]} and {words[2]}"
    many, one = (f"an {kind}" if kind == "instrument" else f"a {kind}" for kind in (many, one))
    return voice.say("$odd"), voice.say(f"$lead Each of {named} is {many}, but {stranger} is {one}. $close")


def orca_order(voice: Voice) -> Pair:
    """Return a sorting question."""
    numbers = voice.pick_all(range(1, 100), voice.number(4, 6))
    voice.bound.update(list=", ".join(map(str, numbers)), answer=", ".join(map(str, sorted(numbers))))
    least, most = min(numbers), max(numbers)
    return voice.say("$order"), voice.say(f"$lead The smallest number is {least}, the largest is {most}. $close")


def orca_taller(voice: Voice) -> Pair:
    """Return a comparison of three people."""
    x, y, z = voice.pick_all(voice.grammar["name"], 3)
    voice.bound.update(x=x, y=y, z=z, answer=z)
    return voice.say("$taller"), voice.say("$lead The order is $x, then $y, then $z, so $z comes at the end. $close")


def orca_text(voice: Voice) -> Pair:
    """Return a question on a short text: yes or no, or its tone."""
    voice.bind("name", "town", "day", "month", "goods_plant", "item")
    item = voice.pick(voice.grammar[voice.pick(["passage", "review"])])
    voice.bound["answer"] = item["answer"]
    ask = item.get("ask", "Is the tone of this text positive or negative?")
    return voice.say(f"Text: {item['text']}\nQuestion: {ask}"), voice.say(f"$lead Here {item['why']}. $close")


def write_openorca(path: Path) -> Planted:
    """Write the OpenOrca look-alike: parquet with `id`, `system_prompt`, `question`, `response`."""
    tasks = [orca_numbers, orca_odd, orca_order, orca_taller, orca_text]
    rows = []
    for row in range(OPENORCA_ROWS):
        voice = Voice("openorca", row)
        question, response = voice.pick(tasks)(voice)
        system = voice.say("$system") if voice.number(0, 9) else ""
        name = f"{voice.pick(['niv', 't0', 'cot', 'flan'])}.{100_000 + row}"
        rows.append({"id": name, "system_prompt": system, "question": question, "response": response})
    voice = Voice("openorca", "planted")
    for row, literal in zip(range(6), LITERALS, strict=True):
        rows[row]["question"] += f" (The text ends with {literal}.)"
    for row in range(6, 13):
        rows[row]["response"] = voice.say("$refusal")
    rows[13]["response"] = voice.grammar["near_miss"][0]
    rows[14]["response"], rows[15]["response"], rows[16]["question"] = "", " \n", ""
    copies = [{**row, "id": f"flan.{200_000 + i}"} for i, row in enumerate(rows[17:23])]
    table = pa.Table.from_pylist(
        spread("openorca", rows + copies),
        schema=pa.schema([(name, pa.string()) for name in ("id", "system_prompt", "question", "response")]),
    )
    pq.write_table(table, path, compression="zstd", compression_level=9)
    return Counter(literal=6, refusal=7, near_refusal=1, blank_turn=3, exact_duplicate=6)


def airoboros_fact(voice: Voice) -> Pair:
    """Return a question on an animal or a capital."""
    if voice.number(0, 2) == 0:
        land = voice.pick(sorted(voice.grammar["capitals"]))
        city = voice.grammar["capitals"][land]
        return with_x(voice, land).say("$ask_capital"), voice.pick([f"{city}.", f"The capital of {land} is {city}."])
    animal, kind, home, food = voice.pick(voice.grammar["animals"])
    article = "an" if kind[0] in "aio" else "a"
    part = voice.pick(["class", "home", "food"])
    answer = {
        "class": f"The {animal} is {article} {kind}. {voice.grammar['class_fact'][kind]}",
        "home": f"The {animal} lives in this habitat: {home}.",
        "food": f"The {animal} eats {food}.",
    }[part]
    return with_x(voice, animal).say(f"$ask_{part}"), answer


def airoboros_word(voice: Voice) -> Pair:
    """Return the definition of a word."""
    word, meaning, example = voice.pick(voice.grammar["words"])
    return with_x(voice, word).say("$ask_word"), f'"{word.capitalize()}" means {meaning}. Example: {example}.'


def airoboros_past(voice: Voice) -> Pair:
    """Return a sentence to put into the past tense."""
    verb = voice.pick(sorted(voice.grammar["verbs"]))
    who, what, when = voice.say("$Who"), voice.say("$object"), voice.say("$when")
    ending = "es" if verb.endswith("ch") else "s"
    present = verb + ending
    past = f"{who} {voice.grammar['verbs'][verb]} {what} {when}."
    return with_x(voice, f"{who} {present} {what} {when}.").say("$ask_past"), past


def airoboros_verse(voice: Voice) -> Pair:
    """Return four lines of verse."""
    ask = with_x(voice, voice.pick(voice.grammar["verse_topic"])).say("$ask_verse")
    return ask, voice.say("$verse_a\n$verse_b\n$verse_c\n$verse_d")


def airoboros_list(voice: Voice) -> Pair:
    """Return a list, or a riddle."""
    if voice.number(0, 2) == 0:
        ask, answer = voice.pick(voice.grammar["riddles"])
        return f"Solve this riddle: {ask}", f"{answer} {voice.say('$reasons')}"
    name, items = voice.pick(voice.grammar["lists"])
    count = voice.number(3, 5)
    voice.bound["n"] = str(count)
    return with_x(voice, name).say("$ask_list"), "\n".join(f"- {item}" for item in voice.pick_all(items, count))


def with_x(voice: Voice, x: str) -> Voice:
    """Return the voice with `$x` bound."""
    voice.bound["x"] = x
    return voice


def write_airoboros(path: Path) -> Planted:
    """Write the Airoboros look-alike: JSON lines of `instruction`, `response`."""
    tasks = [airoboros_fact, airoboros_word, airoboros_past, airoboros_verse, airoboros_list]
    rows: dict[str, str] = {}
    for number in range(3 * AIROBOROS_ROWS):
        voice = Voice("airoboros", number)
        instruction, response = voice.pick(tasks)(voice)
        if len(rows) < AIROBOROS_ROWS:
            rows.setdefault(instruction, response)
    pairs = list(rows.items())
    voice = Voice("airoboros", "planted")
    for row, literal in zip(range(6), LITERALS, strict=True):
        pairs[row] = (f"{pairs[row][0]} Do not write {literal}.", pairs[row][1])
    for row in range(6, 13):
        pairs[row] = (pairs[row][0], voice.say("$refusal"))
    pairs[13] = (pairs[13][0], voice.grammar["near_miss"][0])
    pairs[14], pairs[15] = (pairs[14][0], ""), (" ", pairs[15][1])
    for row in range(16, 19):
        pairs[row] = (f"USER: {pairs[row][0]}", f"ASSISTANT: {pairs[row][1]}")
    pairs += pairs[20:26]
    lines = [dumps({"instruction": ask, "response": answer}) for ask, answer in pairs]
    lines += [lines[30][:-9], '{"instruction": "Name a colour."}', "42"]
    write_lines(path, spread("airoboros", lines))
    return Counter(literal=6, refusal=7, near_refusal=1, blank_turn=2, speaker_label=3, exact_duplicate=6, malformed=3)
