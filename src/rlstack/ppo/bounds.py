"""Up to which sizes which way of computing is the fastest on a CPU, measured on two cores.

A size is rows times parameters, unless it says otherwise. Nothing else decides: one seed gives one result,
however many threads there are. `docs/performance.md` has the table.
"""

AUTOGRAD_ALONE = 2**21
"""Of what autograd computes on one thread; beyond, torch shares its operations among its threads."""

MACHINE_CODE_ALONE = 2**25
"""Of an optimizer step in machine code, where there is numba, on one thread; beyond, threads share it."""

MACHINE_CODE_PARTS, MACHINE_CODE_ROWS = 32, 1024
"""In how many parts threads share the rows of a minibatch at most; and how many rows a part has at least."""

NARROW, NARROW_PARAMETERS = 2**23, 2**16
"""Of what is computed in machine code at all where a processor multiplies less than 256 bits at a time; and
its parameters."""

STEP_ALONE = 2**23
"""Of an optimizer step in operations of torch on one thread; beyond, each of the two networks has one."""

STEP = 2**26
"""Of an optimizer step in operations of torch that is one of many made at once; beyond, threads share blocks
of its rows."""

ACTING_ALONE, ACTING_PARTS = 2**26, 4
"""Of what acts on one thread; and how many parts of the rows threads share beyond."""
