package chaos

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/dynast-io/dynast/shared/config"
	"github.com/dynast-io/dynast/shared/host/proc"
	"github.com/dynast-io/dynast/shared/observe/tree"
)

// Config configures Run.
type Config struct {
	Operator Operator
	// Binary is the program that starts an own cluster. UpArgs are the arguments of its "up",
	// without addresses and directory.
	Binary string
	UpArgs []string
	// DataDir and ClientAddress are those of a running cluster. If they are empty, Run starts its
	// own cluster.
	DataDir, ClientAddress string
	// Followers and HeartbeatTimeout are the cluster's configuration. DiskReserve is its
	// store.disk_reserve in bytes.
	Followers        int
	HeartbeatTimeout time.Duration
	DiskReserve      uint64

	// Hosts is the number of hosts of a cluster of several; 0 means a single host. Each is a network
	// namespace. Election is hosts.election.
	Hosts    int
	Election time.Duration

	Seed uint64
	// Duration is how long faults are injected. With Soak, faults are injected until ctx ends.
	Duration time.Duration
	Soak     bool
	// Round is the time after which a history is checked and a new one begins; 0 means 30 s.
	Round   time.Duration
	Weights Weights // nil means the default
	Clients int
	Keys    int
	// ValueBytes is the size of values; shorter ones are padded.
	ValueBytes int
	// Rate is the number of operations per second that all clients together try; 0 means no
	// limit.
	Rate float64
	// Services is the number of instances of the service whose programs are hit most often. There
	// are five further services with one instance each. 0 means no services. A running cluster, and
	// one whose disk is filled, gets none.
	Services int
	// File is the text of the configuration file of an own cluster.
	File []byte
	// MaxFaults ends the run after so many faults; 0 means no limit.
	MaxFaults int
	// Between is the longest pause after a fault; 0 means 400 ms.
	Between time.Duration
	// Patience bounds every wait for a condition. A condition that is not true by then is a
	// finding. 0 means one minute.
	Patience time.Duration
	// Progress gets a line for each fault and each round.
	Progress io.Writer
	// Interfere is called with the data directory of an own cluster after it was stopped for the
	// comparison of its replicas and of the output of its programs. Tests of these checks use it.
	Interfere func(dataDir string) error
}

func (c *Config) setDefaults() {
	for _, d := range []struct {
		v   *time.Duration
		def time.Duration
	}{{&c.Round, 30 * time.Second}, {&c.Between, 400 * time.Millisecond}, {&c.Patience, time.Minute}} {
		if *d.v == 0 {
			*d.v = d.def
		}
	}
	if c.Hosts > 0 {
		c.Services = 0
	}
	if c.Weights == nil {
		c.Weights = DefaultWeights()
		switch {
		case c.DataDir != "":
			c.Weights = SignalWeights()
		case c.Hosts > 0:
			c.Weights = HostWeights()
		case c.Services > 0:
			maps.Copy(c.Weights, ServiceWeights())
		}
	}
	c.Clients, c.Keys = max(c.Clients, 1), max(c.Keys, 1)
}

// runner is the state of a run.
type runner struct {
	cfg  Config
	rng  *rand.Rand
	c    *cluster
	disk *disk
	// programs are the services; nil if there are none.
	programs *programs
	work     string // directory that is kept if a check failed
	weights  Weights
	h        *History // history of the current round
	prefix   string
	began    time.Time
	faults   int // number of injected faults
	report   *Report
	attempt  time.Duration // see Client.Attempt
	blind    blindness
}

// Run injects faults into a cluster and checks it. The report is complete even if a check failed.
// An error means that the run could not be done as requested; the report, if there is one, then
// shows how far it got.
func Run(ctx context.Context, cfg Config) (*Report, error) {
	cfg.setDefaults()
	r := &runner{cfg: cfg, rng: rand.New(rand.NewPCG(cfg.Seed, 0)), began: time.Now(), prefix: fmt.Sprintf("chaos/%d/", cfg.Seed)}
	r.report = newReport(cfg, r.began)
	var err error
	if r.work, err = os.MkdirTemp("", "dynast-chaos-"); err != nil {
		return nil, fmt.Errorf("chaos: %w", err)
	}
	if cfg.Hosts > 0 {
		return r.runHosts(ctx)
	}
	return r.conduct(ctx, r)
}

