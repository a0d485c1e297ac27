"""Runs, the directories that trainings write: opened, evaluated, reported and compared."""
