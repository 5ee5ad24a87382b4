"""Vocabulary of each LaMP task, shared by the prompts of all methods.

The axes state, for each task, on which form, affect and substance two users' responses may differ.
"""

from __future__ import annotations

import msgspec

from personabench.api.wording import Vocabulary

# An axis without meaning for a task is left out. Instructions are short, since long ones confuse
# small models; the wording `full` has goal and form apart.
WORDS: dict[str, Vocabulary] = {
    "lamp1": Vocabulary(
        person="author",
        stimulus="research",
        response="paper",
        profile_question=(
            "Which topics, methods and research lines does this author work on, and what do "
            "they cite?"
        ),
        axes=(
            (
                "Form",
                "the terms and acronyms the author prefers for things others name differently",
            ),
            (
                "Substance",
                "topics, methods and data the author returns to, and how specific the problems are",
            ),
        ),
        instruction="Choose the reference that this author would cite. Reply with [1] or [2] only.",
        goal="Choose the reference that this author would cite.",
        answer_form="[1] or [2]",
    ),
    "lamp2m": Vocabulary(
        person="viewer",
        stimulus="plot",
        response="tag",
        profile_question=(
            "What does this viewer look at when tagging a movie, and which tags do they prefer?"
        ),
        axes=(
            ("Form", "how fine the chosen tags are: broad genres or narrow descriptions"),
            (
                "Affect",
                "how readily a plot is tagged by its genre and how readily by its theme or message",
            ),
            (
                "Substance",
                "what the tag is keyed on: theme, mood, source material or storytelling device",
            ),
        ),
        instruction="Tag the movie as this viewer would. Reply with one of the tags only.",
        goal="Tag the movie as this viewer would.",
        answer_form="one of the tags",
    ),
    "lamp2n": Vocabulary(
        person="editor",
        stimulus="article",
        response="category",
        profile_question=(
            "How does this editor file articles, above all those that fit several categories?"
        ),
        axes=(
            (
                "Substance",
                "cues in an article that decide its category, and where borderline articles "
                "are filed",
            ),
        ),
        instruction="File the article as this editor would. Reply with one of the categories only.",
        goal="File the article as this editor would.",
        answer_form="one of the categories",
    ),
    "lamp3": Vocabulary(
        person="reviewer",
        stimulus="review",
        response="score",
        profile_question=(
            "How does this reviewer use the scale from 1 to 5, and what costs or earns a point?"
        ),
        axes=(
            (
                "Form",
                "which part of the scale is used, and whether extremes or the middle are avoided",
            ),
            (
                "Affect",
                "how severe or generous the score is for a text that sounds equally pleased",
            ),
            ("Substance", "aspects that cost or earn points: quality, price, service, ending"),
        ),
        instruction="Score the review as this reviewer would. Reply with 1, 2, 3, 4 or 5 only.",
        goal="Score the review as this reviewer would.",
        answer_form="1, 2, 3, 4 or 5",
    ),
    "lamp4": Vocabulary(
        person="author",
        stimulus="article",
        response="headline",
        profile_question=(
            "How does this author write headlines: length, form, tone, and what they put first?"
        ),
        axes=(
            (
                "Form",
                "length, capitals, punctuation, and recurring shapes such as questions or colons",
            ),
            ("Affect", "sensational, neutral or ironic; how strongly the headline takes a side"),
            ("Substance", "the fact that is put first, and how concrete or general it is"),
        ),
        instruction="Reply with the headline only.",
        goal="Write the headline in this author's own style.",
        answer_form="the headline",
    ),
    "lamp5": Vocabulary(
        person="author",
        stimulus="abstract",
        response="title",
        profile_question=(
            "How does this author title papers: form, length, tone, and what they put first?"
        ),
        axes=(
            (
                "Form",
                "length, subtitle after a colon, acronyms, questions and other recurring shapes",
            ),
            ("Affect", "hedged or assertive, sober or playful"),
            ("Substance", "whether the task, the method or the result comes first"),
        ),
        instruction="Write the title as this author would. Reply with the title only.",
        goal="Write the title in this author's own style.",
        answer_form="the title",
    ),
    "lamp6": Vocabulary(
        person="sender",
        stimulus="email",
        response="subject",
        profile_question=(
            "How does this person word subject lines: length, form, tone, and what they mention?"
        ),
        axes=(
            ("Form", "length, capitals, punctuation, prefixes and tags"),
            ("Affect", "urgent, neutral, friendly or ironic"),
            ("Substance", "the fact that is put first: action, project, person or date"),
        ),
        instruction=(
            "Write the subject line as this sender would. Reply with the subject line only."
        ),
        goal="Write the subject line in this sender's own style.",
        answer_form="the subject line",
    ),
    "lamp7": Vocabulary(
        person="person",
        stimulus="topic",
        response="tweet",
        profile_question=(
            "How does this person tweet: spelling, punctuation, favourite words, tone and "
            "directness?"
        ),
        axes=(
            ("Form", "capitals, punctuation, slang, emoji, hashtags and handles"),
            ("Affect", "how intense the feeling is, and which feeling prevails"),
            ("Substance", "how much is said, how directly, and about what"),
        ),
        instruction="Write the tweet in this person's style. Reply with the tweet only.",
        goal="Write the tweet in this person's own style.",
        answer_form="the tweet",
    ),
}

# A history holds the author's own papers; what they cite can only be concluded from these.
CITING_AUTHOR = msgspec.structs.replace(
    WORDS["lamp1"],
    profile_question=(
        "Which topics, methods and research lines do this author's papers work on, and on which "
        "earlier work do they build?"
    ),
)
"""The words of LaMP-1 in the wording `full`."""