// stages are the parts of a run.
type stages interface {
	// prepare finds out which faults are possible, and starts an own cluster. describe says what
	// was prepared.
	prepare() error
	describe() string
	run(ctx context.Context) error
	tidy() error
}

// conduct does the stages of a run. The report is complete even if a check failed.
func (r *runner) conduct(ctx context.Context, s stages) (*Report, error) {
	if err := s.prepare(); err != nil {
		return nil, fmt.Errorf("chaos: %w", errors.Join(err, os.RemoveAll(r.work)))
	}
	r.say("seed %d, %s", r.cfg.Seed, s.describe())
	err := errors.Join(s.run(ctx), s.tidy())
	r.report.close(time.Since(r.began))
	if err != nil {
		return r.report, fmt.Errorf("chaos: %w", err)
	}
	return r.report, nil
}

func (r *runner) describe() string {
	return fmt.Sprintf("faults %s, clients at %s, data in %s", r.weights, r.c.client, r.c.dataDir)
}

// prepare finds out which faults are possible, and starts an own cluster.
func (r *runner) prepare() (err error) {
	var noDisk error
	if r.cfg.DataDir != "" {
		r.c = &cluster{operator: r.cfg.Operator, dataDir: r.cfg.DataDir, client: r.cfg.ClientAddress,
			followers: r.cfg.Followers, heartbeat: r.cfg.HeartbeatTimeout, patience: r.cfg.Patience}
		t, err := r.c.tree(context.Background())
		if err != nil {
			return err
		}
		r.c.followers = t.Followers // an operator may have changed it
	} else {
		dataDir := filepath.Join(r.work, "data")
		if r.cfg.Weights[FillDisk] > 0 {
			if r.disk, noDisk = mountDisk(filepath.Join(r.work, "disk")); noDisk == nil {
				dataDir = filepath.Join(r.disk.path, "data")
			}
		}
		if r.c, err = newOwn(r.cfg, r.rng, r.work, dataDir); err != nil {
			return err
		}
	}
	services := r.cfg.Services > 0 && r.c.own && r.disk == nil
	r.weights, r.report.LeftOut = possible(r.cfg.Weights, r.c, r.disk, noDisk, services)
	if r.cfg.Services > 0 && r.disk != nil {
		r.report.LeftOut = append(r.report.LeftOut, "services: their output would not fit on a full disk")
	}
	if services {
		r.report.Services = &ServiceStats{}
		if r.programs, err = newPrograms(r.cfg, r.c, r.report.Services); err != nil {
			return err
		}
	}
	if err := r.configure(); err != nil {
		return err
	}
	for _, left := range r.report.LeftOut {
		r.say("left out: %s", left)
	}
	if r.weights.sum() == 0 {
		return fmt.Errorf("no fault can be injected here: %s", strings.Join(r.report.LeftOut, "; "))
	}
	r.report.Weights = r.weights
	if r.c.own {
		return r.c.up()
	}
	return nil
}

// configure writes the configuration file of an own cluster.
func (r *runner) configure() error {
	text := slices.Clone(r.cfg.File)
	if r.programs != nil {
		text = append(text, r.programs.blocks(r.cfg)...)
	}
	if len(text) == 0 {
		r.c.args = append(r.c.args, "--config", config.Off)
		return nil
	}
	path := filepath.Join(r.work, "config.hcl")
	r.c.args = append(r.c.args, "--config", path)
	return os.WriteFile(path, text, 0o600)
}

// run runs one round after the other, and compares the replicas after each, until there is a
// finding.
func (r *runner) run(ctx context.Context) error {
	end := r.began.Add(r.cfg.Duration)
	for n := 1; ; n++ {
		until := time.Now().Add(r.cfg.Round)
		if !r.cfg.Soak && until.Add(r.cfg.Round/2).After(end) {
			until = end // the rest is too short for another round
		}
		if err := r.runRound(ctx, n, until); err != nil {
			return r.unlessInterrupted(ctx, err)
		}
		last := ctx.Err() != nil || !r.cfg.Soak && !time.Now().Before(end) || r.enough() || len(r.report.Findings) > 0
		if err := r.inspect(context.WithoutCancel(ctx), last); err != nil || last || len(r.report.Findings) > 0 {
			return err
		}
	}
}

