"""Planning: where tables lie, what travels of each, what a step costs; ``embedding/plan.py`` is the way in."""
