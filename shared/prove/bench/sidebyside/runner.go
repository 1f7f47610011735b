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

	"github.com/dynast-io/dynast/shared/observe/tree"
)

// running is a system that was started.
type running struct {
	name      string
	endpoints []string
	pids      []int
	program   string // dynast only
	dataDir   string // dynast only
	config    string // dynast only
}

// runner starts processes and ends all of them.
type runner struct {
	dynast, self string // programs
	dir          string // for all data
	valueBytes   int
	commands     []*exec.Cmd
	clusters     []*running // dynast clusters; "dynast stop" ends them
}

func (r *runner) directory(name string) (string, error) {
	return os.MkdirTemp(r.dir, name+"-")
}

// start starts a program. Its standard error goes to a file in the run's directory.
func (r *runner) start(name, program string, args ...string) (*exec.Cmd, error) {
	log, err := os.OpenFile(filepath.Join(r.dir, name+".log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, err
	}
	defer log.Close()
	cmd := exec.Command(program, args...)
	cmd.Stderr = log
	// In its own process group: Ctrl-C reaches only this program, which then ends the others in
	// order.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: pdeathsig(name)}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	r.commands = append(r.commands, cmd)
	return cmd, nil
}

// pdeathsig is the signal for processes that would otherwise stay if this program is killed. For
// dynast it would only cause a takeover, so dynast gets none.
func pdeathsig(name string) syscall.Signal {
	if name == dynastName || name == baseName {
		return 0
	}
	return syscall.SIGKILL
}

const (
	dynastName = "dynast"
	endTimeout = 10 * time.Second
	// serveAttempt bounds one attempt to get a first answer.
	serveAttempt = 200 * time.Millisecond
)

// end ends every process that was started, and returns an error for each that did not stop in
// order.
func (r *runner) end() error {
	var errs []error
	for _, c := range r.clusters {
		if out, err := exec.Command(r.dynast, "stop", "--data-dir", c.dataDir).CombinedOutput(); err != nil {
			errs = append(errs, fmt.Errorf("stop dynast in %s: %w: %s", c.dataDir, err, out))
		}
	}
	for _, cmd := range r.commands {
		_ = cmd.Process.Signal(syscall.SIGTERM) // the process may have ended already
	}
	for _, cmd := range r.commands {
		late := time.AfterFunc(endTimeout, func() { _ = cmd.Process.Kill() })
		_ = cmd.Wait()
		late.Stop()
	}
	r.clusters, r.commands = nil, nil
	return errors.Join(errs...)
}

// startDynast starts a cluster and waits until all followers are in sync.
func startDynast(ctx context.Context, r *runner, name, program string, followers int) (*running, error) {
	dir, err := r.directory(name)
	if err != nil {
		return nil, err
	}
	ports, err := freePorts(1)
	if err != nil {
		return nil, err
	}
	run := &running{name: name, program: program, dataDir: filepath.Join(dir, "data"), config: filepath.Join(dir, "config.hcl"),
		endpoints: []string{fmt.Sprintf("127.0.0.1:%d", ports[0])}}
	// The members' ports are below the kernel's range of ephemeral ports. The client port is from
	// that range, and a member must not use it.
	first := 10000 + (os.Getpid()+100*len(r.clusters))%200*20
	hcl := fmt.Sprintf("data_dir = %q\nfollowers = %d\nclient { listen = %q }\nmember { ports = \"%d-%d\" }\nlog { level = \"warn\" }\nstore { quota = \"8GiB\" }\n",
		run.dataDir, followers, run.endpoints[0], first, first+1000)
	if err := os.WriteFile(run.config, []byte(hcl), 0o600); err != nil {
		return nil, err
	}
	return run, r.up(ctx, run, followers)
}

// up starts the processes of a dynast cluster.
func (r *runner) up(ctx context.Context, run *running, followers int) error {
	if _, err := r.start(run.name, run.program, "up", "--config", run.config); err != nil {
		return err
	}
	r.clusters = append(r.clusters, run)
	return r.full(ctx, run, followers)
}

// full waits until all followers of a dynast cluster are in sync, and stores the pids of the
// processes.
func (r *runner) full(ctx context.Context, run *running, followers int) error {
	return until(ctx, 60*time.Second, "wait until all followers of dynast are in sync", func() error {
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

// serves waits for the first answer. Each attempt uses a new connection, because gRPC waits for a
// second before it dials again after a refusal.
func (r *runner) serves(ctx context.Context, run *running, limit time.Duration) error {
	return until(ctx, limit, "wait until "+run.name+" answers", func() error {
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
			return fmt.Errorf("%s: timed out after %s: %w", what, limit, err)
		}
		select {
		case <-time.After(20 * time.Millisecond):
		case <-ctx.Done():
		}
	}
}

// freePorts finds ports that are free at the moment.
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

// measure runs one of the commands of "dynast bench" against a system and decodes its output.
func measure[T any](ctx context.Context, r *runner, run *running, args ...string) (*T, error) {
	pids := make([]string, len(run.pids))
	for i, p := range run.pids {
		pids[i] = strconv.Itoa(p)
	}
	if args[0] != "idle" && args[0] != "failover" {
		args = append(args, "--keep") // the next measurement then has the same database on every system
	}
	args = append([]string{"bench"}, args...)
	if args[1] != "idle" { // it connects to no server
		args = append(args, "--endpoints", strings.Join(run.endpoints, ","))
	}
	args = append(args, "--json")
	if len(pids) > 0 && args[1] != "failover" { // it does not measure the processes
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
