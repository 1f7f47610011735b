service "web" {
  # A relative path starts at the directory of this file.
  command   = ["./web"]
  instances = 2

  # dynast opens the socket once. Both instances accept from it. It stays open
  # while instances or dynast's own processes are replaced.
  listen "http" {
    address = "127.0.0.1:8080"
  }

  # The program says by itself when it is ready (READY=1).
  ready {
    notify = true
  }

  # A program that does not answer is restarted after three failures in a row.
  alive {
    http     = "http://127.0.0.1:8080/healthz"
    interval = "2s"
  }

  stop {
    timeout = "10s"
  }
}