// enough reports whether the run has injected as many faults as it shall.
func (r *runner) enough() bool { return r.cfg.MaxFaults > 0 && r.faults >= r.cfg.MaxFaults }

// unlessInterrupted turns a timeout of the cluster into a finding. It drops errors that come from
// the early end of the run.
func (r *runner) unlessInterrupted(ctx context.Context, err error) error {
	if ctx.Err() != nil && errors.Is(err, ctx.Err()) {
		return nil
	}
	if errors.Is(err, errTimeout) {
		r.finding(CheckProgress, "%v", err)
		return nil
	}
	return err
}

// inspect compares the replicas. It stops an own cluster to do so. In a running cluster it asks
// each member in turn as the leader, and only at the end.
func (r *runner) inspect(ctx context.Context, last bool) error {
	t, err := r.c.full(ctx)
	if err != nil {
		return r.unlessInterrupted(ctx, err)
	}
	if !r.c.own {
		if !last {
			return nil
		}
		return r.compareLive(ctx, t)
	}
	var slots []int
	for _, m := range t.Members {
		slots = append(slots, m.Slot)
	}
	if err := r.c.stop(ctx); err != nil {
		r.finding(CheckProcesses, "stop: %v", err)
	}
	left, err := r.c.end()
	if err != nil {
		return err
	}
	if len(left) > 0 {
		r.finding(CheckProcesses, "%d processes still run after the stop: %v", len(left), left)
	}
	remains, err := leftovers(r.c.dataDir, r.c.followers)
	if err != nil {
		return err
	}
	for _, path := range remains {
		r.finding(CheckProcesses, "left behind: %s", path)
	}
	if r.cfg.Interfere != nil {
		if err := r.cfg.Interfere(r.c.dataDir); err != nil {
			return err
		}
	}
	if err := r.checkPrograms(ctx); err != nil {
		return err
	}
	replicas, err := CompareReplicas(r.c.dataDir, r.work, slots...)
	r.report.addReplicas(replicas)
	if errors.Is(err, ErrReplicas) {
		r.finding(CheckReplicas, "%v", err)
	} else if err != nil {
		return err
	}
	if last || len(r.report.Findings) > 0 {
		return nil
	}
	if r.programs != nil {
		if err := r.programs.clear(); err != nil {
			return err
		}
	}
	return r.c.up()
}

// checkPrograms checks the services of a round. The cluster was stopped.
func (r *runner) checkPrograms(ctx context.Context) error {
	if r.programs == nil {
		return nil
	}
	left, err := r.programs.left()
	if err != nil {
		return err
	}
	if len(left) > 0 {
		r.finding(CheckProcesses, "%d processes of services still run after the stop: %v", len(left), left)
	}
	wrong, err := r.programs.check(ctx)
	if err != nil {
		return err
	}
	for _, check := range slices.Sorted(maps.Keys(wrong)) {
		for _, w := range wrong[check][:min(len(wrong[check]), maxFindings)] {
			r.finding(check, "%s", w)
		}
		if more := len(wrong[check]) - maxFindings; more > 0 {
			r.finding(check, "and %d more of this check", more)
		}
	}
	return nil
}

// maxFindings bounds how many findings of one check of services a round reports.
const maxFindings = 20

// compareLive asks every member for its hash while it leads, because followers serve no clients.
func (r *runner) compareLive(ctx context.Context, t *tree.Tree) error {
	cl, err := r.c.dial()
	if err != nil {
		return err
	}
	defer cl.Close()
	now, err := cl.Get(ctx, r.prefix)
	if err != nil {
		return fmt.Errorf("read the revision: %w", err)
	}
	at := now.Header.Revision
	want := map[int]bool{}
	for _, m := range t.Members {
		want[m.Slot] = true
	}
	var replicas []Replica
	for attempts := 4 * len(want); len(want) > 0 && attempts > 0; attempts-- {
		leader := t.LeaderMember()
		if want[leader.Slot] {
			h, err := hashOf(ctx, cl, r.c.client, at, r.cfg.Patience)
			if err != nil {
				return err
			}
			replicas = append(replicas, Replica{Slot: leader.Slot, Index: leader.Index, Revision: at, At: at, Hash: h.Hash, CompactRevision: h.CompactRevision})
			delete(want, leader.Slot)
			if len(want) == 0 {
				break
			}
		}
		if err := Signal(identify(leader), unix.SIGKILL); err != nil {
			return err
		}
		if t, err = r.c.await(ctx, "a new leader with all followers in sync", func(t *tree.Tree) bool {
			return t.Epoch > 0 && t.LeaderMember().PID != leader.PID && t.InSync() >= r.c.followers
		}); err != nil {
			return r.unlessInterrupted(ctx, err)
		}
	}
	for slot := range want {
		replicas = append(replicas, Replica{Slot: slot, Error: "it never became leader, so its hash is unknown"})
	}
	r.report.addReplicas(replicas)
	if err := differences(replicas); err != nil {
		r.finding(CheckReplicas, "%v", err)
	}
	return nil
}

