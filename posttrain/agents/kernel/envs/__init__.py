"""Environments that step many episodes at once on tensors. Read `vector` first: it says what an agent may count on."""
