"""The same scenarios against a real etcd and against our store, through real clients, compared field by field.

A scenario is data (`scenarios/`, a file a topic): a list of steps. `run` carries them out at each side, `normal` gives
what must differ (ids, terms, sizes, addresses) the same names, and `test_scenarios` shows what still differs.
"""
