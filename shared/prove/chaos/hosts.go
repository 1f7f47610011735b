package chaos

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/dynast-io/dynast/shared/config"
	"github.com/dynast-io/dynast/shared/host/datadir"
	"github.com/dynast-io/dynast/shared/host/proc"
	api "github.com/dynast-io/dynast/shared/member/hosts"
	"github.com/dynast-io/dynast/shared/prove/netns"
)

const (
	clientPort = 2379
	peerPort   = 2380
	// memberPorts are those of the members of each host. Each host has a loopback interface of its
	// own, so they can be the same everywhere.
	memberPorts = "7400-7499"
)

// site is a place for a host: a network namespace with its address. A host that is removed leaves
// its site to the next one.
type site struct {
	at   *netns.Host
	disk *disk
	// c are the processes of the host that is here; nil if there is none. name is its name.
	c    *cluster
	name string
	// filled says that the disk of this host was filled, so that its engine may have failed.
	filled bool
}

func (s *site) peer() string   { return fmt.Sprintf("%s:%d", s.at.IP, peerPort) }
func (s *site) client() string { return fmt.Sprintf("%s:%d", s.at.IP, clientPort) }

func (s *site) String() string { return fmt.Sprintf("%s (%s)", s.name, s.at.IP) }

// hostCluster is a cluster of several hosts.
type hostCluster struct {
	cfg   Config
	work  string
	net   *netns.Network
	sites []*site // one more than there are hosts, for one that joins
	logs  *os.File
	made  int // number of hosts that ever were, for their names
}

func newHostCluster(cfg Config, work string) (*hostCluster, error) {
	if err := netns.Available(); err != nil {
		return nil, fmt.Errorf("several hosts: %w", err)
	}
	hc := &hostCluster{cfg: cfg, work: work}
	var err error
	if hc.logs, err = os.OpenFile(filepath.Join(work, "log"), os.O_CREATE|os.O_RDWR|os.O_APPEND, 0o600); err != nil {
		return nil, err
	}
	if hc.net, err = netns.New(cfg.Hosts + 1); err != nil {
		return nil, errors.Join(err, hc.logs.Close())
	}
	for _, at := range hc.net.Hosts {
		hc.sites = append(hc.sites, &site{at: at})
	}
	return hc, nil
}

// hosts returns the sites that have a host.
func (hc *hostCluster) hosts() []*site {
	var out []*site
	for _, s := range hc.sites {
		if s.c != nil {
			out = append(out, s)
		}
	}
	return out
}

// others returns the hosts except one.
func (hc *hostCluster) others(not *site) []*site {
	return slices.DeleteFunc(hc.hosts(), func(s *site) bool { return s == not })
}

// settle puts a new host at a site. It starts nothing.
func (hc *hostCluster) settle(s *site) error {
	hc.made++
	s.name = fmt.Sprintf("host%d", hc.made)
	dir := filepath.Join(hc.work, s.name)
	if hc.cfg.Weights[FillDisk] > 0 {
		d, err := mountDisk(dir)
		if err != nil {
			return err
		}
		s.disk, dir = d, filepath.Join(dir, "data")
	}
	s.filled = false
	s.c = &cluster{operator: hc.cfg.Operator, dataDir: dir, client: s.client(), followers: hc.cfg.Followers, heartbeat: hc.cfg.HeartbeatTimeout,
		patience: hc.cfg.Patience, own: true, binary: hc.cfg.Binary, work: hc.work, logs: hc.logs, start: s.at.Start}
	s.c.args = append([]string{"up", "--config", config.Off, "--dashboard-listen", "off"}, hc.cfg.UpArgs...)
	s.c.args = append(s.c.args, "--data-dir", dir, "--client-listen", s.client(), "--member-ports", memberPorts, "--hosts-name", s.name, "--hosts-address", s.peer())
	return nil
}

// clear ends a host and removes its data.
func (hc *hostCluster) clear(s *site) error {
	_, err := s.c.end()
	s.c = nil
	if s.disk != nil {
		err = errors.Join(err, s.disk.unmount())
		s.disk = nil
		return err
	}
	return errors.Join(err, os.RemoveAll(filepath.Join(hc.work, s.name)))
}

