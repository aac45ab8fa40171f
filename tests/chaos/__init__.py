"""Disasters, many times over: what a store and its cluster promise is held against processes that really die.

`make chaos` prints a table of what was tried, how often, and how often it held; `make test` runs a tenth of it. The
seed stands above the table; CHAOS_SEED=… repeats its choices, CHAOS_SCALE=… sets the counts (10: all).

    table     what a row says             journal   what the processes told while they lived
    job       units, workers and dooms    calm      the same job undisturbed
    driver    a run as a process          drives    drivers as the tests kill them, and the laws that hold
    machines  a Ray cluster to break      hosts     two network namespaces to cut apart
    races     attempts against each other
"""
