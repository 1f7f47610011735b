package chaos

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/dynast-io/dynast/shared/host/proc"
	api "github.com/dynast-io/dynast/shared/member/hosts"
	"github.com/dynast-io/dynast/shared/observe/tree"
)

// hostRunner is the state of a run with several hosts.
type hostRunner struct {
	*runner
	hc      *hostCluster
	dialled int // number of clients of this round
	terms   sync.WaitGroup
}

// hostAttempt bounds an operation with several hosts. A client cannot see that a host is cut off, so
// it would wait there for as long as it may.
const hostAttempt = 2 * time.Second

// hostCalm is the time without a failed request after which nothing earlier lets requests fail. It is
// longer than an attempt.
const hostCalm = hostAttempt + 500*time.Millisecond

// runHosts is Run for a cluster of several hosts.
func (r *runner) runHosts(ctx context.Context) (*Report, error) {
	r.attempt = hostAttempt
	return r.conduct(ctx, &hostRunner{runner: r})
}

func (r *hostRunner) describe() string {
	return fmt.Sprintf("%d hosts, faults %s, data in %s", r.cfg.Hosts, r.weights, r.work)
}

func (r *hostRunner) prepare() (err error) {
	r.weights, r.report.LeftOut = possibleOnHosts(r.cfg.Weights)
	if r.weights.sum() == 0 {
		return errors.New("no fault of several hosts was asked for")
	}
	r.report.Weights = r.weights
	if r.hc, err = newHostCluster(r.cfg, r.work); err != nil {
		return err
	}
	if r.weights[SlowLinks] > 0 && !r.hc.net.Delays() {
		r.report.LeftOut = append(r.report.LeftOut, SlowLinks+" with a delay: the kernel has no netem, so the lines are narrow instead")
	}
	for _, left := range r.report.LeftOut {
		r.say("left out: %s", left)
	}
	r.c = &cluster{patience: r.cfg.Patience, heartbeat: r.cfg.HeartbeatTimeout, endpoints: r.endpoints}
	return nil
}

// endpoints returns the addresses of the next client of a round. The first one belongs to leases and
// to the last reads. Then come the clients that read and write: every second one knows one host
// only. The last ones belong to watches.
func (r *hostRunner) endpoints() []string {
	var all []string
	for _, s := range r.hc.hosts() {
		all = append(all, s.client())
	}
	n := r.dialled
	r.dialled++
	if n%2 == 1 && n <= r.cfg.Clients {
		return all[n/2%len(all):][:1]
	}
	return all
}

// run starts the cluster, and runs one round after the other until there is a finding.
func (r *hostRunner) run(ctx context.Context) error {
	if err := r.hc.begin(ctx); err != nil {
		return r.unlessInterrupted(ctx, err)
	}
	watching, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer r.terms.Wait()
	defer stop()
	cl, err := r.c.dial()
	if err != nil {
		return err
	}
	defer cl.Close()
	r.terms.Go(func() { r.watchTerms(watching, cl) })
	end := time.Now().Add(r.cfg.Duration)
	for n := 1; ; n++ {
		until := time.Now().Add(r.cfg.Round)
		if !r.cfg.Soak && until.Add(r.cfg.Round/2).After(end) {
			until = end // the rest is too short for another round
		}
		if err := r.round(ctx, n, until); err != nil {
			return r.unlessInterrupted(ctx, err)
		}
		if ctx.Err() != nil || !r.cfg.Soak && !time.Now().Before(end) || len(r.report.Findings) > 0 {
			return r.stopAll(context.WithoutCancel(ctx))
		}
	}
}

// watchTerms records Raft's terms, which count the takeovers.
func (r *hostRunner) watchTerms(ctx context.Context, cl *clientv3.Client) {
	highest := uint64(0)
	for pause(ctx, 100*time.Millisecond) {
		try, done := context.WithTimeout(ctx, time.Second)
		resp, err := cl.Get(try, r.prefix, clientv3.WithSerializable(), clientv3.WithCountOnly()) // needs no majority
		done()
		if err != nil || resp.Header.RaftTerm <= highest {
			continue
		}
		highest = resp.Header.RaftTerm
		r.c.mu.Lock()
		r.c.epochs = append(r.c.epochs, epochAt{time.Now(), highest})
		r.c.mu.Unlock()
	}
}