// begin starts the first host with the switch from a single host, and lets the others join.
func (hc *hostCluster) begin(ctx context.Context) error {
	first := hc.sites[0]
	if err := hc.settle(first); err != nil {
		return err
	}
	if err := first.c.up(); err != nil {
		return err
	}
	if _, err := first.c.full(ctx); err != nil {
		return err
	}
	if _, err := hc.order(ctx, first, "hosts", "init", "--address", first.peer(), "--name", first.name); err != nil {
		return err
	}
	for _, s := range hc.sites[1:hc.cfg.Hosts] {
		if err := hc.join(ctx, s, first); err != nil {
			return err
		}
	}
	return hc.full(ctx)
}

// join starts a new host at a site. It joins through another one.
func (hc *hostCluster) join(ctx context.Context, s, through *site) error {
	if err := hc.settle(s); err != nil {
		return err
	}
	token, err := hc.order(ctx, through, "hosts", "token", "--for", "10m", "--once")
	if err != nil {
		return err
	}
	file := filepath.Join(hc.work, s.name+".token")
	if err := os.WriteFile(file, []byte(token), 0o600); err != nil {
		return err
	}
	args := s.c.args
	s.c.args = append(slices.Clone(args), "--join", through.peer(), "--token-file", file)
	err = s.c.up()
	s.c.args = args // it has joined at its first start
	if err != nil {
		return err
	}
	defer os.Remove(file)
	return hc.await(ctx, s.name+" votes", func() error {
		l, err := hc.list(ctx, through)
		if err != nil {
			return err
		}
		for _, h := range l.Hosts {
			if h.Name == s.name && votes(h) {
				return nil
			}
		}
		if !s.c.starting() { // the command ended
			if left, err := Processes(s.c.dataDir); err == nil && len(left) == 0 {
				return fmt.Errorf("%w: all processes of %s have ended", errEnded, s.name)
			}
		}
		return fmt.Errorf("%s does not vote", s.name)
	})
}

// errEnded says that waiting is of no use.
var errEnded = errors.New("it will not happen")

func votes(h api.Host) bool {
	return h.Reachable && (h.Role == api.RoleLeader || h.Role == api.RoleFollower)
}

// order runs a command on a host, and returns its output.
func (hc *hostCluster) order(ctx context.Context, s *site, args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, hc.cfg.Patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, hc.cfg.Binary, append(args, "--data-dir", s.c.dataDir)...)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := s.at.Start(cmd); err != nil {
		return "", err
	}
	if err := cmd.Wait(); err != nil {
		return "", fmt.Errorf("%s on %s: %w: %s", strings.Join(args, " "), s, err, strings.TrimSpace(errs.String()))
	}
	return out.String(), nil
}

// ask sends a message to the engine of a host.
func (hc *hostCluster) ask(ctx context.Context, s *site, path string, out any) error {
	dir, err := datadir.OpenForReading(s.c.dataDir)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, askPatience)
	defer cancel()
	c := api.DialLocal(dir)
	defer c.Close()
	return c.Ask(ctx, path, nil, out)
}

// askPatience bounds a question to an engine.
const askPatience = 5 * time.Second

func (hc *hostCluster) list(ctx context.Context, s *site) (*api.List, error) {
	var l api.List
	return &l, hc.ask(ctx, s, api.PathList, &l)
}

func (hc *hostCluster) status(ctx context.Context, s *site) (*api.Status, error) {
	var st api.Status
	return &st, hc.ask(ctx, s, api.PathStatus, &st)
}

// leader returns the host that leads, or nil if none says so.
func (hc *hostCluster) leader(ctx context.Context) *site {
	for _, s := range hc.hosts() {
		if st, err := hc.status(ctx, s); err == nil && st.Role == api.RoleLeader {
			return s
		}
	}
	return nil
}

// engine names the engine of a host for good; zero if there is none.
func (hc *hostCluster) engine(ctx context.Context, s *site) proc.Identity {
	st, err := hc.status(ctx, s)
	if err != nil {
		return proc.Identity{}
	}
	id, err := proc.Identify(st.PID)
	if err != nil {
		return proc.Identity{}
	}
	return id
}

