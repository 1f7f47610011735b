# Written by 'dynast import' from app.service, backup.service, caddy@.service, nginx.service,
#   postgresql.service, redis.service, setup.service, app.socket, backup.timer, override.conf
#   (systemd). A comment in a block names what has no counterpart.
# A program without dir runs in the directory of the configuration file.

service "app" {
  # Restart=on-abnormal: dynast restarts the program after every failure.
  # ListenStream=127.0.0.1:8081: the program finds this socket under the name app.socket-2, because
  #   each needs a name of its own.
  # ListenStream=%t/app.sock: the program finds this socket under the name app.socket-3, because each
  #   needs a name of its own.
  # SocketMode=0660: dynast listens on TCP and on Unix sockets, and has no further settings for them.
  # app.socket: Sockets of the app
  # app.socket: WantedBy=sockets.target: not needed. Every service starts with 'dynast up'.
  command = ["/opt/app/bin/app", "--data", "/var/lib/app"]
  dir     = "/opt/app"
  restart = "on-failure"
  needs   = ["redis"]
  listen "app.socket" {
    address = "[::]:8080"
  }
  listen "app.socket-2" {
    address = "127.0.0.1:8081"
  }
  listen "app.socket-3" {
    address = "unix:/run/app.sock"
  }
  stop {
    timeout = "1m30s"
  }
}

service "backup" {
  # Nice=10: dynast has no setting for it. Start the program through nice, ionice, chrt, choom or
  #   taskset.
  # OnCalendar=*-*-1 04:00:00: a service has one schedule. Add a second service with schedule = "0 4 1
  #   * *".
  # Persistent=true: dynast does not make up for runs that were missed while it was down.
  # backup.timer: WantedBy=timers.target: not needed. Every service starts with 'dynast up'.
  command  = ["/usr/local/bin/backup", "--to", "/srv/backup"]
  dir      = "/"
  restart  = "never"
  schedule = "30 2 * * 1-5"
  stop {
    timeout = "1m30s"
  }
}

service "caddy" {
  # caddy@.service: a template. Set instances; %i has become the number of the instance ($INSTANCE).
  #   Import NAME@INSTANCE.service for an instance with another name.
  # Type=exec: not needed. This is the default.
  # WorkingDirectory=~: write the home directory of the user into dir.
  # AmbientCapabilities=CAP_NET_BIND_SERVICE: dynast knows user and group only. Create a user with the
  #   groups and rights that the program needs.
  script  = "exec /usr/bin/caddy run --environ --config /etc/caddy/\"$${INSTANCE}\".json --name 'caddy@.service at $5'"
  user    = "caddy"
  restart = "never"
  needs   = ["redis"]
  after   = ["setup"]
  stop {
    timeout = "1m30s"
  }
  reload {
    exec = ["/bin/sh", "-c", "exec /usr/bin/caddy reload --config /etc/caddy/\"$${INSTANCE}\".json --force"]
  }
  limits {
    processes = 512
  }
  security {
    drop_capabilities = ["NET_RAW", "SYS_ADMIN"]
  }
}

service "nginx" {
  # Description: The nginx web server
  # Documentation=man:nginx(8): for information only.
  # Type=forking: dynast follows the process that it starts. Run the program in the foreground: remove
  #   its option for a daemon, or add the one for the foreground.
  # PIDFile=/run/nginx.pid: not needed. dynast follows the process that it starts, and a task that has
  #   succeeded stays done.
  # ExecStartPre=/usr/sbin/nginx -t -q -g 'daemon on; master_process on;': put it in front of the
  #   program in script, or in a service of its own with restart = "never" that this one names in
  #   after.
  # ExecStop=-/sbin/start-stop-daemon --quiet --stop --retry QUIT/5 --pidfile /run/nginx.pid: dynast
  #   stops a program with the signal of stop { }. Let the program do this when it gets the signal.
  # KillMode=mixed: dynast sends the stop signal to the main process, and SIGKILL to the whole process
  #   tree after stop { timeout }.
  # PrivateTmp=true: dynast has no sandbox. Set it in the unit that starts dynast, or start the
  #   program through bwrap.
  # WantedBy=multi-user.target: not needed. Every service starts with 'dynast up'.
  # After=network-online.target, After=remote-fs.target, Wants=network-online.target: this unit was
  #   not imported. If systemd keeps it, add it to the unit that starts dynast.
  command = ["/usr/sbin/nginx", "-g", "daemon on; master_process on;"]
  dir     = "/"
  restart = "never"
  needs   = ["app"]
  stop {
    timeout = "5s"
  }
  reload {
    exec = ["/usr/sbin/nginx", "-g", "daemon on;", "-s", "reload"]
  }
}

