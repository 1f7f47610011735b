package chaos

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"github.com/dynast-io/dynast/shared/proc"
	"github.com/dynast-io/dynast/shared/tree"
)

// The kinds of faults.
const (
	KillLeader      = "kill-leader"
	KillFollower    = "kill-follower"
	KillHeir        = "kill-heir"
	KillSeveral     = "kill-several"     // the leader and one or more others at once
	KillAll         = "kill-all"         // every process; then it is started again
	StopContinue    = "stop-continue"    // SIGSTOP, SIGCONT: leader or follower, shorter and longer than heartbeat.timeout
	KillInTakeover  = "kill-in-takeover" // the leader, and the heir while it inherits
	RestartAll      = "restart-all"      // an orderly stop, and up again
	FillDisk        = "fill-disk"        // somebody else fills the disk for a while
	CorruptFollower = "corrupt-follower" // files of a follower's slot are damaged, and its process killed
	Promote         = "promote"          // a hand-over on purpose, in which no request fails
)

// fault is how a kind is done.
type fault struct {
	kind string
	// own: only to a cluster that this package started.
	own bool
	// do returns what exactly was done: label is short, and tells variants of a
	// kind apart; what names the processes. An error is a finding.
	do func(ctx context.Context, r *runner, t *tree.Tree) (label, what string, err error)
}

func faults() []fault {
	return []fault{
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
	}
}

func kinds() []string {
	var out []string
	for _, f := range faults() {
		out = append(out, f.kind)
	}
	return out
}

// errNobody says that the fault found no victim, and nothing was done.
var errNobody = errors.New("there is nobody to do it to")

func describe(m tree.Member) string {
	return fmt.Sprintf("%s %s (pid %d, slot %d)", m.Role, m.Address, m.PID, m.Slot)
}

func killLeader(_ context.Context, _ *runner, t *tree.Tree) (string, string, error) {
	m := leaderOf(t)
	return KillLeader, describe(m), Signal(identify(m), unix.SIGKILL)
}

func (r *runner) anyFollower(t *tree.Tree) (tree.Member, bool) {
	fs := followersOf(t)
	n := r.rng.Uint64() // drawn in any case: the schedule goes on in the same way
	if len(fs) == 0 {
		return tree.Member{}, false
	}
	return fs[n%uint64(len(fs))], true
}

func killFollower(_ context.Context, r *runner, t *tree.Tree) (string, string, error) {
	m, ok := r.anyFollower(t)
	if !ok {
		return "", "", errNobody
	}
	return KillFollower, describe(m), Signal(identify(m), unix.SIGKILL)
}

func killHeir(_ context.Context, _ *runner, t *tree.Tree) (string, string, error) {
	m, ok := memberAt(t, t.Heir)
	if !ok {
		return "", "", errNobody
	}
	return KillHeir, describe(m), Signal(identify(m), unix.SIGKILL)
}

// killSeveral kills the leader and at least one other, in one go.
func killSeveral(_ context.Context, r *runner, t *tree.Tree) (string, string, error) {
	victims := []tree.Member{leaderOf(t)}
	others := followersOf(t)
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
	return KillAll, fmt.Sprintf("%d processes, and up again", len(left)), r.c.up()
}

