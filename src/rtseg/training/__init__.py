"""The training loop, optimisers, schedules and run logs."""
