"""The people of a generated set: unlike one another, complete, and coherent.

Seven in ten are made under constraints, an unused uncommon occupation and the age bracket that is rarest so far; the
others freely.  The last eight are shown so that the next one differs from them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from personabench.errors import DataError
from personabench.hashing import digest
from personabench.tasks.prefdisco.asking import GRADE, TEXT, TRIES, Authors, Unfit, single

CONSTRAINED = 0.7
BRACKETS = ((18, 25), (26, 35), (36, 45), (46, 55), (56, 65), (66, 75))
SHOWN = 8
RECENT = 5
OCCUPATIONS = (
    "beekeeper", "bookbinder", "tram driver", "glass blower", "crane operator", "midwife", "piano tuner", "locksmith",
    "cheese maker", "court interpreter", "chimney sweep", "zoo keeper", "ski lift mechanic", "organ builder",
    "park ranger", "sign painter", "harbour pilot", "dental technician", "shepherd", "puppeteer", "wind turbine fitter",
    "cartographer", "funeral director", "stage prompter", "tea taster", "bicycle courier", "railway signaller",
    "stonemason", "perfumer", "oyster farmer", "librarian in a prison", "school cook", "gem cutter", "avalanche warden",
    "net maker", "ferry captain", "hospital clown", "seed collector", "watchmaker", "tattooist",
    "land surveyor", "roof thatcher", "sound engineer", "blacksmith", "night porter", "upholsterer",
    "wedding singer", "toy designer", "meat inspector", "lift attendant", "salt worker", "sommelier", "taxidermist",
    "street sweeper", "croupier", "bee geneticist", "archivist", "mountain guide", "carnival float builder",
    "guide dog trainer", "weaver", "coffee roaster", "court stenographer", "diver", "tailor", "mushroom grower",
    "astronomer's assistant", "bell founder",
)  # fmt: skip

_SYSTEM = (
    "You invent people for a study of how explanations should be made for different users. Each is a believable person "
    "with strengths, weaknesses and a history, and all fields fit together."
)
_COHERENT = (
    "You check whether the description of an invented person is coherent: age, occupation, education and story must be "
    "possible together. Minor oddities are fine."
)
_PARTS: Mapping[str, Any] = {
    "name": TEXT,
    "minimal_necessary_description": TEXT,
    "demographics": single(
        {
            "age": {"type": "integer", "minimum": 18, "maximum": 75},
            **dict.fromkeys(("occupation", "location", "family_context"), TEXT),
            "hobbies": {"type": "array", "items": TEXT},
        }
    ),
    "educational_profile": single(
        {
            "knowledge_level": TEXT,
            "common_errors": TEXT,
            "cognitive_features": single(
                dict.fromkeys(
                    (
                        "learning_style",
                        "attention_span",
                        "memory_strengths",
                        "problem_solving",
                        "collaboration",
                    ),
                    TEXT,
                )
            ),
            "affective_features": single(
                dict.fromkeys(
                    ("confidence", "anxiety_triggers", "motivation", "challenge_attitude"), TEXT
                )
            ),
            "metacognitive_features": single(
                dict.fromkeys(
                    ("self_awareness", "self_regulation", "reflection", "self_assessment"), TEXT
                )
            ),
        }
    ),
    "personality_big5": single(
        dict.fromkeys(
            ("openness", "conscientiousness", "extraversion", "agreeableness", "neuroticism"),
            single({"score": GRADE, "description": TEXT}),
        )
    ),
    "backstory": TEXT,
    "domain_expertise": {"type": "array", "items": TEXT},
}
Persona = dict[str, Any]


async def library(authors: Authors, count: int, known: Sequence[Persona] = ()) -> list[Persona]:
    """`count` people, the known ones first.

    Raises:
        DataError: somebody could not be made in three attempts.
        BackendError: a call failed for good.
    """
    people = list(known[:count])
    while len(people) < count:
        people.append(await _made(authors, people))
    return people


def persona_id(persona: Mapping[str, Any]) -> str:
    """Surname and eight hexadecimal digits of a digest of the whole description."""
    surname = "".join(
        letter for letter in str(persona["name"]).split()[-1].lower() if letter.isalnum()
    )
    return f"{surname or 'person'}_{digest({**persona, 'id': ''})[:8]}"


async def _made(authors: Authors, people: Sequence[Persona]) -> Persona:
    number = len(people)
    rng = authors.rng("persona", number)
    bracket, wishes = None, ["Choose age, occupation and place freely, unlike the people shown."]
    if rng.random() < CONSTRAINED:
        taken = {person["demographics"]["occupation"].casefold() for person in people}
        free = [each for each in OCCUPATIONS if each not in taken] or list(OCCUPATIONS)
        ages = [person["demographics"]["age"] for person in people]
        bracket = min(BRACKETS, key=lambda each: sum(each[0] <= age <= each[1] for age in ages))
        wishes = [f"Occupation: {rng.choice(free)}.", f"Age: {bracket[0]} to {bracket[1]}."]
        if recent := people[-RECENT:]:
            listed = "; ".join(
                f"{each['name']}, {each['demographics']['location']}" for each in recent
            )
            wishes.append(f"None of these names and places: {listed}.")
    shown = "\n".join(
        f"- {each['name']}, {each['demographics']['age']}, {each['demographics']['occupation']}, "
        f"{each['demographics']['location']}: {each['minimal_necessary_description']}"
        for each in people[-SHOWN:]
    )
    user = "\n".join(
        [
            f"People so far:\n{shown}\n" if shown else "",
            *wishes,
            "Describe one more person in all fields.",
        ]
    )

    def read(found: dict[str, Any]) -> Persona:
        return _checked(found, bracket, people[-RECENT:] if bracket else ())

    problem = ""
    for attempt in range(TRIES):
        name = f"persona {number}, attempt {attempt}"
        person = await authors.ask(name, _SYSTEM, user.strip() + problem, single(_PARTS), read)
        verdict = await authors.ask(
            f"{name}, coherence",
            _COHERENT,
            "\n".join(
                f"{key}: {person[key]}"
                for key in ("name", "demographics", "educational_profile", "backstory")
            ),
            single({"issues": {"type": "array", "items": TEXT}, "coherent": {"type": "boolean"}}),
            lambda found: (bool(found["coherent"]), found.get("issues") or []),
        )
        if verdict[0]:
            return {**person, "id": persona_id(person)}
        problem = f"\n\nAn earlier attempt was not coherent: {'; '.join(map(str, verdict[1]))}"
    raise DataError(
        f"persona {number}: not coherent in {TRIES} attempts ({problem.rpartition(': ')[2]}); "
        "try a stronger model or another --seed"
    )


def _checked(
    found: dict[str, Any], bracket: tuple[int, int] | None, recent: Sequence[Persona]
) -> Persona:
    """A description that keeps the rules, in the order of the fields.

    Raises:
        Unfit: it breaks one.
    """
    person = {name: _complete(found.get(name), schema, name) for name, schema in _PARTS.items()}
    age = person["demographics"]["age"]
    low, high = bracket or (18, 75)
    if not low <= age <= high:
        raise Unfit(f"the age must lie between {low} and {high}, not be {age}")
    if len(person["name"].split()) < 2:
        raise Unfit("the name needs a first name and a surname")
    for other in recent:
        if (
            person["name"] == other["name"]
            or person["demographics"]["location"] == other["demographics"]["location"]
        ):
            raise Unfit("name and place must differ from those of the people listed")
    return person


def _complete(value: Any, schema: Mapping[str, Any], name: str) -> Any:
    """A value that has what its schema asks for, whatever else it came with."""
    if schema["type"] == "object":
        if not isinstance(value, dict):
            raise Unfit(f"{name} must be an object")
        return {
            key: _complete(value.get(key), part, f"{name}.{key}")
            for key, part in schema["properties"].items()
        }
    if schema["type"] == "array":
        if not isinstance(value, list) or not value:
            raise Unfit(f"{name} must be a list that is not empty")
        return [str(each) for each in value]
    if schema["type"] == "integer":
        number = int(value)
        if not schema["minimum"] <= number <= schema["maximum"]:
            raise Unfit(f"{name} must lie between {schema['minimum']} and {schema['maximum']}")
        return number
    if not isinstance(value, str) or not value.strip():
        raise Unfit(f"{name} is missing")
    return value.strip()
