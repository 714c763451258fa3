"""The harness beside the tests runs in processes of its own; here it is not to be imported in search of examples."""

collect_ignore = [
    "crash_points.py",
    "power_loss.py",
    "random_kills.py",
    "run_crashes.py",
    "scenarios.py",
    "seeded_bugs.py",
]
