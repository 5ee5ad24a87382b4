"""Try methods and tasks without a model.

from personabench.testing import trial
result = trial(MyMethod(), limit=4)
assert all(prediction.error is None for prediction in result.predictions)
"""

from personabench.testing.checks import check_method, check_task
from personabench.testing.finding import Finding
from personabench.testing.trials import Trial, trial

__all__ = ["Finding", "Trial", "check_method", "check_task", "trial"]
