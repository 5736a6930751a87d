"""What the answers of an adopted workload are compared with: its footage, the whole model's answers, or labels."""
