# Written by 'dynast import' from process-compose.yaml (process-compose). A comment in a block names
#   what has no counterpart.
# A program without dir runs in the directory of the configuration file.
# version=0.5: not needed by dynast.
# log_location=./pc.log: the output goes to a file in the data directory. Read it with 'dynast logs
#   NAME'.

service "postgres" {
  # environment PGURL: script computes this variable, so checks and reload commands do not see it.
  # description: the database
  # is_daemon=false: not needed. This is the default.
  # namespace=data: dynast has no namespaces. Put it in front of the name of the service if two names
  #   would be equal.
  # readiness_probe.initial_delay_seconds=1: not needed. A check that fails before the program is
  #   ready has no consequence.
  # readiness_probe.success_threshold=1: dynast needs one success.
  # readiness_probe.failure_threshold=20: dynast goes on checking until the program is ready.
  script = <<EOT
export PGURL=postgres://"$${PGHOST:-localhost}"/app
test -d .pg || initdb -D .pg
exec postgres -D .pg -k "$PWD/.pg"
EOT
  env = {
    APP_ENV = "development"
  }
  restart = "on-failure"
  ready {
    exec     = ["/bin/sh", "-c", "exec pg_isready -h localhost"]
    interval = "2s"
    timeout  = "3s"
  }
  stop {
    signal  = "INT"
    timeout = "20s"
  }
  backoff {
    first = "2s"
    max   = "2s"
    limit = 6
  }
}

service "migrate" {
  # environment PGURL: script computes this variable, so checks and reload commands do not see it.
  script = <<EOT
export PGURL=postgres://"$${PGHOST:-localhost}"/app
exec bin/migrate up
EOT
  env = {
    APP_ENV = "development"
  }
  restart = "never"
  needs   = ["postgres"]
}

service "web" {
  # environment PGURL, environment API: script computes this variable, so checks and reload commands
  #   do not see it.
  # depends_on.redis=process_started, depends_on.vault=process_started: dynast waits until the service
  #   is ready, which is at once if it has no ready { }.
  # depends_on.vault=process_started: this process is not in the file. Add its name to needs when it
  #   is a service.
  # liveness_probe.http_get.headers={X-Probe: 1}: dynast sends a plain GET and takes every status from
  #   200 to 399 for a success. Use exec with curl if that is not enough.
  # log_configuration.rotation.max_age_days=7: dynast bounds the output by size only.
  script = <<EOT
export PGURL=postgres://"$${PGHOST:-localhost}"/app
export API="$${HOST}":8080
exec bin/server --port 8080
EOT
  dir    = "./web"
  env = {
    APP_ENV  = "development"
    GREETING = "Hi $${not a var} %%{x}"
  }
  env_file  = ".env.web"
  instances = 2
  restart   = "always"
  needs     = ["postgres", "redis"]
  after     = ["migrate"]
  ready {
    http     = "http://127.0.0.1:8080/healthz"
    interval = "10s"
    timeout  = "1s"
  }
  alive {
    http      = "http://localhost:8080/alive"
    interval  = "15s"
    timeout   = "1s"
    threshold = 4
  }
  log {
    max_size    = "20MiB"
    max_backups = 3
  }
}

service "redis" {
  # environment PGURL: script computes this variable, so checks and reload commands do not see it.
  # availability.restart=exit_on_failure: dynast does not stop everything when one program fails. The
  #   state of the service becomes failed.
  # shutdown.command=redis-cli shutdown: dynast stops a program with a signal. Let the program do this
  #   when it gets the signal.
  script = <<EOT
export PGURL=postgres://"$${PGHOST:-localhost}"/app
exec redis-server --port 6379
EOT
  env = {
    APP_ENV = "development"
  }
  restart = "never"
}

service "report" {
  # environment PGURL: script computes this variable, so checks and reload commands do not see it.
  # disabled=true: the service has no instances, so it does not start. Set instances to start it.
  # schedule.timezone=UTC: dynast has no counterpart. A run that would overlap is skipped.
  script = <<EOT
export PGURL=postgres://"$${PGHOST:-localhost}"/app
exec bin/report
EOT
  env = {
    APP_ENV = "development"
  }
  instances = 0
  restart   = "never"
  schedule  = "30 2 * * *"
}
