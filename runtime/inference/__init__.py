"""Running a model, as a whole or in two segments."""
