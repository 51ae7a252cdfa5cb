"""Search: which steps and which scheme are best for a model on one target, by measurement.

``space`` defines what is tried, ``trial`` measures one form, ``study`` lets Optuna choose the next, ``pareto`` picks
the best, ``recipe_text`` and ``results`` write the results, ``compressor.cli.search`` is the command line.
Nothing here uses the network: Optuna keeps its trials in a file, or in the database that ``--storage`` names.
"""
