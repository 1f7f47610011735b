package chaos

import (
	"context"
	"errors"
	"fmt"
	"math"
	"time"

	"golang.org/x/sys/unix"

	"github.com/dynast-io/dynast/shared/prove/netns"
)

// Kinds of faults of a cluster of several hosts. KillLeader, FillDisk and StopContinue exist there too:
// KillLeader kills dynast's leader on a host, and StopContinue stops its engine.
const (
	KillEngine  = "kill-engine"  // the engine of a host
	KillHost    = "kill-host"    // every process of a host, then it starts again
	KillHosts   = "kill-hosts"   // every process of several or all hosts, then they start again
	RestartHost = "restart-host" // an orderly stop of a host, then a start
	CutHost     = "cut-host"     // a host cannot reach the others, or the clients neither
	CutOneWay   = "cut-one-way"  // only what a host sends, or only what it receives, is lost
	SlowLinks   = "slow-links"   // the line of a host is slow
	JoinHost    = "join-host"    // another host joins, or the one that joined is removed again
	ReplaceHost = "replace-host" // a host is removed, alive or dead, and a new one takes its place
	PromoteHost = "promote-host" // a hand-over to another host on purpose
)

// hostKinds are the kinds that need several hosts.
var hostKinds = []string{KillEngine, KillHost, KillHosts, RestartHost, CutHost, CutOneWay, SlowLinks, JoinHost, ReplaceHost, PromoteHost}

// HostWeights are the weights for a cluster of several hosts.
func HostWeights() Weights {
	return Weights{
		KillEngine: 4, KillLeader: 3, StopContinue: 2, KillHost: 3, KillHosts: 1, RestartHost: 2,
		CutHost: 4, CutOneWay: 3, SlowLinks: 2, JoinHost: 2, ReplaceHost: 1, PromoteHost: 2,
	}
}

// hostFault injects a fault, and ends it unless the cluster itself has to. See fault.do.
type hostFault func(ctx context.Context, r *hostRunner) (label, what string, err error)

var hostFaults = map[string]hostFault{
	KillEngine: killEngine, KillLeader: killHostLeader, StopContinue: stopEngine, KillHost: killHost, KillHosts: killHosts, RestartHost: restartHost,
	CutHost: cutHost, CutOneWay: cutOneWay, SlowLinks: slowLinks, FillDisk: fillHostDisk, JoinHost: joinHost, ReplaceHost: replaceHost, PromoteHost: promoteHost,
}

// possibleOnHosts removes the kinds that exist on a single host only.
func possibleOnHosts(w Weights) (Weights, []string) {
	out, left := Weights{}, []string{}
	for _, kind := range kinds() {
		switch {
		case w[kind] == 0:
		case hostFaults[kind] == nil:
			left = append(left, kind+": only possible with a single host")
		default:
			out[kind] = w[kind]
		}
	}
	return out, left
}

// victim draws a host: in half of the cases the leading one. It says which.
func (r *hostRunner) victim(ctx context.Context) (*site, string) {
	all := r.hc.hosts()
	n, leading := r.rng.IntN(math.MaxInt32), r.rng.IntN(2) == 0 // drawn in any case
	lead := r.hc.leader(ctx)
	s := all[n%len(all)]
	if leading && lead != nil {
		s = lead
	}
	if s == lead {
		return s, "leading host"
	}
	return s, "other host"
}

// between draws a time.
func (r *hostRunner) between(from, to time.Duration) time.Duration {
	return from + time.Duration(r.rng.Int64N(int64(to-from)))
}

func killEngine(ctx context.Context, r *hostRunner) (string, string, error) {
	s, which := r.victim(ctx)
	id := r.hc.engine(ctx, s)
	if id.PID == 0 {
		return "", "", errNoVictim
	}
	return KillEngine + ", " + which, fmt.Sprintf("%s, pid %d", s, id.PID), Signal(id, unix.SIGKILL)
}

// killHostLeader kills dynast's leader on a host. The engine must go on, and if nothing else lets
// requests fail at that time, none may fail.
func killHostLeader(ctx context.Context, r *hostRunner) (string, string, error) {
	s, which := r.victim(ctx)
	t, err := s.c.full(ctx)
	if err != nil {
		return "", "", err
	}
	engine := r.hc.engine(ctx, s)
	calm := r.calm(ctx)
	before := r.h.lost()
	m := t.LeaderMember()
	label, what := KillLeader+" of a host, "+which, fmt.Sprintf("%s: %s", s, describe(m))
	if err := Signal(identify(m), unix.SIGKILL); err != nil {
		return label, what, err
	}
	if _, err := s.c.await(ctx, "a new leader of "+s.String(), newLeader(m)); err != nil {
		return label, what, err
	}
	if err := r.answers(ctx); err != nil {
		return label, what, err
	}
	if failed := r.h.lost() - before; calm && failed > 0 {
		return label, what, fmt.Errorf("%d requests failed although only the leader of a host died; the last error of a client: %s", failed, r.h.lastError())
	}
	if now := r.hc.engine(ctx, s); engine.PID != 0 && now != engine {
		return label, what, fmt.Errorf("the engine of %s was restarted: it was %+v and is %+v", s, engine, now)
	}
	return label, what, nil
}

