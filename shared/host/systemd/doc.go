// Package systemd talks to the service manager that started the cluster. It reports the
// cluster's state by the protocol of sd_notify(3), and takes over a watchdog's interval
// and listening sockets (sd_listen_fds(3)).
//
// Both protocols expect one process for the life of a service. Here the process changes
// with each takeover. So Begin takes over once what is bound to the first process's pid,
// and removes it from the environment that later leaders inherit.
//
// Without a service manager, the package does nothing. It reads and changes the
// environment of the process, and must be called before any process is started.
package systemd
