service "worker" {
  # "dynast ctl lock NAME COMMAND" is etcdctl's command: it waits for the lock and runs
  # COMMAND while it holds it. The second instance waits, and takes over when the first
  # one ends.
  script    = "exec \"$DYNAST\" ctl lock --endpoints \"$DYNAST_ENDPOINTS\" --ttl 2 worker ./worker.sh"
  instances = 2

  # Relative to the directory of this file, which is the working directory.
  env = { DYNAST = "../../dynast" }

  # The command of the lock passes no signal on to the worker. After the timeout the whole
  # process tree is killed, and the lock ends with its lease.
  stop {
    timeout = "1s"
  }
}
