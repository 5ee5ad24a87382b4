"""Every text that PrefDisco sends: to the model under test, to the simulated user, and to the judge.

`WORDING` names what the model and the simulated user are sent, `GRADING` what the judge is: other words are another
run, or another judge.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from personabench.api.wording import Vocabulary
from personabench.hashing import digest
from personabench.models.reply import split
from personabench.tasks.prefdisco.files import Criterion, Preference
from personabench.tasks.prefdisco.sources import Problem
from personabench.types import Message

STOP = "[STOP]"
NOTHING_MORE = "I have nothing to add."
OPENING = "Please help me with this problem."
KNOWN = (
    "You help the user described below. Besides being right, your main goal is an answer made for this user: heed "
    "every preference, the more important ones first."
)
WARM = "You help one particular user. Use what is known of this user to answer in the way that suits them."
DISCOVERY = (
    "You help one particular user, of whose background, goals and preferences you know nothing yet. Before you answer, "
    "find out with one or two short questions what an answer has to be like for this user. In every turn, reply with "
    "two labelled fields and nothing else:\n"
    "Action: ask_question or final_answer\n"
    "Response: your question to the user, or your complete answer"
)
FIXED = (
    "You help one particular user. Before you answer, you ask {count} short questions, one in each turn, to find out "
    "what an answer has to be like for this user. Write the question alone. You will be told when to answer."
)
TURN = "(Question {turn} of {count}.)"
FINAL = (
    "Now give me the complete final answer to my problem, in the way that suits me best after all you have learnt "
    "about me. Write the answer alone."
)
ABOUT = "What is known about the user:"
EARLIER = "What the user asked for on earlier problems:"

ROLE = (
    "You play the person described below, who has asked an assistant for help with a problem. You see the "
    "conversation that follows on the assistant's first question. {manner}\n"
    "Stay in character and speak in the first person. Never solve the problem, and never quote the description.\n"
    'Reply with a JSON object: {{"thought": what the assistant wants to know and what of it you may tell, '
    '"response": what you say}}.'
)
PASSIVE = (
    "Answer only what you are asked, in one or two short sentences. Volunteer nothing: name a preference only when "
    "the assistant asks about it, one at a time. Say so when you have no view on what is asked."
)
MANNERS = {
    "passive_nostop": PASSIVE,
    "passive": f"{PASSIVE} Once the assistant knows all that matters to you, respond with {STOP} and nothing else.",
    "collaborative": (
        "Be forthcoming: answer what you are asked and add what else the assistant should know about how you want the "
        "answer, the most important things first, in two to four sentences."
    ),
}
SIMULATOR_SCHEMA = {
    "type": "object",
    "properties": {"thought": {"type": "string"}, "response": {"type": "string"}},
    "required": ["thought", "response"],
    "additionalProperties": False,
}

CRITERION = (
    "You grade one quality of an answer that was written for one user. You see the answer, what this user wants in "
    "this respect and why, and a criterion with descriptions of some of its scores from 1 to 5; scores between them "
    "are allowed. Grade this quality alone, by what stands in the answer, and not whether the answer is right.\n"
    'Reply with a JSON object: {"justification": the evidence in the answer, in one to three sentences, '
    '"score": a whole number from 1 to 5}.'
)
CRITERION_SCHEMA = {
    "type": "object",
    "properties": {
        "justification": {"type": "string"},
        "score": {"type": "integer", "minimum": 1, "maximum": 5},
    },
    "required": ["justification", "score"],
    "additionalProperties": False,
}
CORRECT = (
    "You check whether an answer to a problem is right. Compare the result it comes to with the reference answer. "
    "Style, length and manner do not matter. An answer that comes to no result is not right.\n"
    'Reply with a JSON object: {"justification": one sentence, "correct": 1 if it is right, else 0}.'
)
CORRECT_SCHEMA = {
    "type": "object",
    "properties": {
        "justification": {"type": "string"},
        "correct": {"type": "integer", "enum": [0, 1]},
    },
    "required": ["justification", "correct"],
    "additionalProperties": False,
}

WORDS = Vocabulary(
    person="user",
    stimulus="problem",
    response="wanted answer",
    profile_question=(
        "How does this user want problems answered: which level, length, form and tone, what should come first, what "
        "should be left out? Say it in at most 150 words and repeat nothing of the problems themselves."
    ),
    axes=(
        ("Form", "level, length, order, format and examples that an explanation should have"),
        ("Affect", "tone, and how strongly the user wants something that others care less about"),
        ("Substance", "what the user wants treated or left out, unlike others on the same problem"),
    ),
    instruction="Answer the problem in the way that suits this user.",
)

WORDING = digest(
    [OPENING, KNOWN, WARM, DISCOVERY, FIXED, TURN, FINAL, ABOUT, EARLIER, ROLE, MANNERS]
)[:12]
GRADING = digest([CRITERION, CORRECT])[:12]


def request(problem: Problem) -> str:
    """The first user message, the same in every condition."""
    return f"{OPENING}\n\n{problem.text}"


def profile(persona: Mapping[str, Any], preferences: Mapping[str, Preference]) -> str:
    """The persona in words, then all of the problem's preferences."""
    wants = [
        f"- {name}: {each.value} (importance {each.importance} of 5). {each.justification}".rstrip()
        for name, each in preferences.items()
    ]
    return "\n".join([persona_text(persona), "", "Preferences for this problem:", *wants])


