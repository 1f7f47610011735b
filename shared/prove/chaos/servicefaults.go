package chaos

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/dynast-io/dynast/shared/host/proc"
	"github.com/dynast-io/dynast/shared/observe/tree"
)

// Kinds of faults that hit services.
const (
	KillProgram     = "kill-program"     // the main process of an instance, or a child of it
	KillTree        = "kill-tree"        // all processes of an instance at once
	KillInSpawn     = "kill-in-spawn"    // a program, then the leader while it starts it again
	KillBetween     = "kill-between"     // the leader, then a program while no member leads
	KillAllPrograms = "kill-all-program" // all members, then a program, then the cluster is started again
	StopProgram     = "stop-program"     // SIGSTOP, then SIGCONT, on a program
	BurstOutput     = "burst-output"     // a program writes up to 2 MB at once; in half of the cases the leader is killed
	RestartService  = "restart-service"  // an order to restart a service, also a rolling one; in half of the cases the leader is killed
)

// serviceFaults are the faults that need services.
func serviceFaults() []fault {
	return []fault{
		{KillProgram, true, killProgram},
		{KillTree, true, killTree},
		{KillInSpawn, true, killInSpawn},
		{KillBetween, true, killBetween},
		{KillAllPrograms, true, killAllProgram},
		{StopProgram, true, stopProgram},
		{BurstOutput, true, burstOutput},
		{RestartService, true, restartService},
	}
}

// hitsServices reports whether a kind of fault needs services.
func hitsServices(kind string) bool {
	return slices.ContainsFunc(serviceFaults(), func(f fault) bool { return f.kind == kind })
}

// victim is an instance and its processes.
type victim struct {
	instance string
	main     proc.Identity // zero if it has none
	all      []proc.Identity
}

func (v victim) String() string { return fmt.Sprintf("%s (pid %d)", v.instance, v.main.PID) }

// victim chooses an instance with a process.
func (r *runner) victim(roles ...string) (victim, error) {
	role := roles[r.rng.IntN(len(roles))]
	v := victim{instance: fmt.Sprintf("%s/%d", role, 1+r.rng.IntN(r.cfg.Services))}
	if role != roleBurst {
		v.instance = role + "/1"
	}
	holders, err := proc.LockHolders(filepath.Join(r.c.dataDir, "services", filepath.FromSlash(v.instance), "lock"))
	if err != nil {
		return v, err
	}
	for _, h := range holders {
		if h.CloseOnExec {
			continue // a member that is about to start it
		}
		v.all = append(v.all, h.Identity)
		// A child has the environment of its parent until its exec.
		if role, ok := proc.Variable(h.PID, roleVariable); ok && role != roleChild && (v.main.PID == 0 || h.StartTime < v.main.StartTime) {
			v.main = h.Identity
		}
	}
	if v.main.PID == 0 {
		return v, errNoVictim
	}
	return v, nil
}

// mortal are the roles that faults may end.
var mortal = []string{roleBurst, roleBurst, roleBurst, roleAnswer, roleStubborn, roleCoded}

// kill kills a process of an instance, and records it before.
func (p *programs) kill(instance string, id proc.Identity) error {
	p.mu.Lock()
	p.t.killed = append(p.t.killed, kill{at: time.Now().UnixNano(), id: id, instance: instance})
	p.mu.Unlock()
	return errors.Join(p.note("kill %s of %s", id, instance), Signal(id, unix.SIGKILL))
}

// killMember kills a member, and records it.
func (r *runner) killMember(m tree.Member) error {
	id := identify(m)
	return errors.Join(r.programs.note("kill %s: %s", id, describe(m)), Signal(id, unix.SIGKILL))
}

// blindly does something during which there may be no leader. full says that it does not end
// before all followers are in sync; that is for something that has a late effect.
func (r *runner) blindly(ctx context.Context, full bool, f func() error) error {
	if r.programs == nil {
		return f()
	}
	ctx = context.WithoutCancel(ctx)
	s := span{from: time.Now().UnixNano()}
	starts := r.c.started()
	err := f()
	if full {
		_, failed := r.c.full(ctx)
		err = errors.Join(err, failed)
	} else {
		_, failed := r.c.await(ctx, "a leader", leads)
		err = errors.Join(err, failed)
	}
	s.to = time.Now().UnixNano()
	p := r.programs
	p.mu.Lock()
	defer p.mu.Unlock()
	p.t.blind = append(p.t.blind, s)
	if r.c.started() != starts {
		p.t.dead = append(p.t.dead, s)
	}
	return err
}

