"""Run a method on a task: plan, predict, judge and score."""