func hashOf(ctx context.Context, cl *clientv3.Client, endpoint string, revision int64, patience time.Duration) (*clientv3.HashKVResponse, error) {
	ctx, done := context.WithTimeout(ctx, patience)
	defer done()
	for {
		h, err := cl.HashKV(ctx, endpoint, revision)
		if err == nil || ctx.Err() != nil {
			return h, err
		}
		pause(ctx, 20*time.Millisecond)
	}
}

// tidy ends what was started, and removes the files unless a check failed.
func (r *runner) tidy() error {
	var errs []error
	if r.c.own {
		if _, err := r.c.end(); err != nil {
			errs = append(errs, err)
		}
		if r.programs != nil {
			errs = append(errs, r.programs.end())
		}
		r.checkLogs()
	}
	wrong, summary := CheckUsage(r.report.Usage)
	for _, w := range wrong {
		r.finding(CheckGrowth, "%s", w)
	}
	r.report.UsageSummary = summary
	keep := len(r.report.Findings) > 0 || errors.Join(errs...) != nil
	if r.disk != nil {
		if keep {
			errs = append(errs, os.CopyFS(filepath.Join(r.work, "data"), os.DirFS(r.c.dataDir)))
		}
		errs = append(errs, r.disk.unmount())
	}
	if r.c.logs != nil {
		errs = append(errs, r.c.logs.Close())
	}
	if keep {
		r.report.Kept = r.work
	} else {
		errs = append(errs, os.RemoveAll(r.work))
	}
	return errors.Join(errs...)
}

// alarming texts are in a log line only if something is wrong.
var alarming = []string{"may be lost", "broken invariant", "panic:", "fatal error:", "DATA RACE", "exit_code=1 "}

func (r *runner) checkLogs() {
	if _, err := r.c.logs.Seek(0, io.SeekStart); err != nil {
		r.finding(CheckLogs, "%v", err)
		return
	}
	lines := bufio.NewScanner(r.c.logs)
	lines.Buffer(nil, 1<<20)
	found := 0
	for lines.Scan() && found < 20 {
		for _, a := range alarming {
			if strings.Contains(lines.Text(), a) {
				r.finding(CheckLogs, "a member logged: %s", lines.Text())
				found++
				break
			}
		}
	}
	if err := lines.Err(); err != nil {
		r.finding(CheckLogs, "%v", err)
	}
}

// sample records the usage of a cluster whose followers are all in sync.
func (r *runner) sample(t *tree.Tree) {
	s := Sample{AtMS: time.Since(r.began).Milliseconds()}
	for _, m := range t.Members {
		u, err := proc.ReadUsage(m.PID)
		if err != nil || u.FDs < 0 {
			return // the process just died, or its usage is not readable
		}
		if m.Address == t.Leader {
			s.LeaderFDs, s.LeaderRSSBytes = u.FDs, u.RSSBytes
		} else {
			s.FollowerFDs, s.FollowerRSSBytes = max(s.FollowerFDs, u.FDs), max(s.FollowerRSSBytes, u.RSSBytes)
		}
	}
	r.report.addSample(s)
}

func (r *runner) finding(check, format string, args ...any) {
	f := Finding{Check: check, Text: fmt.Sprintf(format, args...), AtMS: time.Since(r.began).Milliseconds()}
	r.report.Findings = append(r.report.Findings, f)
	r.say("FINDING %s: %s", f.Check, f.Text)
}

func (r *runner) say(format string, args ...any) {
	if r.cfg.Progress != nil {
		fmt.Fprintf(r.cfg.Progress, format+"\n", args...)
	}
}