// await waits until a condition is true: until ok returns nil. An error of it that wraps errEnded
// ends the wait.
func (hc *hostCluster) await(ctx context.Context, what string, ok func() error) error {
	for deadline := time.Now().Add(hc.cfg.Patience); ; {
		err := ok()
		switch {
		case err == nil:
			return nil
		case ctx.Err() != nil:
			return ctx.Err()
		case errors.Is(err, errEnded):
			return fmt.Errorf("wait for %s: %w", what, err)
		case time.Now().After(deadline):
			return fmt.Errorf("wait for %s: %w %s: %w", what, errTimeout, hc.cfg.Patience, err)
		}
		pause(ctx, 20*time.Millisecond)
	}
}

// maxLag is the number of entries by which a host may be behind under load.
const maxLag = 5000

// full waits until all hosts vote and keep up, and the members of each are in sync.
func (hc *hostCluster) full(ctx context.Context) error {
	for _, s := range hc.hosts() {
		if _, err := s.c.full(ctx); err != nil {
			return fmt.Errorf("%s: %w", s, err)
		}
	}
	return hc.await(ctx, "all hosts in sync", func() error {
		all := hc.hosts()
		for _, s := range all {
			l, err := hc.list(ctx, s)
			if err != nil {
				return fmt.Errorf("%s: %w", s, err)
			}
			if len(l.Hosts) != len(all) || !l.Writable {
				return fmt.Errorf("%s knows %d of %d hosts, writable is %v", s, len(l.Hosts), len(all), l.Writable)
			}
			for _, h := range l.Hosts {
				if !votes(h) || h.Lag > maxLag {
					return fmt.Errorf("%s says that %s is %s, reachable is %v (%s), and lags by %d entries", s, h.Name, h.Role, h.Reachable, h.Error, h.Lag)
				}
			}
		}
		return nil
	})
}

// end ends everything, and removes the network and the disks. It keeps the files of the hosts if
// keep is true.
func (hc *hostCluster) end(keep bool) error {
	errs := []error{hc.net.Heal(), hc.net.Fast()}
	for _, s := range hc.hosts() {
		_, err := s.c.end()
		errs = append(errs, err)
		if s.disk == nil {
			continue
		}
		if keep {
			errs = append(errs, copyFiles(filepath.Join(hc.work, s.name+".kept"), s.c.dataDir))
		}
		errs = append(errs, s.disk.unmount())
	}
	return errors.Join(append(errs, hc.net.Close(), hc.logs.Close())...)
}

// copyFiles copies the regular files of a directory.
func copyFiles(to, from string) error {
	return filepath.WalkDir(from, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		rest, err := filepath.Rel(from, path)
		if err != nil {
			return err
		}
		raw, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		if err := os.MkdirAll(filepath.Dir(filepath.Join(to, rest)), 0o700); err != nil {
			return err
		}
		return os.WriteFile(filepath.Join(to, rest), raw, 0o600)
	})
}

// failed returns what the engine of a host wrote when it failed. An engine on a full disk may do so.
func (s *site) failed() ([]string, error) {
	if s.filled {
		return nil, nil
	}
	paths, err := filepath.Glob(filepath.Join(s.c.dataDir, "services", "dynast:engine", "*", "output.log*"))
	if err != nil {
		return nil, err
	}
	var found []string
	for _, path := range paths {
		raw, err := os.ReadFile(path)
		if err != nil {
			return nil, err
		}
		for line := range strings.Lines(string(raw)) {
			if len(found) < 5 && slices.ContainsFunc([]string{"panic:", "fatal error:", "DATA RACE", "[PANIC]", "[FATAL]"}, func(a string) bool { return strings.Contains(line, a) }) {
				found = append(found, fmt.Sprintf("%s: %s", filepath.Base(path), strings.TrimSpace(line)))
			}
		}
	}
	return found, nil
}

// kill kills everything on a host, and returns how many processes that were.
func (s *site) kill() (int, error) {
	left, err := s.c.end()
	return len(left), err
}

// stopProcess stops a process and waits until it has stopped.
func stopProcess(id proc.Identity) error {
	if err := Signal(id, unix.SIGSTOP); err != nil {
		return err
	}
	if !awaitStopped(id) {
		return errNoVictim
	}
	return nil
}
