"""The way LeanRL makes CleanRL's PPO faster: its parts through torch.compile; written afresh, too."""

from cleanrl import play

from common import Clock, Work, main


def compiled(work: Work, clock: Clock) -> None:
    play(work, clock, compiled=True)


if __name__ == "__main__":
    main(compiled)
