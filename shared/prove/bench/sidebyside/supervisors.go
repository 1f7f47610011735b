package main

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// supervisor is a supervisor of programs, as this measurement needs it.
type supervisor interface {
	// start starts it with services that each run the command. It returns the process whose
	// death is measured.
	start(services []program) (*os.Process, error)
	// again starts it after it was killed, with the same services.
	again() error
	// stop ends it and its programs.
	stop() error
}

// program is one supervised program.
type program struct {
	name string
	argv []string
}

func (p program) line() string { return strings.Join(p.argv, " ") }

// fieldVariable marks a supervisor and everything that it starts. Its value is the directory of the
// measurement.
const fieldVariable = "DYNAST_BENCH_FIELD"

// command starts a supervisor in the foreground, in a session of its own, so that a signal to it
// reaches nothing else.
func command(dir string, env []string, name string, args ...string) (*exec.Cmd, error) {
	log, err := os.OpenFile(filepath.Join(dir, "supervisor.log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, err
	}
	defer log.Close()
	cmd := exec.Command(name, args...)
	cmd.Dir, cmd.Stdout, cmd.Stderr = dir, log, log
	cmd.Env = append(append(os.Environ(), env...), fieldVariable+"="+dir)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	return cmd, cmd.Start()
}

// foreground is a supervisor that is one process in the foreground.
type foreground struct {
	dir   string
	write func(dir string, services []program) (env []string, argv []string, err error)
	env   []string
	argv  []string
	cmd   *exec.Cmd
}

func (f *foreground) start(services []program) (p *os.Process, err error) {
	if f.env, f.argv, err = f.write(f.dir, services); err != nil {
		return nil, err
	}
	if err := f.again(); err != nil {
		return nil, err
	}
	return f.cmd.Process, nil
}

func (f *foreground) again() (err error) {
	if f.cmd != nil {
		_ = f.cmd.Wait() // it was killed
	}
	f.cmd, err = command(f.dir, f.env, f.argv[0], f.argv[1:]...)
	return err
}

func (f *foreground) stop() error {
	_ = f.cmd.Process.Signal(syscall.SIGTERM)
	late := time.AfterFunc(endTimeout, func() { _ = f.cmd.Process.Kill() })
	defer late.Stop()
	_ = f.cmd.Wait() // its exit status says nothing here
	return nil
}

// runDirectories writes the service directories of runit and s6.
func runDirectories(tool string) func(string, []program) ([]string, []string, error) {
	return func(dir string, services []program) ([]string, []string, error) {
		scan := filepath.Join(dir, "service")
		for _, s := range services {
			d := filepath.Join(scan, s.name)
			if err := os.MkdirAll(d, 0o755); err != nil {
				return nil, nil, err
			}
			if err := os.WriteFile(filepath.Join(d, "run"), []byte("#!/bin/sh\nexec "+s.line()+"\n"), 0o755); err != nil {
				return nil, nil, err
			}
		}
		if tool == "runit" {
			return nil, []string{"runsvdir", scan}, nil
		}
		return nil, []string{"s6-svscan", "-c", "2000", scan}, nil
	}
}

func supervisordFiles(dir string, services []program) ([]string, []string, error) {
	var b strings.Builder
	fmt.Fprintf(&b, "[supervisord]\nnodaemon=true\nlogfile=%s/supervisord.out\npidfile=%s/pid\nminfds=8192\n", dir, dir)
	for _, s := range services {
		fmt.Fprintf(&b, "[program:%s]\ncommand=%s\nautorestart=true\nstartsecs=0\nstdout_logfile=NONE\nstderr_logfile=NONE\n", s.name, s.line())
	}
	path := filepath.Join(dir, "supervisord.conf")
	return nil, []string{"supervisord", "-c", path}, os.WriteFile(path, []byte(b.String()), 0o600)
}

func pm2Files(runtime string) func(string, []program) ([]string, []string, error) {
	return func(dir string, services []program) ([]string, []string, error) {
		type app struct {
			Name        string   `json:"name"`
			Script      string   `json:"script"`
			Args        []string `json:"args"`
			Interpreter string   `json:"interpreter"`
			ExecMode    string   `json:"exec_mode"`
		}
		var apps []app
		for _, s := range services {
			apps = append(apps, app{s.name, s.argv[0], s.argv[1:], "none", "fork"})
		}
		raw, err := json.Marshal(map[string]any{"apps": apps})
		if err != nil {
			return nil, nil, err
		}
		path := filepath.Join(dir, "apps.json")
		return []string{"PM2_HOME=" + filepath.Join(dir, "pm2")}, []string{runtime, "start", path}, os.WriteFile(path, raw, 0o600)
	}
}

// dynastServices is dynast with services.
type dynastServices struct {
	r      *runner
	dir    string
	config string
	cmd    *exec.Cmd
}

func (d *dynastServices) start(services []program) (*os.Process, error) {
	ports, err := freePorts(1)
	if err != nil {
		return nil, err
	}
	var b strings.Builder
	first := 10000 + os.Getpid()%200*20
	fmt.Fprintf(&b, "data_dir = %q\nfollowers = %d\nclient { listen = \"127.0.0.1:%d\" }\nmember { ports = \"%d-%d\" }\ndashboard { listen = \"off\" }\nlog { level = \"warn\" }\n",
		filepath.Join(d.dir, "data"), servicesFollowers, ports[0], first, first+1000)
	for _, s := range services {
		argv, err := json.Marshal(s.argv)
		if err != nil {
			return nil, err
		}
		fmt.Fprintf(&b, "service %q { command = %s }\n", s.name, argv)
	}
	d.config = filepath.Join(d.dir, "config.hcl")
	if err := os.WriteFile(d.config, []byte(b.String()), 0o600); err != nil {
		return nil, err
	}
	if err := d.again(); err != nil {
		return nil, err
	}
	return d.cmd.Process, nil
}

func (d *dynastServices) again() (err error) {
	if d.cmd != nil {
		_ = d.cmd.Wait()
	}
	d.cmd, err = command(d.dir, nil, d.r.dynast, "up", "--config", d.config)
	return err
}

func (d *dynastServices) stop() error {
	out, err := exec.Command(d.r.dynast, "stop", "--config", d.config).CombinedOutput()
	if err != nil {
		return fmt.Errorf("stop dynast: %w: %s", err, out)
	}
	_ = d.cmd.Wait()
	return nil
}
