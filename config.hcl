# The default configuration of dynast. This very file is built into the binary.
#
# A file of your own (dynast up --config FILE) needs only the fields that it
# changes; all others keep the values below. Each field also has a flag that
# overrides the file: heartbeat { timeout } is --heartbeat-timeout.
#
# Durations need a unit: ns, us, ms, s, m, h ("100ms", "1m30s").
# Sizes need a binary unit: B, KiB, MiB, GiB, TiB ("64MiB").
# Paths may start with "~/"; a relative path starts at the working directory of
# the process that reads this file, and is made absolute there.

# Where the cluster keeps everything: logs of writes, databases, certificates,
# locks. One cluster per directory. Needs a file system with working flock and
# fsync (local disk, not NFS).
# Unit: path. Default: dynast-data in the working directory.
data_dir = "dynast-data"

# How many followers the leader keeps alive. Fewer than this, and it starts more
# at once. 0 leaves the leader alone: nothing takes over when it dies.
# Unit: processes, 0 to 32. Default: 2.
followers = 2

client {
  # The one address that clients use. Every member shares the listening socket,
  # and whoever leads accepts, so the address outlives any leader. Another host
  # than loopback opens the store to the network.
  # Unit: IP:PORT. Default: 127.0.0.1:2379.
  listen = "127.0.0.1:2379"

  # The certificate that clients are shown, with those between it and its CA; it
  # turns TLS on, and plain connections are refused then. The files are read again
  # when they change, a second later at most, without a restart; files that are no
  # good change nothing and are reported. PEM.
  # Unit: path. Default: empty, no TLS.
  cert_file = ""

  # The key of that certificate. PEM.
  # Unit: path. Default: empty.
  key_file = ""

  # The CA whose certificates clients need. Their common name is the user name
  # when there are users. PEM; read again when it changes, too.
  # Unit: path. Default: empty, clients need no certificate.
  client_ca_file = ""

  # The kind of tokens that users get when they log in, in the form of etcd's
  # flag --auth-token: "simple", or "jwt,sign-method=RS256,priv-key=/FILE" with
  # pub-key=/FILE and ttl=10m where wanted. Every member reads the key files.
  # Unit: simple, or jwt and its options. Default: simple.
  auth_token = "simple"

  # Connections of clients at the same time; one more is refused and told so. The
  # limit of open files (ulimit -n) less 256 is a limit, too. An idle connection
  # takes about 22 KiB of memory.
  # Unit: connections, 16 to 1000000. Default: 12000.
  max_connections = 12000

  # Requests and watches of one connection at the same time. Clients know the
  # number, and one more waits for another to end.
  # Unit: requests, 1 to 1000000. Default: 10000.
  max_streams = 10000

  # The largest request. A larger one is refused ("request is too large"). At most
  # replication.queue_bytes.
  # Unit: size, 64KiB to 32MiB. Default: 1536KiB.
  max_request = "1536KiB"
}

dashboard {
  # The address of a page for operators in a browser: the processes, live graphs,
  # what happened. The leader serves it, and it outlives any leader as the clients'
  # address does. If the port is taken at the start there is no page, and
  # everything else works. Plain HTTP: for another host than loopback put a
  # proxy with TLS before it.
  # Unit: IP:PORT, or off. Default: 127.0.0.1:2381.
  listen = "127.0.0.1:2381"

  # A file with a token, at least 16 characters, that only its owner may read.
  # Who gives the token to the page may hand over, kill and add processes there.
  # It is read at each use, so it can be changed at any time.
  # Unit: path. Default: empty, the page is for looking only.
  token_file = ""
}

member {
  # The address on which members listen for one another. A cluster on loopback
  # refuses members on other hosts.
  # Unit: IP address, no name and no wildcard. Default: 127.0.0.1.
  host = "127.0.0.1"

  # The ports that members are given: the next free one above the highest in
  # use, and from the start again after the last. At least followers + 1 ports.
  # Unit: FIRST-LAST, 1 to 65535. Default: 7400-7499.
  ports = "7400-7499"
}

heartbeat {
  # How often a follower and the leader tell each other that they are alive.
  # Unit: duration, 10ms to 1m. Default: 250ms.
  interval = "250ms"

  # A member silent for longer is killed and replaced. Death itself is noticed
  # at once; this is for processes that hang or are stopped. At least 3
  # intervals, so that one late beat kills nobody.
  # Unit: duration, 50ms to 10m. Default: 1s.
  timeout = "1s"
}

replication {
  # How many followers must have a write in their logs, besides the leader's
  # fsync, before it is acknowledged. While fewer are alive, those that are
  # alive suffice. At most followers.
  # Unit: processes, 0 to 32. Default: 1.
  min_sync = 1

  # Writes that may wait for an acknowledgement. One more is refused with
  # ResourceExhausted ("too many requests").
  # Unit: requests, 1 to 1000000. Default: 10000.
  queue_requests = 10000

  # The bytes of all waiting writes together; more is refused the same way.
  # Unit: size, 2MiB to 16GiB. Default: 64MiB.
  queue_bytes = "64MiB"
}

store {
  # The size of the database in use above which writes are refused and the
  # NOSPACE alarm is raised; reads and deletes go on. When keys are deleted, and
  # old revisions compacted, until 9/10 of it are in use, writes are taken again.
  # Unit: size, 1MiB to 1TiB. Default: 2GiB.
  quota = "2GiB"

  # Free space on the disk below which writes are refused, until there is room
  # again. The logs and the databases need it to go on.
  # Unit: size, 16MiB to 1TiB. Default: 64MiB.
  disk_reserve = "64MiB"

  # How often changes are written from memory to the database file. Nothing
  # acknowledged depends on it: the log is on disk before. Longer is faster
  # under load and makes the next start read more of the log.
  # Unit: duration, 1ms to 1m. Default: 1s.
  commit_interval = "1s"

  # How much history is kept. "1000": the last 1000 revisions, looked at every 5
  # minutes. "1h": what is younger than an hour, looked at every tenth of it. As
  # etcd's --auto-compaction-mode and -retention. Old values of keys can't be read
  # and watches can't begin before that; the newest values always stay.
  # Unit: off, revisions (1 to 1000000000000, in quotes) or duration (1s to 8760h). Default: off.
  auto_compaction = "off"

  # How often the keys of the followers are compared with the leader's, by
  # checksum. A follower that differs is killed and rebuilt from a snapshot; where
  # all followers agree against the leader, it hands over and is rebuilt. Each
  # member reads its whole database for it, and only if something has changed.
  # Unit: duration, 100ms to 8760h. Default: 10m.
  compare_interval = "10m"
}

spawn {
  # How long a new follower may take until it joins; then it is killed and counted
  # as a failure. One that is seen working (it opens a large database) is waited for
  # longer, up to sixty times as long.
  # Unit: duration, 100ms to 10m. Default: 10s.
  timeout = "10s"
}

log {
  # The least severe messages that are logged.
  # Unit: one of trace, debug, info, warn, error. Default: info.
  level = "info"

  # For people, or one JSON object a line for machines.
  # Unit: one of text, json. Default: text.
  format = "text"

  # A directory for log files, one per member, named by its address
  # (127.0.0.1_7401.log). All members also log to the standard error of the
  # first leader. Empty: only there.
  # Unit: path. Default: empty.
  directory = ""

  # The size at which a log file is closed and the next one begun.
  # Unit: size, a whole number of MiB, 1MiB to 100GiB. Default: 16MiB.
  max_size = "16MiB"

  # How many closed log files are kept for each member.
  # Unit: files, 1 to 1000. Default: 3.
  max_backups = 3
}
