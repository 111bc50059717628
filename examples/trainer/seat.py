"""Which part of the model a rank holds."""


class Seat:
    """Megatron's order without data parallelism: `rank = tp_rank + tp * pp_rank`."""

    def __init__(self, rank: int, tp: int, pp: int):
        self.rank, self.tp, self.pp, self.size = rank, tp, pp, tp * pp
        self.tp_rank, self.pp_rank = rank % tp, rank // tp
        self.first, self.last = self.pp_rank == 0, self.pp_rank == pp - 1