// stopContinue stops a process for a while that is shorter than the timeout,
// which nobody may notice, or longer, which has to end it.
func stopContinue(ctx context.Context, r *runner, t *tree.Tree) (string, string, error) {
	victim, who := leaderOf(t), "leader"
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

// killInTakeover kills the leader, and the heir within the time in which it
// inherits.
func killInTakeover(ctx context.Context, r *runner, t *tree.Tree) (string, string, error) {
	heir, ok := memberAt(t, t.Heir)
	wait := time.Duration(r.rng.Int64N(int64(25 * time.Millisecond)))
	if !ok {
		return "", "", errNobody
	}
	leader := leaderOf(t)
	first, second := identify(leader), identify(heir)
	err := Signal(first, unix.SIGKILL)
	pause(ctx, wait)
	err = errors.Join(err, Signal(second, unix.SIGKILL))
	return KillInTakeover, fmt.Sprintf("%s, %s later %s", describe(leader), wait.Round(100*time.Microsecond), describe(heir)), err
}

func restartAll(ctx context.Context, r *runner, t *tree.Tree) (string, string, error) {
	// Nobody starts what is just being stopped.
	if err := r.c.stop(ctx); err != nil {
		return RestartAll, "", err
	}
	left, err := r.c.end()
	if err == nil && len(left) > 0 {
		err = fmt.Errorf("%d processes are left after an orderly stop: %v", len(left), left)
	}
	return RestartAll, fmt.Sprintf("%d members", len(t.Members)), errors.Join(err, r.c.up())
}

// fillDisk lets somebody else fill the disk below the reserve, to its last
// byte in half of the cases, and makes room again.
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

// corruptFollower damages a follower's slot behind the back of its process,
// and kills that.
func corruptFollower(_ context.Context, r *runner, t *tree.Tree) (string, string, error) {
	d := Damages[r.rng.IntN(len(Damages))]
	victim, ok := r.anyFollower(t)
	if !ok {
		return "", "", errNobody
	}
	dir, err := r.c.dir()
	if err != nil {
		return "", "", err
	}
	id := identify(victim)
	if err := Signal(id, unix.SIGSTOP); err != nil { // from here on it changes nothing
		return "", "", err
	}
	what := fmt.Sprintf("%s: %s", describe(victim), d.Name)
	// Since the tree was read it may have died, or have become the leader.
	if s, err := dir.ReadSuccession(); err != nil || s.Slot == victim.Slot || !awaitStopped(id) {
		return "", "", errors.Join(errNobody, Signal(id, unix.SIGCONT))
	}
	// A lock that it holds says the same before succession.json does.
	if owner, err := proc.ReadOwner(dir.ClusterLock()); err != nil || owner.Identity == id {
		return "", "", errors.Join(errNobody, Signal(id, unix.SIGCONT))
	}
	err = d.Do(r.rng, dir.Slot(victim.Slot))
	if errors.Is(err, os.ErrNotExist) {
		err = nil // the file has not been written yet
	}
	return CorruptFollower, what, errors.Join(err, Signal(id, unix.SIGKILL))
}

// awaitStopped waits until SIGSTOP has reached a process; false when it died.
func awaitStopped(id proc.Identity) bool {
	for Alive(id) {
		if proc.Stopped(id) {
			return true
		}
		pause(context.Background(), time.Millisecond)
	}
	return false
}

// promote hands over on purpose, at full strength and when no earlier fault
// lets requests fail any more: then none may fail.
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
			return "", "", errNobody
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
		return Promote, what, fmt.Errorf("%d requests failed in a hand-over on purpose", failed)
	}
	return Promote, what, nil
}

const (
	// calmFor is how long no request may have failed before a hand-over: longer
	// than a client waits before it connects again.
	calmFor = 1500 * time.Millisecond
	// calmPatience is how long that is waited for.
	calmPatience = 15 * time.Second
)

// possible takes the kinds out of weights that cannot be done here, and says
// which and why.
func possible(w Weights, c *cluster, d *disk, noDisk error) (Weights, []string) {
	out, left := Weights{}, []string{}
	for _, f := range faults() {
		switch {
		case w[f.kind] == 0:
			continue
		case f.own && !c.own:
			left = append(left, f.kind+": not to a cluster that somebody else started")
		case f.kind == FillDisk && d == nil:
			left = append(left, fmt.Sprintf("%s: %v", f.kind, noDisk))
		case f.kind == Promote && c.operator.Promote == nil:
			left = append(left, f.kind+": this version cannot hand over on purpose")
		case c.followers == 0 && slices.Contains([]string{KillLeader, KillInTakeover}, f.kind) && !c.own:
			left = append(left, f.kind+": nobody would take over")
		default:
			out[f.kind] = w[f.kind]
		}
	}
	return out, left
}