// stopEngine stops the engine of a host with SIGSTOP. After a time that is shorter than its watchdog it
// must go on; after a longer one it must be another process.
func stopEngine(ctx context.Context, r *hostRunner) (string, string, error) {
	s, which := r.victim(ctx)
	length, label := r.between(100*time.Millisecond, 1500*time.Millisecond), "shorter"
	if r.rng.IntN(2) == 0 {
		length, label = 0, "until it is killed"
	}
	id := r.hc.engine(ctx, s)
	if id.PID == 0 {
		return "", "", errNoVictim
	}
	label = fmt.Sprintf("%s of an engine, %s, %s", StopContinue, which, label)
	what := fmt.Sprintf("%s, pid %d", s, id.PID)
	if err := stopProcess(id); err != nil {
		return label, what, err
	}
	if length > 0 {
		pause(ctx, length)
		return label, fmt.Sprintf("%s for %s", what, length.Round(time.Millisecond)), Signal(id, unix.SIGCONT)
	}
	err := r.hc.await(ctx, "the end of the stopped engine of "+s.String(), func() error {
		if Alive(id) {
			return errors.New("it is still there")
		}
		return nil
	})
	return label, what, errors.Join(err, Signal(id, unix.SIGCONT))
}

func killHost(ctx context.Context, r *hostRunner) (string, string, error) {
	s, which := r.victim(ctx)
	away := r.between(0, 2*time.Second)
	n, err := s.kill()
	pause(ctx, away)
	return KillHost + ", " + which, fmt.Sprintf("%s: %d processes, away for %s", s, n, away.Round(time.Millisecond)), errors.Join(err, s.c.up())
}

// killHosts kills two or more hosts at the same time, so that there is no majority.
func killHosts(ctx context.Context, r *hostRunner) (string, string, error) {
	all := r.hc.hosts()
	n := len(all)/2 + 1
	label := KillHosts + ", a majority"
	if r.rng.IntN(2) == 0 {
		n, label = len(all), KillHosts+", all"
	}
	r.rng.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
	away := r.between(0, 2*time.Second)
	ended := make(chan error, n)
	for _, s := range all[:n] {
		go func() { _, err := s.kill(); ended <- err }()
	}
	var errs []error
	for range n {
		errs = append(errs, <-ended)
	}
	pause(ctx, away)
	for _, s := range all[:n] {
		errs = append(errs, s.c.up())
	}
	return label, fmt.Sprintf("%d of %d hosts, away for %s", n, len(all), away.Round(time.Millisecond)), errors.Join(errs...)
}

func restartHost(ctx context.Context, r *hostRunner) (string, string, error) {
	s, which := r.victim(ctx)
	label, what := RestartHost+", "+which, s.String()
	// A host that is starting cannot be stopped in order yet.
	if _, err := s.c.full(ctx); err != nil {
		return label, what, err
	}
	if err := s.c.stop(ctx); err != nil {
		return label, what, errors.Join(err, s.c.up())
	}
	left, err := s.c.end()
	if err == nil && len(left) > 0 {
		err = fmt.Errorf("%d processes still run after an orderly stop: %v", len(left), left)
	}
	return label, what, errors.Join(err, s.c.up())
}

// cutHost cuts a host off from the others, and in half of the cases from the clients too. If the
// clients still reach it, it must not give them old values.
func cutHost(ctx context.Context, r *hostRunner) (string, string, error) {
	s, which := r.victim(ctx)
	rest, from := r.ends(s), "the other hosts"
	if r.rng.IntN(2) == 0 {
		rest, from = append(rest, r.hc.net.Outside), "hosts and clients"
	}
	length := r.between(300*time.Millisecond, 4*time.Second)
	if r.rng.IntN(10) == 0 { // long enough for connections to be given up
		length = r.between(8*time.Second, 20*time.Second)
	}
	err := r.hc.net.Part([]*netns.Host{s.at}, rest)
	pause(ctx, length)
	return fmt.Sprintf("%s from %s, %s", CutHost, from, which), fmt.Sprintf("%s for %s", s, length.Round(time.Millisecond)), errors.Join(err, r.hc.net.Heal())
}

// ends returns the other hosts' ends of the network.
func (r *hostRunner) ends(not *site) []*netns.Host {
	var out []*netns.Host
	for _, s := range r.hc.others(not) {
		out = append(out, s.at)
	}
	return out
}

