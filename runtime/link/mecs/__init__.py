"""Several MECs of one device: which one is asked, when another takes over, and when the first is asked again."""
