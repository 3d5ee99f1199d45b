"""Pure decisions and records of training runs: no clock, no I/O."""
