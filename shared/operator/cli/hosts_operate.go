package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/dynast-io/dynast/shared/member/hosts"
	"github.com/dynast-io/dynast/shared/rules/core"
)

const (
	// syncPatience is how long an upgrade waits until all hosts are in sync. syncPause separates
	// two looks. A host is in sync if it lags by syncLag entries at most.
	syncPatience = 2 * time.Minute
	syncPause    = 200 * time.Millisecond
	syncLag      = 1000
)

// upgradeHosts upgrades one host after the other. The leading host comes last, because each change of
// the leader makes writes wait.
func upgradeHosts(ctx context.Context, dataDir, binary string, out io.Writer) error {
	l, err := awaitSync(ctx, dataDir)
	if err != nil {
		return fmt.Errorf("upgrade: nothing was changed: %w", err)
	}
	all := slices.Clone(l.Hosts)
	slices.SortStableFunc(all, func(a, b hosts.Host) int { return order(a) - order(b) })
	for i, h := range all {
		before := h.Status.Started
		var r hosts.UpgradeResponse
		if err := askHosts(ctx, dataDir, hosts.PathUpgrade, hosts.UpgradeRequest{Name: h.Name, Binary: binary}, &r, upgradePatience); err != nil {
			return fmt.Errorf("upgrade: %s: %w; %d of %d hosts are upgraded", h.Name, err, i, len(all))
		}
		if err := awaitRestart(ctx, dataDir, h.Name, before); err != nil {
			return fmt.Errorf("upgrade: %s: %w; %d of %d hosts are upgraded", h.Name, err, i, len(all))
		}
		fmt.Fprintf(out, "upgraded %s from %s to %s\n", h.Name, r.Before, r.After)
	}
	return nil
}

func order(h hosts.Host) int {
	if h.Role == hosts.RoleLeader {
		return 1
	}
	return 0
}

// awaitRestart waits until the engine of a host was started again and all hosts are in sync.
func awaitRestart(ctx context.Context, dataDir, name string, before time.Time) error {
	ctx, cancel := context.WithTimeout(ctx, syncPatience)
	defer cancel()
	for {
		l, err := awaitSync(ctx, dataDir)
		if err != nil {
			return err
		}
		for _, h := range l.Hosts {
			if h.Name == name && h.Status.Started.After(before) {
				return nil
			}
		}
		select {
		case <-time.After(syncPause):
		case <-ctx.Done():
			return errors.New("its engine was not restarted in time; 'dynast hosts' shows its state")
		}
	}
}

// awaitSync waits until all hosts answer and are in sync.
func awaitSync(ctx context.Context, dataDir string) (*hosts.List, error) {
	ctx, cancel := context.WithTimeout(ctx, syncPatience)
	defer cancel()
	for {
		var l hosts.List
		why := askHosts(ctx, dataDir, hosts.PathList, nil, &l, lookTimeout)
		if why == nil {
			if why = inSync(&l); why == nil {
				return &l, nil
			}
		}
		select {
		case <-time.After(syncPause):
		case <-ctx.Done():
			return nil, why
		}
	}
}

func inSync(l *hosts.List) error {
	for _, h := range l.Hosts {
		switch {
		case !h.Reachable:
			return fmt.Errorf("%s does not answer", h.Name)
		case h.Role == hosts.RoleLearner || h.Role == hosts.RoleJoining || h.Role == hosts.RoleNoLeader:
			return fmt.Errorf("%s is %s", h.Name, h.Role)
		case h.Lag > syncLag:
			return fmt.Errorf("%s lags by %d entries", h.Name, h.Lag)
		}
	}
	if !l.Writable {
		return errors.New("there is no leading host")
	}
	return nil
}

// stopHosts stops all hosts, this one last. The result is about this one.
func stopHosts(ctx context.Context, dataDir string, o stopOptions, notes io.Writer) (*stopped, error) {
	dir, err := openDir(dataDir)
	if err != nil {
		return nil, err
	}
	if !dir.ManyHosts() {
		return nil, &Error{Code: ExitUsage, Err: errors.New("stop: --all is for a cluster of several hosts; this is a single host: 'dynast stop' stops everything")}
	}
	var l hosts.List
	if err := askHosts(ctx, dataDir, hosts.PathList, nil, &l, lookTimeout); err != nil {
		return nil, err
	}
	failed := 0
	for _, h := range l.Hosts {
		if h.Name == l.Self {
			continue
		}
		if err := askHosts(ctx, dataDir, hosts.PathStop, hosts.NameRequest{Name: h.Name}, nil, changeTimeout); err != nil {
			failed++
			fmt.Fprintf(notes, "%s was not stopped: %v\n", h.Name, err)
			continue
		}
		fmt.Fprintf(notes, "%s stops\n", h.Name)
	}
	s, err := stop(ctx, dataDir, o, notes)
	if err != nil {
		return nil, err
	}
	if failed > 0 {
		return s, &Error{Code: core.ExitError, Err: fmt.Errorf("stop: %d of %d hosts were not stopped: run 'dynast stop' there", failed, len(l.Hosts))}
	}
	return s, nil
}
