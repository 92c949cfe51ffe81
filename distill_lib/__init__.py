"""Patient and consistent knowledge distillation: views, losses, models, training and records of the study book.

    from distill_lib import datasets, losses, models, recipes, records, teachers, train, views

views      a view is a value: `views.sample` draws it, `views.render` shows it, `views.POLICIES` names who sees what
losses     `losses.kl` and its relatives
models     `models.create` builds a network by name
recipes    `recipes.get` looks a preset up, `recipes.Recipe` holds all that decides a result
datasets   `datasets.check`, `datasets.get`, `datasets.load`, `datasets.arrays`
teachers   `teachers.load`
train      `train.fit` trains one student, `train.sweep` many that share their views
records    `records.read` gives all runs as one table
"""

__version__ = "0.1.0"