// round is runRound for several hosts.
func (r *hostRunner) round(ctx context.Context, number int, until time.Time) (err error) {
	life := context.WithoutCancel(ctx) // the checks still run after an interruption
	if err := r.hc.full(ctx); err != nil {
		return err
	}
	r.dialled = 0
	r.blind.clear() // its times are those of a round
	rd := r.newRound(number)
	defer func() {
		for _, cl := range rd.stock {
			err = errors.Join(err, cl.Close())
		}
	}()
	stop, err := rd.start(life)
	if err != nil {
		return err
	}
	defer stop.watching()
	defer stop.keeping()
	defer stop.writing()
	broken := r.breakThings(ctx, rd, until)
	if err = r.hc.full(life); err != nil {
		r.finding(CheckProgress, "at the end of the round: %v", err)
	} else {
		r.sample(life)
		if err = rd.check(life, stop); err == nil {
			err = r.compare(life, rd)
		}
	}
	stop.writing()
	stop.watching()
	stop.keeping()
	rd.writing.Wait()
	rd.watching.Wait()
	rd.keeping.Wait()
	rd.sum()
	return errors.Join(broken, err)
}

// breakThings injects faults until the given time.
func (r *hostRunner) breakThings(ctx context.Context, rd *round, until time.Time) error {
	for ctx.Err() == nil && time.Now().Before(until) && rd.h.Known() < maxOperations && len(r.report.Findings) == 0 {
		r.inject(ctx, rd)
		if err := rd.progress(ctx, answersBetween); err != nil {
			return r.unlessInterrupted(ctx, err)
		}
		if r.rng.IntN(3) > 0 {
			if err := r.hc.full(ctx); err != nil {
				return r.unlessInterrupted(ctx, err)
			}
			r.sample(ctx)
		}
		pause(ctx, time.Duration(r.rng.Int64N(int64(r.cfg.Between))))
	}
	return nil
}

func (r *hostRunner) inject(ctx context.Context, rd *round) {
	kind := r.weights.pick(r.rng)
	i := Injected{AtMS: time.Since(r.began).Milliseconds(), Kind: kind, Label: kind, at: rd.h.Now()}
	label, what, err := hostFaults[kind](ctx, r)
	r.blind.add(i.at, rd.h.Now())
	if errors.Is(err, errNoVictim) || ctx.Err() != nil {
		return
	}
	if label != "" {
		i.Label = label
	}
	i.What = what
	rd.faults = append(rd.faults, i)
	r.say("%7.1fs  %s: %s", float64(i.AtMS)/1000, i.Label, i.What)
	if err != nil {
		r.finding(CheckFault, "%s: %s: %v", i.Label, i.What, err)
	}
}

// blindness are the times of a round during which a watch may have been served by a host that was cut
// off or stopped. Such a watch reports what happened meanwhile only afterwards. It is safe for
// concurrent use.
type blindness struct {
	mu    sync.Mutex
	spans [][2]int64 // see History.Now
}

func (b *blindness) add(from, to int64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.spans = append(b.spans, [2]int64{from, to})
}

func (b *blindness) clear() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.spans = nil
}

// within returns how much of a span of time was blind.
func (b *blindness) within(from, to int64) time.Duration {
	b.mu.Lock()
	defer b.mu.Unlock()
	sum := int64(0)
	for _, s := range b.spans {
		sum += max(min(s[1], to)-max(s[0], from), 0)
	}
	return time.Duration(sum)
}

// calm waits until no request has failed for some time. It returns false if that does not happen.
func (r *hostRunner) calm(ctx context.Context) bool {
	since, before := time.Now(), r.h.lost()
	for deadline := since.Add(calmPatience); time.Since(since) < hostCalm; {
		if now := r.h.lost(); now != before {
			before, since = now, time.Now()
		}
		if time.Now().After(deadline) || !pause(ctx, 10*time.Millisecond) {
			return false
		}
	}
	return true
}

// answers waits until clients got more answers.
func (r *hostRunner) answers(ctx context.Context) error {
	known := r.h.Known()
	return r.hc.await(ctx, "answers", func() error {
		if n := r.h.Known() - known; n < answersBetween {
			return fmt.Errorf("there were %d", n)
		}
		return nil
	})
}

// newLeader is the condition that a member leads in place of another one, and that all followers are
// in sync.
func newLeader(not tree.Member) func(*tree.Tree) bool {
	return func(t *tree.Tree) bool {
		m := t.LeaderMember()
		return m.PID != 0 && m.PID != not.PID && !t.Degraded
	}
}

