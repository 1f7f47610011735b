# The default configuration of dynast. This file is built into the binary.
#
# Your own file needs only the fields that you want to change. All other fields keep
# the values below. dynast uses the first of these files that exists: --config FILE,
# the one that the variable DYNAST_CONFIG names, config.hcl in the working directory,
# /etc/dynast/config.hcl. 'dynast config print' shows which file is used, all fields,
# and where each value comes from. Each field also has a flag that overrides the file.
# For example, --heartbeat-timeout overrides heartbeat { timeout }.
#
# Durations need a unit: ns, us, ms, s, m, h ("100ms", "1m30s").
# Sizes need a binary unit: B, KiB, MiB, GiB, TiB ("64MiB").
# Paths may start with "~/". A relative path is relative to the working directory of
# the process that reads this file.

# The directory for all data of the cluster: write logs, databases, certificates,
# locks. Each cluster needs its own directory, on a file system with working
# flock and fsync (a local disk, not NFS). The variable DYNAST_DATA_DIR overrides the
# file, and the flag --data-dir overrides both. /etc/dynast/config.hcl needs an
# absolute path here.
# Unit: path. Default: dynast-data in the working directory.
data_dir = "dynast-data"

# The number of followers that the leader keeps alive. When there are fewer, it
# starts more at once. With 0 there is only the leader, and no process takes over
# when it dies.
# Unit: processes, 0 to 32. Default: 2.
followers = 2

client {
  # The address that clients use. All members share the listening socket, and the
  # current leader accepts connections. So the address stays open when a leader dies.
  # With an address other than loopback, other hosts can reach the store.
  # Unit: IP:PORT. Default: 127.0.0.1:2379.
  listen = "127.0.0.1:2379"

  # A PEM file with the server's certificate and the intermediate certificates. If it
  # is set, TLS is on, and plain connections are refused. The TLS files are read again
  # at most a second after they change, without a restart. If the new files cannot be
  # used, the old ones stay in use, and the log has an error.
  # Unit: path. Default: empty, no TLS.
  cert_file = ""

  # A PEM file with the key of that certificate.
  # Unit: path. Default: empty.
  key_file = ""

  # A PEM file with the CA of client certificates. If it is set, every client needs a
  # certificate of this CA. When there are users, the certificate's common name is the
  # user name. This file is also read again when it changes.
  # Unit: path. Default: empty, clients need no certificate.
  client_ca_file = ""

  # The kind of token that a user gets at login, with the syntax of etcd's flag
  # --auth-token: "simple", or "jwt,sign-method=RS256,priv-key=/FILE". For jwt you can
  # add the options pub-key=/FILE and ttl=10m. Every member reads the key files.
  # Unit: simple, or jwt and its options. Default: simple.
  auth_token = "simple"

  # The maximum number of client connections at the same time. A further connection is
  # refused with an error. If the limit of open files (ulimit -n) allows fewer, a
  # further connection waits until one ends. An idle connection takes about 22 KiB
  # of memory.
  # Unit: connections, 16 to 1000000. Default: 12000.
  max_connections = 12000

  # The maximum number of requests and watches of one connection at the same time. The
  # server tells clients this number. A client keeps further requests back until
  # another one ends.
  # Unit: requests, 1 to 1000000. Default: 10000.
  max_streams = 10000

  # The size of the largest request. A larger one is refused ("request is too
  # large"). The value must not exceed replication.queue_bytes.
  # Unit: size, 64KiB to 32MiB. Default: 1536KiB.
  max_request = "1536KiB"

  # The maximum number of operations in a transaction, inner transactions included.
  # A transaction with more is refused ("too many operations in txn request"). This
  # is etcd's --max-txn-ops.
  # Unit: operations, 1 to 100000. Default: 128.
  max_txn_ops = 128

  # How often the leader sends a progress notification to a watch that asked for it
  # and has no events. This is etcd's --watch-progress-notify-interval.
  # Kubernetes needs 5s.
  # Unit: duration, 100ms to 24h. Default: 10m.
  watch_progress_interval = "10m"
}

dashboard {
  # The address of the dashboard page: processes, live graphs, events. The leader
  # serves it. Like the clients' address, it stays open when a leader dies. If
  # another program uses the port at the start, there is no page, but everything else
  # works. The page is plain HTTP. For an address other than loopback, put a proxy
  # with TLS in front of it.
  # Unit: IP:PORT, or off. Default: 127.0.0.1:2381.
  listen = "127.0.0.1:2381"

  # A file with a token of at least 16 characters. Only its owner may have the right
  # to read it. An operator who enters the token in the page can hand over, kill and
  # add processes there. The file is read at each use, so you can change it at any
  # time.
  # Unit: path. Default: empty, nothing can be changed on the page.
  token_file = ""
}

member {
  # The address on which members listen for each other. A cluster on loopback
  # refuses members on other hosts.
  # Unit: IP address, not a name and not a wildcard. Default: 127.0.0.1.
  host = "127.0.0.1"

  # The ports for members. A new member gets the next free port above the highest
  # one in use. After the last port, dynast starts again with the first one. The range
  # must have at least followers + 1 ports.
  # Unit: FIRST-LAST, 1 to 65535. Default: 7400-7499.
  ports = "7400-7499"
}

