"""The state machine's definition under test: its form, its language, and its single faults."""
