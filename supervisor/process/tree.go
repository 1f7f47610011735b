package process

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/dynast-io/dynast/shared/host/cgroup"
	"github.com/dynast-io/dynast/shared/host/proc"
)

// TokenVariable is the environment variable with the random token of an instance's start.
const TokenVariable = "DYNAST_INSTANCE_TOKEN"

// Instance is what is known about the processes of one instance of a service. Every field may be
// empty.
type Instance struct {
	// Main is the program, which was started in a session of its own.
	Main proc.Identity
	// Watched says that this process has watched Main while it was alive, and that Main lives or has
	// just died. Then a process in Main's session belongs to the instance even if Main no longer
	// exists. Otherwise the session's number may have become another session's.
	Watched bool
	Lock    string        // the path of the lock file
	Token   string        // the value of TokenVariable
	Group   *cgroup.Group // the instance's own group
	// Members are the members of this cluster. They never count as part of an instance.
	Members []proc.Identity

	known []proc.Identity // found by KillTree before
}

// Tree returns the living processes of an instance. If the instance has a control group, they are
// Main and the members of the group. Otherwise they are
//
//   - Main and the processes of its session;
//   - processes that hold the lock, unless the descriptor is close-on-exec: such a process may be
//     the child of a member between fork and exec, for another instance;
//   - processes with the token in their environment;
//   - descendants of all these.
//
// A daemon that has left the session, closed the lock, cleared its environment and lost its parent
// can only be found in a control group.
//
// No pid is taken for another process's: each identity is checked.
func (i Instance) Tree() ([]proc.Identity, error) {
	if i.Group != nil {
		// The group names its members, so that a host with thousands of processes need not be
		// searched.
		t := newTree(i, i.named())
		if err := t.addGroup(); err != nil {
			return nil, err
		}
		return t.identities(), nil
	}
	entries, err := proc.List()
	if err != nil {
		return nil, err
	}
	t := newTree(i, entries)
	if err := t.addAll(); err != nil {
		return nil, err
	}
	return t.identities(), nil
}

// named returns those processes that are known by name and live.
func (i Instance) named() []proc.Entry {
	var out []proc.Entry
	for _, id := range append([]proc.Identity{i.Main}, i.known...) {
		if now, err := proc.Identify(id.PID); err == nil && now == id {
			out = append(out, proc.Entry{Identity: id})
		}
	}
	return out
}

// tree is a search for the processes of an instance.
type tree struct {
	instance Instance
	entries  []proc.Entry // living processes that may be part of an instance
	found    map[int]proc.Identity
}

func newTree(i Instance, entries []proc.Entry) *tree {
	excluded := append([]proc.Identity{proc.Self()}, i.Members...)
	t := &tree{instance: i, found: map[int]proc.Identity{}}
	for _, e := range entries {
		if !e.Dead && !slices.Contains(excluded, e.Identity) {
			t.entries = append(t.entries, e)
		}
	}
	t.addIf(func(e proc.Entry) bool { return e.Identity == i.Main || slices.Contains(i.known, e.Identity) })
	return t
}

func (t *tree) addIf(condition func(proc.Entry) bool) (added bool) {
	for _, e := range t.entries {
		if _, ok := t.found[e.PID]; !ok && condition(e) {
			t.found[e.PID] = e.Identity
			added = true
		}
	}
	return added
}

func (t *tree) addAll() error {
	i := t.instance
	if i.Lock != "" {
		holders, err := proc.LockHolders(i.Lock)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		var ids []proc.Identity
		for _, h := range holders {
			if !h.CloseOnExec {
				ids = append(ids, h.Identity)
			}
		}
		t.addIdentities(ids)
	}
	if i.Token != "" {
		ids, err := proc.WithEnvironment(TokenVariable, i.Token)
		if err != nil {
			return err
		}
		t.addIdentities(ids)
	}
	t.addSession()
	t.addDescendants()
	return nil
}

// addIdentities adds processes that may have started after the listing.
func (t *tree) addIdentities(ids []proc.Identity) {
	for _, id := range ids {
		if !slices.Contains(t.instance.Members, id) {
			t.found[id.PID] = id
		}
	}
}

// addSession adds the processes of Main's session. The session's number is Main's pid.
func (t *tree) addSession() {
	main := t.instance.Main
	if main.PID <= 0 {
		return
	}
	inSession := func(e proc.Entry) bool { return e.Session == main.PID && e.StartTime >= main.StartTime }
	// The number stays this session's as long as the session has a process. So one process that
	// is known to be the instance's and is in the session is enough, too.
	if t.instance.ownsSession() || slices.ContainsFunc(t.entries, func(e proc.Entry) bool {
		return inSession(e) && t.found[e.PID] == e.Identity
	}) {
		t.addIf(inSession)
	}
}

// ownsSession reports whether a session with the number of Main's pid can only be Main's. It is
// asked after the listing: then it was true during the listing as well.
func (i Instance) ownsSession() bool {
	if i.Main.PID <= 0 {
		return false
	}
	if proc.Exists(i.Main) {
		return true
	}
	_, err := proc.Identify(i.Main.PID)
	return i.Watched && errors.Is(err, proc.ErrGone) // otherwise the number is another process's
}

