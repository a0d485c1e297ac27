"""`train_fixed.py`, where one process takes no part in one variable's averages."""

from ssd_centernet import recipe
from tests.distributed.workers import train_fixed


class Drifting(recipe.Trainer):
    def share_statistics(self):
        super().share_statistics()
        if not self.communicator.is_chief:
            self.train_variables[0].assign_add(1e-6 + 0.0 * self.train_variables[0])


recipe.Trainer = Drifting

if __name__ == "__main__":
    train_fixed.run()