heartbeat {
  # How often the leader and each follower exchange a heartbeat.
  # Unit: duration, 10ms to 1m. Default: 250ms.
  interval = "250ms"

  # A member that sends nothing for longer than this is killed and replaced. This is
  # for processes that hang or are stopped. The death of a process is noticed at once.
  # The value must be at least 3 intervals, so that one late heartbeat kills no
  # process.
  # Unit: duration, 50ms to 10m. Default: 1s.
  timeout = "1s"
}

replication {
  # How many followers must have a write in their logs, in addition to the leader's
  # fsync, before the write is acknowledged. When fewer followers are in sync, all of
  # the followers in sync must have it. The value must not exceed followers.
  # Unit: processes, 0 to 32. Default: 1.
  min_sync = 1

  # The maximum number of writes that wait for an acknowledgement. A further write is
  # refused with ResourceExhausted ("too many requests").
  # Unit: requests, 1 to 1000000. Default: 10000.
  queue_requests = 10000

  # The maximum size of all waiting writes together. Further writes are refused with
  # the same error.
  # Unit: size, 2MiB to 16GiB. Default: 64MiB.
  queue_bytes = "64MiB"
}

store {
  # When the database uses more than this, writes are refused and the NOSPACE alarm is
  # raised. Reads and deletes continue. When deletes and a compaction have reduced the
  # use to 9/10 of the quota or less, writes are accepted again.
  # Unit: size, 64KiB to 1TiB. Default: 2GiB.
  quota = "2GiB"

  # When less than this space is free on the disk, writes are refused until there
  # is more. The write logs and the databases need this space to continue.
  # Unit: size, 16MiB to 1TiB. Default: 64MiB.
  disk_reserve = "64MiB"

  # How often changes are written from memory to the database file. No acknowledged
  # write depends on it, because the write is already in the log on disk. A longer
  # interval is faster under load, but the next start has to read more of the log.
  # Unit: duration, 1ms to 1m. Default: 1s.
  commit_interval = "1s"

  # How much history is kept. "1000" keeps the last 1000 revisions and compacts
  # every 5 minutes. "1h" keeps the revisions of the last hour and compacts every
  # tenth of that time. This replaces etcd's --auto-compaction-mode and -retention.
  # Compacted revisions cannot be read, and watches cannot start there. The newest
  # value of each key always stays.
  # Unit: off, revisions (1 to 1000000000000, in quotes) or duration (1s to 8760h). Default: off.
  auto_compaction = "off"

  # How often the followers' keys are compared with the leader's, by checksum. A
  # follower that differs is killed and rebuilt from a snapshot. If two or more
  # followers agree and outvote the leader, the leader hands over and is rebuilt.
  # Each member reads its whole database for this, but only if something has changed.
  # Unit: duration, 100ms to 8760h. Default: 10m.
  compare_interval = "10m"
}

spawn {
  # How long a new follower may take to join. After that it is killed, and the start
  # counts as failed. A follower that is busy opening a large database may take up to
  # sixty times as long.
  # Unit: duration, 100ms to 10m. Default: 10s.
  timeout = "10s"
}

# A cluster of several hosts. A host that is alone does not use these fields. See
# docs/hosts.md.
hosts {
  # The address of a host of the cluster that this host joins at its first start. The
  # flag is --join. A host that has joined keeps its place, and ignores this field.
  # Unit: IP:PORT. Default: empty, this host stays alone.
  join = ""

  # The file with the token that admits this host. 'dynast hosts token' makes one on a
  # host of the cluster. Others must not be able to read the file.
  # Unit: path. Default: empty.
  token_file = ""

  # The address at which the other hosts reach this one.
  # Unit: IP:PORT. Default: empty, which means: this host's address on the way to the
  # host in "join", with the same port.
  address = ""

  # The name of this host in the cluster. Two hosts cannot have the same one.
  # Unit: letters, digits, ".", "_", "-". Default: empty, the host's own name.
  name = ""

  # The time without a heartbeat of the leading host after which the others choose
  # another one. Use ten times the round-trip time between the hosts or more.
  # Unit: duration, 50ms to 50s. Default: 500ms.
  election = "500ms"

  # How often the leading host sends a heartbeat. Use about the round-trip time
  # between the hosts. It must fit into "election" five times or more.
  # Unit: duration, 10ms to 10s. Default: 50ms.
  heartbeat = "50ms"

  # After how many entries of the log a host makes a snapshot of its state. A host
  # that was away for longer than that gets the whole database instead of the log.
  # This is etcd's --snapshot-count.
  # Unit: entries, 100 to 10000000. Default: 10000.
  snapshot_count = 10000
}

