"""How a bank learns: admission, eviction, the learner and its orders. SQL is the truth, Redis what workers follow."""
