# Written by 'dynast import' from supervisord.conf (supervisord). A comment in a block names what
#   has no counterpart.
# A program without dir runs in the directory of the configuration file.
# [unix_http_server] file=/run/supervisor.sock chmod=0700, [rpcinterface:supervisor]
#   supervisor.rpcinterface_factory=supervisor.rpcinterface:make_main_rpcinterface, [supervisorctl]
#   serverurl=unix:///run/supervisor.sock: not needed. The commands of dynast use the admin socket
#   in the data directory.
# [supervisord] logfile=/var/log/supervisor/supervisord.log, [supervisord] nodaemon=false: not
#   needed by dynast.
# [supervisord] user=root: set the user in the unit that starts dynast.
# [supervisord] minfds=1024: set the limit in the unit that starts dynast, or in limits { } of a
#   service.
# [eventlistener:crashmail] command=/usr/bin/crashmail -a -m ops@example.com
#   events=PROCESS_STATE_EXITED: dynast sends no events to programs. Use 'dynast events' in a
#   service of your own.
# [include] files=conf.d/*.conf: these files were read: redis.conf.
# [group:shop] priority=999: dynast starts services in the order of needs and after, and stops them
#   in reverse. Add the names there if the order matters.

service "gunicorn" {
  # autostart=true: not needed. Every service starts with 'dynast up'.
  # stopasgroup=true: dynast sends the stop signal to the main process only. After stop { timeout } it
  #   kills the whole process tree.
  # killasgroup=true: not needed. dynast always kills the whole process tree.
  # redirect_stderr=true: not needed. Both outputs go to the same file.
  # stdout_logfile=/var/log/shop/gunicorn.log: the output goes to a file in the data directory. Read
  #   it with 'dynast logs NAME'.
  # environment PATH: script computes this variable, so checks and reload commands do not see it.
  # priority=100: dynast starts services in the order of needs and after, and stops them in reverse.
  #   Add the names there if the order matters.
  # [group:shop]: dynast has no groups. Give the names of the services to a command, for example
  #   'dynast restart NAME NAME'.
  script = <<EOT
export PATH=/srv/shop/venv/bin:"$${PATH}"
exec /srv/shop/venv/bin/gunicorn shop.wsgi:application --bind 127.0.0.1:"$${WEB_PORT}" --workers 3
EOT
  dir    = "/srv/shop"
  user   = "www-data"
  umask  = "0027"
  env = {
    DJANGO_SETTINGS_MODULE = "shop.settings"
    HOME                   = "/srv/shop"
    LANG                   = "C.UTF-8"
    SECRET_KEY             = "a,b=\"c\"%"
  }
  restart = "always"
  ready {
    delay = "5s"
  }
  stop {
    signal  = "QUIT"
    timeout = "30s"
  }
  backoff {
    limit = 4
  }
  log {
    max_size    = "50MiB"
    max_backups = 5
  }
}

service "celery" {
  # process_name=%(program_name)s_%(process_num)02d: not needed. The instances are called NAME/1,
  #   NAME/2 and so on.
  # exitcodes=0,2: dynast takes every exit status other than 0 for a failure. Let the program exit
  #   with 0 when it has succeeded.
  # [group:shop]: dynast has no groups. Give the names of the services to a command, for example
  #   'dynast restart NAME NAME'.
  script = "exec /srv/shop/venv/bin/celery -A shop worker -n worker\"$(printf '%02d' $((INSTANCE -1)))\"@%h -Q 'high priority,low'"
  dir    = "/app/supervisord/app"
  env = {
    DJANGO_SETTINGS_MODULE = "shop.settings"
    LANG                   = "C.UTF-8"
  }
  instances = 4
  restart   = "on-failure"
  stop {
    timeout = "10m"
  }
}

service "beat" {
  # autostart=false: the service has no instances, so it does not start. Set instances to start it.
  # stderr_logfile=/var/log/shop/beat.err: the output goes to a file in the data directory. Read it
  #   with 'dynast logs NAME'.
  # foo_extra=1: dynast does not know this directive.
  command = ["/srv/shop/venv/bin/celery", "-A", "shop", "beat", "--schedule", "/var/lib/shop/its"]
  env = {
    DJANGO_SETTINGS_MODULE = "shop.settings"
    LANG                   = "C.UTF-8"
  }
  instances = 0
  restart   = "never"
}

service "redis" {
  # numprocs_start=0: instances of dynast count from 1. Where a directive uses %(process_num)s, the
  #   difference is taken into account.
  command = ["redis-server", "--port", "6379", "--save", ""]
  env = {
    DJANGO_SETTINGS_MODULE = "shop.settings"
    LANG                   = "C.UTF-8"
  }
  restart = "on-failure"
  stop {
    signal = "TERM"
  }
}
