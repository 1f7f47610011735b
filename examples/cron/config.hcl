service "report" {
  # Each run is a new process. A run that is due while the one before has not
  # ended is skipped and counted.
  schedule = "* * * * *" # every minute; also "30 2 * * 1-5", "@daily" or "@every 90s"
  script   = "echo \"report at $(date -u +%H:%M:%S)\""

  # A task ends, so it cannot have the default, "always". With "on-failure" a run that fails is
  # repeated; with "never" it waits for its next time.
  restart = "on-failure"
  backoff {
    limit = 3
  }
}
