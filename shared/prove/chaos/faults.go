package chaos

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"github.com/dynast-io/dynast/shared/host/proc"
	"github.com/dynast-io/dynast/shared/observe/tree"
)

// Kinds of faults.
const (
	KillLeader      = "kill-leader"
	KillFollower    = "kill-follower"
	KillHeir        = "kill-heir"
	KillSeveral     = "kill-several"     // the leader and one or more others at once
	KillAll         = "kill-all"         // every process, then the cluster is started again
	StopContinue    = "stop-continue"    // SIGSTOP, then SIGCONT, on the leader or a follower, for less or more than heartbeat.timeout
	KillInTakeover  = "kill-in-takeover" // the leader, then the heir during its takeover
	RestartAll      = "restart-all"      // an orderly stop, then a start
	FillDisk        = "fill-disk"        // another program fills the disk for a while
	CorruptFollower = "corrupt-follower" // files of a follower's slot are damaged, and its process is killed
	Promote         = "promote"          // a hand-over on purpose, in which no request may fail
)

// fault implements a kind of fault.
type fault struct {
	kind string
	// own says that the fault is injected only into a cluster that this package started.
	own bool
	// do injects the fault and describes it. label is short and distinguishes variants of a kind;
	// what names the processes. An error is a finding.
	do func(ctx context.Context, r *runner, t *tree.Tree) (label, what string, err error)
}

func faults() []fault {
	return append([]fault{
		{KillLeader, false, killLeader},
		{KillFollower, false, killFollower},
		{KillHeir, false, killHeir},
		{KillSeveral, true, killSeveral},
		{KillAll, true, killAll},
		{StopContinue, false, stopContinue},
		{KillInTakeover, false, killInTakeover},
		{RestartAll, true, restartAll},
		{FillDisk, true, fillDisk},
		{CorruptFollower, true, corruptFollower},
		{Promote, false, promote},
	}, serviceFaults()...)
}

func kinds() []string {
	var out []string
	for _, f := range faults() {
		out = append(out, f.kind)
	}
	return append(out, hostKinds...)
}

// errNoVictim says that the fault found no process, and nothing was done.
var errNoVictim = errors.New("no process to apply the fault to")

func describe(m tree.Member) string {
	return fmt.Sprintf("%s %s (pid %d, slot %d)", m.Role, m.Address, m.PID, m.Slot)
}

func killLeader(_ context.Context, _ *runner, t *tree.Tree) (string, string, error) {
	m := t.LeaderMember()
	return KillLeader, describe(m), Signal(identify(m), unix.SIGKILL)
}

func (r *runner) anyFollower(t *tree.Tree) (tree.Member, bool) {
	fs := t.FollowerMembers()
	n := r.rng.Uint64() // drawn in any case, so that the rest of the schedule does not change
	if len(fs) == 0 {
		return tree.Member{}, false
	}
	return fs[n%uint64(len(fs))], true
}

func killFollower(_ context.Context, r *runner, t *tree.Tree) (string, string, error) {
	m, ok := r.anyFollower(t)
	if !ok {
		return "", "", errNoVictim
	}
	return KillFollower, describe(m), Signal(identify(m), unix.SIGKILL)
}

func killHeir(_ context.Context, _ *runner, t *tree.Tree) (string, string, error) {
	m, ok := t.MemberAt(t.Heir)
	if !ok {
		return "", "", errNoVictim
	}
	return KillHeir, describe(m), Signal(identify(m), unix.SIGKILL)
}

// killSeveral kills the leader and at least one other process at once.
func killSeveral(_ context.Context, r *runner, t *tree.Tree) (string, string, error) {
	victims := []tree.Member{t.LeaderMember()}
	others := t.FollowerMembers()
	r.rng.Shuffle(len(others), func(i, j int) { others[i], others[j] = others[j], others[i] })
	n := 1 + int(r.rng.Uint64()%2)
	victims = append(victims, others[:min(n, max(len(others)-1, 0))]...)
	if len(victims) == 1 && len(others) > 0 {
		victims = append(victims, others[0])
	}
	var what string
	var ids []proc.Identity
	for _, m := range victims {
		ids = append(ids, identify(m))
		what += describe(m) + " "
	}
	var err error
	for _, id := range ids {
		err = errors.Join(err, Signal(id, unix.SIGKILL))
	}
	return KillSeveral, what, err
}

