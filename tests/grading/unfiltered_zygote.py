"""The zygote with its filter on system calls taken out, to see what holds without it."""

from posttrain.grading import starters, zygote

starters.seccomp.for_this_machine = lambda: None
main = zygote.main