def persona_text(persona: Mapping[str, Any]) -> str:
    """The persona in words; lines whose field is missing are left out."""
    life = _part(persona, "demographics")
    school = _part(persona, "educational_profile")
    traits = _part(persona, "personality_big5")
    thinking, feeling = _part(school, "cognitive_features"), _part(school, "affective_features")
    lines = [
        ("Name", persona.get("name")),
        ("Summary", persona.get("minimal_necessary_description")),
        ("Age", life.get("age")),
        ("Occupation", life.get("occupation")),
        ("Location", life.get("location")),
        ("Hobbies", life.get("hobbies")),
        ("Expertise", persona.get("domain_expertise")),
        ("Knowledge", school.get("knowledge_level")),
        ("Way of learning", thinking.get("learning_style")),
        ("Way of solving problems", thinking.get("problem_solving")),
        ("Confidence", feeling.get("confidence")),
        ("Anxious about", feeling.get("anxiety_triggers")),
        ("Motivation", feeling.get("motivation")),
        *((name.capitalize(), _part(traits, name).get("description")) for name in _TRAITS),
        ("Backstory", persona.get("backstory")),
    ]
    return "\n".join(
        f"{name}: {', '.join(map(str, value)) if isinstance(value, list) else value}"
        for name, value in lines
        if value
    )


def simulator_messages(kind: str, described: str, chat: Sequence[Message]) -> tuple[Message, ...]:
    """What the simulated user is given: the person, and the chat with the assistant's questions as its own input."""
    swapped = {"assistant": "user", "user": "assistant"}
    system = f"{ROLE.format(manner=MANNERS[kind])}\n\n{described}"
    return Message("system", system), *(Message(swapped[each.role], each.content) for each in chat)  # type: ignore[arg-type]


def criterion_messages(
    criterion: Criterion, preference: Preference, response: str
) -> tuple[Message, ...]:
    """One criterion on one answer; the answer comes first because all criteria share it, the problem not at all."""
    levels = "\n".join(f"{score}: {text}" for score, text in sorted(criterion.levels.items()))
    user = (
        f"Answer:\n{response}\n\nWhat the user wants: {preference.value}\nWhy: {preference.justification}\n\n"
        f"Criterion: {criterion.name}\n{criterion.description}\nScores:\n{levels}"
    )
    return Message("system", CRITERION), Message("user", user)


def correct_messages(problem: Problem, response: str) -> tuple[Message, ...]:
    """Whether an answer is right, for the judge."""
    user = f"Problem:\n{problem.text}\n\nReference answer: {problem.answer}\n\nAnswer to check:\n{response}"
    return Message("system", CORRECT), Message("user", user)


def json_of(text: str) -> dict[str, Any] | None:
    """The JSON object of a reply, thoughts and what stands around it aside; None without one."""
    text = split(text).answer
    start = text.find("{")
    while start >= 0:
        try:
            found, _ = json.JSONDecoder(strict=False).raw_decode(text[start:])
        except (ValueError, RecursionError):
            found = None
        if isinstance(found, dict):
            return found
        start = text.find("{", start + 1)
    return None


_TRAITS = ("openness", "conscientiousness", "extraversion")


def _part(owner: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    value = owner.get(name)
    return value if isinstance(value, Mapping) else {}
