"""One readable file per paper on the textbook functions of `kernel`; an agent imports those, `config` and `run`, never another agent."""
