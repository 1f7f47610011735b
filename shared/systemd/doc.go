// Package systemd is what a cluster tells the service manager that started it, by the
// protocol of sd_notify(3), and what it takes over from it: a watchdog's interval, and
// listening sockets (sd_listen_fds(3)).
//
// Both protocols expect one process for the life of a service. Here the process changes with
// each takeover, so Begin rewrites the environment that every later leader inherits: what is
// bound to the first process's pid is taken over once and removed.
//
// Without a service manager everything here does nothing. The package needs the
// environment of the process and changes it; it is to be called before anything is started.
package systemd