// compare compares the hashes of all hosts' databases at one revision, and then compacts the history.
func (r *hostRunner) compare(ctx context.Context, rd *round) error {
	ctx, done := context.WithTimeout(ctx, r.cfg.Patience)
	defer done()
	cl := rd.stock[0]
	now, err := cl.Get(ctx, r.prefix)
	if err != nil {
		return fmt.Errorf("read the revision: %w", err)
	}
	at := now.Header.Revision
	var replicas []Replica
	for i, s := range r.hc.sites {
		if s.c == nil {
			continue
		}
		h, err := r.hash(ctx, s, at)
		p := Replica{Slot: i + 1, Revision: at, At: at}
		if err != nil {
			p.Error = fmt.Sprintf("%s: %v", s, err)
		} else {
			p.Hash, p.CompactRevision = h.Hash, h.CompactRevision
		}
		replicas = append(replicas, p)
	}
	r.report.addReplicas(replicas)
	if err := differences(replicas); err != nil {
		r.finding(CheckReplicas, "%v", err)
	}
	_, err = cl.Compact(ctx, at)
	return err
}

// hash asks one host alone.
func (r *hostRunner) hash(ctx context.Context, s *site, at int64) (*clientv3.HashKVResponse, error) {
	cl, err := s.c.dial()
	if err != nil {
		return nil, err
	}
	defer cl.Close()
	return hashOf(ctx, cl, s.client(), at, r.cfg.Patience)
}

// sample records the usage of the engines. That of the leading host counts as the leader's, and the
// largest of the others as a follower's.
func (r *hostRunner) sample(ctx context.Context) {
	sample := Sample{AtMS: time.Since(r.began).Milliseconds()}
	for _, s := range r.hc.hosts() {
		st, err := r.hc.status(ctx, s)
		if err != nil {
			return
		}
		u, err := proc.ReadUsage(st.PID)
		if err != nil || u.FDs < 0 {
			return // the process just died, or its usage is not readable
		}
		if st.Role == api.RoleLeader {
			sample.LeaderFDs, sample.LeaderRSSBytes = u.FDs, u.RSSBytes
		} else {
			sample.FollowerFDs, sample.FollowerRSSBytes = max(sample.FollowerFDs, u.FDs), max(sample.FollowerRSSBytes, u.RSSBytes)
		}
	}
	if sample.LeaderFDs > 0 {
		r.report.addSample(sample)
	}
}

// stopAll stops all hosts in order, and looks at what they leave.
func (r *hostRunner) stopAll(ctx context.Context) error {
	for _, s := range r.hc.hosts() {
		if err := s.c.stop(ctx); err != nil {
			r.finding(CheckProcesses, "stop %s: %v", s, err)
		}
		left, err := s.c.end()
		if err != nil {
			return err
		}
		if len(left) > 0 {
			r.finding(CheckProcesses, "%s: %d processes still run after the stop: %v", s, len(left), left)
		}
		remains, err := leftovers(s.c.dataDir, r.cfg.Followers)
		if err != nil {
			return err
		}
		for _, path := range remains {
			r.finding(CheckProcesses, "%s: left behind: %s", s, path)
		}
	}
	return nil
}

// look reports what the engine of a host wrote when it failed.
func (r *hostRunner) look(s *site) error {
	wrong, err := s.failed()
	for _, w := range wrong {
		r.finding(CheckLogs, "the engine of %s: %s", s, w)
	}
	return err
}

// tidy ends what was started, and removes the files unless a check failed.
func (r *hostRunner) tidy() error {
	var errs []error
	for _, s := range r.hc.hosts() {
		errs = append(errs, r.look(s))
	}
	r.c.logs = r.hc.logs
	r.checkLogs()
	wrong, summary := CheckUsage(r.report.Usage)
	for _, w := range wrong {
		r.finding(CheckGrowth, "%s", w)
	}
	r.report.UsageSummary = summary
	keep := len(r.report.Findings) > 0 || errors.Join(errs...) != nil
	errs = append(errs, r.hc.end(keep))
	if keep = keep || errors.Join(errs...) != nil; keep {
		r.report.Kept = r.work
	} else {
		errs = append(errs, os.RemoveAll(r.work))
	}
	return errors.Join(errs...)
}
