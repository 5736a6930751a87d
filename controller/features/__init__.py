"""The policy's observation: features of the state and of each candidate (schema, formula, fast path)."""
