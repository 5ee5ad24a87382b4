"""LaMP 1 to 7: eight tasks on the outputs of real users (Salemi et al., arXiv 2304.11406).

Each class states only the differences; `base` implements the tasks. The registry reads attributes
with literal values without importing this file.
"""

from __future__ import annotations

from personabench.tasks.lamp import scoring
from personabench.tasks.lamp.base import Lamp
from personabench.tasks.lamp.forms import FORMS, find_candidates
from personabench.tasks.lamp.wording import CITING_AUTHOR, WORDS
from personabench.types import Sample

__all__ = ["Lamp1", "Lamp2M", "Lamp2N", "Lamp3", "Lamp4", "Lamp5", "Lamp6", "Lamp7"]


class Lamp1(Lamp):
    """Which of two references would this author cite?"""

    name = "lamp1"
    labels = FORMS["lamp1"].labels
    title = "LaMP-1: personalized citation identification"
    kind = "category"
    # A history holds the author's papers, not earlier citations.
    offers = ("history", "population", "dates", "options")
    source = "https://lamp-benchmark.github.io (arXiv 2304.11406)"
    licence = "CC BY-NC-SA 4.0; texts under their sources' terms"
    max_tokens = 16
    metrics = scoring.CITATION_METRICS
    words = WORDS["lamp1"]
    full_words = CITING_AUTHOR

    def options(self, sample: Sample) -> tuple[str, ...]:
        """Return the titles of the two references, which the question lists after their numbers."""
        return find_candidates(sample.input) or ()


class Lamp2M(Lamp):
    """Which of 15 tags would this viewer give a movie?"""

    name = "lamp2m"
    labels = FORMS["lamp2m"].labels
    title = "LaMP-2: personalized movie tagging"
    kind = "category"
    source = "https://lamp-benchmark.github.io (arXiv 2304.11406)"
    licence = "CC BY-NC-SA 4.0; texts under their sources' terms"
    max_tokens = 16
    metrics = scoring.TAG_METRICS
    words = WORDS["lamp2m"]


class Lamp2N(Lamp):
    """Which of 15 categories would this editor file an article under?"""

    name = "lamp2n"
    version = 4
    labels = FORMS["lamp2n"].labels
    title = "LaMP-2: personalized news categorisation (deprecated)"
    kind = "category"
    source = "https://lamp-benchmark.github.io (arXiv 2304.11406)"
    licence = "CC BY-NC-SA 4.0; texts under their sources' terms"
    max_tokens = 16
    metrics = scoring.CATEGORY_METRICS
    words = WORDS["lamp2n"]


class Lamp3(Lamp):
    """Which score from 1 to 5 did this reviewer give with a review?"""

    name = "lamp3"
    labels = FORMS["lamp3"].labels
    title = "LaMP-3: personalized product rating"
    kind = "ordinal"
    source = "https://lamp-benchmark.github.io (arXiv 2304.11406)"
    licence = "CC BY-NC-SA 4.0; texts under their sources' terms"
    max_tokens = 8
    metrics = scoring.RATING_METRICS
    words = WORDS["lamp3"]


class Lamp4(Lamp):
    """Which headline did this author write for an article?"""

    name = "lamp4"
    title = "LaMP-4: personalized news headline generation"
    example = True
    kind = "text"
    source = "https://lamp-benchmark.github.io (arXiv 2304.11406)"
    licence = "CC BY-NC-SA 4.0; texts under their sources' terms"
    max_tokens = 32
    metrics = scoring.TEXT_METRICS
    words = WORDS["lamp4"]


class Lamp5(Lamp):
    """Which title did this author give a paper?"""

    name = "lamp5"
    title = "LaMP-5: personalized scholarly title generation"
    kind = "text"
    source = "https://lamp-benchmark.github.io (arXiv 2304.11406)"
    licence = "CC BY-NC-SA 4.0; texts under their sources' terms"
    max_tokens = 48
    metrics = scoring.TEXT_METRICS
    words = WORDS["lamp5"]


class Lamp6(Lamp):
    """Which subject line did this sender write for an email?"""

    name = "lamp6"
    title = "LaMP-6: personalized email subject generation"
    kind = "text"
    source = "https://lamp-benchmark.github.io (arXiv 2304.11406)"
    licence = "CC BY-NC-SA 4.0; texts need a licence for the Avocado Research Email Collection"
    max_tokens = 32
    metrics = scoring.TEXT_METRICS
    words = WORDS["lamp6"]


class Lamp7(Lamp):
    """How did this person put a tweet?"""

    name = "lamp7"
    title = "LaMP-7: personalized tweet paraphrasing"
    kind = "text"
    source = "https://lamp-benchmark.github.io (arXiv 2304.11406)"
    licence = "CC BY-NC-SA 4.0; texts under their sources' terms"
    max_tokens = 96
    metrics = scoring.TEXT_METRICS
    words = WORDS["lamp7"]
