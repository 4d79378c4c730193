"""What is asked of every target: one module for each kind of load, all listed in catalogue.py.

A case gets a Stage (stage.py): a target that serves, warmed up, with a fresh upstream behind it. It returns its
figures by name; metrics.py says what they mean and what the goal is.
"""
