"""Small talk that a profile sentence is hidden in: exchanges written for this project."""

from __future__ import annotations

EXCHANGES = (
    (
        "How do I get candle wax out of a tablecloth?",
        "Chill it, scrape it off, then iron the rest through paper.",
    ),
    ("Which planet has the longest day?", "Venus: one turn takes 243 days of Earth."),
    ("Suggest a name for a grey kitten.", "Pebble would suit a grey one."),
    ("What is the plural of octopus?", "Octopuses; octopodes is the Greek form."),
    ("Is it warmer in Lisbon or in Porto in May?", "In Lisbon, by two or three degrees."),
    ("How long do I soak chickpeas?", "Overnight, about ten hours, in plenty of water."),
    (
        "Explain what a leap second was for.",
        "It kept clocks in step with the turning of the Earth.",
    ),
    ("Translate 'good evening' into Danish.", "'God aften.'"),
    ("How many strings has a cello?", "Four: C, G, D and A."),
    ("What rhymes with 'window'?", "Few words do; 'in though' comes close in a song."),
)
"""Pairs of the user's message and the assistant's reply."""