func killAll(_ context.Context, r *runner, t *tree.Tree) (string, string, error) {
	left, err := r.c.end()
	if err != nil {
		return KillAll, "", err
	}
	return KillAll, fmt.Sprintf("%d processes, then a new start: %v", len(left), left), r.c.up()
}

// stopContinue stops a process with SIGSTOP. A stop that is shorter than the timeout must have no
// effect. A longer one must end the process.
func stopContinue(ctx context.Context, r *runner, t *tree.Tree) (string, string, error) {
	victim, who := t.LeaderMember(), "leader"
	if f, ok := r.anyFollower(t); ok && r.rng.Uint64()%2 == 0 {
		victim, who = f, "follower"
	}
	t0 := float64(r.c.heartbeat)
	pauseFor, length := time.Duration(t0*(0.1+0.6*r.rng.Float64())), "shorter"
	if r.rng.Uint64()%2 == 0 {
		pauseFor, length = time.Duration(t0*(1.3+r.rng.Float64())), "longer"
	}
	label := fmt.Sprintf("%s %s, %s", StopContinue, who, length)
	what := fmt.Sprintf("%s for %s", describe(victim), pauseFor.Round(time.Millisecond))
	id := identify(victim)
	err := Signal(id, unix.SIGSTOP)
	pause(ctx, pauseFor)
	return label, what, errors.Join(err, Signal(id, unix.SIGCONT))
}

// killInTakeover kills the leader, and then the heir during its takeover.
func killInTakeover(ctx context.Context, r *runner, t *tree.Tree) (string, string, error) {
	heir, ok := t.MemberAt(t.Heir)
	wait := time.Duration(r.rng.Int64N(int64(25 * time.Millisecond)))
	if !ok {
		return "", "", errNoVictim
	}
	leader := t.LeaderMember()
	first, second := identify(leader), identify(heir)
	err := Signal(first, unix.SIGKILL)
	pause(ctx, wait)
	err = errors.Join(err, Signal(second, unix.SIGKILL))
	return KillInTakeover, fmt.Sprintf("%s, %s later %s", describe(leader), wait.Round(100*time.Microsecond), describe(heir)), err
}

func restartAll(ctx context.Context, r *runner, t *tree.Tree) (string, string, error) {
	return RestartAll, fmt.Sprintf("%d members", len(t.Members)), r.ordered(ctx, "", func() error {
		// While the cluster is being stopped, nothing may start it again.
		if err := r.c.stop(ctx); err != nil {
			return err
		}
		left, err := r.c.end()
		if err == nil && r.programs != nil {
			var programs []proc.Identity
			programs, err = r.programs.left()
			left = append(left, programs...)
		}
		if err == nil && len(left) > 0 {
			err = fmt.Errorf("%d processes still run after an orderly stop: %v", len(left), left)
		}
		return errors.Join(err, r.c.up())
	})
}

// fillDisk fills the disk below the reserve, and in half of the cases to the last byte. Then it
// makes room again.
func fillDisk(ctx context.Context, r *runner, _ *tree.Tree) (string, string, error) {
	full := time.Duration(500+r.rng.IntN(1500)) * time.Millisecond
	leave, label := r.cfg.DiskReserve/2, FillDisk+" below the reserve"
	if r.rng.Uint64()%2 == 0 {
		leave, label = 0, FillDisk+" to the last byte"
	}
	err := r.disk.fill(leave)
	pause(ctx, full)
	return label, fmt.Sprintf("%d bytes left for %s", leave, full), errors.Join(err, r.disk.makeRoom())
}