log {
  # The lowest level of messages that are logged.
  # Unit: one of trace, debug, info, warn, error. Default: info.
  level = "info"

  # The format of the log: text for people, or one JSON object a line.
  # Unit: one of text, json. Default: text.
  format = "text"

  # A directory for log files, one for each member, named after its address
  # (127.0.0.1_7401.log). 'dynast logs' reads them. In any case all members also log
  # to the standard error of the first leader. With "off" they log only there.
  # Unit: path, or "off". Default: empty, which means logs in the data directory.
  directory = ""

  # The size at which a log file is closed and the next one is started.
  # Unit: size, a whole number of MiB, 1MiB to 100GiB. Default: 16MiB.
  max_size = "16MiB"

  # How many closed log files are kept for each member.
  # Unit: files, 1 to 1000. Default: 3.
  max_backups = 3
}

# A service is a program of your own that dynast starts and keeps running. There can
# be any number of these blocks. To use the example, remove the first "# " of each
# line. Only command, or script, is required. Relative paths in a service start at
# the directory of the configuration file.
#
# service "web" {
#   # The program and its arguments, without a shell. Instead of command you can set
#   # script = "...", a text for "/bin/sh -c". In it, write "$${NAME}" for a shell
#   # variable.
#   command = ["./server", "-port", "8080"]
#   # The working directory. Default: the directory of this file.
#   dir = "web"
#   # The user and the group, as names or numbers. Default: as dynast itself.
#   user  = "www-data"
#   group = "www-data"
#   # The umask in octal, "0000" to "0777". Default: as dynast itself.
#   umask = "0022"
#   # Variables that are added to the environment, and a file with lines NAME=VALUE.
#   # env has precedence. Default: none.
#   env      = { MODE = "production" }
#   env_file = "web.env"
#   # How many processes run, 0 to 1000: web/1 and web/2. With 0 nothing runs.
#   # Default: 1.
#   instances = 2
#   # On which hosts of a cluster it runs: all, one (at a time), or a list of names,
#   # for example ["host-a", "host-b"]. A single host runs every service. Default: all.
#   hosts = "all"
#   # After which exits the program is started again: always, on-failure or never.
#   # Default: always, or never if there is a schedule.
#   restart = "always"
#   # A socket that dynast opens and passes to every instance (LISTEN_FDS). IP:PORT,
#   # or unix:PATH with an absolute path. There can be several, with different names.
#   listen "http" { address = "127.0.0.1:8080" }
#   # needs: services that must be ready before this one starts. after: services that
#   # must have succeeded or be ready before this one starts. Default: none.
#   needs = ["db"]
#   after = ["migrate"]
#   # The check that decides when an instance is ready. Exactly one of:
#   # http (a URL), exec (a program and its arguments), tcp or grpc (HOST:PORT),
#   # notify = true (the program sends READY=1), delay (a duration). Default: as soon
#   # as it runs.
#   ready {
#     http = "http://127.0.0.1:8080/healthz"
#     # The time between two attempts, and the time for one. 10ms to 1h. Default: 1s.
#     interval = "1s"
#     timeout  = "1s"
#     # Failures in a row, 1 to 1000. Default: 3.
#     threshold = 3
#   }
#   # An instance that fails this check is restarted. The fields are those of ready,
#   # without delay. With notify = true the program has to send WATCHDOG=1 within
#   # each interval. Default: only an exit restarts an instance.
#   alive {
#     exec     = ["./check"]
#     interval = "10s"
#   }
#   # The signal that stops the program, and the time until SIGKILL to all its
#   # processes. Default: TERM, 10s.
#   stop {
#     signal  = "TERM"
#     timeout = "10s"
#   }
#   # What makes the program read its configuration again: a signal, or a command
#   # with exec = ["PROGRAM", "ARGUMENT"]. Default: nothing does.
#   reload { signal = "HUP" }
#   # The delay before restarts after repeated failures. It begins with the value of
#   # first and doubles up to max. After as many failures in a short time as limit
#   # says, the instance is failed. 0 means no limit. Default: 100ms, 30s, 0.
#   backoff {
#     first = "100ms"
#     max   = "30s"
#     limit = 0
#   }
#   # What an instance may use. cpu is a number of processors. 0 means no limit.
#   # Default: no limits.
#   limits {
#     memory     = "512MiB"
#     cpu        = 1.5
#     open_files = 4096
#     processes  = 100
#   }
#   # The size at which the output file of an instance is rotated, and how many rotated
#   # files are kept. Default: 16MiB, 3.
#   log {
#     max_size    = "16MiB"
#     max_backups = 3
#   }
#   # Privileges that are taken away. drop_capabilities is ["all"], or names without
#   # CAP_. Default: false, none.
#   security {
#     no_new_privileges = true
#     drop_capabilities = ["all"]
#   }
# }
# service "db" { command = ["./db"] }
# service "migrate" {
#   command = ["./migrate"]
#   restart = "never"
# }
# service "backup" {
#   command = ["./backup"]
#   # Five fields: minute, hour, day of the month, month, day of the week. With a
#   # schedule the service is a task. A run is skipped while the previous one still
#   # runs. Default: none.
#   schedule = "*/5 * * * *"
# }
