"""Personas of a generated set: unlike one another, complete, and coherent.

Seven in ten are made under constraints, an unused uncommon occupation and the age bracket that is
rarest so far; the others freely.  The last eight are shown so that the next one differs from them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from random import Random
from typing import Any

from personabench.errors import DataError
from personabench.hashing import digest
from personabench.tasks.prefdisco.authoring import (
    GRADE,
    TEXT,
    TRIES,
    Authors,
    UnfitReplyError,
    make_object_schema,
)

# Models that choose freely return to a few favourite ages, jobs and names.
CONSTRAINED = 0.7
AgeRange = tuple[int, int]
BRACKETS: tuple[AgeRange, ...] = ((18, 25), (26, 35), (36, 45), (46, 55), (56, 65), (66, 75))
ADULTS: AgeRange = (18, 75)
EXAMPLES = 8
RECENT = 5
# Uncommon, so that personas differ; one line per occupation would hide the code below.
OCCUPATIONS = (
    "beekeeper", "bookbinder", "tram driver", "glass blower", "crane operator", "midwife",
    "piano tuner", "locksmith", "cheese maker", "court interpreter", "chimney sweep", "zoo keeper",
    "ski lift mechanic", "organ builder", "park ranger", "sign painter", "harbour pilot",
    "dental technician", "shepherd", "puppeteer", "wind turbine fitter", "cartographer",
    "funeral director", "stage prompter", "tea taster", "bicycle courier", "railway signaller",
    "stonemason", "perfumer", "oyster farmer", "librarian in a prison", "school cook", "gem cutter",
    "avalanche warden", "net maker", "ferry captain", "hospital clown", "seed collector",
    "watchmaker", "tattooist", "land surveyor", "roof thatcher", "sound engineer", "blacksmith",
    "night porter", "upholsterer", "wedding singer", "toy designer", "meat inspector",
    "lift attendant", "salt worker", "sommelier", "taxidermist", "street sweeper", "croupier",
    "bee geneticist", "archivist", "mountain guide", "carnival float builder", "guide dog trainer",
    "weaver", "coffee roaster", "court stenographer", "diver", "tailor", "mushroom grower",
    "astronomer's assistant", "bell founder",
)  # fmt: skip

_SYSTEM = (
    "You invent people for a study of how explanations should be made for different users. Each "
    "is a believable person "
    "with strengths, weaknesses and a history, and all fields fit together."
)
_COHERENT = (
    "You check whether the description of an invented person is coherent: age, occupation, "
    "education and story must be "
    "possible together. Minor oddities are fine."
)

_Schema = dict[str, Any]


def _make_text_fields(*fields: str) -> _Schema:
    return dict.fromkeys(fields, TEXT)


_DEMOGRAPHICS = {
    "age": {"type": "integer", "minimum": ADULTS[0], "maximum": ADULTS[1]},
    **_make_text_fields("occupation", "location", "family_context"),
    "hobbies": {"type": "array", "items": TEXT},
}
_COGNITION = _make_text_fields(
    "learning_style",
    "attention_span",
    "memory_strengths",
    "problem_solving",
    "collaboration",
)
_AFFECT = _make_text_fields(
    "confidence",
    "anxiety_triggers",
    "motivation",
    "challenge_attitude",
)
_METACOGNITION = _make_text_fields(
    "self_awareness",
    "self_regulation",
    "reflection",
    "self_assessment",
)
_EDUCATION = {
    "knowledge_level": TEXT,
    "common_errors": TEXT,
    "cognitive_features": make_object_schema(_COGNITION),
    "affective_features": make_object_schema(_AFFECT),
    "metacognitive_features": make_object_schema(_METACOGNITION),
}
_TRAITS = dict.fromkeys(
    ("openness", "conscientiousness", "extraversion", "agreeableness", "neuroticism"),
    make_object_schema({"score": GRADE, "description": TEXT}),
)
_FIELDS: Mapping[str, _Schema] = {
    "name": TEXT,
    "minimal_necessary_description": TEXT,
    "demographics": make_object_schema(_DEMOGRAPHICS),
    "educational_profile": make_object_schema(_EDUCATION),
    "personality_big5": make_object_schema(_TRAITS),
    "backstory": TEXT,
    "domain_expertise": {"type": "array", "items": TEXT},
}
_VERDICT = make_object_schema(
    {
        "issues": {"type": "array", "items": TEXT},
        "coherent": {"type": "boolean"},
    }
)

Persona = dict[str, Any]


async def make_personas(
    authors: Authors,
    count: int,
    existing: Sequence[Persona] = (),
) -> list[Persona]:
    """Make `count` personas, the existing ones first.

    Raises:
        DataError: a persona was not coherent in three attempts.
        BackendError: a call failed for good.
    """
    personas = list(existing[:count])
    while len(personas) < count:
        # One after another, because each is made unlike those before it.
        personas.append(await _make_persona(authors, personas))
    return personas


def name_persona(persona: Mapping[str, Any]) -> str:
    """Id of a persona: surname and eight hexadecimal digits of a digest of the description."""
    surname = str(persona["name"]).split()[-1].lower()
    letters = "".join(letter for letter in surname if letter.isalnum())
    return f"{letters or 'person'}_{digest({**persona, 'id': ''})[:8]}"


async def _make_persona(authors: Authors, personas: Sequence[Persona]) -> Persona:
    """Make one more persona.

    Raises:
        DataError: it was not coherent in three attempts.
    """
    number = len(personas)
    rng = authors.make_rng("persona", number)
    bracket: AgeRange | None = None
    recent: Sequence[Persona] = ()
    if rng.random() < CONSTRAINED:
        occupation = _draw_occupation(rng, personas)
        bracket = _find_rarest_bracket(personas)
        recent = personas[-RECENT:]
        wishes = _word_constraints(occupation, bracket, recent)
    else:
        wishes = ["Choose age, occupation and place freely, unlike the people shown."]
    user = _word_request(personas[-EXAMPLES:], wishes)

    hint = ""
    for attempt in range(TRIES):
        name = f"persona {number}, attempt {attempt}"
        persona = await authors.request(
            name,
            _SYSTEM,
            user + hint,
            make_object_schema(_FIELDS),
            lambda reply: _parse_persona(reply, bracket, recent),
        )
        coherent, issues = await _check_coherence(authors, name, persona)
        if coherent:
            return {**persona, "id": name_persona(persona)}
        hint = f"\n\nAn earlier attempt was not coherent: {'; '.join(map(str, issues))}"

    reason = hint.rpartition(": ")[2]
    raise DataError(
        f"persona {number}: not coherent in {TRIES} attempts ({reason}); "
        "try a stronger model or another --seed"
    )


def _draw_occupation(rng: Random, personas: Sequence[Persona]) -> str:
    """Draw an unused occupation, or any once all are used."""
    used = {persona["demographics"]["occupation"].casefold() for persona in personas}
    unused = [occupation for occupation in OCCUPATIONS if occupation not in used]
    return rng.choice(unused or OCCUPATIONS)


def _find_rarest_bracket(personas: Sequence[Persona]) -> AgeRange:
    """The age bracket with the fewest personas, the youngest of several."""
    ages = [persona["demographics"]["age"] for persona in personas]

    def count_members(bracket: AgeRange) -> int:
        low, high = bracket
        return sum(low <= age <= high for age in ages)

    return min(BRACKETS, key=count_members)


def _word_constraints(occupation: str, bracket: AgeRange, recent: Sequence[Persona]) -> list[str]:
    """Word the constraints of a new persona."""
    wishes = [f"Occupation: {occupation}.", f"Age: {bracket[0]} to {bracket[1]}."]
    if recent:
        listed = "; ".join(
            f"{persona['name']}, {persona['demographics']['location']}" for persona in recent
        )
        wishes.append(f"None of these names and places: {listed}.")
    return wishes


def _word_request(examples: Sequence[Persona], wishes: Sequence[str]) -> str:
    """Word the request for a new persona, with earlier ones for contrast."""
    parts = []
    if examples:
        descriptions = "\n".join(map(_summarize_persona, examples))
        parts.append(f"People so far:\n{descriptions}\n")
    return "\n".join([*parts, *wishes, "Describe one more person in all fields."])


def _summarize_persona(persona: Persona) -> str:
    """A persona on one line."""
    life = persona["demographics"]
    return (
        f"- {persona['name']}, {life['age']}, {life['occupation']}, "
        f"{life['location']}: {persona['minimal_necessary_description']}"
    )


async def _check_coherence(
    authors: Authors,
    name: str,
    persona: Persona,
) -> tuple[bool, Sequence[Any]]:
    """Let an author check that a persona's fields fit together; returns verdict and issues."""
    fields = ("name", "demographics", "educational_profile", "backstory")
    return await authors.request(
        f"{name}, coherence",
        _COHERENT,
        "\n".join(f"{field}: {persona[field]}" for field in fields),
        _VERDICT,
        lambda reply: (bool(reply["coherent"]), reply.get("issues") or []),
    )