// corruptFollower damages a follower's slot while its process is stopped, and kills the process.
func corruptFollower(_ context.Context, r *runner, t *tree.Tree) (string, string, error) {
	d := Damages[r.rng.IntN(len(Damages))]
	victim, ok := r.anyFollower(t)
	if !ok {
		return "", "", errNoVictim
	}
	dir, err := r.c.dir()
	if err != nil {
		return "", "", err
	}
	id := identify(victim)
	if err := Signal(id, unix.SIGSTOP); err != nil { // from here on the process changes no file
		return "", "", err
	}
	what := fmt.Sprintf("%s: %s", describe(victim), d.Name)
	// The process may have died since the tree was read, or may have become the leader.
	if s, err := dir.ReadSuccession(); err != nil || s.Slot == victim.Slot || !awaitStopped(id) {
		return "", "", errors.Join(errNoVictim, Signal(id, unix.SIGCONT))
	}
	// A new leader holds the lock before succession.json names it.
	if owner, err := proc.ReadOwner(dir.ClusterLock()); err != nil || owner.Identity == id {
		return "", "", errors.Join(errNoVictim, Signal(id, unix.SIGCONT))
	}
	err = d.Do(r.rng, dir.Slot(victim.Slot))
	if errors.Is(err, os.ErrNotExist) {
		err = nil // the file was not written yet
	}
	return CorruptFollower, what, errors.Join(err, Signal(id, unix.SIGKILL))
}

// awaitStopped waits until SIGSTOP has reached a process. It returns false if the process died.
func awaitStopped(id proc.Identity) bool {
	for Alive(id) {
		if proc.Stopped(id) {
			return true
		}
		pause(context.Background(), time.Millisecond)
	}
	return false
}

// promote hands over on purpose. All followers must be in sync, and no earlier fault may still
// let requests fail. Then no request may fail in the hand-over.
func promote(ctx context.Context, r *runner, _ *tree.Tree) (string, string, error) {
	t, err := r.c.full(ctx)
	if err != nil {
		return "", "", err
	}
	calm := time.Now()
	before := r.h.lost()
	for deadline := calm.Add(calmPatience); time.Since(calm) < calmFor; {
		if now := r.h.lost(); now != before {
			before, calm = now, time.Now()
		}
		if time.Now().After(deadline) || !pause(ctx, 10*time.Millisecond) {
			return "", "", errNoVictim
		}
	}
	what := fmt.Sprintf("%s to %s", t.Leader, t.Heir)
	if err := r.c.operator.Promote(ctx, r.c.dataDir); err != nil {
		return Promote, what, err
	}
	known := r.h.Known()
	for deadline := time.Now().Add(r.cfg.Patience); r.h.Known() < known+answersBetween && time.Now().Before(deadline); {
		if !pause(ctx, 5*time.Millisecond) {
			return Promote, what, ctx.Err()
		}
	}
	if failed := r.h.lost() - before; failed > 0 {
		return Promote, what, fmt.Errorf("%d requests failed during a hand-over on purpose", failed)
	}
	return Promote, what, nil
}

const (
	// calmFor is the time without a failed request that is required before a hand-over. It is
	// longer than a client waits before it connects again.
	calmFor = 1500 * time.Millisecond
	// calmPatience bounds the wait for that.
	calmPatience = 15 * time.Second
)

// possible removes the kinds of faults that cannot be injected here, and returns the reason for
// each.
func possible(w Weights, c *cluster, d *disk, noDisk error, services bool) (Weights, []string) {
	out, left := Weights{}, []string{}
	for _, kind := range hostKinds {
		if w[kind] > 0 {
			left = append(left, kind+": only possible with several hosts (--hosts)")
		}
	}
	for _, f := range faults() {
		switch {
		case w[f.kind] == 0:
			continue
		case f.own && !c.own:
			left = append(left, f.kind+": only possible in a cluster that this command started")
		case hitsServices(f.kind) && !services:
			left = append(left, f.kind+": this run has no services")
		case f.kind == FillDisk && d == nil:
			left = append(left, fmt.Sprintf("%s: %v", f.kind, noDisk))
		case f.kind == Promote && c.operator.Promote == nil:
			left = append(left, f.kind+": this version has no hand-over on purpose")
		case c.followers == 0 && slices.Contains([]string{KillLeader, KillInTakeover}, f.kind) && !c.own:
			left = append(left, f.kind+": no follower would take over")
		default:
			out[f.kind] = w[f.kind]
		}
	}
	return out, left
}
