"""All texts that PrefDisco sends to the model under test, the simulated user and the judge.

`WORDING` is a hash of the texts for the model and the simulated user, `GRADING` of those for the
judge.  Both are recorded: changed texts make another run, or another judge.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from personabench.api.wording import Vocabulary
from personabench.hashing import digest
from personabench.metrics.judges.fence import RULE, Fence
from personabench.models.json_reply import JsonScanner
from personabench.models.reply import split_reply
from personabench.tasks.prefdisco.files import Criterion, Preference
from personabench.tasks.prefdisco.sources import Problem
from personabench.types import Message

STOP = "[STOP]"
NOTHING_MORE = "I have nothing to add."
OPENING = "Please help me with this problem."
KNOWN = (
    "You help the user described below. Besides being right, your main goal is an answer made for "
    "this user: heed "
    "every preference, the more important ones first."
)
WARM = (
    "You help one particular user. "
    "Use what is known of this user to answer in the way that suits them."
)
DISCOVERY = (
    "You help one particular user, of whose background, goals and preferences you know nothing "
    "yet. Before you answer, "
    "find out with one or two short questions what an answer has to be like for this user. In "
    "every turn, reply with "
    "two labelled fields and nothing else:\n"
    "Action: ask_question or final_answer\n"
    "Response: your question to the user, or your complete answer"
)
FIXED = (
    "You help one particular user. Before you answer, you ask {count} short questions, one in "
    "each turn, to find out "
    "what an answer has to be like for this user. Write the question alone. You will be told when "
    "to answer."
)
TURN = "(Question {turn} of {count}.)"
FINAL = (
    "Now give me the complete final answer to my problem, in the way that suits me best after all "
    "you have learnt "
    "about me. Write the answer alone."
)
ABOUT = "What is known about the user:"
EARLIER = "What the user asked for on earlier problems:"

ROLE = (
    "You play the person described below, who has asked an assistant for help with a problem. You "
    "see the "
    "conversation that follows on the assistant's first question. {manner}\n"
    "Stay in character and speak in the first person. Never solve the problem, and never quote "
    "the description.\n"
    'Reply with a JSON object: {{"thought": what the assistant wants to know and what of it you '
    "may tell, "
    '"response": what you say}}.'
)
PASSIVE = (
    "Answer only what you are asked, in one or two short sentences. Volunteer nothing: name a "
    "preference only when "
    "the assistant asks about it, one at a time. Say so when you have no view on what is asked."
)
MANNERS = {
    "passive_nostop": PASSIVE,
    "passive": (
        f"{PASSIVE} Once the assistant knows all that matters to you, "
        f"respond with {STOP} and nothing else."
    ),
    "collaborative": (
        "Be forthcoming: answer what you are asked and add what else the assistant should know "
        "about how you want the "
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
    "You grade one quality of an answer that was written for one user. You see the answer, what "
    "this user wants in "
    "this respect and why, and a criterion with descriptions of some of its scores from 1 to 5; "
    "scores between them "
    "are allowed. Grade this quality alone, by what stands in the answer, and not whether the "
    f"answer is right. {RULE}\n"
    'Reply with a JSON object: {"justification": the evidence in the answer, in one to three '
    "sentences, "
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
    "You check whether an answer to a problem is right. Compare the result it comes to with the "
    "reference answer. "
    "Style, length and manner do not matter. An answer that comes to no result is not right. "
    f"{RULE}\n"
    'Reply with a JSON object: {"justification": one sentence, '
    '"correct": 1 if it is right, else 0}.'
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
        "How does this user want problems answered: which level, length, form and tone, what "
        "should come first, what "
        "should be left out? Say it in at most 150 words and repeat nothing of the problems "
        "themselves."
    ),
    axes=(
        ("Form", "level, length, order, format and examples that an explanation should have"),
        ("Affect", "tone, and how strongly the user wants something that others care less about"),
        ("Substance", "what the user wants treated or left out, unlike others on the same problem"),
    ),
    instruction="Answer the problem in the way that suits this user.",
    goal="Answer the problem in the way that suits this user.",
    answer_form="the answer to the problem",
)

# Texts of generation are not hashed here: a generated set is identified by the hash of its file.
WORDING = digest(
    [OPENING, KNOWN, WARM, DISCOVERY, FIXED, TURN, FINAL, ABOUT, EARLIER, ROLE, MANNERS]
)[:12]
GRADING = digest([CRITERION, CORRECT])[:12]

# Part of every prompt that describes a persona: another list would make another benchmark.
_TRAITS = ("openness", "conscientiousness", "extraversion")


def word_request(problem: Problem) -> str:
    """Word the first user message, the same in every condition."""
    return f"{OPENING}\n\n{problem.text}"


def describe_user(persona: Mapping[str, Any], preferences: Mapping[str, Preference]) -> str:
    """Describe the persona in words, then list all preferences for the problem."""
    paragraphs = [describe_persona(persona), "", "Preferences for this problem:"]
    for name, preference in preferences.items():
        wish = f"- {name}: {preference.value} (importance {preference.importance} of 5)."
        paragraphs.append(f"{wish} {preference.justification}".rstrip())
    return "\n".join(paragraphs)


def describe_persona(persona: Mapping[str, Any]) -> str:
    """Describe the persona in words, without lines whose field is missing."""
    life = _get_mapping(persona, "demographics")
    school = _get_mapping(persona, "educational_profile")
    traits = _get_mapping(persona, "personality_big5")
    thinking = _get_mapping(school, "cognitive_features")
    feeling = _get_mapping(school, "affective_features")
    fields = [
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
    ]
    for trait in _TRAITS:
        fields.append((trait.capitalize(), _get_mapping(traits, trait).get("description")))
    fields.append(("Backstory", persona.get("backstory")))
    return "\n".join(f"{label}: {_join_items(value)}" for label, value in fields if value)


def build_simulator_messages(
    kind: str,
    described: str,
    chat: Sequence[Message],
) -> tuple[Message, ...]:
    """Build the simulated user's messages: the persona, then the chat with swapped roles.

    To the simulating model, the assistant's questions are the input.
    """
    system = f"{ROLE.format(manner=MANNERS[kind])}\n\n{described}"
    messages = [Message("system", system)]
    for message in chat:
        role: Literal["user", "assistant"] = "user" if message.role == "assistant" else "assistant"
        messages.append(Message(role, message.content))
    return tuple(messages)


def build_criterion_messages(
    criterion: Criterion,
    preference: Preference,
    response: str,
) -> tuple[Message, ...]:
    """Build the judge's messages for one criterion on one answer."""
    descriptions = sorted(criterion.levels.items())
    levels = "\n".join(f"{score}: {text}" for score, text in descriptions)
    # The answer comes first, so that all criteria share a prefix that a server can cache.  The
    # problem is left out: this judge grades a quality and not whether the answer is right.
    # The code depends on the answer alone, for the same reason.
    fence = Fence(response)
    wish = f"{preference.value}\n{preference.justification}".rstrip()
    user = (
        f"Answer:\n{fence.wrap(response)}\n\n"
        f"What the user wants, and why:\n{fence.wrap(wish)}\n\n"
        f"Criterion: {criterion.name}\n{criterion.description}\n"
        f"Scores:\n{levels}"
    )
    return Message("system", CRITERION), Message("user", user)


def build_correctness_messages(problem: Problem, response: str) -> tuple[Message, ...]:
    """Build the judge's messages about whether an answer is right."""
    fence = Fence(problem.text, problem.answer, response)
    user = (
        f"Problem:\n{fence.wrap(problem.text)}\n\n"
        f"Reference answer:\n{fence.wrap(problem.answer)}\n\n"
        f"Answer to check:\n{fence.wrap(response)}"
    )
    return Message("system", CORRECT), Message("user", user)


def parse_json_object(text: str) -> dict[str, Any] | None:
    """Parse the first JSON object of a reply, ignoring reasoning and text around it."""
    for value in JsonScanner(split_reply(text).answer).read_all():
        if isinstance(value, dict):
            return value
    return None


def _get_mapping(owner: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """A field that should be a mapping, empty if it is missing or something else."""
    value = owner.get(name)
    return value if isinstance(value, Mapping) else {}


def _join_items(value: Any) -> str:
    """A value as text, the items of a list with commas."""
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)
