"""Coverage-guided fuzzing of everything that reads bytes of a peer: ``python -m tests.fuzz --seconds 600``.

Each module of ``targets`` feeds one part of the runtime. ``corpus`` keeps the inputs of each that reach different
code; ``test_corpus.py`` plays them without a fuzzer, ``test_fuzzing.py`` runs the fuzzer for a few seconds.
"""
