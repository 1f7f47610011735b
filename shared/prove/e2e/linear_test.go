package e2e

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"

	"github.com/dynast-io/dynast/shared/observe/tree"
	"github.com/dynast-io/dynast/shared/prove/chaos"
)

// TestLinearizable lets clients put, read, delete and exchange values on a few keys while
// processes are killed and stopped. Then porcupine searches for an order of all operations that a
// single process could have produced.
func TestLinearizable(t *testing.T) {
	seed, rng := seeded(t)
	c := start(t, withTimeout("800ms"))
	h := chaos.NewHistory()
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	for i := range 5 {
		w := &chaos.Client{History: h, ID: i, Stock: c.dial(), Rand: rand.New(rand.NewPCG(seed, uint64(i))), Keys: []string{"linear/0", "linear/1", "linear/2"}}
		wg.Go(func() { w.Run(ctx) })
	}
	t.Cleanup(func() { cancel(); wg.Wait() })
	for round := range rounds(15) {
		c.more(h, 60)
		fault := c.breakSomething(rng)
		t.Logf("round %d: %s", round, fault)
		if rng.IntN(3) > 0 {
			c.revive()
		}
	}
	c.revive()
	c.more(h, 60)
	cancel()
	wg.Wait()
	check(t, h)
}

// breakSomething kills or stops processes at random. Processes that it stops for good must be
// killed by the cluster.
func (c *cluster) breakSomething(rng *rand.Rand) string {
	var tr *tree.Tree
	eventually(c.t, "somebody leads", func() bool {
		c.raise()
		tr = c.tree()
		return tr != nil
	})
	victim := leaderOf(tr)
	if fs := followersOf(tr); rng.IntN(5) < 2 && len(fs) > 0 {
		victim = fs[rng.IntN(len(fs))]
	}
	what := fmt.Sprintf("%s %s (pid %d)", victim.Role, victim.Address, victim.PID)
	switch rng.IntN(8) {
	case 0, 1, 2, 3:
		c.signal(victim, syscall.SIGKILL)
		return "SIGKILL to " + what
	case 4:
		c.signal(victim, syscall.SIGSTOP)
		return "SIGSTOP to " + what
	case 5: // a pause, shorter or longer than the heartbeat timeout
		c.signal(victim, syscall.SIGSTOP)
		pause := time.Duration(rng.IntN(800)) * time.Millisecond
		id := identity(victim)
		time.AfterFunc(pause, func() { signalSame(id, syscall.SIGCONT) })
		return fmt.Sprintf("SIGSTOP for %s to %s", pause, what)
	case 6:
		c.signal(leaderOf(tr), syscall.SIGKILL)
		c.signal(victim, syscall.SIGKILL)
		return "SIGKILL to the leader and to " + what
	default:
		for _, m := range tr.Members {
			c.signal(m, syscall.SIGKILL)
		}
		return "SIGKILL to all"
	}
}

// raise starts the cluster again if no process is left.
func (c *cluster) raise() {
	c.t.Helper()
	if !same(c.last) && len(c.processes()) == 0 {
		c.up()
	}
}

// revive waits until all followers are in sync, and restarts a dead cluster.
func (c *cluster) revive() {
	c.t.Helper()
	eventually(c.t, "full strength", func() bool {
		c.raise()
		tr := c.tree()
		return tr != nil && count(tr, "in_sync") == 2 && !tr.Degraded
	})
}

// more waits for n more answers to clients.
func (c *cluster) more(h *chaos.History, n int) {
	c.t.Helper()
	before := h.Known()
	eventually(c.t, fmt.Sprintf("%d more answers", n), func() bool { c.raise(); return h.Known() >= before+n })
}

// check fails the test if no single process could have produced the history.
func check(t *testing.T, h *chaos.History) {
	t.Helper()
	ops := h.Operations()
	t.Logf("%d operations, %d of them with an answer", len(ops), h.Known())
	switch l := chaos.CheckLinear(ops, patience); l.Result {
	case porcupine.Ok:
	case porcupine.Unknown:
		t.Log("porcupine did not finish: the history may or may not be linearizable")
	default:
		t.Errorf("the history is not linearizable\n%s", tail(l.Explain(), 20000))
	}
	for _, wrong := range chaos.CheckRevisions(ops) {
		t.Error(wrong)
	}
}
