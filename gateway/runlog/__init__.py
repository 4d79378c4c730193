"""The history of a run: what was delivered, numbered, for readers at different places."""
