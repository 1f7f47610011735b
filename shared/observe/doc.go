// Package observe is the wing that reports what happens: events, metrics, log lines and a
// description of the processes. It changes nothing, and a failure in it never stops a
// member. It has no code of its own; its packages are
//
//   - events: the history of the cluster, across takeovers and restarts;
//   - meter: counters and timers of the hot path;
//   - metrics: the metrics for Prometheus, made from both;
//   - logging: the loggers of a member;
//   - logview: the log files of all members, merged by time;
//   - output: the output of the supervised programs, bounded and read;
//   - tree: a description of the processes, for programs.
//
// It may import rules, host and config.
package observe
