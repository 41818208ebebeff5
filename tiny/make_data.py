"""Creates the tiny task's two files: the training rows, and the prompts for afterwards.

    python tiny/make_data.py [--out tiny/data]

A made-up team's directory: 16 people, 4 facts each, every fact asked in 28 phrasings. Of each fact, one
phrasing is held out, and another question gets an opening that training never shows. So each held-out
prompt is new, has one right answer, and can be answered by a model that has learned the fact from the
other 27. The standard library's `random.Random` with a fixed seed gives the same bytes on every machine.
"""

import argparse
import json
import random
from collections.abc import Iterable, Mapping
from pathlib import Path

SEED = 2026

PEOPLE = (
    *("Ada", "Ben", "Cleo", "Dan", "Eve", "Finn", "Gus", "Hope"),
    *("Ivy", "Jack", "Kim", "Leo", "Mia", "Ned", "Olga", "Pam"),
)

# Eight values each, so a lucky guess is right one time in eight.
VALUES: Mapping[str, tuple[str, ...]] = {
    "city": ("Accra", "Berlin", "Cairo", "Delhi", "Lima", "Oslo", "Paris", "Tokyo"),
    "pet": ("bear", "cat", "dog", "emu", "fox", "goat", "hen", "yak"),
    "drink": ("beer", "cola", "gin", "juice", "milk", "soda", "tea", "water"),
    "hobby": ("art", "chess", "dance", "film", "golf", "judo", "poetry", "yoga"),
}

QUESTIONS: Mapping[str, tuple[str, ...]] = {
    "city": (
        "where does {} live?",
        "which city is {} in?",
        "{} has a home in which city?",
        "name the city of {}.",
    ),
    "pet": (
        "what pet does {} have?",
        "which animal is with {}?",
        "{} has which animal as a pet?",
        "name the pet of {}.",
    ),
    "drink": (
        "what does {} drink?",
        "which drink is for {}?",
        "{} has which drink at noon?",
        "name the drink of {}.",
    ),
    "hobby": (
        "what is the hobby of {}?",
        "which hobby does {} have?",
        "{} has what as a hobby?",
        "name the hobby of {}.",
    ),
}

OPENINGS = (
    *("", "please tell me: ", "quick question: ", "for the form: "),
    *("do you know: ", "one more: ", "just checking: "),
)

NEW_OPENING = "one more question: "
"""Training never shows it, with any question."""

Fact = tuple[str, str]  # (person, kind of fact)


def directory(seed: int) -> dict[Fact, str]:
    """Who has which value. Every value belongs to exactly two people, so none is a better guess."""
    rng = random.Random(seed)
    facts: dict[Fact, str] = {}
    for kind, values in VALUES.items():
        dealt = list(values) * (len(PEOPLE) // len(values))
        rng.shuffle(dealt)
        facts.update({(person, kind): value for person, value in zip(PEOPLE, dealt, strict=True)})
    return facts


def phrasings(fact: Fact) -> list[str]:
    """All phrasings of the question for one fact."""
    person, kind = fact
    return [opening + question.format(person) for opening in OPENINGS for question in QUESTIONS[kind]]


def conversation(prompt: str, answer: str) -> dict[str, object]:
    """One training row in the form that Axolotl's `type: chat_template` reads."""
    return {
        "messages": [
            {"role": "user", "content": prompt},
            {"role": "assistant", "content": answer},
        ]
    }


def split(facts: Mapping[Fact, str], seed: int) -> tuple[list[dict[str, object]], list[dict[str, object]]]:
    """The shuffled training rows, and the held-out prompts: for every fact one phrasing, and one with a new opening."""
    rng = random.Random(seed)
    train: list[dict[str, object]] = []
    held_out: list[dict[str, object]] = []
    for fact, answer in facts.items():
        prompts = phrasings(fact)
        rng.shuffle(prompts)
        held_out.append({"prompt": prompts[0], "answer": answer})
        train.extend(conversation(prompt, answer) for prompt in prompts[1:])
    rng.shuffle(train)
    for index, (fact, answer) in enumerate(facts.items()):
        person, kind = fact
        questions = QUESTIONS[kind]
        held_out.append({"prompt": NEW_OPENING + questions[index % len(questions)].format(person), "answer": answer})
    return train, held_out


def write_jsonl(path: Path, rows: Iterable[Mapping[str, object]]) -> None:
    """One compact JSON object per line, with Unix line ends on every machine."""
    text = "".join(json.dumps(row) + "\n" for row in rows)
    path.write_bytes(text.encode())


def main() -> None:
    parser = argparse.ArgumentParser(description="Create the tiny task's train.jsonl and prompts.jsonl.")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "data")
    out: Path = parser.parse_args().out
    out.mkdir(parents=True, exist_ok=True)
    train, held_out = split(directory(SEED), SEED)
    write_jsonl(out / "train.jsonl", train)
    write_jsonl(out / "prompts.jsonl", held_out)
    print(f"{len(train)} training rows and {len(held_out)} held-out prompts in {out}")


if __name__ == "__main__":
    main()