// addDescendants adds children until there are no more.
func (t *tree) addDescendants() {
	for t.addIf(t.isChild) {
	}
}

// isChild reports whether the parent of a process was found. A child is not older than its parent.
// The parent must still exist now, so that its pid was its own when the child was listed.
func (t *tree) isChild(e proc.Entry) bool {
	parent, ok := t.found[e.PPID]
	return ok && e.StartTime >= parent.StartTime && proc.Exists(parent)
}

func (t *tree) addGroup() error {
	pids, err := t.instance.Group.Procs()
	if err != nil {
		return err
	}
	for _, pid := range pids {
		id, err := proc.Identify(pid)
		if err == nil && id != proc.Self() {
			t.addIdentities([]proc.Identity{id})
		}
	}
	return nil
}

// identities returns what was found, the oldest first.
func (t *tree) identities() []proc.Identity {
	var ids []proc.Identity
	for _, id := range t.found {
		ids = append(ids, id)
	}
	slices.SortFunc(ids, func(a, b proc.Identity) int {
		if a.StartTime != b.StartTime {
			return cmp.Compare(a.StartTime, b.StartTime)
		}
		return cmp.Compare(a.PID, b.PID)
	})
	return ids
}

// KillTree sends SIGKILL to all processes of an instance until none is left. If Main is a child of
// this process, it should be reaped only afterwards (proc.Process.Exit): until then its session's
// number cannot become another's. The error says what is left when ctx ends.
func (i Instance) KillTree(ctx context.Context) error {
	if err := i.killGroup(ctx); err != nil {
		return err
	}
	for {
		ids, err := i.stopTree(ctx)
		if err != nil || len(ids) == 0 {
			return err
		}
		if err := i.signalSession(unix.SIGKILL); err != nil {
			return err
		}
		if err := killAndWait(ctx, ids); err != nil {
			return err
		}
	}
}

// stopTree stops all processes with SIGSTOP and returns them. A stopped process does not fork. If
// a parent died first, its children might not be found any more.
func (i *Instance) stopTree(ctx context.Context) ([]proc.Identity, error) {
	if err := i.signalSession(unix.SIGSTOP); err != nil {
		return nil, err
	}
	for {
		ids, err := i.Tree()
		if err != nil {
			return nil, err
		}
		var more []proc.Identity
		for _, id := range ids {
			if !slices.Contains(i.known, id) {
				more = append(more, id)
			}
		}
		if err := signalAll(more, unix.SIGSTOP); err != nil {
			return nil, err
		}
		i.known = append(i.known, more...)
		// When ctx has ended, what was found is still killed.
		if len(more) == 0 || ctx.Err() != nil {
			return ids, nil
		}
	}
}

// signalSession signals the process group with the number of Main's session. All its processes
// get the signal at once, so that no fork within the group escapes.
func (i *Instance) signalSession(sig unix.Signal) error {
	if !i.ownsSession() {
		return nil
	}
	i.Watched = true // from now on
	if err := unix.Kill(-i.Main.PID, sig); errors.Is(err, unix.EPERM) {
		return fmt.Errorf("%s to process group %d: %w", unix.SignalName(sig), i.Main.PID, err)
	}
	return nil
}

// killGroup kills the processes of the instance's control group.
func (i Instance) killGroup(ctx context.Context) error {
	if i.Group == nil {
		return nil
	}
	pids, err := i.Group.Procs()
	if err != nil {
		return err
	}
	for _, id := range append([]proc.Identity{proc.Self()}, i.Members...) {
		if slices.Contains(pids, id.PID) && proc.Exists(id) {
			return fmt.Errorf("kill control group %s: it contains %v, a member of this cluster", i.Group.Path(), id)
		}
	}
	if err := i.Group.Kill(); err != nil {
		return err
	}
	return i.Group.WaitEmpty(ctx)
}

// signalAll signals processes. It is no error if they are gone.
func signalAll(ids []proc.Identity, sig unix.Signal) error {
	for _, id := range ids {
		if err := proc.Signal(id, sig); err != nil {
			return err
		}
	}
	return nil
}

// killAndWait kills processes and waits for their deaths.
func killAndWait(ctx context.Context, ids []proc.Identity) error {
	var open []*proc.Process
	defer func() {
		for _, p := range open {
			_ = p.Close()
		}
	}()
	for _, id := range ids {
		p, err := proc.Open(id)
		if errors.Is(err, proc.ErrGone) {
			continue
		}
		if err != nil {
			return err
		}
		open = append(open, p)
		if err := p.Kill(); err != nil && !errors.Is(err, proc.ErrGone) {
			return err
		}
	}
	for _, p := range open {
		select {
		case <-p.Done():
		case <-ctx.Done():
			return fmt.Errorf("%v does not end: %w", p.Identity(), ctx.Err())
		}
	}
	return nil
}