func leads(t *tree.Tree) bool { return t.LeaderMember().PID != 0 }

// ordered does something that restarts a service, or all of them, and waits until it is done.
func (r *runner) ordered(ctx context.Context, service string, f func() error) error {
	if r.programs == nil {
		return f()
	}
	s := span{service: service, from: time.Now().UnixNano()}
	err := f()
	err = errors.Join(err, r.programs.settled(context.WithoutCancel(ctx)))
	s.to = time.Now().UnixNano()
	p := r.programs
	p.mu.Lock()
	defer p.mu.Unlock()
	p.t.orders = append(p.t.orders, s)
	return err
}

func killProgram(_ context.Context, r *runner, _ *tree.Tree) (string, string, error) {
	v, err := r.victim(mortal...)
	child := r.rng.IntN(3) == 0
	if err != nil {
		return "", "", err
	}
	if !child || len(v.all) < 2 {
		return KillProgram, v.String(), r.programs.kill(v.instance, v.main)
	}
	others := slices.DeleteFunc(v.all, func(id proc.Identity) bool { return id == v.main })
	return KillProgram + " child", fmt.Sprintf("child pid %d of %s", others[0].PID, v), r.programs.kill(v.instance, others[0])
}

func killTree(_ context.Context, r *runner, _ *tree.Tree) (string, string, error) {
	v, err := r.victim(mortal...)
	if err != nil {
		return "", "", err
	}
	r.rng.Shuffle(len(v.all), func(i, j int) { v.all[i], v.all[j] = v.all[j], v.all[i] })
	for _, id := range v.all {
		err = errors.Join(err, r.programs.kill(v.instance, id))
	}
	return KillTree, fmt.Sprintf("%s with %d processes", v, len(v.all)), err
}

// upTo draws a time.
func (r *runner) upTo(most time.Duration) time.Duration {
	return time.Duration(r.rng.Int64N(int64(most)))
}

func killInSpawn(ctx context.Context, r *runner, t *tree.Tree) (string, string, error) {
	v, err := r.victim(mortal...)
	wait := r.upTo(12 * time.Millisecond)
	if err != nil {
		return "", "", err
	}
	leader := t.LeaderMember()
	what := fmt.Sprintf("%s, %s later %s", v, wait.Round(100*time.Microsecond), describe(leader))
	return KillInSpawn, what, r.blindly(ctx, false, func() error {
		err := r.programs.kill(v.instance, v.main)
		pause(ctx, wait)
		return errors.Join(err, r.killMember(leader))
	})
}

func killBetween(ctx context.Context, r *runner, t *tree.Tree) (string, string, error) {
	v, err := r.victim(mortal...)
	wait := r.upTo(40 * time.Millisecond)
	if err != nil {
		return "", "", err
	}
	leader := t.LeaderMember()
	what := fmt.Sprintf("%s, %s later %s", describe(leader), wait.Round(100*time.Microsecond), v)
	return KillBetween, what, r.blindly(ctx, false, func() error {
		err := r.killMember(leader)
		pause(ctx, wait)
		return errors.Join(err, r.programs.kill(v.instance, v.main))
	})
}

// killAllProgram kills all members and then a program. In half of the cases the program comes
// first, so that the members die while they start it again.
func killAllProgram(ctx context.Context, r *runner, _ *tree.Tree) (string, string, error) {
	v, err := r.victim(mortal...)
	first, wait := r.rng.IntN(2) == 0, r.upTo(12*time.Millisecond)
	if err != nil {
		return "", "", err
	}
	what := fmt.Sprintf("all members, then %s", v)
	if first {
		what = fmt.Sprintf("%s, %s later all members", v, wait.Round(100*time.Microsecond))
	}
	return KillAllPrograms, what, r.blindly(ctx, false, func() error {
		if first {
			err = r.programs.kill(v.instance, v.main)
			pause(ctx, wait)
		}
		members, failed := r.c.end()
		err = errors.Join(err, failed, r.programs.note("killed all members: %v", members))
		if !first {
			err = errors.Join(err, r.programs.kill(v.instance, v.main))
		}
		return errors.Join(err, r.c.up())
	})
}