func cutOneWay(ctx context.Context, r *hostRunner) (string, string, error) {
	s, which := r.victim(ctx)
	sends := r.rng.IntN(2) == 0
	length := r.between(300*time.Millisecond, 4*time.Second)
	var err error
	for _, other := range r.ends(s) {
		if sends {
			err = errors.Join(err, r.hc.net.Cut(s.at, other))
		} else {
			err = errors.Join(err, r.hc.net.Cut(other, s.at))
		}
	}
	label := CutOneWay + ", it hears nothing, " + which
	if sends {
		label = CutOneWay + ", it is not heard, " + which
	}
	pause(ctx, length)
	return label, fmt.Sprintf("%s for %s", s, length.Round(time.Millisecond)), errors.Join(err, r.hc.net.Heal())
}

func slowLinks(ctx context.Context, r *hostRunner) (string, string, error) {
	s, which := r.victim(ctx)
	delay, speed := r.between(10*time.Millisecond, 150*time.Millisecond), 20_000+r.rng.IntN(200_000)
	length := r.between(500*time.Millisecond, 4*time.Second)
	how := fmt.Sprintf("%d bytes/s", speed)
	if r.hc.net.Delays() {
		how = delay.Round(time.Millisecond).String()
	}
	err := r.hc.net.Slow(s.at, delay, speed)
	pause(ctx, length)
	return SlowLinks + ", " + which, fmt.Sprintf("%s for %s: %s", s, length.Round(time.Millisecond), how), errors.Join(err, r.hc.net.Fast())
}

// fillHostDisk fills the disk of a host to the last byte. Its engine may then fail, as etcd does.
func fillHostDisk(ctx context.Context, r *hostRunner) (string, string, error) {
	s, which := r.victim(ctx)
	full := r.between(500*time.Millisecond, 2*time.Second)
	s.filled = true
	err := s.disk.fill(0)
	pause(ctx, full)
	return FillDisk + ", " + which, fmt.Sprintf("%s for %s", s, full.Round(time.Millisecond)), errors.Join(err, s.disk.makeRoom())
}

// joinHost adds a host, or removes one if it was added.
func joinHost(ctx context.Context, r *hostRunner) (string, string, error) {
	// A change of the hosts needs all the others.
	if err := r.hc.full(ctx); err != nil {
		return "", "", err
	}
	var free *site
	for _, s := range r.hc.sites {
		if s.c == nil {
			free = s
		}
	}
	if free == nil {
		s, which := r.victim(ctx)
		what := s.String()
		return JoinHost + ", undone, " + which, what, r.remove(ctx, s, r.rng.IntN(2) == 0)
	}
	through, which := r.victim(ctx)
	err := r.hc.join(ctx, free, through)
	return JoinHost + " through a " + which, fmt.Sprintf("%s through %s", free, through), err
}

// remove removes a host that is alive or dead, and its data.
func (r *hostRunner) remove(ctx context.Context, s *site, dead bool) error {
	if dead {
		if _, err := s.kill(); err != nil {
			return err
		}
	}
	others := r.hc.others(s)
	by := others[r.rng.IntN(len(others))]
	err := r.hc.await(ctx, "the removal of "+s.String(), func() error {
		_, err := r.hc.order(ctx, by, "hosts", "remove", s.name)
		if err != nil && !dead {
			return fmt.Errorf("%w: %w", errEnded, err)
		}
		return err // without a leader yet, the command says so
	})
	if err != nil {
		return err
	}
	if !dead {
		err = r.hc.await(ctx, s.String()+" knows that it is removed", func() error {
			dir, err := s.c.dir()
			if err != nil {
				return err
			}
			if h, err := dir.ReadHost(); err != nil || !h.Removed {
				return fmt.Errorf("its record says %+v, %v", h, err)
			}
			return nil
		})
	}
	return errors.Join(err, r.look(s), r.hc.clear(s))
}

func replaceHost(ctx context.Context, r *hostRunner) (string, string, error) {
	if err := r.hc.full(ctx); err != nil {
		return "", "", err
	}
	s, which := r.victim(ctx)
	dead := r.rng.IntN(2) == 0
	label, what := ReplaceHost+", alive, "+which, s.String()
	if dead {
		label = ReplaceHost + ", dead, " + which
	}
	if err := r.remove(ctx, s, dead); err != nil {
		return label, what, err
	}
	others := r.hc.others(s)
	err := r.hc.join(ctx, s, others[r.rng.IntN(len(others))])
	return label, fmt.Sprintf("%s by %s", what, s), err
}

// promoteHost hands over to another host.
func promoteHost(ctx context.Context, r *hostRunner) (string, string, error) {
	if err := r.hc.full(ctx); err != nil {
		return "", "", err
	}
	lead := r.hc.leader(ctx)
	n := r.rng.IntN(math.MaxInt32)
	if lead == nil {
		return "", "", errNoVictim
	}
	others := r.hc.others(lead)
	to := others[n%len(others)]
	_, err := r.hc.order(ctx, lead, "promote", to.name)
	return PromoteHost, fmt.Sprintf("%s to %s", lead, to), err
}
