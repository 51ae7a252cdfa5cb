"""A task from outside, for the tests: which of several tags each picture has; none, some or all of them."""

from compressor.tasks import Task

TASK = Task(
    name="trial_tags:TASK",
    folder=__name__,
    measure="hits",
    score_name="share of right tags",
    headline=("tag_accuracy", "float_tag_accuracy"),
    recipes="of tags",
    outputs="tag scores",
    change="drop in right tags",
    foreign={"[train] class_weights": "a recipe of classes"},
    unfit={"search": "use `compressor run`", "retraining": "people label classes"},
    device="trial-tags",
)