func stopProgram(ctx context.Context, r *runner, _ *tree.Tree) (string, string, error) {
	v, err := r.victim(append(mortal, roleCalm)...)
	stopped := r.upTo(600 * time.Millisecond)
	if err != nil {
		return "", "", err
	}
	err = errors.Join(r.programs.note("stop %s of %s", v.main, v.instance), Signal(v.main, unix.SIGSTOP))
	pause(ctx, stopped)
	err = errors.Join(err, r.programs.note("continue %s of %s", v.main, v.instance), Signal(v.main, unix.SIGCONT))
	return StopProgram, fmt.Sprintf("%s for %s", v, stopped.Round(time.Millisecond)), err
}

func burstOutput(ctx context.Context, r *runner, t *tree.Tree) (string, string, error) {
	v, err := r.victim(append(mortal, roleCalm)...)
	lines, alone, wait := 1000+r.rng.IntN(30000), r.rng.IntN(2) == 0, r.upTo(60*time.Millisecond)
	if err != nil {
		return "", "", err
	}
	token, ok := proc.Variable(v.main.PID, "DYNAST_INSTANCE_TOKEN")
	if !ok {
		return "", "", errNoVictim
	}
	request := filepath.Join(r.programs.dir, fmt.Sprintf("%s-%d%s", token[:min(len(token), 8)], v.main.PID, burstSuffix))
	what := fmt.Sprintf("%d lines of %s", lines, v)
	if err := errors.Join(r.programs.note("burst of %s of %s", v.main, v.instance), os.WriteFile(request+"~", fmt.Append(nil, lines), 0o600), os.Rename(request+"~", request)); err != nil {
		return BurstOutput, what, err
	}
	label := BurstOutput
	if !alone {
		leader := t.LeaderMember()
		label += ", leader killed"
		what += fmt.Sprintf(", %s later %s", wait.Round(time.Millisecond), describe(leader))
		err = r.blindly(ctx, false, func() error {
			pause(ctx, wait)
			return r.killMember(leader)
		})
	}
	// The program may have ended meanwhile.
	for deadline := time.Now().Add(r.cfg.Patience); Alive(v.main); {
		if _, failed := os.Stat(request); errors.Is(failed, os.ErrNotExist) {
			break
		}
		if time.Now().After(deadline) {
			err = errors.Join(err, fmt.Errorf("%s did not write within %s", v, r.cfg.Patience))
			break
		}
		if !pause(ctx, 5*time.Millisecond) {
			break
		}
	}
	return label, what, err
}

// restartService gives an order to restart. Without another fault it must succeed.
func restartService(ctx context.Context, r *runner, _ *tree.Tree) (string, string, error) {
	names := []string{roleBurst, roleBurst + "/1", roleAnswer, roleStubborn}
	name := names[r.rng.IntN(len(names))]
	rolling := name == roleBurst && r.rng.IntN(2) == 0
	alone, wait := r.rng.IntN(2) == 0, r.upTo(150*time.Millisecond)
	t, err := r.c.full(ctx)
	if err != nil {
		return "", "", err
	}
	label, what := RestartService, name
	if rolling {
		label, what = label+", rolling", what+", one instance after the other"
	}
	restart := func() error { return r.c.operator.Restart(ctx, r.c.dataDir, name, rolling) }
	service, _, _ := strings.Cut(name, "/")
	if err := r.programs.note("restart %s, rolling: %t", name, rolling); err != nil {
		return label, what, err
	}
	if alone {
		return label, what, r.ordered(ctx, service, restart)
	}
	leader := t.LeaderMember()
	what += fmt.Sprintf(", %s later kill %s", wait.Round(time.Millisecond), describe(leader))
	return label + ", leader killed", what, r.ordered(ctx, service, func() error {
		return r.blindly(ctx, false, func() error {
			done := make(chan struct{})
			go func() {
				defer close(done)
				_ = restart() // it may fail, because the leader dies
			}()
			pause(ctx, wait)
			err := r.killMember(leader)
			<-done
			return err
		})
	})
}
