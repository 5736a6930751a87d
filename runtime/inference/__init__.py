"""Running a model, whole or in two segments."""