def _parse_persona(
    reply: dict[str, Any],
    bracket: AgeRange | None,
    recent: Sequence[Persona],
) -> Persona:
    """Parse a description that keeps the rules, in the order of the fields.

    Raises:
        UnfitReplyError: it breaks one.
    """
    persona = {
        name: _parse_field(reply.get(name), schema, name) for name, schema in _FIELDS.items()
    }
    age = persona["demographics"]["age"]
    low, high = bracket or ADULTS
    if not low <= age <= high:
        raise UnfitReplyError(f"the age must lie between {low} and {high}, not be {age}")
    if len(persona["name"].split()) < 2:
        raise UnfitReplyError("the name needs a first name and a surname")

    location = persona["demographics"]["location"]
    for earlier in recent:
        same_name = persona["name"] == earlier["name"]
        same_place = location == earlier["demographics"]["location"]
        if same_name or same_place:
            raise UnfitReplyError("name and place must differ from those of the people listed")
    return persona


def _parse_field(value: Any, schema: Mapping[str, Any], name: str) -> Any:
    """Parse a value as its schema requires, dropping surplus fields.

    Servers without structured output ignore the schema, so replies are checked here as well.
    """
    kind = schema["type"]
    if kind == "object":
        if not isinstance(value, dict):
            raise UnfitReplyError(f"{name} must be an object")
        return {
            key: _parse_field(value.get(key), part, f"{name}.{key}")
            for key, part in schema["properties"].items()
        }
    if kind == "array":
        if not isinstance(value, list) or not value:
            raise UnfitReplyError(f"{name} must be a list that is not empty")
        return [str(item) for item in value]
    if kind == "integer":
        number = int(value)
        low = schema["minimum"]
        high = schema["maximum"]
        if not low <= number <= high:
            raise UnfitReplyError(f"{name} must lie between {low} and {high}")
        return number
    if not isinstance(value, str) or not value.strip():
        raise UnfitReplyError(f"{name} is missing")
    return value.strip()
