"""What the policy sees of a state and of each candidate decision."""
