"""Training: data, recipes, tasks, the runner and its reports."""
