"""Search: which steps and which scheme make the best of a model on one target, measured, never guessed.

``space`` says what is tried, ``trial`` measures one form, ``study`` lets Optuna choose the next, ``pareto`` picks from
what was found, ``recipe_text``, ``results`` and ``page`` write it down, ``compressor.cli.search`` is the command line.
Nothing here asks the network for anything: Optuna keeps its trials in a file, or in the database that ``--storage``
names.
"""
