// Package imports turns the configuration of other supervisors into service blocks of
// config.hcl. Import reads a Procfile, a supervisord configuration, a process-compose file, or
// units of systemd.
//
// Every directive of the input has an effect on the output. A directive without a counterpart
// becomes a comment that names it and says what to do. Input that the other supervisor would
// refuse is refused here too, with file and line (Error). The output always parses as HCL.
//
// A command that needs no shell becomes command. It becomes a script where the other supervisor
// expands something that only a shell can expand here, for example %(ENV_PORT)s of supervisord
// or ${PORT} in an ExecStart of systemd. Such an expansion travels through the package as a
// shell expression between two marks, which are bytes that UTF-8 text cannot contain (words.go).
//
// Libraries. YAML is read with go.yaml.in/yaml/v3, the library behind sigs.k8s.io/yaml, because
// its nodes have line numbers. The two INI dialects have small parsers of their own (ini.go):
//
//   - gopkg.in/ini.v1 and go-systemd's package unit give no line numbers;
//   - ini.v1 resolves %(name)s and quotes in its own way, which differs from supervisord's;
//   - package unit refuses lines longer than 2048 bytes, and does not skip a comment inside of a
//     continued line.
//
// Words are split here too, because supervisord follows Python's shlex and systemd has rules of
// its own; github.com/google/shlex matches neither.
package imports