service "postgresql" {
  # Description: PostgreSQL %i database
  # EnvironmentFile=-/etc/default/postgresql: the file has to exist. Create it, or remove env_file.
  # KillMode=mixed: dynast sends the stop signal to the main process, and SIGKILL to the whole process
  #   tree after stop { timeout }.
  # TimeoutSec=infinity: dynast always kills the process tree after stop { timeout }. Set it as long
  #   as the program may need.
  # OOMScoreAdjust=-900: dynast has no setting for it. Start the program through nice, ionice, chrt,
  #   choom or taskset.
  # Restart=no: this directive is repeated. The last one counts.
  # WantedBy=multi-user.target: not needed. Every service starts with 'dynast up'.
  script = "exec /usr/lib/postgresql/17/bin/postgres -D \"$${PGDATA}\" $PGOPTIONS"
  dir    = "/"
  user   = "postgres"
  env = {
    LC_ALL = "C.UTF-8"
    NOTE   = "100% \"$${safe}\""
    PGDATA = "/var/lib/postgresql/17/main"
  }
  env_file = "/etc/default/postgresql"
  restart  = "on-failure"
  ready {
    notify = true
  }
  stop {
    signal  = "INT"
    timeout = "1m30s"
  }
  reload {
    signal = "HUP"
  }
  backoff {
    first = "5s"
    max   = "5s"
  }
}

service "redis" {
  # Description: Redis key-value store
  # StartLimitIntervalSec=1min: the delay of backoff { } doubles with each failure and decays over
  #   time. It has no fixed interval.
  # RuntimeDirectory=redis: dynast creates no directories. Create it beforehand, or in a service with
  #   restart = "never" that this one names in after.
  # LimitNOFILE=1024:65535: dynast has one limit. It is the hard limit, unless that is infinity.
  # ProtectSystem=strict, ReadWritePaths=-/var/lib/redis, RestrictAddressFamilies=AF_INET AF_UNIX:
  #   dynast has no sandbox. Set it in the unit that starts dynast, or start the program through
  #   bwrap.
  # After=network.target: this unit was not imported. If systemd keeps it, add it to the unit that
  #   starts dynast.
  command = ["/usr/bin/redis-server", "/etc/redis/redis.conf", "--supervised", "systemd", "--daemonize", "no"]
  dir     = "/"
  user    = "redis"
  group   = "redis"
  umask   = "0007"
  restart = "always"
  ready {
    notify = true
  }
  alive {
    notify   = true
    interval = "30s"
  }
  stop {
    timeout = "1m30s"
  }
  backoff {
    limit = 5
  }
  limits {
    memory     = "2GiB"
    cpu        = 1.5
    open_files = 65535
    processes  = 512
  }
  security {
    no_new_privileges = true
    drop_capabilities = ["all"]
  }
}

service "setup" {
  # RemainAfterExit=yes: not needed. dynast follows the process that it starts, and a task that has
  #   succeeded stays done.
  # ExecStart=-/bin/mkdir (-): dynast counts a failure of this program. Let it exit with 0 if a
  #   failure does not matter.
  script  = <<EOT
set -e
/bin/mkdir -p /srv/data
/bin/sh -c 'echo "$${HOME}" > /srv/data/home'
exec /bin/true
EOT
  dir     = "/"
  restart = "never"
  stop {
    timeout = "1m30s"
  }
}
