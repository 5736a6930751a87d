"""How slow the MECs of benchmarks are."""

#: A process cannot be faster than the machine, and a computation after a pause takes up to twice as long as in the
#: profile, where one follows another. So a MEC must be this much slower to be emulated correctly under any load.
MEC_SLOWDOWN = 2.0
