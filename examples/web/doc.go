// Command web is an example of a service. It answers HTTP requests on a socket that dynast holds,
// and tells dynast when it is ready. So connections wait during a restart and are not refused.
//
// It uses only what systemd also offers: LISTEN_FDS (sd_listen_fds(3)) and NOTIFY_SOCKET
// (sd_notify(3)).
package main
