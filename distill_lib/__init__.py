"""Patient and consistent knowledge distillation: views, losses, models, training and records of the study book."""

__version__ = "0.1.0"
