package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"

	"github.com/dynast-io/dynast/shared/tree"
)

// running is a system that serves.
type running struct {
	name      string
	endpoints []string
	pids      []int
	dataDir   string // dynast only
	config    string // dynast only
}

// runner starts processes and ends all of them.
type runner struct {
	dynast, self string // programs
	dir          string // of all data
	valueBytes   int
	commands     []*exec.Cmd
	clusters     []*running // of dynast, to be stopped by its own command
}

func (r *runner) directory(name string) (string, error) {
	return os.MkdirTemp(r.dir, name+"-")
}

// start starts a program with its errors in a file of the run's directory.
func (r *runner) start(name, program string, args ...string) (*exec.Cmd, error) {
	log, err := os.OpenFile(filepath.Join(r.dir, name+".log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, err
	}
	defer log.Close()
	cmd := exec.Command(program, args...)
	cmd.Stderr = log
	// In a group of its own: a Ctrl-C reaches this program, which ends the others in order.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: pdeathsig(name)}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	r.commands = append(r.commands, cmd)
	return cmd, nil
}

// pdeathsig ends what has no way of its own to be ended if this program is
// killed. (dynast would only go on with its heir.)
func pdeathsig(name string) syscall.Signal {
	if name == dynastName {
		return 0
	}
	return syscall.SIGKILL
}

const (
	dynastName = "dynast"
	endTimeout = 10 * time.Second
	// serveAttempt is how long a first answer may take before it is asked for again.
	serveAttempt = 200 * time.Millisecond
)

// end ends everything that was started, and returns what did not end in order.
func (r *runner) end() error {
	var errs []error
	for _, c := range r.clusters {
		if out, err := exec.Command(r.dynast, "stop", "--data-dir", c.dataDir).CombinedOutput(); err != nil {
			errs = append(errs, fmt.Errorf("stop dynast in %s: %w: %s", c.dataDir, err, out))
		}
	}
	for _, cmd := range r.commands {
		_ = cmd.Process.Signal(syscall.SIGTERM) // gone already is fine
	}
	for _, cmd := range r.commands {
		late := time.AfterFunc(endTimeout, func() { _ = cmd.Process.Kill() })
		_ = cmd.Wait()
		late.Stop()
	}
	r.clusters, r.commands = nil, nil
	return errors.Join(errs...)
}

// startDynast starts a cluster and waits for its full strength.
func startDynast(ctx context.Context, r *runner, followers int) (*running, error) {
	dir, err := r.directory(dynastName)
	if err != nil {
		return nil, err
	}
	ports, err := freePorts(1)
	if err != nil {
		return nil, err
	}
	run := &running{name: dynastName, dataDir: filepath.Join(dir, "data"), config: filepath.Join(dir, "config.hcl"),
		endpoints: []string{fmt.Sprintf("127.0.0.1:%d", ports[0])}}
	// Below the ports that the kernel gives out, of which the clients have one: a
	// member must not have that.
	first := 10000 + os.Getpid()%200*20
	hcl := fmt.Sprintf("data_dir = %q\nfollowers = %d\nclient { listen = %q }\nmember { ports = \"%d-%d\" }\nlog { level = \"warn\" }\nstore { quota = \"8GiB\" }\n",
		run.dataDir, followers, run.endpoints[0], first, first+1000)
	if err := os.WriteFile(run.config, []byte(hcl), 0o600); err != nil {
		return nil, err
	}
	return run, r.up(ctx, run, followers)
}

// up starts the processes of a cluster of dynast.
func (r *runner) up(ctx context.Context, run *running, followers int) error {
	if _, err := r.start(dynastName, r.dynast, "up", "--config", run.config); err != nil {
		return err
	}
	r.clusters = append(r.clusters, run)
	return r.full(ctx, run, followers)
}

// full waits until a cluster of dynast has its followers in sync, and notes who they are.
func (r *runner) full(ctx context.Context, run *running, followers int) error {
	return until(ctx, 60*time.Second, "dynast at full strength", func() error {
		t, err := r.tree(ctx, run)
		if err != nil {
			return err
		}
		run.pids = nil
		inSync := 0
		for _, m := range t.Members {
			run.pids = append(run.pids, m.PID)
			if m.State == "in_sync" {
				inSync++
			}
		}
		if inSync != followers || len(t.Members) != followers+1 {
			return fmt.Errorf("%d of %d followers in sync", inSync, followers)
		}
		return nil
	})
}

func (r *runner) tree(ctx context.Context, run *running) (*tree.Tree, error) {
	out, err := exec.CommandContext(ctx, r.dynast, "tree", "--json", "--data-dir", run.dataDir).Output()
	if err != nil {
		return nil, err
	}
	return tree.Decode(out)
}

// serves waits for the first answer. Each attempt has a connection of its own:
// one that was refused would not be tried again for a second.
func (r *runner) serves(ctx context.Context, run *running, limit time.Duration) error {
	return until(ctx, limit, run.name+" serves", func() error {
		c, err := clientv3.New(clientv3.Config{Endpoints: run.endpoints, Logger: zap.NewNop()})
		if err != nil {
			return err
		}
		defer c.Close()
		ctx, cancel := context.WithTimeout(ctx, serveAttempt)
		defer cancel()
		_, err = c.Put(ctx, "bench/ready", "")
		return err
	})
}

func until(ctx context.Context, limit time.Duration, what string, f func() error) error {
	deadline := time.Now().Add(limit)
	for {
		err := f()
		switch {
		case err == nil:
			return nil
		case ctx.Err() != nil:
			return ctx.Err()
		case time.Now().After(deadline):
			return fmt.Errorf("%s: not within %s: %w", what, limit, err)
		}
		select {
		case <-time.After(20 * time.Millisecond):
		case <-ctx.Done():
		}
	}
}

// freePorts finds ports that nobody has at this moment.
func freePorts(n int) ([]int, error) {
	var ports []int
	for range n {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return nil, err
		}
		defer l.Close()
		ports = append(ports, l.Addr().(*net.TCPAddr).Port)
	}
	return ports, nil
}

// measure runs one of dynast's bench commands against a system and decodes what it prints.
func measure[T any](ctx context.Context, r *runner, run *running, args ...string) (*T, error) {
	pids := make([]string, len(run.pids))
	for i, p := range run.pids {
		pids[i] = strconv.Itoa(p)
	}
	args = append([]string{"bench"}, args...)
	args = append(args, "--json", "--endpoints", strings.Join(run.endpoints, ","))
	if len(pids) > 0 {
		args = append(args, "--pids", strings.Join(pids, ","))
	}
	if run.config != "" {
		args = append(args, "--config", run.config)
	}
	var stderr strings.Builder
	cmd := exec.CommandContext(ctx, r.dynast, args...)
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("%s, dynast %s: %w: %s", run.name, strings.Join(args, " "), err, stderr.String())
	}
	res := new(T)
	if err := json.Unmarshal(out, res); err != nil {
		return nil, fmt.Errorf("%s, dynast %s: %w", run.name, strings.Join(args, " "), err)
	}
	return res, nil
}
